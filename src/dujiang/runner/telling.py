"""The story of a run, told as it happens: each recorded event of a task, each rest, and how a batch gets on.

`Flow` tells a batch in the lines that users of this vendor have always had; `Teller` tells what is said to the vendor,
with how many tries there were of how many, and the wait.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from dujiang.domain import lifecycle as life
from dujiang.domain.accounts import Lane
from dujiang.domain.belief import Belief
from dujiang.domain.lifecycle import AT_VENDOR, FINAL, State
from dujiang.domain.rests import Rest, RestOrder, Subject
from dujiang.domain.task import Task
from dujiang.ports import Log, Turn


@dataclass(slots=True)
class Flow:
    """How one batch gets on. A task has ended for it once its slot is free and it needs no other."""

    log: Log
    batch: str
    tasks: int = 0
    """In all, of this run."""
    _at_vendor: set[int] = field(default_factory=set)
    _ended: set[int] = field(default_factory=set)
    _only_rest_told: bool = False
    _begun_at: float | None = None
    _last_end: float | None = None

    @property
    def ended_tasks(self) -> int:
        """Tasks that have ended in this run."""
        return len(self._ended)

    @property
    def lasted_s(self) -> float | None:
        """From the first task at the vendor to the last end; None if there was none."""
        return None if self._begun_at is None or self._last_end is None else self._last_end - self._begun_at

    def started(self, tasks: int, limit: str) -> None:
        """The run begins with so many unfinished tasks."""
        self.tasks = tasks
        self.log.tell("batch_started", batch=self.batch, tasks=tasks, limit=limit)

    def begun(self, task: Task, now: float) -> None:
        """A task was claimed or adopted, at a moment of monotonic time."""
        if task.batch == self.batch and task.state in AT_VENDOR:
            self._at_vendor.add(task.id)
            self._begun_at = now if self._begun_at is None else self._begun_at

    def filled(self, turn: Turn, limit: int | None) -> None:
        """Every free slot is filled. `limit`: None while it is being looked for."""
        running = len(self._at_vendor)
        if limit is not None and turn.tasks and State.READY in turn.waiting and running >= limit:
            self.log.tell("limit_reached", batch=self.batch, limit=limit)
        if turn.waiting:
            self._only_rest_told = False
        elif running and not self._only_rest_told:
            self._only_rest_told = True
            self.log.tell("only_rest_left", batch=self.batch, running=running)

    def learned(self, lane: Lane, belief: Belief) -> None:
        """A lane's limit is another one now."""
        self.log.tell("limit_changed", lane=lane.name, limit=belief.level, why=belief.why)

    def moved(self, task: Task, now: float) -> None:
        """An event was recorded."""
        if task.batch != self.batch:
            return
        if task.state in AT_VENDOR:
            self._at_vendor.add(task.id)
            return
        self._at_vendor.discard(task.id)
        if task.state in FINAL | {State.COLLECTING} and task.id not in self._ended:
            self._ended.add(task.id)
            self._last_end = now
            done, running = len(self._ended), len(self._at_vendor)
            total = max(self.tasks, done)
            self.log.tell("task_ended", batch=self.batch, task=task.id, done=done, tasks=total, running=running)

    def ended(self, reason: str, doubts: int) -> None:
        """The run is over; `reason` says how."""
        if reason != "over":
            self.log.tell("batch_stopped", batch=self.batch, reason=reason)
        elif doubts:
            self.log.tell("batch_held", batch=self.batch, doubts=doubts)
        else:
            self.log.tell("batch_ended", batch=self.batch)


class Teller:
    """Tells what happens between a task and the vendor."""

    def __init__(self, log: Log, label: str, tries: int) -> None:
        self._log = log
        self._label = label
        self._tries = tries

    def submitting(self, task: Task) -> None:
        """A submit is about to be sent."""
        attempt = task.attempt.number if task.attempt else 0
        self._tell("submit_sent", task, attempt=attempt, prompt=task.request.prompt)

    def recorded(self, before: Task, event: life.Event, after: Task) -> None:
        """An event is on disk."""
        job = after.attempt.job_id if after.attempt else None
        match event:
            case life.Accepted():
                self._tell("submit_accepted", after, job=event.job_id, request=event.request_id or "")
            case life.Unanswered():
                self._tell("submit_unanswered", after, reason=_reason(event.code, event.message))
            case life.Postponed(code="qps"):
                self._log.tell("account_slowed", label=self._label, task=after.id, reason=event.message)
            case life.Postponed() if before.attempt is not None and before.attempt.kind is not None:
                kind = before.attempt.kind.value
                self._tell("submit_refused", after, reason=_reason(event.code, event.message), kind=kind)
            case life.LinkRefused():
                self._tell("link_refused", after, reason=event.message)
            case life.OutputRefused():
                self._tell("output_refused", after, job=job, reason=_reason(event.code, event.message))
            case life.Rendered():
                self._tell("job_done", after, job=job, images=len(event.urls), run_s=f"{event.run_s or 0:.1f}")
            case life.UrlsGone():
                self._tell("urls_gone", after, job=job)
            case life.Saved():
                for file in event.files:
                    self._tell("image_saved", after, file=file.path, bytes=file.bytes, sha256=file.sha256[:12])
            case life.Blocked() | life.Failed() | life.Vanished():
                reason = _reason(event.code, event.message)
                self._tell("task_failed", after, state=after.state.value, reason=reason)
            case _:
                self._tell("task_moved", after, event_type=type(event).__name__, state=after.state.value)

    def came_too_late(self, before: Task, event: life.Event) -> None:
        """Somebody else has taken the task over. A job that nobody else has heard of must be known to a person."""
        if isinstance(event, life.Accepted):
            self._tell("submit_too_late", before, job=event.job_id, request=event.request_id or "")
        else:
            self._tell("task_too_late", before, event_type=type(event).__name__)

    def rests(self, order: RestOrder, rests: Collection[Rest]) -> None:
        """Somebody rests: which try it was of how many, and how long the wait is."""
        rest = next((rest for rest in rests if (rest.subject, rest.key) == (order.subject, order.key)), None)
        if rest is None:
            return
        told = {
            "label": self._label,
            "reason": order.detail,
            "wait_s": f"{rest.length_s:g}",
            "tries": rest.in_a_row + 1,
        }
        match order.subject:
            case Subject.LANE if order.code == "slot":
                self._log.tell("lane_rests", **told)
            case Subject.ENDPOINT if rest.in_a_row < self._tries:
                self._log.tell("endpoint_again", **told, most=self._tries)
            case Subject.ENDPOINT:
                self._log.tell("endpoint_rests", **told)
            case Subject.HOST:
                self._log.tell("host_rests", **(told | {"label": order.key.capitalize()}))
            case Subject.DISK:
                self._log.tell("disk_rests", reason=order.detail, wait_s=told["wait_s"])
            case _:
                self._log.tell("account_rests", **told)

    def looked(self, task: Task, status: str) -> None:
        """A job was looked at."""
        self._tell("job_looked_at", task, job=task.attempt.job_id if task.attempt else None, status=status)

    def look_failed(self, task: Task, reason: str, tries: int, wait_s: float) -> None:
        """A look was not answered: it is paid for, so it is looked at for as long as it takes."""
        job = task.attempt.job_id if task.attempt else None
        self._tell("look_again", task, job=job, reason=reason, tries=tries, wait_s=f"{wait_s:.1f}")

    def download_failed(self, task: Task, reason: str, tries: int, most: int, wait_s: float) -> None:
        """A picture did not come home this time."""
        self._tell("download_again", task, reason=reason, tries=tries, most=most, wait_s=f"{wait_s:.1f}")

    def _tell(self, name: str, task: Task, **fields: object) -> None:
        self._log.tell(name, label=self._label, batch=task.batch, task=task.id, **fields)


def _reason(code: str, message: str) -> str:
    return message if message.startswith(code) else f"{code} {message}".strip()
