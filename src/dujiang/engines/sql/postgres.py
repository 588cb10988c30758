"""PostgreSQL: connections, transactions and what other programs tell. SQLite's are in `database` and `sqlite`.

The statements are the same. What differs stands here:
- Many may write at once, so whoever reads in order to write locks what it reads (`with_for_update` in the queries,
  which SQLite ignores): batches, then tasks, lanes, accounts. A claim takes tasks last, and waits for none of them.
  Two that wait for each other all the same (rests have no order) are parted by the database, and try again.
- Recorded events of one program share transactions (`groups`); every other change is a transaction of its own, and the
  database puts their commits together.
- The database's clock decides, as programs on several machines have several clocks.
- A connection that breaks while it commits leaves open whether it did: each change leaves a token of its own beside
  what it writes, and whether that is there is asked afterwards. (PostgreSQL tells what became of a transaction number,
  but gives a number that a crash has swallowed to somebody else.)
- Everything works through PgBouncer in transaction mode: nothing is set for a session, no statement is prepared, and
  where LISTEN can't be had, looking now and then takes its place.
"""

import asyncio
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, TypeVar
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from dujiang.domain.errors import StoreError
from dujiang.engines.sql.groups import Change, Groups, Item, Tells, Together
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.revisions import migrate, schema_revision

T = TypeVar("T")

CONNECT_S: Final = 10
IN_UTF8: Final = {"client_encoding": "utf8"}  # the driver would take what the database, or PGCLIENTENCODING, has
STATEMENT_S: Final = 30
LOCK_S: Final = 10
GROUP_LOCK_S: Final = 1
"""So long many changes wait for somebody else's lock that is in the way of one of them."""
IDLE_S: Final = 3
"""So long between two statements, and the transaction is undone: whoever stands still in it holds locks of a lane."""
GONE_AFTER_MS: Final = 10_000  # a partition ends in seconds, not in hours
AT_ONCE: Final = 8
"""Transactions of one program at the same time."""
PATIENCE_S: Final = 60.0
"""How long a database that is away or full is tried again before whoever asked is told."""
AGAIN_AFTER_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
HEARD_WITHIN_S: Final = 2.0
LISTEN_AGAIN_S: Final = 1.0
DEAF_FOR_S: Final = 60.0
CHANNEL: Final = "dujiang"

# SQLSTATE: what passes by trying again, and what the store refuses.
CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock time-out
TWICE: Final = "23505"  # two made the same at once: the second finds it when it tries again
TWICE_TRIES: Final = 5
FULL: Final = frozenset({"53100", "53200", "53300", "53400"})
AWAY: Final = ("08", "57P")  # connection exceptions; the server is going down, or not up yet

_BEGINNING: Final = sa.text(
    "SELECT extract(epoch FROM clock_timestamp())::float8,"
    " set_config('statement_timeout', :statement_ms, true), set_config('lock_timeout', :lock_ms, true),"
    " set_config('idle_in_transaction_session_timeout', :idle_ms, true), set_config('synchronous_commit', 'on', true)"
).bindparams(statement_ms=str(STATEMENT_S * 1000), idle_ms=str(IDLE_S * 1000))
_BEGIN: Final = _BEGINNING.bindparams(lock_ms=str(LOCK_S * 1000))
_BEGIN_GROUP: Final = _BEGINNING.bindparams(lock_ms=str(GROUP_LOCK_S * 1000))
# An advisory lock: one program brings the schema up to date, the others wait.
_MIGRATE_ALONE: Final = sa.text("SELECT pg_advisory_xact_lock(7202311)")
_NOW: Final = sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")
_COMMITTING: Final = (
    "INSERT INTO last_commits (place, token, at) VALUES (:place, :token, :at)"
    " ON CONFLICT (place) DO UPDATE SET token = excluded.token, at = excluded.at"
)
_COMMIT: Final = sa.text(_COMMITTING)
_COMMIT_AND_TELL: Final = sa.text(f"WITH committing AS ({_COMMITTING}) SELECT pg_notify('{CHANNEL}', :who)")
_CALL: Final = sa.text("SELECT pg_notify(:channel, :who)")
_LAST: Final = sa.text(  # waits for a session that is still about to commit, which reading would not
    "INSERT INTO last_commits (place, token, at) VALUES (:place, '', 0)"
    " ON CONFLICT (place) DO UPDATE SET token = last_commits.token RETURNING token"
)
_FORGET: Final = sa.text("DELETE FROM last_commits WHERE starts_with(place, :who) OR at < :before")
FORGOTTEN_S: Final = 30 * 86_400.0
"""What killed programs left; nobody asks what became of a change for so long."""


def connect(url: sa.URL) -> sa.Engine:
    """A pool of connections, with the newest schema. Raises `DatabaseRefused`."""
    if importlib.util.find_spec("psycopg") is None:
        raise DatabaseRefused("no_driver")
    database = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": CONNECT_S,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": GONE_AFTER_MS,
            "prepare_threshold": None,
            "application_name": "dujiang",
            **IN_UTF8,
        },
        pool_size=AT_ONCE,
        max_overflow=AT_ONCE,
        pool_recycle=1800,
    )
    try:
        _check_encoding(database, url)
        migrate(database, _shown(url), lock=_MIGRATE_ALONE)
    except DBAPIError as error:
        database.dispose()
        raise DatabaseRefused("unreachable", url=_shown(url), reason=str(error.orig).strip()) from error
    except BaseException:
        database.dispose()
        raise
    return database


def _check_encoding(database: sa.Engine, url: sa.URL) -> None:
    """Any prompt must have room in it."""
    with database.connect() as connection:
        found = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if found != "UTF8":
        raise DatabaseRefused("not_utf8", url=_shown(url), found=found)


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def revision_of(url: sa.URL) -> str | None:
    """The same of the database at `url`; None if it can't be reached either."""
    database = sa.create_engine(
        url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": CONNECT_S, **IN_UTF8}
    )
    try:
        return schema_revision(database)
    except DBAPIError:
        return None
    finally:
        database.dispose()


def clock_of(connection: sa.Connection) -> float:
    """Now, by the clock of the database."""
    return float(connection.execute(_NOW).scalar_one())


def store_error(error: DBAPIError) -> StoreError | None:
    """The store's refusal that `error` stands for; None if it is a fault of the statement."""
    state = getattr(error.orig, "sqlstate", None) or ""
    told = str(error.orig).strip()
    if state in FULL:
        return StoreError(told, why="full")
    if state == "25006":
        return StoreError(told, why="denied")
    lost = error.connection_invalidated or (isinstance(error, sa.exc.OperationalError) and not state)
    return StoreError(told, why="gone") if lost or state.startswith(AWAY) else None


def _is_conflict(error: DBAPIError, tries: int) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state in CONFLICTS or (state == TWICE and tries < TWICE_TRIES)


@dataclass(slots=True)
class _Try:
    """One try of a change."""

    token: str = field(default_factory=lambda: uuid4().hex)
    is_done: bool = False
    """All its statements have run: only the commit is left."""
    result: Any = None


class Transactions:
    """Runs changes, several at once. They return when the change is on disk."""

    def __init__(
        self,
        database: sa.Engine,
        now: Callable[[], float] | None = None,
        *,
        patience_s: float = PATIENCE_S,
        who: str | None = None,
    ) -> None:
        self._database = database
        self._now = now
        """A clock in place of the database's, for tests."""
        self.patience_s = patience_s
        self.who = who or uuid4().hex
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dujiang-transaction")
        self._groups = Groups(self._do, "dujiang-group", self._threads)

    async def do(self, change: Change[T], *, tells: Tells[T] = lambda result: True) -> T:
        """Run `change` in a transaction, at a moment of the database's clock; its result once that is committed.

        `tells`: whether, with this result, others want to know of it. Raises what the change raises, or `StoreError` if
        the database stays away or full.
        """
        if self._closing.is_set():
            raise StoreError("the database is closed", why="gone")
        # Shielded: cancelled before its turn came, it would never run, and a job id with it.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, self._do, change, tells))

    async def together(self, together: Together[Item, T], item: Item) -> T:
        """The same for one of many changes that may be run as one; others want to know of it."""
        return await self._groups.do(together, item, lambda result: True)

    def close(self) -> None:
        """Finish what was accepted, then stop. Blocks."""
        self._closing.set()
        self._groups.close()
        self._threads.shutdown(wait=True)
        with suppress(DBAPIError), self._database.begin() as connection:
            now = connection.execute(_BEGIN).scalar_one()
            connection.execute(_FORGET, {"who": self.who, "before": now - FORGOTTEN_S})

    def _do(self, change: Change[T], tells: Tells[T], *, patiently: bool = True, grouped: bool = False) -> T:
        began = time.monotonic() if patiently else -inf
        tries = 0
        while True:
            this = _Try()
            try:
                with self._database.connect() as connection, connection.begin():
                    now = connection.execute(_BEGIN_GROUP if grouped else _BEGIN).one()[0]
                    this.result = change(connection, now if self._now is None else self._now())
                    values = {"place": self._place(), "token": this.token, "at": now, "who": self.who}
                    connection.execute(_COMMIT_AND_TELL if tells(this.result) else _COMMIT, values)
                    this.is_done = True
                return this.result  # type: ignore[no-any-return]
            except DBAPIError as error:
                refused = store_error(error)
                if refused is None and (grouped or not _is_conflict(error, tries)):
                    raise
                if this.is_done and self._was_committed(this.token, began):
                    return this.result  # type: ignore[no-any-return]
                if self._gives_up(began):
                    raise (refused or StoreError(str(error.orig).strip(), why="gone")) from error
            self._closing.wait(AGAIN_AFTER_S[min(tries, len(AGAIN_AFTER_S) - 1)])
            tries += 1

    def _place(self) -> str:
        """Where this thread's last token stands: only its own next change writes there."""
        return f"{self.who} {threading.get_ident()}"

    def _gives_up(self, began: float) -> bool:
        return self._closing.is_set() or time.monotonic() - began >= self.patience_s

    def _was_committed(self, token: str, began: float) -> bool:
        """Whether a change is on disk whose connection broke while it was committed."""
        while True:
            try:
                with self._database.begin() as connection:
                    connection.execute(_BEGIN)
                    return bool(connection.execute(_LAST, {"place": self._place()}).scalar_one() == token)
            except DBAPIError as error:
                if self._gives_up(began):
                    # Never "full", which says that nothing was written.
                    raise StoreError(str(error.orig).strip(), why="gone") from error
            self._closing.wait(AGAIN_AFTER_S[-1])


class Listener:
    """Hears of other programs' changes (LISTEN). While it can't, something may always have changed.

    A pooler that shares connections takes a LISTEN and may tell nobody, or anybody: it is known by the number that it
    gives the session, which isn't the server's. Whoever has none in between hears itself first.
    """

    def __init__(self, database: sa.Engine, who: str) -> None:
        self._database = database
        self._who = who
        self._own_channel = f"{CHANNEL}_{who}"
        """Where it calls itself back, so that nobody else wakes when it ends."""
        self._changed = threading.Event()
        self._deaf = threading.Event()
        self._deaf.set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dujiang-listener", daemon=True)
        self._thread.start()

    def has_changed(self) -> bool:
        """Whether anything may have changed since this was last asked."""
        changed = self._changed.is_set() or self._deaf.is_set()
        self._changed.clear()
        return changed

    def close(self) -> None:
        """Stop listening. Blocks for a moment, where the database is away."""
        self._closing.set()
        if not self._deaf.is_set():
            with suppress(DBAPIError), self._database.begin() as connection:
                connection.execute(_CALL, {"channel": self._own_channel, "who": self._who})
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                again_s = self._listen()
            except (DBAPIError, OSError, _psycopg_error()):
                again_s = LISTEN_AGAIN_S
            self._deaf.set()
            self._closing.wait(again_s)

    def _listen(self) -> float:
        """Until closed, or until nothing is heard; in how many seconds to try again."""
        raw = self._database.raw_connection()
        connection: Any = raw.driver_connection
        raw.detach()  # it is no use to anybody else
        try:
            connection.autocommit = True
            (server_pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
            if server_pid != connection.info.backend_pid:
                return DEAF_FOR_S
            connection.execute(f"LISTEN {CHANNEL}")
            connection.execute(f"LISTEN {self._own_channel}")
            connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, self._who))
            if not any(heard.payload == self._who for heard in connection.notifies(timeout=HEARD_WITHIN_S)):
                return DEAF_FOR_S
            self._deaf.clear()
            self._changed.set()  # whatever happened before
            while not self._closing.is_set():
                for heard in connection.notifies(timeout=0.5, stop_after=1):
                    if heard.payload != self._who:
                        self._changed.set()
            return 0.0
        finally:
            connection.close()


class PostgresStore:
    """Changes and news of a PostgreSQL database."""

    def __init__(self, database: sa.Engine, now: Callable[[], float] | None) -> None:
        self._database = database
        self._now = now
        self._transactions = Transactions(database, now)
        self._listener = Listener(database, self._transactions.who)

    async def change(self, change: Change[T], tells: Tells[T]) -> T:
        """See `Transactions.do`."""
        return await self._transactions.do(change, tells=tells)

    async def together(self, together: Together[Item, T], item: Item) -> T:
        """See `Transactions.together`."""
        return await self._transactions.together(together, item)

    def now(self, connection: sa.Connection) -> float:
        """The database's clock."""
        return self._now() if self._now is not None else clock_of(connection)

    async def read(self, read: Callable[[], T]) -> T:
        """What it returns; a database that is away is waited for as for a change, without keeping a thread from others.

        Raises `StoreError` if it stays away.
        """
        began = time.monotonic()
        tries = 0
        while True:
            try:
                return await asyncio.to_thread(read)
            except DBAPIError as error:
                refused = store_error(error)
                if refused is None:
                    raise
                if time.monotonic() - began >= self._transactions.patience_s:
                    raise refused from error
            await asyncio.sleep(AGAIN_AFTER_S[min(tries, len(AGAIN_AFTER_S) - 1)])
            tries += 1

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Inside, a database that is away or full is waited for, for however long."""
        patience_s, self._transactions.patience_s = self._transactions.patience_s, inf
        try:
            yield
        finally:
            self._transactions.patience_s = patience_s

    async def changed_elsewhere(self) -> bool:
        """Whether another program may have changed anything since this was last asked."""
        return self._listener.has_changed()

    def close(self) -> None:
        """Finish what was accepted. Blocks."""
        self._listener.close()
        self._transactions.close()


def _psycopg_error() -> type[Exception]:
    import psycopg  # only where PostgreSQL is used  # noqa: PLC0415

    return psycopg.Error
