"""Who says how many jobs a lane may hold: the product's limits, and what others do."""

import random
from typing import Final

from dujiang.domain.belief import Belief, Kind, Load, Sent
from dujiang.domain.brim import Brim
from dujiang.domain.limits import FixedLimit
from dujiang.domain.pace import Pace

CLASSIC_WAITS_S: Final = (2.0, 4.0, 8.0)


class Ours:
    """The product's arithmetic, with nothing of our own but the clock and the random numbers."""

    def __init__(self, brim: Brim, seed: int, belief: Belief | None = None) -> None:
        self.brim = brim
        self.belief = belief or brim.start()
        self.pace = Pace()
        self._random = random.Random(f"{seed} policy")

    def permit(self, load: Load, backlog: int, now: float) -> tuple[int, Kind, float | None]:
        """What the lane permits, if the account's pace does."""
        self.belief, permit = self.brim.permit(self.belief, load, backlog, now)
        if not permit.count:
            return 0, permit.kind, permit.again_s
        count, again_s = self.pace.permit(permit.count, now)
        return count, permit.kind, again_s

    def submitted(self, now: float) -> None:
        """One was."""
        self.pace = self.pace.sent(now)

    def admitted(self, sent: Sent, load: Load, now: float) -> None:
        """The vendor has taken one."""
        self.belief = self.brim.admitted(self.belief, sent, load, now)

    def refused(self, sent: Sent, load: Load, tries: int, now: float) -> float | None:
        """Back to the head of the line."""
        self.belief = self.brim.refused(self.belief, sent, load, now, self._random.random())
        return 0.0

    def too_fast(self, sent: Sent, load: Load, tries: int, now: float, admitted_last_s: int) -> float | None:
        """Back to the head of the line."""
        self.belief = self.brim.too_fast(self.belief)
        self.pace = self.pace.too_fast(now, admitted_last_s)
        return 0.0

    def ended(self, run_s: float, now: float) -> float:
        """The slot stays empty while it settles."""
        self.belief = self.brim.ended(self.belief, run_s, now)
        return self.brim.stays_empty_s(self.belief)

    def hinted(self, now: float) -> None:
        """Look now."""
        self.belief = self.brim.hinted(self.belief, now)


class Fixed:
    """Always N jobs; a refused task waits in its place and is tried three times more, then it has failed.

    With 3 jobs it is the classic system. Of the right size it is never refused, and can't be better.
    """

    def __init__(self, slots: int) -> None:
        self._limit = FixedLimit(slots)

    def permit(self, load: Load, backlog: int, now: float) -> tuple[int, Kind, float | None]:
        """Whatever is free."""
        return min(self._limit.free(load.slots), backlog), Kind.ORDINARY, None

    def submitted(self, now: float) -> None:
        """Nothing to learn."""

    def admitted(self, sent: Sent, load: Load, now: float) -> None:
        """Nothing to learn."""

    def refused(self, sent: Sent, load: Load, tries: int, now: float) -> float | None:
        """2, 4, 8 s, then it fails."""
        return CLASSIC_WAITS_S[tries - 1] if tries <= len(CLASSIC_WAITS_S) else None

    def too_fast(self, sent: Sent, load: Load, tries: int, now: float, admitted_last_s: int) -> float | None:
        """Tries are tries."""
        return self.refused(sent, load, tries, now)

    def ended(self, run_s: float, now: float) -> float:
        """Nothing to learn."""
        return 0.0

    def hinted(self, now: float) -> None:
        """Nothing to learn."""


class Aimd:
    """Additive increase, multiplicative decrease: a slot more for a window of ends, `back` times as many if refused.

    With `slow_start` also a slot more for every task admitted, until the first refusal. After refusals it waits 1 s,
    doubling to 30 s; a refused task goes back to the head of the line, as with ours.
    """

    def __init__(self, back: float, *, slow_start: bool) -> None:
        self._back = back
        self._slow_start = slow_start
        self._window = 1.0
        self._cut_at = -1.0
        self._wait_s = 0.5

    def permit(self, load: Load, backlog: int, now: float) -> tuple[int, Kind, float | None]:
        """Up to the window."""
        gate = self._cut_at + self._wait_s
        if now < gate:
            return 0, Kind.ORDINARY, gate - now
        return max(0, min(int(self._window) - load.slots, backlog)), Kind.ORDINARY, None

    def submitted(self, now: float) -> None:
        """Nothing to learn."""

    def admitted(self, sent: Sent, load: Load, now: float) -> None:
        """A slot more, at the start."""
        self._wait_s = 0.5
        if self._slow_start:
            self._window += 1

    def refused(self, sent: Sent, load: Load, tries: int, now: float) -> float | None:
        """A smaller window; once for a burst."""
        if sent.at >= self._cut_at:
            self._wait_s = min(30.0, 2 * self._wait_s)
            self._window = max(1.0, self._window * self._back)
            self._cut_at = now
            self._slow_start = False
        return 0.0

    def too_fast(self, sent: Sent, load: Load, tries: int, now: float, admitted_last_s: int) -> float | None:
        """A refusal is a refusal."""
        return self.refused(sent, load, tries, now)

    def ended(self, run_s: float, now: float) -> float:
        """A little more window."""
        self._window += 1 / self._window
        return 0.0

    def hinted(self, now: float) -> None:
        """Nothing to learn."""
