"""Taking over what a gone worker held, before any new work is submitted, and now and then after that."""

from collections.abc import Callable

from dujiang.domain.task import Attempt, Task
from dujiang.ports import Engine, Worker
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.presence import LockedPresence


class Rescuer:
    """Looks for workers that are gone and adopts their tasks."""

    def __init__(
        self,
        engine: Engine,
        presence: LockedPresence,
        times: LaneTimes,
        reaches: Callable[[Attempt], bool],
        lease_s: float,
    ) -> None:
        """`lease_s`: real seconds of silence after which a worker counts as gone, wherever it is."""
        self._lease_s = lease_s
        self._engine = engine
        self._reaches = reaches
        self._presence = presence
        self._times = times

    async def adopt_all(self) -> list[Task]:
        """Every task that nobody living holds, now held by this worker: running jobs go on, submits are in doubt."""
        me = self._presence.worker
        adopted = await self.adopt_unheld()
        for worker in await self._engine.workers():
            if self._is_gone(worker):
                adopted += await self._adopt(me, worker)
        return adopted

    def _is_gone(self, worker: Worker) -> bool:
        """Its lock is free, or it has been silent for a lease: dead, frozen or cut off, its tasks must go on."""
        me = self._presence.worker
        return worker.id != me.id and (bool(self._presence.is_gone(worker)) or worker.silent_s > self._lease_s)

    async def adopt_unheld(self) -> list[Task]:
        """What nobody holds although somebody should: the job of a doubt that a person resolved."""
        return await self._engine.adopt(self._presence.worker, None, self._times.doubt_s(), self._reaches)

    async def _adopt(self, me: Worker, gone: Worker) -> list[Task]:
        adopted = await self._engine.adopt(me, gone, self._times.doubt_s(), self._reaches)
        if self._presence.is_gone(gone):  # one that is only silent still has its lock, and may come back
            self._presence.forget(gone)
        return adopted
