"""PgQueuer under `engine.py`: a job of three steps, each checkpointed in a table of our own.

On a pool of asyncpg and uvloop, as its own command does. Its `max_concurrent_tasks` bounds what is in flight.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from checkpoints import COUNT, TABLE, plain
from lifecycles import STEPS, WARM, Place, Run

new_event_loop: Final = uvloop.new_event_loop
CONNECTIONS: Final = 16  # of a worker; 8 do the same here, and 50 are a fifth slower
# How long it waits at least when it has all in flight that it may; a little faster than with its default of 0.1 s.
LOOK_AGAIN_AFTER: Final = timedelta(milliseconds=5)
CHECKPOINT: Final = "INSERT INTO checkpoints (task, step, data) VALUES ($1, $2, $3)"


async def fill(place: Place) -> None:
    """Install its tables and ours, and enqueue."""
    async with asyncpg.create_pool(plain(place.url), min_size=2, max_size=2) as pool:
        await pool.execute(TABLE)
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        await _enqueue(queries, "measured", place.tasks)
        for worker in range(place.workers):
            await _enqueue(queries, f"warm-{worker}", WARM)
        await pool.execute("ANALYZE")


async def finished(place: Place) -> int:
    """How many jobs have all their checkpoints and are logged as successful."""
    connection = await asyncpg.connect(plain(place.url))
    try:
        logged = await connection.fetchval(
            "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful' AND entrypoint = 'measured'"
        )
        told = await connection.fetchval(COUNT)
    finally:
        await connection.close()
    assert told == STEPS * (place.tasks + place.workers * WARM)
    return int(logged)


@asynccontextmanager
async def ready(place: Place) -> AsyncIterator[Run]:
    """A worker with its pool full, and warm."""
    size = min(CONNECTIONS, place.share) + 2  # one listens
    async with asyncpg.create_pool(plain(place.url), min_size=size, max_size=size) as pool:
        await _drain(pool, f"warm-{place.worker}", place.share)
        yield lambda: _drain(pool, "measured", place.share)


async def _drain(pool: Any, entrypoint: str, share: int) -> int:
    manager = QueueManager(Queries(AsyncpgPoolDriver(pool)))
    manager.min_dequeue_poll_interval = LOOK_AGAIN_AFTER
    done = 0

    async def carry(job: Job) -> None:
        nonlocal done
        for step in range(STEPS):
            await pool.execute(CHECKPOINT, job.id, step, f"result {step} of {job.id}")
        done += 1

    manager.entrypoint(entrypoint)(carry)
    await manager.run(mode=QueueExecutionMode.drain, batch_size=max(1, share // 2), max_concurrent_tasks=max(2, share))
    return done


async def _enqueue(queries: Queries, entrypoint: str, jobs: int) -> None:
    numbers = [str(number).encode() for number in range(jobs)]
    await queries.enqueue([entrypoint] * jobs, numbers, [0] * jobs)
