"""One task, one direction. Start reading here.

The state says what to do; doing it yields an event; the engine records it; the table gives the next state. A task
leaves this loop when it is final, when it waits (for a slot or a host), or when only a decision can lead on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from dujiang.domain import errors
from dujiang.domain.accounts import Key
from dujiang.domain.lifecycle import (
    Accepted,
    Event,
    Failed,
    LinkRefused,
    Postponed,
    Prepared,
    Rendered,
    Saved,
    State,
    StoredFile,
    UrlsGone,
    Vanished,
)
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.retry import LookHistory, RetryRules, Verdict, after_look, after_submit
from dujiang.domain.task import Task
from dujiang.ports import Clock, Engine, ImageStore, Look, Provider, Worker
from dujiang.runner.clock import Moment
from dujiang.runner.lane_times import LaneTimes
from dujiang.runner.lease import Lease
from dujiang.runner.polling import Pacer, Pacers, Watch
from dujiang.runner.references import References
from dujiang.runner.telling import Teller

DOWNLOADS_BEFORE_NEW_URLS: Final = 5
RECORD_LIVES_S: Final = 12 * 3600.0  # the vendor's own time, so it is never scaled
JOB_ID_TRIES: Final = 5  # each of them waits a minute for a database that is locked or full
PASSING_WAIT_S: Final = 1.0  # doubling, at most 30 s: between looks or downloads that failed
PASSING_WAIT_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Everything a task needs while it runs."""

    engine: Engine
    provider: Provider
    store: ImageStore
    references: References
    clock: Clock
    tell: Teller
    rules: RetryRules
    times: LaneTimes
    keys: Callable[[Task], Key]
    """The key to sign with for this task's attempt; raises `AccountRefused` if its account is not configured."""
    pacers: Pacers
    folder: Callable[[Task], Awaitable[Path]]
    """The folder of the task's batch for pictures."""


@dataclass(slots=True)
class Hearing:
    """Whether the vendor answers looks."""

    heard_at: float | None = None
    """Monotonic; the last answer."""
    silent: dict[int, str] = field(default_factory=dict)
    """Tasks whose job could not be looked at the last time, and why (an error's code)."""

    def heard(self, task: Task, now: float) -> None:
        """The vendor knows the job."""
        self.heard_at = now
        self.silent.pop(task.id, None)


class RunTask:
    """Carries tasks from the state they are in to one where they wait or end."""

    def __init__(self, neighbours: Neighbours, worker: Worker, lease: Lease) -> None:
        self._with = neighbours
        self._worker = worker
        self._send_within_s = neighbours.clock.scaled(lease.send_within_s)
        self._rounds: dict[int, int] = {}
        """How often a task's addresses were dead."""
        self.hearing = Hearing()

    @property
    def host_name(self) -> str:
        """Who publishes references, as it rests."""
        return self._with.references.host_name

    def look_now(self, *, elapsed_jumped: bool) -> None:
        """Look at every job at once: time has passed unnoticed."""
        self._with.pacers.look_now(elapsed_jumped=elapsed_jumped)

    async def steps(self, task: Task, held_since: Moment | None = None) -> AsyncIterator[Task]:
        """Every task that an event led to, after it is recorded. Ends early if somebody else took the task over.

        `held_since`: a moment before it was claimed; now, if that isn't said.
        """
        held_since = held_since or Moment.of(self._with.clock)
        try:
            while task.can_go_on:
                verdict = await self._next(task, held_since)
                try:
                    moved = await self._recorded(task, verdict)
                except errors.StaleTask:
                    self._with.tell.came_too_late(task, verdict.event)
                    return
                await self._told(task, verdict, moved)
                task = moved
                yield task
        finally:
            self._rounds.pop(task.id, None)

    async def _recorded(self, task: Task, verdict: Verdict) -> Task:
        """The task as the event left it. A job id is on no disk yet and can't be asked for again: tried for longer."""
        tries = 0
        while True:
            try:
                return await self._with.engine.record(task, verdict.event, verdict.rest, self._worker)
            except errors.StoreError as error:
                if not isinstance(verdict.event, Accepted):
                    raise
                tries += 1
                if tries > JOB_ID_TRIES:
                    told = f"{error.message}; not written down: task {task.id} is job {verdict.event.job_id}"
                    raise errors.StoreError(told, why=error.why) from error
                await self._with.clock.sleep(passing_wait_s(tries, self._with.clock))

    async def _told(self, before: Task, verdict: Verdict, after: Task) -> None:
        self._with.tell.recorded(before, verdict.event, after)
        if verdict.rest is not None:
            with suppress(errors.StoreError):  # only words depend on it
                self._with.tell.rests(verdict.rest, await self._with.engine.rests())

    async def _next(self, task: Task, held_since: Moment) -> Verdict:
        match task.state:
            case State.PREPARING:
                return await self._prepare(task)
            case State.SUBMITTING:
                return await self._submit(task, held_since)
            case State.GENERATING:
                return Verdict(await self._watch(task))
            case State.COLLECTING:
                return Verdict(await self._collect(task))
            case (
                State.QUEUED
                | State.READY
                | State.IN_DOUBT
                | State.SUCCEEDED
                | State.FAILED
                | State.BLOCKED
                | State.LOST
                | State.CANCELLED
            ):
                raise AssertionError(f"a task that is {task.state} has nothing to do")
            case _:
                assert_never(task.state)

    # -- before the vendor

    async def _prepare(self, task: Task) -> Verdict:
        """Publish what the request refers to. No fault of a host, the network or the disk is the task's."""
        try:
            links = await self._with.references.prepare(task, doubted=task.link_checks > 0)
        except (errors.HostError, errors.PictureUnfit, errors.EndpointDown) as error:
            return self._with.references.verdict(error)
        except errors.StoreError as error:  # a picture that can't be read now: others may go on without an upload
            return self._with.references.verdict(errors.HostDown(error.message, why=f"disk {error.why}"))
        return Verdict(Failed("link", links) if isinstance(links, str) else Prepared(links))

    async def _submit(self, task: Task, held_since: Moment) -> Verdict:
        """The one moment that costs money: the attempt and its slot are on disk, and nothing is repeated here."""
        assert task.attempt is not None, "claimed with an attempt"
        try:
            if await self._with.references.are_stale(task):
                return Verdict(
                    LinkRefused("not looked at for a while")
                )  # nothing was sent, and no slot waits for looks
            links = await self._with.references.for_submit(task)
            if Moment.of(self._with.clock).since(held_since) > self._send_within_s:
                # Whoever was frozen for so long may have been taken for dead: nothing is sent that others decide about.
                return Verdict(Postponed("late", "the program stood still before it was sent"))
            self._with.tell.submitting(task)
            job = await self._with.provider.submit(task.request, links, self._with.keys(task))
        except errors.PictureUnfit as error:
            return Verdict(Failed(error.code, error.message))
        except errors.StoreError as error:  # the database, or a picture that goes inline: nothing was sent
            return Verdict(Postponed(error.code, error.message), disk_rest(error, self._with.clock))
        except errors.ProviderError as error:
            if isinstance(error, errors.TooFast):  # looks are requests, too
                self._with.pacers.of(task.attempt.account_id).slow_down(error_pause_s(self._with.clock))
            slot_for_s = self._with.times.ceiling_s(task.attempt.lane_id)
            return after_submit(error, task, self._with.rules, slot_for_s=slot_for_s)
        return Verdict(Accepted(job.id, job.request_id))

    # -- at the vendor

    async def _watch(self, task: Task) -> Event:
        """Look at the job until the vendor says that it is over."""
        assert task.attempt is not None, "a job belongs to an attempt"
        times = await self._with.times.load(task.attempt.lane_id)
        pacer = self._with.pacers.of(task.attempt.account_id)
        accepted_at = task.attempt.accepted_at or self._with.clock.now()
        watch = pacer.begin(times, max(0.0, self._with.clock.now() - accepted_at))
        # Accepted a moment ago, in this process; neither adopted nor asked for new addresses.
        fresh = task.attempt.accepted_at is None and task.id not in self._rounds
        try:
            return await _Watching(self._with, task, watch, pacer, self.hearing, fresh=fresh).until_over()
        finally:
            pacer.end(watch)
            self.hearing.silent.pop(task.id, None)

    # -- after the vendor

    async def _collect(self, task: Task) -> Event:
        """Bring every picture home. It is paid for: nothing but an expired address and record gives it up."""
        folder = await self._with.folder(task)
        files: list[StoredFile] = []
        for number, url in enumerate(task.image_urls, start=1):
            stem = task.name if len(task.image_urls) == 1 else f"{task.name}-{number}"
            try:
                files.append(await self._save(task, url, folder, stem))
            except errors.DownloadError as error:
                return await self._without_url(task, error)
        return Saved(tuple(files))

    async def _without_url(self, task: Task, error: errors.DownloadError) -> Event:
        """Ask the vendor for fresh addresses, for as long as its record can live."""
        assert task.attempt is not None, "what was made belongs to an attempt"
        age_s = self._with.clock.now() - (task.attempt.accepted_at or task.attempt.sent_at)
        rounds = self._rounds[task.id] = self._rounds.get(task.id, 0) + 1
        if rounds == 1:
            return UrlsGone()
        if age_s > RECORD_LIVES_S and isinstance(error, errors.UrlGone):
            return Vanished(error.code, error.message)  # fresh addresses were asked for, and are dead as well
        await self._with.clock.sleep(passing_wait_s(rounds - 1, self._with.clock))
        return UrlsGone()

    async def _save(self, task: Task, url: str, folder: Path, stem: str) -> StoredFile:
        tries = 0
        disk_refused = False
        while True:
            try:
                stored = await self._with.store.save(url, folder, stem)
            except errors.UrlGone:
                raise
            except errors.DownloadError as error:
                tries += 1
                if tries == DOWNLOADS_BEFORE_NEW_URLS:
                    raise
                wait_s = passing_wait_s(tries, self._with.clock)
                self._with.tell.download_failed(task, error.message, tries, DOWNLOADS_BEFORE_NEW_URLS - 1, wait_s)
                await self._with.clock.sleep(wait_s)
            except errors.StoreError as error:
                disk_refused = True
                await self._with.engine.rest(disk_rest(error, self._with.clock))
                await self._with.clock.sleep(self._with.clock.scaled(5.0))
            else:
                if disk_refused:
                    await self._with.engine.end_rest(Subject.DISK, "*")
                return stored


class _Watching:
    """One job, looked at until it is over."""

    def __init__(
        self, neighbours: Neighbours, task: Task, watch: Watch, pacer: Pacer, hearing: Hearing, *, fresh: bool
    ) -> None:
        assert task.attempt is not None
        assert task.attempt.job_id is not None
        self._with = neighbours
        self._task = task
        self._attempt = task.attempt
        self._job_id = task.attempt.job_id
        self._watch = watch
        self._pacer = pacer
        self._hearing = hearing
        self._at_once = not fresh
        self._measured = fresh
        self._gaps = pacer.gaps
        self._slot_lasts = fresh  # an adopted job's slot may have been given an end while nobody could look
        self._history = LookHistory()
        self._failed_looks = 0
        self._answered_at = neighbours.clock.elapsed()

    async def until_over(self) -> Event:
        """The event that ends the job."""
        while True:
            await self._pacer.turn(self._watch, at_once=self._at_once)
            self._at_once = False
            try:
                look = await self._with.provider.look(self._job_id, self._attempt.req_key, self._with.keys(self._task))
            except errors.ProviderError as error:
                event = await self._after(error)
            else:
                event = await self._seen(look)
            if event is not None:
                return event

    async def _seen(self, look: Look) -> Event | None:
        self._pacer.answered()
        self._with.tell.looked(self._task, "done" if look.urls else "in_queue" if look.queued else "generating")
        if look.urls is not None:
            return Rendered(look.urls, self._run_s())
        self._history.clear()
        await self._answering()
        return None

    def _run_s(self) -> float | None:
        """What this run took, unless it was adopted or not looked at for a while."""
        if not self._measured or self._failed_looks or self._gaps != self._pacer.gaps:
            return None
        run_s = self._watch.age_s(self._with.clock.elapsed())
        self._with.times.add(self._attempt.lane_id, run_s)
        return run_s

    async def _after(self, error: errors.ProviderError) -> Event | None:
        clock = self._with.clock
        if isinstance(error, errors.Undecided):
            await self._answering()
            if self._history.ends(error, clock.elapsed(), scale=clock.scale):
                return Failed(error.vendor_code or error.code, error.message, charged=error.charged)
            return None
        over = after_look(error, self._task)
        if over is not None:
            return over
        if isinstance(error, errors.TooFast):
            self._pacer.too_fast(error_pause_s(clock))
            return None
        await self._not_answering(error)
        return None

    async def _answering(self) -> None:
        """The vendor knows the job: its slot lasts until it ends."""
        self._answered_at = self._with.clock.elapsed()
        self._hearing.heard(self._task, self._answered_at)
        if self._failed_looks:
            self._failed_looks = 0
            self._measured = False
        if not self._slot_lasts:
            self._slot_lasts = True
            await self._with.engine.hold_slot(self._task, None)

    async def _not_answering(self, error: errors.ProviderError) -> None:
        """Nobody can say how the job is: its slot lasts no longer than any job of this lane runs."""
        self._hearing.silent[self._task.id] = error.code
        self._failed_looks += 1
        if self._failed_looks == 1:
            self._slot_lasts = False
            silent_s = self._with.clock.elapsed() - self._answered_at
            ceiling_s = self._with.times.ceiling_s(self._attempt.lane_id)
            await self._with.engine.hold_slot(self._task, max(0.0, ceiling_s - silent_s))
        wait_s = passing_wait_s(self._failed_looks, self._with.clock)
        self._with.tell.look_failed(self._task, error.message, self._failed_looks, wait_s)
        await self._with.clock.sleep(wait_s)


def passing_wait_s(times: int, clock: Clock) -> float:
    """Wait after so many passing faults in a row: 1 → 2 → 4 …, at most 30 s, scaled and spread a little."""
    base = min(PASSING_WAIT_MAX_S, PASSING_WAIT_S * 2.0 ** min(times - 1, 10))
    return clock.scaled(base) * clock.random.uniform(0.9, 1.1)


def error_pause_s(clock: Clock) -> float:
    """How long an account pauses after it asked too often (1–2 s)."""
    return clock.scaled(clock.random.uniform(1.0, 2.0))


def disk_rest(error: errors.StoreError, clock: Clock) -> RestOrder:
    """Submits stop while the disk refuses; what is paid for waits for it."""
    return RestOrder(
        Subject.DISK, "*", "disk", f"{error.why}: {error.message}", RestRule(clock.scaled(10), clock.scaled(10))
    )
