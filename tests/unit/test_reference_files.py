"""References as people write them become pictures that are whole, or the reason why not; and are read again later."""

import base64
import hashlib
import os
import random
import sys
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from dujiang.domain.errors import PictureUnfit, StoreError
from dujiang.domain.pictures import MEGABYTE, Flaw, LocalPicture
from dujiang.messages import text
from dujiang.messages.catalogue import TEXTS
from dujiang.providers.jimeng.models import MODELS
from dujiang.storage.reference_files import LocalFiles, ReferenceFiles

from .test_pictures import PICTURES, a_png

PNG = PICTURES["png"]


def a_file(folder: Path, content: bytes = PNG, name: str = "cat.png") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def picture(folder: Path, written: str | Path, **more: object) -> LocalPicture:
    found = ReferenceFiles(folder, **more).read(str(written))  # type: ignore[arg-type]
    assert isinstance(found, LocalPicture), found
    return found


def flaw(folder: Path, written: str | Path, **more: object) -> Flaw:
    found = ReferenceFiles(folder, **more).read(str(written))  # type: ignore[arg-type]
    assert isinstance(found, Flaw), found
    assert found.code in TEXTS
    assert text(found.code, field="refs", value=found.value, limit=found.limit)
    return found


def data(content: bytes = PNG, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- where it lies ----------------------------------------------------------------------------------------------------


def test_a_relative_path_begins_at_the_folder(tmp_path: Path) -> None:
    path = a_file(tmp_path, name="refs/猫 1.png")

    found = picture(tmp_path, "refs/猫 1.png")

    assert found == LocalPicture(str(path), hashlib.sha256(PNG).hexdigest(), "png", len(PNG), 37, 23)


def test_a_relative_folder_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert picture(Path(), "cat.png").path == str(path)


def test_an_absolute_path_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert picture(tmp_path / "elsewhere", path).path == str(path)
    assert picture(tmp_path / "elsewhere", "~/cat.png").path == str(path)


def test_a_tilde_of_nobody_is_part_of_a_name(tmp_path: Path) -> None:
    assert flaw(tmp_path, "~nobody-is-called-that/cat.png").code == "reference_missing"
    assert picture(tmp_path, a_file(tmp_path, name="~cat~.png").name).width == 37


def test_a_file_url(tmp_path: Path) -> None:
    path = a_file(tmp_path, name="a cat#1.png")

    assert picture(tmp_path, path.as_uri()).path == str(path)
    assert picture(tmp_path, path.as_uri().replace("file://", "FILE://localhost")).path == str(path)
    assert picture(tmp_path, "file:a%20cat%231.png").path == str(path)


@pytest.mark.parametrize("written", ["file://cat.png", "file://server/share/cat.png", "file:", "file://[bad/cat.png"])
def test_a_file_url_that_leads_nowhere(written: str, tmp_path: Path) -> None:
    assert flaw(tmp_path, written).code in {"reference_missing", "reference_no_file", "reference_unreadable"}


@pytest.mark.skipif(sys.platform == "win32", reason="there it is a path")
def test_a_path_of_windows_is_missing_elsewhere(tmp_path: Path) -> None:
    found = flaw(tmp_path, r"C:\pictures\cat.png")

    assert (found.code, found.value) == ("reference_missing", r"C:\pictures\cat.png")


@pytest.mark.parametrize("link", ["https://example.com/a.png", "http://example.com/a.png?x=1|2"])
def test_a_link_stays_as_it_is(link: str, tmp_path: Path) -> None:
    assert ReferenceFiles(tmp_path).read(link) == link


@pytest.mark.parametrize("written", ["ftp://example.com/a.png", "s3://bucket/a.png", "htps://example.com/a.png"])
def test_an_unknown_scheme_is_named(written: str, tmp_path: Path) -> None:
    found = flaw(tmp_path, written)

    assert (found.code, found.value) == ("reference_scheme", written)
    assert "https" in found.limit


@pytest.mark.parametrize("name", ["http", "https", "data", "file"])
def test_a_file_may_be_called_like_a_scheme(name: str, tmp_path: Path) -> None:
    assert picture(tmp_path, a_file(tmp_path, name=name).name).width == 37


def test_nothing_there(tmp_path: Path) -> None:
    assert flaw(tmp_path, "none.png") == Flaw("reference_missing", "none.png", str(tmp_path))
    a_file(tmp_path)
    assert flaw(tmp_path, "cat.png/cat.png").code == "reference_missing"


# -- what is no file to read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["", ".", "folder"])
def test_a_folder_is_no_file(written: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    assert flaw(tmp_path, written).code == "reference_no_file"


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
def test_what_has_no_end_or_waits_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")

    assert flaw(tmp_path, "pipe.png").code == "reference_no_file"
    assert flaw(tmp_path, "/dev/zero").code == "reference_no_file"


@pytest.mark.parametrize("written", ["a\0.png", "file:///a%00.png", "x" * 5000])
def test_a_name_that_no_file_can_have(written: str, tmp_path: Path) -> None:
    assert flaw(tmp_path, written).code == "reference_unreadable"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    path.chmod(0)
    with as_nobody():
        found = flaw(tmp_path, "cat.png")

    assert (found.code, found.value, found.limit) == ("reference_unreadable", str(path), "Permission denied")


# -- what is no picture -----------------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(50 * 1024**3)  # takes no space, and minutes to read

    found = flaw(tmp_path, "large.png")

    assert (found.code, found.limit) == ("reference_bytes", "30.0 MB")
    assert found.value == f"{path} (51200.0 MB)"


def test_the_largest_size_is_still_taken(tmp_path: Path) -> None:
    a_file(tmp_path)

    assert picture(tmp_path, "cat.png", most_bytes=len(PNG)).bytes == len(PNG)
    assert flaw(tmp_path, "cat.png", most_bytes=len(PNG) - 1).code == "reference_bytes"
    assert picture(tmp_path, data(), most_bytes=len(PNG)).bytes == len(PNG)
    assert flaw(tmp_path, data(), most_bytes=len(PNG) - 1).code == "reference_bytes"


def broken_crc() -> bytes:
    broken = bytearray(PNG)
    broken[-20] ^= 1
    return bytes(broken)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89",
        b"a cat is an animal with four legs",
        b"GIF89a\x01\0\x01\0",
        b"<html><body>login</body></html>",
        broken_crc(),
        PNG[:-1],
        PICTURES["jpeg"][: len(PICTURES["jpeg"]) // 2],
        PICTURES["jpeg"][:-2],
        PICTURES["webp"][:-3],
    ],
)
def test_what_is_no_whole_picture_is_broken(content: bytes, tmp_path: Path) -> None:
    path = a_file(tmp_path, content)

    found = flaw(tmp_path, "cat.png")

    assert (found.code, found.value) == ("reference_broken", str(path))
    assert found.limit
    assert flaw(tmp_path, data(content)).code == "reference_broken"


@pytest.mark.parametrize(("name", "kind"), [("png", "png"), ("progressive jpeg", "jpeg"), ("lossless webp", "webp")])
def test_the_kind_is_seen_in_the_content_and_not_in_the_name(name: str, kind: str, tmp_path: Path) -> None:
    a_file(tmp_path, PICTURES[name], "picture.bmp")

    found = picture(tmp_path, "picture.bmp")

    assert (found.kind, found.width, found.height) == (kind, 37, 23)


def bomb() -> bytes:
    """A small file that would be 10 GB of pixels."""
    size = (60_000).to_bytes(4, "big") * 2
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(MEGABYTE)) for _ in range(64)) + packer.flush()
    return a_png((b"IHDR", size + b"\x08\x02\0\0\0"), (b"IDAT", pixels), (b"IEND", b""))


@pytest.mark.parametrize("model", ["4.0", "4.6", "i2i-3.0"])
def test_a_picture_that_claims_to_be_enormous_costs_nothing_and_is_refused(model: str, tmp_path: Path) -> None:
    a_file(tmp_path, bomb())

    tracemalloc.start()
    begun = time.perf_counter()
    try:
        found = picture(tmp_path, "cat.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (found.width, found.height) == (60_000, 60_000)
    assert peak < 2 * MEGABYTE
    assert time.perf_counter() - begun < 5
    request, problems = MODELS[model].checked("a cat", {}, [found])
    assert request is None
    assert [(one.code, one.field) for one in problems] == [("reference_sides", "refs")]


def test_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    noise = random.Random(7).randbytes(20 * MEGABYTE)
    a_file(tmp_path, a_png((b"IHDR", b"\0\0\0\x09\0\0\0\x09\x08\x02\0\0\0"), (b"IDAT", noise), (b"IEND", b"")))

    tracemalloc.start()
    try:
        assert picture(tmp_path, "cat.png").bytes > 20 * MEGABYTE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2 * MEGABYTE


def test_a_path_that_is_named_often_is_read_once(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    files = ReferenceFiles(tmp_path)

    first, missing = files.read("cat.png"), files.read("none.png")
    path.unlink()
    a_file(tmp_path, name="none.png")

    assert files.read("cat.png") is first
    assert files.read("none.png") is missing


# -- in the row itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        data(),
        data().replace("data:image/png", "DATA:"),
        data().replace(";base64", ";charset=x;BASE64"),
        data(kind="image/jpeg"),  # what it says it is counts as little as a file's name
        data().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        f"data:image/png,{quote_from_bytes(PNG)}",
    ],
)
def test_a_data_uri_is_kept_by_its_hash(written: str, tmp_path: Path) -> None:
    uploads = tmp_path / "home" / "uploads"

    found = picture(tmp_path, written, uploads=uploads)

    digest = hashlib.sha256(PNG).hexdigest()
    assert found == LocalPicture(str(uploads / f"{digest}.png"), digest, "png", len(PNG), 37, 23)
    assert Path(found.path).read_bytes() == PNG
    assert picture(tmp_path, written, uploads=uploads) == found
    assert len(list(uploads.iterdir())) == 1


def test_without_a_place_for_it_nothing_is_kept(tmp_path: Path) -> None:
    assert picture(tmp_path, data()).sha256 == hashlib.sha256(PNG).hexdigest()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "written",
    [
        "data:",
        "data:image/png;base64",
        "data:image/png;base64,a",
        "data:image/png;base64,猫",
        "data:;base64,AA AA==",
    ],
)
def test_a_bad_data_uri(written: str, tmp_path: Path) -> None:
    assert flaw(tmp_path, written, uploads=tmp_path / "uploads") == Flaw("reference_inline", written, "")
    assert list(tmp_path.iterdir()) == []


def test_a_long_data_uri_is_told_in_short(tmp_path: Path) -> None:
    found = flaw(tmp_path, data(b"x" * MEGABYTE))

    assert len(found.value) < 100


def test_a_disk_that_keeps_nothing_is_told(tmp_path: Path) -> None:
    a_file(tmp_path, name="home")

    with pytest.raises(StoreError, match="home"):
        ReferenceFiles(tmp_path, tmp_path / "home" / "uploads").read(data())


# -- read again -------------------------------------------------------------------------------------------------------


async def unfit(found: LocalPicture) -> str:
    with pytest.raises(PictureUnfit) as caught:
        await LocalFiles().content(found)
    assert found.path in caught.value.message
    return caught.value.message


async def test_the_content_is_what_was_read(tmp_path: Path) -> None:
    a_file(tmp_path)

    assert await LocalFiles().content(picture(tmp_path, "cat.png")) == PNG


@pytest.mark.parametrize("content", [b"", PICTURES["jpeg"], PNG + b"\0", PNG[:-1], bytes(len(PNG))])
async def test_content_that_has_changed_is_unfit(content: bytes, tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = picture(tmp_path, "cat.png")
    path.write_bytes(content)

    assert await unfit(found) == text("reference_changed", path=path)


async def test_a_file_that_was_moved_is_unfit(tmp_path: Path) -> None:
    path = a_file(tmp_path, name="refs/cat.png")
    found = picture(tmp_path, path)
    path.unlink()
    await unfit(found)
    path.mkdir()
    await unfit(found)
    path.rmdir()
    path.parent.rmdir()
    path.parent.write_bytes(b"")
    await unfit(found)
    await unfit(replace(found, path="data:/0123.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
async def test_a_file_that_was_locked_or_became_a_pipe_is_unfit(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = picture(tmp_path, "cat.png")
    path.chmod(0)
    with as_nobody():
        await unfit(found)
    path.unlink()
    os.mkfifo(path)
    await unfit(found)  # and nobody waits for its other end
