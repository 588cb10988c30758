"""When to look at which job: often where it is likely to end, rarely elsewhere, never faster than the account may.

A slot that is free and not noticed is wasted, and every look costs the vendor and us a request. With the chance per
second `h` that a job ends (its lane's run times say it), the looks that waste least are spaced by 1/√h: minimising
Σ hᵢTᵢ/2 under a budget Σ 1/Tᵢ ≤ R gives Tᵢ = Σ√h / (R √hᵢ). As h changes with the job's age, the next look comes when
∫√h dt has reached that budget.
"""

import asyncio
import math
from typing import Final

from dujiang.domain.run_times import RunTimes
from dujiang.ports import Clock

QUERIES_A_SECOND: Final = 10.0
LOOK_COST: Final = 0.2  # √s: at the median of 22 s a look every 0.7 s; ~21 looks a job and 1.6 % of a slot in all
ANY_TIME: Final = 1 / 1500  # a second: a job can fail at any age, so even a young one is looked at every ~8 s
STEPS_OF_MEDIAN: Final = 50
STUCK_WAIT_S: Final = 60.0  # an hour's job is not found ended much later than that
SLOWER: Final = 0.3  # of the rate, after a look that came too fast
FASTER: Final = 0.003  # of the rate that is allowed, after one in order: about one look in fifty is refused
SLOWEST: Final = 0.1  # of the rate that is allowed: a vendor that refuses everything is asked no more rarely
SLOW_DOWN_AFTER: Final = 10.0  # medians: a job this old is stuck, and looking faster does not help it


class Watch:
    """One job being watched: how old it is, and the run times of its lane."""

    def __init__(self, times: RunTimes, begun_at: float) -> None:
        self.times = times
        self.begun_at = begun_at
        """Monotonic moment at which the vendor accepted it."""

    def age_s(self, now: float) -> float:
        """How long the vendor has had it."""
        return max(0.0, now - self.begun_at)


class Pacer:
    """The looks of one account."""

    def __init__(self, clock: Clock, queries_a_second: float = QUERIES_A_SECOND) -> None:
        self._clock = clock
        self._most = self._rate = queries_a_second / clock.scale
        self._watches: set[Watch] = set()
        self._next_query_at = 0.0
        self._line = 0
        """Counts how often the line was formed anew."""
        self._quiet_until = 0.0
        self._naps: set[asyncio.Future[None]] = set()
        self.gaps = 0
        """How often monotonic time has jumped; what was measured across that says nothing."""

    def begin(self, times: RunTimes, age_s: float = 0.0) -> Watch:
        """Watch a job that the vendor accepted `age_s` ago."""
        watch = Watch(times, self._clock.elapsed() - age_s)
        self._watches.add(watch)
        return watch

    def end(self, watch: Watch) -> None:
        """The job has ended, or nobody watches it any more."""
        self._watches.discard(watch)

    async def turn(self, watch: Watch, *, at_once: bool = False) -> None:
        """Wait until it is worth looking at this job (now, if `at_once`), and until the account may be asked."""
        if not at_once:
            await self._nap(self.wait_s(watch))
        while (wait_s := self._place_in_line()) > 0:
            line = self._line
            await self._clock.sleep(wait_s)
            if line == self._line:
                return

    async def _nap(self, seconds: float) -> None:
        """Wait so long, or until everyone is told to look now."""
        nap = asyncio.ensure_future(self._clock.sleep(seconds))
        self._naps.add(nap)
        try:
            await asyncio.wait([nap])
        finally:
            self._naps.discard(nap)
            nap.cancel()
        if not nap.cancelled():
            nap.result()

    def look_now(self, *, elapsed_jumped: bool) -> None:
        """Time has passed unnoticed: whatever has ended meanwhile ended long ago."""
        self.gaps += elapsed_jumped
        for nap in self._naps:
            nap.cancel()

    def _place_in_line(self) -> float:
        """Seconds until the next query that nobody has taken yet; it is taken now."""
        now = self._clock.elapsed()
        at = max(now, self._next_query_at)
        self._next_query_at = at + 1 / self._rate
        return at - now

    def slow_down(self, for_s: float) -> None:
        """The vendor says that it is asked too often: no query before `for_s` from now, not even one in line."""
        self._next_query_at = self._quiet_until = max(self._quiet_until, self._clock.elapsed() + for_s)
        self._line += 1

    def too_fast(self, for_s: float) -> None:
        """It says so of a look: from now on looks are rarer, too. Looks of one burst count once."""
        if self._clock.elapsed() >= self._quiet_until:
            self._rate = max(SLOWEST * self._most, self._rate * (1 - SLOWER))
        self.slow_down(for_s)

    def answered(self) -> None:
        """A look was in order: by and by they may be as frequent as they are allowed to be."""
        self._rate = min(self._most, self._rate + FASTER * self._most)

    def wait_s(self, watch: Watch) -> float:
        """Seconds until the next look at this job."""
        now = self._clock.elapsed()
        age = watch.age_s(now)
        fit = watch.times.fit()
        demand = sum(math.sqrt(self._hazard(other, other.age_s(now))) for other in self._watches)
        budget = max(demand / self._rate, LOOK_COST * math.sqrt(self._clock.scale))
        # Where the hazard falls, so does that of the others, and waiting for the integral would be waiting too long.
        longest = budget / math.sqrt(self._hazard(watch, age))
        spent, waited = 0.0, 0.0
        while waited < longest:
            step = max(fit.median_s, age + waited) / STEPS_OF_MEDIAN  # old jobs' hazard changes slowly
            gain = math.sqrt(self._hazard(watch, age + waited + step / 2)) * step
            if spent + gain >= budget:
                waited += step * (budget - spent) / gain
                break
            spent += gain
            waited += step
        waited = min(waited, longest)
        if age > SLOW_DOWN_AFTER * fit.median_s:
            waited = max(waited, min(age / 100, self._clock.scaled(STUCK_WAIT_S)))
        return waited

    def _hazard(self, watch: Watch, age_s: float) -> float:
        return watch.times.fit().hazard(age_s) + ANY_TIME / self._clock.scale


class Pacers:
    """A pacer for each account."""

    def __init__(self, clock: Clock, queries_a_second: float = QUERIES_A_SECOND) -> None:
        self._clock = clock
        self._rate = queries_a_second
        self._pacers: dict[int, Pacer] = {}

    def of(self, account_id: int) -> Pacer:
        """The account's pacer."""
        if account_id not in self._pacers:
            self._pacers[account_id] = Pacer(self._clock, self._rate)
        return self._pacers[account_id]

    def look_now(self, *, elapsed_jumped: bool) -> None:
        """Every job is looked at, as fast as its account may."""
        for pacer in self._pacers.values():
            pacer.look_now(elapsed_jumped=elapsed_jumped)
