"""Publishing references ahead of the slots: which tasks may be prepared now, and what hosts are known to have."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from dujiang.domain.lifecycle import PreparationStarted, State
from dujiang.domain.pictures import LocalPicture
from dujiang.domain.rests import Subject
from dujiang.domain.task import Task
from dujiang.engines.sql.budgets import batch_budget
from dujiang.engines.sql.lanes import EVERYTHING_PAUSED
from dujiang.engines.sql.records import Recording, end_rest, record
from dujiang.engines.sql.rows import IN_ONE_LIST, IN_ORDER, TASK_ROWS, StoredRow, in_line, rest_of, task_of
from dujiang.engines.sql.schema import IS_HELD, IS_PREPARED, accounts, batches, references, rests, tasks
from dujiang.ports import Ahead, Published, Turn, Worker

_UNDER_WAY: Final = sa.select(sa.func.count()).where(
    IS_HELD, tasks.c.owner.is_not(None), tasks.c.state == State.PREPARING.value
)
_UNDER_WAY_OF_PRODUCT: Final = _UNDER_WAY.where(
    tasks.c.batch_id == sa.bindparam("batch"), tasks.c.req_key == sa.bindparam("req_key")
)
_PREPARED: Final = (
    sa.select(tasks.c.priority, tasks.c.position, tasks.c.id)
    .where(IS_PREPARED, tasks.c.batch_id == sa.bindparam("batch"), tasks.c.req_key == sa.bindparam("req_key"))
    .order_by(*IN_ORDER)
)
_WORST: Final = _PREPARED.order_by(None).order_by(tasks.c.priority, tasks.c.position.desc(), tasks.c.id.desc()).limit(1)
_QUEUED: Final = (
    TASK_ROWS.where(*in_line(State.QUEUED))
    .order_by(*IN_ORDER)
    .limit(sa.bindparam("at_most"))
    .with_for_update(of=tasks, skip_locked=True)
)


def claim_preparation(connection: sa.Connection, worker: Worker, batch_id: str, ahead: Ahead, now: float) -> Turn:
    """The tasks to prepare now, and when something that stands in the way ends by itself."""
    if not _may_prepare(connection, batch_id, ahead):
        return Turn([], None)
    room, due_in_s = _room(connection, ahead, now)
    taken: list[Task] = []
    for req_key in ahead.req_keys:
        left = room - len(taken)
        these = {"batch": batch_id, "req_key": req_key, "at_most": left}
        rows = connection.execute(_QUEUED, these).mappings().all() if left > 0 else []
        if not rows:
            continue
        prepared = len(connection.execute(_PREPARED.limit(ahead.tasks), these).all())
        prepared += connection.execute(_UNDER_WAY_OF_PRODUCT, these).scalar_one()
        last = connection.execute(_WORST, these).mappings().one_or_none()
        worst = _line(last) if last is not None else None
        for number, row in enumerate(rows, start=prepared):
            if number >= ahead.tasks and (worst is None or _line(row) > worst):
                break
            taken.append(record(connection, Recording(task_of(row), PreparationStarted(), worker.id), now))
    return Turn(taken, due_in_s)


def _may_prepare(connection: sa.Connection, batch_id: str, ahead: Ahead) -> bool:
    """Whether what would be uploaded could be submitted: nothing is paused, and the batch has a budget for it."""
    all_paused = EVERYTHING_PAUSED.label("all_paused")
    query = sa.select(batches, all_paused).where(batches.c.id == batch_id)
    batch = connection.execute(query.with_for_update(of=batches, key_share=True)).one_or_none()
    if batch is None or batch.paused or batch.all_paused or not batch_budget(batch).allows(1):
        return False
    theirs = accounts.c.id.in_(ahead.account_ids)
    stopped = connection.execute(sa.select(accounts.c.stopped).where(theirs)).scalars().all()
    return not stopped or None in stopped


def _line(row: StoredRow) -> tuple[int, int, int]:
    """A task's place in the line: smaller goes first."""
    return (-row["priority"], row["position"], row["id"])


def _room(connection: sa.Connection, ahead: Ahead, now: float) -> tuple[int, float | None]:
    """How many tasks may begin to be prepared; while host or disk rests none, and after the rest one looks."""
    under_way = connection.execute(_UNDER_WAY).scalar_one()
    host = sa.and_(rests.c.subject == Subject.HOST.value, rests.c.key == ahead.host)
    query = sa.select(rests).where(sa.or_(host, rests.c.subject == Subject.DISK.value))
    resting = [rest_of(row).remaining_s(now) for row in connection.execute(query).mappings()]
    if not resting:
        return ahead.at_once - under_way, None
    if any(resting):
        return 0, max(resting)
    return (0 if under_way else 1), None


# -- What hosts have --------------------------------------------------------------------------------------------------


def published(connection: sa.Connection, sha256s: Sequence[str], host: str) -> dict[str, Published]:
    """Known links by content."""
    known: dict[str, Published] = {}
    for start in range(0, len(sha256s), IN_ONE_LIST):
        query = sa.select(references).where(
            references.c.host == host, references.c.sha256.in_(sha256s[start : start + IN_ONE_LIST])
        )
        for row in connection.execute(query).mappings():
            known[row["sha256"]] = Published(row["url"], max(row["published_at"], row["checked_at"] or 0.0))
    return known


def publish(connection: sa.Connection, picture: LocalPicture, host: str, url: str, now: float) -> None:
    """The host took a picture, so it answers. Two programs may have done it at once: the last link is as good."""
    this = sa.and_(references.c.sha256 == picture.sha256, references.c.host == host)
    values = {"url": url, "bytes": picture.bytes, "published_at": now, "checked_at": None}
    if not connection.execute(sa.update(references).where(this).values(**values)).rowcount:
        connection.execute(sa.insert(references).values(sha256=picture.sha256, host=host, **values))
    end_rest(connection, Subject.HOST, host)


def confirm(connection: sa.Connection, picture: LocalPicture, host: str, now: float, *, there: bool) -> None:
    """A link was looked at."""
    this = sa.and_(references.c.sha256 == picture.sha256, references.c.host == host)
    if there:
        connection.execute(sa.update(references).where(this).values(checked_at=now))
    else:
        connection.execute(sa.delete(references).where(this))
