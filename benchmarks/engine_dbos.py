"""DBOS under `engine.py`: a workflow of three steps, enqueued and taken from its queue.

Sync workflows: they are faster here than async ones, which pass every write to a thread. On SQLite its file is put into
WAL mode, which it doesn't do by itself; `synchronous` is FULL as SQLite comes.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Final

import sqlalchemy as sa
from dbos import DBOS

from checkpoints import plain
from lifecycles import STEPS, WARM, Place, Run

# How often it asks its queue; once a second, as it comes, 50 in flight would make 50 tasks a second.
POLL_EVERY_S: Final = 0.02
SEEN_EVERY_S: Final = 0.05
FILLING: Final = -1


def step(number: int, task: int) -> str:
    """One step; its result is the checkpoint."""
    return f"result {number} of {task}"


def carry(task: int) -> int:
    """The task."""
    for number in range(STEPS):
        checkpointed(number, task)
    return task


checkpointed: Final = DBOS.step(name="step")(step)
workflow: Final = DBOS.workflow(name="carry")(carry)


async def fill(place: Place) -> None:
    """Make its tables and enqueue."""
    if place.url.startswith("sqlite"):
        with closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    await asyncio.to_thread(_fill, place)


def _fill(place: Place) -> None:
    _launch(place, FILLING)
    _register("measured", 0)
    for number in range(place.tasks):
        DBOS.enqueue_workflow("measured", workflow, number)
    for worker in range(place.workers):
        _register(f"warm-{worker}", place.share)
        for number in range(WARM):
            DBOS.enqueue_workflow(f"warm-{worker}", workflow, place.tasks + number)
    DBOS.destroy()
    with _database(place).connect() as connection:
        connection.execute(sa.text("ANALYZE"))
        connection.commit()


async def finished(place: Place) -> int:
    """How many workflows have all their steps and have succeeded."""
    with _database(place).connect() as connection:
        tables = _tables(place)
        told = connection.execute(sa.text(f"SELECT count(*) FROM {tables}operation_outputs")).scalar_one()
        query = f"SELECT count(*) FROM {tables}workflow_status WHERE status = 'SUCCESS' AND queue_name = 'measured'"
        succeeded = int(connection.execute(sa.text(query)).scalar_one())
    assert told == STEPS * (place.tasks + place.workers * WARM)
    return succeeded


@asynccontextmanager
async def ready(place: Place) -> AsyncIterator[Run]:
    """A launched program, warm."""
    await asyncio.to_thread(_launch, place, place.worker)
    await asyncio.to_thread(_drain, place, f"warm-{place.worker}")

    def run() -> int:
        _register("measured", place.share)  # until now it let nothing through
        return _drain(place, "measured")

    yield lambda: asyncio.to_thread(run)
    await asyncio.to_thread(DBOS.destroy)


def _drain(place: Place, queue: str) -> int:
    """Wait until nothing is left in the queue; how many of it this program did."""
    table = f"{_tables(place)}workflow_status WHERE queue_name = :queue"
    unfinished = sa.text(f"SELECT count(*) FROM {table} AND status IN ('ENQUEUED', 'PENDING')")
    done = sa.text(f"SELECT count(*) FROM {table} AND executor_id = :executor")
    database = _database(place)
    while True:
        with database.connect() as connection:
            if not connection.execute(unfinished, {"queue": queue}).scalar_one():
                return int(connection.execute(done, {"queue": queue, "executor": _executor(place.worker)}).scalar_one())
        time.sleep(SEEN_EVERY_S)


def _register(queue: str, at_once: int) -> None:
    DBOS.register_queue(
        queue, worker_concurrency=at_once, polling_interval_sec=POLL_EVERY_S, on_conflict="always_update"
    )


def _launch(place: Place, worker: int) -> None:
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": _url(place),
            "application_version": "1",
            "executor_id": _executor(worker),
            "log_level": "ERROR",
        }
    )
    DBOS.listen_queues([] if worker == FILLING else ["measured", f"warm-{worker}"])
    DBOS.launch()


def _executor(worker: int) -> str:
    return f"executor-{worker}"


def _tables(place: Place) -> str:
    return "" if place.url.startswith("sqlite") else "dbos."


def _url(place: Place) -> str:
    return place.url if place.url.startswith("sqlite") else plain(place.url)


def _database(place: Place) -> sa.Engine:
    return sa.create_engine(place.url, pool_size=1)
