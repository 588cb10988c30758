"""An engine with a batch, a lane and a worker: what the contract suites act on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dujiang.domain.accounts import Lane
from dujiang.domain.lifecycle import Event
from dujiang.domain.limits import FixedLimit
from dujiang.domain.rests import RestOrder
from dujiang.domain.task import Task
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.schema import METADATA, attempts, events, last_commits, tasks
from dujiang.ports import Added, Offer, Turn
from tests.builders import ENDPOINT, StillClock, a_batch, a_row, a_worker, an_account

URLS = ("https://example.com/1.png",)


@dataclass(frozen=True)
class Store:
    """A place where several engines may be opened."""

    url: str
    connect: Callable[[str], sa.Engine]


def a_sqlite_store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'dujiang.db'}", lambda url: connect(url, synchronous="OFF"))


class Bench:
    """An engine with a batch, a lane and a worker, and eyes for what is stored."""

    def __init__(self, store: Store, clock: StillClock) -> None:
        self.store = store
        self.clock = clock
        self.worker = a_worker()
        self._opened: list[SqlEngine] = []
        self.engine = self.open_engine()

    def open_engine(self) -> SqlEngine:
        """Another program on the same store."""
        engine = SqlEngine(self.store.connect(self.store.url), self.clock, own_clock=True)
        self._opened.append(engine)
        return engine

    async def begin(self) -> None:
        await self.engine.register(self.worker)
        await self.engine.open_batch(a_batch())
        self.lane = await self.engine.lane(ENDPOINT, an_account(), "k")

    async def close(self) -> None:
        for engine in self._opened:
            await engine.aclose()

    # acting

    async def rows(self, *numbers: int, **more: Any) -> Added:
        return await self.engine.enqueue("b", [a_row(number, **more) for number in numbers])

    async def claim(self, limit: int = 100, *, lane: Lane | None = None, at_most: int = 100) -> list[Task]:
        return (await self.turn(limit, lane=lane, at_most=at_most)).tasks

    async def turn(self, limit: int = 100, *, lane: Lane | None = None, at_most: int = 100) -> Turn:
        return await self.engine.claim(self.worker, [an_offer(lane or self.lane, limit, at_most)], "b")

    async def claimed(self, **more: Any) -> Task:
        """One new task, being submitted."""
        number = len(self.read(sa.select(tasks.c.id)))
        await self.rows(number, **more)
        (task,) = await self.claim(at_most=1)
        return task

    async def record(self, task: Task, *happened: Event, rest: RestOrder | None = None) -> Task:
        for event in happened:
            task = await self.engine.record(task, event, rest, self.worker)
        return task

    async def task(self, task_id: int) -> Task:
        task = await self.engine.task(task_id)
        assert task is not None
        return task

    # looking

    def read(self, query: sa.Select[Any]) -> list[Any]:
        with self.engine.database.connect().execution_options(reading=True) as connection:
            return [row._mapping for row in connection.execute(query)]

    def everything(self) -> dict[str, list[Any]]:
        """All that is stored, to see that nothing has changed; not that something was committed."""
        return {
            table.name: [dict(row) for row in self.read(sa.select(table).order_by(*table.primary_key.columns))]
            for table in METADATA.sorted_tables
            if table is not last_commits
        }

    def attempt(self, task: Task, number: int = 1) -> Any:
        (row,) = self.read(sa.select(attempts).where(attempts.c.task_id == task.id, attempts.c.number == number))
        return row

    def history(self, task: Task) -> list[str]:
        found = self.read(sa.select(events.c.type).where(events.c.task_id == task.id).order_by(events.c.id))
        return [row["type"] for row in found]

    def states(self) -> dict[str, str]:
        """By row and revision: `row-1.2` is the second revision of row 1."""
        found = self.read(sa.select(tasks.c.row, tasks.c.revision, tasks.c.state))
        return {f"{row['row']}.{row['revision']}": row["state"] for row in found}

    async def in_use(self) -> int:
        return sum(use.in_use for use in await self.engine.lanes())


def an_offer(lane: Lane, limit: int = 100, at_most: int = 100) -> Offer:
    return Offer(lane, FixedLimit(limit), "f" * 24, at_most)


only_sqlite = pytest.mark.parametrize("bench", ["sqlite"], indirect=True)
"""For what only that database has: files, locks of the whole, its words for plans."""
