"""Rests: who may not be asked right now, why, and for how long.

A fault of a lane, an account, an endpoint or the disk is never a task's fault: what was asked rests, and the tasks
that need it wait with that reason. When a rest is over, one task looks; its answer ends the rest or lengthens it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Subject(StrEnum):
    """What can rest."""

    LANE = "lane"
    ACCOUNT = "account"
    ENDPOINT = "endpoint"
    DISK = "disk"
    HOST = "host"  # an image host


@dataclass(frozen=True, slots=True)
class RestRule:
    """How long a rest is, in real seconds: the `tries` first, then `base_s` doubling, at most `longest_s`."""

    base_s: float
    longest_s: float
    tries: tuple[float, ...] = ()

    def length_s(self, rests_before: int) -> float:
        """Length of the next rest after so many in a row."""
        if rests_before < len(self.tries):
            return self.tries[rests_before]
        return min(self.longest_s, self.base_s * 2.0 ** min(rests_before - len(self.tries), 30))


@dataclass(frozen=True, slots=True)
class RestOrder:
    """Let `subject` rest: what the event that is being recorded has shown."""

    subject: Subject
    key: str
    code: str
    """Machine-readable reason: `slot`, `network`, `account`, `disk`, `host`, `host_account`,
    `host_refusals`."""
    detail: str
    rule: RestRule


@dataclass(frozen=True, slots=True)
class Rest:
    """A rest as stored. It carries its length and is never honoured longer than that from now."""

    subject: Subject
    key: str
    code: str
    detail: str
    until: float
    length_s: float
    in_a_row: int

    def remaining_s(self, now: float) -> float:
        """Seconds still to wait; 0 when one task may look."""
        return min(max(0.0, self.until - now), self.length_s)
