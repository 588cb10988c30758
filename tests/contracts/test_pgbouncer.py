"""Behind PgBouncer in transaction mode: two connections to the server for whoever comes."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.engines.sql.database import connect
from tests.builders import StillClock, a_worker
from tests.conftest import emptied
from tests.contracts.bench import URLS, Bench, Store, an_offer
from tests.parts import lacking
from tests.postgres import PATIENCE_S, installed_binaries

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin:/usr/bin")

SETTINGS = """
[databases]
* = host={server.host} port={server.port} user={server.username} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""


@pytest.fixture(scope="module")
def pooled(one_database: str) -> Iterator[str]:
    """The URL of a database, through a PgBouncer of our own."""
    if PROGRAM is None:
        lacking("PgBouncer", how_to_get_it="Debian: apt install pgbouncer; macOS: brew install pgbouncer")
    url = sa.make_url(one_database)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory(prefix="dujiang-pgbouncer-", dir="/tmp") as folder:
        settings = Path(folder, "pgbouncer.ini")
        password = f"password={url.password}" if url.password else ""
        settings.write_text(SETTINGS.format(server=url, password=password, port=port), "utf-8")
        binaries = installed_binaries()
        if binaries.owner:  # it refuses to be root, too
            for path in (folder, settings):
                os.chown(path, *binaries.owner)
        with subprocess.Popen(
            [PROGRAM, "-q", settings], stderr=subprocess.DEVNULL, **binaries.circumstances()
        ) as process:
            _until_it_answers(port)
            yield url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
            process.terminate()


def _until_it_answers(port: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest_asyncio.fixture
async def bench(pooled: str, one_database: str) -> AsyncIterator[Bench]:
    emptied(one_database)
    bench = Bench(Store(pooled, connect), StillClock())
    await bench.begin()
    yield bench
    await bench.close()


async def test_where_no_news_come_something_may_always_have_changed(bench: Bench) -> None:
    other = bench.open_engine()

    answers = []
    for _ in range(50):
        await other.pause("b", paused=True)
        answers.append(await bench.engine.changed_elsewhere())
        await asyncio.sleep(0.01)

    assert all(answers)


async def test_a_session_that_others_share_is_left_as_it_was(bench: Bench) -> None:
    await bench.rows(1)
    await bench.close()

    with bench.engine.database.connect() as connection:
        left = connection.exec_driver_sql(
            "SELECT (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements),"
            " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), current_setting('statement_timeout'),"
            " current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"
        ).one()

    assert tuple(left) == (0, 0, 0, "0", "0", "0")


async def test_programs_that_wait_for_two_connections_do_each_task_once(bench: Bench) -> None:
    others = [bench.open_engine() for _ in range(3)]
    workers = [a_worker(f"w{number}") for number in range(3)]
    for engine, worker in zip(others, workers, strict=True):
        await engine.register(worker)
    await bench.rows(*range(30))

    async def work(number: int) -> list[int]:
        engine, worker, done = others[number], workers[number], []
        while turn := (await engine.claim(worker, [an_offer(bench.lane, 6, 2)], "b")).tasks:
            for task in turn:
                submitted = await engine.record(task, life.Accepted(f"job-{task.id}"), None, worker)
                await engine.record(submitted, life.Rendered(URLS), None, worker)
                done.append(task.id)
        return done

    done = [each for found in await asyncio.gather(*map(work, range(3))) for each in found]

    assert len(done) == len(set(done)) > 0
    assert set(bench.states().values()) <= {life.State.COLLECTING, life.State.READY}
