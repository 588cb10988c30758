"""What durability costs: the program beside a bare loop of the same HTTP calls, with a vendor that answers at once.

Every figure comes from a process of its own (`--as ours` and `--as bare`), measured by itself from its first submit to
its last picture: starting Python and filling the queue are not part of it. The vendor is a process of its own, too,
and a fresh one each time.

Ours knows from the start that this lane's jobs end within milliseconds and may ask 1,000 times a second, at a time
scale of 0.1; otherwise we would measure how long it waits before it looks.
"""

import argparse
import asyncio
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from report import Aim, Cost, conclude, parser, print_table
from vendor import BareClient, environment, ledger, output_of, vendor

IN_FLIGHT: Final = 50
SMALL, LARGE = 64 * 1024, 20 * 1024 * 1024
MEGABYTE: Final = 1024 * 1024
TIME_SCALE: Final = 0.1
QUERIES_A_SECOND: Final = 1000  # the setting's largest; times 10 at this time scale
KNOWN_RUN_S: Final = 0.001  # of the 200 jobs that the lane is said to have seen


@dataclass(frozen=True, slots=True)
class ProcessCost(Cost):
    """What one process needed for them."""

    peak_rss: int
    polls: int = 0


def main() -> int:
    """Compare; 1 if an aim was missed."""
    options = _options()
    if options.role is not None:
        work = {"ours": _ours, "bare": _bare}[options.role]
        print(json.dumps(asdict(asyncio.run(work(options.url, options.tasks, options.folder)))))
        return 0
    rounds = [_round(options.tasks) for _ in range(options.rounds)]
    print(f"{options.tasks} tasks, {IN_FLIGHT} in flight, a vendor that answers at once")
    rates = [ours.rate / bare.rate for ours, bare in rounds]
    cpus = [ours.cpu_ms / bare.cpu_ms for ours, bare in rounds]
    rows = [
        (number, ours.rate, bare.rate, rate, ours.cpu_ms, bare.cpu_ms, cpu, ours.polls / ours.tasks)
        for number, ((ours, bare), rate, cpu) in enumerate(zip(rounds, rates, cpus, strict=True), start=1)
    ]
    head = ["round", "ours/s", "bare/s", "ours÷bare", "ours CPU ms", "bare CPU ms", "ours÷bare", "polls/task"]
    print_table(head, rows)
    small, large = _memory(options.pictures)
    grown = (large.peak_rss - small.peak_rss) / MEGABYTE
    print(f"{options.pictures} pictures, {IN_FLIGHT} jobs in flight")
    peaks = [("64 KB", small.peak_rss / MEGABYTE), ("20 MB", large.peak_rss / MEGABYTE)]
    print_table(["size", "peak RSS, MB"], peaks)
    aims = [
        Aim("tasks a second, ours ÷ bare (median)", median(rates), 0.4, at_least=True),
        Aim("CPU a task, ours ÷ bare (median)", median(cpus), 2.5),
        Aim("growth of peak RSS from 64 KB to 20 MB pictures, MB", grown, 40),
    ]
    told = [{"ours": asdict(ours), "bare": asdict(bare)} for ours, bare in rounds]
    return conclude(aims, {"rounds": told, "memory": {"small": asdict(small), "large": asdict(large)}}, options.json)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--tasks", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--pictures", type=int, default=100, help="for the memory")
    options.add_argument("--as", dest="role", choices=("ours", "bare"), help=argparse.SUPPRESS)
    options.add_argument("--url", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return options.parse_args()


def _round(tasks: int) -> tuple[ProcessCost, ProcessCost]:
    return _process("ours", tasks, 0), _process("bare", tasks, 0)


def _memory(pictures: int) -> tuple[ProcessCost, ProcessCost]:
    return _process("ours", pictures, SMALL), _process("ours", pictures, LARGE)


def _process(role: str, tasks: int, picture_bytes: int) -> ProcessCost:
    folder = Path(tempfile.mkdtemp(prefix="dujiang-overhead-"))
    try:
        with vendor(instant=True, picture_bytes=picture_bytes) as url:
            command = [sys.executable, __file__, "--as", role, "--url", url, "--tasks", str(tasks)]
            settings = {
                "concurrency": f"fixed:{IN_FLIGHT}",
                "time_scale": TIME_SCALE,
                "queries_a_second": QUERIES_A_SECOND,
            }
            variables = environment(folder / "home", url, **settings)
            said = output_of([*command, "--folder", str(folder)], folder, variables)
            seen = ledger(url)
        cost: dict[str, Any] = json.loads(said)
        assert seen["charged"] == seen["downloads"] == tasks, "every task has its picture, and was paid for once"
        return ProcessCost(**{**cost, "polls": seen["polls"]})
    finally:
        shutil.rmtree(folder)


async def _measured(work: Callable[[], Awaitable[object]], tasks: int) -> ProcessCost:
    cpu, begun = _cpu_s(), time.perf_counter()
    await work()
    wall_s, cpu_s = time.perf_counter() - begun, _cpu_s() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    return ProcessCost(tasks, wall_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _ours(url: str, tasks: int, folder: Path) -> ProcessCost:
    """The real program: its worker, its database with `synchronous=FULL`, its checks of every picture."""
    from dujiang import wiring
    from dujiang.domain.batch import Batch, OnDoubt
    from dujiang.engines.sql.database import connect
    from dujiang.engines.sql.engine import SqlEngine
    from dujiang.ports import NewTask
    from dujiang.providers.jimeng.models import model_named
    from dujiang.runner.clock import SystemClock
    from dujiang.settings import load
    from dujiang.storage.folders import open_batch_folder

    class FastLane(SqlEngine):
        """An engine whose lanes have seen nothing but jobs that end within milliseconds."""

        async def run_times(self, lane_id: int) -> list[float]:
            return [KNOWN_RUN_S] * 200

    settings = load()
    assert settings.jimeng_endpoint == url, "the environment says where the vendor is"
    clock = SystemClock(settings.time_scale)
    engine = FastLane(connect(settings.database), clock)
    batch = await engine.open_batch(Batch("benchmark", "batch", str(folder / "out"), "-", OnDoubt.parse("hold")))
    open_batch_folder(Path(batch.out), batch.name, batch.id)
    spec = model_named("4.0")
    assert spec is not None
    rows = []
    for number in range(tasks):
        request, _ = spec.checked(f"都江堰 {number}", {})
        assert request is not None
        rows.append(NewTask(str(number), str(number), number, f"{number:05d}", spec.req_key, request))
    await engine.enqueue(batch.id, rows)
    try:
        with wiring.open_log(settings) as log:
            async with wiring.open_worker(settings, engine, clock, log=log) as worker:
                return await _measured(lambda: worker.run(batch), tasks)
    finally:
        await engine.aclose()


async def _bare(url: str, tasks: int, folder: Path) -> ProcessCost:
    """Submit over a fresh connection, look once, download into a file. Nothing is written down."""
    client = BareClient(url)
    numbers = iter(range(tasks))

    async def one_after_another() -> None:
        for number in numbers:
            job_id = await client.submit(f"都江堰 {number}")
            picture = await client.look(job_id)
            assert picture is not None
            await client.download(picture, folder / f"{number:05d}.png")

    async def work() -> None:
        await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))

    try:
        return await _measured(work, tasks)
    finally:
        await client.aclose()


if __name__ == "__main__":
    raise SystemExit(main())
