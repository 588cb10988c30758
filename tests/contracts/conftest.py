"""The engines that every contract suite runs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa

from dujiang.engines.sql.database import connect
from dujiang.engines.sql.schema import METADATA
from tests.builders import StillClock
from tests.contracts.bench import Bench, Store, a_sqlite_store
from tests.postgres import Server


@pytest.fixture(scope="session")
def one_database(postgres: Server) -> str:
    """A database with every table, emptied for each test: to make one takes longer than most tests do."""
    url = postgres.fresh_database()
    connect(url).dispose()
    return url


def emptied(url: str) -> str:
    """The same, as new."""
    database = sa.create_engine(url)
    with database.begin() as connection:
        for table in reversed(METADATA.sorted_tables):
            connection.execute(sa.delete(table))
        for (name,) in connection.exec_driver_sql("SELECT sequencename FROM pg_sequences").all():
            connection.exec_driver_sql(f"ALTER SEQUENCE {name} RESTART")
    database.dispose()
    return url


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "sqlite":
        store = a_sqlite_store(tmp_path)
    else:
        store = Store(emptied(request.getfixturevalue("one_database")), connect)
    bench = Bench(store, StillClock())
    await bench.begin()
    yield bench
    await bench.close()
