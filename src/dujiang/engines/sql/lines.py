"""The lines at lanes: which batches somebody works for, and whose turn it is (the rule is `domain.shares`).

A program claims for its own batch. So that it leaves others their share, each batch that waits stands in line at its
lanes: a row with an end, renewed by claims. A place that is left to another batch and not taken within a moment shows
that nobody is there to take it: that batch loses its line until it comes again. So a program that was killed or frozen
costs the lane a moment once, and a free slot is never kept for anybody who doesn't come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from dujiang.domain.belief import LONG_AGO
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.domain.shares import Line, shared_out
from dujiang.engines.sql.budgets import batch_budget
from dujiang.engines.sql.rows import IN_ORDER, in_line
from dujiang.engines.sql.schema import attempts, batches, lines, tasks
from dujiang.ports import Offer

LASTS_S: Final = 30.0
"""A line that is not renewed for so long, in our seconds, is given up."""
GRACE_S: Final = 1.0
"""So long, in our seconds, a place is left to another batch; at least half a real second: programs may be busy."""

_LINES: Final = (
    sa.select(lines, batches.c.priority, batches.c.paused, batches.c.max_images, batches.c.images_taken)
    .join(batches, batches.c.id == lines.c.batch_id)
    .where(lines.c.until > sa.bindparam("now"))
)
HEADS: Final = (
    sa.select(tasks.c.priority).where(*in_line(State.READY)).order_by(*IN_ORDER).limit(sa.bindparam("at_most"))
)
_SLOTS: Final = (
    sa.select(tasks.c.batch_id, sa.func.count())
    .select_from(attempts)
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(attempts.c.lane_id == sa.bindparam("lane"), attempts.c.slot_until > sa.bindparam("now"))
    .group_by(tasks.c.batch_id)
)
_IN_USE: Final = sa.select(sa.func.count()).where(
    attempts.c.lane_id == sa.bindparam("lane"), attempts.c.slot_until > sa.bindparam("now")
)
_THIS: Final = (lines.c.lane_id == sa.bindparam("lane"), lines.c.batch_id == sa.bindparam("batch"))
_SERVED: Final = (
    sa.update(lines)
    .where(*_THIS)
    .values(
        {
            "served_at": sa.bindparam("now"),
            "until": sa.bindparam("new_until"),
            "slots": sa.bindparam("new_slots"),
            "left_at": None,
            # one that had lapsed comes anew
            "came_at": sa.case((lines.c.until > sa.bindparam("now"), lines.c.came_at), else_=sa.bindparam("now")),
        }
    )
)
_RENEWED: Final = (
    sa.update(lines)
    .where(*_THIS)
    .values(until=sa.bindparam("new_until"), slots=sa.bindparam("new_slots"), left_at=None)
)
_CAME: Final = _RENEWED.values(came_at=sa.bindparam("now"))
_NEW: Final = sa.insert(lines)
_LEFT: Final = sa.update(lines).where(*_THIS).values(left_at=sa.bindparam("now"))
_GIVEN_UP: Final = sa.update(lines).where(*_THIS).values(until=sa.bindparam("now"))


@dataclass(frozen=True, slots=True)
class Share:
    """What a batch may take of the places there are now."""

    places: int
    again_s: float | None = None
    """When what was left to others may be taken after all."""


def slots_of(offer: Offer) -> int | None:
    """The limit that whoever offers the lane goes by, if that is fixed."""
    return offer.limit.slots if isinstance(offer.limit, FixedLimit) else None


class SlotsInUse:
    """How many slots lanes have in use, counted when somebody's limit is lower than another's."""

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        self._in_use: dict[int, int] = {}

    def leave_room_for(self, waiting: Any, offer: Offer) -> bool:
        """Whether one who waits could take the lane's next place by the limit that goes for him, as the offer could."""
        slots, mine = waiting.slots, slots_of(offer)
        if slots is None or (mine is not None and mine <= slots):
            return True
        return self.of(offer.lane.id) < int(slots)

    def of(self, lane_id: int) -> int:
        """Of a lane, before this claim."""
        if lane_id not in self._in_use:
            self._in_use[lane_id] = self._connection.execute(_IN_USE, {"lane": lane_id, "now": self._now}).scalar_one()
        return self._in_use[lane_id]


class Lines:
    """The lines as one turn of a batch's worker finds them."""

    def __init__(
        self, connection: sa.Connection, batch_id: str, priority: int, now: float, slots_in_use: SlotsInUse
    ) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self._priority = priority
        self._now = now
        self._slots_in_use = slots_in_use
        self._rows: dict[tuple[int, str], sa.Row[Any]] = {
            (row.lane_id, row.batch_id): row for row in connection.execute(_LINES, {"now": now})
        }
        self.are_shared = False
        """Whether another batch waits for a lane that was on offer."""

    def others(self, offer: Offer) -> list[str]:
        """Other batches that wait for the lane."""
        lasts_s = _lasts_s(offer)
        found = [
            row.batch_id
            for (lane_id, batch_id), row in self._rows.items()
            if lane_id == offer.lane.id
            and batch_id != self._batch_id
            and not row.paused
            and row.until <= self._now + lasts_s  # else the clock has gone back
            and batch_budget(row).allows(1)
            and self._slots_in_use.leave_room_for(row, offer)
        ]
        self.are_shared |= bool(found)
        return found

    def share(self, offer: Offer, places: int) -> Share:
        """This batch's part of the places, whatever it has ready. What is left to others is noted down."""
        others = self.others(offer)
        if not others or not places:
            return Share(places)
        slots: dict[str, int] = {
            row[0]: row[1] for row in self._connection.execute(_SLOTS, {"lane": offer.lane.id, "now": self._now})
        }
        here = [self._line(offer, batch_id, places, slots) for batch_id in [self._batch_id, *others]]
        while True:
            shares = shared_out(here, places, self._now, offer.ageing_s)
            absent = [line for line in here if shares[line.batch] and self._never_came(offer, line.batch)]
            if not absent:
                break
            for line in absent:
                self._connection.execute(_GIVEN_UP, self._this(offer, line.batch))
                here.remove(line)
        left_to = self._before_us(here, places, offer)
        return Share(shares[self._batch_id], min((self._leave(offer, other) for other in left_to), default=None))

    def _before_us(self, here: Sequence[Line], places: int, offer: Offer) -> list[str]:
        """Those who get a place, and those who would if none of these came: all are waited for at the same time."""
        found: list[str] = []
        while True:
            left = [line for line in here if line.batch not in found]
            shares = shared_out(left, places, self._now, offer.ageing_s)
            others = [line.batch for line in left if shares[line.batch] and line.batch != self._batch_id]
            if not others:
                return found
            found += others

    def _line(self, offer: Offer, batch_id: str, places: int, slots: dict[str, int]) -> Line:
        asked = {"batch": batch_id, "req_key": offer.lane.req_key, "at_most": places}
        heads = self._connection.execute(HEADS, asked).scalars().all()
        row = self._rows.get((offer.lane.id, batch_id))
        if row is None:
            return Line(batch_id, self._priority, heads, slots.get(batch_id, 0), self._now)
        priority = self._priority if batch_id == self._batch_id else row.priority
        # A moment to come is of a clock that went back since (DESIGN rule 11).
        served_at = LONG_AGO if row.served_at is None or row.served_at > self._now else row.served_at
        return Line(batch_id, priority, heads, slots.get(batch_id, 0), min(row.came_at, self._now), served_at)

    def _never_came(self, offer: Offer, batch_id: str) -> bool:
        if batch_id == self._batch_id:
            return False
        left_at = self._rows[offer.lane.id, batch_id].left_at
        return left_at is not None and not self._now - grace_s(offer) < left_at <= self._now

    def _leave(self, offer: Offer, batch_id: str) -> float:
        """Leave a place to another batch; for how many seconds."""
        left_at = self._rows[offer.lane.id, batch_id].left_at
        if left_at is None:
            self._connection.execute(_LEFT, self._this(offer, batch_id))
            return grace_s(offer)
        return float(left_at) + grace_s(offer) - self._now

    def served(self, offer: Offer) -> None:
        """The batch has taken a place."""
        values = self._renewal(offer)
        if not self._connection.execute(_SERVED, values).rowcount:
            self._insert(offer, served_at=self._now)

    def wait(self, offer: Offer) -> None:
        """There is no place: the batch stands in line, if it has something ready. So whoever waits is there."""
        row = self._rows.get((offer.lane.id, self._batch_id))
        lasts_s = _lasts_s(offer)
        is_as_it_was = row is not None and row.left_at is None and row.slots == slots_of(offer)
        if is_as_it_was and row is not None and lasts_s / 2 < row.until - self._now <= lasts_s:
            return
        asked = {"batch": self._batch_id, "req_key": offer.lane.req_key, "at_most": 1}
        if self._connection.execute(HEADS, asked).first() is None:
            return
        values = self._renewal(offer)
        stands = row is not None and row.until <= self._now + lasts_s
        if not self._connection.execute(_RENEWED if stands else _CAME, values).rowcount:
            self._insert(offer, served_at=None)

    def _insert(self, offer: Offer, served_at: float | None) -> None:
        place = {"lane_id": offer.lane.id, "batch_id": self._batch_id, "came_at": self._now}
        until = self._now + _lasts_s(offer)
        more = {"served_at": served_at, "until": until, "slots": slots_of(offer), "left_at": None}
        self._connection.execute(_NEW, place | more)

    def _renewal(self, offer: Offer) -> dict[str, Any]:
        until = self._now + _lasts_s(offer)
        return self._this(offer, self._batch_id) | {"new_until": until, "new_slots": slots_of(offer)}

    def _this(self, offer: Offer, batch_id: str) -> dict[str, Any]:
        return {"lane": offer.lane.id, "batch": batch_id, "now": self._now}


def _lasts_s(offer: Offer) -> float:
    return LASTS_S * offer.scale


def grace_s(offer: Offer) -> float:
    """For so long a place is left to whoever may be busy."""
    return max(0.5, GRACE_S * offer.scale)
