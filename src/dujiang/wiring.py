"""The only module that knows every part: settings in, a working program out."""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies

import sqlalchemy as sa
import stamina

from dujiang.domain.accounts import Account
from dujiang.domain.batch import Batch
from dujiang.domain.errors import DujiangError
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.domain.retry import RetryRules
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import report_rows
from dujiang.ports import Clock, Engine, ImageStore, Provider, ReferenceCheck
from dujiang.providers.jimeng import probe as probing
from dujiang.providers.jimeng.connections import endpoint_url, is_loopback, open_client
from dujiang.providers.jimeng.models import MODELS
from dujiang.providers.jimeng.probe import Probe
from dujiang.providers.jimeng.provider import JimengProvider, Timeouts
from dujiang.providers.jimeng.proxies import proxy_to
from dujiang.providers.jimeng.references import LinkCheck
from dujiang.runner.admission import Admission, LimitSettings
from dujiang.runner.clock import SystemClock
from dujiang.runner.folders import BatchFolders
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.polling import Pacer
from dujiang.runner.presence import LockedPresence
from dujiang.runner.progress import Progress
from dujiang.runner.rescuer import Rescuer
from dujiang.runner.run_task import Neighbours, RunTask
from dujiang.runner.worker import BatchWorker
from dujiang.settings import Settings, parsed_limit
from dujiang.storage import reports
from dujiang.storage.files import FileStore


class NoCredentials(DujiangError):
    """There is no account to submit with."""

    code = "no_credentials"


class EndpointRefused(DujiangError):
    """The endpoint must not be used; `text_code` says why."""

    def __init__(self, text_code: str, endpoint: str) -> None:
        super().__init__(text_code)
        self.text_code = text_code
        self.fields = {"endpoint": endpoint}


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


def check_endpoint(settings: Settings) -> None:
    """Raises `EndpointRefused` for an endpoint, or a way to it, that must not be used."""
    try:
        open_client(endpoint_url(settings.jimeng_endpoint), keep_alive=0, tls=False)
    except ValueError as error:
        raise _refused(error, settings) from None


def _refused(error: ValueError, settings: Settings) -> EndpointRefused:
    """What isn't said about the endpoint is said about the proxies that the environment names."""
    known = {"endpoint_invalid", "endpoint_insecure"}
    return EndpointRefused(str(error) if str(error) in known else "proxy_unsupported", settings.jimeng_endpoint)


@dataclass(frozen=True, slots=True)
class Way:
    """How requests get to the endpoint: `proxy` is None where none is used, as always on this machine."""

    on_this_machine: bool
    proxy: str | None


def way_to_endpoint(settings: Settings) -> Way:
    """Which proxy of the environment is used. ValueError for an endpoint that must not be used."""
    url = endpoint_url(settings.jimeng_endpoint)
    return Way(is_loopback(url.host), proxy_to(url, getproxies()))


async def probe(settings: Settings, account: Account) -> Probe:
    """Whether the vendor is there and takes the account's key."""
    _retry_in_silence()
    clock = SystemClock()
    try:
        provider = make_provider(settings, clock)
    except ValueError as error:
        raise _refused(error, settings) from None
    try:
        return await probing.probe(provider, account, clock)
    finally:
        await provider.aclose()


def _retry_in_silence() -> None:
    """A retry is told by the event that it leads to, not on stderr."""
    stamina.instrumentation.set_on_retry_hooks([])


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
    _retry_in_silence()
    accounts = accounts_of(settings)
    provider = parts.provider(make_provider(settings, clock))
    store = parts.store(make_store(settings, clock))
    links = LinkCheck(settings.jimeng_endpoint)
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
    rescuer = Rescuer(engine, presence, times, admission.reaches)
    return BatchWorker(engine, provider, clock, admission, rescuer, RunTask(neighbours, presence.worker), presence)


def make_progress(
    settings: Settings, worker: BatchWorker, engine: Engine, batch: Batch, req_keys: Iterable[str]
) -> Progress:
    """What a door shows while `worker` works on `batch`."""
    clock = SystemClock(settings.time_scale)
    return Progress(
        engine, clock, worker.admission, batch, req_keys, settings.jimeng_retries, lambda: worker.images_saved
    )


def write_reports(connection: sa.Connection, batch: Batch, folder: Path, summary: Mapping[str, object]) -> None:
    """`manifest.jsonl`, `failed.csv` and `summary.json` of a batch, from the database."""
    parameters = sorted({name for model in MODELS.values() for name in model.parameters})
    reports.write_summary(folder, summary)
    with reports.manifest(folder) as add_image:
        for task in report_rows(connection, batch.id):
            for file in task["files"]:
                add_image(_image_line(task, file))
    # Last: it may be open in Excel, which must not cost the others.
    with reports.failed(folder, parameters) as add_failed:
        for task in report_rows(connection, batch.id):
            if task["state"] in UNSUCCESSFUL:
                add_failed(_failed_row(batch, task))


UNSUCCESSFUL: Final = frozenset({State.FAILED.value, State.BLOCKED.value, State.LOST.value})


def _image_line(task: Mapping[str, Any], file: Mapping[str, Any]) -> dict[str, object]:
    names = ("prompt", "model", "parameters", "refs", "account", "job_id", "request_id")
    times = ("created_at", "sent_at", "accepted_at", "ended_at")
    return {
        "task": task["id"],
        "row": task["row"],
        **{name: task[name] for name in names},
        **{name: task[name] for name in times},
        "file": f"images/{file['path']}",
        **{name: file[name] for name in ("sha256", "bytes", "width", "height")},
    }


def _failed_row(batch: Batch, task: Mapping[str, Any]) -> reports.FailedRow:
    error = task["error"] or {"code": "", "message": ""}
    return reports.FailedRow(
        prompt=task["prompt"],
        model=task["model"],
        batch=batch.id,
        row=task["row"],
        state=task["state"],
        error=f"{error['code']} {error['message'] or ''}".strip(),
        name=task["name"],
        references=task["refs"],
        parameters=task["parameters"],
    )
