"""The one writer of a database: a thread that puts many small changes into one transaction.

SQLite lets one connection write at a time, and a durable commit costs an fsync whatever is in it. So every change is a
function of a connection; the thread runs what has come in meanwhile, commits once, and then wakes everybody. A change
that raises undoes the whole group, which is then run again one by one: one caller's fault is nobody else's.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from dujiang.domain.errors import StoreError

T = TypeVar("T")
Change = Callable[[sa.Connection], T]

GROUP: Final = 64  # changes in one transaction: enough to make the fsync cheap, few enough to answer soon
PATIENCE_S: Final = 60.0  # how long a locked or full database is tried again before its callers are told
AGAIN_AFTER_S: Final = 0.2
PASSING: Final = ("locked", "busy", "full", "disk i/o")
LASTING: Final = ("readonly", "read-only", "unable to open", "malformed", "not a database")


@dataclass(slots=True)
class _Entry:
    change: Change[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Writer:
    """Runs changes one group after the other. `do` returns when the change is on disk."""

    def __init__(self, database: sa.Engine, *, patience_s: float = PATIENCE_S) -> None:
        self._database = database
        self._patience_s = patience_s
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._accepting = threading.Lock()  # nothing is accepted behind the last entry, where nobody would see it
        self._connection = database.connect()
        self._thread = threading.Thread(target=self._run, name="dujiang-writer", daemon=True)
        self._thread.start()

    async def do(self, change: Change[T]) -> T:
        """Run `change` in a transaction; its result once that is committed.

        Raises what the change raises, or `StoreError` if the database stays locked or full.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._accepting:
            if self._closing.is_set():
                raise StoreError("the database is closed", why="gone")
            self._entries.put(_Entry(change, loop, future))
        return await future

    def close(self) -> None:
        """Finish what was accepted, then stop. Blocks."""
        with self._accepting:
            if not self._closing.is_set():
                self._closing.set()
                self._entries.put(None)
        self._thread.join()

    def _run(self) -> None:
        with self._connection as connection:
            open_ = True
            while open_:
                group, open_ = self._next_group()
                self._run_group(connection, group)
                _answer(group)

    def _next_group(self) -> tuple[list[_Entry], bool]:
        first = self._entries.get()
        group: list[_Entry] = []
        while first is not None:
            group.append(first)
            if len(group) == GROUP or self._entries.empty():
                return group, True
            first = self._entries.get()
        return group, False

    def _run_group(self, connection: sa.Connection, group: list[_Entry]) -> None:
        try:
            self._transact(connection, group, self._patience_s)
        except StoreError as refused:
            # Patience is spent once for the group. What is locked is locked for everybody; where a large change found
            # no room, a small one may.
            for entry in group:
                entry.error = refused
            if refused.why == "full":
                self._run_alone(connection, group, patience_s=0)
        except Exception:  # noqa: BLE001 - whoever is at fault hears of it when run alone
            self._run_alone(connection, group, self._patience_s)

    def _run_alone(self, connection: sa.Connection, group: list[_Entry], patience_s: float) -> None:
        for entry in group:
            try:
                self._transact(connection, [entry], patience_s)
                entry.error = None
            except Exception as error:  # noqa: BLE001 - handed to the caller
                entry.error = error

    def _transact(self, connection: sa.Connection, group: list[_Entry], patience_s: float) -> None:
        give_up_at = time.monotonic() + patience_s
        while True:
            try:
                with connection.begin():
                    for entry in group:
                        entry.result = entry.change(connection)
                return
            except DBAPIError as error:
                refused = store_error(error)
                if refused is None:
                    raise
                if not _is_passing(error) or time.monotonic() >= give_up_at or self._closing.is_set():
                    raise refused from error
                self._closing.wait(AGAIN_AFTER_S)


class SqliteStore:
    """Changes and news of a SQLite database, as the engine wants them."""

    def __init__(self, database: sa.Engine, now: Callable[[], float]) -> None:
        self._now = now
        self._writer = Writer(database)
        self._seen_version: int | None = None

    async def change(self, change: Callable[[sa.Connection, float], T], tells: Callable[[T], bool]) -> T:
        """Run `change` in a transaction; its result once that is committed. What others want to know they see."""
        return await self._writer.do(lambda connection: change(connection, self._now()))

    async def read(self, read: Callable[[], T]) -> T:
        """What it returns, in a thread. Raises `StoreError`."""
        try:
            return await asyncio.to_thread(read)
        except DBAPIError as error:
            refused = store_error(error)
            if refused is not None:
                raise refused from error
            raise

    def waited_for(self) -> AbstractContextManager[None]:
        """A file is there or it is not: whoever finds it locked or full for long is told."""
        return nullcontext()

    def now(self, connection: sa.Connection) -> float:
        """The clock of this machine, which all who use the file share."""
        return self._now()

    async def changed_elsewhere(self) -> bool:
        """Whether another program has changed the file since this was last asked."""
        # Remembered only once it is answered: a change may run twice, when its group fails.
        version = await self._writer.do(lambda connection: connection.exec_driver_sql("PRAGMA data_version").scalar())
        seen, self._seen_version = self._seen_version, version
        return seen is not None and seen != version

    def close(self) -> None:
        """Finish what was accepted. Blocks."""
        self._writer.close()


def store_error(error: DBAPIError) -> StoreError | None:
    """The store's refusal that `error` stands for; None if it is a fault of the statement."""
    reason = str(error.orig).lower()
    if not any(word in reason for word in PASSING + LASTING):
        return None
    why = "full" if "full" in reason else "denied" if "read" in reason else "gone"
    return StoreError(str(error.orig), why=why)


def _is_passing(error: DBAPIError) -> bool:
    return any(word in str(error.orig).lower() for word in PASSING)


def _answer(group: list[_Entry]) -> None:
    loops = {id(entry.loop): entry.loop for entry in group}
    for key, loop in loops.items():
        entries = [entry for entry in group if id(entry.loop) == key]
        try:
            loop.call_soon_threadsafe(_resolve, entries)
        except RuntimeError:  # the loop is closed: whoever asked is gone, the change is on disk
            continue


def _resolve(entries: list[_Entry]) -> None:
    for entry in entries:
        if entry.future.cancelled():
            continue
        if entry.error is not None:
            entry.future.set_exception(entry.error)
        else:
            entry.future.set_result(entry.result)
