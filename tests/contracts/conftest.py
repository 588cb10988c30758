"""The engines that every contract suite runs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dujiang.engines.sql.database import connect
from tests.builders import StillClock
from tests.conftest import emptied
from tests.contracts.bench import Bench, Store, a_sqlite_store


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
