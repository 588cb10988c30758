"""What the doors show: read-only, paged by key, plain values out."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter, itemgetter
from statistics import median
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.accounts import lane_name
from dujiang.domain.batch import batch_state
from dujiang.domain.lifecycle import AT_VENDOR, State
from dujiang.domain.run_times import percentile_s
from dujiang.domain.task import SETTLED, Outcome
from dujiang.engines.sql import postgres
from dujiang.engines.sql.batches import counts
from dujiang.engines.sql.rows import IN_ONE_LIST, stored_request
from dujiang.engines.sql.schema import (
    IS_HELD,
    accounts,
    attempts,
    batches,
    events,
    lane_events,
    lanes,
    pruned_attempts,
    references,
    task_counts,
    tasks,
    workers,
)

PAGE: Final = 50
_TO_PUBLISH: Final = frozenset({State.QUEUED.value, State.PREPARING.value})

_OF_TASK: Final = (
    *("id", "batch_id", "row", "state", "request", "attempt", "req_key", "priority", "position", "name", "created_at"),
    *("updated_at", "error_code", "error_message", "cancel_requested", "retry_of", "files"),
)
_TASKS: Final = sa.select(*(tasks.c[name] for name in _OF_TASK))


def _whole(found: sa.Select[Any]) -> sa.Select[Any]:
    """These tasks, in any order, each with its newest attempt, and what its batch has to do with why it waits.

    They are found first and joined then: PostgreSQL, which plans each page anew, would think about joins of a million
    rows for longer than the page takes, and may choose one.
    """
    these = found.subquery("these")
    of_attempt = ("job_id", "sent_at", "key_fingerprint", "accepted_at", "ended_at", "request_id")
    columns = (
        *these.c,
        *(attempts.c[name] for name in of_attempt),
        *(batches.c[name] for name in ("paused", "max_images", "images_taken")),
        batches.c.name.label("batch"),
        accounts.c.name.label("account"),
    )
    newest = sa.and_(attempts.c.task_id == these.c.id, attempts.c.number == these.c.attempt)
    return (
        sa.select(*columns)
        .join_from(these, batches, batches.c.id == these.c.batch_id)
        .outerjoin(attempts, newest)
        .outerjoin(lanes, lanes.c.id == attempts.c.lane_id)
        .outerjoin(accounts, accounts.c.id == lanes.c.account_id)
    )


def _page(rows: sa.Select[Any], *theirs: sa.ColumnElement[bool]) -> sa.Select[Any]:
    next_ones = rows.where(tasks.c.newest, tasks.c.id > sa.bindparam("after"), *theirs)
    return next_ones.order_by(tasks.c.id).limit(sa.bindparam("at_most"))


_IN_BATCH: Final = tasks.c.batch_id == sa.bindparam("batch")
_IN_STATE: Final = tasks.c.state == sa.bindparam("state")
_WITH_CODE: Final = tasks.c.error_code == sa.bindparam("code")
_OF_ALL, _OF_BATCH = _whole(_page(_TASKS)), _whole(_page(_TASKS, _IN_BATCH))
_OF_STATE = _whole(_page(_TASKS, _IN_BATCH, _IN_STATE))
_OF_CODE = _whole(_page(_TASKS, _IN_BATCH, _IN_STATE, _WITH_CODE))
_IDS: Final = sa.select(tasks.c.id)
_IDS_OF_STATE, _IDS_OF_CODE = _page(_IDS, _IN_BATCH, _IN_STATE), _page(_IDS, _IN_BATCH, _IN_STATE, _WITH_CODE)
_THESE: Final = _whole(_TASKS.where(tasks.c.id.in_(sa.bindparam("ids", expanding=True))))
_OF_WHOLE: Final = tuple(_THESE.selected_columns.keys())
_THIS: Final = _whole(_TASKS.where(tasks.c.id == sa.bindparam("id")))
_REPORTED: Final = _whole(
    _TASKS.where(
        tasks.c.batch_id == sa.bindparam("batch"),
        tasks.c.newest,
        sa.tuple_(tasks.c.position, tasks.c.id) > sa.tuple_(sa.bindparam("position"), sa.bindparam("last_id")),
    )
    .order_by(tasks.c.position, tasks.c.id)
    .limit(500)
)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list. `code` matches what made them fail."""

    batch_id: str | None = None
    states: Sequence[State] = ()
    code: str | None = None
    after_id: int = 0
    limit: int = PAGE


def reading(database: sa.Engine) -> sa.Connection:
    """A connection that takes no lock."""
    return database.connect().execution_options(reading=True)


def list_tasks(connection: sa.Connection, wanted: TaskFilter) -> list[dict[str, Any]]:
    """One page of newest tasks in the order of their ids; the last id is the key of the next page."""
    asked: dict[str, Any] = {"batch": wanted.batch_id, "after": wanted.after_id, "at_most": wanted.limit}
    if wanted.states or wanted.code is not None:
        rows = _found(connection, wanted, [asked | place for place in _places(connection, wanted)])
    else:
        rows = connection.execute(_OF_ALL if wanted.batch_id is None else _OF_BATCH, asked).all()
    return _with_uploads(connection, sorted(map(_shown, rows), key=itemgetter("id")))


def _places(connection: sa.Connection, wanted: TaskFilter) -> list[dict[str, str]]:
    """Where to look for tasks that may be few among many: in these states of a batch, or wherever there are any."""
    if wanted.batch_id is not None and wanted.states:
        return [{"batch": wanted.batch_id, "state": state.value} for state in wanted.states]
    query = sa.select(task_counts.c.batch_id, task_counts.c.state)
    if wanted.batch_id is not None:
        query = query.where(task_counts.c.batch_id == wanted.batch_id)
    if wanted.states:
        query = query.where(task_counts.c.state.in_([state.value for state in wanted.states]))
    query = query.group_by(*query.selected_columns).having(sa.func.sum(task_counts.c.tasks) > 0)
    return [{"batch": batch_id, "state": state} for batch_id, state in connection.execute(query)]


def _found(connection: sa.Connection, wanted: TaskFilter, places: Sequence[dict[str, Any]]) -> Sequence[sa.Row[Any]]:
    """The page of all places together: first its ids, then what is shown of them."""
    page, ids_only = (_OF_STATE, _IDS_OF_STATE) if wanted.code is None else (_OF_CODE, _IDS_OF_CODE)
    asked = [place | {"code": wanted.code} for place in places] if wanted.code is not None else places
    if len(asked) == 1:
        return connection.execute(page, asked[0]).all()
    ids = sorted({id_ for one in asked for id_ in connection.execute(ids_only, one).scalars()})[: wanted.limit]
    parts = (ids[start : start + IN_ONE_LIST] for start in range(0, len(ids), IN_ONE_LIST))
    return [row for part in parts for row in connection.execute(_THESE, {"ids": part})]


def _with_uploads(connection: sa.Connection, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks whose references are not all published say how many are, under `published`."""
    wanted = [task for task in found if task["state"] in _TO_PUBLISH]
    contents = sorted({content for task in wanted for content in task["contents"]})
    known: set[str] = set()
    for start in range(0, len(contents), IN_ONE_LIST):
        page = contents[start : start + IN_ONE_LIST]
        known.update(connection.execute(sa.select(references.c.sha256).where(references.c.sha256.in_(page))).scalars())
    for task in wanted:
        task["published"] = (sum(content in known for content in task["contents"]), len(task["contents"]))
    return found


def show_task(connection: sa.Connection, task_id: int) -> dict[str, Any] | None:
    """One task with its attempts and its history."""
    row = connection.execute(_THIS, {"id": task_id}).one_or_none()
    if row is None:
        return None
    happened = connection.execute(sa.select(events).where(events.c.task_id == task_id).order_by(events.c.id))
    tried = connection.execute(sa.select(attempts).where(attempts.c.task_id == task_id).order_by(attempts.c.number))
    return _with_uploads(connection, [_shown(row)])[0] | {
        "attempts": [_attempt(row) for row in tried.mappings()],
        "events": [
            {"at": row["at"], "type": row["type"], "state": row["state"], "attempt": row["attempt"]}
            | json.loads(row["data"])
            for row in happened.mappings()
        ],
    }


def _shown(row: sa.Row[Any]) -> dict[str, Any]:
    found = dict(zip(_OF_WHOLE, row, strict=True))
    request = stored_request(found["request"])
    references: list[Any] = request["references"]
    return {
        "id": found["id"],
        "batch": found["batch"],
        "batch_id": found["batch_id"],
        "row": found["row"],
        "state": found["state"],
        "reason": None,
        "prompt": request["prompt"],
        "model": request["model"],
        "parameters": request["parameters"],
        "refs": [one if isinstance(one, str) else one["path"] for one in references],
        "attempt": found["attempt"],
        "account": found["account"],
        "lane": lane_name(found["account"], found["req_key"]) if found["account"] else None,
        "job_id": found["job_id"],
        "priority": found["priority"],
        "position": found["position"],
        "name": found["name"],
        "created_at": found["created_at"],
        "updated_at": found["updated_at"],
        "sent_at": found["sent_at"],
        "error": {"code": found["error_code"], "message": found["error_message"]} if found["error_code"] else None,
        "cancel_requested": bool(found["cancel_requested"]),
        "retry_of": found["retry_of"],
        "files": json.loads(found["files"]) if found["files"] else [],
        "req_key": found["req_key"],
        "paused": bool(found["paused"]),
        "max_images": found["max_images"],
        "images_taken": found["images_taken"],
        "images": request["images"],
        "contents": [one["sha256"] for one in references if not isinstance(one, str)],
        "published": None,
    }


def _attempt(row: Any) -> dict[str, Any]:
    names = ("number", "outcome", "key_fingerprint", "sent_at", "accepted_at", "ended_at", "images", "run_s")
    slot_until = row["slot_until"]
    return {name: row[name] for name in names} | {
        "job_id": row["job_id"],
        "request_id": row["request_id"],
        "slot_until": slot_until if slot_until != float("inf") else None,
    }


def list_batches(connection: sa.Connection) -> list[dict[str, Any]]:
    """Every batch with its counts, newest first; not those that were pruned."""
    query = sa.select(batches).where(batches.c.pruned_at.is_(None))
    rows = connection.execute(query.order_by(batches.c.created_at.desc(), batches.c.id)).mappings()
    return [_batch(connection, row) for row in rows.all()]


def find_batch(connection: sa.Connection, word: str) -> list[dict[str, Any]]:
    """The batches that `word` may mean: an id, or a name (several folders may have one of that name)."""
    query = sa.select(batches).where(sa.or_(batches.c.id == word, batches.c.name == word))
    return [_batch(connection, row) for row in connection.execute(query).mappings().all()]


def _batch(connection: sa.Connection, row: Any) -> dict[str, Any]:
    found = counts(connection, row["id"])
    return {
        "id": row["id"],
        "batch": row["name"],
        "state": batch_state(found, paused=bool(row["paused"])).value,
        "counts": {state.value: count for state, count in found.items()},
        "out": row["out"],
        "source": row["source"],
        "on_doubt": row["on_doubt"],
        "priority": row["priority"],
        "max_images": row["max_images"],
        "images_taken": row["images_taken"],
        "paused": bool(row["paused"]),
        "created_at": row["created_at"],
        "pruned_at": row["pruned_at"],
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """What a batch cost and met."""

    images: int
    """Charged, or being made."""
    refused: int
    """Submits that were refused without a charge."""
    doubts: list[int]
    """Ids of tasks in doubt."""


def figures(connection: sa.Connection, batch_id: str) -> Figures:
    """A batch's ledger in short, over every revision of its rows."""
    here = (
        sa.select(attempts.c.outcome, sa.func.count(), sa.func.sum(attempts.c.images))
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.batch_id == batch_id)
        .group_by(attempts.c.outcome)
    )
    pruned = (
        sa.select(
            pruned_attempts.c.outcome, sa.func.sum(pruned_attempts.c.attempts), sa.func.sum(pruned_attempts.c.images)
        )
        .where(pruned_attempts.c.batch_id == batch_id)
        .group_by(pruned_attempts.c.outcome)
    )
    by_outcome = [*connection.execute(here), *connection.execute(pruned)]
    doubts = connection.execute(
        sa.select(tasks.c.id)
        .where(tasks.c.batch_id == batch_id, tasks.c.newest, tasks.c.state == State.IN_DOUBT.value)
        .order_by(tasks.c.id)
    ).scalars()
    settled = {outcome.value for outcome in SETTLED}
    return Figures(
        images=sum(int(images or 0) for outcome, _, images in by_outcome if outcome in settled),
        refused=sum(int(count) for outcome, count, _ in by_outcome if outcome == Outcome.REFUSED.value),
        doubts=list(doubts),
    )


def report_rows(connection: sa.Connection, batch_id: str) -> Iterator[dict[str, Any]]:
    """The batch's newest tasks in the order of the file, for manifest and failed.csv; read in pages."""
    position, last_id = -1, -1
    extra = ("key_fingerprint", "accepted_at", "ended_at", "request_id")
    while True:
        asked = {"batch": batch_id, "position": position, "last_id": last_id}
        page = sorted(connection.execute(_REPORTED, asked), key=attrgetter("position", "id"))
        for row in page:
            yield _shown(row) | {name: getattr(row, name) for name in extra}
        if not page:
            return
        position, last_id = page[-1].position, page[-1].id


@dataclass(frozen=True, slots=True)
class Holding:
    """A worker that runs, as far as is known, and what it has in hand."""

    id: str
    name: str
    machine: str
    pid: int
    version: str
    started_at: float
    silent_s: float
    jobs: int
    """At the vendor."""
    tasks: int
    """In all."""

    @property
    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"silent_s": round(self.silent_s, 1)}


def clock_of(connection: sa.Connection) -> float:
    """Now, by the clock that leases go by: the database's, where it is on another machine."""
    return postgres.clock_of(connection) if connection.dialect.name == "postgresql" else time.time()


def holdings(connection: sa.Connection, now: float) -> list[Holding]:
    """Workers that have not left, oldest first."""
    at_vendor = sa.func.count().filter(tasks.c.state.in_([state.value for state in AT_VENDOR]))
    query = (
        sa.select(workers, sa.func.count(tasks.c.id).label("tasks"), at_vendor.label("jobs"))
        .select_from(workers)
        .outerjoin(tasks, sa.and_(tasks.c.owner == workers.c.id, IS_HELD))
        .where(workers.c.ended_at.is_(None))
        .group_by(workers.c.id)
        .order_by(workers.c.started_at, workers.c.id)
    )
    return [
        Holding(
            **{name: row[name] for name in ("id", "machine", "pid", "version", "started_at", "jobs", "tasks")},
            name=row["name"] or row["id"],
            silent_s=max(0.0, now - (row["seen_at"] or row["started_at"])),
        )
        for row in connection.execute(query).mappings()
    ]


HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class LaneHour:
    """What a lane has done over the last hour, and how its limit has changed."""

    submits: int
    refusals: int
    median_run_s: float | None
    p95_run_s: float | None
    """95 of 100 jobs ran no longer."""
    events: list[dict[str, Any]]
    """Changes of its limit, oldest first."""


def lane_hours(connection: sa.Connection, now: float) -> dict[int, LaneHour]:
    """By lane id; only lanes that were ever used."""
    ever = (sa.exists().where(table.c.lane_id == lanes.c.id) for table in (attempts, pruned_attempts))
    used = connection.execute(sa.select(lanes.c.id).where(sa.or_(*ever)))
    return {lane_id: _lane_hour(connection, lane_id, now) for lane_id in used.scalars().all()}


def _lane_hour(connection: sa.Connection, lane_id: int, now: float) -> LaneHour:
    recent = (attempts.c.lane_id == lane_id, attempts.c.sent_at > now - HOUR_S)
    outcomes = sa.select(attempts.c.outcome, sa.func.count()).where(*recent).group_by(attempts.c.outcome)
    by_outcome: dict[str, int] = {row[0]: row[1] for row in connection.execute(outcomes)}
    runs = connection.execute(
        sa.select(attempts.c.run_s).where(
            attempts.c.lane_id == lane_id, attempts.c.run_s.is_not(None), attempts.c.ended_at > now - HOUR_S
        )
    ).scalars()
    changed = connection.execute(
        sa.select(lane_events.c.at, lane_events.c.what)
        .where(lane_events.c.lane_id == lane_id)
        .order_by(lane_events.c.id.desc())
        .limit(PAGE)
    ).mappings()
    run_times = [float(run_s) for run_s in runs if run_s is not None]
    return LaneHour(
        submits=sum(by_outcome.values()),
        refusals=by_outcome.get(Outcome.REFUSED.value, 0),
        median_run_s=median(run_times) if run_times else None,
        p95_run_s=percentile_s(run_times, 0.95) if run_times else None,
        events=[dict(row) for row in reversed(changed.all())],
    )
