"""The counts of a batch are kept by the transactions that change its tasks: they always say what the rows say."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic import command

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import StaleTask, UnlawfulEvent
from dujiang.domain.lifecycle import FINAL, State
from dujiang.domain.task import Task
from dujiang.engines.migrations import configuration
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.schema import task_counts, tasks
from dujiang.ports import Ahead
from tests.builders import EVENTS, StillClock, a_batch, a_row, a_worker
from tests.contracts.bench import URLS, Bench, Store, a_sqlite_store, an_offer
from tests.postgres import MakeDatabase
from tests.unit.test_lifecycle import TABLE

BATCHES = ("b", "other")
WITH_PICTURE: dict[str, Any] = {"references": ("https://example.com/cat.png",)}
AHEAD = Ahead(tasks=32, at_once=9, req_keys=["k"], host="superbed")
MONTH_S = 30 * 86_400.0


def in_rows(bench: Bench) -> dict[tuple[str, str], int]:
    """What a plain look at the rows counts."""
    query = sa.select(tasks.c.batch_id, tasks.c.state, sa.func.count().label("count")).where(tasks.c.newest)
    found = bench.read(query.group_by(tasks.c.batch_id, tasks.c.state))
    return {(row["batch_id"], row["state"]): row["count"] for row in found}


def kept(bench: Bench) -> dict[tuple[str, str], int]:
    """What is kept."""
    count = sa.func.sum(task_counts.c.tasks).label("count")
    found = bench.read(sa.select(task_counts.c.batch_id, task_counts.c.state, count).group_by("batch_id", "state"))
    return {(row["batch_id"], row["state"]): row["count"] for row in found if row["count"]}


async def told(bench: Bench) -> dict[tuple[str, str], int]:
    """What the engine says."""
    counts = {batch: await bench.engine.counts(batch) for batch in BATCHES}
    return {(batch, state.value): count for batch, states in counts.items() for state, count in states.items()}


# -- One after the other ----------------------------------------------------------------------------------------------


class Killed(Exception):
    """The transaction ends here, and nothing of it is left."""


class RandomLife:
    """One random change after the other."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._bench = bench
        self._chance = random.Random(seed)
        self.changes: dict[str, Callable[[], Any]] = {
            "enqueue and revise": self._enqueue,
            "prepare": self._prepare,
            "claim": self._claim,
            "record": self._record,
            "retry": self._retry,
            "cancel": self._cancel,
            "cancel a batch": self._cancel_a_batch,
            "adopt": partial(bench.engine.adopt, bench.worker, bench.worker, lambda _: 9.0),
            "be killed": self._be_killed,
            "prune": self._prune,
        }

    async def go_on(self) -> str:
        """Change something; what it was."""
        names = list(self.changes)
        weights = [1 if name in {"prune", "cancel a batch", "adopt"} else 4 for name in names]
        (name,) = self._chance.choices(names, weights)
        await self.changes[name]()
        return name

    def _some(self, *conditions: sa.ColumnElement[bool]) -> list[int]:
        found = [row["id"] for row in self._bench.read(sa.select(tasks.c.id).where(*conditions).order_by(tasks.c.id))]
        return self._chance.sample(found, min(len(found), self._chance.randint(1, 5)))

    async def _enqueue(self) -> None:
        batch = self._chance.choice(BATCHES)
        more = self._chance.choice([{}, WITH_PICTURE])
        digest = str(self._chance.randint(1, 3))
        numbers = self._chance.sample(range(40), 10)
        await self._bench.engine.enqueue(batch, [a_row(number, digest=digest, **more) for number in numbers])

    async def _prepare(self) -> None:
        await self._bench.engine.claim_preparation(self._bench.worker, "b", AHEAD)

    async def _claim(self) -> None:
        batch = self._chance.choice(BATCHES)
        offer = an_offer(self._bench.lane, at_most=self._chance.randint(1, 6))
        await self._bench.engine.claim(self._bench.worker, [offer], batch)

    async def _record(self) -> None:
        for task_id in self._some(tasks.c.state.not_in([state.value for state in FINAL])):
            task = await self._bench.task(task_id)
            lawful = [event for before, _, events in TABLE if before == task.state.value for event in events]
            happened = self._chance.choice(lawful)
            event = next(event for event in EVENTS if type(event) is happened)
            if isinstance(event, life.Accepted | life.JobFound):
                event = type(event)(f"job {task_id} {task.version}")
            if not isinstance(event, life.Claimed):
                await self._bench.record(task, event)

    async def _retry(self) -> None:
        ended = self._some(tasks.c.state.in_([state.value for state in FINAL]))
        await self._bench.engine.retry(ended, again=True)

    async def _cancel(self) -> None:
        await self._bench.engine.cancel(task_ids=self._some())

    async def _cancel_a_batch(self) -> None:
        await self._bench.engine.cancel(batch_id="other")

    async def _be_killed(self) -> None:
        some = sa.update(tasks).where(tasks.c.id.in_(self._some()))

        def change(connection: sa.Connection) -> None:
            with connection.begin():
                connection.execute(some.values(state="lost", newest=False))
                raise Killed

        with self._bench.engine.database.connect() as connection, pytest.raises(Killed):
            change(connection)

    async def _prune(self) -> None:
        engine, clock = self._bench.engine, self._bench.clock
        old = f"old {clock.time}"
        await engine.open_batch(a_batch(old))
        await engine.enqueue(old, [a_row(number) for number in range(5)])
        await engine.cancel(batch_id=old)
        clock.time += MONTH_S + 1
        assert await engine.prune(old, MONTH_S, str) == 5


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_counts_are_those_of_the_rows(bench: Bench, seed: int) -> None:
    await bench.engine.open_batch(a_batch("other"))
    random_life = RandomLife(bench, seed)
    happened = []
    for _ in range(120):
        happened.append(await random_life.go_on())

        assert kept(bench) == in_rows(bench) == await told(bench), happened[-1]

    assert set(happened) == set(random_life.changes)


@pytest.mark.parametrize(
    "change",
    [
        {"newest": False},
        {"newest": False, "state": "failed"},
        {"batch_id": "other"},
        {"batch_id": "other", "state": "failed", "priority": 3},
        {"state": "ready", "newest": True, "batch_id": "b"},
    ],
)
async def test_whoever_mends_a_database_by_hand_need_not_think_of_the_counts(
    bench: Bench, change: dict[str, Any]
) -> None:
    await bench.engine.open_batch(a_batch("other"))
    await bench.rows(*range(5))
    three = sa.update(tasks).where(tasks.c.position < 3)
    with bench.engine.database.begin() as connection:
        connection.execute(three.values(change))
    assert kept(bench) == in_rows(bench)

    with bench.engine.database.begin() as connection:
        connection.execute(three.values(batch_id="b", newest=True, state="lost"))
        connection.execute(sa.delete(tasks).where(tasks.c.position == 4))
    assert kept(bench) == in_rows(bench) == {("b", "ready"): 1, ("b", "lost"): 3}


# -- At the same time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_programs_that_write_at_the_same_time_count_right(bench: Bench) -> None:
    await bench.rows(*range(400))
    workers = [a_worker(f"w{number}") for number in range(4)]
    engines = [bench.engine, *(bench.open_engine() for _ in workers[1:])]
    for engine, worker in zip(engines[1:], workers[1:], strict=True):
        await engine.register(worker)

    async def carry(engine: SqlEngine, number: int, task: Task) -> None:
        chance = random.Random(task.id)
        end = chance.choice([life.Blocked("x"), life.Failed("x"), life.Rendered(URLS), life.Vanished("x")])
        for event in (life.Accepted(f"job {task.id}"), end):
            task = await engine.record(task, event, None, workers[number])
        if chance.random() < 0.3 and task.state in FINAL:
            await engine.retry([task.id])

    async def work(number: int) -> None:
        engine, offer = engines[number], an_offer(bench.lane, 1000, at_most=7)
        for turn_number in range(12):
            turn = await engine.claim(workers[number], [offer], "b")
            carried = [carry(engine, number, task) for task in turn.tasks]
            again = engine.enqueue("b", [a_row(400 + number * 100 + turn_number)])
            await asyncio.gather(*carried, again, _ignoring_others(engine.cancel(task_ids=[turn_number * 30 + number])))

    await asyncio.gather(*(work(number) for number in range(4)))

    assert kept(bench) == in_rows(bench)
    stripes = {row["stripe"] for row in bench.read(sa.select(task_counts.c.stripe))}
    assert len(stripes) > 1, "they did not write at the same time"


async def _ignoring_others(doing: Any) -> None:
    try:
        await doing
    except (StaleTask, UnlawfulEvent):
        return


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_whoever_has_not_committed_keeps_nobody_waiting(bench: Bench) -> None:
    """Twenty at once, more than there are stripes at first; each changes a task from and to the same two states."""
    await bench.rows(*range(20))
    ids = [row["id"] for row in bench.read(sa.select(tasks.c.id).order_by(tasks.c.id))]
    database = sa.create_engine(bench.engine.database.url, poolclass=sa.NullPool)
    orders = [State.FAILED, State.LOST]

    def change_all() -> None:
        with ExitStack() as stack:
            for number, task_id in enumerate(ids):
                connection = stack.enter_context(database.connect())
                stack.callback(connection.commit)
                connection.exec_driver_sql("SET LOCAL lock_timeout = 1")
                for state in orders if number % 2 else reversed(orders):
                    connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(state=state.value))

    await asyncio.to_thread(change_all)

    assert kept(bench) == in_rows(bench) == {("b", "failed"): 10, ("b", "lost"): 10}


# -- Upgrades ---------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """On a database that no other test uses: its tables are changed."""
    store = a_sqlite_store(tmp_path)
    if request.param == "postgres":
        make: MakeDatabase = request.getfixturevalue("fresh_database")
        store = Store(make(), connect)
    bench = Bench(store, StillClock())
    await bench.begin()
    yield bench
    await bench.close()


async def test_an_upgrade_counts_what_is_there(own: Bench) -> None:
    await own.rows(*range(9))
    await own.record((await own.claim(at_most=2))[0], life.Failed("x"))
    await own.rows(5, digest="2")
    with own.engine.database.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.downgrade(config, "0009")

    upgraded = own.open_engine()

    assert await upgraded.counts("b") == {State.READY: 7, State.SUBMITTING: 1, State.FAILED: 1}
    assert kept(own) == in_rows(own)
