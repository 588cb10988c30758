"""A database that was restored from a backup knows that it is a copy: nothing in it is submitted by itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.lifecycle import State
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.schema import instances
from tests.builders import NOON, a_batch, a_row, a_worker
from tests.contracts.bench import Bench, an_offer, only_sqlite
from tests.postgres import MakeDatabase


async def backed_up(bench: Bench, request: pytest.FixtureRequest, tmp_path: Path) -> SqlEngine:
    """A copy of the database as it is now, somewhere else."""
    url = sa.make_url(bench.store.url)
    if url.get_backend_name() == "sqlite":
        return SqlEngine(bench.store.connect(f"sqlite:///{copied(Path(url.database or ''), tmp_path)}"), bench.clock)
    make: MakeDatabase = request.getfixturevalue("fresh_database")
    await bench.close()  # a template may be open nowhere
    copy = make(template=bench.store.url)
    bench.engine = bench.open_engine()
    return SqlEngine(bench.store.connect(copy), bench.clock, own_clock=True)


def copied(database: Path, folder: Path) -> Path:
    """As SQLite's own backup makes it."""
    place = folder / "restored" / "dujiang.db"
    place.parent.mkdir()
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(place)) as copy:
        source.backup(copy)
    return place


async def test_a_database_is_itself_however_often_it_is_opened(bench: Bench) -> None:
    assert await bench.engine.is_itself()
    await bench.claimed()

    assert await bench.engine.is_itself()
    assert await bench.open_engine().is_itself()
    assert len(bench.read(sa.select(instances))) == 1


async def test_a_copy_is_worked_with_only_after_it_was_taken_over_and_then_its_batches_wait(
    bench: Bench, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    await bench.engine.is_itself()
    submitting, generating = await bench.claimed(), await bench.claimed()
    await bench.record(generating, life.Accepted("job"))
    await bench.rows(8)
    await bench.engine.open_batch(a_batch("over"))
    copy = await backed_up(bench, request, tmp_path)
    (ready,) = await bench.claim()  # the original goes on, and pays for it

    assert not await copy.is_itself()
    assert await copy.take_over() == ["b"]
    assert await copy.is_itself()

    assert (await copy.claim(bench.worker, [an_offer(bench.lane)], "b")).tasks == []
    adopted = await copy.adopt(a_worker("other"), bench.worker, lambda lane: 120.0)
    states = {task.id: task.state for task in adopted}
    assert states == {submitting.id: State.IN_DOUBT, generating.id: State.GENERATING}
    await copy.pause("b", paused=False)  # somebody has looked and decides
    assert [task.id for task in (await copy.claim(bench.worker, [an_offer(bench.lane)], "b")).tasks] == [ready.id]
    assert await bench.engine.is_itself()
    await copy.aclose()


async def test_new_batches_of_a_copy_that_was_taken_over_are_worked_on(
    bench: Bench, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    await bench.engine.is_itself()
    copy = await backed_up(bench, request, tmp_path)
    await copy.take_over()

    await copy.open_batch(a_batch("new"))
    await copy.enqueue("new", [a_row(1)])

    assert len((await copy.claim(bench.worker, [an_offer(bench.lane)], "new")).tasks) == 1
    await copy.aclose()


@only_sqlite
async def test_a_file_that_was_put_back_in_its_place_is_a_copy_if_something_was_submitted_since(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.engine.is_itself()
    await bench.rows(1, 2)
    await bench.claim(at_most=1)
    database = Path(sa.make_url(bench.store.url).database or "")
    backup = copied(database, tmp_path)

    async def put_back() -> SqlEngine:
        await bench.close()
        for end in ("-wal", "-shm"):
            database.with_name(database.name + end).unlink(missing_ok=True)
        database.write_bytes(backup.read_bytes())
        return bench.open_engine()

    assert await (await put_back()).is_itself()  # nothing was
    engine = bench.open_engine()
    await engine.claim(bench.worker, [an_offer(bench.lane)], "b")

    engine = await put_back()

    assert not await engine.is_itself()
    assert await engine.take_over() == ["b"]
    assert await engine.is_itself()


@only_sqlite
async def test_a_new_database_in_the_place_of_one_that_was_removed_is_no_copy(bench: Bench, tmp_path: Path) -> None:
    await bench.claimed()
    await bench.close()
    database = Path(sa.make_url(bench.store.url).database or "")
    database.unlink()

    engine = bench.open_engine()

    assert await engine.is_itself()
    assert await engine.is_itself()


async def test_a_database_from_before_it_remembered_its_place_is_itself(bench: Bench) -> None:
    await bench.claimed()

    assert await bench.engine.is_itself()
    assert [row["at"] for row in bench.read(sa.select(instances))] == [NOON]
