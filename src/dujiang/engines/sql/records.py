"""Recording an event: the task, its attempt, its history and whoever rests for it, in one transaction."""

from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import StaleTask, UnlawfulEvent
from dujiang.domain.lifecycle import HELD, Event, State, heeding_cancel
from dujiang.domain.rests import RestOrder, Subject
from dujiang.domain.task import ENDED, HELD_UNTIL_TOLD, SETTLED, UNSETTLED, Settlement, Task, after, settlement
from dujiang.engines.sql import budgets
from dujiang.engines.sql.beliefs import learn
from dujiang.engines.sql.paces import too_fast
from dujiang.engines.sql.rows import dumped, event_text, files_text
from dujiang.engines.sql.schema import attempts, events, lanes, rests, tasks

_MOVE: Final = (
    sa.update(tasks)
    .where(
        tasks.c.id == sa.bindparam("task_id"),
        tasks.c.version == sa.bindparam("held_version"),
        tasks.c.cancel_requested == sa.bindparam("held_cancel"),
    )
    .values(
        {
            name: sa.bindparam(f"new_{name}")
            for name in (
                "state",
                "version",
                "owner",
                "tries",
                "fresh_submits",
                "link_checks",
                "policy_resubmits",
                "cancel_requested",
                "references",
                "image_urls",
                "files",
                "error_code",
                "error_message",
                "updated_at",
            )
        }
    )
)
_NOW_CANCEL: Final = sa.select(tasks.c.version, tasks.c.cancel_requested).where(tasks.c.id == sa.bindparam("task_id"))
_EVENT: Final = sa.insert(events)
_THIS_ATTEMPT: Final = (
    attempts.c.task_id == sa.bindparam("of_task"),
    attempts.c.number == sa.bindparam("of_number"),
)
_ACCEPTED: Final = (
    sa.update(attempts)
    .where(*_THIS_ATTEMPT)
    .values(
        outcome=sa.bindparam("new_outcome"),
        slot_until=sa.bindparam("new_slot_until"),
        slot_for_s=0.0,
        ended_at=None,
        accepted_at=sa.func.coalesce(attempts.c.accepted_at, sa.bindparam("now")),
        job_id=sa.bindparam("new_job_id"),
        request_id=sa.bindparam("new_request_id"),
    )
)
_SETTLED: Final = (
    sa.update(attempts)
    .where(*_THIS_ATTEMPT)
    .values(
        outcome=sa.bindparam("new_outcome"),
        slot_until=sa.bindparam("new_slot_until"),
        slot_for_s=sa.bindparam("new_slot_for_s"),
        ended_at=sa.func.coalesce(attempts.c.ended_at, sa.bindparam("now")),
        run_s=sa.func.coalesce(attempts.c.run_s, sa.bindparam("new_run_s")),
        images=sa.func.coalesce(sa.bindparam("new_images", type_=sa.Integer), attempts.c.images),
    )
)


@dataclass(frozen=True, slots=True)
class Learning:
    """What the arithmetic of a limit needs from outside."""

    scale: float
    """Length of one of our seconds."""
    chance: float
    """Uniform from 0 to 1."""


def record(
    connection: sa.Connection,
    task: Task,
    event: Event,
    *,
    now: float,
    owner: str | None,
    order: RestOrder | None = None,
    learning: Learning | None = None,
) -> Task:
    """Apply `event` to `task`. `owner` keeps it if its new state is held by a worker.

    `learning`: what it takes for a lane that finds its limit to learn from the event.

    Raises `StaleTask` if somebody changed the task since, `UnlawfulEvent` if the table has no such way.
    """
    cancel_requested = task.cancel_requested
    while True:
        heeded = heeding_cancel(task.state, event, cancel_requested=cancel_requested)
        moved = after(task, heeded)
        if cancel_requested and not task.cancel_requested and not isinstance(heeded, life.ResubmitDecided):
            moved = replace(moved, cancel_requested=True)
        changed = connection.execute(_MOVE, _columns(task, moved, cancel_requested, now, owner)).rowcount
        if changed:
            break
        found = connection.execute(_NOW_CANCEL, {"task_id": task.id}).one_or_none()
        if found is None or found.version != task.version:
            raise StaleTask(f"task {task.id} has moved on")
        cancel_requested = bool(found.cancel_requested)
    _settle(connection, task, event, now)  # what happened at the vendor, not what we make of it
    note(connection, moved, heeded, now)
    if learning is not None:
        learn(connection, task, event, now=now, scale=learning.scale, chance=learning.chance)
        if _is_too_fast(event) and task.attempt is not None:
            too_fast(connection, task.attempt.account_id, now, learning.scale)
    if order is not None:
        rest(connection, order, now)
    if isinstance(heeded, life.Saved):
        end_rest(connection, Subject.DISK, "*")
    if task.state is State.SUBMITTING and task.attempt is not None and task.attempt.looking:
        _end_rests_refuted(connection, task, heeded, order)
    return moved


def _columns(task: Task, moved: Task, cancel_requested: bool, now: float, owner: str | None) -> dict[str, Any]:
    held = moved.state in HELD
    return {
        "task_id": task.id,
        "held_version": task.version,
        "held_cancel": cancel_requested,
        "new_state": moved.state.value,
        "new_version": moved.version,
        "new_owner": owner if held else None,
        "new_tries": moved.tries,
        "new_fresh_submits": moved.fresh_submits,
        "new_link_checks": moved.link_checks,
        "new_policy_resubmits": moved.policy_resubmits,
        "new_cancel_requested": moved.cancel_requested,
        "new_references": dumped(moved.references) if moved.references else None,
        "new_image_urls": dumped(moved.image_urls) if moved.image_urls else None,
        "new_files": files_text(moved.files),
        "new_error_code": moved.error_code,
        "new_error_message": moved.error_message,
        "new_updated_at": now,
    }


def _settle(connection: sa.Connection, task: Task, event: Event, now: float) -> None:
    settled = settlement(task, event)
    if settled is None or task.attempt is None:
        return
    these = {"of_task": task.id, "of_number": task.attempt.number, "new_outcome": settled.outcome.value, "now": now}
    if isinstance(event, life.Accepted | life.JobFound):
        if isinstance(event, life.JobFound):
            _refuse_foreign_job(connection, task, event.job_id)
        request_id = event.request_id if isinstance(event, life.Accepted) else None
        more: dict[str, Any] = {
            "new_slot_until": HELD_UNTIL_TOLD,
            "new_job_id": event.job_id,
            "new_request_id": request_id,
        }
        connection.execute(_ACCEPTED, these | more)
        return
    more = {
        "new_slot_until": _slot_until(task, event, settled, now),
        "new_slot_for_s": settled.slot_for_s,
        "new_run_s": event.run_s if isinstance(event, life.Rendered) else None,
        "new_images": len(event.urls) if isinstance(event, life.Rendered) else _reserved(task, settled),
    }
    images = more["new_images"]
    # As long as nothing was delivered the row has what was reserved; then another number may be there.
    if images is not None and (task.attempt.delivered or images != task.request.images):
        budgets.settle(connection, task.batch, task.id, task.attempt.number, images)
    connection.execute(_SETTLED, these | more)


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
    connection.execute(
        _EVENT,
        {
            "task_id": task.id,
            "at": now,
            "type": type(event).__name__,
            "state": task.state.value,
            "attempt": task.attempt.number if task.attempt else 0,
            "data": event_text(event),
        },
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
