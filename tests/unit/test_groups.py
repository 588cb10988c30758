"""Changes that share a transaction."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import pytest
import sqlalchemy as sa

from dujiang.domain.errors import DujiangError, StaleTask, StoreError
from dujiang.engines.sql.groups import Change, Groups, Tells, each

T = TypeVar("T")
NOW = 7.0
NO_CONNECTION = cast("sa.Connection", None)


class Database:
    """Keeps what was committed, and whether it was told to others."""

    def __init__(self) -> None:
        self.committed: list[list[Any]] = []
        self.told: list[bool] = []
        self.fails: Callable[[bool], None] = lambda patiently: None
        self._written: list[Any] = []

    def transact(self, change: Change[T], tells: Tells[T], *, patiently: bool = True, grouped: bool = False) -> T:
        """Run a change; what it wrote is there once it has returned."""
        self._written = []
        self.fails(patiently)
        result = change(NO_CONNECTION, NOW)
        self.committed.append(self._written)
        self.told.append(tells(result))
        return result

    def writes(self, what: Any) -> Change[Any]:
        """A change that writes it, and returns it."""

        def change(_: sa.Connection, now: float) -> Any:
            self._written.append(what)
            return what

        return change

    def write_all(self, _: sa.Connection, now: float, items: Sequence[int]) -> list[int | DujiangError]:
        """All at once; odd ones are stale."""
        self._written.append(tuple(items))
        return [item if item % 2 == 0 else StaleTask(f"{item}") for item in items]


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def groups(database: Database) -> Iterator[Groups]:
    groups = Groups(database.transact, "test")
    yield groups
    groups.close()


class Held:
    """The thread, kept busy until it may go on."""

    def __init__(self, groups: Groups) -> None:
        self.goes_on = threading.Event()
        self._is_busy = threading.Event()
        self._groups = groups

    async def begin(self) -> asyncio.Task[Any]:
        """Returns once it is busy."""

        def wait(_: sa.Connection, now: float) -> None:
            self._is_busy.set()
            assert self.goes_on.wait(30)

        held = asyncio.create_task(self._groups.do(each, wait, always))
        await asyncio.to_thread(self._is_busy.wait, 30)
        return held


def always(_: Any) -> bool:
    return True


def never(_: Any) -> bool:
    return False


async def asked(*changes: Any) -> list[asyncio.Task[Any]]:
    """Each is waiting for its turn, in this order."""
    waiting = [asyncio.ensure_future(change) for change in changes]
    await asyncio.sleep(0)
    return waiting


async def test_what_has_come_in_meanwhile_is_one_transaction_in_its_order(database: Database, groups: Groups) -> None:
    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(*(groups.do(each, database.writes(number), always) for number in range(5)))
    held.goes_on.set()

    assert await asyncio.gather(busy, *waiting) == [None, 0, 1, 2, 3, 4]
    assert database.committed == [[], [0, 1, 2, 3, 4]]


async def test_no_transaction_grows_without_end(database: Database, groups: Groups) -> None:
    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(*(groups.do(each, database.writes(number), always) for number in range(150)))
    held.goes_on.set()
    await asyncio.gather(busy, *waiting)

    assert [len(written) for written in database.committed] == [0, 64, 64, 22]


async def test_neighbours_of_one_kind_are_run_as_one_and_an_error_is_ones_own(
    database: Database, groups: Groups
) -> None:
    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(
        groups.do(database.write_all, 2, always),
        groups.do(database.write_all, 3, always),
        groups.do(each, database.writes("x"), always),
        groups.do(database.write_all, 4, always),
    )
    held.goes_on.set()
    results = await asyncio.gather(busy, *waiting, return_exceptions=True)

    assert database.committed[1:] == [[(2, 3), "x", (4,)]]
    assert results[1] == 2
    assert isinstance(results[2], StaleTask)
    assert results[3:] == ["x", 4]


async def test_one_that_raises_is_nobody_elses_fault(database: Database, groups: Groups) -> None:
    def bad(_: sa.Connection, now: float) -> None:
        raise RuntimeError("bad")

    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(
        groups.do(each, database.writes(1), always),
        groups.do(each, bad, always),
        groups.do(each, database.writes(2), always),
    )
    held.goes_on.set()
    results = await asyncio.gather(busy, *waiting, return_exceptions=True)

    assert database.committed == [[], [1], [2]]
    assert results[1] == 1
    assert isinstance(results[2], RuntimeError)
    assert results[3] == 2


@pytest.mark.parametrize(("why", "tried_alone"), [("gone", []), ("full", [False, False])])
async def test_patience_is_spent_once_and_a_small_change_may_find_room(
    database: Database, groups: Groups, why: str, tried_alone: list[bool]
) -> None:
    tries: list[bool] = []

    def refuse(patiently: bool) -> None:
        tries.append(patiently)
        if len(tries) in {1, 2}:
            raise StoreError("no", why=why)

    held = Held(groups)
    busy = await held.begin()
    database.fails = refuse
    waiting = await asked(groups.do(each, database.writes(1), always), groups.do(each, database.writes(2), always))
    held.goes_on.set()
    results = await asyncio.gather(busy, *waiting, return_exceptions=True)

    assert tries == [True, *tried_alone]
    assert isinstance(results[1], StoreError)
    assert (results[2] == 2) is bool(tried_alone)


@pytest.mark.parametrize(("tells", "is_told"), [((never, never), False), ((never, always), True)])
async def test_others_are_told_if_any_of_a_group_is_of_interest(
    database: Database, groups: Groups, tells: tuple[Tells[Any], Tells[Any]], is_told: bool
) -> None:
    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(*(groups.do(each, database.writes(1), one) for one in tells))
    held.goes_on.set()
    await asyncio.gather(busy, *waiting)

    assert database.told == [True, is_told]


async def test_what_was_refused_is_told_to_nobody(database: Database, groups: Groups) -> None:
    with pytest.raises(StaleTask):
        await groups.do(database.write_all, 3, always)

    assert database.told == [False]


async def test_it_runs_though_nobody_waits_for_it_any_more(database: Database, groups: Groups) -> None:
    held = Held(groups)
    busy = await held.begin()
    (waiting,) = await asked(groups.do(each, database.writes("job"), always))
    waiting.cancel()
    held.goes_on.set()
    await busy
    await asyncio.to_thread(groups.close)

    assert database.committed == [[], ["job"]]


async def test_what_was_accepted_is_finished_and_nothing_is_accepted_after_it(
    database: Database, groups: Groups
) -> None:
    held = Held(groups)
    busy = await held.begin()
    waiting = await asked(groups.do(each, database.writes(1), always))
    closing = asyncio.create_task(asyncio.to_thread(groups.close))
    held.goes_on.set()
    await asyncio.gather(busy, *waiting, closing)

    assert database.committed == [[], [1]]
    with pytest.raises(StoreError, match="closed"):
        await groups.do(each, database.writes(2), always)
