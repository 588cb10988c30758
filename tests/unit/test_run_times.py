"""Run times: when to look at a job, and how long a doubtful slot lasts (DESIGN rule 4)."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dujiang.domain.run_times import REMEMBERED, Lognormal, RunTimes, ceiling_s, percentile_s

FITS = st.builds(Lognormal, st.floats(0.05, 900), st.floats(0.05, 2))


def log_survival(fit: Lognormal, age_s: float) -> float:
    z = math.log(age_s / fit.median_s) / fit.spread
    return math.log(math.erfc(z / math.sqrt(2)) / 2)


@settings(deadline=None)
@given(FITS, st.floats(-4, 5))
def test_the_hazard_is_how_fast_survival_falls(fit: Lognormal, z: float) -> None:
    age_s = fit.median_s * math.exp(z * fit.spread)
    step = age_s * fit.spread * 1e-4

    falling = (log_survival(fit, age_s - step) - log_survival(fit, age_s + step)) / (2 * step)

    assert fit.hazard(age_s) == pytest.approx(falling, rel=1e-3, abs=1e-6 / (age_s * fit.spread))


@settings(deadline=None)
@given(FITS, st.floats(0, 1e12))
def test_the_hazard_is_never_negative_nor_infinite(fit: Lognormal, age_s: float) -> None:
    hazard = fit.hazard(age_s)

    assert hazard >= 0
    assert math.isfinite(hazard)


@pytest.mark.parametrize("age_s", [0.0, -1.0, 5e-324, 1e-300, 1e-9, 1e300])
def test_the_hazard_stands_the_strangest_ages(age_s: float) -> None:
    assert math.isfinite(Lognormal(22.0, 0.05).hazard(age_s))


@settings(deadline=None)
@given(FITS)
def test_the_hazard_has_no_step_where_the_asymptote_takes_over(fit: Lognormal) -> None:
    edge = fit.median_s * math.exp(20 * fit.spread)

    assert fit.hazard(edge * (1 + 1e-9)) == pytest.approx(fit.hazard(edge * (1 - 1e-9)), rel=1e-4)


def test_a_job_is_likelier_to_end_where_jobs_end() -> None:
    fit = Lognormal(20.0, 0.2)

    assert fit.hazard(10) < fit.hazard(20) < fit.hazard(30)


def test_a_fit_begins_with_the_guess() -> None:
    fit = RunTimes(22.0).fit()

    assert fit.median_s == pytest.approx(22.0)
    assert fit.spread == pytest.approx(0.5)


def test_measured_runs_outweigh_the_guess_and_then_replace_it() -> None:
    times = RunTimes(22.0)
    for _ in range(4):
        times.add(44.0)
    assert times.fit().median_s == pytest.approx(22.0 * math.sqrt(2))  # half of each, in logarithms

    for _ in range(46):
        times.add(44.0)

    assert times.fit().median_s == pytest.approx(44.0)
    assert times.fit().spread == 0.05


def test_a_fit_finds_median_and_spread() -> None:
    spread = math.log(2)
    times = RunTimes(1000.0, [10 * math.exp(spread), 10 * math.exp(-spread)] * 100)

    assert times.fit().median_s == pytest.approx(10.0)
    assert times.fit().spread == pytest.approx(spread)


def test_only_the_last_200_runs_are_remembered() -> None:
    times = RunTimes(22.0, [1000.0] * 50)
    for _ in range(REMEMBERED):
        times.add(10.0)

    assert times.fit().median_s == pytest.approx(10.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_any_run_times_can_be_fitted(seen_s: list[float]) -> None:
    fit = RunTimes(22.0, seen_s).fit()

    assert fit.median_s > 0
    assert fit.spread >= 0.05
    assert math.isfinite(fit.hazard(22.0))


# -- Rule 4 -----------------------------------------------------------------------------------------------------------


def test_rule_4_until_fifty_are_known_the_given_time_holds() -> None:
    assert ceiling_s([], 120.0) == 120.0
    assert ceiling_s([500.0] * 49, 120.0) == 120.0
    assert ceiling_s([500.0] * 50, 120.0) == 1000.0


def test_rule_4_the_longest_run_counts_one_and_a_quarter_times() -> None:
    seen = [10.0] * 198 + [20.0, 100.0]  # p99 is 10

    assert ceiling_s(seen, 120.0) == 125.0


def test_rule_4_p99_counts_twice() -> None:
    seen = [10.0] * 197 + [60.0] * 3  # p99 is the 198th of 200

    assert ceiling_s(seen, 120.0) == 120.0
    assert ceiling_s([10.0] * 98 + [60.0, 61.0], 1.0) == 120.0  # the 99th of 100
    assert ceiling_s([10.0] * 99 + [60.0], 1.0) == 75.0


def test_rule_4_only_the_last_200_count() -> None:
    assert ceiling_s([900.0] * 50 + [10.0] * 200, 120.0) == 20.0


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 1e5), min_size=50, max_size=250))
def test_rule_4_no_run_that_was_seen_is_longer_than_the_ceiling(seen_s: list[float]) -> None:
    ceiling = ceiling_s(seen_s, 120.0)

    assert all(run_s <= ceiling for run_s in seen_s[-REMEMBERED:])


@pytest.mark.parametrize(
    ("seen", "part", "expected"),
    [
        ([7.0], 0.95, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([1.0, 9.0], 0.95, 9.0),
    ],
)
def test_a_percentile_is_a_run_time_that_was_seen(seen: list[float], part: float, expected: float) -> None:
    assert percentile_s(seen, part) == expected
