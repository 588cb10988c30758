"""Pruning: what a batch that was over long ago leaves behind is what it cost.

A batch goes in two steps. One transaction looks whether it may go and marks it: from then on nobody can run or retry
it. Then its tasks go, newest first, so many in a transaction, each page with its sums. So whoever else works waits for
a moment only, a kill in between loses no charge and counts none twice, and the next prune goes on where it stopped.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.lifecycle import FINAL
from dujiang.domain.run_times import REMEMBERED
from dujiang.domain.task import Outcome
from dujiang.engines.sql.schema import (
    attempts,
    batches,
    events,
    lines,
    pruned_attempts,
    pruned_run_times,
    task_counts,
    tasks,
    waiters,
)

ROWS: Final = 3000  # in one transaction, about 0.1 s: what runs must not wait for it
EVENTS_PER_ATTEMPT: Final = 4  # with the attempt's own row, about what comes of one submit
LONGEST_DAY_S: Final = 25 * 3600.0
"""Attempts of today are what an account's cap counts; today may have 25 hours."""

_FINAL: Final = tuple(sorted(state.value for state in FINAL))
_AT_VENDOR: Final = (Outcome.OPEN.value, Outcome.RUNNING.value)
_BEFORE: Final[sa.BindParameter[float]] = sa.bindparam("before")
_LAST_USED: Final = sa.func.coalesce(batches.c.used_at, batches.c.created_at)
_BUSY: Final = sa.exists().where(
    tasks.c.batch_id == batches.c.id, sa.or_(tasks.c.state.not_in(_FINAL), tasks.c.updated_at >= _BEFORE)
)
_HELD: Final = (
    sa.exists()
    .where(
        tasks.c.batch_id == batches.c.id,
        attempts.c.task_id == tasks.c.id,
        sa.or_(attempts.c.slot_until > sa.bindparam("now"), attempts.c.outcome.in_(_AT_VENDOR)),
    )
    .correlate(batches)
)
_IS_OVER: Final = sa.and_(batches.c.pruned_at.is_(None), _LAST_USED < _BEFORE, ~_BUSY, ~_HELD)
_IS_HALF_GONE: Final = sa.and_(batches.c.pruned_at.is_not(None), sa.exists().where(tasks.c.batch_id == batches.c.id))
_PRUNABLE: Final = (
    sa.select(
        batches.c.id,
        batches.c.name,
        batches.c.out,
        sa.func.coalesce(
            sa.select(sa.func.max(tasks.c.updated_at)).where(tasks.c.batch_id == batches.c.id).scalar_subquery(),
            _LAST_USED,
        ).label("changed_at"),
        sa.select(sa.func.count()).where(tasks.c.batch_id == batches.c.id).scalar_subquery().label("tasks"),
    )
    .where(sa.or_(_IS_OVER, _IS_HALF_GONE))
    .order_by(batches.c.created_at, batches.c.id)
)
_THIS: Final = batches.c.id == sa.bindparam("batch")
_LOCK: Final = sa.select(batches.c.id).where(_THIS).with_for_update(key_share=True)
_MAY_GO: Final = sa.select(_IS_HALF_GONE.label("half_gone")).where(_THIS, sa.or_(_IS_OVER, _IS_HALF_GONE))
_MARK: Final = sa.update(batches).where(_THIS, batches.c.pruned_at.is_(None)).values(pruned_at=sa.bindparam("now"))
_NEWEST: Final = (  # a retry goes before the task that it names
    sa.select(tasks.c.id, tasks.c.attempt)
    .where(tasks.c.batch_id == sa.bindparam("batch"), tasks.c.state.in_(_FINAL))
    .order_by(tasks.c.id.desc())
    .limit(ROWS)
)
_PAGE: Final = sa.and_(
    tasks.c.batch_id == sa.bindparam("batch"), tasks.c.id >= sa.bindparam("first_id"), tasks.c.state.in_(_FINAL)
)
_ITS_TASKS: Final = sa.select(tasks.c.id).where(_PAGE)
_ITS_ATTEMPTS: Final = (
    sa.select(
        attempts.c.lane_id,
        attempts.c.sent_at,
        attempts.c.outcome,
        attempts.c.images,
        attempts.c.ended_at,
        attempts.c.run_s,
    )
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(_PAGE)
)
_KEY: Final = ("batch_id", "lane_id", "day", "outcome")
_ADD: Final = (
    sa.update(pruned_attempts)
    .where(*(pruned_attempts.c[name] == sa.bindparam(f"of_{name}") for name in _KEY))
    .values(
        attempts=pruned_attempts.c.attempts + sa.bindparam("more"),
        images=pruned_attempts.c.images + sa.bindparam("more_images"),
    )
)
_FORGET_COUNTS: Final = sa.delete(task_counts).where(  # they add up to nothing; with the lock nobody adds a task
    task_counts.c.batch_id == sa.bindparam("batch"), ~sa.exists().where(tasks.c.batch_id == sa.bindparam("batch"))
)
_FORGET: Final = sa.delete(pruned_run_times).where(
    pruned_run_times.c.lane_id == sa.bindparam("lane"),
    pruned_run_times.c.id.not_in(
        sa.select(pruned_run_times.c.id)
        .where(pruned_run_times.c.lane_id == sa.bindparam("lane"))
        .order_by(pruned_run_times.c.ended_at.desc(), pruned_run_times.c.id.desc())
        .limit(REMEMBERED)
    ),
)


@dataclass(frozen=True, slots=True)
class Prunable:
    """A batch that may go."""

    id: str
    name: str
    out: str
    changed_at: float
    tasks: int


def prunable(connection: sa.Connection, older_than_s: float, now: float) -> list[Prunable]:
    """Batches that are over and have not changed for so long, and those that an earlier run did not finish."""
    found = connection.execute(_PRUNABLE, _asked(older_than_s, now))
    return [Prunable(row.id, row.name, row.out, row.changed_at, row.tasks) for row in found]


def mark(connection: sa.Connection, batch_id: str, older_than_s: float, now: float) -> bool:
    """Nobody runs the batch any more; False if it may not go (any more)."""
    connection.execute(_LOCK, {"batch": batch_id})
    if connection.execute(_MAY_GO, _asked(older_than_s, now) | {"batch": batch_id}).first() is None:
        return False
    connection.execute(_MARK, {"batch": batch_id, "now": now})
    connection.execute(sa.delete(lines).where(lines.c.batch_id == batch_id))
    connection.execute(sa.delete(waiters).where(waiters.c.batch_id == batch_id))
    return True


def _asked(older_than_s: float, now: float) -> dict[str, float]:
    return {"before": now - max(older_than_s, LONGEST_DAY_S), "now": now}


def prune_page(connection: sa.Connection, batch_id: str, day_of: Callable[[float], str]) -> int:
    """Some tasks of a marked batch, newest first; how many they were."""
    connection.execute(_LOCK, {"batch": batch_id})  # two at once would count a page twice
    ids = _as_many_as_fit(connection.execute(_NEWEST, {"batch": batch_id}).all())
    if not ids:
        connection.execute(_FORGET_COUNTS, {"batch": batch_id})
        return 0
    page = {"batch": batch_id, "first_id": ids[-1]}
    found = connection.execute(_ITS_ATTEMPTS, page).all()
    _add_up(connection, batch_id, found, day_of)
    _keep_run_times(connection, found)
    for table in (events, attempts):
        connection.execute(sa.delete(table).where(table.c.task_id.in_(_ITS_TASKS)), page)
    connection.execute(sa.delete(tasks).where(_PAGE), page)
    return len(ids)


def _as_many_as_fit(newest: Sequence[Any]) -> list[int]:
    ids: list[int] = []
    rows = 0
    for task_id, submits in newest:
        rows += 2 + submits * EVENTS_PER_ATTEMPT
        if ids and rows > ROWS:
            break
        ids.append(task_id)
    return ids


def _add_up(connection: sa.Connection, batch_id: str, found: Sequence[Any], day_of: Callable[[float], str]) -> None:
    submits: Counter[tuple[int, str, str]] = Counter()
    images: Counter[tuple[int, str, str]] = Counter()
    for row in found:
        key = (row.lane_id, day_of(row.sent_at), row.outcome)
        submits[key] += 1
        images[key] += row.images
    for key, count in submits.items():
        place = dict(zip(_KEY, (batch_id, *key), strict=True))
        more = {"more": count, "more_images": images[key]}
        if not connection.execute(_ADD, {f"of_{name}": value for name, value in place.items()} | more).rowcount:
            connection.execute(sa.insert(pruned_attempts).values(**place, attempts=count, images=images[key]))


def _keep_run_times(connection: sa.Connection, found: Sequence[Any]) -> None:
    """The newest of each lane: its next job is expected by them, even if its last one ended long ago."""
    ran = sorted((row for row in found if row.run_s is not None), key=lambda row: (row.lane_id, -row.ended_at))
    for lane_id, some in groupby(ran, lambda row: row.lane_id):
        kept = [{"lane_id": lane_id, "ended_at": row.ended_at, "run_s": row.run_s} for row in some][:REMEMBERED]
        connection.execute(sa.insert(pruned_run_times), kept)
        connection.execute(_FORGET, {"lane": lane_id})
