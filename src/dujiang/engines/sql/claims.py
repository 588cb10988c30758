"""Admission's transaction: permit first, then task.

For each lane on offer: limit − slots in use, less whatever rests, is stopped or has used up its budget; then that many
tasks from the head of the line, each with its attempt. The count is over attempt rows, so it is exact across every
worker, and a crash frees nothing that still runs at the vendor. Where other batches wait for the lane, too, this one
takes its share of the places and leaves the rest to them (`lines`).
"""

import itertools
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
from dujiang.engines.sql import budgets
from dujiang.engines.sql.bulk import Bulk, insertion
from dujiang.engines.sql.lanes import EVERYTHING_PAUSED, LOCK_LANES, ORDER_S
from dujiang.engines.sql.lines import Lines, SlotsInUse
from dujiang.engines.sql.paces import pace_of, store_pace
from dujiang.engines.sql.records import note_all, subjects
from dujiang.engines.sql.rows import IN_ORDER, TASK_ROWS, in_line, rest_of, task_of
from dujiang.engines.sql.schema import accounts, attempts, batches, lanes, rests, tasks
from dujiang.engines.sql.waiters import Waiters
from dujiang.ports import Offer, Turn, Worker

_LOOKING: Final = sa.select(sa.func.count()).where(
    attempts.c.lane_id == sa.bindparam("lane"),
    attempts.c.slot_until > sa.bindparam("now"),
    attempts.c.outcome == Outcome.OPEN.value,
    attempts.c.looking,
)
_HEAD: Final = (
    TASK_ROWS.where(*in_line(State.READY))
    .order_by(*IN_ORDER)
    .limit(sa.bindparam("at_most"))
    .with_for_update(of=tasks, skip_locked=True)
)
_CLAIM: Final = Bulk(
    {"task_id": tasks.c.id.type, "held_version": tasks.c.version.type}
    | {f"new_{name}": tasks.c[name].type for name in ("version", "owner", "attempt", "updated_at")},
    lambda values: (
        sa.update(tasks)
        .where(tasks.c.id == values["task_id"], tasks.c.version == values["held_version"])
        .values(
            state=State.SUBMITTING.value,
            version=values["new_version"],
            owner=values["new_owner"],
            attempt=values["new_attempt"],
            updated_at=values["new_updated_at"],
        )
    ),
)
_ATTEMPTS: Final = insertion(
    attempts,
    ("task_id", "number", "lane_id", "key_fingerprint", "worker", "looking", "kind", "sent_at", "images"),
    slot_until=sa.literal(HELD_UNTIL_TOLD),
    slot_for_s=sa.literal(0.0),
    outcome=sa.literal(Outcome.OPEN.value),
)
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
        attempts.c.slot_until > sa.bindparam("now") + attempts.c.slot_for_s + ORDER_S,
    )
    .values(slot_until=sa.bindparam("now") + attempts.c.slot_for_s)
)
_WAITING_STATES: Final = (State.QUEUED, State.PREPARING, State.READY)
_WAITING: Final = sa.select(
    *(
        sa.select(sa.literal_column("1"))
        .where(tasks.c.batch_id == sa.bindparam("batch"), tasks.c.state == state.value)
        .order_by(tasks.c.req_key, *IN_ORDER)  # as an index has it: else PostgreSQL may walk the table for the first
        .limit(1)
        .scalar_subquery()
        .label(state.value)
        for state in _WAITING_STATES
    )
)
_IN_FORCE: Final = (  # a lane that found its limit before learns nothing while somebody has fixed it
    sa.update(lanes)
    .where(lanes.c.id == sa.bindparam("lane"), lanes.c.in_force != sa.bindparam("words"))
    .values(in_force=sa.bindparam("words"))
)
_BATCH: Final = (
    sa.select(
        sa.or_(batches.c.paused, EVERYTHING_PAUSED).label("paused"),
        batches.c.priority,
        batches.c.max_images,
        batches.c.images_taken,
    )
    .where(batches.c.id == sa.bindparam("batch"))
    .with_for_update(of=batches, key_share=True)
)
_ACCOUNTS: Final = (
    sa.select(accounts.c.id, accounts.c.pace, accounts.c.stopped, accounts.c.daily_images)
    .order_by(accounts.c.id)
    .with_for_update(key_share=True)
)


def claim(connection: sa.Connection, worker: Worker, offers: Sequence[Offer], batch_id: str, now: float) -> Turn:
    """One turn: the tasks that got a slot, and when something that stands in the way ends by itself."""
    batch = connection.execute(_BATCH, {"batch": batch_id}).one_or_none()
    if batch is None or batch.paused:
        return Turn([], None, _waiting(connection, batch_id))
    if connection.dialect.name == "postgresql":
        connection.execute(LOCK_LANES, {"lanes": [offer.lane.id for offer in offers]})
    claiming = _Claiming(connection, worker, batch_id, batch, now)
    for offer in offers:
        claiming.fill(offer)
    return claiming.turn()


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
    could_have_one: bool = True
    """Once a slot is free. Not so where other programs know a higher limit and hold more than this one's allows."""


class _Claiming:
    """One turn: lane by lane, with what they have in common."""

    def __init__(
        self, connection: sa.Connection, worker: Worker, batch_id: str, batch: sa.Row[Any], now: float
    ) -> None:
        self._connection = connection
        self._worker = worker
        self._batch_id = batch_id
        self._now = now
        self._budget = budgets.batch_budget(batch)
        self._days: dict[int, budgets.Budget] = {}
        self._resting = [_shortened(connection, rest_of(row), now) for row in connection.execute(_RESTS).mappings()]
        self._accounts = {row.id: row for row in connection.execute(_ACCOUNTS)}
        self._paces = {account_id: pace_of(row.pace) for account_id, row in self._accounts.items()}
        self._slots_in_use = SlotsInUse(connection, now)
        self._lines = Lines(connection, batch_id, batch.priority, now, self._slots_in_use)
        self._waiters = Waiters(connection, batch_id, worker, now, self._slots_in_use)
        self._claimed: list[Task] = []
        self._due: list[float] = []
        self._beliefs: dict[int, Belief] = {}
        self._too_dear: list[bool] = []
        """Of each lane with a cap that the batch has something ready for: whether the cap keeps it from that."""
        self._uncapped: list[Offer] = []
        """Lanes without a cap."""

    def turn(self) -> Turn:
        """What came of it."""
        if self._claimed and self._budget.most is not None:
            budgets.take(self._connection, self._batch_id, sum(task.request.images for task in self._claimed))
        waiting = _waiting(self._connection, self._batch_id)
        return Turn(
            self._claimed,
            min(self._due, default=None),
            waiting,
            self._beliefs,
            is_shared=self._lines.are_shared or self._waiters.are_shared,
            is_out_of_budget=not self._claimed and self._is_out_of_budget(waiting),
        )

    def _is_out_of_budget(self, waiting: frozenset[State]) -> bool:
        if State.QUEUED in waiting and self._budget.allows(1):
            return False  # something may still be uploaded, and cost less
        if self._too_dear:
            return all(self._too_dear) and not any(self._head(offer) for offer in self._uncapped)
        return State.QUEUED in waiting

    def fill(self, offer: Offer) -> None:
        """Take what the lane has room for, of what the batch has ready."""
        if self._is_too_dear(offer) or self._left(offer) == 0:
            return
        account = self._accounts.get(offer.lane.account_id)
        if account is not None and account.stopped:
            return
        room = self._room(offer)
        share = self._lines.share(offer, room.wanted)
        mine = self._waiters.share(offer, share.places)
        self._due += [again_s for again_s in (share.again_s, mine.again_s) if again_s is not None]
        wanted = min(mine.places, self._left(offer))
        took = wanted and self._take_heads(offer, replace(room, wanted=wanted))
        if not took and room.could_have_one:
            self._lines.wait(offer)
            self._waiters.wait(offer)

    def _left(self, offer: Offer) -> int:
        """How many more tasks the turn may take."""
        return offer.at_most if offer.in_all is None else max(0, min(offer.at_most, offer.in_all - len(self._claimed)))

    def _take_heads(self, offer: Offer, room: Room) -> int:
        """Take so many tasks from the head of the line; how many there were, and could be paid for."""
        heads = [task_of(row) for row in self._connection.execute(_HEAD, self._line(offer, room.wanted)).mappings()]
        paid = list(itertools.takewhile(lambda task: self._pay(offer, task.request.images), heads))
        if paid:
            self._claimed += _take(self._connection, paid, offer, self._worker, self._now, room)
            self._lines.served(offer)
            self._waiters.served(offer)
            self._sent(offer)
        return len(paid)

    def _line(self, offer: Offer, at_most: int) -> dict[str, Any]:
        return {"batch": self._batch_id, "req_key": offer.lane.req_key, "at_most": at_most}

    # -- What it costs

    def _day(self, offer: Offer) -> budgets.Budget:
        account_id = offer.lane.account_id
        if account_id not in self._days:
            account = self._accounts.get(account_id)
            set_for_all = account.daily_images if account is not None else None
            self._days[account_id] = budgets.day_budget(self._connection, offer, set_for_all)
        return self._days[account_id]

    def _is_too_dear(self, offer: Offer) -> bool:
        """Whether the head of the line costs more than is left."""
        purses = (self._budget, self._day(offer))
        if all(purse.most is None for purse in purses):
            self._uncapped.append(offer)
            return False
        head = self._head(offer)
        if head is None:
            return False
        self._too_dear.append(not all(purse.allows(head.request.images) for purse in purses))
        return self._too_dear[-1]

    def _head(self, offer: Offer) -> Task | None:
        row = self._connection.execute(_HEAD, self._line(offer, 1)).mappings().one_or_none()
        return None if row is None else task_of(row)

    def _pay(self, offer: Offer, images: int) -> bool:
        purses = (self._budget, self._day(offer))
        if not all(purse.allows(images) for purse in purses):
            return False
        for purse in purses:
            purse.taken += images
        return True

    # -- What stands in the way

    def _room(self, offer: Offer) -> Room:
        """How many tasks the lane may take now, whoever takes them."""
        lane, now = offer.lane, self._now
        room = self._permitted(offer)
        if not room.wanted:
            self._connection.execute(_SHORTEN, {"lane": lane.id, "now": now})  # here, too, the clock may have gone back
            next_end = self._connection.execute(_NEXT_SLOT, {"lane": lane.id, "now": now}).scalar()
            self._due += [next_end - now] if next_end is not None else []
            return room
        names = set(subjects(lane.id, lane.account_id, lane.endpoint)) | {(Subject.DISK, "*")}
        in_the_way = [rest for rest in self._resting if (rest.subject, rest.key) in names]
        remaining = max((rest.remaining_s(now) for rest in in_the_way), default=0.0)
        if remaining:
            self._due.append(remaining)
            return replace(room, wanted=0)
        if not in_the_way:
            return self._paced(offer, room)
        if any(_somebody_looks(self._connection, rest, lane.id, now) for rest in in_the_way):
            return replace(room, wanted=0)
        return self._paced(offer, replace(room, wanted=1, looking=True))

    def _permitted(self, offer: Offer) -> Room:
        """What the lane's limit permits, whatever rests."""
        lane, limit, now = offer.lane, offer.limit, self._now
        if isinstance(limit, FixedLimit):
            in_use = self._slots_in_use.of(lane.id)
            room = Room(limit.free(in_use), could_have_one=in_use <= limit.slots)
            if room.wanted:
                self._connection.execute(_IN_FORCE, {"lane": lane.id, "words": str(limit)})
            return room
        batches_in_line = [self._batch_id, *self._lines.others(offer)]
        permit, self._beliefs[lane.id] = beliefs_of.permitted(
            self._connection, lane, limit, offer.scale, batches_in_line, now
        )
        self._due += [permit.again_s] if permit.again_s is not None else []
        return Room(permit.count, kind=permit.kind)

    def _paced(self, offer: Offer, room: Room) -> Room:
        """No faster than the account may submit."""
        pace = self._paces.get(offer.lane.account_id)
        if pace is None:
            return room
        wanted, again_s = pace.permit(room.wanted, self._now)
        self._due += [again_s] if again_s is not None else []
        return replace(room, wanted=wanted)

    def _sent(self, offer: Offer) -> None:
        account_id = offer.lane.account_id
        pace = self._paces.get(account_id)
        if pace is None or not pace.spacing_s:
            return
        self._paces[account_id] = sent = pace.sent(self._now, offer.scale)
        if sent.spacing_s:
            self._due.append(sent.spacing_s)  # the next one may leave then, whatever is answered until then
        store_pace(self._connection, account_id, sent)


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


def _take(
    connection: sa.Connection, heads: Sequence[Task], offer: Offer, worker: Worker, now: float, room: Room
) -> list[Task]:
    claimed = [_claimed(task, offer, now, room) for task in heads]
    moves = [
        {
            "task_id": task.id,
            "held_version": task.version,
            "new_version": moved.version,
            "new_owner": worker.id,
            "new_attempt": event.number,
            "new_updated_at": now,
        }
        for task, (moved, event) in zip(heads, claimed, strict=True)
    ]
    if _CLAIM.run(connection, moves) != len(moves):
        raise StaleTask("tasks have moved on that were locked")
    _ATTEMPTS.run(connection, [_attempt_row(task, offer, worker, now, room) for task, _ in claimed])
    note_all(connection, claimed, now)
    return [task for task, _ in claimed]


def _claimed(task: Task, offer: Offer, now: float, room: Room) -> tuple[Task, Claimed]:
    lane = offer.lane
    event = Claimed((task.attempt.number if task.attempt else 0) + 1, lane.id)
    attempt = Attempt(
        number=event.number,
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
    return replace(after(task, event), attempt=attempt), event


def _attempt_row(task: Task, offer: Offer, worker: Worker, now: float, room: Room) -> dict[str, Any]:
    assert task.attempt is not None, "it has just been claimed"
    return {
        "task_id": task.id,
        "number": task.attempt.number,
        "lane_id": offer.lane.id,
        "key_fingerprint": offer.key_fingerprint,
        "worker": worker.id,
        "looking": room.looking,
        "kind": room.kind.value if room.kind else None,
        "sent_at": now,
        "images": task.request.images,
    }
