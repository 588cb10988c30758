"""A million rows, on SQLite and PostgreSQL: what it costs to import them, to claim one, to list a page, to count.

Everything that is compared alternates within one run; the databases lie on the same disk, PostgreSQL is as durable as
it is out of the box. The import is a process of its own, whose memory is watched.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import pytest
import sqlalchemy as sa
from tests.postgres import OwnServer, own_server

from dujiang.domain.lifecycle import State
from dujiang.domain.task import Outcome
from dujiang.engines.sql.batches import counts
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.queries import TaskFilter, list_tasks, reading
from dujiang.engines.sql.schema import attempts, lanes, tasks
from importing import BATCH, Import
from report import Aim, conclude, parser, print_table
from scale import FEW_ROWS, SAYINGS, Figures, claims
from vendor import environment, output_of

ROWS: Final = 1_000_000
DATABASES: Final = ("SQLite", "PostgreSQL")
COLD: Final = 10  # pages before the first that counts
BARE: Final = "SELECT * FROM tasks WHERE batch_id = {0} AND newest = {1} AND id > {0} ORDER BY id LIMIT {0}"
MEGABYTE: Final = 1_000_000


def main() -> int:
    """Measure; 1 if an aim was missed."""
    options = _options()
    table: list[tuple[object, ...]] = []
    aims: list[Aim] = []
    figures: dict[str, object] = {"rows": options.rows}
    with tempfile.TemporaryDirectory(prefix="dujiang-million-") as place:
        many, few = Path(place) / "many.jsonl", Path(place) / "few.jsonl"
        _write(many, options.rows)
        _write(few, FEW_ROWS)
        for name in options.on:
            with _places(name, Path(place)) as (few_url, many_url):
                _import(few_url, few)
                imported = _import(many_url, many)
                seconds = Figures()
                asyncio.run(claims(seconds, few_url, many_url, options.claims))
                _count(seconds, few_url, many_url, options.pages)
                _finish_some(many_url)
                _list(seconds, many_url, options.rows, options.pages)
            table += _rows(name, imported, seconds)
            aims += _aims(name, imported, seconds)
            figures[name] = {"import": asdict(imported), "seconds": seconds.seconds}
    print(f"{options.rows} rows; medians")
    print_table(["what", "ms", "ratio"], table)
    return conclude(aims, figures, options.json)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--claims", type=int, default=500)
    options.add_argument("--pages", type=int, default=300)
    options.add_argument("--on", nargs="+", choices=DATABASES, default=DATABASES)
    return options.parse_args()


def _write(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            prompt = f"{SAYINGS[number % len(SAYINGS)]}，第 {number} 张"
            row = {"id": f"SKU-{number:07d}", "prompt": prompt, "width": 2048, "height": 1536}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextmanager
def _places(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Two new databases, for few rows and for many."""
    if name == "SQLite":
        home = folder / "sqlite"
        yield f"sqlite:///{home / 'few' / 'dujiang.db'}", f"sqlite:///{home / 'many' / 'dujiang.db'}"
        shutil.rmtree(home)
        return
    try:
        server: OwnServer = own_server(durable=True)
    except pytest.skip.Exception as lacking:
        raise SystemExit(str(lacking)) from None
    with closing(server):
        yield server.fresh_database(), server.fresh_database()


def _import(url: str, path: Path) -> Import:
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("importing.py"), url, path]
    return Import.of(output_of(command, path.parent, environment(path.parent, "http://127.0.0.1:1")))


# -- looking ----------------------------------------------------------------------------------------------------------


def _count(figures: Figures, few: str, many: str, times: int) -> None:
    """How many tasks of a batch are in each state, in turns from either database."""
    sides = [("count_few", connect(few)), ("count_many", connect(many))]
    for number in range(COLD + times):
        sides.reverse()
        for name, database in sides:
            with reading(database) as connection:
                connection.execute(sa.select(1))
                _measured(figures, name, number, lambda: counts(connection, BATCH))
    for _, database in sides:
        database.dispose()


def _finish_some(url: str) -> None:
    """Two of five rows are done, so that a list of the others has to leave some out; a list of all tells of their jobs.

    The claims have left a lane and some attempts.
    """
    database = connect(url)
    with database.begin() as connection:
        done = tasks.c.position % 5 < 2
        first = {
            attempts.c.task_id: tasks.c.id,
            attempts.c.number: sa.literal(1),
            attempts.c.lane_id: sa.select(sa.func.min(lanes.c.id)).scalar_subquery(),
            attempts.c.key_fingerprint: sa.literal("f"),
            attempts.c.worker: sa.literal("benchmark"),
            attempts.c.looking: sa.false(),
            **dict.fromkeys((attempts.c.sent_at, attempts.c.slot_until, attempts.c.slot_for_s), sa.literal(1.0)),
            attempts.c.outcome: sa.literal(Outcome.DONE.value),
            attempts.c.images: sa.literal(1),
            attempts.c.job_id: sa.literal("job"),
        }
        unsent = sa.select(*first.values()).where(done, tasks.c.attempt == 0)
        connection.execute(sa.insert(attempts).from_select(list(first), unsent))
        connection.execute(sa.update(tasks).where(done, tasks.c.attempt == 0).values(attempt=1))
        connection.execute(sa.update(tasks).where(done).values(state=State.SUCCEEDED.value))
    if database.dialect.name == "postgresql":
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE tasks, attempts")  # as it would by itself after a while
    database.dispose()


def _list(figures: Figures, url: str, rows: int, times: int) -> None:
    """Pages of `dujiang tasks list`, each beside the rows themselves by key."""
    database = connect(url)
    wanted = {
        "first": TaskFilter(BATCH),
        "middle": TaskFilter(BATCH, after_id=rows // 2),
        "ready": TaskFilter(BATCH, [State.READY]),
        "ready, middle": TaskFilter(BATCH, [State.READY], after_id=rows // 2),
    }
    bare = BARE.format(*(("?", "1") if database.dialect.name == "sqlite" else ("%s", "true")))
    with reading(database) as connection:
        for number in range(COLD + times):
            for name, page in wanted.items():
                key = (BATCH, page.after_id, page.limit)
                _measured(figures, f"list {name}", number, lambda: list_tasks(connection, page))  # noqa: B023
                _measured(figures, f"bare {name}", number, lambda: connection.exec_driver_sql(bare, key).all())  # noqa: B023
    database.dispose()


def _measured(figures: Figures, name: str, number: int, work: Callable[[], Any]) -> None:
    if number < COLD:
        work()
    else:
        figures.measure(name, work)


# -- telling ----------------------------------------------------------------------------------------------------------

LISTS: Final = ("first", "middle", "ready", "ready, middle")


def _import_ratio(imported: Import) -> float:
    return (imported.reading.seconds + imported.storing.seconds) / mean(imported.hashing_s)


def _rows(name: str, imported: Import, figures: Figures) -> Sequence[tuple[object, ...]]:
    hashing_s = mean(imported.hashing_s)
    phases = {"read and hash them": hashing_s, "read and check them": imported.reading.seconds}
    phases["store them"] = imported.storing.seconds
    memory = max(imported.reading.later_bytes, imported.storing.later_bytes) / MEGABYTE
    pairs = [
        ("claim_many", "claim_few"),
        ("count_many", "count_few"),
        *((f"list {one}", f"bare {one}") for one in LISTS),
    ]
    return [
        *((f"{name}: {what}", seconds * 1000, seconds / hashing_s) for what, seconds in phases.items()),
        (f"{name}: most memory, MB", memory, ""),
        *((f"{name}: {one}", figures.median(one) * 1000, figures.ratio(one, other)) for one, other in pairs),
    ]


def _aims(name: str, imported: Import, figures: Figures) -> list[Aim]:
    pages = max(figures.ratio(f"list {one}", f"bare {one}") for one in LISTS)
    phases = (imported.reading, imported.storing)
    growth = max(phase.later_bytes / phase.early_bytes for phase in phases)
    return [
        Aim(f"{name}: claim p50, many queued ÷ few", _medians(figures, "claim_many", "claim_few"), 1.5),
        Aim(f"{name}: a page ÷ its rows by key (dearest)", pages, 3),
        Aim(f"{name}: counts, many queued ÷ few", _medians(figures, "count_many", "count_few"), 1.5),
        Aim(f"{name}: import ÷ reading and hashing", _import_ratio(imported), 10),
        Aim(f"{name}: memory, highest after ÷ in the first tenth of reading and of storing", growth, 1.1),
    ]


def _medians(figures: Figures, one: str, other: str) -> float:
    return median(figures.seconds[one]) / median(figures.seconds[other])


if __name__ == "__main__":
    raise SystemExit(main())
