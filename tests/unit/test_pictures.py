"""A picture is complete, or it is told what is wrong with it, however its bytes were portioned."""

import contextlib
import hashlib
import io
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dujiang.storage.pictures import BrokenPicture, Checked, PictureCheck

SIZE = (37, 23)


def a_picture(kind: str, **options: object) -> bytes:
    noise = Image.effect_noise(SIZE, 90).convert("RGB")
    file = io.BytesIO()
    noise.save(file, kind, **options)
    return file.getvalue()


def a_png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [len(data).to_bytes(4, "big"), kind, data, zlib.crc32(kind + data).to_bytes(4, "big")]
    return b"".join(parts)


IHDR = (b"IHDR", b"\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0")
PICTURES = {
    "png": a_picture("PNG"),
    "jpeg": a_picture("JPEG", quality=95),
    "progressive jpeg": a_picture("JPEG", progressive=True),
    "jpeg with restarts": a_picture("JPEG", restart_marker_blocks=1),
    "jpeg with a thumbnail": a_picture("JPEG", exif=b"Exif\0\0" + a_picture("JPEG")),
    "webp": a_picture("WEBP"),
    "lossless webp": a_picture("WEBP", lossless=True),
    "webp with metadata": a_picture("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
}


def check(data: bytes, cuts: list[int] | None = None) -> Checked:
    checker = PictureCheck()
    edges = [0, *sorted(cuts or []), len(data)]
    for begin, end in itertools.pairwise(edges):
        checker.feed(data[begin:end])
    return checker.finish()


def flaw(data: bytes, cuts: list[int] | None = None) -> str:
    with pytest.raises(BrokenPicture) as caught:
        check(data, cuts)
    assert caught.value.message
    return caught.value.what


@pytest.mark.parametrize("name", PICTURES)
def test_a_complete_picture_is_known_by_its_content(name: str) -> None:
    data = PICTURES[name]

    checked = check(data)

    suffix = ".png" if "png" in name else ".jpg" if "jpeg" in name else ".webp"
    assert checked == Checked(suffix, *SIZE, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("name", PICTURES)
def test_one_byte_at_a_time_is_as_good(name: str) -> None:
    data = PICTURES[name]

    assert check(data, list(range(len(data)))) == check(data)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(PICTURES)), data=st.data())
def test_any_portions_are_as_good(name: str, data: st.DataObject) -> None:
    picture = PICTURES[name]
    cuts = data.draw(st.lists(st.integers(0, len(picture)), max_size=30))

    assert check(picture, cuts) == check(picture)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(PICTURES)), data=st.data())
def test_a_picture_cut_anywhere_is_broken(name: str, data: st.DataObject) -> None:
    picture = PICTURES[name]
    end = data.draw(st.integers(0, len(picture) - 1))
    cuts = data.draw(st.lists(st.integers(0, end), max_size=5))

    assert flaw(picture[:end], cuts) in {"cut", "empty"}


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, len(PICTURES["png"]) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_png_is_found(at: int, bit: int) -> None:
    data = bytearray(PICTURES["png"])
    data[at] ^= 1 << bit

    with pytest.raises(BrokenPicture):
        check(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xda", b"RIFF\x20\0\0\0WEBPVP8 "]),
    rest=st.binary(max_size=200),
)
def test_garbage_is_never_more_than_a_broken_picture(head: bytes, rest: bytes) -> None:
    with contextlib.suppress(BrokenPicture):
        check(head + rest)


@pytest.mark.parametrize("name", [name for name in PICTURES if "webp" not in name])
def test_bytes_after_the_end_do_no_harm(name: str) -> None:
    assert check(PICTURES[name] + b"more").bytes == len(PICTURES[name]) + 4


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"<html><body>404", "unknown"),
        (b"GIF89a..........", "unknown"),
        (b"RIFF\x24\0\0\0WAVEfmt ........", "unknown"),
        (PICTURES["webp"] + b"more", "length"),
        (a_png(IHDR, (b"IEND", b"")), "no_pixels"),
        (a_png((b"IDAT", b"x"), (b"IEND", b"")), "header"),
        (a_png((b"IHDR", b"\0" * 8 + b"\x08\x02\0\0\0"), (b"IDAT", b"x"), (b"IEND", b"")), "size"),
        (b"\xff\xd8\xff\xd9", "no_pixels"),
        (b"\xff\xd8\xff\xda\0\2abc\xff\xd9", "size"),
        (b"\xff\xd8\xff\xc0\0\4\1\2", "header"),
        (b"\xff\xd8nonsense", "header"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, what: str) -> None:
    assert flaw(data) == what


def test_an_error_page_shows_how_it_begins() -> None:
    with pytest.raises(BrokenPicture, match="<html>"):
        check(b"<html>\n<body>")


def test_fill_bytes_before_a_jpeg_marker_are_allowed() -> None:
    data = PICTURES["jpeg"]
    filled = data[:2] + b"\xff\xff" + data[2:-2] + b"\xff\xff\xff" + data[-2:]

    assert check(filled, list(range(len(filled)))).width == SIZE[0]
