"""The only module that knows every part: settings in, a working program out."""

import os
import platform
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies

import sqlalchemy as sa
import stamina

from dujiang import __version__
from dujiang.connections import endpoint_name, endpoint_url, is_loopback, open_client
from dujiang.domain.accounts import Account, Lane
from dujiang.domain.batch import Batch
from dujiang.domain.errors import DujiangError
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import Limit
from dujiang.domain.retry import RetryRules, UploadRules
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import report_rows
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.hosts import superbed as hosting
from dujiang.hosts.superbed import SuperbedHost
from dujiang.messages import text
from dujiang.ports import Clock, Engine, ImageHost, ImageStore, Log, Provider, ReferenceCheck
from dujiang.providers.jimeng import probe as probing
from dujiang.providers.jimeng.models import MODELS, some_product
from dujiang.providers.jimeng.probe import Probe
from dujiang.providers.jimeng.provider import JimengProvider, Timeouts
from dujiang.providers.jimeng.proxies import proxy_to
from dujiang.providers.jimeng.references import LinkCheck
from dujiang.runner.admission import Admission, LimitSettings
from dujiang.runner.clock import SystemClock, midnight_before
from dujiang.runner.folders import BatchFolders
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.lease import Lease
from dujiang.runner.polling import Pacers
from dujiang.runner.presence import LockedPresence
from dujiang.runner.progress import Progress
from dujiang.runner.references import Publishing, References
from dujiang.runner.rescuer import Rescuer
from dujiang.runner.run_task import Neighbours, RunTask
from dujiang.runner.telling import Teller
from dujiang.runner.worker import BatchWorker
from dujiang.settings import Settings, parsed_limit
from dujiang.storage import reports
from dujiang.storage.files import FileStore
from dujiang.storage.reference_files import LocalFiles
from dujiang.telemetry.logs import LogSettings, StructuredLog, logging_to


class NoCredentials(DujiangError):
    """There is no account to submit with."""

    code = "no_credentials"


class NoHost(DujiangError):
    """References have to be published, and there is no image host to publish them with."""

    code = "no_host_token"

    def __init__(self, models: Iterable[str]) -> None:
        super().__init__(text(self.code, models=", ".join(sorted(models))))


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


@contextmanager
def open_log(settings: Settings) -> Iterator[StructuredLog]:
    """The log of a program that works, for as long as the block lasts."""
    known = settings.secrets()
    wanted = LogSettings(settings.log_path, settings.log_level, settings.log_json, settings.log_prompts, known)
    with logging_to(wanted) as log:
        yield log


@asynccontextmanager
async def open_engine(
    settings: Settings, clock: Clock | None = None, *, copies: bool = False
) -> AsyncIterator[SqlEngine]:
    """The database, opened and up to date. Raises `DatabaseRefused`, unless `copies` also for one that was restored."""
    engine = SqlEngine(connect(settings.database), clock or SystemClock(settings.time_scale))
    try:
        if not copies and not await engine.is_itself():
            raise DatabaseRefused("restored", path=settings.shown_database)
        yield engine
    finally:
        await engine.aclose()


def make_provider(settings: Settings, clock: Clock) -> JimengProvider:
    """The vendor. ValueError for an endpoint that must not be used."""
    timeouts = Timeouts(settings.connect_timeout, settings.submit_timeout, settings.poll_timeout)
    return JimengProvider(settings.jimeng_endpoint, clock, timeouts)


def check_endpoint(settings: Settings) -> None:
    """Raises `EndpointRefused` for an endpoint, or a way to it, that must not be used."""
    for endpoint in (settings.jimeng_endpoint, settings.superbed_endpoint):
        check_address(endpoint)


def check_address(endpoint: str) -> None:
    """Raises `EndpointRefused` if this one must not be used. Asks nobody."""
    try:
        open_client(endpoint_url(endpoint), keep_alive=0, tls=False)
    except ValueError as error:
        raise _refused(error, endpoint) from None


def _refused(error: ValueError, endpoint: str) -> EndpointRefused:
    """What isn't said about the endpoint is said about the proxies that the environment names."""
    known = {"endpoint_invalid", "endpoint_insecure"}
    return EndpointRefused(str(error) if str(error) in known else "proxy_unsupported", endpoint)


def check_host(settings: Settings, models: Iterable[str]) -> None:
    """Raises `NoHost` if references of one of these models can't be published."""
    if not _has_token(settings) or settings.image_host == "inline":
        lacking = [model for model in models if not goes_inline(settings, model)]
        if lacking:
            raise NoHost(lacking)


def goes_inline(settings: Settings, model: str) -> bool:
    """Whether references from files go into the request itself for this model."""
    wanted = settings.image_host == "inline" or (settings.image_host == "auto" and not _has_token(settings))
    return wanted and MODELS[model].takes_inline


def _has_token(settings: Settings) -> bool:
    """Asked without the keyring: a variable that is set and empty is no token."""
    return bool(settings.superbed_token and settings.superbed_token.get_secret_value().strip())


def make_host(settings: Settings) -> ImageHost | None:
    """The image host; None if there is no token for it."""
    token = settings.configured_superbed_token()
    if not token or settings.image_host == "inline":
        return None
    return SuperbedHost(
        settings.superbed_endpoint,
        token,
        timeout_s=settings.upload_timeout,
        connect_timeout_s=settings.connect_timeout,
    )


def make_references(
    settings: Settings, engine: Engine, host: ImageHost | None, links: ReferenceCheck, clock: Clock, log: Log
) -> References:
    """Whatever publishes references."""
    rules = UploadRules.classic(
        settings.time_scale,
        tries=settings.superbed_retries,
        base_s=settings.superbed_backoff,
        longest_s=settings.superbed_backoff_max,
    )
    publishing = Publishing(
        host,
        lambda model: goes_inline(settings, model),
        rules,
        settings.uploads_at_once,
        clock.scaled(settings.reference_good_for),
    )
    return References(engine, publishing, LocalFiles(), links, clock, log)


@dataclass(frozen=True, slots=True)
class Way:
    """How requests get to the endpoint: `proxy` is None where none is used, as always on this machine."""

    on_this_machine: bool
    proxy: str | None


def way_to_endpoint(settings: Settings) -> Way:
    """Which proxy of the environment is used. ValueError for an endpoint that must not be used."""
    url = endpoint_url(settings.jimeng_endpoint)
    return Way(is_loopback(url.host), proxy_to(url, getproxies()))


async def probe(settings: Settings, account: Account) -> list[Probe]:
    """Whether the vendor is there and takes the account's keys, one by one."""
    _retry_in_silence()
    clock = SystemClock()
    try:
        provider = make_provider(settings, clock)
    except ValueError as error:
        raise _refused(error, settings.jimeng_endpoint) from None
    try:
        return [await probing.probe(provider, account, key, clock) for key in account.keys]
    finally:
        await provider.aclose()


async def probe_host(settings: Settings) -> str | None:
    """What keeps the image host from answering; None if it answers. Uploads nothing. Raises `EndpointRefused`."""
    check_address(settings.superbed_endpoint)
    return await hosting.silence_of(settings.superbed_endpoint, timeout_s=settings.connect_timeout)


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


async def open_lane(settings: Settings, engine: Engine, account: Account) -> Lane:
    """A lane of the account, which is known from then on. Raises `EndpointRefused`."""
    check_address(settings.jimeng_endpoint)
    return await engine.lane(endpoint_name(settings.jimeng_endpoint), account, some_product(account))


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
    log: Log,
    set_limit: Limit | None = None,
    parts: Parts | None = None,
) -> AsyncIterator[BatchWorker]:
    """A worker with everything it needs, alive for as long as the block lasts."""
    parts = parts or Parts()
    _retry_in_silence()
    accounts = accounts_of(settings)
    provider = parts.provider(make_provider(settings, clock))
    store = parts.store(make_store(settings, clock))
    links = LinkCheck(settings.jimeng_endpoint)
    host = make_host(settings)
    folder = settings.home_folder / "workers"
    name = settings.worker_name or f"{platform.node()}-{os.getpid()}"
    presence = LockedPresence(folder, pid=os.getpid(), now=clock.now(), name=name, version=__version__)
    try:
        using = parts.engine(engine)
        references = make_references(settings, using, host, links, clock, log)
        with engine.waited_for():
            yield await _assembled(
                settings, using, clock, accounts, provider, store, references, presence, log, set_limit
            )
    finally:
        presence.leave()
        await provider.aclose()
        await store.aclose()
        await links.aclose()
        if host is not None:
            await host.aclose()


async def _assembled(
    settings: Settings,
    engine: Engine,
    clock: Clock,
    accounts: list[Account],
    provider: Provider,
    store: ImageStore,
    references: References,
    presence: LockedPresence,
    log: Log,
    set_limit: Limit | None,
) -> BatchWorker:
    times = LaneTimes(engine, clock, settings.submit_timeout)
    limits = LimitSettings(parsed_limit(settings.concurrency))
    admission = Admission(
        engine,
        provider.endpoint,
        provider.models,
        accounts,
        limits,
        times,
        prepare_ahead=settings.prepare_ahead,
        uploads_at_once=settings.uploads_at_once,
        scale=clock.scale,
        ageing_s=clock.scaled(settings.priority_ageing),
        day_began_at=lambda: midnight_before(clock.now()),
    )
    await admission.open_lanes(set_limit)
    neighbours = Neighbours(
        engine=engine,
        provider=provider,
        store=store,
        references=references,
        clock=clock,
        tell=Teller(log, provider.label, settings.jimeng_retries),
        rules=retry_rules(settings),
        times=times,
        keys=admission.key,
        pacers=Pacers(clock, settings.queries_a_second),
        folder=BatchFolders(engine).images,
    )
    lease = Lease(settings.lease)
    rescuer = Rescuer(engine, presence, times, admission.reaches, clock.scaled(lease.lasts_s))
    run_task = RunTask(neighbours, presence.worker, lease)
    return BatchWorker(
        engine, provider, clock, admission, rescuer, run_task, presence, log, lease, max_jobs=settings.max_jobs
    )


def make_progress(
    settings: Settings,
    worker: BatchWorker,
    engine: Engine,
    batch: Batch,
    req_keys: Iterable[str],
    *,
    works: bool = True,
) -> Progress:
    """What a door shows while `worker` works on `batch`, or others do."""
    clock = SystemClock(settings.time_scale)
    return Progress(
        engine,
        clock,
        worker.admission,
        batch,
        req_keys,
        settings.jimeng_retries,
        lambda: worker.images_saved,
        works=works,
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
