"""50429: how fast an account may submit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.belief import LONG_AGO
from dujiang.domain.pace import Pace

NOW = 1000.0


def test_nothing_slows_an_account_that_was_never_too_fast() -> None:
    pace = Pace()

    assert pace.permit(7, NOW) == (7, None)
    assert pace.sent(NOW) is pace
    assert pace.remaining_s(NOW) == 0


def test_after_a_refusal_nothing_leaves_for_a_second_then_one_at_a_time() -> None:
    pace = Pace().too_fast(NOW, admitted_last_s=2)

    assert pace == Pace(1.05 / 2, next_at=NOW + 1, wait_s=1.0, slowed_at=NOW)
    assert pace.permit(7, NOW) == (0, 1.0)
    assert pace.permit(7, NOW + 0.75) == (0, 0.25)
    assert pace.permit(7, NOW + 1) == (1, None)
    assert pace.permit(0, NOW + 1) == (0, None)


def test_single_submits_are_spaced() -> None:
    pace = Pace(spacing_s=0.5, slowed_at=NOW).sent(NOW + 2)

    assert pace.remaining_s(NOW + 2) == pytest.approx(0.49975)
    assert pace.permit(3, NOW + 2)[0] == 0
    assert pace.permit(3, NOW + 2.5) == (1, None)


@pytest.mark.parametrize(("admitted", "spacing_s"), [(0, 1.05), (1, 1.05), (2, 0.525), (10, 0.105)])
def test_the_first_space_is_a_little_more_than_what_the_vendor_has_borne(admitted: int, spacing_s: float) -> None:
    assert Pace().too_fast(NOW, admitted).spacing_s == pytest.approx(spacing_s)


def test_each_second_of_refusals_widens_the_space_once() -> None:
    pace = Pace().too_fast(NOW, 2)

    assert pace.too_fast(NOW, 2) == pace
    assert pace.too_fast(NOW + 0.9, 0) == pace
    assert pace.too_fast(NOW + 1, 5).spacing_s == pytest.approx(1.1 * 1.05 / 2)


def test_what_a_burst_was_admitted_of_is_known_only_with_its_later_refusals() -> None:
    pace = Pace().too_fast(NOW, admitted_last_s=1)

    assert pace.too_fast(NOW + 0.1, admitted_last_s=5) == Pace(1.05 / 5, NOW + 1, 1.0, NOW)


def test_a_space_is_never_longer_than_three_seconds() -> None:
    assert Pace(spacing_s=2.9).too_fast(NOW, 1).spacing_s == 3.0
    assert Pace(spacing_s=0.29).too_fast(NOW, 1, scale=0.1).spacing_s == pytest.approx(0.3)


def test_submits_shrink_the_space_until_it_is_forgotten() -> None:
    assert Pace(spacing_s=1.0, slowed_at=NOW - 59).sent(NOW).spacing_s == 0.9995
    assert Pace(spacing_s=1.0, slowed_at=NOW - 60).sent(NOW).spacing_s == 0.98
    assert Pace(spacing_s=0.0052).sent(NOW).spacing_s > 0
    assert Pace(spacing_s=0.005).sent(NOW) == Pace()
    assert Pace(spacing_s=0.0005).sent(NOW, scale=0.1) == Pace()
    assert Pace(spacing_s=0.001).sent(NOW, scale=0.1).spacing_s > 0


def test_what_a_vendor_refused_for_a_while_is_soon_made_up_for() -> None:
    """It refuses everything for a minute; then twenty slots of twenty seconds want one submit a second."""
    pace, now, submits = Pace(), NOW, 0
    while now < NOW + 60:
        pace = pace.too_fast(now, admitted_last_s=0)
        now += max(1.0, pace.remaining_s(now))
    assert pace.spacing_s == 3.0
    while pace.spacing_s > 1.0:
        pace, submits = pace.sent(now), submits + 1
        now += pace.spacing_s

    assert submits < 100
    assert now - NOW < 240


def test_our_seconds_are_scaled() -> None:
    pace = Pace().too_fast(NOW, 2, scale=0.1)

    assert pace.spacing_s == pytest.approx(0.0525)
    assert pace == Pace(pace.spacing_s, next_at=NOW + 0.1, wait_s=0.1, slowed_at=NOW)
    assert pace.too_fast(NOW + 0.05, 2, scale=0.1) == pace
    assert pace.too_fast(NOW + 0.1, 2, scale=0.1) != pace


def test_rule_11_a_clock_that_went_back_lengthens_no_wait() -> None:
    pace = Pace().too_fast(NOW, 2)

    assert pace.permit(3, NOW - 3600) == (1, None)
    assert pace.permit(3, NOW - 0.5) == (1, None)
    assert pace.too_fast(NOW - 3600, 2).slowed_at == NOW - 3600


def test_a_wait_isnt_taken_for_a_clock_that_went_back_by_a_rounding_error() -> None:
    at = 1764000000.1234567
    pace = Pace(spacing_s=0.1).sent(at)

    assert pace.permit(3, at)[0] == 0


@given(st.integers(0, 50), st.floats(0, 1e9), st.integers(0, 9))
def test_a_pace_comes_back_from_json(admitted: int, now: float, admissions: int) -> None:
    pace = Pace().too_fast(now, admitted)
    for _ in range(admissions):
        pace = pace.sent(now + 1)

    assert Pace.from_json(json.loads(json.dumps(pace.as_json(), allow_nan=False))) == pace


def test_a_pace_of_another_version_is_read() -> None:
    assert Pace.from_json({"spacing_s": 0.5, "later": [1]}) == Pace(0.5)
    assert Pace.from_json({}) == Pace(0.0, LONG_AGO, 0.0, LONG_AGO)
