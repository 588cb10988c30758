"""Programs of two versions on one database: what runs goes on, and what is too old for it does not start."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dujiang.domain import lifecycle as life
from dujiang.domain.lifecycle import State
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.schema import METADATA
from tests.builders import StillClock, a_file
from tests.contracts.bench import URLS, Bench, Store, a_sqlite_store
from tests.postgres import MakeDatabase


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """On a database that no other test uses: its tables are changed."""
    if request.param == "sqlite":
        store = a_sqlite_store(tmp_path)
    else:
        make: MakeDatabase = request.getfixturevalue("fresh_database")
        store = Store(make(), connect)
    bench = Bench(store, StillClock())
    await bench.begin()
    yield bench
    await bench.close()


def upgrade(bench: Bench) -> None:
    """What a newer version does: it adds, and takes nothing away."""
    with bench.engine.database.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN of_the_future TEXT')
        connection.exec_driver_sql("CREATE TABLE the_future (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")


async def test_a_worker_that_runs_goes_on_beside_a_newer_version(own: Bench) -> None:
    running, _ = await own.claimed(), await own.rows(7)

    upgrade(own)

    done = await own.record(running, life.Accepted("job"), life.Rendered(URLS, 20.0), life.Saved((a_file(),)))
    assert done.state is State.SUCCEEDED
    assert len(await own.claim()) == 1
    assert await own.engine.heartbeat(own.worker)


async def test_one_that_is_too_old_does_not_start_and_says_why(own: Bench) -> None:
    upgrade(own)
    before = own.everything()

    with pytest.raises(DatabaseRefused) as refused:
        own.open_engine()

    assert (refused.value.why, refused.value.fields["found"]) == ("database_newer", "9999")
    assert own.everything() == before
