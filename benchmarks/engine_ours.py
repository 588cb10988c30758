"""Our own engine under `engine.py`: claim, three recorded steps, end. No vendor, no pictures, no log."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import sqlalchemy as sa

from dujiang.domain.accounts import Account, Lane
from dujiang.domain.batch import Batch, OnDoubt
from dujiang.domain.lifecycle import Accepted, Rendered, Saved, State, StoredFile
from dujiang.domain.limits import FixedLimit
from dujiang.domain.task import Task
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.schema import events
from dujiang.ports import NewTask, Offer, Worker
from dujiang.providers.jimeng.models import MODELS
from dujiang.runner.clock import SystemClock
from lifecycles import STEPS, WARM, Place, Run

ENDPOINT: Final = "http://127.0.0.1:1"  # nobody is asked anything here
MODEL: Final = MODELS["4.0"]
NEVER_IN_THE_WAY: Final = FixedLimit(1000)
AGAIN_AFTER_S: Final = 0.01  # where another worker was faster
PAGE: Final = 1000
FILE: Final = StoredFile("00001.png", "0" * 64, 65_536, 1024, 1024)


async def fill(place: Place) -> None:
    """Enqueue the tasks, and for each worker some to get warm with."""
    async with _engine(place) as engine:
        await _enqueue(engine, "measured", place.tasks)
        for worker in range(place.workers):
            await _enqueue(engine, f"warm-{worker}", WARM)


async def finished(place: Place) -> int:
    """How many of the tasks ended well, with a row of their history for the claim and each of their steps."""
    async with _engine(place) as engine:
        ended = (await engine.counts("measured"))[State.SUCCEEDED]
        with engine.database.connect() as connection:
            told = connection.execute(sa.select(sa.func.count()).select_from(events)).scalar_one()
    assert told == (1 + STEPS) * (place.tasks + place.workers * WARM)
    return ended


@asynccontextmanager
async def ready(place: Place) -> AsyncIterator[Run]:
    """A worker that has done its warming up."""
    async with _engine(place) as engine:
        worker = Worker(f"benchmark-{place.worker}", "here", os.getpid(), 0.0)
        await engine.register(worker)
        carrier = _Carrier(engine, worker, place.share)
        # A lane of its own: batches on one lane would share its slots out, and the measured one has it alone.
        await carrier.work(f"warm-{place.worker}", await engine.lane(ENDPOINT, Account(worker.id, ()), MODEL.req_key))
        lane = await engine.lane(ENDPOINT, Account("benchmark", ()), MODEL.req_key)
        yield lambda: carrier.work("measured", lane)


class _Carrier:
    """One worker's tasks in flight."""

    def __init__(self, engine: SqlEngine, worker: Worker, share: int) -> None:
        self._engine = engine
        self._worker = worker
        self._share = share

    async def work(self, batch_id: str, lane: Lane) -> int:
        """As the worker does: fill what is free, carry each task on its own, and see when one has ended."""
        running: set[asyncio.Task[None]] = set()
        done, is_over = 0, False
        while running or not is_over:
            if not is_over:
                offer = Offer(lane, NEVER_IN_THE_WAY, "benchmark", at_most=self._share - len(running))
                turn = await self._engine.claim(self._worker, [offer], batch_id)
                running |= {asyncio.create_task(self._carry(task)) for task in turn.tasks}
                is_over = State.READY not in turn.waiting
            if not running:
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            done += len(ended)
        return done

    async def _carry(self, task: Task) -> None:
        """The steps that every task takes: the vendor took it, has made it, and the picture is on disk."""
        record, worker = self._engine.record, self._worker
        task = await record(task, Accepted(f"job-{task.id}", f"request-{task.id}"), worker=worker)
        task = await record(task, Rendered((f"https://127.0.0.1/{task.id}.png",), 1.0), worker=worker)
        await record(task, Saved((FILE,)), worker=worker)


@asynccontextmanager
async def _engine(place: Place) -> AsyncIterator[SqlEngine]:
    engine = SqlEngine(connect(place.url), SystemClock())
    try:
        yield engine
    finally:
        await engine.aclose()


async def _enqueue(engine: SqlEngine, batch_id: str, tasks: int) -> None:
    batch = await engine.open_batch(Batch(batch_id, batch_id, "/nowhere", "-", OnDoubt.parse("hold")))
    for start in range(0, tasks, PAGE):
        rows = []
        for number in range(start, min(start + PAGE, tasks)):
            request, _ = MODEL.checked(f"都江堰 {number}", {})
            assert request is not None
            rows.append(NewTask(str(number), str(number), number, f"{number:05d}", MODEL.req_key, request))
        await engine.enqueue(batch.id, rows)
