"""Fakes, for our tests and our users': time that passes only when nothing else happens, a vendor that follows a
script, pictures without a network, and a rehearsal that runs a batch on the real runner and a real database.

    async with rehearsal(tmp_path, ["a cat", "a dog"]) as stage:
        stage.provider.on("a dog", submits=[LaneFull("50430")])
        assert await stage.run() is RunEnd.OVER

**Time.** `FakeClock` counts what it knows to be working: while an engine call is on its way (`held_engine`, or any
`with clock.held():`) time stands still, however long the thread takes; when nothing is and the event loop has nothing
left to run, time jumps to whoever sleeps the shortest. So a test never waits and never depends on the machine's speed.
Three things to know: whoever waits for anything real (a thread, a socket) must hold the clock meanwhile, nobody may
spin on `asyncio.sleep(0)`, and a loop has one fake clock.
"""

import asyncio
import functools
import hashlib
import heapq
import inspect
import itertools
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self, cast

import sqlalchemy as sa

from dujiang.domain.accounts import Account, Key
from dujiang.domain.batch import Batch, OnDoubt
from dujiang.domain.errors import (
    ContentBlocked,
    DujiangError,
    JobCancelled,
    LaneFull,
    LinkUnreachable,
    OutputBlocked,
    ProviderError,
    RecordGone,
    RequestRefused,
    Undecided,
    Unproven,
    UrlGone,
)
from dujiang.domain.lifecycle import StoredFile
from dujiang.domain.limits import FixedLimit, parse_limit
from dujiang.domain.pictures import LocalPicture, Reference
from dujiang.domain.requests import ModelSpec, Request
from dujiang.domain.retry import RetryRules, UploadRules
from dujiang.domain.task import Task
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.ledger import Ledger, ledger
from dujiang.engines.sql.rows import TASK_ROWS, task_of
from dujiang.engines.sql.schema import attempts, events, tasks
from dujiang.messages import TEXTS
from dujiang.ports import Engine, ImageStore, Job, Look, NewTask, Provider, ReferenceCheck, Turn
from dujiang.providers.jimeng.models import MODELS
from dujiang.runner.admission import Admission, LimitSettings
from dujiang.runner.clock import midnight_before
from dujiang.runner.folders import BatchFolders
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.lease import Lease
from dujiang.runner.polling import Pacers
from dujiang.runner.presence import LockedPresence
from dujiang.runner.references import Publishing, References
from dujiang.runner.rescuer import Rescuer
from dujiang.runner.run_task import Neighbours, RunTask
from dujiang.runner.telling import Teller
from dujiang.runner.worker import BatchWorker, RunEnd
from dujiang.telemetry.logs import LEVELS

# -- Time -------------------------------------------------------------------------------------------------------------

EPOCH: Final = 1_700_000_000.0
FOREVER_S: Final = 30 * 86_400.0


class FakeClock:
    """A `ports.Clock` whose time passes without waiting.

    `auto`: time jumps to the earliest sleeper whenever nothing else can happen; without it, only `advance` moves it.
    A sleep that begins after `gives_up_after_s` raises: something goes on for ever.
    """

    def __init__(
        self, *, auto: bool = True, scale: float = 1.0, seed: int = 7, gives_up_after_s: float = FOREVER_S
    ) -> None:
        self.scale = scale
        self.random = random.Random(seed)  # noqa: S311 - the same chance in every run
        self._auto = auto
        self._gives_up_after_s = gives_up_after_s
        self._wall = EPOCH
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._holds = 0
        self._about_to_look = False

    # as a clock

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._wall + self._elapsed

    def elapsed(self) -> float:
        """Monotonic seconds, 0 at first."""
        return self._elapsed

    def scaled(self, seconds: float) -> float:
        """One of our constants, in seconds of this run."""
        return seconds * self.scale

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time has passed."""
        if self._elapsed > self._gives_up_after_s:
            raise AssertionError(f"{self._elapsed:.0f} s have passed and somebody still waits")
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self._sleeper(self._elapsed + seconds)

    def _sleeper(self, until: float) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (until, next(self._order), future))
        self._look_soon()
        return future

    # as a test moves it

    def set_back(self, seconds: float) -> None:
        """The wall clock is put back by so much (forward if negative); monotonic time goes on as if nothing was."""
        self._wall -= seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Time stands still inside: something real is under way."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._look_soon()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until nothing can happen without time passing, and `condition` holds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append((condition, future))
        self._look_soon()
        await future

    async def settled(self) -> None:
        """Wait until nothing can happen without time passing."""
        await self.until(lambda: True)

    async def advance(self, seconds: float) -> None:
        """Let so much time pass, with everything that happens meanwhile; only without `auto`."""
        assert not self._auto, "time passes by itself"
        target = self._elapsed + seconds
        await self.settled()
        while (due := self._next_due()) is not None and due <= target:
            self._wake(due)
            await self.settled()
        self._elapsed = target

    # how

    def _look_soon(self) -> None:
        if self._holds or self._about_to_look or not (self._sleepers or self._watchers):
            return
        self._about_to_look = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """If nothing is under way and the loop has nothing left to run, let the next thing happen."""
        self._about_to_look = False
        if self._holds:
            return  # looked at again when it is let go
        if not _has_more_to_run(loop) and not self._tell_watchers() and self._auto:
            due = self._next_due()
            if due is None:
                return  # whoever sleeps next looks again
            self._wake(due)
        elif not self._auto and not self._watchers:
            return
        self._look_soon()

    def _tell_watchers(self) -> bool:
        met = [(condition, future) for condition, future in self._watchers if future.done() or condition()]
        for watcher in met:
            self._watchers.remove(watcher)
            if not watcher[1].done():
                watcher[1].set_result(None)
        return bool(met)

    def _next_due(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)  # cancelled
        return self._sleepers[0][0] if self._sleepers else None

    def _wake(self, due: float) -> None:
        """One sleeper at a time, so that what it does is done before the next one wakes."""
        self._elapsed = max(self._elapsed, due)
        _, _, future = heapq.heappop(self._sleepers)
        future.set_result(None)


def _has_more_to_run(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether callbacks wait for their turn. asyncio has no public word for it; its own loops all keep this queue."""
    return bool(loop._ready)  # type: ignore[attr-defined]


def held_engine(engine: Engine, clock: FakeClock) -> Engine:
    """`engine`, with time standing still while any of its calls is on its way."""
    return cast(Engine, _Held(engine, clock))


_READING: Final = frozenset(
    {"accounts", "adopt", "batch", "cancel_requests", "changed_elsewhere", "counts", "doubts", "everything_is_paused"}
    | {"generating", "heartbeat", "lane", "lanes", "open_batches", "products", "published", "register", "rests"}
    | {"run_times", "shorten_waits", "task", "unregister", "workers"}
)
"""Calls that change nothing, or nothing that others wait for."""


class _Held:
    """Passes everything on. After `die`, nothing: as if the process were gone.

    `elsewhere`: all programs that use the database, where they are known. Then what they have done is known, too, at
    once and without asking: news of a database takes real time, and a run asks every second.
    """

    def __init__(self, engine: Engine, clock: FakeClock, elsewhere: "Sequence[_Held] | None" = None) -> None:
        self._engine = engine
        self._clock = clock
        self._elsewhere = elsewhere
        self._heard = 0
        self._dead = False
        self.changes = 0
        """Calls that have changed something."""

    async def changed_elsewhere(self) -> bool:
        if self._elsewhere is None:
            return bool(await self._called(self._engine.changed_elsewhere))
        heard, self._heard = self._heard, sum(other.changes for other in self._elsewhere if other is not self)
        return heard != self._heard

    def die(self) -> None:
        self._dead = True

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if inspect.isasyncgenfunction(found):
            return functools.partial(self._iterated, found)
        return functools.partial(self._called, found) if inspect.iscoroutinefunction(found) else found

    async def _called(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._dead:
            raise asyncio.CancelledError
        with self._clock.held():
            result = await method(*args, **kwargs)
        self.changes += method.__name__ not in _READING and not (isinstance(result, Turn) and not result.tasks)
        return result

    async def _iterated(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        items = method(*args, **kwargs)
        while True:
            try:
                with self._clock.held():
                    item = await anext(items)
            except StopAsyncIteration:
                return
            yield item


# -- The vendor -------------------------------------------------------------------------------------------------------


class Reply(StrEnum):
    """What becomes of a submit, if it isn't refused with a `ProviderError`."""

    ACCEPTED = "accepted"
    LOST = "lost"  # accepted and billed, and the answer is lost at once
    NEVER_ARRIVED = "never_arrived"  # nothing arrived, and nobody answers until the deadline


Submit = Reply | ProviderError
Seen = Look | ProviderError | None
"""What one look sees; None is the job as it is."""

UNBILLED: Final = (ContentBlocked, OutputBlocked, RequestRefused, LinkUnreachable, JobCancelled)


@dataclass(slots=True)
class Script:
    """What happens to one prompt. Each list is used up from its head; after that everything goes well."""

    submits: deque[Submit] = field(default_factory=deque)
    looks: deque[Seen] = field(default_factory=deque)
    ends: deque[ProviderError | None] = field(default_factory=deque)
    run_s: float | None = None
    pictures: int = 1


@dataclass(slots=True)
class FakeJob:
    """A job as the vendor knows it."""

    id: str
    prompt: str
    references: tuple[str, ...]
    key: Key
    begun_at: float
    run_s: float
    script: Script
    ends: ProviderError | None
    cancelled: bool = False

    @property
    def is_billed(self) -> bool:
        """Whether it is charged: the vendor bills success only, and some failures all the same."""
        if isinstance(self.ends, Undecided):
            return self.ends.charged
        return not self.cancelled and not isinstance(self.ends, UNBILLED)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that came in."""

    at: float
    """Of the clock's monotonic time."""
    prompt: str
    key: Key
    job_id: str | None = None
    references: tuple[str, ...] = ()


class FakeProvider:
    """A `ports.Provider` that follows a script, on the fake clock, and writes down whatever is asked of it.

    A prompt without a script is accepted and done after `run_s` (a number, or drawn from the clock's chance). Answers
    take `answer_s`. With a `limit`, a job too many is refused with 50430; `limits` has those of single access keys.
    `down` is raised by every call while it is set; one that stands in `down_looks` only by looks, one in `refused_keys`
    only by calls with that access key.
    """

    label = "即梦API"
    endpoint = "https://fake.invalid"
    models: Mapping[str, ModelSpec] = MODELS

    def __init__(
        self,
        clock: FakeClock,
        *,
        run_s: float | Callable[[random.Random], float] = 20.0,
        queue_s: float = 0.0,
        answer_s: float = 0.1,
        deadline_s: float = 60.0,
        limit: int | None = None,
    ) -> None:
        self._clock = clock
        self._run_s = run_s
        self.queue_s = queue_s
        self.answer_s = answer_s
        self._deadline_s = deadline_s
        self.limit = limit
        self.limits: dict[str, int] = {}
        self.refused_keys: dict[str, ProviderError] = {}
        self.down: ProviderError | None = None
        self.down_looks: ProviderError | None = None
        self.submitted: list[Call] = []
        self.looked: list[Call] = []
        self.cancelled: list[Call] = []
        self.jobs: dict[str, FakeJob] = {}
        self.most_running = 0
        self.closed = False
        self._scripts: dict[str, Script] = {}
        self._urls = itertools.count(1)

    def on(
        self,
        prompt: str,
        *,
        submits: Iterable[Submit] = (),
        looks: Iterable[Seen] = (),
        ends: Iterable[ProviderError | None] = (),
        run_s: float | None = None,
        pictures: int = 1,
    ) -> Script:
        """What happens to `prompt`: per submit, per look, and how each of its jobs ends (None: well)."""
        script = Script(deque(submits), deque(looks), deque(ends), run_s, pictures)
        self._scripts[prompt] = script
        return script

    @property
    def running(self) -> int:
        """Jobs that hold a slot at the vendor now."""
        return sum(self._is_running(job) for job in self.jobs.values())

    def running_of(self, access: str) -> int:
        """The same, of one access key."""
        return sum(self._is_running(job) for job in self.jobs.values() if job.key.access == access)

    @property
    def charges(self) -> list[str]:
        """Ids of the jobs that are billed, or will be as far as anybody can say."""
        return [job.id for job in self.jobs.values() if job.is_billed]

    def submits_of(self, prompt: str) -> int:
        """How often a prompt has come in."""
        return sum(call.prompt == prompt for call in self.submitted)

    async def submit(self, request: Request, references: Sequence[str], key: Key) -> Job:
        """See `ports.Provider`. The answer is on its way for the second half of `answer_s`."""
        self.submitted.append(Call(self._clock.elapsed(), request.prompt, key, None, tuple(references)))
        await self._clock.sleep(self.answer_s / 2)
        script = self._scripts.setdefault(request.prompt, Script())
        reply = self._reply(script, key)
        if reply is Reply.NEVER_ARRIVED:
            await self._clock.sleep(self._deadline_s)
            raise Unproven("no answer")
        if isinstance(reply, ProviderError):
            await self._clock.sleep(self.answer_s / 2)
            raise reply
        job = self._accept(request, references, key, script)
        await self._clock.sleep(self.answer_s / 2)
        if reply is Reply.LOST:
            raise Unproven("connection reset")
        return Job(job.id, f"request-{job.id}")

    def _reply(self, script: Script, key: Key) -> Submit:
        if trouble := self.down or self.refused_keys.get(key.access):
            return trouble
        if script.submits:
            return script.submits.popleft()
        full = self.limit is not None and self.running >= self.limit
        own = self.limits.get(key.access)
        if full or (own is not None and self.running_of(key.access) >= own):
            return LaneFull("too many jobs at once", vendor_code="50430")
        return Reply.ACCEPTED

    def _accept(self, request: Request, references: Sequence[str], key: Key, script: Script) -> FakeJob:
        run_s = script.run_s if script.run_s is not None else self._drawn_run_s()
        ends = script.ends.popleft() if script.ends else None
        name = f"job-{len(self.jobs) + 1}"
        job = FakeJob(name, request.prompt, tuple(references), key, self._clock.elapsed(), run_s, script, ends)
        self.jobs[name] = job
        self.most_running = max(self.most_running, self.running)
        return job

    def _drawn_run_s(self) -> float:
        return self._run_s(self._clock.random) if callable(self._run_s) else self._run_s

    def _age_s(self, job: FakeJob) -> float:
        return self._clock.elapsed() - job.begun_at

    def _is_running(self, job: FakeJob) -> bool:
        return not job.cancelled and self._age_s(job) < job.run_s

    async def look(self, job_id: str, req_key: str, key: Key) -> Look:
        """See `ports.Provider`."""
        job = self.jobs.get(job_id)
        self.looked.append(Call(self._clock.elapsed(), job.prompt if job else "", key, job_id))
        await self._clock.sleep(self.answer_s)
        trouble = self.down or self.down_looks or self.refused_keys.get(key.access)
        if trouble is not None:
            raise trouble
        if job is None:
            raise RecordGone("the vendor says not_found", vendor_code="not_found")
        if job.script.looks and (seen := job.script.looks.popleft()) is not None:
            if isinstance(seen, ProviderError):
                raise seen
            return seen
        return self._state(job)

    def _state(self, job: FakeJob) -> Look:
        if job.cancelled:
            raise JobCancelled("the vendor says canceled", vendor_code="canceled")
        if self._is_running(job):
            return Look(None, queued=self._age_s(job) < self.queue_s)
        if job.ends is not None:
            raise job.ends
        edition = next(self._urls)  # every look gives other addresses, as signed ones are
        return Look(tuple(f"https://fake.invalid/{job.id}/{n}?{edition}" for n in range(1, job.script.pictures + 1)))

    async def cancel(self, job_id: str, req_key: str, key: Key) -> None:
        """See `ports.Provider`."""
        job = self.jobs.get(job_id)
        self.cancelled.append(Call(self._clock.elapsed(), job.prompt if job else "", key, job_id))
        await self._clock.sleep(self.answer_s)
        if self.down is not None:
            raise self.down
        if job is None or self._age_s(job) >= self.queue_s:
            raise Unproven("a job that has begun can't be cancelled")
        job.cancelled = True

    async def aclose(self) -> None:
        """See `ports.Provider`."""
        self.closed = True


# -- Pictures and references ------------------------------------------------------------------------------------------


class FakeStore:
    """A `ports.ImageStore` without network and disk.

    `faults`: per stem, what its next saves raise. `broken` is raised by every save while it is set. An address for
    which `is_gone` holds raises `UrlGone`.
    """

    def __init__(self, clock: FakeClock, *, save_s: float = 0.5) -> None:
        self._clock = clock
        self.save_s = save_s
        self.faults: dict[str, deque[DujiangError]] = {}
        self.broken: DujiangError | None = None
        self.is_gone: Callable[[str], bool] = lambda url: False
        self.asked: list[tuple[float, str, str]] = []
        """(monotonic time, stem, address) of every try."""
        self.saved: dict[Path, str] = {}
        """Where each picture lies, and the address it came from."""

    async def save(self, url: str, folder: Path, stem: str) -> StoredFile:
        """See `ports.ImageStore`."""
        self.asked.append((self._clock.elapsed(), stem, url))
        await self._clock.sleep(self.save_s)
        if self.broken is not None:
            raise self.broken
        if self.faults.get(stem):
            raise self.faults[stem].popleft()
        if self.is_gone(url):
            raise UrlGone("the address is gone")
        self.saved[folder / f"{stem}.png"] = url
        return StoredFile(f"{stem}.png", hashlib.sha256(url.encode()).hexdigest(), len(url), 2048, 2048)

    async def aclose(self) -> None:
        """See `ports.ImageStore`."""


class FakeLinks:
    """A `ports.ReferenceCheck`: every link is there but those in `broken`; `down` is raised while it is set."""

    def __init__(self, clock: FakeClock, *, answer_s: float = 0.2) -> None:
        self._clock = clock
        self.answer_s = answer_s
        self.broken: set[str] = set()
        self.down: DujiangError | None = None
        self.asked: list[tuple[str, ...]] = []

    async def missing(self, links: Sequence[str]) -> str | None:
        """See `ports.ReferenceCheck`."""
        self.asked.append(tuple(links))
        await self._clock.sleep(self.answer_s)
        if self.down is not None:
            raise self.down
        return next((link for link in links if link in self.broken), None)


class FakeHost:
    """A `ports.ImageHost` without a network: `faults` are raised by the next uploads, `down` by all while it is set."""

    name = "superbed"
    label = "Superbed"

    def __init__(self, clock: FakeClock, *, upload_s: float = 0.5) -> None:
        self._clock = clock
        self.upload_s = upload_s
        self.faults: deque[DujiangError] = deque()
        self.down: DujiangError | None = None
        self.asked: list[tuple[float, str]] = []
        """(monotonic time, name) of every try."""
        self.items: dict[str, bytes] = {}
        """What it holds, by link."""
        self.at_once = 0
        self.most_at_once = 0

    async def publish(self, content: bytes, name: str) -> str:
        """See `ports.ImageHost`."""
        self.asked.append((self._clock.elapsed(), name))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._clock.sleep(self.upload_s)
        finally:
            self.at_once -= 1
        if self.down is not None:
            raise self.down
        if self.faults:
            raise self.faults.popleft()
        link = f"https://host.invalid/item/{len(self.items) + 1}-{name}"
        self.items[link] = content
        return link

    async def aclose(self) -> None:
        """See `ports.ImageHost`."""


class FakeFiles:
    """A `ports.PictureFiles` without a disk: the content of a picture is its path, unless `broken` says otherwise."""

    def __init__(self) -> None:
        self.broken: dict[str, DujiangError] = {}

    async def content(self, picture: LocalPicture) -> bytes:
        """See `ports.PictureFiles`."""
        if picture.path in self.broken:
            raise self.broken[picture.path]
        return picture.path.encode()


class FakeLog:
    """A `ports.Log` that remembers what it was told. Every event must have its text, with every field filled in."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, object]]] = []

    def tell(self, name: str, **fields: object) -> None:
        """See `ports.Log`."""
        assert name in LEVELS, name
        chinese, english = TEXTS[f"log_{name}"]
        assert chinese.format(**fields)
        assert english.format(**fields)
        self.told.append((name, fields))

    def lines(self, *names: str) -> list[str]:
        """What was said about these events, in Chinese, as it stands behind the marker."""
        return [TEXTS[f"log_{name}"][0].format(**fields) for name, fields in self.told if name in names]


def a_picture(path: str = "/refs/a.png", *, size: int = 1000, side: int = 1024, kind: str = "png") -> LocalPicture:
    """A reference on this machine, known by its path."""
    return LocalPicture(path, hashlib.sha256(path.encode()).hexdigest(), kind, size, side, side)


# -- A rehearsal ------------------------------------------------------------------------------------------------------

BATCH_ID: Final = "rehearsal"
MODEL: Final = "4.0"
ACCOUNT: Final = Account("default", (Key("AKLTfake", "c2VjcmV0"),))
GUARD_S: Final = 20.0  # real seconds after which a run that hangs is given up


def a_request(prompt: str, *, references: Sequence[Reference] = (), **parameters: object) -> Request:
    """A valid request to the default model; ValueError if it isn't one."""
    request, problems = MODELS[MODEL].checked(prompt, parameters, references)
    if request is None:
        raise ValueError(problems)
    return request


class Rehearsal:
    """A stage: the real runner and engine, with time, vendor, network and disk replaced.

    Every `start` and `run` is another life of the program, with a worker of its own, on the same database.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: FakeClock | None = None,
        limit: int | str = 3,
        accounts: Sequence[Account] = (ACCOUNT,),
        submit_timeout_s: float = 60.0,
        queries_a_second: float = 10.0,
    ) -> None:
        self.folder = folder
        self.clock = clock or FakeClock()
        self.provider = FakeProvider(self.clock, deadline_s=submit_timeout_s)
        self.store = FakeStore(self.clock)
        self.links = FakeLinks(self.clock)
        self.host: FakeHost | None = FakeHost(self.clock)
        self.files = FakeFiles()
        self.log = FakeLog()
        self.uploads = UploadRules.classic(self.clock.scale)
        self.prepare_ahead = 32
        self.uploads_at_once = 3
        self.links_good_for_s = 3600.0
        self.ageing_s = 300.0
        self.lease = Lease(30.0)
        self.inline: Callable[[str], bool] = lambda model: False
        self.accounts = accounts
        self.limit = limit
        self.rules = RetryRules.classic(self.clock.scale)
        self._submit_timeout_s = submit_timeout_s
        self._queries_a_second = queries_a_second
        self._closing = AsyncExitStack()
        self._database: str | None = None
        self._programs: list[_Held] = []
        self._lives: list[tuple[asyncio.Task[RunEnd], LockedPresence, _Held]] = []
        self.sql: SqlEngine
        self.engine: Engine
        """The program's own engine."""
        self.elsewhere: Engine
        """The same database, as another program sees it: whatever a test does to it while the program runs."""
        self.batch: Batch
        self.worker: BatchWorker
        """Of the newest life."""

    async def open(self, prompts: Iterable[str | Request], on_doubt: str) -> Self:
        """Open the database and put the batch in."""
        url = self._database = self._database or _fresh_database(self.folder / "dujiang.db")
        self.sql = await self._opened(url)
        self.engine = held_engine(self.sql, self.clock)
        elsewhere = _Held(await self._opened(url), self.clock)
        self._programs.append(elsewhere)
        self.elsewhere = cast(Engine, elsewhere)
        batch = Batch(BATCH_ID, "rehearsal", str(self.folder / "out"), "rehearsal.csv", OnDoubt.parse(on_doubt))
        self.batch = await self.engine.open_batch(batch)
        await self.add(prompts)
        return self

    async def _opened(self, url: str) -> SqlEngine:
        with self.clock.held():
            engine = SqlEngine(connect(url, synchronous="OFF"), self.clock, own_clock=True)
        self._closing.push_async_callback(engine.aclose)
        return engine

    async def add(self, prompts: Iterable[str | Request], *, batch_id: str = BATCH_ID) -> None:
        """One row a prompt."""
        rows = []
        for position, prompt in enumerate(prompts, start=1):
            request = a_request(prompt) if isinstance(prompt, str) else prompt
            row = f"{position}:{request.prompt}"
            req_key = MODELS[request.model].req_key
            rows.append(NewTask(row, request.canonical(), position, f"{position:05d}", req_key, request))
        await self.engine.enqueue(batch_id, rows)

    async def make_worker(self, engine: Engine, presence: LockedPresence) -> BatchWorker:
        """A worker as `wiring` makes it, of these parts."""
        times = LaneTimes(engine, self.clock, self._submit_timeout_s)
        limits = LimitSettings(parse_limit(self.limit) if isinstance(self.limit, str) else FixedLimit(self.limit))
        provider: Provider = self.provider
        store: ImageStore = self.store
        links: ReferenceCheck = self.links
        publishing = Publishing(self.host, self.inline, self.uploads, self.uploads_at_once, self.links_good_for_s)
        admission = Admission(
            engine,
            provider.endpoint,
            provider.models,
            self.accounts,
            limits,
            times,
            prepare_ahead=self.prepare_ahead,
            uploads_at_once=self.uploads_at_once,
            scale=self.clock.scale,
            ageing_s=self.clock.scaled(self.ageing_s),
            day_began_at=lambda: midnight_before(self.clock.now()),
        )
        await admission.open_lanes()
        neighbours = Neighbours(
            engine=engine,
            provider=provider,
            store=store,
            references=References(engine, publishing, self.files, links, self.clock, self.log),
            clock=self.clock,
            tell=Teller(self.log, provider.label, len(self.rules.endpoint.tries)),
            rules=self.rules,
            times=times,
            keys=admission.key,
            pacers=Pacers(self.clock, self._queries_a_second),
            folder=BatchFolders(engine).images,
        )
        rescuer = Rescuer(engine, presence, times, admission.reaches, self.clock.scaled(self.lease.lasts_s))
        run_task = RunTask(neighbours, presence.worker, self.lease)
        return BatchWorker(engine, provider, self.clock, admission, rescuer, run_task, presence, self.log, self.lease)

    async def add_batch(self, name: str, prompts: Iterable[str | Request]) -> Batch:
        """Another batch beside the rehearsal's own."""
        batch = await self.engine.open_batch(replace(self.batch, id=name, name=name, source=f"{name}.csv"))
        await self.add(prompts, batch_id=name)
        return batch

    async def start(self, batch: Batch | None = None, *, beside: bool = False) -> asyncio.Task[RunEnd]:
        """Begin a life; it ends by itself, by `self.worker.stop()`, or by `kill`.

        `beside`: a program of its own, with its own connections, while others run that heed what it does.
        """
        presence = LockedPresence(self.folder / "workers", pid=os.getpid(), now=self.clock.now())
        assert self._database is not None, "it was opened"
        sql = await self._opened(self._database) if beside else self.sql
        life = _Held(sql, self.clock, self._programs)
        self._programs.append(life)
        self.worker = await self.make_worker(cast(Engine, life), presence)
        running = asyncio.create_task(self._life(self.worker, presence, batch or self.batch), name="life")
        self._lives.append((running, presence, life))
        return running

    async def _life(self, worker: BatchWorker, presence: LockedPresence, batch: Batch) -> RunEnd:
        try:
            return await worker.run(batch)
        finally:
            presence.leave()

    async def run(self, batch: Batch | None = None) -> RunEnd:
        """A whole life, from its start to its end. TimeoutError if it hangs."""
        running = await self.start(batch)
        async with asyncio.timeout(GUARD_S):
            return await running

    async def kill(self) -> None:
        """End the newest life as a power cut would: nothing is recorded any more, only its lock is free."""
        running, _, life = self._lives[-1]
        life.die()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def aclose(self) -> None:
        """End whatever still lives, and close the database."""
        for running, _, _ in self._lives:
            running.cancel()
        await asyncio.gather(*(running for running, _, _ in self._lives), return_exceptions=True)
        await self._closing.aclose()

    # what came of it

    async def tasks(self) -> list[Task]:
        """Every task, in the order of its row."""
        return [task_of(row) for row in await self._rows(TASK_ROWS.order_by(tasks.c.position, tasks.c.id))]

    async def task(self, prompt: str) -> Task:
        """The newest task with this prompt."""
        return next(task for task in reversed(await self.tasks()) if task.request.prompt == prompt)

    async def attempts(self, task: Task | None = None) -> list[Mapping[str, Any]]:
        """Attempt rows, oldest first: all, or one task's."""
        query = sa.select(attempts).order_by(attempts.c.sent_at, attempts.c.task_id, attempts.c.number)
        if task is not None:
            query = query.where(attempts.c.task_id == task.id)
        return await self._rows(query)

    async def history(self, task: Task) -> list[str]:
        """The types of a task's events, oldest first."""
        query = sa.select(events.c.type).where(events.c.task_id == task.id).order_by(events.c.id)
        return [row["type"] for row in await self._rows(query)]

    async def ledger(self) -> Ledger:
        """The ledger of charges now."""
        with self.clock.held():
            return await self.sql._read(ledger)

    async def _rows(self, query: sa.Select[Any]) -> list[Mapping[str, Any]]:
        with self.clock.held():
            rows = await self.sql._read(lambda connection: connection.execute(query).mappings().all())
        return [dict(row) for row in rows]


@functools.cache
def _migrated() -> bytes:
    """An empty database with every table: made once in a process, since migrating costs more than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        connect(f"sqlite:///{path}", synchronous="OFF").dispose()
        return path.read_bytes()


def _fresh_database(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())
    return f"sqlite:///{path}"


@asynccontextmanager
async def rehearsal(
    folder: Path,
    prompts: Iterable[str | Request] = (),
    *,
    on_doubt: str = "hold",
    **setting: Any,
) -> AsyncIterator[Rehearsal]:
    """A stage with a batch of `prompts` on it. `setting`: as `Rehearsal` takes it."""
    stage = Rehearsal(folder, **setting)
    try:
        yield await stage.open(prompts, on_doubt)
    finally:
        await stage.aclose()
