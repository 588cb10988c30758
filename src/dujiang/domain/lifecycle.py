"""A task's life: its states, what can happen to it, and the one table that says what is lawful.

```
queued ─► preparing ─► ready ─► submitting ─► generating ─► collecting ─► succeeded
```

An event is the only way a state changes. What is final, running or lawful is derived from `TRANSITIONS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dujiang.domain.errors import UnlawfulEvent


class State(StrEnum):
    """Where a task stands. The values are part of the contract: JSON, database, web."""

    QUEUED = "queued"
    PREPARING = "preparing"
    READY = "ready"
    SUBMITTING = "submitting"
    GENERATING = "generating"
    COLLECTING = "collecting"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    LOST = "lost"
    CANCELLED = "cancelled"


class Decider(StrEnum):
    """Who decided: a person, the batch's policy, or the vendor."""

    PERSON = "person"
    POLICY = "policy"
    VENDOR = "vendor"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A picture on disk, complete and checked. `path` is relative to the batch's folder."""

    path: str
    sha256: str
    bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a task."""


@dataclass(frozen=True, slots=True)
class PreparationStarted(Event):
    """A worker began to publish the task's references."""


@dataclass(frozen=True, slots=True)
class Prepared(Event):
    """Every reference has a public address."""

    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutBack(Event):
    """Preparing stopped through no fault of the task: the host rests or the network is away."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Claimed(Event):
    """A slot was taken and the attempt written down, before any byte leaves."""

    number: int
    lane: int


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """The vendor took the job; from here on it is paid for if it succeeds."""

    job_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Postponed(Event):
    """A submit came to nothing and provably cost nothing: the task goes back to the head of the line.

    `used_try` counts it against the task's tries, `tries_over` starts them anew; `fresh` counts it as a fresh submit
    after a refused output.
    """

    code: str
    message: str = ""
    used_try: bool = False
    tries_over: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class LinkRefused(Event):
    """The vendor could not fetch a reference: it is checked and published again, once."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Unanswered(Event):
    """A submit's answer never came: it may have been paid for. Only a decision leads out of doubt.

    `slot_for_s`: how long the slot stays taken, in seconds from now.
    """

    code: str
    message: str = ""
    slot_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Orphaned(Event):
    """The worker that held the task is gone. `slot_for_s` as in `Unanswered`, for a task that was submitting."""

    worker: str
    slot_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rendered(Event):
    """The vendor finished; the pictures' addresses are known. `run_s`: accepted to seen finished, if measured."""

    urls: tuple[str, ...]
    run_s: float | None = None


@dataclass(frozen=True, slots=True)
class OutputRefused(Event):
    """What was made was refused and is not billed; a fresh submit is lawful."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class UrlsGone(Event):
    """The pictures' addresses have expired; the job's record may still give fresh ones."""


@dataclass(frozen=True, slots=True)
class Saved(Event):
    """Every picture is on disk, complete and checked."""

    files: tuple[StoredFile, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Blocked(Event):
    """Moderation refused it."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """It ended badly. `charged`: the vendor billed it all the same."""

    code: str
    message: str = ""
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Vanished(Event):
    """Paid, and the result can't be had any more."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class CancelRequested(Event):
    """Somebody asked to cancel a task that may be at the vendor already: a flag beside the state."""

    by: Decider = Decider.PERSON


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The task ends because somebody asked for it."""

    by: Decider = Decider.PERSON


@dataclass(frozen=True, slots=True)
class ResubmitDecided(Event):
    """Doubt resolved: send it again, and accept that the first submit may have been paid for too."""

    by: Decider = Decider.PERSON


@dataclass(frozen=True, slots=True)
class JobFound(Event):
    """Doubt resolved: the submit did arrive, and this is its job."""

    job_id: str
    by: Decider = Decider.PERSON


@dataclass(frozen=True, slots=True)
class GivenUp(Event):
    """Doubt resolved: it counts as failed."""

    by: Decider = Decider.PERSON


TRANSITIONS: Final[Mapping[tuple[State, type[Event]], State]] = MappingProxyType(
    {
        (State.QUEUED, PreparationStarted): State.PREPARING,
        (State.QUEUED, Cancelled): State.CANCELLED,
        (State.PREPARING, Prepared): State.READY,
        (State.PREPARING, PutBack): State.QUEUED,
        (State.PREPARING, Orphaned): State.QUEUED,
        (State.PREPARING, Failed): State.FAILED,
        (State.PREPARING, Cancelled): State.CANCELLED,
        (State.READY, Claimed): State.SUBMITTING,
        (State.READY, Cancelled): State.CANCELLED,
        (State.SUBMITTING, Accepted): State.GENERATING,
        (State.SUBMITTING, Postponed): State.READY,
        (State.SUBMITTING, LinkRefused): State.PREPARING,
        (State.SUBMITTING, Blocked): State.BLOCKED,
        (State.SUBMITTING, Failed): State.FAILED,
        (State.SUBMITTING, Unanswered): State.IN_DOUBT,
        (State.SUBMITTING, Orphaned): State.IN_DOUBT,
        (State.SUBMITTING, CancelRequested): State.SUBMITTING,
        (State.SUBMITTING, Cancelled): State.CANCELLED,
        (State.GENERATING, Rendered): State.COLLECTING,
        (State.GENERATING, OutputRefused): State.READY,
        (State.GENERATING, Blocked): State.BLOCKED,
        (State.GENERATING, Failed): State.FAILED,
        (State.GENERATING, Vanished): State.LOST,
        (State.GENERATING, Orphaned): State.GENERATING,
        (State.GENERATING, CancelRequested): State.GENERATING,
        (State.GENERATING, Cancelled): State.CANCELLED,
        (State.COLLECTING, Saved): State.SUCCEEDED,
        (State.COLLECTING, UrlsGone): State.GENERATING,
        (State.COLLECTING, Vanished): State.LOST,
        (State.COLLECTING, Orphaned): State.COLLECTING,
        (State.IN_DOUBT, ResubmitDecided): State.READY,
        (State.IN_DOUBT, JobFound): State.GENERATING,
        (State.IN_DOUBT, GivenUp): State.FAILED,
    }
)

# Final means nothing leads out, so a new state cannot be forgotten here.
FINAL: Final = frozenset(State) - {state for state, _ in TRANSITIONS}

# Held by one worker: losing that worker means something. The rest waits for anybody.
HELD: Final = frozenset(state for state, event in TRANSITIONS if event is Orphaned)

# Only a decision leads out; a batch is over when nothing but these and final ones is left.
AWAITING_DECISION: Final = frozenset({State.IN_DOUBT})

# At the vendor, as far as anybody knows.
AT_VENDOR: Final = frozenset({State.SUBMITTING, State.GENERATING})


def next_state(state: State, event: Event) -> State:
    """Where `event` leads from `state`.

    Raises:
        UnlawfulEvent: the table has no such way.
    """
    try:
        return TRANSITIONS[state, type(event)]
    except KeyError:
        raise UnlawfulEvent(f"{type(event).__name__} cannot happen to a task that is {state}") from None


def heeding_cancel(state: State, event: Event, *, cancel_requested: bool) -> Event:
    """The event to record: a task that would go back to waiting although its cancel was asked for ends instead.

    A decision to resubmit is newer than the wish to cancel, and wins.
    """
    back_in_line = next_state(state, event) in {State.READY, State.QUEUED, State.PREPARING}
    if cancel_requested and back_in_line and (state, Cancelled) in TRANSITIONS:
        return Cancelled()
    return event
