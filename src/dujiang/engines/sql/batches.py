"""Batches: opening, filling, retrying, cancelling, counting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.compiler import SQLCompiler

from dujiang.domain.batch import Batch
from dujiang.domain.errors import BatchPruned
from dujiang.domain.lifecycle import FINAL, HELD, TRANSITIONS, Cancelled, CancelRequested, State
from dujiang.domain.names import collision_key
from dujiang.domain.requests import Request
from dujiang.domain.task import Task
from dujiang.engines.sql.bulk import insertion
from dujiang.engines.sql.records import EVENTS, Recording, note, record
from dujiang.engines.sql.rows import (
    IN_ONE_LIST,
    IN_ORDER,
    TASK_ROWS,
    batch_of,
    event_text,
    request_of,
    request_text,
    task_of,
)
from dujiang.engines.sql.schema import batches, task_counts, tasks
from dujiang.ports import Added, NewTask

_FINAL: Final = tuple(sorted(state.value for state in FINAL))
_RETRYABLE: Final = tuple(sorted(state.value for state in FINAL - {State.SUCCEEDED}))
_WAITING: Final = tuple(sorted(s.value for s, event in TRANSITIONS if event is Cancelled and s not in HELD))
_RUNNING: Final = tuple(sorted(s.value for s in State if s not in FINAL and s.value not in _WAITING))
_IN_LINE: Final = (  # in the order of an index, or PostgreSQL walks the table for each page
    sa.select(tasks.c.id, tasks.c.attempt)
    .where(tasks.c.batch_id == sa.bindparam("batch"), tasks.c.state == sa.bindparam("state"))
    .order_by(tasks.c.req_key, *IN_ORDER)
    .limit(sa.bindparam("at_most"))
    .with_for_update(key_share=True)  # one that is being claimed is waited for, and is not in line any more
)
_GIVEN: Final = (
    "batch_id",
    "row",
    "revision",
    "digest",
    "position",
    "name",
    "name_key",
    "req_key",
    "request",
    "priority",
    "retry_of",
    "state",
    "created_at",
    "updated_at",
)
_NEW: Final[Mapping[str, sa.ColumnElement[Any]]] = dict.fromkeys(
    ("version", "attempt", "tries", "fresh_submits", "link_checks", "policy_resubmits"), sa.literal_column("0")
) | {"newest": sa.true(), "cancel_requested": sa.false()}
_NEXT_PRODUCT: Final = (
    sa.select(tasks.c.req_key)
    .where(
        tasks.c.batch_id == sa.bindparam("batch"),
        tasks.c.state == sa.bindparam("state"),
        tasks.c.req_key > sa.bindparam("last"),
        tasks.c.newest,
    )
    .order_by(tasks.c.req_key)
    .limit(1)
)
_INSERT: Final = sa.insert(tasks).values({**{name: sa.bindparam(name) for name in _GIVEN}, **_NEW})
_INSERT_ALL: Final = insertion(tasks, _GIVEN, **_NEW)
_LOCKED: Final = TASK_ROWS.with_for_update(of=tasks, key_share=True)
IN_ONE_INSERT: Final = 100  # rows, of 14 values each


class _Lookup:
    """Finds tasks of a batch by many values of a column, of which each is looked up by itself."""

    def __init__(self, column: sa.Column[str], found: Sequence[sa.Column[Any]], *order: sa.Column[Any]) -> None:
        """`order`: of those with the same value the last one is `found`."""
        here = sa.select(*found).where(tasks.c.batch_id == sa.bindparam("batch"))
        # All of them, in order, rather than the last: asked for that, SQLite walks the whole batch.
        some = column.in_(sa.bindparam("values", expanding=True))
        self.of_some: Final = here.where(some).order_by(column, *order)
        # One by one, and as a range in order, which only one index has. Asked for what is equal, PostgreSQL would walk
        # the whole batch by any of its indexes, as long as its statistics don't know how large the batch has become.
        given = (
            sa.func.unnest(sa.bindparam("values", type_=ARRAY(sa.Text))).table_valued("value").render_derived("given")
        )
        same = here.where(column.between(given.c.value, given.c.value))
        last = same.order_by(column.desc(), *(one.desc() for one in order)).limit(1).lateral("last")
        self.at_once: Final = sa.select(*last.c).join_from(given, last, sa.true())


_OF_ROW: Final = _Lookup(tasks.c.row, (tasks.c.id, tasks.c.row, tasks.c.revision, tasks.c.digest), tasks.c.revision)
_WITH_NAME: Final = _Lookup(tasks.c.name_key, (tasks.c.name_key,))


def open_batch(connection: sa.Connection, batch: Batch, now: float) -> Batch:
    """The batch of (out, name), made if it is new; its policy is the one asked for last. Raises `BatchPruned`."""
    place = sa.and_(batches.c.out == batch.out, batches.c.name == batch.name)
    query = sa.select(batches).where(place).with_for_update(key_share=True)  # or it could be pruned meanwhile
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        values = {
            "id": batch.id,
            "name": batch.name,
            "out": batch.out,
            "source": batch.source,
            "on_doubt": str(batch.on_doubt),
            "paused": False,
            "created_at": now,
            "priority": batch.priority,
            "max_images": None,
            "images_taken": None,
            "used_at": now,
        }
        connection.execute(sa.insert(batches).values(**values))
        return batch_of(values)
    if row["pruned_at"] is not None:
        # Its rows are forgotten: whoever ran it again would pay for everything again.
        raise BatchPruned(batch.name)
    connection.execute(sa.update(batches).where(place).values(on_doubt=str(batch.on_doubt), used_at=now))
    return batch_of(dict(row) | {"on_doubt": str(batch.on_doubt)})


def set_priority(connection: sa.Connection, priority: int, batch_id: str | None, task_ids: Sequence[int]) -> int:
    """Of a batch, or of tasks; how many there were."""
    if batch_id is not None:
        change = sa.update(batches).where(batches.c.id == batch_id).values(priority=priority)
        return connection.execute(change).rowcount
    changed = 0
    for start in range(0, len(task_ids), IN_ONE_LIST):
        these = tasks.c.id.in_(task_ids[start : start + IN_ONE_LIST])
        changed += connection.execute(sa.update(tasks).where(these).values(priority=priority)).rowcount
    return changed


def enqueue(connection: sa.Connection, batch_id: str, rows: Sequence[NewTask], now: float) -> Added:
    """Add rows. A row that is known with the same content is left alone; with another, it gets a new revision."""
    # Two may do it at once: the second finds the rows of the first.
    connection.execute(sa.select(batches.c.id).where(batches.c.id == batch_id).with_for_update(key_share=True))
    known = _newest(connection, batch_id, [row.row for row in rows])
    new = [row for row in rows if row.row not in known]
    changed = [row for row in rows if row.row in known and known[row.row]["digest"] != row.digest]
    for row in changed:
        _supersede(connection, known[row.row], now)
    revisions = {row.row: known[row.row]["revision"] + 1 for row in changed}
    wanted = [(row, row.name) for row in new]
    wanted += [(row, f"{row.name}-v{revisions[row.row]}") for row in changed]
    values = [
        _values(batch_id, row, revisions.get(row.row, 1), name, now)
        for row, name in _own_names(connection, batch_id, wanted)
    ]
    if values:
        _insert(connection, values)
    return Added(len(new), len(changed), len(rows) - len(new) - len(changed))


def _own_names(
    connection: sa.Connection, batch_id: str, wanted: Sequence[tuple[NewTask, str]]
) -> Iterator[tuple[NewTask, str]]:
    """Each row with a name that no other picture of the batch has, on any file system: paid work is not overwritten."""
    keys = [collision_key(name) for _, name in wanted]
    taken = {row.name_key for row in _looked_up(connection, _WITH_NAME, batch_id, keys)}
    for (row, name), key in zip(wanted, keys, strict=True):
        own = f"{name}-{sha256(row.row.encode()).hexdigest()[:8]}" if key in taken else name
        taken.add(collision_key(own))
        yield row, own


def _looked_up(
    connection: sa.Connection, lookup: _Lookup, batch_id: str, values: Sequence[str]
) -> Iterator[sa.Row[Any]]:
    """What the batch has of these values."""
    if connection.dialect.name == "postgresql":
        yield from connection.execute(lookup.at_once, {"batch": batch_id, "values": values})
        return
    for start in range(0, len(values), IN_ONE_LIST):
        page = values[start : start + IN_ONE_LIST]
        yield from connection.execute(lookup.of_some, {"batch": batch_id, "values": page})


def _insert(connection: sa.Connection, values: Sequence[Mapping[str, Any]]) -> None:
    """Many rows in one statement: triggers make each statement dearer, in PostgreSQL and in SQLite."""
    if connection.dialect.name == "postgresql":
        _INSERT_ALL.run(connection, values)
        return
    for start in range(0, len(values), IN_ONE_INSERT):
        page = values[start : start + IN_ONE_INSERT]
        statement, names = _insert_rows(len(page))
        # Straight to the driver, which takes these values as they are: a look at each would cost a sixth of it all.
        connection.exec_driver_sql(statement, tuple(row[name] for row in page for name in names))


@lru_cache(maxsize=2)  # a whole page, and what is left
def _insert_rows(count: int) -> tuple[str, Sequence[str]]:
    """SQLite's statement for so many rows, and which values each of them gives."""
    compiled = _INSERT.compile(dialect=sqlite.dialect())
    assert isinstance(compiled, SQLCompiler)
    assert compiled.positiontup is not None
    into, values, row = str(compiled).partition(" VALUES ")
    return into + values + ", ".join([row] * count), compiled.positiontup


def _newest(connection: sa.Connection, batch_id: str, rows: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {row.row: dict(row._mapping) for row in _looked_up(connection, _OF_ROW, batch_id, rows)}


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
        "name_key": collision_key(name),
        "req_key": row.req_key,
        "request": request_text(row.request),
        "priority": row.priority,
        "retry_of": None,
        "state": _first_state(row.request),
        "created_at": now,
        "updated_at": now,
    }


def _first_state(request: Request) -> str:
    """A task whose references are public links, or that has none, has nothing to publish."""
    return State.QUEUED.value if request.local_pictures else State.READY.value


def retry(connection: sa.Connection, task_ids: Sequence[int], now: float, *, again: bool) -> list[int]:
    """New tasks for ended ones. Only a row's newest task is retried, so repeating this makes nothing new."""
    theirs = sa.select(tasks.c.batch_id).where(tasks.c.id.in_(task_ids))
    # From now on nobody prunes them; one who does so already is waited for, and then there is nothing to retry.
    connection.execute(sa.update(batches).where(batches.c.id.in_(theirs)).values(used_at=now))
    query = (
        sa.select(tasks)
        .join(batches, batches.c.id == tasks.c.batch_id)
        .where(tasks.c.id.in_(task_ids), tasks.c.newest, tasks.c.state.in_(_FINAL if again else _RETRYABLE))
        .where(batches.c.pruned_at.is_(None))
        .order_by(tasks.c.id)
    )
    found = connection.execute(query).mappings().all()
    if not found:
        return []
    connection.execute(sa.update(tasks).where(tasks.c.id.in_([old["id"] for old in found])).values(newest=False))
    kept = ("batch_id", "row", "digest", "position", "req_key", "request", "priority")
    values = [
        {name: old[name] for name in kept}
        | {"revision": old["revision"] + 1, "name": _again_name(old), "retry_of": old["id"]}
        | {"name_key": collision_key(_again_name(old)), "state": _first_state(request_of(old["request"]))}
        | {"created_at": now, "updated_at": now}
        for old in found
    ]
    return list(connection.execute(_INSERT.returning(tasks.c.id, sort_by_parameter_order=True), values).scalars())


def _again_name(old: Mapping[Any, Any]) -> str:
    """A retry of what left no picture keeps the name; one of a success gets its own, so that nothing is overwritten."""
    if old["state"] != State.SUCCEEDED.value:
        return str(old["name"])
    return f"{old['name']}-v{old['revision'] + 1}"


def cancel(connection: sa.Connection, task_ids: Sequence[int], now: float) -> dict[str, int]:
    """Cancel what waits, ask for what runs; what is over or in doubt is refused."""
    found = (_task(connection, task_id) for task_id in sorted(task_ids))
    return _cancel_all(connection, [task for task in found if task is not None], now)


def cancel_running(connection: sa.Connection, batch_id: str, now: float) -> dict[str, int]:
    """The same for every task of a batch that is in somebody's hands or in doubt: never more than a few."""
    query = _LOCKED.where(tasks.c.batch_id == batch_id, tasks.c.state.in_(_RUNNING)).order_by(tasks.c.id)
    return _cancel_all(connection, [task_of(row) for row in connection.execute(query).mappings().all()], now)


def cancel_waiting(connection: sa.Connection, batch_id: str, now: float, at_most: int) -> int:
    """Cancel so many of a batch's waiting tasks at once; how many there were. They have no holder and no slot."""
    found: list[Any] = []
    for state in _WAITING:
        asked = {"batch": batch_id, "state": state, "at_most": at_most - len(found)}
        found += connection.execute(_IN_LINE, asked).all()
    if not found:
        return 0
    state, event = State.CANCELLED.value, Cancelled()
    ids = [row.id for row in found]
    for start in range(0, len(ids), IN_ONE_LIST):
        these = tasks.c.id.in_(ids[start : start + IN_ONE_LIST])
        values = {"state": state, "version": tasks.c.version + 1, "owner": None, "updated_at": now}
        connection.execute(sa.update(tasks).where(these).values(values))
    happened = {"at": now, "type": type(event).__name__, "state": state, "data": event_text(event)}
    EVENTS.run(connection, [{"task_id": row.id, "attempt": row.attempt, **happened} for row in found])
    return len(found)


def _cancel_all(connection: sa.Connection, targets: Sequence[Task], now: float) -> dict[str, int]:
    done = {"cancelled": 0, "requested": 0, "refused": 0}
    for task in targets:
        done[_cancel(connection, task, now)] += 1
    return done


def _cancel(connection: sa.Connection, task: Task, now: float) -> str:
    if (task.state, CancelRequested) in TRANSITIONS:
        # A flag beside the state: whoever holds the task keeps its copy, so the version stays.
        if not task.cancel_requested:
            connection.execute(sa.update(tasks).where(tasks.c.id == task.id).values(cancel_requested=True))
            note(connection, replace(task, cancel_requested=True), CancelRequested(), now)
        return "requested"
    if (task.state, Cancelled) in TRANSITIONS:
        record(connection, Recording(task, Cancelled()), now)
        return "cancelled"
    return "refused"


def _task(connection: sa.Connection, task_id: int) -> Task | None:
    row = connection.execute(_LOCKED.where(tasks.c.id == task_id)).mappings().one_or_none()
    return task_of(row) if row is not None else None


def counts(connection: sa.Connection, batch_id: str) -> dict[State, int]:
    """How many of the newest tasks are in each state, as the database's triggers keep it."""
    query = (
        sa.select(task_counts.c.state, sa.func.sum(task_counts.c.tasks))
        .where(task_counts.c.batch_id == batch_id)
        .group_by(task_counts.c.state)
        .having(sa.func.sum(task_counts.c.tasks) > 0)
    )
    return {State(state): count for state, count in connection.execute(query)}


def products(connection: sa.Connection, batch_id: str) -> set[str]:
    """The products of the newest tasks, each looked up behind the last one: there are few, of however many tasks."""
    found: set[str] = set()
    for state in counts(connection, batch_id):
        last: str | None = ""
        while last is not None:
            asked = {"batch": batch_id, "state": state.value, "last": last}
            last = connection.execute(_NEXT_PRODUCT, asked).scalar()
            found |= set() if last is None else {last}
    return found
