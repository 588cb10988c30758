"""100,000 rows: what they cost to check, to store, to claim from and to list, as ratios to work that anybody must do.

A million of them, on SQLite and PostgreSQL: `million.py`.

Everything that is compared alternates within one run, in the same folder of the same disk.
"""

import argparse
import asyncio
import csv
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from dujiang.cli.rows import Source, read_rows
from dujiang.domain.accounts import Account
from dujiang.domain.batch import Batch, OnDoubt
from dujiang.domain.lifecycle import Postponed
from dujiang.domain.limits import FixedLimit
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.ports import Offer, Worker
from dujiang.providers.jimeng.models import MODELS
from dujiang.runner.clock import SystemClock
from report import Aim, conclude, parser, print_table
from vendor import environment, output_of

ROWS: Final = 100_000
FEW_ROWS: Final = 1_000
COLD: Final = 20  # claims before the first that counts
ENDPOINT: Final = "http://127.0.0.1:1"  # nobody is asked anything here
WORKER: Final = Worker("benchmark", "here", os.getpid(), 0.0)
SAYINGS: Final = (
    "宝瓶口的清晨，薄雾里的江水",
    "鱼嘴分水，两岸是青瓦白墙",
    "飞沙堰的秋天，水面落满银杏",
    "岷江雪山下的索桥，水墨",
)


def main() -> int:
    """Measure; 1 if an aim was missed."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="dujiang-scale-") as place:
        folder = Path(place)
        figures = Figures()
        sheet, home = folder / "rows.csv", folder / "home"
        _write_sheet(sheet, options.rows)
        few = folder / "few.csv"
        _write_sheet(few, min(FEW_ROWS, options.rows))
        for number in range(options.rounds):
            _intake(figures, folder, sheet, home if number == 0 else folder / f"again-{number}")
        asyncio.run(_fill(folder / "few", few))
        asyncio.run(claims(figures, _url(folder / "few"), _url(home), options.claims))
        _starts(figures, folder, home, options.starts)
        return _told(figures, options)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--rounds", type=int, default=3, help="of reading, planning and enqueueing")
    options.add_argument("--claims", type=int, default=1000)
    options.add_argument("--starts", type=int, default=11, help="of each command")
    return options.parse_args()


@dataclass(slots=True)
class Figures:
    """Seconds by what was done."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, name: str, work: Callable[[], object]) -> None:
        """Do it and remember how long it took."""
        begun = time.perf_counter()
        work()
        self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """It took so long."""
        self.seconds.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float:
        """The usual time."""
        return median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Median of the ratios of what was measured side by side."""
        return median(one / other for one, other in zip(self.seconds[name], self.seconds[to], strict=True))


def _told(figures: Figures, options: argparse.Namespace) -> int:
    print(f"{options.rows} rows; medians")
    rows = [
        ("check them (dujiang plan)", "plan", "hash"),
        ("store them (enqueue)", "enqueue", "hash"),
        ("read and hash them", "hash", "hash"),
        (f"claim one of {options.rows}", "claim_many", "claim_few"),
        (f"claim one of {FEW_ROWS}", "claim_few", "claim_few"),
        ("dujiang tasks list", "tasks list", "version"),
        ("dujiang version", "version", "version"),
        ("dujiang --help", "help", "imports"),
        ("import typer, rich", "imports", "imports"),
    ]
    table = []
    for label, name, other in rows:
        table.append((label, figures.median(name) * 1000, figures.ratio(name, other)))
    print_table(["what", "ms", "ratio"], table)
    aims = [
        Aim("plan ÷ reading and hashing", figures.ratio("plan", "hash"), 10),
        Aim("enqueue ÷ reading and hashing", figures.ratio("enqueue", "hash"), 10),
        Aim("claim p50, many queued ÷ few", figures.median("claim_many") / figures.median("claim_few"), 1.5),
        Aim("tasks list ÷ version", figures.ratio("tasks list", "version"), 1.2),
        Aim("--help ÷ import typer, rich", figures.ratio("help", "imports"), 1.5),
    ]
    return conclude(aims, {"rows": options.rows, "seconds": figures.seconds}, options.json)


# -- checking and storing ---------------------------------------------------------------------------------------------


def _write_sheet(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "width", "height"])
        for number in range(rows):
            writer.writerow([f"SKU-{number:06d}", f"{SAYINGS[number % len(SAYINGS)]}，第 {number} 张", 2048, 1536])


def _hash(path: Path) -> None:
    """What anybody must do who wants to know which rows are new."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            hashlib.sha256(json.dumps(sorted(row.items())).encode()).hexdigest()


def _intake(figures: Figures, folder: Path, sheet: Path, home: Path) -> None:
    figures.measure("hash", lambda: _hash(sheet))
    figures.measure("plan", lambda: _dujiang(folder, home, "plan", str(sheet)))
    figures.add("enqueue", asyncio.run(_fill(home, sheet)))


async def _fill(home: Path, sheet: Path) -> float:
    """Enqueue the rows as `dujiang run` does; how long it took."""
    async with engine_at(_url(home)) as engine:
        batch = await engine.open_batch(Batch("benchmark", "batch", str(home), "-", OnDoubt.parse("hold")))
        with read_rows(Source(str(sheet), "4.0")) as rows:
            begun = time.perf_counter()
            for chunk in rows.chunks():
                await engine.enqueue(batch.id, chunk)
            return time.perf_counter() - begun


def _url(home: Path) -> str:
    return f"sqlite:///{home / 'dujiang.db'}"


@asynccontextmanager
async def engine_at(url: str) -> AsyncIterator[SqlEngine]:
    """The engine on this database."""
    engine = SqlEngine(connect(url), SystemClock())
    try:
        yield engine
    finally:
        await engine.aclose()


# -- claiming ---------------------------------------------------------------------------------------------------------


async def claims(figures: Figures, few: str, many: str, times: int) -> None:
    """One task at a time, put back at once, in turns from either database: `claim_few` and `claim_many`."""
    async with engine_at(few) as small, engine_at(many) as large:
        sides = [("claim_few", small, await _offers(small)), ("claim_many", large, await _offers(large))]
        for number in range(COLD + times):
            sides.reverse()  # neither is always the one that follows the other's commit
            for name, engine, offers in sides:
                begun = time.perf_counter()
                turn = await engine.claim(WORKER, offers, "benchmark")
                took = time.perf_counter() - begun
                if number >= COLD:
                    figures.add(name, took)
                (task,) = turn.tasks
                await engine.record(task, Postponed("benchmark"))


async def _offers(engine: SqlEngine) -> Sequence[Offer]:
    """Every lane of an account, as a worker offers them."""
    account, limit = Account("benchmark", ()), FixedLimit(1)
    lanes = [await engine.lane(ENDPOINT, account, model.req_key) for model in MODELS.values()]
    return [Offer(lane, limit, "benchmark", at_most=1) for lane in lanes]


# -- starting ---------------------------------------------------------------------------------------------------------


def _starts(figures: Figures, folder: Path, home: Path, times: int) -> None:
    """Commands from the first to the last moment of their process, in turns."""
    program = Path(sys.executable).with_name("dujiang")
    commands: Mapping[str, Sequence[str | Path]] = {
        "tasks list": [program, "tasks", "list"],
        "version": [program, "version"],
        "help": [program, "--help"],
        "imports": [sys.executable, "-c", "import typer, rich"],
    }
    variables = environment(home, ENDPOINT)
    for number in range(times + 1):
        for name, command in commands.items():
            seconds = _run(command, folder, variables)
            if number:  # the first time Python compiles, and the system reads from the disk
                figures.add(name, seconds)


def _run(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    output_of(command, folder, variables)
    return time.perf_counter() - begun


def _dujiang(folder: Path, home: Path, *arguments: str) -> None:
    program = Path(sys.executable).with_name("dujiang")
    _run([program, *arguments], folder, environment(home, ENDPOINT))


if __name__ == "__main__":
    raise SystemExit(main())
