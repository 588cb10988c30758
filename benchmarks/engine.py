"""What our own engine costs beside others: whole lifecycles (claim, three recorded steps, end), nothing else.

No vendor, no pictures: what is measured is what the database and the engine in front of it need. Every step is on disk
before the next one begins (SQLite `synchronous=FULL`; PostgreSQL with fsync and `synchronous_commit`), 50 tasks are in
flight, all workers together. Each engine has a new database on the same disk, those on PostgreSQL on the same server,
which is started for the run; all take turns in every round, each time in another order.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import pytest
from tests.postgres import OwnServer, own_server

from lifecycles import IN_FLIGHT, STEPS, LifecycleCost, Place, measured
from report import Aim, conclude, parser, print_table

SEED: Final = 7  # of the order in each round


@dataclass(frozen=True, slots=True)
class Side:
    """An engine on a database, with so many workers."""

    engine: str
    module: str
    database: str
    workers: int

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"{self.engine}, {self.database}, {self.workers}"


SIDES: Final = (
    Side("ours", "engine_ours", "SQLite", 1),
    Side("ours", "engine_ours", "PostgreSQL", 1),
    Side("ours", "engine_ours", "PostgreSQL", 4),
    Side("ours", "engine_ours", "PostgreSQL", 16),
    Side("PgQueuer", "engine_pgqueuer", "PostgreSQL", 1),
    Side("PgQueuer", "engine_pgqueuer", "PostgreSQL", 4),
    Side("Procrastinate", "engine_procrastinate", "PostgreSQL", 1),
    Side("Procrastinate", "engine_procrastinate", "PostgreSQL", 4),
    Side("DBOS", "engine_dbos", "SQLite", 1),
    Side("DBOS", "engine_dbos", "PostgreSQL", 1),
    Side("DBOS", "engine_dbos", "PostgreSQL", 4),
)
ENGINES: Final = tuple(dict.fromkeys(side.engine for side in SIDES))


def main() -> int:
    """Compare; 1 if an aim was missed."""
    options = _options()
    sides = [side for side in SIDES if side.engine in options.only and side.database in options.on]
    order = random.Random(SEED)
    costs: dict[str, list[LifecycleCost]] = {side.name: [] for side in sides}
    try:
        server = own_server(durable=True)
    except pytest.skip.Exception as lacking:
        raise SystemExit(str(lacking)) from None
    with closing(server):
        for number in range(options.rounds):
            for side in order.sample(sides, len(sides)):
                cost = _measure(side, options.tasks, server)
                costs[side.name].append(cost)
                print(f"round {number + 1}: {side.name}: {cost.rate:.0f}/s, {cost.cpu_ms:.2f} ms", file=sys.stderr)
    print(f"{options.tasks} tasks of {STEPS} steps, {IN_FLIGHT} in flight; medians of {options.rounds}")
    print_table(["engine, database, workers", "tasks/s", "from", "to", "CPU ms", "server ms"], _rows(costs))
    figures = {
        "tasks": options.tasks,
        "rounds": {name: [asdict(cost) for cost in all_] for name, all_ in costs.items()},
    }
    return conclude(_aims(sides, costs), figures, options.json)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--tasks", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", nargs="+", choices=ENGINES, default=ENGINES, help="these engines")
    options.add_argument("--on", nargs="+", choices=("SQLite", "PostgreSQL"), default=("SQLite", "PostgreSQL"))
    return options.parse_args()


def _measure(side: Side, tasks: int, server: OwnServer) -> LifecycleCost:
    if side.database == "PostgreSQL":
        url = server.fresh_database()
        try:
            return measured(side.module, Place(url, tasks, side.workers), server.folder / "data")
        finally:
            server.drop(url)
    folder = Path(tempfile.mkdtemp(prefix="dujiang-engine-", dir=server.folder.parent))  # the server's disk
    try:
        return measured(side.module, Place(f"sqlite:///{folder / 'engine.db'}", tasks, side.workers), None)
    finally:
        shutil.rmtree(folder)


def _rows(costs: Mapping[str, Sequence[LifecycleCost]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, all_ in costs.items():
        rates = [cost.rate for cost in all_]
        cpu_ms, server_ms = median(cost.cpu_ms for cost in all_), median(cost.server_ms for cost in all_)
        shown = [f"{rate:.0f}" for rate in (median(rates), min(rates), max(rates))]
        rows.append((name, *shown, f"{cpu_ms:.2f}", f"{server_ms:.2f}" if server_ms else "-"))
    return rows


def _aims(sides: Sequence[Side], costs: Mapping[str, Sequence[LifecycleCost]]) -> list[Aim]:
    """Ours ahead of each other engine on each database: each with the number of workers that suits it best."""
    best: dict[tuple[str, str], list[LifecycleCost]] = {}
    for side in sides:
        found, key = list(costs[side.name]), (side.engine, side.database)
        if key not in best or _rate(found) > _rate(best[key]):
            best[key] = found
    aims = []
    for (engine, database), theirs in best.items():
        ours = best.get(("ours", database))
        if engine != "ours" and ours is not None:
            ratio = median(one.rate / other.rate for one, other in zip(ours, theirs, strict=True))
            aims.append(Aim(f"tasks a second, ours ÷ {engine}, {database} (median)", ratio, 1, at_least=True))
    return aims


def _rate(costs: Sequence[LifecycleCost]) -> float:
    return median(cost.rate for cost in costs)


if __name__ == "__main__":
    raise SystemExit(main())
