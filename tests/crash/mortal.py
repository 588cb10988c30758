"""Where a process of the product can be made to die: its own parts, with one step that kills.

Each part here is the product's own object under another class, so everything but the moment of death is as shipped.
"""

import os
import signal
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx2
import sqlalchemy as sa

from dujiang.domain.accounts import Key
from dujiang.domain.lifecycle import Event
from dujiang.domain.requests import Request
from dujiang.domain.rests import RestOrder
from dujiang.domain.task import Task
from dujiang.engines.sql.engine import SqlEngine
from dujiang.ports import Job, Offer, Turn, Worker
from dujiang.providers.jimeng.provider import JimengProvider
from dujiang.storage.files import FileStore

DIED: Final = "died"


class Point(StrEnum):
    """A moment at which to die."""

    AFTER_SUBMITTING_COMMIT = "after_submitting_commit"  # the attempt is on disk, nothing has been sent
    AFTER_SEND = "after_send"  # every byte of the submit has left, no answer has been read
    AFTER_ACCEPT = "after_accept"  # the answer was read, nobody has written it down
    BEFORE_JOB_ID_COMMIT = "before_job_id_commit"  # inside the transaction that writes it down
    BEFORE_RENAME = "before_rename"  # the picture is on disk, under no name yet
    AFTER_RENAME = "after_rename"  # it has its name, and the database doesn't know
    IN_MIGRATION = "in_migration"  # the database itself is half made
    BETWEEN_ENQUEUES = "between_enqueues"  # some rows of the file are in, some are not


def tell(line: str) -> None:
    """One line to whoever watches, at once and from any thread."""
    os.write(1, f"{line}\n".encode())


class Death:
    """Comes when `point` is passed for the `on_pass`-th time; never if there is no point."""

    def __init__(self, point: Point | None, on_pass: int = 1) -> None:
        self._point = point
        self._left = on_pass
        self._lock = threading.Lock()

    def passing(self, point: Point, times: int = 1) -> None:
        """The process is at `point` now."""
        if point is not self._point or not times:
            return
        with self._lock:
            self._left -= times
            if self._left <= 0:
                die(point)


def die(point: Point) -> NoReturn:
    """End this process as a power cut would: no handler runs, no buffer is flushed."""
    tell(f"{DIED} {point}")
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows any signal is TerminateProcess
    raise AssertionError("survived")


class MortalEngine(SqlEngine):
    """The engine; tells every event that is on disk, so that others can kill at a moment of their choice."""

    def __init__(self, engine: SqlEngine, death: Death) -> None:
        vars(self).update(vars(engine))
        self._death = death

    async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
        """As shipped; then the attempts are on disk, and nothing has been sent."""
        turn = await super().claim(worker, offers, batch_id)
        self._death.passing(Point.AFTER_SUBMITTING_COMMIT, len(turn.tasks))
        for task in turn.tasks:
            tell(f"Claimed {task.id}")
        return turn

    async def record(
        self, task: Task, event: Event, rest: RestOrder | None = None, worker: Worker | None = None
    ) -> Task:
        """As shipped."""
        moved = await super().record(task, event, rest, worker)
        tell(f"{type(event).__name__} {task.id}")
        return moved


class MortalProvider(JimengProvider):
    """The vendor's adapter."""

    def __init__(self, provider: JimengProvider, death: Death) -> None:
        vars(self).update(vars(provider))
        self._death = death
        self._submits.event_hooks = {"request": [self._watch]}

    async def submit(self, request: Request, references: Sequence[str], key: Key) -> Job:
        """As shipped; then the answer is known to this process alone."""
        job = await super().submit(request, references, key)
        self._death.passing(Point.AFTER_ACCEPT)
        return job

    async def _watch(self, request: httpx2.Request) -> None:
        trace = request.extensions["trace"]

        async def watched(step: str, info: dict[str, Any]) -> None:
            await trace(step, info)
            if step.endswith("send_request_body.complete"):  # the system has every byte, and delivers without us
                self._death.passing(Point.AFTER_SEND)

        request.extensions["trace"] = watched


class MortalStore(FileStore):
    """The disk."""

    def __init__(self, store: FileStore, death: Death) -> None:
        vars(self).update(vars(store))
        self._death = death

    def _publish(self, part: Path, final: Path) -> None:
        self._death.passing(Point.BEFORE_RENAME)
        super()._publish(part, final)
        self._death.passing(Point.AFTER_RENAME)


def die_in_transactions(death: Death) -> None:
    """From now on, every database of this process has the points that lie inside a transaction."""

    @sa.event.listens_for(sa.Engine, "after_cursor_execute")
    def executed(connection: sa.Connection, _: Any, statement: str, *__: Any) -> None:
        if statement.lstrip().startswith("CREATE TABLE"):
            death.passing(Point.IN_MIGRATION)
        if statement.startswith("UPDATE attempts") and "job_id=" in statement:
            connection.info["job_id_written"] = True

    @sa.event.listens_for(sa.Engine, "commit")
    def committing(connection: sa.Connection) -> None:
        if connection.info.pop("job_id_written", False):
            death.passing(Point.BEFORE_JOB_ID_COMMIT)

    @sa.event.listens_for(sa.Engine, "rollback")
    def undone(connection: sa.Connection) -> None:
        connection.info.pop("job_id_written", None)
