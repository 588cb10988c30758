"""The engines that every contract suite runs on. A second kind of store is a second parameter."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.builders import StillClock
from tests.contracts.bench import Bench, a_postgres_store, a_sqlite_store


@pytest_asyncio.fixture(params=[a_sqlite_store, a_postgres_store], ids=["sqlite", "postgres"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(request.param(tmp_path), StillClock())
    await bench.begin()
    yield bench
    await bench.close()
