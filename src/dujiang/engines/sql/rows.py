"""Rows to values and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.batch import Batch, OnDoubt
from dujiang.domain.belief import Kind
from dujiang.domain.lifecycle import Event, State, StoredFile
from dujiang.domain.pictures import LocalPicture, Reference
from dujiang.domain.requests import Request
from dujiang.domain.rests import Rest, Subject
from dujiang.domain.task import Attempt, Outcome, Task
from dujiang.engines.sql.schema import accounts, attempts, lanes, tasks
from dujiang.ports import Worker

# One for a million rows.
_ENCODED: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=asdict).encode
_DECODED: Final = json.JSONDecoder().raw_decode

IN_ONE_LIST: Final = 500
"""Values in one IN list: SQLite takes 32,766, and a page of 10,000 tasks has more references."""

StoredRow = Mapping[Any, Any]
"""A row as SQLAlchemy gives it, by column name."""

# A task with its newest attempt, as the runner knows it.
TASK_ROWS: Final = (
    sa.select(
        tasks,
        attempts.c.lane_id,
        attempts.c.key_fingerprint,
        attempts.c.looking,
        attempts.c.sent_at,
        attempts.c.accepted_at,
        attempts.c.job_id,
        attempts.c.outcome,
        attempts.c.kind,
        lanes.c.account_id,
        lanes.c.endpoint,
        accounts.c.name.label("account"),
    )
    .select_from(tasks)
    .outerjoin(attempts, sa.and_(attempts.c.task_id == tasks.c.id, attempts.c.number == tasks.c.attempt))
    .outerjoin(lanes, lanes.c.id == attempts.c.lane_id)
    .outerjoin(accounts, accounts.c.id == lanes.c.account_id)
)

IN_ORDER: Final = (tasks.c.priority.desc(), tasks.c.position, tasks.c.id)
"""Of a batch's line: the first goes first."""


def in_line(state: State) -> tuple[sa.ColumnElement[bool], ...]:
    """A batch's tasks of one product (`batch`, `req_key`) that wait in this state."""
    return (
        tasks.c.batch_id == sa.bindparam("batch"),
        tasks.c.state == state.value,
        tasks.c.req_key == sa.bindparam("req_key"),
    )


def dumped(value: object) -> str:
    """JSON as it is stored: compact, Chinese readable."""
    return _ENCODED(value)


def request_text(request: Request) -> str:
    """A request as it is stored."""
    return dumped(
        {
            "model": request.model,
            "prompt": request.prompt,
            "parameters": dict(request.parameters),
            "references": [one if isinstance(one, str) else asdict(one) for one in request.references],
            "images": request.images,
        }
    )


def request_of(stored: str) -> Request:
    """The request that `request_text` stored."""
    value = stored_request(stored)
    references = tuple(_reference_of(one) for one in value["references"])
    return Request(value["model"], value["prompt"], value["parameters"], references, int(value["images"]))


def stored_request(stored: str) -> dict[str, Any]:
    """The same as plain values, for whoever shows many."""
    value: dict[str, Any] = _DECODED(stored)[0]
    return value


def _reference_of(stored: Any) -> Reference:
    return stored if isinstance(stored, str) else LocalPicture(**stored)


def task_of(row: StoredRow) -> Task:
    """A task from a row of `TASK_ROWS`."""
    return Task(
        id=row["id"],
        batch=row["batch_id"],
        position=row["position"],
        name=row["name"],
        request=request_of(row["request"]),
        state=State(row["state"]),
        version=row["version"],
        tries=row["tries"],
        fresh_submits=row["fresh_submits"],
        link_checks=row["link_checks"],
        policy_resubmits=row["policy_resubmits"],
        references=tuple(json.loads(row["references"] or "[]")),
        image_urls=tuple(json.loads(row["image_urls"] or "[]")),
        attempt=_attempt_of(row) if row["attempt"] else None,
        cancel_requested=bool(row["cancel_requested"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
        files=tuple(StoredFile(**file) for file in json.loads(row["files"] or "[]")),
    )


def _attempt_of(row: StoredRow) -> Attempt:
    return Attempt(
        number=row["attempt"],
        lane_id=row["lane_id"],
        account_id=row["account_id"],
        account=row["account"],
        endpoint=row["endpoint"],
        req_key=row["req_key"],
        key_fingerprint=row["key_fingerprint"],
        sent_at=row["sent_at"],
        accepted_at=row["accepted_at"],
        job_id=row["job_id"],
        looking=bool(row["looking"]),
        delivered=row["outcome"] == Outcome.DONE.value,
        kind=Kind(row["kind"]) if row["kind"] else None,
    )


def files_text(files: Sequence[StoredFile]) -> str | None:
    """Stored files as they are stored."""
    return dumped([asdict(file) for file in files]) if files else None


def event_text(event: Event) -> str:
    """An event's fields as they are stored."""
    return _ENCODED({field.name: getattr(event, field.name) for field in fields(event)})


def batch_of(row: StoredRow) -> Batch:
    """A batch from a row of its table."""
    return Batch(
        id=row["id"],
        name=row["name"],
        out=row["out"],
        source=row["source"],
        on_doubt=OnDoubt.parse(row["on_doubt"]),
        paused=bool(row["paused"]),
        created_at=row["created_at"],
        priority=row["priority"],
        max_images=row["max_images"],
        images_taken=row["images_taken"],
    )


def worker_of(row: StoredRow, now: float) -> Worker:
    """A worker from a row of its table."""
    silent_s = now - row["seen_at"] if row["seen_at"] is not None else 0.0
    names = ("id", "machine", "pid", "started_at", "name", "version")
    return Worker(**{name: row[name] for name in names}, silent_s=max(0.0, silent_s))


def rest_of(row: StoredRow) -> Rest:
    """A rest from a row of its table."""
    return Rest(
        subject=Subject(row["subject"]),
        key=row["key"],
        code=row["code"],
        detail=row["detail"],
        until=row["until"],
        length_s=row["length_s"],
        in_a_row=row["in_a_row"],
    )
