"""Whose turn it is among workers of one batch: whoever has waited longest for a place in the lane.

Without it the one whose job has just ended would be the first to see the free place, again and again, and others would
wait beside it with nothing to do. A worker that finds no place comes to the end of the queue, and leaves it with the
next place that it gets. A place that is left to another one and not taken within a moment shows that it is not there:
it loses its turn until it comes again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from dujiang.engines.sql.lines import HEADS, LASTS_S, grace_s
from dujiang.engines.sql.schema import turns
from dujiang.ports import Offer, Worker

_QUEUE: Final = sa.select(turns.c.lane_id, turns.c.worker, turns.c.came_at, turns.c.until, turns.c.left_at).where(
    turns.c.batch_id == sa.bindparam("batch"), turns.c.until > sa.bindparam("now")
)
_THIS: Final = (
    turns.c.lane_id == sa.bindparam("lane"),
    turns.c.batch_id == sa.bindparam("batch"),
    turns.c.worker == sa.bindparam("who"),
)
_OVER: Final = sa.delete(turns).where(*_THIS)
_LEFT: Final = sa.update(turns).where(*_THIS).values(left_at=sa.bindparam("now"))
_STAY: Final = sa.update(turns).where(*_THIS).values(until=sa.bindparam("new_until"), left_at=None)
_COME: Final = sa.insert(turns)


@dataclass(frozen=True, slots=True)
class Turns:
    """What a worker may take of the places that its batch has."""

    places: int
    again_s: float | None = None
    """When what was left to others may be taken after all."""


class Queue:
    """The workers of a batch that wait, as one turn finds them."""

    def __init__(self, connection: sa.Connection, batch_id: str, worker: Worker, now: float) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self._worker = worker
        self._now = now
        asked = {"batch": batch_id, "now": now}
        rows = connection.execute(_QUEUE, asked).all()
        self._rows: Sequence[Any] = sorted(rows, key=lambda row: (row.came_at, row.worker))  # few: no index for that
        self.is_shared = False
        """Whether others wait for a lane that was on offer."""

    def turns(self, offer: Offer, places: int) -> Turns:
        """Of so many places, those that are this worker's. One is left to everybody who waits, the longest first."""
        queue = self._there(offer)
        others = [row for row in queue if row.worker != self._worker.id]
        self.is_shared |= bool(others)
        if not others or not places:
            return Turns(places)
        before = next((at for at, row in enumerate(queue) if row.worker == self._worker.id), len(others))
        mine = max(min(1, places - before), places - len(others), 0)
        again_s = [self._leave(offer, row) for row in others[: places - mine]]
        return Turns(mine, min(again_s, default=None))

    def _there(self, offer: Offer) -> list[Any]:
        """Those that still come when they are left a place. An end too far away is of a clock that went back since."""
        found = []
        for row in self._rows:
            if row.lane_id != offer.lane.id or row.until > self._now + LASTS_S * offer.scale:
                continue
            left_at = row.left_at
            if left_at is None or row.worker == self._worker.id or 0 <= self._now - left_at < grace_s(offer):
                found.append(row)
            else:
                self._connection.execute(_OVER, self._this(offer, row.worker))
        return found

    def _leave(self, offer: Offer, row: Any) -> float:
        if row.left_at is not None:
            return float(row.left_at) + grace_s(offer) - self._now
        self._connection.execute(_LEFT, self._this(offer, row.worker))
        return grace_s(offer)

    def served(self, offer: Offer) -> None:
        """It has taken a place."""
        if self._mine(offer) is not None:
            self._connection.execute(_OVER, self._this(offer, self._worker.id))

    def wait(self, offer: Offer) -> None:
        """It found no place: it comes to the end of the queue, if there is something to take."""
        row = self._mine(offer)
        lasts_s = LASTS_S * offer.scale
        if row is not None and row.left_at is None and lasts_s / 2 < row.until - self._now <= lasts_s:
            return
        asked = {"batch": self._batch_id, "req_key": offer.lane.req_key, "at_most": 1}
        if self._connection.execute(HEADS, asked).first() is None:
            return
        values = self._this(offer, self._worker.id) | {"new_until": self._now + lasts_s}
        if row is not None and self._connection.execute(_STAY, values).rowcount:
            return
        self._connection.execute(_OVER, values)  # one that has run out
        place = {"lane_id": offer.lane.id, "batch_id": self._batch_id, "worker": self._worker.id}
        self._connection.execute(_COME, place | {"came_at": self._now, "until": self._now + lasts_s, "left_at": None})

    def _mine(self, offer: Offer) -> Any:
        mine = (row for row in self._rows if (row.lane_id, row.worker) == (offer.lane.id, self._worker.id))
        return next(mine, None)

    def _this(self, offer: Offer, worker_id: str) -> dict[str, Any]:
        return {"lane": offer.lane.id, "batch": self._batch_id, "who": worker_id, "now": self._now}
