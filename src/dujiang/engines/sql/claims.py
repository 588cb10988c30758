"""Admission's transaction: permit first, then task.

For each lane on offer: limit − slots in use, less whatever rests; then that many tasks from the head of the line, each
with its attempt. The count is over attempt rows, so it is exact across every worker, and a crash frees nothing that
still runs at the vendor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.belief import Belief, Kind
from dujiang.domain.errors import StaleTask
from dujiang.domain.lifecycle import Claimed, State
from dujiang.domain.limits import FixedLimit
from dujiang.domain.rests import Rest, Subject
from dujiang.domain.task import HELD_UNTIL_TOLD, Attempt, Outcome, Task, after
from dujiang.engines.sql import beliefs as beliefs_of
from dujiang.engines.sql.records import note, subjects
from dujiang.engines.sql.rows import TASK_ROWS, rest_of, task_of
from dujiang.engines.sql.schema import attempts, batches, lanes, rests, tasks
from dujiang.ports import Offer, Turn, Worker

_SLOTS: Final = sa.select(sa.func.count()).where(
    attempts.c.lane_id == sa.bindparam("lane"), attempts.c.slot_until > sa.bindparam("now")
)
_LOOKING: Final = sa.select(sa.func.count()).where(
    attempts.c.lane_id == sa.bindparam("lane"),
    attempts.c.slot_until > sa.bindparam("now"),
    attempts.c.outcome == Outcome.OPEN.value,
    attempts.c.looking,
)
_HEAD: Final = (
    TASK_ROWS.where(
        tasks.c.batch_id == sa.bindparam("batch"),
        tasks.c.state == State.READY.value,
        tasks.c.req_key == sa.bindparam("req_key"),
    )
    .order_by(tasks.c.priority.desc(), tasks.c.position, tasks.c.id)
    .limit(sa.bindparam("at_most"))
)
_CLAIM: Final = (
    sa.update(tasks)
    .where(tasks.c.id == sa.bindparam("task_id"), tasks.c.version == sa.bindparam("held_version"))
    .values(
        state=State.SUBMITTING.value,
        version=tasks.c.version + 1,
        owner=sa.bindparam("worker"),
        attempt=sa.bindparam("number"),
        updated_at=sa.bindparam("now"),
    )
)
_ATTEMPT: Final = sa.insert(attempts)
_RESTS: Final = sa.select(rests)
_NEXT_SLOT: Final = sa.select(sa.func.min(attempts.c.slot_until)).where(
    attempts.c.lane_id == sa.bindparam("lane"),
    attempts.c.slot_until > sa.bindparam("now"),
    attempts.c.slot_until < HELD_UNTIL_TOLD,
)
_SHORTEN: Final = (
    sa.update(attempts)
    .where(
        attempts.c.lane_id == sa.bindparam("lane"),
        attempts.c.slot_until > sa.bindparam("now"),
        attempts.c.slot_until < HELD_UNTIL_TOLD,
        attempts.c.slot_until > sa.bindparam("now") + attempts.c.slot_for_s,
    )
    .values(slot_until=sa.bindparam("now") + attempts.c.slot_for_s)
)
_WAITING_STATES: Final = (State.QUEUED, State.PREPARING, State.READY)
_WAITING: Final = sa.select(
    *(
        sa.exists().where(tasks.c.batch_id == sa.bindparam("batch"), tasks.c.state == state.value).label(state.value)
        for state in _WAITING_STATES
    )
)
_IN_FORCE: Final = (  # a lane that found its limit before learns nothing while somebody has fixed it
    sa.update(lanes)
    .where(lanes.c.id == sa.bindparam("lane"), lanes.c.in_force != sa.bindparam("words"))
    .values(in_force=sa.bindparam("words"))
)
_PAUSED: Final = sa.select(batches.c.paused).where(batches.c.id == sa.bindparam("batch"))


def claim(connection: sa.Connection, worker: Worker, offers: Sequence[Offer], batch_id: str, now: float) -> Turn:
    """One turn: the tasks that got a slot, and when something that stands in the way ends by itself."""
    if connection.execute(_PAUSED, {"batch": batch_id}).scalar():
        return Turn([], None, _waiting(connection, batch_id))
    resting = [_shortened(connection, rest_of(row), now) for row in connection.execute(_RESTS).mappings().all()]
    claimed: list[Task] = []
    due: list[float] = []
    beliefs: dict[int, Belief] = {}
    for offer in offers:
        room = _room(connection, offer, batch_id, resting, now, due)
        if room.belief is not None:
            beliefs[offer.lane.id] = room.belief
        if not room.wanted:
            continue
        rows = connection.execute(
            _HEAD, {"batch": batch_id, "req_key": offer.lane.req_key, "at_most": room.wanted}
        ).mappings()
        claimed += [_take(connection, task_of(row), offer, worker, now, room) for row in rows.all()]
    return Turn(claimed, min(due) if due else None, _waiting(connection, batch_id), beliefs)


def _waiting(connection: sa.Connection, batch_id: str) -> frozenset[State]:
    found = connection.execute(_WAITING, {"batch": batch_id}).one()
    return frozenset(state for state, is_there in zip(_WAITING_STATES, found, strict=True) if is_there)


def _shortened(connection: sa.Connection, rest: Rest, now: float) -> Rest:
    """A rest is never honoured longer than its length from now: the clock may have gone back."""
    latest = now + rest.length_s
    if rest.until <= latest:
        return rest
    this = sa.and_(rests.c.subject == rest.subject.value, rests.c.key == rest.key)
    connection.execute(sa.update(rests).where(this).values(until=latest))
    return replace(rest, until=latest)


@dataclass(frozen=True, slots=True)
class Room:
    """What a lane may take in this turn."""

    wanted: int = 0
    looking: bool = False
    """They look whether something that rested answers again."""
    kind: Kind | None = None
    """As what a lane that finds its limit permits them."""
    belief: Belief | None = None


def _room(
    connection: sa.Connection, offer: Offer, batch_id: str, resting: Sequence[Rest], now: float, due: list[float]
) -> Room:
    """How many tasks the lane may take now."""
    lane = offer.lane
    room = _permitted(connection, offer, batch_id, now, due)
    if not room.wanted:
        connection.execute(_SHORTEN, {"lane": lane.id, "now": now})  # here, too, the clock may have gone back
        next_end = connection.execute(_NEXT_SLOT, {"lane": lane.id, "now": now}).scalar()
        due += [next_end - now] if next_end is not None else []
        return room
    names = set(subjects(lane.id, lane.account_id, lane.endpoint)) | {(Subject.DISK, "*")}
    in_the_way = [rest for rest in resting if (rest.subject, rest.key) in names]
    remaining = max((rest.remaining_s(now) for rest in in_the_way), default=0.0)
    if remaining:
        due.append(remaining)
        return replace(room, wanted=0)
    if not in_the_way:
        return room
    if any(_somebody_looks(connection, rest, lane.id, now) for rest in in_the_way):
        return replace(room, wanted=0)
    return replace(room, wanted=1, looking=True)


def _permitted(connection: sa.Connection, offer: Offer, batch_id: str, now: float, due: list[float]) -> Room:
    """What the lane's limit permits, whatever rests."""
    lane, limit = offer.lane, offer.limit
    if isinstance(limit, FixedLimit):
        in_use = connection.execute(_SLOTS, {"lane": lane.id, "now": now}).scalar_one()
        room = Room(min(limit.free(in_use), offer.at_most))
        if room.wanted:
            connection.execute(_IN_FORCE, {"lane": lane.id, "words": str(limit)})
        return room
    permit, belief = beliefs_of.permitted(connection, lane.id, lane.req_key, limit, offer.scale, batch_id, now)
    due += [permit.again_s] if permit.again_s is not None else []
    return Room(min(permit.count, offer.at_most), kind=permit.kind, belief=belief)


def _somebody_looks(connection: sa.Connection, rest: Rest, lane_id: int, now: float) -> bool:
    """Whether a submit is on its way already that will tell whether `rest` goes on."""
    if rest.subject is Subject.LANE:
        return bool(connection.execute(_LOOKING, {"lane": lane_id, "now": now}).scalar_one())
    condition = {
        Subject.ENDPOINT: lanes.c.endpoint == rest.key,
        Subject.DISK: sa.true(),
    }.get(rest.subject, sa.cast(lanes.c.account_id, sa.Text) == rest.key)
    found = (
        sa.select(attempts.c.task_id)
        .join(lanes, lanes.c.id == attempts.c.lane_id)
        .where(condition, attempts.c.slot_until > now, attempts.c.outcome == Outcome.OPEN.value, attempts.c.looking)
        .limit(1)
    )
    return connection.execute(found).first() is not None


def _take(connection: sa.Connection, task: Task, offer: Offer, worker: Worker, now: float, room: Room) -> Task:
    number = (task.attempt.number if task.attempt else 0) + 1
    moved = after(task, Claimed(number, offer.lane.id))
    taken = connection.execute(
        _CLAIM,
        {"task_id": task.id, "held_version": task.version, "worker": worker.id, "number": number, "now": now},
    )
    if not taken.rowcount:
        raise StaleTask(f"task {task.id} has moved on")
    connection.execute(_ATTEMPT, _attempt_row(task, number, offer, worker, now, room))
    lane = offer.lane
    attempt = Attempt(
        number=number,
        lane_id=lane.id,
        account_id=lane.account_id,
        account=lane.account,
        endpoint=lane.endpoint,
        req_key=lane.req_key,
        key_fingerprint=offer.key_fingerprint,
        sent_at=now,
        looking=room.looking,
        kind=room.kind,
    )
    moved = replace(moved, attempt=attempt)
    note(connection, moved, Claimed(number, lane.id), now)
    return moved


def _attempt_row(task: Task, number: int, offer: Offer, worker: Worker, now: float, room: Room) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "number": number,
        "lane_id": offer.lane.id,
        "key_fingerprint": offer.key_fingerprint,
        "worker": worker.id,
        "looking": room.looking,
        "kind": room.kind.value if room.kind else None,
        "sent_at": now,
        "slot_until": HELD_UNTIL_TOLD,
        "slot_for_s": 0.0,
        "outcome": Outcome.OPEN.value,
        "images": task.request.images,
    }
