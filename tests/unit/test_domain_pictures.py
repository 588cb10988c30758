"""What models take as a reference, and what a reference means for a request's identity."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.pictures import MEGABYTE, LocalPicture, PictureRules, data_uri, megabytes
from dujiang.domain.requests import Request
from dujiang.providers.jimeng.models import MODELS

LARGEST_INLINE = int(4.7 * MEGABYTE)
GOOD = LocalPicture("/refs/a.png", "a" * 64, "png", 1000, 1024, 1024)


def flaws(model: str, **changes: object) -> list[str]:
    rules = MODELS[model].pictures
    assert rules is not None
    return [flaw.code for flaw in rules.flaws(replace(GOOD, **changes))]  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["4.0", "4.6"])
@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"kind": "jpeg"}, []),
        ({"kind": "webp"}, ["reference_kind"]),
        ({"bytes": 15 * MEGABYTE}, []),
        ({"bytes": 15 * MEGABYTE + 1}, ["reference_bytes"]),
        ({"width": 4096, "height": 4096}, []),
        ({"width": 4097, "height": 4096}, ["reference_sides"]),
        ({"width": 4096, "height": 4097}, ["reference_sides"]),
        ({"width": 3000, "height": 1000}, []),
        ({"width": 3001, "height": 1000}, ["reference_shape"]),
        ({"width": 1000, "height": 3000}, []),
        ({"width": 1000, "height": 3001}, ["reference_shape"]),
        ({"width": 1, "height": 1}, []),
        ({"width": 60_000, "height": 60_000}, ["reference_sides"]),
        (
            {"kind": "webp", "bytes": 16 * MEGABYTE, "width": 20_000, "height": 100},
            ["reference_kind", "reference_bytes", "reference_sides", "reference_shape"],
        ),
    ],
)
def test_the_fourth_generation_takes(model: str, changes: dict[str, object], found: list[str]) -> None:
    assert flaws(model, **changes) == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"kind": "webp"}, ["reference_kind"]),
        ({"bytes": LARGEST_INLINE}, []),
        ({"bytes": LARGEST_INLINE + 1}, ["reference_bytes"]),
        ({"width": 4096, "height": 4096}, []),
        ({"width": 8192, "height": 2048}, []),  # an area, and no bound of a side or of the shape
        ({"width": 8192, "height": 2049}, ["reference_sides"]),
        ({"width": 4096, "height": 4097}, ["reference_sides"]),
        ({"width": 5000, "height": 10}, []),
    ],
)
def test_image_to_image_takes(changes: dict[str, object], found: list[str]) -> None:
    assert flaws("i2i-3.0", **changes) == found


def test_models_without_references_say_nothing_about_pictures() -> None:
    assert MODELS["3.1"].pictures is None
    assert MODELS["3.1"].references_max == 0


def test_a_flaw_tells_what_is_there_and_what_may_be() -> None:
    found = PictureRules(15 * MEGABYTE, narrowest=3).flaws(
        replace(GOOD, kind="webp", bytes=15 * MEGABYTE + 1, width=5000, height=100)
    )

    assert [(flaw.value, flaw.limit) for flaw in found] == [
        ("WEBP", "JPEG, PNG"),
        ("15.1 MB", "15.0 MB"),  # not "15.0 MB is too large, at most 15.0 MB"
        ("5000×100", "≤ 4096×4096"),
        ("5000×100", "1:3 – 3:1"),
    ]


@given(st.integers(1, 200 * MEGABYTE), st.integers(1, 200 * MEGABYTE))
def test_what_is_larger_never_looks_smaller(first: int, second: int) -> None:
    small, large = sorted((first, second))

    assert float(megabytes(small).split()[0]) <= float(megabytes(large).split()[0])


def test_a_picture_in_a_request_says_of_what_kind_it_is() -> None:
    assert data_uri(b"abc", "jpeg") == "data:image/jpeg;base64,YWJj"


# -- identity ---------------------------------------------------------------------------------------------------------


def canonical(*references: str | LocalPicture) -> str:
    return Request("4.0", "猫", {"force_single": True}, references).canonical()


def test_the_same_content_under_another_path_is_the_same_request() -> None:
    assert canonical(GOOD) == canonical(replace(GOOD, path="/elsewhere/b.png"))


def test_other_bytes_under_the_same_path_are_another_request() -> None:
    assert canonical(GOOD) != canonical(replace(GOOD, sha256="b" * 64))


def test_the_order_of_references_counts() -> None:
    other = replace(GOOD, sha256="b" * 64)

    assert canonical(GOOD, other) != canonical(other, GOOD)
    assert canonical(GOOD, "https://a/1") != canonical("https://a/1", GOOD)


def test_a_link_is_never_taken_for_a_picture() -> None:
    assert canonical(f"https://sha256:{GOOD.sha256}") != canonical(GOOD)


@pytest.mark.parametrize(
    ("request_", "text", "digest"),
    [
        (
            Request(
                "4.0", "一只猫", {"force_single": True, "scale": 0.5, "width": 2048}, ("https://a/1", "https://a/2")
            ),
            '["4.0","一只猫",[["force_single",true],["scale",0.5],["width",2048]],["https://a/1","https://a/2"]]',
            "77b128c52de9b3b176acda71603ba8f0",
        ),
        (Request("3.1", "a"), '["3.1","a",[],[]]', "ea38e713b73f85ef8a8cfb1cf366a770"),
    ],
)
def test_rows_that_are_stored_keep_their_digest(request_: Request, text: str, digest: str) -> None:
    """A change here makes every row of every stored batch a new one, which is paid for again."""
    assert request_.canonical() == text
    assert hashlib.sha256(text.encode()).digest()[:16].hex() == digest


def test_a_request_tells_what_has_to_be_published_and_where_everything_lies() -> None:
    request = Request("4.0", "猫", {}, ("https://a/1", GOOD))

    assert request.local_pictures == [GOOD]
    assert request.places == ["https://a/1", "/refs/a.png"]
