"""Whose turn it is: free slots of one lane, shared out between the batches that wait for it.

The higher priority goes first: a batch's own plus that of the task at the head of its line. Between equals the batch
goes first that holds the fewest slots of the lane, and then the one that was served longest ago: what is scarce is
slots, not submits, and slots are counted from attempts, so there is no credit that could drift. Twenty tasks that come
behind twenty thousand get every free slot until they hold as many as the others, and no share is kept for a batch that
has nothing ready. A batch that holds no slot at all gains a point of priority for every `ageing_s` that it waits, so
nothing starves.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dujiang.domain.belief import LONG_AGO

LOWEST: Final = -100
HIGHEST: Final = 100
"""Priorities of batches and of tasks; 0 is usual."""


@dataclass(frozen=True, slots=True)
class Line:
    """A batch's line at a lane. Moments are on the caller's clock."""

    batch: str
    priority: int
    """The batch's."""
    heads: Sequence[int]
    """Own priorities of its next tasks, best first; as many as there are places are enough."""
    slots: int
    """Slots of the lane that its tasks hold."""
    came_at: float
    """Since when it waits without a break."""
    served_at: float = LONG_AGO
    """When it last got a slot."""

    def aged(self, now: float, ageing_s: float) -> int:
        """Points for waiting without a single slot; `ageing_s` of 0: none."""
        waited_s = now - max(self.came_at, self.served_at)
        return int(max(0.0, waited_s) / ageing_s) if ageing_s and not self.slots else 0


def shared_out(lines: Sequence[Line], places: int, now: float, ageing_s: float) -> Counter[str]:
    """How many of so many free places each batch gets; those with nothing ready get none."""
    shares: Counter[str] = Counter()
    aged = {line.batch: line.aged(now, ageing_s) for line in lines}

    def turn(line: Line) -> tuple[int, int, float, str]:
        got = shares[line.batch]
        points = 0 if got else aged[line.batch]
        served_at = now if got else line.served_at
        return -(line.priority + line.heads[got] + points), line.slots + got, served_at, line.batch

    for _ in range(places):
        waiting = [line for line in lines if shares[line.batch] < len(line.heads)]
        if not waiting:
            break
        shares[min(waiting, key=turn).batch] += 1
    return shares
