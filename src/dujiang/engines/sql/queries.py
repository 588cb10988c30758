"""What the doors show: read-only, paged by key, plain values out."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
from dujiang.engines.sql.rows import IN_ONE_LIST, TASK_ROWS, request_of
from dujiang.engines.sql.schema import (
    IS_HELD,
    attempts,
    batches,
    events,
    lane_events,
    lanes,
    pruned_attempts,
    references,
    tasks,
    workers,
)

PAGE: Final = 50

# A task with its newest attempt, and what its batch has to do with why it waits.
_SHOWN: Final = TASK_ROWS.add_columns(
    batches.c.name.label("batch"), batches.c.paused, batches.c.max_images, batches.c.images_taken
).join(batches, batches.c.id == tasks.c.batch_id)


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
    query = _SHOWN.where(tasks.c.newest, tasks.c.id > wanted.after_id).order_by(tasks.c.id).limit(wanted.limit)
    if wanted.batch_id is not None:
        query = query.where(tasks.c.batch_id == wanted.batch_id)
    if wanted.states:
        query = query.where(tasks.c.state.in_([state.value for state in wanted.states]))
    if wanted.code is not None:
        query = query.where(tasks.c.error_code == wanted.code)
    return _with_uploads(connection, [_shown(row) for row in connection.execute(query).mappings()])


def _with_uploads(connection: sa.Connection, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks whose references are not all published say how many are, under `published`."""
    wanted = [task for task in found if task["state"] in {State.QUEUED.value, State.PREPARING.value}]
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
    row = connection.execute(_SHOWN.where(tasks.c.id == task_id)).mappings().one_or_none()
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


def _shown(row: Any) -> dict[str, Any]:
    request = request_of(row["request"])
    return {
        "id": row["id"],
        "batch": row["batch"],
        "batch_id": row["batch_id"],
        "row": row["row"],
        "state": row["state"],
        "reason": None,
        "prompt": request.prompt,
        "model": request.model,
        "parameters": dict(request.parameters),
        "refs": request.places,
        "attempt": row["attempt"],
        "account": row["account"],
        "lane": lane_name(row["account"], row["req_key"]) if row["account"] else None,
        "job_id": row["job_id"],
        "priority": row["priority"],
        "position": row["position"],
        "name": row["name"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "sent_at": row["sent_at"],
        "error": {"code": row["error_code"], "message": row["error_message"]} if row["error_code"] else None,
        "cancel_requested": bool(row["cancel_requested"]),
        "retry_of": row["retry_of"],
        "files": json.loads(row["files"] or "[]"),
        "req_key": row["req_key"],
        "paused": bool(row["paused"]),
        "max_images": row["max_images"],
        "images_taken": row["images_taken"],
        "images": request.images,
        "contents": [picture.sha256 for picture in request.local_pictures],
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
    after = sa.tuple_(tasks.c.position, tasks.c.id) > sa.tuple_(sa.bindparam("position"), sa.bindparam("last_id"))
    query = (
        _SHOWN.add_columns(attempts.c.ended_at, attempts.c.request_id)
        .where(tasks.c.batch_id == batch_id, tasks.c.newest, after)
        .order_by(tasks.c.position, tasks.c.id)
        .limit(500)
    )
    while True:
        page = connection.execute(query, {"position": position, "last_id": last_id}).mappings().all()
        for row in page:
            extra = ("key_fingerprint", "accepted_at", "ended_at", "request_id")
            yield _shown(row) | {name: row[name] for name in extra}
        if not page:
            return
        position, last_id = page[-1]["position"], page[-1]["id"]


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
