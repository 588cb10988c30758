"""The PostgreSQL that tests get: a fresh database each, restarts that keep what was committed, nothing left behind."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from tests.postgres import PATIENCE_S, Binaries, MakeDatabase, Server, installed_binaries, own_server

ROOT = Path(__file__).parents[2]


def ask(url: str, *statements: str) -> list[Any]:
    """Commit the statements one by one; the first column that the last of them answers."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        answers = [connection.execute(sa.text(statement)) for statement in statements]
        return list(answers[-1].scalars()) if answers[-1].returns_rows else []


def tables(url: str) -> list[Any]:
    return ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


def a_table(url: str) -> None:
    ask(url, "CREATE TABLE kept (number int)", "INSERT INTO kept VALUES (7)")


def test_each_database_is_fresh(fresh_database: MakeDatabase) -> None:
    one = fresh_database()
    a_table(one)

    other = fresh_database()

    assert tables(one) == ["kept"]
    assert tables(other) == []


def test_a_database_can_be_made_from_a_prepared_one(fresh_database: MakeDatabase) -> None:
    prepared = fresh_database()
    a_table(prepared)

    copy = fresh_database(template=prepared)

    assert ask(copy, "SELECT number FROM kept") == [7]


def test_a_database_goes_though_somebody_is_connected(postgres: Server) -> None:
    url = postgres.fresh_database()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        postgres.drop(url)
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 1"))
    engine.dispose()

    with pytest.raises(sa.exc.OperationalError, match="does not exist"):
        tables(url)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_loses_nothing_that_was_committed(postgres: Server, fresh_database: MakeDatabase, mode: Any) -> None:
    url = fresh_database()
    a_table(url)

    postgres.restart(mode)

    assert ask(url, "SELECT number FROM kept") == [7]


def test_a_stopped_server_is_away_until_it_is_started_or_a_database_is_asked_for(
    postgres: Server, fresh_database: MakeDatabase
) -> None:
    url = fresh_database()

    postgres.stop()
    with pytest.raises(sa.exc.OperationalError):
        tables(url)
    postgres.start()
    assert tables(url) == []

    postgres.stop()
    assert tables(fresh_database()) == []


def test_two_servers_run_side_by_side() -> None:
    with closing(own_server()) as one, closing(own_server()) as other:
        assert one.url() != other.url()
        assert tables(one.url()) == tables(other.url()) == []


def test_a_port_that_is_taken_is_passed_over(postgres: Server) -> None:
    taken = sa.make_url(postgres.url()).port
    assert taken

    with closing(own_server([taken, taken + 1, taken + 2])) as server:
        assert sa.make_url(server.url()).port != taken
        assert tables(server.url()) == []


def test_a_given_server_has_databases_but_is_not_restarted(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    given = Server(postgres.url().replace("postgresql+psycopg://", "postgres://"))
    url = given.fresh_database()

    with pytest.raises(pytest.skip.Exception, match="unset DUJIANG_TEST_POSTGRES_URL"):
        given.restart()
    assert tables(url) == []
    given.close()
    with pytest.raises(sa.exc.OperationalError, match="does not exist"):
        tables(url)


def test_binaries_that_do_not_run_are_not_taken(tmp_path: Path) -> None:
    assert not Binaries(tmp_path, owner=None).work()


ENDLESS = """
import sys
from tests.postgres import own_server

server = own_server()
print(server.keeper.pid, server.folder, server.url(), flush=True)
sys.stdin.read()
"""


def test_a_run_that_is_killed_leaves_nothing_behind() -> None:
    installed_binaries()  # or the test ends here, and says how to get them
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        keeper, folder, url = run.stdout.readline().split()
        end = psutil.Process(int(keeper))
        assert tables(url) == []

        run.kill()
        end.wait(PATIENCE_S)

    assert not Path(folder).exists()
    with pytest.raises(sa.exc.OperationalError):
        tables(url)


UNPRIVILEGED = """
import os, pwd, sys
from contextlib import closing
import psycopg, sqlalchemy.dialects.postgresql.psycopg  # now: nobody may not read where root keeps its Python
from tests.contracts.test_postgres_server import a_table, ask
from tests.postgres import own_server

nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
with closing(own_server()) as server:
    url = server.fresh_database()
    a_table(url)
    server.restart()
    assert ask(url, "SELECT number FROM kept") == [7]
assert not server.folder.exists()
print("done as", os.getuid())
"""


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0,
    reason="not root: every other test here has just started its server without privileges",
)
def test_an_unprivileged_user_has_a_server_too() -> None:
    installed_binaries()  # or the test ends here, and says how to get them
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "done as" in done.stdout, done.stderr
    assert "done as 0" not in done.stdout
