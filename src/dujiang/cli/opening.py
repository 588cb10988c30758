"""What most commands begin with: settings, the database, and finding what a word means."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from dujiang.cli.exits import Refused
from dujiang.domain.errors import BatchPruned
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import find_batch, reading
from dujiang.settings import Settings, load

T = TypeVar("T")


def settings_of(home: Path | None, **flags: object) -> Settings:
    """The settings in force, and their language."""
    from dujiang.messages import Language, use_language

    settings = load(home=home, **flags)
    if settings.lang is not None and not _language_flag_given():
        use_language(Language(settings.lang))
    return settings


def _language_flag_given() -> bool:
    from dujiang.messages import language_is_chosen

    return language_is_chosen()


@contextmanager
def read_database(settings: Settings) -> Iterator[sa.Connection]:
    """A connection for reading alone."""
    database = connect(settings.database)
    try:
        with reading(database) as connection:
            yield connection
    finally:
        database.dispose()


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[SqlEngine]:
    """The engine, for a change or two."""
    from dujiang import wiring

    async with wiring.open_engine(settings) as engine:
        yield engine


def change(settings: Settings, what: Callable[[SqlEngine], Coroutine[Any, Any, T]]) -> T:
    """Run one change on the engine."""

    async def run() -> T:
        async with open_engine(settings) as engine:
            return await what(engine)

    return asyncio.run(run())


def batch_named(connection: sa.Connection, word: str) -> dict[str, Any]:
    """The batch that `word` names. Raises `Refused` if there is none, or more than one."""
    found = find_batch(connection, word)
    if not found:
        raise Refused("batch_unknown", batch=word)
    if len(found) > 1:
        places = "".join(f"\n  {batch['id']}  {batch['out']}" for batch in found)
        raise Refused("batch_ambiguous", batch=word, places=places)
    return found[0]


def living_batch(connection: sa.Connection, word: str) -> dict[str, Any]:
    """The same, for what is still to be steered. Raises `BatchPruned` if there is nothing left of it."""
    batch = batch_named(connection, word)
    if batch["pruned_at"] is not None:
        raise BatchPruned(batch["batch"])
    return batch
