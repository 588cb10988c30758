"""Taking over what a gone worker held, before any new work is submitted, and now and then after that."""

from dujiang.domain.task import Task
from dujiang.ports import Engine, Worker
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.presence import LockedPresence


class Rescuer:
    """Looks for workers that are gone and adopts their tasks."""

    def __init__(self, engine: Engine, presence: LockedPresence, times: LaneTimes) -> None:
        self._engine = engine
        self._presence = presence
        self._times = times

    async def adopt_all(self) -> list[Task]:
        """Every task that nobody living holds, now held by this worker: running jobs go on, submits are in doubt."""
        me = self._presence.worker
        adopted = await self._engine.adopt(me, None, self._times.doubt_s())
        for worker in await self._engine.workers():
            if self._presence.is_gone(worker):
                adopted += await self._adopt(me, worker)
        return adopted

    async def _adopt(self, me: Worker, gone: Worker) -> list[Task]:
        adopted = await self._engine.adopt(me, gone, self._times.doubt_s())
        self._presence.forget(gone)
        return adopted
