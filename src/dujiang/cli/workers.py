"""`dujiang worker` and `dujiang workers …`: work for every batch, and see who does."""

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from dujiang import wiring
from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import read_database, settings_of
from dujiang.cli.run import signals, written_reports
from dujiang.cli.show import moment, print_json, print_table
from dujiang.domain.batch import Batch
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import Holding, clock_of, holdings
from dujiang.messages import text
from dujiang.runner.clock import SystemClock
from dujiang.runner.presence import known_machine
from dujiang.runner.worker import BatchWorker, RunEnd
from dujiang.settings import Settings


def work(max_jobs: int | None, name: str | None, home: Path | None, *, quick_exit: bool) -> int:
    """Work on whatever batches there are, until somebody stops it."""
    settings = settings_of(home, max_jobs=max_jobs, worker_name=name)
    wiring.accounts_of(settings)
    wiring.check_endpoint(settings)
    end = asyncio.run(_work(settings, quick=quick_exit))
    say(text(f"end_{end.value}"))
    return Exit.INTERRUPTED


async def _work(settings: Settings, *, quick: bool) -> RunEnd:
    clock = SystemClock(settings.time_scale)
    with wiring.open_log(settings) as log:
        async with (
            wiring.open_engine(settings, clock) as engine,
            wiring.open_worker(settings, engine, clock, log=log) as worker,
        ):
            say(text("worker_works", name=worker.name))
            reporting = asyncio.create_task(_report(worker, engine))
            try:
                with signals(worker, quick=quick):
                    return await worker.run(None)
            finally:
                reporting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reporting


async def _report(worker: BatchWorker, engine: SqlEngine) -> None:
    """Write the reports of each batch that is over."""
    while True:
        batch: Batch = await worker.over.get()
        unwritten = await engine.reading(partial(written_reports, batch=batch))
        say(text("worker_batch_over", batch=batch.name) if unwritten is None else str(unwritten))


def list_all(home: Path | None, *, as_json: bool) -> int:
    """Who works, since when, on what, with which version."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        found = holdings(connection, clock_of(connection))
    if as_json:
        for worker in found:
            print_json(worker.told)
        return Exit.OK
    if not found:
        say(text("no_workers"))
        return Exit.OK
    names = ("worker", "machine", "pid", "version", "since", "silent", "jobs", "tasks")
    print_table([text(f"column_{name}") for name in names], [_row(worker) for worker in found], wide=[0, 1])
    return Exit.OK


def check(name: str | None, home: Path | None) -> int:
    """Whether a worker of this name, or else one of this home folder, was heard of within its lease."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        found = holdings(connection, clock_of(connection))
    machine = known_machine(settings.home_folder / "workers")
    mine = [worker for worker in found if (worker.machine == machine if name is None else worker.name == name)]
    if not mine:
        raise Refused("worker_unknown", Exit.UNEXPECTED)
    heard = min(mine, key=lambda worker: worker.silent_s)
    if heard.silent_s > settings.lease * settings.time_scale:
        raise Refused("worker_silent", Exit.UNEXPECTED, name=heard.name, silent=f"{heard.silent_s:.0f}")
    return Exit.OK


def _row(worker: Holding) -> list[object]:
    return [
        worker.name,
        worker.machine,
        worker.pid,
        worker.version,
        moment(worker.started_at),
        f"{worker.silent_s:.0f} s",
        worker.jobs,
        worker.tasks,
    ]
