"""The only module that knows every part: settings in, a working program out."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dujiang.domain.accounts import Account
from dujiang.domain.errors import DujiangError
from dujiang.domain.limits import FixedLimit
from dujiang.domain.retry import RetryRules
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.ports import Clock, Engine, ImageStore, Provider, ReferenceCheck
from dujiang.providers.jimeng.provider import JimengProvider, Timeouts
from dujiang.providers.jimeng.references import LinkCheck
from dujiang.runner.admission import Admission, LimitSettings
from dujiang.runner.clock import SystemClock
from dujiang.runner.folders import BatchFolders
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.polling import Pacer
from dujiang.runner.presence import LockedPresence
from dujiang.runner.rescuer import Rescuer
from dujiang.runner.run_task import Neighbours, RunTask
from dujiang.runner.worker import BatchWorker
from dujiang.settings import Settings, parsed_limit
from dujiang.storage.files import FileStore

if TYPE_CHECKING:
    from types import TracebackType


class NoCredentials(DujiangError):
    """There is no account to submit with."""

    code = "no_credentials"


@dataclass(frozen=True, slots=True)
class Parts:
    """How each neighbour is made. Tests put others in their place; settings never do."""

    engine: Callable[[Engine], Engine] = field(default=lambda engine: engine)
    provider: Callable[[Provider], Provider] = field(default=lambda provider: provider)
    store: Callable[[ImageStore], ImageStore] = field(default=lambda store: store)


@asynccontextmanager
async def open_engine(settings: Settings, clock: Clock | None = None) -> AsyncIterator[SqlEngine]:
    """The database, opened and up to date. Raises `DatabaseRefused`."""
    engine = SqlEngine(connect(settings.database), clock or SystemClock(settings.time_scale))
    try:
        yield engine
    finally:
        await engine.aclose()


def make_provider(settings: Settings, clock: Clock) -> JimengProvider:
    """The vendor. ValueError for an endpoint that must not be used."""
    timeouts = Timeouts(settings.connect_timeout, settings.submit_timeout, settings.poll_timeout)
    return JimengProvider(settings.jimeng_endpoint, clock, timeouts)


def make_store(settings: Settings, clock: Clock) -> FileStore:
    """The disk."""
    return FileStore(
        clock,
        connect_timeout_s=settings.connect_timeout,
        stall_timeout_s=settings.download_timeout,
        downloads=settings.downloads_at_once,
    )


def retry_rules(settings: Settings) -> RetryRules:
    """Every wait that can follow a submit, scaled."""
    return RetryRules.classic(
        settings.time_scale,
        tries=settings.jimeng_retries,
        base_s=settings.jimeng_backoff,
        longest_s=settings.jimeng_backoff_max,
    )


def accounts_of(settings: Settings) -> list[Account]:
    """The accounts that may be used. Raises `NoCredentials`."""
    accounts = settings.configured_accounts()
    if not accounts:
        raise NoCredentials
    return accounts


@asynccontextmanager
async def open_worker(
    settings: Settings,
    engine: SqlEngine,
    clock: Clock,
    *,
    set_limit: FixedLimit | None = None,
    parts: Parts | None = None,
) -> AsyncIterator[BatchWorker]:
    """A worker with everything it needs, alive for as long as the block lasts."""
    parts = parts or Parts()
    accounts = accounts_of(settings)
    provider = parts.provider(make_provider(settings, clock))
    store = parts.store(make_store(settings, clock))
    links = LinkCheck()
    presence = LockedPresence(settings.home_folder / "workers", pid=os.getpid(), now=clock.now())
    try:
        worker = await _assembled(
            settings, parts.engine(engine), clock, accounts, provider, store, links, presence, set_limit
        )
        yield worker
    finally:
        presence.leave()
        await provider.aclose()
        await store.aclose()
        await links.aclose()


async def _assembled(
    settings: Settings,
    engine: Engine,
    clock: Clock,
    accounts: list[Account],
    provider: Provider,
    store: ImageStore,
    links: ReferenceCheck,
    presence: LockedPresence,
    set_limit: FixedLimit | None,
) -> BatchWorker:
    times = LaneTimes(engine, clock, settings.submit_timeout)
    limits = LimitSettings(parsed_limit(settings.concurrency))
    admission = Admission(engine, provider.endpoint, provider.models, accounts, limits, times)
    await admission.open_lanes(set_limit)
    pacers: dict[int, Pacer] = {}
    neighbours = Neighbours(
        engine=engine,
        provider=provider,
        store=store,
        references=links,
        clock=clock,
        rules=retry_rules(settings),
        times=times,
        keys=admission.key,
        pacers=lambda account_id: pacers.setdefault(account_id, Pacer(clock, settings.queries_a_second)),
        folder=BatchFolders(engine).images,
    )
    rescuer = Rescuer(engine, presence, times)
    return BatchWorker(engine, provider, clock, admission, rescuer, RunTask(neighbours, presence.worker), presence)
