"""A task is what the user asked for; an attempt is one submit of it, and what the ledger of charges reads."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any, Final

from dujiang.domain import lifecycle as life
from dujiang.domain.belief import Kind
from dujiang.domain.errors import UnlawfulEvent
from dujiang.domain.lifecycle import AWAITING_DECISION, FINAL, HELD, State, StoredFile
from dujiang.domain.requests import Request

HELD_UNTIL_TOLD = inf
"""`Attempt.slot_until` of a slot that ends with its job, not with a time."""


class Outcome(StrEnum):
    """How an attempt ended, as far as money goes."""

    OPEN = "open"  # submitted, or about to be: no answer yet
    RUNNING = "running"  # the vendor accepted it
    REFUSED = "refused"  # proof that nothing was charged
    IN_DOUBT = "in_doubt"  # it may have been charged; a decision about the task does not change that
    DONE = "done"  # charged, and delivered
    CHARGED = "charged"  # charged, and nothing useful came
    UNCHARGED = "uncharged"  # it ran and ended badly; the vendor bills only success
    LOST = "lost"  # charged, and the result can't be had any more
    CANCELLED = "cancelled"  # the vendor says so


SETTLED = frozenset({Outcome.RUNNING, Outcome.DONE, Outcome.CHARGED, Outcome.LOST})
"""Attempts that are charged, or will be: settled ≤ charges ≤ settled + in doubt."""

UNSETTLED = frozenset({Outcome.OPEN, Outcome.IN_DOUBT})
"""Attempts that may have been charged."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One submit of a task."""

    number: int
    lane_id: int
    account_id: int
    account: str
    endpoint: str
    req_key: str
    key_fingerprint: str
    sent_at: float
    """Committed before the first byte leaves; seconds since the epoch."""
    accepted_at: float | None = None
    job_id: str | None = None
    looking: bool = False
    """Sent to see whether something that rested answers again."""
    delivered: bool = False
    """The vendor has finished it and billed it, even if its pictures' addresses have to be asked for again."""
    kind: Kind | None = None
    """As what its lane permitted it, if the lane finds its limit; None: the limit was fixed."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the runner needs to know of a task. Frozen: an event yields the next one."""

    id: int
    batch: str
    position: int
    name: str
    """Stem of the file names of its pictures, unique in its batch."""
    request: Request
    state: State
    version: int
    """Grows with every event: whoever holds an older one changes nothing."""
    tries: int = 0
    """Faults of the way since the last success; a refusal that charges nothing does not count."""
    fresh_submits: int = 0
    """Submits after a refused output (at most 2)."""
    link_checks: int = 0
    """How often its references were published again (at most once)."""
    policy_resubmits: int = 0
    """Doubts that the batch's policy resolved by sending again."""
    references: tuple[str, ...] = ()
    """Public addresses, once prepared; empty means those of the request."""
    image_urls: tuple[str, ...] = ()
    attempt: Attempt | None = None
    cancel_requested: bool = False
    error_code: str | None = None
    error_message: str | None = None
    files: tuple[StoredFile, ...] = ()

    @property
    def is_over(self) -> bool:
        """Nothing more will happen to it."""
        return self.state in FINAL

    @property
    def is_held(self) -> bool:
        """One worker has it in hand; nobody else may touch it while that worker lives."""
        return self.state in HELD

    @property
    def can_go_on(self) -> bool:
        """Its holder has something to do: final, doubtful and waiting tasks leave the loop."""
        return self.state not in FINAL | AWAITING_DECISION | {State.QUEUED, State.READY}


def after(task: Task, event: life.Event) -> Task:
    """The task as `event` leaves it. Raises `UnlawfulEvent`.

    An event that only some states know (see the table) never reaches its case here from another state.
    """
    state = life.next_state(task.state, event)
    if isinstance(event, life.OutputRefused) and _is_delivered(task):
        raise UnlawfulEvent(f"task {task.id} was delivered, and billed: a fresh submit would be paid for twice")
    return replace(task, state=state, version=task.version + 1, **_changes(task, event))


def _changes(task: Task, event: life.Event) -> Mapping[str, Any]:
    match event:
        case life.Prepared():
            return {"references": event.references}
        case life.Accepted() | life.JobFound():
            return {"attempt": _with_job(task, event.job_id), "tries": 0, **_error(None, None)}
        case life.Postponed():
            return {
                "tries": 0 if event.tries_over else task.tries + event.used_try,
                "fresh_submits": task.fresh_submits + event.fresh,
                **_error(event.code, event.message),
            }
        case life.OutputRefused():
            return {"fresh_submits": task.fresh_submits + 1, **_error(event.code, event.message)}
        case life.LinkRefused():
            return {"link_checks": task.link_checks + 1, **_error("link", event.message)}
        case life.Unanswered() | life.Blocked() | life.Failed() | life.Vanished() | life.PutBack():
            return _error(event.code, event.message)
        case life.Orphaned() if task.state is State.SUBMITTING:
            return _error("worker_gone", event.worker)
        case life.GivenUp():
            return _error("given_up", task.error_message)
        case life.Rendered():
            attempt = replace(task.attempt, delivered=True) if task.attempt else None
            return {"attempt": attempt, "image_urls": event.urls, **_error(None, None)}
        case life.UrlsGone():
            return {"image_urls": ()}
        case life.Saved():
            return {"files": event.files, "image_urls": (), **_error(None, None)}
        case life.CancelRequested():
            return {"cancel_requested": True}
        case life.ResubmitDecided():
            by_policy = event.by is life.Decider.POLICY
            return {"policy_resubmits": task.policy_resubmits + by_policy, "cancel_requested": False}
        case _:
            return {}


def _is_delivered(task: Task) -> bool:
    return task.attempt is not None and task.attempt.delivered


def _error(code: str | None, message: str | None) -> dict[str, str | None]:
    return {"error_code": code, "error_message": message}


def _with_job(task: Task, job_id: str) -> Attempt:
    assert task.attempt is not None, "a job belongs to an attempt"
    return replace(task.attempt, job_id=job_id)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an event says about the attempt: its outcome, and for how long its slot stays taken from now."""

    outcome: Outcome
    slot_for_s: float
    """0: the job has ended at the vendor, or never began; `HELD_UNTIL_TOLD`: it runs."""


ENDED: Final = 0.0


def settlement(task: Task, event: life.Event) -> Settlement | None:
    """What `event` does to the newest attempt's charge and slot; None if it says nothing about them.

    A decision about a doubtful task is not among them: what the vendor holds is not changed by what we decide.
    """
    match event:
        case life.OutputRefused() | life.Blocked() | life.Failed() | life.Cancelled() if _is_delivered(task):
            return Settlement(Outcome.LOST, ENDED)  # billed when it was delivered, whatever became of it since
        case life.Accepted() | life.JobFound():
            return Settlement(Outcome.RUNNING, HELD_UNTIL_TOLD)
        case life.Postponed() | life.LinkRefused():
            return Settlement(Outcome.REFUSED, ENDED)
        case life.Unanswered():
            return Settlement(Outcome.IN_DOUBT, event.slot_for_s)
        case life.Orphaned() if task.state is State.SUBMITTING:
            return Settlement(Outcome.IN_DOUBT, event.slot_for_s)
        case life.Rendered():
            return Settlement(Outcome.DONE, ENDED)
        case life.UrlsGone():
            return None  # the job ended long ago: polling its record again takes no slot
        case life.OutputRefused():
            return Settlement(Outcome.UNCHARGED, ENDED)
        case life.Vanished():
            return Settlement(Outcome.LOST, ENDED)
        case life.Blocked() | life.Failed() | life.Cancelled() if task.state is State.SUBMITTING:
            return Settlement(Outcome.REFUSED, ENDED)
        case life.Failed() if task.state is State.GENERATING:
            return Settlement(Outcome.CHARGED if event.charged else Outcome.UNCHARGED, ENDED)
        case life.Blocked() if task.state is State.GENERATING:
            return Settlement(Outcome.UNCHARGED, ENDED)
        case life.Cancelled() if task.state is State.GENERATING:
            return Settlement(Outcome.CANCELLED, ENDED)
        case _:
            return None
