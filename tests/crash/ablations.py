"""Wirings that leave out one thing each, to see that the storm notices. Never settings of the product."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from dujiang.domain.errors import StaleTask
from dujiang.domain.lifecycle import Decider, Event, Postponed, ResubmitDecided, State, Unanswered
from dujiang.domain.limits import FixedLimit
from dujiang.domain.rests import RestOrder
from dujiang.domain.task import Attempt, Task
from dujiang.engines.sql import claims
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.rows import TASK_ROWS, task_of
from dujiang.engines.sql.schema import attempts, tasks
from dujiang.ports import Offer, Turn, Worker

from .mortal import Death, MortalEngine, Point


class SlotsInMemory(MortalEngine):
    """A semaphore: what earlier processes left at the vendor takes no slot of this one."""

    async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
        """Count only the attempts of `worker`."""
        return await super().claim(worker, [await self._widened(worker, offer) for offer in offers], batch_id)

    async def _widened(self, worker: Worker, offer: Offer) -> Offer:
        query = sa.select(sa.func.count()).where(
            attempts.c.lane_id == offer.lane.id,
            attempts.c.slot_until > self._clock.now(),
            attempts.c.worker != worker.id,
        )
        assert isinstance(offer.limit, FixedLimit)
        forgotten = await self._read(lambda connection: connection.execute(query).scalar_one())
        return replace(offer, limit=FixedLimit(offer.limit.slots + forgotten))


class CommitAfterTheAnswer(MortalEngine):
    """Submit first, write down later: an attempt is on disk only once the vendor has answered.

    One submit at a time, which is all that is needed to pay twice.
    """

    _unwritten: tuple[Task, Worker, Offer] | None = None

    async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
        """What a claim would bring, undone."""
        if self._unwritten is not None:
            return Turn([], 0.01)
        offers = [replace(offer, at_most=1) for offer in offers]

        def look(connection: sa.Connection, now: float) -> Turn:
            with connection.begin_nested() as undone:
                turn = claims.claim(connection, worker, offers, batch_id, now)
                undone.rollback()
            return turn

        turn = await self._change(look)
        for task in turn.tasks:
            assert task.attempt is not None
            lane_id = task.attempt.lane_id
            self._unwritten = (task, worker, next(offer for offer in offers if offer.lane.id == lane_id))
        self._death.passing(Point.AFTER_SUBMITTING_COMMIT, len(turn.tasks))
        return turn

    async def record(
        self, task: Task, event: Event, rest: RestOrder | None = None, worker: Worker | None = None
    ) -> Task:
        """Claim in earnest, now that there is an answer."""
        if self._unwritten is not None and self._unwritten[0].id == task.id:
            _, claimant, offer = self._unwritten
            self._unwritten = None
            await self._change(lambda connection, now: _take(connection, task, offer, claimant, now))
        return await super().record(task, event, rest, worker)


def _take(connection: sa.Connection, claimed: Task, offer: Offer, worker: Worker, now: float) -> None:
    found = task_of(connection.execute(TASK_ROWS.where(tasks.c.id == claimed.id)).mappings().one())
    if found.version != claimed.version - 1:
        raise StaleTask("another process sent it as well")
    claims._take(connection, [found], offer, worker, now, claims.Room(1))


class DoubtResubmitted(MortalEngine):
    """No answer means that nothing happened: doubt goes back into the line by itself."""

    async def record(
        self, task: Task, event: Event, rest: RestOrder | None = None, worker: Worker | None = None
    ) -> Task:
        """A submit without an answer counts as refused."""
        if isinstance(event, Unanswered):
            event = Postponed(event.code, event.message)
        return await super().record(task, event, rest, worker)

    async def adopt(
        self,
        worker: Worker,
        gone: Worker | None,
        slot_for_s: Callable[[int], float],
        reaches: Callable[[Attempt], bool] = lambda attempt: True,
    ) -> list[Task]:
        """What a dead worker was submitting is submitted again."""
        adopted = await super().adopt(worker, gone, slot_for_s, reaches)
        for task in adopted:
            if task.state is State.IN_DOUBT:
                await super().record(task, ResubmitDecided(Decider.POLICY))
        return [task for task in adopted if task.state is not State.IN_DOUBT]


AS_SHIPPED: Final = "as shipped"

WIRINGS: Final[dict[str, Callable[[SqlEngine, Death], MortalEngine]]] = {
    AS_SHIPPED: MortalEngine,
    "slots in memory": SlotsInMemory,
    "no commit before the submit": CommitAfterTheAnswer,
    "doubt resubmitted": DoubtResubmitted,
}
