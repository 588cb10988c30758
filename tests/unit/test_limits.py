"""Limits as they are written: always N, or one that finds itself within bounds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.brim import Brim
from dujiang.domain.limits import AutoLimit, FixedLimit, parse_limit

BOUNDS = st.lists(st.integers(1, 10_000), min_size=2, max_size=2).map(sorted)


@given(st.integers(1, 10_000))
def test_a_limit_is_written_as_it_is_read(slots: int) -> None:
    assert FixedLimit.parse(str(FixedLimit(slots))) == FixedLimit(slots)


@pytest.mark.parametrize("text", ["", "3", "fixed", "fixed:", "fixed:0", "fixed:10001", "fixed:-1", "fixed:²", "auto"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        FixedLimit.parse(text)


@given(st.integers(1, 100), st.integers(0, 200))
def test_what_is_free_and_what_is_in_use_never_exceed_the_limit(slots: int, in_use: int) -> None:
    free = FixedLimit(slots).free(in_use)

    assert free >= 0
    assert free + in_use == max(slots, in_use)


# -- A limit that finds itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("fixed:3", FixedLimit(3)),
        ("auto", AutoLimit()),
        ("auto", AutoLimit("auto", 1, 10_000)),
        ("auto:1..8", AutoLimit("auto", 1, 8)),
        ("auto:2..2", AutoLimit("auto", 2, 2)),
        ("auto:2..10000", AutoLimit("auto", 2, 10_000)),
        ("quiet", AutoLimit("quiet")),
        ("quiet:1..3", AutoLimit("quiet", 1, 3)),
        ("eager", AutoLimit("eager")),
        ("eager:5..20", AutoLimit("eager", 5, 20)),
    ],
)
def test_every_limit_is_read_and_written(text: str, limit: FixedLimit | AutoLimit) -> None:
    assert parse_limit(text) == limit
    assert str(limit) == text


@given(st.sampled_from(["auto", "quiet", "eager"]), BOUNDS)
def test_a_limit_with_bounds_is_written_as_it_is_read(preset: str, bounds: list[int]) -> None:
    limit = AutoLimit(preset, *bounds)

    assert parse_limit(str(limit)) == limit


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "3",
            "fixed",
            "fixed:0",
            "fixed:1..3",
            "loud",
            "Auto",
            " auto",
            "auto ",
            "auto:",
            "auto:3",
            "auto:..",
            "auto:1..",
        ),
        *(
            "auto:..3",
            "auto:3..1",
            "auto:0..3",
            "auto:1..10001",
            "auto:1..2..3",
            "auto:-1..3",
            "auto:1..²",
            "auto:1...3",
            "auto1..3",
        ),
    ],
)
def test_what_is_no_limit_is_refused_with_its_own_words(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_limit(text)


def test_the_presets_differ_in_how_often_they_look() -> None:
    assert AutoLimit("auto").brim() == Brim()
    assert AutoLimit("quiet").brim() == Brim(spacing=100, longest_s=3600)
    assert AutoLimit("eager").brim() == Brim(spacing=12)


def test_bounds_and_the_time_scale_reach_the_arithmetic() -> None:
    assert AutoLimit("auto", 2, 8).brim(scale=0.1) == Brim(low=2, high=8, scale=0.1)
