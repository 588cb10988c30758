"""`SqlEngine`: the engine port on SQL. Writes go through the database's store, reads through a pool in threads."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa

from dujiang.domain.accounts import Account, Lane
from dujiang.domain.batch import Batch
from dujiang.domain.errors import StaleTask
from dujiang.domain.lifecycle import FINAL, Event, JobFound, Orphaned, State
from dujiang.domain.limits import Limit
from dujiang.domain.pictures import LocalPicture
from dujiang.domain.rests import Rest, RestOrder, Subject
from dujiang.domain.run_times import REMEMBERED
from dujiang.domain.task import HELD_UNTIL_TOLD, Attempt, Outcome, Task
from dujiang.engines.sql import batches as batch_changes
from dujiang.engines.sql import beliefs, budgets, claims, instance, lanes, preparation, records, retention
from dujiang.engines.sql.instance import Found, Mark
from dujiang.engines.sql.postgres import PostgresStore
from dujiang.engines.sql.retention import Prunable
from dujiang.engines.sql.rows import TASK_ROWS, batch_of, rest_of, task_of, worker_of
from dujiang.engines.sql.schema import IS_HELD, attempts, batches, pruned_run_times, rests, tasks, waiters, workers
from dujiang.engines.sql.sqlite import SqliteStore
from dujiang.ports import AccountUse, Added, Ahead, Clock, LaneUse, NewTask, Offer, Published, Turn, Worker

T = TypeVar("T")

PAGE: Final = 500
CANCELLED: Final = 2000  # tasks in one transaction, about 0.1 s: what runs must not wait for it


class SqlEngine:
    """Tasks in a SQL database. See `ports.Engine` for what each method promises."""

    def __init__(self, database: sa.Engine, clock: Clock, *, own_clock: bool = False) -> None:
        """`own_clock`: `clock` decides even where the database has one; for tests."""
        self.database = database
        self._clock = clock
        self._store: SqliteStore | PostgresStore
        if database.dialect.name == "postgresql":
            self._store = PostgresStore(database, clock.now if own_clock else None)
        else:
            self._store = SqliteStore(database, clock.now)
        self._mark = Mark(Path(database.url.database or "")) if database.dialect.name == "sqlite" else None

    # -- which database it is

    async def is_itself(self) -> bool:
        """Whether this is the database that was worked with, and no copy of it: see `instance`."""
        found = await self._read(lambda connection: instance.look(connection, self._mark))
        if found is Found.NEW:
            await self._settle(instance.settle)
        return found is not Found.COPY

    async def take_over(self) -> list[str]:
        """Work with this copy from now on; the names of its unfinished batches, which are paused."""
        return await self._settle(instance.take_over)

    async def _settle(self, settle: Callable[[sa.Connection, float], T]) -> T:
        mark = self._mark

        def change(connection: sa.Connection, now: float) -> T:
            if mark is not None:
                mark.write(instance.last_event(connection))
            return settle(connection, now)

        return await self._change(change)

    # -- batches and rows

    async def open_batch(self, batch: Batch) -> Batch:
        """See `ports.Engine`."""
        return await self._change(lambda connection, now: batch_changes.open_batch(connection, batch, now))

    async def batch(self, batch_id: str) -> Batch | None:
        """See `ports.Engine`."""
        query = sa.select(batches).where(batches.c.id == batch_id)
        rows = await self._read(lambda connection: connection.execute(query).mappings().all())
        return batch_of(rows[0]) if rows else None

    async def enqueue(self, batch_id: str, rows: Sequence[NewTask]) -> Added:
        """See `ports.Engine`."""
        return await self._change(lambda connection, now: batch_changes.enqueue(connection, batch_id, rows, now))

    async def analyze(self) -> None:
        """See `ports.Engine`."""
        if self.database.dialect.name == "postgresql":
            await self._change(lambda connection, _: connection.execute(sa.text("ANALYZE tasks")), lambda _: False)

    async def retry(self, task_ids: Sequence[int], *, again: bool = False) -> list[int]:
        """See `ports.Engine`."""

        async def some(page: Sequence[int]) -> list[int]:
            return await self._change(lambda connection, now: batch_changes.retry(connection, page, now, again=again))

        # In pages, so that what runs need not wait for long to have its job ids committed.
        pages = [await some(task_ids[start : start + PAGE]) for start in range(0, len(task_ids), PAGE)]
        return [task_id for page in pages for task_id in page]

    async def pause(self, batch_id: str, *, paused: bool) -> None:
        """See `ports.Engine`."""
        statement = sa.update(batches).where(batches.c.id == batch_id).values(paused=paused)
        await self._change(lambda connection, _: connection.execute(statement))

    async def pause_everything(self, *, paused: bool) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: lanes.pause_everything(connection, paused=paused))

    async def everything_is_paused(self) -> bool:
        """See `ports.Engine`."""
        return await self._read(lanes.everything_is_paused)

    async def set_priority(self, priority: int, *, batch_id: str | None = None, task_ids: Sequence[int] = ()) -> int:
        """See `ports.Engine`."""

        def change(connection: sa.Connection, _: float) -> int:
            return batch_changes.set_priority(connection, priority, batch_id, task_ids)

        return await self._change(change)

    async def set_budget(self, batch_id: str, max_images: int | None) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: budgets.set_budget(connection, batch_id, max_images))

    async def cancel(self, *, batch_id: str | None = None, task_ids: Sequence[int] = ()) -> Mapping[str, int]:
        """See `ports.Engine`."""
        if batch_id is None:
            return await self._change(lambda connection, now: batch_changes.cancel(connection, task_ids, now))

        def some(connection: sa.Connection, now: float) -> int:
            return batch_changes.cancel_waiting(connection, batch_id, now, CANCELLED)

        cancelled = 0
        while page := await self._change(some):
            cancelled += page
        done = await self._change(lambda connection, now: batch_changes.cancel_running(connection, batch_id, now))
        return done | {"cancelled": done["cancelled"] + cancelled}

    async def counts(self, batch_id: str) -> Mapping[State, int]:
        """See `ports.Engine`."""
        return await self._read(lambda connection: batch_changes.counts(connection, batch_id))

    async def open_batches(self) -> list[Batch]:
        """See `ports.Engine`."""
        unfinished = [state.value for state in State if state not in FINAL]
        to_do = sa.exists().where(tasks.c.batch_id == batches.c.id, tasks.c.newest, tasks.c.state.in_(unfinished))
        query = sa.select(batches).where(~batches.c.paused, to_do).order_by(batches.c.created_at, batches.c.id)
        rows = await self._read(lambda connection: connection.execute(query).mappings().all())
        return [batch_of(row) for row in rows]

    async def products(self, batch_id: str) -> frozenset[str]:
        """See `ports.Engine`."""
        return frozenset(await self._read(lambda connection: batch_changes.products(connection, batch_id)))

    # -- lanes and rests

    async def lane(self, endpoint: str, account: Account, req_key: str) -> Lane:
        """See `ports.Engine`."""
        return await self._change(lambda connection, _: lanes.lane(connection, endpoint, account, req_key))

    async def set_limit(self, lane: Lane, limit: Limit) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: lanes.set_limit(connection, lane, limit))

    async def hint(self, lane: Lane, limit: Limit | None = None) -> bool:
        """See `ports.Engine`."""
        scale = self._clock.scale

        def change(connection: sa.Connection, now: float) -> bool:
            return beliefs.hint(connection, lane.id, limit, now=now, scale=scale)

        return await self._change(change)

    async def lanes(self) -> list[LaneUse]:
        """See `ports.Engine`."""
        return await self._read(lambda connection: lanes.use(connection, self._store.now(connection)))

    async def accounts(self, day_began_at: float) -> list[AccountUse]:
        """See `ports.Engine`."""
        return await self._read(lambda connection: lanes.account_uses(connection, day_began_at))

    async def stop_account(self, account_id: int, stopped: str | None) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: lanes.stop_account(connection, account_id, stopped))

    async def cap_account(self, account_id: int, daily_images: int | None) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: lanes.cap_account(connection, account_id, daily_images))

    async def run_times(self, lane_id: int) -> list[float]:
        """See `ports.Engine`."""
        last = (
            sa.select(attempts.c.run_s, attempts.c.ended_at)
            .where(attempts.c.lane_id == lane_id, attempts.c.run_s.is_not(None))
            .order_by(attempts.c.ended_at.desc())
            .limit(REMEMBERED)
        )
        pruned = (
            sa.select(pruned_run_times.c.run_s, pruned_run_times.c.ended_at)
            .where(pruned_run_times.c.lane_id == lane_id)
            .order_by(pruned_run_times.c.ended_at.desc())
            .limit(REMEMBERED)
        )

        def read(connection: sa.Connection) -> list[tuple[float, float]]:
            return [(row.ended_at, row.run_s) for query in (last, pruned) for row in connection.execute(query)]

        return [run_s for _, run_s in sorted(await self._read(read))[-REMEMBERED:]]

    async def rests(self) -> list[Rest]:
        """See `ports.Engine`."""
        rows = await self._read(lambda connection: connection.execute(sa.select(rests)).mappings().all())
        return [rest_of(row) for row in rows]

    async def rest(self, order: RestOrder) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, now: records.rest(connection, order, now))

    async def end_rest(self, subject: Subject, key: str) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, _: records.end_rest(connection, subject, key))

    # -- retention

    async def prunable(self, older_than_s: float) -> list[Prunable]:
        """Batches that are over and have not changed for so long (a day at least), oldest first."""
        return await self._read(
            lambda connection: retention.prunable(connection, older_than_s, self._store.now(connection))
        )

    async def prune(self, batch_id: str, older_than_s: float, day_of: Callable[[float], str]) -> int | None:
        """Forget a batch's tasks and keep what they cost; how many there were, None if it may not go (any more).

        `day_of`: the day that a moment belongs to. Whoever is killed in between is gone on with by the next one.
        """

        def page(connection: sa.Connection, _: float) -> int:
            return retention.prune_page(connection, batch_id, day_of)

        if not await self._change(lambda connection, now: retention.mark(connection, batch_id, older_than_s, now)):
            return None
        pruned = 0
        while gone := await self._change(page, tells=lambda gone: False):
            pruned += gone
        return pruned

    # -- work

    async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
        """See `ports.Engine`."""
        mark = self._mark

        def change(connection: sa.Connection, now: float) -> tuple[Turn, int]:
            turn = claims.claim(connection, worker, offers, batch_id, now)
            return turn, instance.last_event(connection) if mark is not None and turn.tasks else 0

        turn, last_event = await self._change(change, tells=lambda done: _took_something(done[0]))
        if mark is not None and last_event:
            # Behind the commit: a mark for what was never committed would make a copy of the original.
            with suppress(OSError):  # the tasks are claimed: a full disk may only cost that a copy isn't noticed
                await asyncio.to_thread(mark.write, last_event)
        return turn

    async def claim_preparation(self, worker: Worker, batch_id: str, ahead: Ahead) -> Turn:
        """See `ports.Engine`."""
        return await self._change(
            lambda connection, now: preparation.claim_preparation(connection, worker, batch_id, ahead, now),
            tells=_took_something,
        )

    async def published(self, sha256s: Sequence[str], host: str) -> Mapping[str, Published]:
        """See `ports.Engine`."""
        return await self._read(lambda connection: preparation.published(connection, sha256s, host))

    async def publish(self, picture: LocalPicture, host: str, url: str) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, now: preparation.publish(connection, picture, host, url, now))

    async def confirm(self, picture: LocalPicture, host: str, *, there: bool) -> None:
        """See `ports.Engine`."""
        await self._change(lambda connection, now: preparation.confirm(connection, picture, host, now, there=there))

    async def record(
        self, task: Task, event: Event, rest: RestOrder | None = None, worker: Worker | None = None
    ) -> Task:
        """See `ports.Engine`."""
        learning = records.Learning(self._clock.scale, self._clock.random.random())
        recording = records.Recording(task, event, worker.id if worker else None, rest, learning)
        if isinstance(event, JobFound):  # that no other task has the job is looked up: the one before must be written
            return await self._change(lambda connection, now: records.record(connection, recording, now))
        return await self._store.together(records.record_all, recording)

    async def hold_slot(self, task: Task, for_s: float | None) -> None:
        """See `ports.Engine`."""
        if task.attempt is None:
            return
        number = task.attempt.number

        def change(connection: sa.Connection, now: float) -> None:
            until = HELD_UNTIL_TOLD if for_s is None else now + for_s
            still_so = sa.select(tasks.c.id).where(tasks.c.id == task.id, tasks.c.version == task.version)
            if connection.execute(still_so.with_for_update(read=True)).first() is None:
                return  # somebody else looks at its job by now, and knows better
            connection.execute(
                sa.update(attempts)
                .where(
                    attempts.c.task_id == task.id,
                    attempts.c.number == number,
                    attempts.c.outcome == Outcome.RUNNING.value,
                )
                .values(slot_until=until, slot_for_s=for_s or 0.0)
            )

        await self._change(change)

    async def task(self, task_id: int) -> Task | None:
        """See `ports.Engine`."""
        found = await self._tasks(TASK_ROWS.where(tasks.c.id == task_id))
        return found[0] if found else None

    async def generating(self, batch_id: str) -> list[Task]:
        """See `ports.Engine`."""
        return await self._tasks(TASK_ROWS.where(tasks.c.batch_id == batch_id, tasks.c.state == State.GENERATING.value))

    async def doubts(self, batch_id: str) -> list[Task]:
        """See `ports.Engine`."""
        query = TASK_ROWS.where(tasks.c.batch_id == batch_id, tasks.c.state == State.IN_DOUBT.value, tasks.c.newest)
        # Put in order here: to save itself that, SQLite would walk the whole batch.
        return sorted(await self._tasks(query), key=lambda task: (task.position, task.id))

    async def cancel_requests(self, worker: Worker) -> list[int]:
        """See `ports.Engine`."""
        query = sa.select(tasks.c.id).where(
            tasks.c.owner == worker.id,
            IS_HELD,
            tasks.c.cancel_requested,
            tasks.c.newest,  # a superseded row that was sent goes on; it is only not sent again
        )
        return list(await self._read(lambda connection: connection.execute(query).scalars().all()))

    async def finished(self, batch_id: str) -> AsyncIterator[Task]:
        """See `ports.Engine`."""
        final = [state.value for state in FINAL]
        position, last_id = -1, -1
        while True:
            page = await self._tasks(
                TASK_ROWS.where(
                    tasks.c.batch_id == batch_id,
                    tasks.c.newest,
                    sa.tuple_(tasks.c.position, tasks.c.id) > sa.tuple_(sa.literal(position), sa.literal(last_id)),
                    tasks.c.state.in_(final),
                )
                .order_by(tasks.c.position, tasks.c.id)
                .limit(PAGE)
            )
            for task in page:
                yield task
            if len(page) < PAGE:
                return
            position, last_id = page[-1].position, page[-1].id

    # -- workers

    async def register(self, worker: Worker) -> None:
        """See `ports.Engine`."""
        names = ("id", "machine", "pid", "started_at", "name", "version")
        values = {name: getattr(worker, name) for name in names}
        await self._change(lambda connection, now: connection.execute(sa.insert(workers).values(seen_at=now, **values)))

    async def heartbeat(self, worker: Worker) -> bool:
        """See `ports.Engine`."""

        def change(connection: sa.Connection, now: float) -> bool:
            this = workers.c.id == worker.id
            was_ended = connection.execute(sa.select(workers.c.ended_at).where(this).with_for_update()).scalar()
            connection.execute(sa.update(workers).where(this).values(seen_at=now, ended_at=None))
            return was_ended is None

        return await self._change(change, tells=lambda lived: False)

    async def unregister(self, worker: Worker) -> None:
        """See `ports.Engine`."""

        def change(connection: sa.Connection, now: float) -> None:
            connection.execute(sa.delete(waiters).where(waiters.c.worker == worker.id))
            connection.execute(sa.update(workers).where(workers.c.id == worker.id).values(ended_at=now))

        await self._change(change)

    async def workers(self) -> list[Worker]:
        """See `ports.Engine`."""
        holding = sa.select(tasks.c.owner).where(IS_HELD, tasks.c.owner.is_not(None))
        query = sa.select(workers).where(sa.or_(workers.c.ended_at.is_(None), workers.c.id.in_(holding)))

        def read(connection: sa.Connection) -> list[Worker]:
            now = self._store.now(connection)
            return [worker_of(row, now) for row in connection.execute(query).mappings()]

        return await self._read(read)

    async def adopt(
        self,
        worker: Worker,
        gone: Worker | None,
        slot_for_s: Callable[[int], float],
        reaches: Callable[[Attempt], bool] = lambda attempt: True,
    ) -> list[Task]:
        """See `ports.Engine`."""

        def change(connection: sa.Connection, now: float) -> list[Task]:
            held = tasks.c.owner.is_(None) if gone is None else tasks.c.owner == gone.id
            if gone is not None and _was_heard_of(connection, gone, now):
                return []
            rows = connection.execute(TASK_ROWS.where(held, IS_HELD).order_by(tasks.c.id)).mappings().all()
            adopted: list[Task] = []
            for row in rows:
                task = task_of(row)
                if task.state is State.GENERATING and task.attempt and not reaches(task.attempt):
                    continue
                lasts_s = slot_for_s(task.attempt.lane_id) if task.attempt else 0.0
                event = Orphaned(gone.id if gone else "", lasts_s)
                adopted.append(records.record(connection, records.Recording(task, event, worker.id), now))
            if gone is not None:
                connection.execute(sa.delete(waiters).where(waiters.c.worker == gone.id))
                connection.execute(sa.update(workers).where(workers.c.id == gone.id).values(ended_at=now))
            return adopted

        try:
            # Every worker looks every few seconds: if each look woke all others, a fleet at rest would be busy.
            return await self._change(change, tells=bool)
        except StaleTask:
            return []  # somebody else was faster; what is left is found at the next look

    async def shorten_waits(self) -> None:
        """After the clock went back: no stored wait is honoured longer than its length from now."""
        await self._change(lanes.shorten_waits)

    async def changed_elsewhere(self) -> bool:
        """See `ports.Engine`."""
        return await self._store.changed_elsewhere()

    def waited_for(self) -> AbstractContextManager[None]:
        """Inside, a PostgreSQL that is away or full is waited for, for however long."""
        return self._store.waited_for()

    async def aclose(self) -> None:
        """See `ports.Engine`."""
        await asyncio.to_thread(self._store.close)
        self.database.dispose()

    async def reading(self, read: Callable[[sa.Connection], T]) -> T:
        """What a door reads, in a thread; a database that is away is waited for as for everything here."""
        return await self._read(read)

    # -- how

    async def _change(
        self, change: Callable[[sa.Connection, float], T], tells: Callable[[T], bool] = lambda result: True
    ) -> T:
        return await self._store.change(change, tells)

    async def _read(self, read: Callable[[sa.Connection], T]) -> T:
        def run() -> T:
            with self.database.connect().execution_options(reading=True) as connection:
                return read(connection)

        return await self._store.read(run)

    async def _tasks(self, query: sa.Select[tuple[object, ...]]) -> list[Task]:
        rows = await self._read(lambda connection: connection.execute(query).mappings().all())
        return [task_of(row) for row in rows]


def _took_something(turn: Turn) -> bool:
    """Whether others want to know of it."""
    return bool(turn.tasks)


def _was_heard_of(connection: sa.Connection, silent: Worker, now: float) -> bool:
    """Whether a worker has shown that it lives since it was seen to be silent; its next heartbeat waits for us."""
    query = sa.select(workers).where(workers.c.id == silent.id).with_for_update(key_share=True)
    row = connection.execute(query).mappings().one_or_none()
    return row is not None and worker_of(row, now).silent_s < silent.silent_s
