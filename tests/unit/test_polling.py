"""When to look at which job: seldom where it can't have ended, often where it is likely to, never too often."""

import asyncio
import math
import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.run_times import RunTimes
from dujiang.runner.polling import Pacer, Pacers, Watch
from dujiang.testing import FakeClock

MEDIAN_S = 22.0


@dataclass
class Watched:
    """What watching many jobs came to."""

    looks: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)

    @property
    def mean_delay_s(self) -> float:
        return sum(self.delays_s) / len(self.delays_s)

    @property
    def looks_a_job(self) -> float:
        return len(self.looks) / len(self.delays_s)

    def most_in(self, seconds: float) -> int:
        """Most looks in any window of this length."""
        ends = sorted(self.looks)
        first = most = 0
        for last, at in enumerate(ends):
            while ends[first] <= at - seconds + 1e-9:
                first += 1
            most = max(most, last - first + 1)
        return most


async def watched(
    side_by_side: int,
    jobs: int,
    *,
    median_s: float = MEDIAN_S,
    spread: float = 0.25,
    known: int = 0,
    rate: float = 10.0,
    scale: float = 1.0,
) -> Watched:
    """Lanes that are always full, whose jobs run lognormally long."""
    clock, chance = FakeClock(scale=scale), random.Random(1)
    runs = [median_s * math.exp(spread * chance.gauss(0, 1)) for _ in range(jobs)]
    times = RunTimes(MEDIAN_S * scale, [median_s * math.exp(spread * chance.gauss(0, 1)) for _ in range(known)])
    pacer, seen = Pacer(clock, rate), Watched()

    async def slot() -> None:
        while runs:
            run_s, begun_at = runs.pop(), clock.elapsed()
            watch = pacer.begin(times)
            while clock.elapsed() - begun_at < run_s:
                await pacer.turn(watch)
                seen.looks.append(clock.elapsed())
            pacer.end(watch)
            times.add(clock.elapsed() - begun_at)
            seen.delays_s.append(clock.elapsed() - begun_at - run_s)

    async with asyncio.timeout(30):
        await asyncio.gather(*(slot() for _ in range(side_by_side)))
    return seen


@pytest.mark.parametrize(
    ("side_by_side", "share_of_a_run", "looks"), [(1, 0.02, 25), (3, 0.02, 25), (10, 0.02, 25), (50, 0.08, 8)]
)
async def test_an_end_is_noticed_within_a_small_share_of_a_run(
    side_by_side: int, share_of_a_run: float, looks: float
) -> None:
    seen = await watched(side_by_side, 40 * min(side_by_side, 10))

    assert seen.mean_delay_s < share_of_a_run * MEDIAN_S
    assert seen.looks_a_job < looks


@pytest.mark.parametrize("median_s", [3.0, 60.0])
async def test_a_wrong_first_guess_is_unlearned(median_s: float) -> None:
    seen = await watched(3, 60, median_s=median_s)

    later = seen.delays_s[30:]
    assert sum(later) / len(later) < 0.1 * median_s


@pytest.mark.parametrize("spread", [0.05, 0.25, 0.6])
async def test_whatever_the_spread_known_run_times_help(spread: float) -> None:
    seen = await watched(3, 90, spread=spread, known=200)

    assert seen.mean_delay_s < 0.025 * MEDIAN_S
    assert seen.looks_a_job < 40


@pytest.mark.parametrize(
    ("side_by_side", "rate", "scale"), [(10, 10, 1.0), (200, 10, 1.0), (20, 2, 1.0), (20, 10, 0.1)]
)
async def test_an_account_is_never_asked_more_often_than_it_may_be(
    side_by_side: int, rate: float, scale: float
) -> None:
    seen = await watched(side_by_side, 2 * side_by_side, median_s=MEDIAN_S * scale, rate=rate, scale=scale)

    assert seen.most_in(1.0) <= rate / scale
    assert seen.most_in(10.0) <= 10 * rate / scale


async def test_a_scaled_run_is_polled_as_often_a_job() -> None:
    real = await watched(3, 60)
    fast = await watched(3, 60, median_s=MEDIAN_S / 10, scale=0.1)

    assert fast.looks_a_job == pytest.approx(real.looks_a_job, rel=0.1)
    assert fast.mean_delay_s == pytest.approx(real.mean_delay_s / 10, rel=0.2)


@given(
    ages=st.lists(st.floats(0, 1e6), min_size=1, max_size=300),
    run_s=st.floats(1e-3, 3600),
    seen=st.integers(0, 200),
    scale=st.floats(0.001, 10),
)
def test_a_wait_is_positive_finite_and_soon_computed(ages: list[float], run_s: float, seen: int, scale: float) -> None:
    """However fast the lane and however old its jobs: no wait for ever, and no event loop that stands still."""
    pacer = Pacer(FakeClock(scale=scale))
    times = RunTimes(MEDIAN_S * scale, [run_s] * seen)
    watches = [pacer.begin(times, age_s) for age_s in ages]

    wait_s = pacer.wait_s(watches[0])

    assert 0 < wait_s < math.inf
    assert wait_s <= max(60 * scale, 1000 * scale * len(ages))


def test_jobs_that_are_all_alike_take_turns() -> None:
    pacer = Pacer(FakeClock(), 10)
    times = RunTimes(MEDIAN_S, [0.005] * 200)
    watches = [pacer.begin(times, 0.05) for _ in range(200)]

    assert pacer.wait_s(watches[0]) == pytest.approx(20, rel=0.01)


def test_a_young_job_is_left_alone_and_an_overdue_one_is_not() -> None:
    pacer = Pacer(FakeClock())
    times = RunTimes(MEDIAN_S, [MEDIAN_S * factor for factor in (0.8, 0.9, 1.0, 1.1, 1.2)] * 40)
    young, due, old = (pacer.begin(times, age_s) for age_s in (0, MEDIAN_S, 3600))

    assert pacer.wait_s(young) > 4
    assert pacer.wait_s(due) < 0.5
    assert 5 < pacer.wait_s(old) <= 60


async def test_a_job_that_is_wanted_at_once_only_waits_for_its_place_in_line() -> None:
    clock = FakeClock()
    pacer, times = Pacer(clock, 10), RunTimes(MEDIAN_S)
    watches = [pacer.begin(times, 36_000) for _ in range(20)]

    await asyncio.gather(*(pacer.turn(watch, at_once=True) for watch in watches))

    assert clock.elapsed() == pytest.approx(1.9)


async def test_after_too_many_requests_nobody_looks_for_a_while_not_even_who_stood_in_line() -> None:
    clock = FakeClock()
    pacer, times = Pacer(clock, 10), RunTimes(MEDIAN_S)
    looks: list[float] = []

    async def look() -> None:
        await pacer.turn(pacer.begin(times), at_once=True)
        looks.append(clock.elapsed())

    looking = [asyncio.create_task(look()) for _ in range(10)]
    await clock.sleep(0.35)
    pacer.slow_down(2)
    await asyncio.gather(*looking)

    assert looks[:4] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert min(looks[4:]) >= 2.35
    assert all(later - sooner >= 0.1 - 1e-9 for sooner, later in pairwise(looks))


async def test_who_waits_for_a_look_is_woken_when_time_has_jumped() -> None:
    clock = FakeClock(auto=False)
    pacers = Pacers(clock)
    pacer = pacers.of(1)
    watch = pacer.begin(RunTimes(1000.0))
    waiting = asyncio.create_task(pacer.turn(watch))
    await clock.settled()

    pacers.look_now(elapsed_jumped=True)
    await waiting

    assert clock.elapsed() == 0
    assert pacer.gaps == 1
    assert pacers.of(1) is pacer


async def test_a_wait_for_a_look_that_is_cancelled_leaves_nothing_behind() -> None:
    clock = FakeClock(auto=False)
    pacer = Pacer(clock)
    waiting = asyncio.create_task(pacer.turn(pacer.begin(RunTimes(1000.0))))
    await clock.settled()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert pacer._naps == set()


async def test_looks_settle_at_what_the_vendor_bears() -> None:
    """It answers four looks a second, and 50429 to all others; six hundred jobs are waited for."""
    clock = FakeClock()
    pacer, times = Pacer(clock, 10), RunTimes(MEDIAN_S)
    last_second: list[float] = []
    answered, refused = 0, 0

    async def look(watch: Watch) -> None:
        nonlocal answered, refused
        await pacer.turn(watch, at_once=True)
        last_second[:] = [at for at in last_second if at > clock.elapsed() - 1] + [clock.elapsed()]
        if len(last_second) > 4:
            refused += 1
            pacer.too_fast(1.0)
        else:
            answered += 1
            pacer.answered()

    watches = [pacer.begin(times) for _ in range(40)]
    for _ in range(40):
        await asyncio.gather(*(look(watch) for watch in watches))

    assert answered / clock.elapsed() > 2.5
    assert refused < answered / 10


async def test_a_pace_of_looks_that_is_borne_is_what_was_allowed_again() -> None:
    clock = FakeClock()
    pacer, times = Pacer(clock, 10), RunTimes(MEDIAN_S)
    watch = pacer.begin(times)
    for _ in range(3):
        pacer.too_fast(1.0)
        pacer.too_fast(1.0)  # of the same burst
        await clock.sleep(1)

    async def rate() -> float:
        at = clock.elapsed()
        for _ in range(20):
            await pacer.turn(watch, at_once=True)
        return 20 / (clock.elapsed() - at)

    assert await rate() == pytest.approx(10 * 0.7**3, rel=0.1)
    for _ in range(250):
        pacer.answered()
    assert await rate() == pytest.approx(10, rel=0.1)


async def test_a_vendor_that_refused_all_looks_for_a_while_is_soon_looked_at_as_before() -> None:
    clock = FakeClock()
    pacer, times = Pacer(clock, 10), RunTimes(MEDIAN_S)
    watch = pacer.begin(times)
    for _ in range(60):
        pacer.too_fast(1.0)
        await clock.sleep(1)

    at = clock.elapsed()
    for _ in range(300):
        await pacer.turn(watch, at_once=True)
        pacer.answered()

    assert clock.elapsed() - at < 90
