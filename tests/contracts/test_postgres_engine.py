"""What only PostgreSQL can do to the engine: sessions that break, standstills inside of a transaction, restarts."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import pytest_asyncio
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import StoreError
from dujiang.engines.sql import postgres as postgres_engine
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.postgres import Transactions
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.schema import last_commits, switches, tasks
from tests.builders import StillClock, a_request, a_row
from tests.conftest import emptied
from tests.contracts.bench import Bench, Store
from tests.postgres import MakeDatabase, OwnServer, own_server


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


# -- Locks of others --------------------------------------------------------------------------------------------------


async def test_a_row_that_somebody_has_locked_keeps_no_other_from_being_recorded(
    bench: Bench, database: sa.Engine
) -> None:
    """A person's open transaction, say: job ids of other tasks must not wait for it."""
    await bench.rows(0, 1, 2)
    locked, *others = await bench.claim()
    with database.connect() as person:
        person.execute(sa.select(tasks.c.id).where(tasks.c.id == locked.id).with_for_update())
        waiting = asyncio.create_task(bench.record(locked, life.Accepted("locked")))
        recorded = await asyncio.gather(*(bench.record(task, life.Accepted(f"{task.id}")) for task in others))
        assert not waiting.done()
        person.rollback()

    assert [task.state for task in [*recorded, await waiting]] == [life.State.GENERATING] * 3


async def test_what_is_cancelled_while_it_goes_back_into_the_line_is_cancelled_there(
    bench: Bench, database: sa.Engine
) -> None:
    await bench.rows(0)
    (task,) = await bench.claim()
    with database.connect() as person:
        person.execute(sa.select(tasks.c.id).where(tasks.c.id == task.id).with_for_update())
        postponing = asyncio.create_task(bench.record(task, life.Postponed("slot")))
        await until_waiting(database, 1)
        cancelling = asyncio.create_task(bench.engine.cancel(task_ids=[task.id]))
        await until_waiting(database, 2)
        person.rollback()
    await asyncio.gather(postponing, cancelling)

    assert await bench.claim() == []


async def until_waiting(database: sa.Engine, sessions: int) -> None:
    """So many sessions wait for locks. The server tells nobody: it is asked again."""
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name")
    while True:
        with database.connect() as connection:
            if connection.execute(query, {"name": database.url.database}).scalar_one() >= sessions:
                return
        await asyncio.sleep(0.01)


async def test_what_was_committed_is_not_made_again_though_nobody_can_say_so(
    bench: Bench, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost, and whoever asks what became of it is refused."""
    tries: list[float] = []
    transactions = Transactions(database, patience_s=0.0)
    full = sa.text("DO $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$")
    monkeypatch.setattr(postgres_engine, "_LAST", full)

    def lose_the_answer(connection: sa.Connection) -> None:
        session = connection.connection.driver_connection
        assert session is not None
        session.commit()
        session.close()

    def make(connection: sa.Connection, now: float, items: object) -> list[None]:
        tries.append(now)
        connection.execute(MADE)
        return [None]

    when_first_committing(database, lose_the_answer)
    with pytest.raises(StoreError) as refused:
        await transactions.together(make, None)
    await asyncio.to_thread(transactions.close)

    assert (len(tries), refused.value.why) == (1, "gone")


# -- Sessions that break ----------------------------------------------------------------------------------------------

MADE = sa.insert(switches).values(name="made")


def when_first_committing(database: sa.Engine, what: Callable[[sa.Connection], None]) -> None:
    """Have `what` happen at the moment at which a change is about to be committed."""
    happened = threading.Event()

    @sa.event.listens_for(database, "commit")
    def committing(connection: sa.Connection) -> None:
        if not happened.is_set():
            happened.set()
            what(connection)


async def made_by(database: sa.Engine) -> tuple[int, int]:
    """How often a change was tried, and how many rows there are of it."""
    tries = []

    def make(connection: sa.Connection, now: float) -> None:
        tries.append(now)
        connection.execute(MADE)

    transactions = Transactions(database)
    await transactions.do(make)
    await asyncio.to_thread(transactions.close)
    with database.connect() as connection:
        rows = connection.execute(sa.select(sa.func.count()).select_from(switches)).scalar_one()
    return len(tries), rows


async def test_a_change_whose_answer_was_lost_is_made_once(database: sa.Engine) -> None:
    def lose_the_answer(connection: sa.Connection) -> None:
        session = connection.connection.driver_connection
        assert session is not None
        session.commit()
        session.close()

    when_first_committing(database, lose_the_answer)

    assert await made_by(database) == (1, 1)


@pytest.fixture(scope="module")
def mortal_server() -> Iterator[OwnServer]:
    with closing(own_server()) as server:
        yield server


@pytest.fixture
def mortal(mortal_server: OwnServer) -> Iterator[sa.Engine]:
    database = connect(mortal_server.fresh_database())
    yield database
    database.dispose()


async def test_a_change_that_a_crash_has_swallowed_is_made_though_its_number_is_given_to_others(
    mortal: sa.Engine, mortal_server: OwnServer
) -> None:
    def crash(connection: sa.Connection) -> None:
        mortal_server.restart("immediate")
        with closing(sa.create_engine(mortal.url, poolclass=sa.NullPool).raw_connection()) as others:
            for _ in range(30):
                others.cursor().execute("SELECT pg_current_xact_id()")
                others.commit()

    when_first_committing(mortal, crash)

    assert await made_by(mortal) == (2, 1)


async def test_reading_waits_for_a_database_that_is_away(mortal: sa.Engine, mortal_server: OwnServer) -> None:
    engine = SqlEngine(mortal, StillClock())
    mortal_server.stop("immediate")
    reading = asyncio.create_task(engine.open_batches())
    await asyncio.to_thread(mortal_server.start)

    assert await reading == []
    assert await engine.reading(lambda connection: connection.scalar(sa.text("SELECT 1"))) == 1
    await engine.aclose()


async def test_a_database_that_stays_away_is_told(mortal: sa.Engine, mortal_server: OwnServer) -> None:
    transactions = Transactions(mortal, patience_s=0.2)
    mortal_server.stop("immediate")

    with pytest.raises(StoreError) as refused:
        await transactions.do(lambda connection, now: None)

    assert refused.value.why == "gone"
    await asyncio.to_thread(transactions.close)
    mortal_server.start()


async def test_a_program_that_ends_leaves_no_token(database: sa.Engine) -> None:
    await made_by(database)

    with database.connect() as connection:
        mine = connection.execute(sa.select(last_commits.c.place)).scalars().all()
    assert len({place.split()[0] for place in mine}) <= 1, "only the engine of the bench is left"


# -- Encodings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ascii_database(fresh_database: MakeDatabase) -> Iterator[str]:
    """A database that knows no characters, as a server makes it that was set up without a language."""
    around = sa.make_url(fresh_database())
    name = f"{around.database}_ascii"
    database = sa.create_engine(around, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with database.connect() as connection:
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield around.set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_that_has_no_room_for_every_prompt_is_refused(ascii_database: str) -> None:
    with pytest.raises(DatabaseRefused) as refused:
        connect(ascii_database)

    assert (refused.value.why, refused.value.fields["found"]) == ("database_not_utf8", "SQL_ASCII")
    assert postgres_engine.revision_of(sa.make_url(ascii_database)) is None


async def test_prompts_are_in_any_language_whatever_the_surroundings_say(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elsewhere = bench.open_engine()

    await elsewhere.enqueue("b", [replace(a_row(1), request=a_request("都江堰的春天 🌸"))])

    (task,) = await bench.claim()
    assert task.request.prompt == "都江堰的春天 🌸"
