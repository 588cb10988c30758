"""Small changes put together: a thread that runs what has come in meanwhile in one transaction.

A durable commit costs a wait for the disk, whatever is in it. So the thread takes what is there, commits once, and then
wakes everybody. Changes of one kind that follow each other are run as one. A change that raises, or that waits for
somebody else's lock, undoes the whole group, which is then run again one by one: one caller's trouble is nobody else's.
"""

import asyncio
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import sqlalchemy as sa

from dujiang.domain.errors import DujiangError, StoreError

Item = TypeVar("Item")
T = TypeVar("T")
Change = Callable[[sa.Connection, float], T]
"""What it changes, at a moment; its result."""
Together = Callable[[sa.Connection, float, Sequence[Item]], Sequence[T | DujiangError]]
"""The same for many at once, with a result for each; an error is one's own, and what it stands for was not changed."""
Tells = Callable[[T], bool]
"""Whether, with this result, others want to know of it."""

GROUP: Final = 64  # changes in one transaction: enough to make the commit cheap, few enough to answer soon


class Transact(Protocol):
    """Runs a change in a transaction and commits it."""

    def __call__(self, change: Change[T], tells: Tells[T], /, *, patiently: bool = True, grouped: bool = False) -> T:
        """Its result. `patiently`: a database that is locked, full or away is tried again for a while.

        `grouped`: it is many, and somebody else's lock may be in the way of one: then it raises soon.

        Raises what the change raises, or `StoreError`.
        """


@dataclass(slots=True)
class _Entry:
    together: Together[Any, Any]
    item: Any
    tells: Tells[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Groups:
    """Runs changes one group after the other. `do` returns when the change is on disk."""

    def __init__(self, transact: Transact, name: str, apart: Executor | None = None) -> None:
        """`apart`: runs what can't be run together, where a database has room for several at once."""
        self._transact = transact
        self._apart = apart
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._accepting = threading.Lock()  # nothing is accepted behind the last entry, where nobody would see it
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def do(self, together: Together[Item, T], item: Item, tells: Tells[T]) -> T:
        """Run a change; its result once that is committed.

        It runs although whoever asked no longer waits. Raises what the change raises, or `StoreError` if the database
        stays locked, full or away.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._accepting:
            if self._is_closed:
                raise StoreError("the database is closed", why="gone")
            self._entries.put(_Entry(together, item, tells, loop, future))
        return await future

    def close(self) -> None:
        """Finish what was accepted, then stop. Blocks."""
        with self._accepting:
            if not self._is_closed:
                self._is_closed = True
                self._entries.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            group, open_ = self._next_group()
            _answer(self._run_group(group))

    def _next_group(self) -> tuple[list[_Entry], bool]:
        first = self._entries.get()
        group: list[_Entry] = []
        while first is not None:
            group.append(first)
            if len(group) == GROUP or self._entries.empty():
                return group, True
            first = self._entries.get()
        return group, False

    def _run_group(self, group: list[_Entry]) -> list[_Entry]:
        """Those that have been run; the others have their answers later."""
        if not group:
            return []
        try:
            self._commit(group, patiently=True, grouped=True)
        except StoreError as refused:
            # Patience is spent once for the group. What keeps the database from one keeps it from all; where a large
            # change found no room, a small one may.
            for entry in group:
                entry.error = refused
            if refused.why == "full":
                self._run_alone(group, patiently=False)
        except Exception:  # noqa: BLE001 - whoever is at fault, or waits for a lock, hears of it when run alone
            if self._apart is None:
                self._run_alone(group, patiently=True)
            else:
                for entry in group:
                    self._apart.submit(self._run_apart, entry)
                return []
        return group

    def _run_apart(self, entry: _Entry) -> None:
        self._run_alone([entry], patiently=True)
        _answer([entry])

    def _run_alone(self, group: list[_Entry], *, patiently: bool) -> None:
        for entry in group:
            try:
                self._commit([entry], patiently=patiently)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                entry.error = error

    def _commit(self, group: list[_Entry], *, patiently: bool, grouped: bool = False) -> None:
        def change(connection: sa.Connection, now: float) -> list[Any]:
            results: list[Any] = []
            for together, entries in itertools.groupby(group, lambda entry: entry.together):
                results += together(connection, now, [entry.item for entry in entries])
            return results

        def tells(results: list[Any]) -> bool:
            return any(
                not isinstance(result, DujiangError) and entry.tells(result)
                for entry, result in zip(group, results, strict=True)
            )

        results = self._transact(change, tells, patiently=patiently, grouped=grouped)
        for entry, result in zip(group, results, strict=True):
            is_refused = isinstance(result, DujiangError)
            entry.result, entry.error = (None, result) if is_refused else (result, None)


def each(connection: sa.Connection, now: float, changes: Sequence[Change[T]]) -> Sequence[T]:
    """Changes that have nothing in common, one after the other."""
    return [change(connection, now) for change in changes]


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
