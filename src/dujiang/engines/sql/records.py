"""Recording events: the tasks, their attempts, their history and whoever rests for them, in one transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import DujiangError, StaleTask, UnlawfulEvent
from dujiang.domain.lifecycle import HELD, Event, State, heeding_cancel
from dujiang.domain.rests import RestOrder, Subject
from dujiang.domain.task import ENDED, HELD_UNTIL_TOLD, SETTLED, UNSETTLED, Outcome, Settlement, Task, after, settlement
from dujiang.engines.sql import budgets
from dujiang.engines.sql.beliefs import learn
from dujiang.engines.sql.bulk import Bulk, Types, Values, insertion
from dujiang.engines.sql.lanes import LOCK_LANES
from dujiang.engines.sql.paces import too_fast
from dujiang.engines.sql.rows import dumped, event_text, files_text
from dujiang.engines.sql.schema import attempts, events, lanes, rests, tasks

_COUNTED: Final = ("tries", "fresh_submits", "link_checks", "policy_resubmits")
_KEPT: Final = (
    "state",
    "version",
    "owner",
    *_COUNTED,
    "cancel_requested",
    "references",
    "image_urls",
    "files",
    "error_code",
    "error_message",
    "updated_at",
)
_MOVE: Final = Bulk(
    {"task_id": sa.Integer(), "held_version": sa.Integer()} | {f"new_{name}": tasks.c[name].type for name in _KEPT},
    lambda values: (
        sa.update(tasks)
        .where(tasks.c.id == values["task_id"], tasks.c.version == values["held_version"])
        .values({name: values[f"new_{name}"] for name in _KEPT})
    ),
)
_HELD: Final = (  # in one order, so that no two groups wait for each other
    sa.select(tasks.c.id, tasks.c.version, tasks.c.cancel_requested)
    .where(tasks.c.id.in_(sa.bindparam("task_ids", expanding=True)))
    .order_by(tasks.c.id)
    .with_for_update(key_share=True)
)
EVENTS: Final = insertion(events, ("task_id", "at", "type", "state", "attempt", "data"))


def _of_attempt(values: Values) -> tuple[sa.ColumnElement[bool], ...]:
    return attempts.c.task_id == values["of_task"], attempts.c.number == values["of_number"]


_ATTEMPT_TYPES: Final[Types] = {
    "of_task": sa.Integer(),
    "of_number": sa.Integer(),
    "now": sa.Float(),
}
_ACCEPTED: Final = Bulk(
    {**_ATTEMPT_TYPES, "new_job_id": sa.Text(), "new_request_id": sa.Text()},
    lambda values: (
        sa.update(attempts)
        .where(*_of_attempt(values))
        .values(
            outcome=Outcome.RUNNING.value,
            slot_until=HELD_UNTIL_TOLD,
            slot_for_s=0.0,
            ended_at=None,
            accepted_at=sa.func.coalesce(attempts.c.accepted_at, values["now"]),
            job_id=values["new_job_id"],
            request_id=values["new_request_id"],
        )
    ),
)
_SETTLED: Final = Bulk(
    {
        **_ATTEMPT_TYPES,
        "new_outcome": attempts.c.outcome.type,
        "new_slot_until": sa.Float(),
        "new_slot_for_s": sa.Float(),
        "new_run_s": sa.Float(),
        "new_images": sa.Integer(),
    },
    lambda values: (
        sa.update(attempts)
        .where(*_of_attempt(values))
        .values(
            outcome=values["new_outcome"],
            slot_until=values["new_slot_until"],
            slot_for_s=values["new_slot_for_s"],
            ended_at=sa.func.coalesce(attempts.c.ended_at, values["now"]),
            run_s=sa.func.coalesce(attempts.c.run_s, values["new_run_s"]),
            images=sa.func.coalesce(values["new_images"], attempts.c.images),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Learning:
    """What the arithmetic of a limit needs from outside."""

    scale: float
    """Length of one of our seconds."""
    chance: float
    """Uniform from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An event to be applied to a task."""

    task: Task
    event: Event
    owner: str | None = None
    """Who keeps the task if its new state is held by a worker."""
    order: RestOrder | None = None
    learning: Learning | None = None
    """What it takes for a lane that finds its limit to learn from the event."""


@dataclass(frozen=True, slots=True)
class _Move:
    """A recording that is lawful, and what becomes of its task."""

    recording: Recording
    heeded: Event
    """What happens to the task: where its cancel was asked for, not always the event."""
    moved: Task


def record(connection: sa.Connection, recording: Recording, now: float) -> Task:
    """Apply an event to its task.

    Raises `StaleTask` if somebody changed the task since, `UnlawfulEvent` if the table has no such way.
    """
    (result,) = record_all(connection, now, [recording])
    if isinstance(result, DujiangError):
        raise result
    return result


def record_all(connection: sa.Connection, now: float, recordings: Sequence[Recording]) -> list[Task | DujiangError]:
    """The same for many; what is stale or unlawful changes nothing, and has its error for a result."""
    _lock_budgets(connection, recordings)
    task_ids = [recording.task.id for recording in recordings]
    stored: dict[int, Any] = {row.id: row for row in connection.execute(_HELD, {"task_ids": task_ids})}
    found: list[_Move | DujiangError] = []
    for recording in recordings:
        one = _move(connection, recording, stored.get(recording.task.id))
        if isinstance(one, _Move):
            del stored[recording.task.id]
        found.append(one)
    moves = [one for one in found if isinstance(one, _Move)]
    if moves:
        _apply(connection, moves, now)
    return [one.moved if isinstance(one, _Move) else one for one in found]


def _move(connection: sa.Connection, recording: Recording, stored: Any) -> _Move | DujiangError:
    task, event = recording.task, recording.event
    if stored is None or stored.version != task.version:
        return StaleTask(f"task {task.id} has moved on")
    cancel_requested = bool(stored.cancel_requested)
    try:
        heeded = heeding_cancel(task.state, event, cancel_requested=cancel_requested)
        moved = after(task, heeded)
        if isinstance(event, life.JobFound):
            _refuse_foreign_job(connection, task, event.job_id)
    except UnlawfulEvent as error:
        return error
    if cancel_requested and not isinstance(heeded, life.ResubmitDecided):
        moved = replace(moved, cancel_requested=True)
    return _Move(recording, heeded, moved)


def _apply(connection: sa.Connection, moves: Sequence[_Move], now: float) -> None:
    """Everything of one kind together, and what others wait for in one order."""
    if _MOVE.run(connection, [_columns(move, now) for move in moves]) != len(moves):
        raise StaleTask("tasks have moved on that were locked")
    for recording in sorted((move.recording for move in moves), key=lambda recording: recording.task.batch):
        _settle_budget(connection, recording)
    lane_ids = {_lane_of(move.recording) for move in moves if _teaches(move.recording)}
    if len(lane_ids) > 1:
        connection.execute(LOCK_LANES, {"lanes": sorted(lane_ids)})
    for part in _parts([move.recording for move in moves]):
        _settle(connection, part, now)  # what happened at the vendor, not what we make of it
        _learn(connection, part, now)
    note_all(connection, [(move.moved, move.heeded) for move in moves], now)
    _tell_of_rests(connection, moves, now)


def _teaches(recording: Recording) -> bool:
    """Whether a lane that finds its limit may learn from it."""
    attempt = recording.task.attempt
    return recording.learning is not None and attempt is not None and attempt.kind is not None


def _parts(recordings: Sequence[Recording]) -> Iterator[Sequence[Recording]]:
    """A lane learns from a refusal by what it held at that moment: what ended after it is settled after it."""
    part: list[Recording] = []
    for recording in recordings:
        part.append(recording)
        if _teaches(recording) and isinstance(recording.event, life.Postponed):
            yield part
            part = []
    if part:
        yield part


def _learn(connection: sa.Connection, recordings: Sequence[Recording], now: float) -> None:
    for recording in sorted(recordings, key=_lane_of):
        if (learning := recording.learning) is not None:
            chance = learning.chance
            learn(connection, recording.task, recording.event, now=now, scale=learning.scale, chance=chance)
    for recording in sorted(recordings, key=_account_of):
        attempt = recording.task.attempt
        if recording.learning is not None and _is_too_fast(recording.event) and attempt is not None:
            too_fast(connection, attempt.account_id, now, recording.learning.scale)


def _lane_of(recording: Recording) -> int:
    attempt = recording.task.attempt
    return attempt.lane_id if attempt is not None else 0


def _account_of(recording: Recording) -> int:
    attempt = recording.task.attempt
    return attempt.account_id if attempt is not None else 0


def _tell_of_rests(connection: sa.Connection, moves: Sequence[_Move], now: float) -> None:
    disk_may_rest = True
    for move in moves:
        task, order = move.recording.task, move.recording.order
        if order is not None:
            rest(connection, order, now)
            disk_may_rest = disk_may_rest or order.subject is Subject.DISK
        if isinstance(move.heeded, life.Saved) and disk_may_rest:
            end_rest(connection, Subject.DISK, "*")
            disk_may_rest = False
        if task.state is State.SUBMITTING and task.attempt is not None and task.attempt.looking:
            _end_rests_refuted(connection, task, move.heeded, order)


def _columns(move: _Move, now: float) -> dict[str, Any]:
    task, moved = move.recording.task, move.moved
    return {
        "task_id": task.id,
        "held_version": task.version,
        "new_state": moved.state.value,
        "new_version": moved.version,
        "new_owner": move.recording.owner if moved.state in HELD else None,
        **{f"new_{name}": getattr(moved, name) for name in _COUNTED},
        "new_cancel_requested": moved.cancel_requested,
        "new_references": dumped(moved.references) if moved.references else None,
        "new_image_urls": dumped(moved.image_urls) if moved.image_urls else None,
        "new_files": files_text(moved.files),
        "new_error_code": moved.error_code,
        "new_error_message": moved.error_message,
        "new_updated_at": now,
    }


def _lock_budgets(connection: sa.Connection, recordings: Sequence[Recording]) -> None:
    """Batches before their tasks, as everybody does who locks both."""
    batch_ids = {recording.task.batch for recording in recordings if _images_settled(recording) is not None}
    if batch_ids:
        budgets.lock(connection, sorted(batch_ids))


def _settle_budget(connection: sa.Connection, recording: Recording) -> None:
    images, task = _images_settled(recording), recording.task
    if images is not None and task.attempt is not None:
        budgets.settle(connection, task.batch, task.id, task.attempt.number, images)


def _images_settled(recording: Recording) -> int | None:
    """How many images the attempt brought, where that may be another number than its row has."""
    task, event = recording.task, recording.event
    settled = settlement(task, event)
    if settled is None or task.attempt is None or isinstance(event, life.Accepted | life.JobFound):
        return None
    images = _images(task, event, settled)
    # As long as nothing was delivered the row has what was reserved.
    return images if task.attempt.delivered or images != task.request.images else None


def _images(task: Task, event: Event, settled: Settlement) -> int | None:
    return len(event.urls) if isinstance(event, life.Rendered) else _reserved(task, settled)


def _settle(connection: sa.Connection, recordings: Sequence[Recording], now: float) -> None:
    accepted: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    for recording in recordings:
        task, event = recording.task, recording.event
        settled = settlement(task, event)
        if settled is None or task.attempt is None:
            continue
        these = {"of_task": task.id, "of_number": task.attempt.number, "now": now}
        if isinstance(event, life.Accepted | life.JobFound):
            request_id = event.request_id if isinstance(event, life.Accepted) else None
            accepted.append(these | {"new_job_id": event.job_id, "new_request_id": request_id})
            continue
        ended.append(
            these
            | {
                "new_outcome": settled.outcome.value,
                "new_slot_until": _slot_until(task, event, settled, now),
                "new_slot_for_s": settled.slot_for_s,
                "new_run_s": event.run_s if isinstance(event, life.Rendered) else None,
                "new_images": _images(task, event, settled),
            }
        )
    _ACCEPTED.run(connection, accepted)
    _SETTLED.run(connection, ended)


def _slot_until(task: Task, event: Event, settled: Settlement, now: float) -> float:
    """A dead worker's submit is counted from when it was sent, not from when it was found."""
    if settled.slot_for_s == ENDED:
        return ENDED  # not `now`: a clock that goes back must not wake slots that have ended
    if isinstance(event, life.Orphaned) and task.attempt is not None:
        return min(task.attempt.sent_at, now) + settled.slot_for_s
    return now + settled.slot_for_s


def _reserved(task: Task, settled: Settlement) -> int | None:
    """Images of an attempt that brought none; None leaves those that an earlier event counted."""
    if task.attempt is not None and task.attempt.delivered:
        return None
    return task.request.images if settled.outcome in SETTLED | UNSETTLED else 0


def _refuse_foreign_job(connection: sa.Connection, task: Task, job_id: str) -> None:
    """A job has one attempt: a person who names another task's job has mistyped it."""
    assert task.attempt is not None, "a doubt is about an attempt"
    query = (
        sa.select(attempts.c.task_id)
        .join(lanes, lanes.c.id == attempts.c.lane_id)
        .where(attempts.c.job_id == job_id, lanes.c.endpoint == task.attempt.endpoint)
    )
    found = connection.execute(query).scalars().first()
    if found is not None:
        raise UnlawfulEvent(f"job {job_id} belongs to task {found}")


def note(connection: sa.Connection, task: Task, event: Event, now: float) -> None:
    """Append to the task's history."""
    note_all(connection, [(task, event)], now)


def note_all(connection: sa.Connection, happened: Sequence[tuple[Task, Event]], now: float) -> None:
    """Append to the histories of tasks, as the events left them."""
    EVENTS.run(
        connection,
        [
            {
                "task_id": task.id,
                "at": now,
                "type": type(event).__name__,
                "state": task.state.value,
                "attempt": task.attempt.number if task.attempt else 0,
                "data": event_text(event),
            }
            for task, event in happened
        ],
    )


# -- Rests ------------------------------------------------------------------------------------------------------------


def rest(connection: sa.Connection, order: RestOrder, now: float) -> None:
    """Let something rest. A rest in force is not lengthened: only a look that failed after it was over does that.

    Two are exceptions: the disk, as whoever tells of it has just looked, and a host that has refused one picture more.
    """
    this = sa.and_(rests.c.subject == order.subject.value, rests.c.key == order.key)
    found = connection.execute(sa.select(rests).where(this).with_for_update()).mappings().one_or_none()
    in_force = found is not None and now < found["until"] <= now + found["length_s"]
    if in_force and order.subject is not Subject.DISK and order.code != "host_refusals":
        return
    in_a_row = found["in_a_row"] + 1 if found is not None and found["code"] == order.code else 0
    length_s = order.rule.length_s(in_a_row)
    values = {
        "code": order.code,
        "detail": order.detail,
        "until": now + length_s,
        "length_s": length_s,
        "in_a_row": in_a_row,
    }
    if found is None:
        connection.execute(sa.insert(rests).values(subject=order.subject.value, key=order.key, **values))
    else:
        connection.execute(sa.update(rests).where(this).values(**values))


def end_rest(connection: sa.Connection, subject: Subject, key: str) -> None:
    """It answers again."""
    connection.execute(sa.delete(rests).where(rests.c.subject == subject.value, rests.c.key == key))


def _end_rests_refuted(connection: sa.Connection, task: Task, event: Event, order: RestOrder | None) -> None:
    """A look that the vendor answered shows that everything works that it passed before its answer was given."""
    if task.attempt is None or isinstance(event, life.Unanswered | life.Orphaned):
        return
    for subject, key in subjects(task.attempt.lane_id, task.attempt.account_id, task.attempt.endpoint):
        if (order is not None and order.subject is subject) or (subject is Subject.LANE and _is_too_fast(event)):
            return
        end_rest(connection, subject, key)


def _is_too_fast(event: Event) -> bool:
    """50429, which the vendor says before it has looked at the lane."""
    return isinstance(event, life.Postponed) and event.code == "qps"


def subjects(lane_id: int, account_id: int, endpoint: str) -> tuple[tuple[Subject, str], ...]:
    """Everything whose rest stands in the way of a submit, in the order in which a submit meets it."""
    return (
        (Subject.ENDPOINT, endpoint),
        (Subject.ACCOUNT, str(account_id)),
        (Subject.LANE, str(lane_id)),
    )
