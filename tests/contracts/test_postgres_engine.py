"""What only PostgreSQL can do to the engine: sessions that break, standstills inside of a transaction, restarts."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import sqlalchemy as sa

from dujiang.engines.sql import postgres as postgres_engine
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.postgres import Transactions
from dujiang.engines.sql.schema import switches
from tests.builders import StillClock
from tests.contracts.bench import Bench, Store
from tests.contracts.conftest import emptied


@pytest_asyncio.fixture
async def bench(one_database: str) -> AsyncIterator[Bench]:
    bench = Bench(Store(emptied(one_database), connect), StillClock())
    await bench.begin()
    yield bench
    await bench.close()


@pytest.fixture
def database(bench: Bench) -> sa.Engine:
    return bench.engine.database


LOCK_LANE = sa.text("SELECT id FROM lanes FOR NO KEY UPDATE")


async def test_whoever_stands_still_in_a_transaction_keeps_nobody_from_the_lane(
    bench: Bench, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "_BEGIN", postgres_engine._BEGIN.bindparams(idle_ms="300"))
    frozen, goes_on = threading.Event(), threading.Event()
    tries = []

    def stand_still(connection: sa.Connection, now: float) -> None:
        tries.append(now)
        connection.execute(LOCK_LANE)
        frozen.set()
        goes_on.wait(30)
        connection.execute(LOCK_LANE)

    transactions = Transactions(database)
    standing = asyncio.create_task(transactions.do(stand_still))
    await asyncio.to_thread(frozen.wait, 30)
    await bench.rows(1)
    claimed = await bench.claim()
    goes_on.set()
    await standing
    await asyncio.to_thread(transactions.close)

    assert len(claimed) == 1
    assert len(tries) == 2, "undone, and tried again when it went on"


async def test_a_change_whose_turn_has_not_come_is_made_though_nobody_waits_for_it_any_more(
    bench: Bench, database: sa.Engine
) -> None:
    transactions = Transactions(database)
    full = threading.Event()
    busy = [asyncio.create_task(transactions.do(lambda connection, now: full.wait(30))) for _ in range(8)]
    one_more = sa.insert(switches).values(name="made")
    waiting = asyncio.create_task(transactions.do(lambda connection, now: connection.execute(one_more)))
    await asyncio.sleep(0)

    waiting.cancel()
    full.set()
    await asyncio.gather(*busy)
    await asyncio.to_thread(transactions.close)

    with database.connect() as connection:
        assert connection.execute(sa.select(switches.c.name)).scalars().all() == ["made"]
