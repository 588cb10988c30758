"""SQLite: its one writer, and what it tells of other programs. PostgreSQL's are in `postgres`.

SQLite lets one connection write at a time, so all changes of a program go through one thread (`groups`), which commits
many together.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from dujiang.domain.errors import StoreError
from dujiang.engines.sql.groups import Change, Groups, Item, Tells, Together, each

T = TypeVar("T")

PATIENCE_S: Final = 60.0  # how long a locked or full database is tried again before its callers are told
AGAIN_AFTER_S: Final = 0.2
PASSING: Final = ("locked", "busy", "full", "disk i/o")
LASTING: Final = ("readonly", "read-only", "unable to open", "malformed", "not a database")


class SqliteStore:
    """Changes and news of a SQLite database, as the engine wants them."""

    def __init__(self, database: sa.Engine, now: Callable[[], float], *, patience_s: float = PATIENCE_S) -> None:
        self._now = now
        self._patience_s = patience_s
        self._closing = threading.Event()
        self._connection = database.connect()
        self._groups = Groups(self._transact, "dujiang-writer")
        self._seen_version: int | None = None

    async def change(self, change: Change[T], tells: Tells[T] = lambda result: True) -> T:
        """Run `change` in a transaction; its result once that is committed. What others want to know they see."""
        return await self._groups.do(each, change, tells)

    async def together(self, together: Together[Item, T], item: Item) -> T:
        """The same for one of many changes that may be run as one."""
        return await self._groups.do(together, item, lambda result: True)

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
        version = await self.change(lambda connection, _: connection.exec_driver_sql("PRAGMA data_version").scalar())
        seen, self._seen_version = self._seen_version, version
        return seen is not None and seen != version

    def close(self) -> None:
        """Finish what was accepted. Blocks."""
        self._closing.set()
        self._groups.close()
        self._connection.close()

    def _transact(self, change: Change[T], _: Tells[T], *, patiently: bool = True, grouped: bool = False) -> T:
        give_up_at = time.monotonic() + (self._patience_s if patiently else 0)
        while True:
            try:
                with self._connection.begin():
                    return change(self._connection, self._now())
            except DBAPIError as error:
                refused = store_error(error)
                if refused is None:
                    raise
                if not _is_passing(error) or time.monotonic() >= give_up_at or self._closing.is_set():
                    raise refused from error
                self._closing.wait(AGAIN_AFTER_S)


def store_error(error: DBAPIError) -> StoreError | None:
    """The store's refusal that `error` stands for; None if it is a fault of the statement."""
    reason = str(error.orig).lower()
    if not any(word in reason for word in PASSING + LASTING):
        return None
    why = "full" if "full" in reason else "denied" if "read" in reason else "gone"
    return StoreError(str(error.orig), why=why)


def _is_passing(error: DBAPIError) -> bool:
    return any(word in str(error.orig).lower() for word in PASSING)
