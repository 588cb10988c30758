"""How long jobs of a lane run, and what follows: when to look at a job, and how long a doubtful slot lasts.

Run times are close to lognormal. From the last 200 of a lane come
- the hazard: the chance per second that a job of a given age ends now. Polls are spent where it is high.
- the ceiling: a time after which a submit whose answer never came can't be running any more.
All times are real, measured seconds; only the starting guess is one of ours and is scaled by the caller.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

REMEMBERED: Final = 200
ENOUGH_FOR_CEILING: Final = 50  # with fewer the longest one says too little about the next
GUESS_WEIGHT: Final = 4  # the starting guess counts as much as so many measured runs
GUESS_SPREAD: Final = 0.5  # of the logarithm: p99 is 3.2 times the median
LEAST_SPREAD: Final = 0.05  # a simulator may be exact; a vendor never is
FAR: Final = 20.0  # standard deviations: beyond them a float has nothing more to say


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Run times as seen so far: `median_s`, and the spread of their logarithm."""

    median_s: float
    spread: float

    def hazard(self, age_s: float) -> float:
        """Chance per second that a job ends, given that it has run for `age_s`."""
        if age_s <= 0:
            return 0.0
        z = (math.log(age_s) - math.log(self.median_s)) / self.spread
        if z < -FAR:  # far too young: the density underflows
            return 0.0
        if z > FAR:  # erfc underflows long after it stopped mattering: use its asymptote
            return (z + 1 / z) / (age_s * self.spread)
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        survival = math.erfc(z / math.sqrt(2)) / 2
        return density / (age_s * self.spread * survival)


class RunTimes:
    """The last run times of one lane, in the order they were seen."""

    def __init__(self, guess_s: float, seen_s: Iterable[float] = ()) -> None:
        self._guess_s = guess_s
        self._seen: deque[float] = deque(seen_s, REMEMBERED)
        self._fit: Lognormal | None = None

    def add(self, run_s: float) -> None:
        """Another job was seen to end `run_s` after it was accepted."""
        self._seen.append(max(run_s, 1e-3))
        self._fit = None

    def fit(self) -> Lognormal:
        """The lognormal that these run times and the starting guess suggest."""
        if self._fit is None:
            logs = [math.log(max(run_s, 1e-3)) for run_s in self._seen]
            weight = GUESS_WEIGHT if len(logs) < ENOUGH_FOR_CEILING else 0
            guess = math.log(self._guess_s)
            total = len(logs) + weight
            mean = (sum(logs) + weight * guess) / total
            variance = (sum((x - mean) ** 2 for x in logs) + weight * GUESS_SPREAD**2) / total
            self._fit = Lognormal(math.exp(mean), max(LEAST_SPREAD, math.sqrt(variance)))
        return self._fit


def ceiling_s(seen_s: Sequence[float], until_known_s: float) -> float:
    """How long a job of this lane can run: max(1.25 × the longest, 2 × p99); `until_known_s` until 50 are known."""
    if len(seen_s) < ENOUGH_FOR_CEILING:
        return until_known_s
    latest = seen_s[-REMEMBERED:]
    return max(1.25 * max(latest), 2 * percentile_s(latest, 0.99))


def percentile_s(seen_s: Sequence[float], part: float) -> float:
    """The shortest run time that so great a part of them did not exceed."""
    return sorted(seen_s)[max(0, math.ceil(part * len(seen_s)) - 1)]
