"""Batches: opening, filling, retrying, cancelling, counting."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.batch import Batch
from dujiang.domain.lifecycle import FINAL, TRANSITIONS, Cancelled, CancelRequested, State
from dujiang.domain.task import Task
from dujiang.engines.sql.records import record
from dujiang.engines.sql.rows import TASK_ROWS, batch_of, request_text, task_of
from dujiang.engines.sql.schema import batches, tasks
from dujiang.ports import Added, NewTask

_FINAL: Final = tuple(sorted(state.value for state in FINAL))
_RETRYABLE: Final = tuple(sorted(state.value for state in FINAL - {State.SUCCEEDED}))
_PAGE: Final = 500  # values in one IN list


def open_batch(connection: sa.Connection, batch: Batch, now: float) -> Batch:
    """The batch of (out, name), made if it is new; its policy is the one asked for last."""
    place = sa.and_(batches.c.out == batch.out, batches.c.name == batch.name)
    row = connection.execute(sa.select(batches).where(place)).mappings().one_or_none()
    if row is None:
        values = {
            "id": batch.id,
            "name": batch.name,
            "out": batch.out,
            "source": batch.source,
            "on_doubt": str(batch.on_doubt),
            "paused": False,
            "created_at": now,
        }
        connection.execute(sa.insert(batches).values(**values))
        return batch_of(values)
    if row["on_doubt"] != str(batch.on_doubt):
        connection.execute(sa.update(batches).where(place).values(on_doubt=str(batch.on_doubt)))
    return batch_of(dict(row) | {"on_doubt": str(batch.on_doubt)})


def enqueue(connection: sa.Connection, batch_id: str, rows: Sequence[NewTask], now: float) -> Added:
    """Add rows. A row that is known with the same content is left alone; with another, it gets a new revision."""
    known = _newest(connection, batch_id, [row.row for row in rows])
    new = [row for row in rows if row.row not in known]
    changed = [row for row in rows if row.row in known and known[row.row]["digest"] != row.digest]
    for row in changed:
        _supersede(connection, known[row.row], now)
    values = [_values(batch_id, row, 1, row.name, now) for row in new]
    for row in changed:
        revision = known[row.row]["revision"] + 1
        values.append(_values(batch_id, row, revision, f"{row.name}-v{revision}", now))
    if values:
        connection.execute(sa.insert(tasks), values)
    return Added(len(new), len(changed), len(rows) - len(new) - len(changed))


def _newest(connection: sa.Connection, batch_id: str, rows: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(rows), _PAGE):
        query = sa.select(tasks.c.id, tasks.c.row, tasks.c.revision, tasks.c.digest).where(
            tasks.c.batch_id == batch_id, tasks.c.newest, tasks.c.row.in_(rows[start : start + _PAGE])
        )
        found.update({row["row"]: dict(row) for row in connection.execute(query).mappings()})
    return found


def _supersede(connection: sa.Connection, known: Mapping[str, Any], now: float) -> None:
    """An older revision that has not been sent is not sent any more; one that was goes on and is kept."""
    task = _task(connection, known["id"])
    if task is not None:
        _cancel(connection, task, now)
    connection.execute(sa.update(tasks).where(tasks.c.id == known["id"]).values(newest=False))


def _values(batch_id: str, row: NewTask, revision: int, name: str, now: float) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "row": row.row,
        "revision": revision,
        "digest": row.digest,
        "position": row.position,
        "name": name,
        "req_key": row.req_key,
        "request": request_text(row.request),
        "priority": row.priority,
        "newest": True,
        "state": State.READY.value,  # references are public addresses: there is nothing to publish
        "version": 0,
        "attempt": 0,
        "tries": 0,
        "fresh_submits": 0,
        "link_checks": 0,
        "policy_resubmits": 0,
        "cancel_requested": False,
        "created_at": now,
        "updated_at": now,
    }


def retry(connection: sa.Connection, task_ids: Sequence[int], now: float, *, again: bool) -> list[int]:
    """New tasks for ended ones. Only a row's newest task is retried, so repeating this makes nothing new."""
    wanted = _FINAL if again else _RETRYABLE
    made: list[int] = []
    for task_id in task_ids:
        old = connection.execute(sa.select(tasks).where(tasks.c.id == task_id)).mappings().one_or_none()
        if old is None or not old["newest"] or old["state"] not in wanted:
            continue
        connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(newest=False))
        fresh = {
            name: old[name] for name in ("batch_id", "row", "digest", "position", "req_key", "request", "priority")
        }
        fresh |= {"revision": old["revision"] + 1, "name": _again_name(old), "retry_of": task_id, "newest": True}
        fresh |= {"state": State.READY.value, "version": 0, "cancel_requested": False}
        fresh |= dict.fromkeys(("attempt", "tries", "fresh_submits", "link_checks", "policy_resubmits"), 0)
        fresh |= {"created_at": now, "updated_at": now}
        key = connection.execute(sa.insert(tasks).values(**fresh)).inserted_primary_key
        assert key is not None
        made.append(int(key[0]))
    return made


def _again_name(old: Mapping[Any, Any]) -> str:
    """A retry of what left no picture keeps the name; one of a success gets its own, so that nothing is overwritten."""
    if old["state"] != State.SUCCEEDED.value:
        return str(old["name"])
    return f"{old['name']}-v{old['revision'] + 1}"


def cancel(connection: sa.Connection, now: float, *, batch_id: str | None, task_ids: Sequence[int]) -> dict[str, int]:
    """Cancel what waits, ask for what runs; what is over or in doubt is refused."""
    done = {"cancelled": 0, "requested": 0, "refused": 0}
    for task in _cancel_targets(connection, batch_id, task_ids):
        done[_cancel(connection, task, now)] += 1
    return done


def _cancel_targets(connection: sa.Connection, batch_id: str | None, task_ids: Sequence[int]) -> list[Task]:
    if batch_id is not None:
        unfinished = [state.value for state in State if state not in FINAL]
        query = TASK_ROWS.where(tasks.c.batch_id == batch_id, tasks.c.state.in_(unfinished))
        return [task_of(row) for row in connection.execute(query).mappings()]
    found = (_task(connection, task_id) for task_id in task_ids)
    return [task for task in found if task is not None]


def _cancel(connection: sa.Connection, task: Task, now: float) -> str:
    if (task.state, CancelRequested) in TRANSITIONS:
        # A flag beside the state: whoever holds the task keeps its copy, so the version stays.
        connection.execute(sa.update(tasks).where(tasks.c.id == task.id).values(cancel_requested=True))
        return "requested"
    if (task.state, Cancelled) in TRANSITIONS:
        record(connection, task, Cancelled(), now=now, owner=None)
        return "cancelled"
    return "refused"


def _task(connection: sa.Connection, task_id: int) -> Task | None:
    row = connection.execute(TASK_ROWS.where(tasks.c.id == task_id)).mappings().one_or_none()
    return task_of(row) if row is not None else None


def counts(connection: sa.Connection, batch_id: str) -> dict[State, int]:
    """How many of the newest tasks are in each state."""
    query = (
        sa.select(tasks.c.state, sa.func.count())
        .where(tasks.c.batch_id == batch_id, tasks.c.newest)
        .group_by(tasks.c.state)
    )
    return {State(state): count for state, count in connection.execute(query)}
