"""Procrastinate under `engine.py`: a job of three steps, each checkpointed in a table of our own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from procrastinate import App, PsycopgConnector

from checkpoints import COUNT, TABLE, plain
from lifecycles import STEPS, WARM, Place, Run

CONNECTIONS: Final = 16  # of a worker; 8 do the same here, and 50 are a fifth slower
CHECKPOINT: Final = "INSERT INTO checkpoints (task, step, data) VALUES (%s, %s, %s)"


async def fill(place: Place) -> None:
    """Install its tables and ours, and enqueue."""
    app = _app(place, 2)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await _enqueue(app, "measured", range(place.tasks))
        for worker in range(place.workers):
            first = place.tasks + WARM * worker
            await _enqueue(app, f"warm-{worker}", range(first, first + WARM))
    async with await psycopg.AsyncConnection.connect(plain(place.url), autocommit=True) as connection:
        await connection.execute(TABLE)
        await connection.execute("ANALYZE")


async def finished(place: Place) -> int:
    """How many jobs have all their checkpoints and have succeeded."""
    async with await psycopg.AsyncConnection.connect(plain(place.url)) as connection:
        query = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded' AND queue_name = 'measured'"
        succeeded = await (await connection.execute(query)).fetchone()
        told = await (await connection.execute(COUNT)).fetchone()
    assert told == (STEPS * (place.tasks + place.workers * WARM),)
    assert succeeded is not None
    return int(succeeded[0])


@asynccontextmanager
async def ready(place: Place) -> AsyncIterator[Run]:
    """A worker with its pool full, and warm."""
    app = _app(place, min(CONNECTIONS, place.share) + 2)
    async with app.open_async():
        done = 0

        async def carry(number: int) -> None:
            nonlocal done
            for step in range(STEPS):
                async with app.connector.pool.connection() as connection:
                    await connection.execute(CHECKPOINT, (number, step, f"result {step} of {number}"))
            done += 1

        app.task(name="carry")(carry)

        async def drain(queue: str) -> int:
            nonlocal done
            done = 0
            await app.run_worker_async(queues=[queue], concurrency=place.share, wait=False)
            return done

        await drain(f"warm-{place.worker}")
        yield lambda: drain("measured")


def _app(place: Place, size: int) -> App:
    return App(connector=PsycopgConnector(conninfo=plain(place.url), min_size=size, max_size=size))


async def _enqueue(app: App, queue: str, numbers: range) -> None:
    await app.configure_task("carry", queue=queue).batch_defer_async(*({"number": number} for number in numbers))
