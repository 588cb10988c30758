"""One measurement of `engine.py`: an engine in processes of its own, from the word "go" to the last end.

A process first fills a new database. Then the workers start, each in a process of its own, connect, do a few tasks to
get warm, and wait; when all are ready they are let go together. Each measures its own CPU (`getrusage`), the server's
is read from outside. At the end another process counts what is in the database.

Run as a program it is one of those processes.
"""

import asyncio
import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import psutil

from report import Cost

IN_FLIGHT: Final = 50  # of all workers together
STEPS: Final = 3
WARM: Final = 10  # tasks that each worker does before it is measured
LONGEST_S: Final = 900  # a process that runs for so long hangs


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine works, and on how much."""

    url: str
    tasks: int
    workers: int = 1
    worker: int = 0
    """This process's number among the workers."""

    @property
    def share(self) -> int:
        """Tasks that this worker has in flight at once."""
        return IN_FLIGHT // self.workers + (self.worker < IN_FLIGHT % self.workers)


Run = Callable[[], Awaitable[int]]
"""Work until nothing is left; how many tasks this worker did."""


class Contender(Protocol):
    """What a module `engine_*.py` brings."""

    async def fill(self, place: Place) -> None:
        """Make the tables and enqueue the tasks."""

    def ready(self, place: Place) -> AbstractAsyncContextManager[Run]:
        """A worker that is connected and warm."""

    async def finished(self, place: Place) -> int:
        """How many tasks are done, all their steps recorded."""


@dataclass(frozen=True, slots=True)
class LifecycleCost(Cost):
    """What they took where they live, too."""

    server_cpu_s: float = 0.0
    """Of PostgreSQL, which has processes of its own."""

    @property
    def server_ms(self) -> float:
        """Milliseconds of the server's CPU for a task."""
        return self.server_cpu_s / self.tasks * 1000


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker did, by the clock that all processes share."""

    tasks: int
    begun_at: float
    ended_at: float
    cpu_s: float


def measured(module: str, place: Place, server: Path | None) -> LifecycleCost:
    """Fill, work, count. `server`: the data folder of the PostgreSQL at `place`."""
    _output_of(module, "fill", place)
    postgres = _server(server)
    workers = [_start(module, "work", replace(place, worker=number)) for number in range(place.workers)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", f"{module} did not get ready"
        before = _cpu_of(postgres)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        parts = [Part(**json.loads(_end_of(worker))) for worker in workers]
        server_cpu_s = _cpu_of(postgres) - before
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    done = sum(part.tasks for part in parts)
    counted = int(_output_of(module, "finished", place))
    assert done == counted == place.tasks, f"{module}: {done} done, {counted} found, of {place.tasks}"
    wall_s = max(part.ended_at for part in parts) - min(part.begun_at for part in parts)
    return LifecycleCost(place.tasks, wall_s, sum(part.cpu_s for part in parts), server_cpu_s)


def _start(module: str, what: str, place: Place) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, module, what, json.dumps(asdict(place))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _output_of(module: str, what: str, place: Place) -> str:
    return _end_of(_start(module, what, place))


def _end_of(process: subprocess.Popen[str]) -> str:
    try:
        said, _ = process.communicate(timeout=LONGEST_S)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, f"{process.args!r} failed"
    return said


def _server(folder: Path | None) -> psutil.Process | None:
    if folder is None:
        return None
    return psutil.Process(int((folder / "postmaster.pid").read_text("utf-8").partition("\n")[0]))


def _cpu_of(server: psutil.Process | None) -> float:
    """Of the server, of the sessions that it has now, and of those that have ended."""
    if server is None:
        return 0.0
    times = server.cpu_times()
    used = times.user + times.system + times.children_user + times.children_system
    for session in server.children():
        try:
            times = session.cpu_times()
        except psutil.NoSuchProcess:  # it has ended since; its father has its time from now on
            continue
        used += times.user + times.system
    return float(used)


# -- One process ------------------------------------------------------------------------------------------------------


async def _main(contender: Contender, what: str, place: Place) -> None:
    match what:
        case "fill":
            await contender.fill(place)
        case "finished":
            print(await contender.finished(place))
        case _:
            async with contender.ready(place) as run:
                print("ready", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
                cpu_s, begun_at = _own_cpu_s(), time.monotonic()
                tasks = await run()
                part = Part(tasks, begun_at, time.monotonic(), _own_cpu_s() - cpu_s)
            print(json.dumps(asdict(part)))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    chosen = importlib.import_module(sys.argv[1])
    with asyncio.Runner(loop_factory=getattr(chosen, "new_event_loop", None)) as runner:
        runner.run(_main(chosen, sys.argv[2], Place(**json.loads(sys.argv[3]))))
