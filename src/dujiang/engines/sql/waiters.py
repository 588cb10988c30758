"""Which worker of a batch has the next place in a lane: whoever has waited longest.

Without it the one whose job has just ended would be the first to see the free place, again and again, and others would
wait beside it with nothing to do. A worker that finds no place comes to the end of the queue, and leaves it with the
next place that it gets. A place that is left to another one and not taken within a moment shows that it is not there,
nor anybody who hasn't come since: they lose their places in the queue until they come again.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from dujiang.engines.sql.lines import HEADS, LASTS_S, Share, SlotsInUse, grace_s, slots_of
from dujiang.engines.sql.schema import waiters
from dujiang.ports import Offer, Worker

_QUEUE: Final = sa.select(waiters).where(
    waiters.c.batch_id == sa.bindparam("batch"), waiters.c.until > sa.bindparam("now")
)
_THIS: Final = (
    waiters.c.lane_id == sa.bindparam("lane"),
    waiters.c.batch_id == sa.bindparam("batch"),
    waiters.c.worker == sa.bindparam("who"),
)
_GONE: Final = sa.delete(waiters).where(*_THIS)
_LEFT: Final = sa.update(waiters).where(*_THIS).values(left_at=sa.bindparam("now"))
_STAYS: Final = (
    sa.update(waiters)
    .where(*_THIS)
    .values(
        until=sa.bindparam("new_until"), asked_at=sa.bindparam("now"), slots=sa.bindparam("new_slots"), left_at=None
    )
)
_COMES: Final = sa.insert(waiters)


class Waiters:
    """The workers of a batch that wait, as a claim of one of them finds them."""

    def __init__(
        self, connection: sa.Connection, batch_id: str, worker: Worker, now: float, slots_in_use: SlotsInUse
    ) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self._worker = worker
        self._now = now
        self._slots_in_use = slots_in_use
        rows = connection.execute(_QUEUE, {"batch": batch_id, "now": now}).all()
        self._rows: Sequence[Any] = sorted(rows, key=lambda row: (row.came_at, row.worker))  # few: no index for that
        self._somebody_is_waited_for = any(row.left_at is not None for row in rows)
        self.are_shared = False
        """Whether others wait for places that this worker could have, too."""

    def share(self, offer: Offer, places: int) -> Share:
        """Of so many places, those that are this worker's. One is left to everybody who waits, the longest first."""
        queue = self._there(offer)
        others = [row for row in queue if row.worker != self._worker.id]
        if not others or not places or not self._has_ready(offer):
            return Share(places)
        self.are_shared = True
        before = next((at for at, row in enumerate(queue) if row.worker == self._worker.id), len(others))
        mine = max(min(1, places - before), places - len(others), 0)
        return Share(mine, min((self._leave(offer, row) for row in others[: places - mine]), default=None))

    def _there(self, offer: Offer) -> list[Any]:
        """Those that still come when they are left a place. An end too far away is of a clock that went back since."""
        latest = self._now + LASTS_S * offer.scale
        rows = [row for row in self._rows if row.lane_id == offer.lane.id and row.until <= latest]
        others = [row for row in rows if row.worker != self._worker.id]
        # The first that didn't come tells of all: each for itself would cost a moment of its own.
        gone = [row for row in others if row.left_at is not None and not 0 <= self._now - row.left_at < grace_s(offer)]
        if gone:
            in_vain_since = min(row.left_at for row in gone)
            gone += [row for row in others if row not in gone and row.asked_at < in_vain_since]
        for row in gone:
            self._connection.execute(_GONE, self._this(offer, row.worker))
        return [row for row in rows if row not in gone and self._slots_in_use.leave_room_for(row, offer)]

    def _leave(self, offer: Offer, row: Any) -> float:
        self._somebody_is_waited_for = True
        if row.left_at is not None:
            return float(row.left_at) + grace_s(offer) - self._now
        self._connection.execute(_LEFT, self._this(offer, row.worker))
        return grace_s(offer)

    def served(self, offer: Offer) -> None:
        """It has taken a place."""
        if self._mine(offer) is not None:
            self._connection.execute(_GONE, self._this(offer, self._worker.id))

    def wait(self, offer: Offer) -> None:
        """It found no place: it comes to the end of the queue, if there is something to take."""
        row = self._mine(offer)
        lasts_s = LASTS_S * offer.scale
        is_known = row is not None and lasts_s / 2 < row.until - self._now <= lasts_s and row.slots == slots_of(offer)
        if is_known and not self._somebody_is_waited_for:
            return  # that it has come again says nothing
        if not self._has_ready(offer):
            return
        values = self._this(offer, self._worker.id) | {"new_until": self._now + lasts_s, "new_slots": slots_of(offer)}
        if row is not None and self._connection.execute(_STAYS, values).rowcount:
            return
        self._connection.execute(_GONE, values)  # one that has run out
        place = {"lane_id": offer.lane.id, "batch_id": self._batch_id, "worker": self._worker.id, "left_at": None}
        since = {"came_at": self._now, "asked_at": self._now, "until": self._now + lasts_s, "slots": slots_of(offer)}
        self._connection.execute(_COMES, place | since)

    def _has_ready(self, offer: Offer) -> bool:
        asked = {"batch": self._batch_id, "req_key": offer.lane.req_key, "at_most": 1}
        return self._connection.execute(HEADS, asked).first() is not None

    def _mine(self, offer: Offer) -> Any:
        mine = (row for row in self._rows if (row.lane_id, row.worker) == (offer.lane.id, self._worker.id))
        return next(mine, None)

    def _this(self, offer: Offer, worker_id: str) -> dict[str, Any]:
        return {"lane": offer.lane.id, "batch": self._batch_id, "who": worker_id, "now": self._now}
