"""What follows from an error: a lookup, told once. Pure: an error and a task in, a verdict out.

A verdict is the event to record and, where something else than the task is at fault, who has to rest for it.
"""

from dataclasses import dataclass
from typing import Final

from dujiang.domain import errors
from dujiang.domain.lifecycle import (
    Blocked,
    Cancelled,
    Decider,
    Event,
    Failed,
    LinkRefused,
    OutputRefused,
    Postponed,
    PutBack,
    Unanswered,
    Vanished,
)
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.task import Task

FRESH_SUBMITS: Final = 2
LINK_CHECKS: Final = 1


def _doubling(waits: int, base_s: float, longest_s: float) -> tuple[float, ...]:
    """So many waits, each twice as long as the one before."""
    return tuple(min(longest_s, base_s * 2.0**n) for n in range(waits))


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Who rests for how long after what, in real seconds (already scaled).

    The waits between the tries of a task against a dead endpoint are the endpoint's first rests: were they the task's
    own, ten thousand waiting tasks would knock on a closed door one after the other.
    """

    lane: RestRule
    endpoint: RestRule
    account: RestRule

    @classmethod
    def classic(
        cls, scale: float = 1.0, *, tries: int = 3, base_s: float = 2.0, longest_s: float = 10.0
    ) -> "RetryRules":
        """The figures that users of this vendor know: 2 → 4 → 8 s, at most 10; then an endpoint rests 10 … 120 s."""
        waits = _doubling(tries, base_s * scale, longest_s * scale)
        return cls(
            lane=RestRule(base_s * scale, longest_s * scale),
            endpoint=RestRule(10 * scale, 120 * scale, waits),
            account=RestRule(30 * scale, 600 * scale),  # probed now and then: a key is seldom mended within seconds
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The event that follows, and who rests."""

    event: Event
    rest: RestOrder | None = None


def after_submit(error: errors.ProviderError, task: Task, rules: RetryRules, *, slot_for_s: float) -> Verdict:
    """What follows when a submit did not bring a job id.

    `slot_for_s`: how long the slot stays taken if nobody can know whether the submit arrived.
    """
    attempt = task.attempt
    assert attempt is not None, "a submit has an attempt"
    text = error.message
    match error:
        case errors.LaneFull() if attempt.kind is not None:  # its lane finds its limit, and waits as that says
            return Verdict(Postponed(error.code, text))
        case errors.LaneFull():
            rest = RestOrder(Subject.LANE, str(attempt.lane_id), "slot", error.vendor_code or "", rules.lane)
            return Verdict(Postponed(error.code, text), rest)
        case errors.TooFast():  # the account's pace says when the next one may leave
            return Verdict(Postponed(error.code, text))
        case errors.AccountRefused() if error.why == "model":
            rest = RestOrder(Subject.LANE, str(attempt.lane_id), "account", f"model: {text}", rules.account)
            return Verdict(Postponed(error.code, text), rest)
        case errors.AccountRefused():
            rest = RestOrder(Subject.ACCOUNT, str(attempt.account_id), "account", f"{error.why}: {text}", rules.account)
            return Verdict(Postponed(error.code, text), rest)
        case errors.EndpointDown():
            rest = RestOrder(Subject.ENDPOINT, attempt.endpoint, "network", text, rules.endpoint)
            tries_left = task.tries < len(rules.endpoint.tries)
            return Verdict(Postponed(error.code, text, used_try=tries_left, tries_over=not tries_left), rest)
        case errors.LinkUnreachable() if task.request.references and task.link_checks < LINK_CHECKS:
            return Verdict(LinkRefused(text))
        case errors.ContentBlocked():
            return Verdict(Blocked(error.vendor_code or error.code, text))
        case errors.OutputBlocked() if task.fresh_submits < FRESH_SUBMITS:
            # As the answer to a submit it is proof of no charge like any other: no run came of it, a fresh one may.
            return Verdict(Postponed(error.vendor_code or error.code, text, fresh=True))
        case errors.OutputBlocked():
            return Verdict(Blocked(error.vendor_code or error.code, text))
        case errors.ProvenUncharged():
            return Verdict(Failed(error.vendor_code or error.code, text))
        case _:
            return Verdict(Unanswered(error.vendor_code or error.code, text, slot_for_s))


@dataclass(frozen=True, slots=True)
class UploadRules:
    """How often a host is asked for one picture, and how long it rests then; in real seconds (already scaled)."""

    waits: tuple[float, ...]
    """Before each further try of one upload."""
    host: RestRule
    """It does not answer."""
    account: RestRule
    """It refuses the account."""
    refusals: tuple[float, ...]
    """It has refused 2, 3, 4 and more pictures, one after the other: the account is at risk, for so long it rests."""

    @classmethod
    def classic(
        cls, scale: float = 1.0, *, tries: int = 3, base_s: float = 1.0, longest_s: float = 5.0
    ) -> "UploadRules":
        """The figures that users of this host know: 1 → 2 → 4 s, at most 5; then the host rests 10 … 120 s."""
        return cls(
            waits=_doubling(tries, base_s * scale, longest_s * scale),
            host=RestRule(10 * scale, 120 * scale),
            account=RestRule(30 * scale, 600 * scale),
            # After 2 and 3 refusals in a row a while; after 4 (the fifth suspends the account) until somebody looks.
            refusals=(60 * scale, 120 * scale, DAY_S * scale),
        )


DAY_S: Final = 86_400.0
RISKY_REFUSALS: Final = 2
"""So many pictures refused in a row, and the host's account rests: five suspend it."""


def after_upload(
    error: errors.HostError | errors.PictureUnfit, host: str, rules: UploadRules, refused_in_a_row: int
) -> Verdict:
    """What follows when a reference could not be published.

    `refused_in_a_row`: pictures that the host has refused since it last took one, this one included.
    """
    text = error.message
    match error:
        case errors.HostDown():
            return Verdict(PutBack(error.code, text), RestOrder(Subject.HOST, host, "host", error.why, rules.host))
        case errors.HostRefused():
            rest = RestOrder(Subject.HOST, host, "host_account", text, rules.account)
            return Verdict(PutBack(error.code, text), rest)
        case errors.PictureRefused() if refused_in_a_row >= RISKY_REFUSALS:
            detail = f"{refused_in_a_row} pictures refused in a row"
            length_s = rules.refusals[min(refused_in_a_row - RISKY_REFUSALS, len(rules.refusals) - 1)]
            rest = RestOrder(Subject.HOST, host, "host_refusals", detail, RestRule(length_s, length_s))
            return Verdict(Failed(error.code, text), rest)
        case _:
            return Verdict(Failed(error.code, text))


def after_look(error: errors.ProviderError, task: Task) -> Event | None:
    """What follows when a poll says that the job ended badly; None if it says nothing and polling goes on."""
    code, text = error.vendor_code or error.code, error.message
    delivered = task.attempt is not None and task.attempt.delivered
    match error:
        case (
            errors.ContentBlocked()
            | errors.OutputBlocked()
            | errors.RequestRefused()
            | errors.LinkUnreachable()
            | errors.JobCancelled()
        ) if delivered:  # only its addresses are asked for again: whatever is said now, it was billed
            return Vanished(code, text)
        case errors.ContentBlocked():
            return Blocked(code, text)
        case errors.OutputBlocked():
            return OutputRefused(code, text) if task.fresh_submits < FRESH_SUBMITS else Blocked(code, text)
        case errors.RequestRefused() | errors.LinkUnreachable():
            return Failed(code, text)
        case errors.RecordGone():
            return Vanished(code, text)
        case errors.JobCancelled():
            by = Decider.PERSON if task.cancel_requested else Decider.VENDOR
            return Cancelled(by)
        case _:
            return None


class LookHistory:
    """Answers that end a job only if they stay the same: counts how often and how long one has been given."""

    def __init__(self) -> None:
        self._answer: str | None = None
        self._since = 0.0
        self._times = 0  # 0: no such answer yet, or another one came between

    def ends(self, error: errors.Undecided, elapsed_s: float, *, scale: float = 1.0) -> bool:
        """Whether `error`, seen at `elapsed_s` (monotonic), has now stayed long enough to end the job."""
        if not self._times or error.vendor_code != self._answer:
            self._answer, self._since, self._times = error.vendor_code, elapsed_s, 0
        self._times += 1
        return self._times >= error.polls and elapsed_s - self._since >= error.for_s * scale

    def clear(self) -> None:
        """Another answer came between."""
        self._times = 0
