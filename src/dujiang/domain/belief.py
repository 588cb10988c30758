"""What goes into the limit that finds itself, and what comes out of it; `brim` is the arithmetic between."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final, TypeVar

CLIMBING: Final = math.inf
NEVER: Final = math.inf
LONG_AGO: Final = -math.inf
TOKENS: Final = 20.0
ON_ITS_WAY_S: Final = 5.0
"""So long, in our seconds, an unanswered submit counts as `unanswered`, then as `empty`: it must not stop the lane."""

T = TypeVar("T")


class Kind(StrEnum):
    """Why a task was submitted. It is kept with the attempt, because the answer is read by it."""

    GROW = "grow"
    """No limit is known: looking for it."""
    ORDINARY = "ordinary"
    """Within the limit."""
    PROBE = "probe"
    """One more than the limit: has it risen?"""


@dataclass(frozen=True, slots=True)
class Load:
    """The slots in use of one lane, counted from its attempts."""

    held: int = 0
    """Jobs that the vendor is known to have."""
    unanswered: int = 0
    """Submits on their way."""
    empty: int = 0
    """Slots without a known job that stay in use for some time: settling, or of a submit that nobody answers."""

    @property
    def slots(self) -> int:
        """All of them."""
        return self.held + self.unanswered + self.empty


@dataclass(frozen=True, slots=True)
class Sent:
    """A submit that has been answered: as what it was permitted, and when."""

    kind: Kind
    at: float


@dataclass(frozen=True, slots=True)
class Permit:
    """How many tasks may be submitted now, and as what."""

    count: int
    kind: Kind = Kind.ORDINARY
    why: str = ""
    """Why none: `idle` (no backlog), `refused` (waiting after a refusal), `unanswered` (answers first), `full`."""
    again_s: float | None = None
    """If none: ask again after so many seconds, even if nothing has happened."""


@dataclass(frozen=True, slots=True)
class Belief:
    """What one lane has learned. Moments are on the caller's clock; lengths are real seconds."""

    limit: float = CLIMBING
    why: str = "new"
    """What set the limit: `new`, `50430`, `probe`, `admitted`, `high` (reached), `bounds` (set anew)."""
    former: int = 0
    """The limit before this climb; 0 on the first."""
    refused_at: float = LONG_AGO
    """A submit that was sent earlier has nothing more to say: a burst of refusals counts once."""
    refusals: int = 0
    """Unexpected ones in a row."""
    gate: float = LONG_AGO
    """No submit before this moment."""
    admissions: int = 0
    """Since the last unexpected refusal, or since the lane was idle."""
    run_s: float = 20.0
    """Mean run time; a guess at first."""
    runs: int = 0
    probe_every_s: float = 0.0
    probe_at: float = LONG_AGO
    verdict_at: float = NEVER
    """When an admitted probe is judged."""
    tokens: float = TOKENS
    """Probes that may still be refused."""
    dropped_from: int = 0
    """The limit before it fell; 0 once that is reached again."""
    dropped_at: float = LONG_AGO
    ended_at: float = LONG_AGO
    """When a job was last seen to end."""
    suspect: bool = False
    """Whether the slot of that job may have been settling when the last task was refused."""
    settling: float = 0.6
    """How likely such a suspicion is right."""
    settle_s: float = 0.0
    """How long the slot of an ended job stays in use."""
    expected_at: float = LONG_AGO
    """When an expected refusal came (of a probe, or at the brim) whose aftermath isn't known yet."""
    punished: float = 0.0
    """How often the next submit was refused, too."""
    unpunished: float = 0.0
    """How often any other was."""
    pause_s: float = 0.0
    """How long nothing is submitted after a refusal."""

    @property
    def level(self) -> str:
        """The limit, for people."""
        return "climbing" if self.limit == CLIMBING else str(int(self.limit))

    @property
    def next_look_at(self) -> float | None:
        """When the next probe is due, for people; None while climbing."""
        return None if self.limit == CLIMBING else self.probe_at

    def fell_from(self, now: float) -> int:
        """The limit before the vendor began to refuse within it; 0 once that is reached again, or long ago."""
        return self.dropped_from if self.limit < self.dropped_from and now < self.dropped_at + 30 * self.run_s else 0

    def change_since(self, before: "Belief") -> str | None:
        """What to report, as in `50430: climbing -> 2`; None if the limit is the same."""
        return f"{self.why}: {before.level} -> {self.level}" if self.limit != before.limit else None

    def as_json(self) -> dict[str, Any]:
        """For a column of the lane."""
        return to_json(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Belief":
        """Of this or another version: what is unknown is left out, what is missing begins anew."""
        return read_json(cls, stored)


def to_json(value: Any) -> dict[str, Any]:
    """A flat dataclass; standard JSON has no infinity, so it is written as a string."""
    return {name: str(entry) if entry in {math.inf, -math.inf} else entry for name, entry in asdict(value).items()}


def read_json(of: type[T], stored: Mapping[str, Any]) -> T:
    """The same dataclass again, perhaps of another version."""
    infinities = {"inf": math.inf, "-inf": -math.inf}
    names = {field.name for field in fields(of)}  # type: ignore[arg-type]
    return of(**{name: infinities.get(entry, entry) for name, entry in stored.items() if name in names})
