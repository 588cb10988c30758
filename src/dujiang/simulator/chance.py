"""What is left to chance: faults, run times, numbers of images, the competitor. One seed, one story.

Every kind of question has its own random stream, so that more polls don't change which submits go wrong.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

from .settings import DOWNLOAD_FAULTS, END_FAULTS, FAULTS, POLL_FAULTS, SUBMIT_FAULTS, UPLOAD_FAULTS, SimulatorSettings

Kind: TypeAlias = Literal["submit", "poll", "download", "upload", "end"]
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "submit": SUBMIT_FAULTS,
    "poll": POLL_FAULTS,
    "download": DOWNLOAD_FAULTS,
    "upload": UPLOAD_FAULTS,
    "end": END_FAULTS,
}
_Z99: Final = NormalDist().inv_cdf(0.99)


class Chance:
    """Seeded decisions. `next_faults` goes before the dice: a test says what happens to the requests to come."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams = {name: random.Random(f"{seed}:{name}") for name in (*KINDS, "run", "images")}  # noqa: S311
        self.next_faults: dict[str, deque[str | None]] = {kind: deque() for kind in KINDS}
        self.happened: Counter[str] = Counter()

    def fault(self, kind: Kind, settings: SimulatorSettings) -> str | None:
        """The fault that this request meets, if any."""
        if self.next_faults[kind]:
            return self.next_faults[kind].popleft()
        if not settings.faults:
            return None
        roll = self._streams[kind].random()
        for name in KINDS[kind]:
            roll -= settings.faults.get(name, 0.0)
            if roll < 0:
                return name
        return None

    def plan_faults(self, kind: str, names: Iterable[str | None]) -> None:
        """Append to what the next requests of a kind meet; None is a request without a fault."""
        planned = list(names)
        wrong = [name for name in planned if name is not None and name not in KINDS.get(kind, ())]
        if kind not in KINDS or wrong:
            raise ValueError(f"{kind}: no such faults: {wrong}; known: {', '.join(FAULTS)}")
        self.next_faults[kind].extend(planned)

    def run_s(self, settings: SimulatorSettings) -> float:
        """How long the next job generates, in the vendor's seconds."""
        if settings.run_fixed_s is not None:
            return settings.run_fixed_s
        sigma = math.log(settings.run_p99_s / settings.run_median_s) / _Z99
        return self._streams["run"].lognormvariate(math.log(settings.run_median_s), abs(sigma))

    def images(self, most: int) -> int:
        """How many images the next job brings."""
        return 1 if most == 1 else self._streams["images"].randint(1, most)

    def competitor(self, settings: SimulatorSettings, now: float) -> int:
        """Slots of each pool that somebody else holds now."""
        if not settings.competitor_slots or settings.competitor_change_s is None:
            return settings.competitor_slots
        turn = int(now / max(settings.seconds(settings.competitor_change_s), 1e-9))
        return random.Random(f"{self._seed}:competitor:{turn}").randint(0, settings.competitor_slots)  # noqa: S311


class Rate:
    """At most so many requests in any second of the vendor's, per account."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}

    def admits(self, account: str, now: float, qps: float | None, second_s: float) -> bool:
        """Whether one more fits; what is turned away isn't counted."""
        if not qps:
            return qps is None
        most = max(1, int(qps))
        window_s = most / qps * second_s
        seen = self._seen.setdefault(account, deque())
        while seen and seen[0] <= now - window_s:
            seen.popleft()
        if len(seen) >= most:
            return False
        seen.append(now)
        return True
