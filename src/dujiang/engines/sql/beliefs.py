"""What a lane that finds its limit believes, kept beside it and changed in the transactions that claim and record.

The arithmetic is `domain.brim`'s. Here it gets its counts, from attempt rows as always, and its memory, one column of
the lane. A change of the limit is an event of the lane, with its reason.
"""

import json
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.accounts import Lane
from dujiang.domain.belief import ON_ITS_WAY_S, Belief, Load, Permit, Sent
from dujiang.domain.brim import Brim
from dujiang.domain.lifecycle import Event, State
from dujiang.domain.limits import AutoLimit, Limit, parse_limit
from dujiang.domain.task import Outcome, Task
from dujiang.engines.sql.rows import IN_ORDER, dumped, in_line
from dujiang.engines.sql.schema import attempts, lane_events, lanes

MOST_COUNTED: Final = 200
"""Waiting tasks beyond this change nothing, but for a lane that holds more."""

_LANE: Final = (
    sa.select(lanes.c.belief, lanes.c.in_force)
    .where(lanes.c.id == sa.bindparam("lane"))
    .with_for_update(key_share=True)
)
_LOAD: Final = sa.select(
    sa.func.count(),
    sa.func.count().filter(attempts.c.outcome == Outcome.RUNNING.value),
    sa.func.count().filter(attempts.c.outcome == Outcome.OPEN.value, attempts.c.sent_at > sa.bindparam("since")),
).where(attempts.c.lane_id == sa.bindparam("lane"), attempts.c.slot_until > sa.bindparam("now"))
_WAITING: Final = (
    sa.select(sa.literal(1)).where(*in_line(State.READY)).order_by(*IN_ORDER).limit(sa.bindparam("at_most"))
)
_STORE: Final = (
    sa.update(lanes)
    .where(lanes.c.id == sa.bindparam("lane"))
    .values(belief=sa.bindparam("new_belief"), in_force=sa.bindparam("new_limit"))
)
_STAYS_EMPTY: Final = (
    sa.update(attempts)
    .where(attempts.c.task_id == sa.bindparam("of_task"), attempts.c.number == sa.bindparam("of_number"))
    .values(slot_until=sa.bindparam("now") + sa.bindparam("for_s"), slot_for_s=sa.bindparam("for_s"))
)


def permitted(
    connection: sa.Connection, lane: Lane, limit: AutoLimit, scale: float, batch_ids: Sequence[str], now: float
) -> tuple[Permit, Belief]:
    """How many tasks the lane may take now, and what it believes. `batch_ids`: the batches that wait for it."""
    stored = connection.execute(_LANE, {"lane": lane.id}).one()
    brim = limit.brim(scale)
    before = _belief(stored.belief, brim)
    load = _load(connection, lane.id, scale, now)
    at_most = max(MOST_COUNTED, 2 * load.slots)
    lines = ({"batch": batch_id, "req_key": lane.req_key, "at_most": at_most} for batch_id in batch_ids)
    backlog = sum(len(connection.execute(_WAITING, line).all()) for line in lines)
    after, permit = brim.permit(before, load, backlog, now)
    # Whose limit is in force is who submits by it: two programs with different ones tell nobody that they only wait.
    if after != before or stored.belief is None or (permit.count and stored.in_force != str(limit)):
        _store(connection, lane.id, before, after, str(limit), now)
    return permit, after


def learn(connection: sa.Connection, task: Task, event: Event, *, now: float, scale: float, chance: float) -> None:
    """What an event of a task says about its lane's limit. `chance`: uniform from 0 to 1."""
    attempt = task.attempt
    if attempt is None or attempt.kind is None or attempt.delivered or not _says_something(task, event):
        return
    stored = connection.execute(_LANE, {"lane": attempt.lane_id}).one()
    limit = parse_limit(stored.in_force) if stored.in_force else None
    if not isinstance(limit, AutoLimit):
        return
    brim = limit.brim(scale)
    before = _belief(stored.belief, brim)
    load = _load(connection, attempt.lane_id, scale, now)
    sent = Sent(attempt.kind, attempt.sent_at)
    match event:
        case life.Accepted():
            after = brim.admitted(before, sent, load, now)
        case life.Postponed(code="slot"):
            after = brim.refused(before, sent, load, now, chance)
        case life.Postponed():
            after = brim.too_fast(before)
        case _:
            after = brim.ended(before, event.run_s if isinstance(event, life.Rendered) else None, now)
            if empty_s := brim.stays_empty_s(after):
                these = {"of_task": task.id, "of_number": attempt.number, "now": now, "for_s": empty_s}
                connection.execute(_STAYS_EMPTY, these)
    if after != before:
        _store(connection, attempt.lane_id, before, after, stored.in_force, now)


def hint(connection: sa.Connection, lane_id: int, limit: Limit | None, *, now: float, scale: float) -> bool:
    """Somebody says that the cap has risen: the lane looks at once. False if its limit is fixed.

    `limit`: that goes for it from now on, if it is another than before.
    """
    stored = connection.execute(_LANE, {"lane": lane_id}).one()
    limit = limit or (parse_limit(stored.in_force) if stored.in_force else None)
    if not isinstance(limit, AutoLimit):
        return False
    before = _belief(stored.belief, limit.brim(scale))
    _store(connection, lane_id, before, limit.brim(scale).hinted(before, now), str(limit), now)
    return True


def _says_something(task: Task, event: Event) -> bool:
    match event:
        case life.Accepted():
            return True
        case life.Postponed():
            return event.code in {"slot", "qps"}
        case _:
            ends = life.Rendered | life.OutputRefused | life.Blocked | life.Failed | life.Vanished | life.Cancelled
            return task.state is State.GENERATING and isinstance(event, ends)


def _belief(stored: str | None, brim: Brim) -> Belief:
    return Belief.from_json(json.loads(stored)) if stored else brim.start()


def _load(connection: sa.Connection, lane_id: int, scale: float, now: float) -> Load:
    counted = {"lane": lane_id, "now": now, "since": now - ON_ITS_WAY_S * scale}
    slots, held, unanswered = connection.execute(_LOAD, counted).one()
    return Load(held, unanswered, slots - held - unanswered)


def _store(connection: sa.Connection, lane_id: int, before: Belief, after: Belief, limit: str, now: float) -> None:
    connection.execute(_STORE, {"lane": lane_id, "new_belief": dumped(after.as_json()), "new_limit": limit})
    change = after.change_since(before)
    if change is not None:
        connection.execute(sa.insert(lane_events).values(lane_id=lane_id, at=now, what=change))
