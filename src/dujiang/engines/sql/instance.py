"""Whether a database is the one that was worked with, or a copy restored from a backup.

A copy still has as ready what the original went on to submit: worked on, it would pay for that again. So a database
remembers where it is, and one that finds itself elsewhere is worked on only after somebody has taken it over.
- PostgreSQL: the server's identity and the database's number in it. A dump restored anywhere has another number.
- SQLite: its path, and beside the file the number of the last event that a claim has written. A file put back in the
  same place is behind that number.
A snapshot of a whole server or home folder can't be told from the original: there `take_over` has to be asked for.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from dujiang.domain.lifecycle import FINAL
from dujiang.engines.sql.schema import batches, instances, tasks

SUFFIX: Final = ".seen"
_LAST_EVENT: Final = sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
_MAY_SEE_SERVER: Final = sa.text("SELECT has_function_privilege('pg_control_system()', 'execute')")
_SERVER: Final = sa.text("SELECT system_identifier::text FROM pg_control_system()")
_NUMBER: Final = sa.text("SELECT oid::text FROM pg_database WHERE datname = current_database()")
_CURRENT: Final = sa.select(instances.c.place).order_by(instances.c.id.desc()).limit(1)
_UNFINISHED: Final = sa.exists().where(
    tasks.c.batch_id == batches.c.id, tasks.c.state.not_in(sorted(state.value for state in FINAL))
)


class Found(StrEnum):
    """What a database finds out about itself."""

    NEW = "new"
    ITSELF = "itself"
    COPY = "copy"


class Mark:
    """The number beside a SQLite file. Not forced to the disk: after a crash of the machine it may only be too low."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + SUFFIX)

    def read(self) -> int:
        """0 if there is none."""
        try:
            return int(self._path.read_text("ascii") or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def write(self, event_id: int) -> None:
        """In one piece: another program may read it now."""
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(file, f"{event_id:020d}".encode("ascii"))
        finally:
            os.close(file)


def last_event(connection: sa.Connection) -> int:
    """Of a SQLite database; it never falls, whatever is pruned."""
    return int(connection.execute(_LAST_EVENT).scalar() or 0)


def look(connection: sa.Connection, mark: Mark | None) -> Found:
    """Where it is, beside where it was."""
    seen = mark.read() if mark is not None else 0  # first: others go on meanwhile
    current = connection.execute(_CURRENT).scalar()
    is_behind = mark is not None and last_event(connection) < seen
    if current is None:
        # Made before databases remembered it, or a moment ago, perhaps in the place of one that was removed.
        is_empty = connection.execute(sa.select(tasks.c.id).limit(1)).first() is None
        return Found.NEW if is_empty or not is_behind else Found.COPY
    return Found.COPY if is_behind or current != _place(connection) else Found.ITSELF


def settle(connection: sa.Connection, now: float) -> None:
    """It is here from now on."""
    connection.execute(sa.insert(instances).values(place=_place(connection), at=now))


def take_over(connection: sa.Connection, now: float) -> list[str]:
    """Somebody has decided that this copy goes on: it is here, and each unfinished batch waits for its own decision."""
    settle(connection, now)
    names = connection.execute(sa.select(batches.c.name).where(_UNFINISHED).order_by(batches.c.created_at)).scalars()
    found = list(names)
    connection.execute(sa.update(batches).where(_UNFINISHED).values(paused=True))
    return found


def _place(connection: sa.Connection) -> str:
    if connection.dialect.name == "postgresql":
        server = connection.execute(_SERVER).scalar() if connection.execute(_MAY_SEE_SERVER).scalar() else ""
        return f"postgresql:{server}:{connection.execute(_NUMBER).scalar()}"
    return f"sqlite:{Path(connection.engine.url.database or '').resolve()}"
