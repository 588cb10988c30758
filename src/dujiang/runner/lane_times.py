"""What is known of every lane's run times: read once from the engine, then kept as jobs end."""

from collections.abc import Callable
from typing import Final

from dujiang.domain.run_times import RunTimes, ceiling_s
from dujiang.ports import Clock, Engine

IMAGE_GUESS_S: Final = 22.0  # typical for an image (spec/jimeng.md §5)
IMAGE_UNTIL_KNOWN_S: Final = 120.0


class LaneTimes:
    """Run times by lane id."""

    def __init__(self, engine: Engine, clock: Clock, submit_timeout_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._submit_timeout_s = submit_timeout_s
        self._lanes: dict[int, RunTimes] = {}
        self._seen: dict[int, list[float]] = {}

    async def load(self, lane_id: int) -> RunTimes:
        """The run times of a lane."""
        if lane_id not in self._lanes:
            seen = await self._engine.run_times(lane_id)
            guess = self._clock.scaled(IMAGE_GUESS_S)
            self._lanes.setdefault(lane_id, RunTimes(guess, seen))
            self._seen.setdefault(lane_id, seen)
        return self._lanes[lane_id]

    def add(self, lane_id: int, run_s: float) -> None:
        """A job of the lane was seen to end."""
        self._lanes[lane_id].add(run_s)
        seen = self._seen[lane_id]
        seen.append(run_s)
        del seen[:-200]

    def mean_s(self, lane_id: int) -> float | None:
        """The mean of the run times seen; None before the first."""
        seen = self._seen.get(lane_id)
        return sum(seen) / len(seen) if seen else None

    def ceiling_s(self, lane_id: int) -> float:
        """How long a job of the lane can run: after that its slot is free, whatever nobody told us."""
        return ceiling_s(self._seen.get(lane_id, []), self._clock.scaled(IMAGE_UNTIL_KNOWN_S))

    def doubt_s(self) -> Callable[[int], float]:
        """For a lane's id: how long after it was sent an unanswered submit of a dead worker keeps its slot."""
        return lambda lane_id: self._submit_timeout_s + self.ceiling_s(lane_id)
