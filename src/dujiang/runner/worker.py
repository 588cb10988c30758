"""The worker: adopts what runs, fills free slots, carries tasks, and stops without losing anything."""

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Final

from dujiang.domain.batch import Batch, Counts, is_over
from dujiang.domain.errors import ProvenUncharged, ProviderError, StaleTask, StoreError
from dujiang.domain.lifecycle import AT_VENDOR, AWAITING_DECISION, FINAL, State
from dujiang.domain.rests import Subject
from dujiang.domain.task import Task
from dujiang.ports import Clock, Engine, Log, Provider, Turn
from dujiang.runner.admission import Admission
from dujiang.runner.clock import Moment, wait_for
from dujiang.runner.lease import Lease
from dujiang.runner.presence import LockedPresence
from dujiang.runner.rescuer import Rescuer
from dujiang.runner.run_task import RunTask
from dujiang.runner.telling import Flow

LOOK_AROUND_EVERY_S: Final = 1.0  # for what other programs changed: pauses, cancels, decisions, new rows
HAND_OVER_EVERY_S: Final = 0.1  # where another program's task may take the next free slot, or free one for ours
FIRST_ANSWER_WITHIN_S: Final = 30.0
FAREWELL_S: Final = 5.0  # real: whoever leaves waits no longer for a database that is away
GAP_S: Final = 5.0  # real: a short wait that took so much longer was no wait
DONE_WITH: Final = FINAL | AWAITING_DECISION
NOTHING: Final = Turn([], None)


class RunEnd(StrEnum):
    """Why a worker stopped."""

    OVER = "over"
    INTERRUPTED = "interrupted"
    CREDENTIALS = "credentials"
    UNREACHABLE = "unreachable"
    BUDGET = "budget"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class FirstAnswer:
    """Whether the vendor has answered at all since the start, and what has stood in the way since it last did."""

    answered: bool = False
    trouble: str | None = None
    answered_at: float = 0.0
    """Monotonic; the start, before the first answer."""

    def note(self, before: State, task: Task, now: float) -> None:
        """Learn from a task's step out of `before`."""
        if before not in AT_VENDOR or task.state is State.IN_DOUBT:
            return  # whoever was asked, if anybody, it was not the vendor, or it did not answer
        if task.state is State.PREPARING or task.error_code in {"picture_unfit", "disk"}:
            return  # a link or a file stood in the way before anything was sent
        if task.state is State.READY and task.error_code in {"network", "account"}:
            self.trouble = task.error_code
        else:
            self.answered, self.answered_at, self.trouble = True, now, None


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a run was, and how fast it could have been."""

    tasks_a_minute: float | None
    possible_a_minute: float | None

    @property
    def told(self) -> dict[str, float | None]:
        """As it stands in a result: both rates and their ratio."""
        ratio = None
        if self.tasks_a_minute is not None and self.possible_a_minute:
            ratio = round(self.tasks_a_minute / self.possible_a_minute, 3)
        rates = {"tasks_a_minute": self.tasks_a_minute, "possible_a_minute": self.possible_a_minute}
        return {name: None if rate is None else round(rate, 2) for name, rate in rates.items()} | {"rate_ratio": ratio}


class BatchWorker:
    """Works on one batch until it is over, or on all there are until it is stopped.

    Adopts and finishes whatever else runs at the vendor, too.
    """

    def __init__(
        self,
        engine: Engine,
        provider: Provider,
        clock: Clock,
        admission: Admission,
        rescuer: Rescuer,
        run_task: RunTask,
        presence: LockedPresence,
        log: Log,
        lease: Lease,
        *,
        max_jobs: int | None = None,
    ) -> None:
        self._log = log
        self._engine = engine
        self._provider = provider
        self._clock = clock
        self._admission = admission
        self._rescuer = rescuer
        self._run_task = run_task
        self._presence = presence
        self._heartbeat_every_s = clock.scaled(lease.heartbeat_every_s)
        self._rescue_every_s = clock.scaled(lease.rescue_every_s)
        self._claim_within_s = clock.scaled(lease.claim_within_s)
        self._seen_at = Moment.of(clock)
        """Before the last sign of life that reached the database."""
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], State] = {}
        """What is under way, and the state that its task is in."""
        self._fault: Exception | None = None
        self._cancels_asked: set[int] = set()
        self._first = FirstAnswer()
        self._without_host_since: float | None = None
        self._looked_around_at = 0.0
        self._changed_elsewhere = False
        """Another program has changed something since the last look around."""
        self._max_jobs = max_jobs
        self._only: Batch | None = None
        """The batch to work on; None: all there are."""
        self._batches: Sequence[Batch] = ()
        self._products: dict[str, frozenset[str]] = {}
        """Of each batch's tasks: the lanes that its limit is made of."""
        self._stopping = False
        self._quick = False
        self._leaving = False
        self._main: asyncio.Task[object] | None = None
        self._signs: set[asyncio.Future[bool]] = set()
        """Signs of life on their way into the database."""
        self._flows: dict[str, Flow] = {}
        self.over: asyncio.Queue[Batch] = asyncio.Queue()
        """Batches that have come to their end while this worker worked on all there are."""
        self.images_saved = 0
        """Pictures that this worker has brought home."""
        self.give_up_after_s: float | None = None
        """Stop when the vendor has not answered for so long; None waits for as long as it takes."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self._presence.worker.name

    @property
    def admission(self) -> Admission:
        """The lanes that this worker fills."""
        return self._admission

    def rate(self, req_keys: Collection[str]) -> Rate:
        """Tasks a minute from the first submit to the last end, beside what the lanes of these products could do."""
        flow = self._flows.get(self._only.id) if self._only else None
        if flow is None:
            return Rate(None, self._admission.possible_a_minute(req_keys))  # on all batches, or left before it began
        lasted_s = flow.lasted_s
        tasks = flow.ended_tasks / lasted_s * 60 if lasted_s and flow.ended_tasks else None
        return Rate(tasks, self._admission.possible_a_minute(req_keys))

    def stop(self, *, quick: bool = False) -> None:
        """Claim nothing new; finish what runs. `quick` leaves jobs to be adopted, once no submit is on its way."""
        self._stopping = True
        self._quick = self._quick or quick
        if quick:
            for carrying, state in self._running.items():
                if state is not State.SUBMITTING:
                    carrying.cancel()
        self._wake.set()

    def leave(self) -> None:
        """Stop now. Whatever was on its way is adopted, or found in doubt, at the next start."""
        self._leaving = True
        if self._main is not None:
            self._main.cancel()

    async def run(self, batch: Batch | None) -> RunEnd:
        """Work until the batch is over, or `stop` was called and everything that ran has ended. None: on all batches.

        A fault that nobody foresaw ends the run with that exception, once every submit on its way has its answer
        written down; what runs at the vendor is adopted at the next start.
        """
        self._only = batch
        self._main = asyncio.current_task()
        beating: list[asyncio.Task[None]] = []
        try:
            self._seen_at = Moment.of(self._clock)
            await self._engine.register(self._presence.worker)
            beating.append(asyncio.create_task(self._to_its_end(self._beat()), name="heartbeat"))
            return await self._run_safely()
        except asyncio.CancelledError:
            if not self._leaving:
                raise
            return RunEnd.INTERRUPTED
        finally:
            under_way = [*self._running, *beating]
            for doing in under_way:
                doing.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            with suppress(StoreError, TimeoutError):  # its free lock, or its silence, tells as much
                await asyncio.wait_for(self._bid_farewell(), FAREWELL_S)

    async def watch(self, batch: Batch) -> RunEnd:
        """Work on nothing: wait until others have brought the batch to its end, or until `stop`."""
        self._flows[batch.id] = Flow(self._log, batch.id)
        self._only = batch
        self._main = asyncio.current_task()
        try:
            while not self._stopping:
                if is_over(await self._engine.counts(batch.id)):
                    return RunEnd.OVER
                self._wake.clear()
                await wait_for(self._wake, self._clock.scaled(LOOK_AROUND_EVERY_S), self._clock)
        except asyncio.CancelledError:
            if not self._leaving:
                raise
        return RunEnd.INTERRUPTED

    async def _beat(self) -> None:
        """Show that this worker lives. Whoever is silent for a lease is taken for dead."""
        while True:
            await self._clock.sleep(self._heartbeat_every_s)
            with suppress(StoreError):  # when the database is back, the next one tells
                await self._show_life()

    async def _show_life(self) -> None:
        at = Moment.of(self._clock)
        sign = asyncio.ensure_future(self._engine.heartbeat(self._presence.worker))
        self._signs.add(sign)
        sign.add_done_callback(self._signs.discard)
        if not await asyncio.shield(sign):
            self._log.tell("lease_lost")
        self._seen_at = at

    async def _bid_farewell(self) -> None:
        """Behind the last sign of life: on its way into the database it would call the dead back."""
        await asyncio.gather(*self._signs, return_exceptions=True)
        await self._engine.unregister(self._presence.worker)

    async def _run_safely(self) -> RunEnd:
        try:
            end = await self._run()
            for batch_id, flow in self._flows.items():
                flow.ended(end.value, (await self._engine.counts(batch_id)).get(State.IN_DOUBT, 0))
            return end
        except Exception:
            self.stop(quick=True)  # a submit that is cut off would be in doubt
            await asyncio.gather(*self._running, return_exceptions=True)
            raise

    async def _run(self) -> RunEnd:
        started = self._first.answered_at = self._clock.elapsed()
        self._looked_around_at = started
        await self._engine.changed_elsewhere()  # from here on
        await self._engine.shorten_waits()
        await self._forget_rests()
        await self._see_batches()
        await self._rescue()
        rescue_at = started + self._rescue_every_s
        while True:
            self._wake.clear()
            if self._clock.elapsed() - self._looked_around_at >= self._clock.scaled(LOOK_AROUND_EVERY_S):
                await self._look_around()  # a lane that is never idle has to heed others, too
            turn = NOTHING if self._stopping else await self._fill_all()
            if not self._running and (end := await self._end(turn)):
                return end
            if self._only and (end := await self._never_answered(started) or await self._no_host(turn)):
                return end
            if self._clock.elapsed() >= rescue_at:
                await self._rescue()
                rescue_at = self._clock.elapsed() + self._rescue_every_s
            due_at = inf if turn.due_in_s is None else self._clock.elapsed() + turn.due_in_s
            await self._wait(turn, min(due_at, rescue_at))
            self._raise_fault()

    async def _see_batches(self) -> None:
        """The batches to work on, and of each new one what there is to do, and under which limit."""
        before = self._batches
        self._batches = [self._only] if self._only else await self._engine.open_batches()
        open_ = {batch.id for batch in self._batches}
        for batch in before:
            if batch.id not in open_:
                await self._see_end(batch)
        for batch in self._batches:
            if batch.id in self._flows:
                continue
            counts = await self._engine.counts(batch.id)
            self._products[batch.id] = products = await self._engine.products(batch.id)
            unfinished = sum(count for state, count in counts.items() if state not in FINAL | AWAITING_DECISION)
            self._flows[batch.id] = flow = Flow(self._log, batch.id)
            flow.started(unfinished, self._admission.limit_words(products))

    async def _see_end(self, batch: Batch) -> None:
        """It is over, or paused; whoever writes its reports is told of an end."""
        counts = await self._engine.counts(batch.id)
        if is_over(counts):
            self._flows.pop(batch.id).ended(RunEnd.OVER.value, counts.get(State.IN_DOUBT, 0))
            self.over.put_nowait(batch)

    async def _fill_all(self) -> Turn:
        """Every batch takes its share of what is free."""
        turns = [await self._fill(batch) for batch in self._batches]
        due = [turn.due_in_s for turn in turns if turn.due_in_s is not None]
        return Turn(
            [task for turn in turns for task in turn.tasks],
            min(due, default=None),
            frozenset().union(*(turn.waiting for turn in turns)),
            is_shared=any(turn.is_shared for turn in turns),
            is_out_of_budget=bool(turns) and all(turn.is_out_of_budget for turn in turns),
        )

    async def _fill(self, batch: Batch) -> Turn:
        """Submit what finds a slot, and publish what will need one."""
        flow = self._flows[batch.id]
        if Moment.of(self._clock).since(self._seen_at) > self._claim_within_s:
            await self._show_life()  # it stood still: others would take over what it claims now
        asked_at = Moment.of(self._clock)
        turn = await self._admission.turn(self._presence.worker, batch.id, self._jobs_left())
        for task in turn.tasks:
            self._carry(task, asked_at)
        for lane, belief in self._admission.learned(turn):
            flow.learned(lane, belief)
        flow.filled(turn, self._admission.limit_of(self._products[batch.id]))
        if State.QUEUED not in turn.waiting:
            return turn
        ahead = self._admission.ahead(self._run_task.host_name)
        prepared = await self._engine.claim_preparation(self._presence.worker, batch.id, ahead)
        for task in prepared.tasks:
            self._carry(task)
        due = [due_s for due_s in (turn.due_in_s, prepared.due_in_s) if due_s is not None]
        return replace(turn, due_in_s=min(due, default=None))

    def _jobs_left(self) -> int | None:
        """How many more jobs this worker may have at the vendor; None: as many as there are slots."""
        if self._max_jobs is None:
            return None
        return max(0, self._max_jobs - sum(state in AT_VENDOR for state in self._running.values()))

    async def _wait(self, turn: Turn, until: float) -> None:
        """Until something happens here, `until` has come, or another program changed something."""
        every_s = self._clock.scaled(HAND_OVER_EVERY_S if turn.is_shared else LOOK_AROUND_EVERY_S)
        while not self._wake.is_set():
            left_s = min(every_s, until - self._clock.elapsed())
            if left_s <= 0:
                return
            began = Moment.of(self._clock)
            woken = await wait_for(self._wake, left_s, self._clock)
            self._notice_gap(began, left_s)
            if woken or (turn.is_shared and await self._has_changed_elsewhere()):
                return
            looked_s = self._clock.elapsed() - self._looked_around_at
            is_due = self._changed_elsewhere and looked_s >= self._clock.scaled(LOOK_AROUND_EVERY_S)
            if (is_due or not turn.is_shared) and await self._look_around():
                return

    async def _look_around(self) -> bool:
        """Heed what another program has changed; whether there was anything."""
        self._looked_around_at = self._clock.elapsed()
        await self._has_changed_elsewhere()
        if not self._changed_elsewhere:
            return False
        self._changed_elsewhere = False
        await self._admission.reread_limits()
        await self._see_batches()
        await self._cancel_asked()
        await self._decide()
        return True

    async def _has_changed_elsewhere(self) -> bool:
        """Whether another program has changed anything since this was last asked."""
        changed = await self._engine.changed_elsewhere()
        self._changed_elsewhere |= changed
        return changed

    def _notice_gap(self, began: Moment, meant_s: float) -> None:
        """A machine that was asleep finds its jobs long ended."""
        now = Moment.of(self._clock)
        gap_s = now.since(began) - meant_s
        if gap_s > GAP_S:
            self._log.tell("woke_up", gap_s=f"{gap_s:.0f}")
            self._run_task.look_now(elapsed_jumped=now.elapsed - began.elapsed - meant_s > GAP_S)

    async def _forget_rests(self) -> None:
        """A start is a person's hint that something is mended: what an earlier run found at fault is asked at once."""
        lanes = [lane for lane, _, _ in self._admission.lanes.values()]
        asked = {(Subject.ENDPOINT, lane.endpoint) for lane in lanes}
        asked |= {(Subject.ACCOUNT, str(lane.account_id)) for lane in lanes}
        refused = {(Subject.LANE, str(lane.id)) for lane in lanes}  # this model, to this account
        for rest in await self._engine.rests():
            this = (rest.subject, rest.key)
            if (
                rest.subject in {Subject.DISK, Subject.HOST}
                or this in asked
                or (this in refused and rest.code == "account")
            ):
                await self._engine.end_rest(*this)

    # -- carrying

    def _carry(self, task: Task, held_since: Moment | None = None) -> None:
        """Begin with a task that the engine has just given to this worker."""
        if task.can_go_on:
            if flow := self._flows.get(task.batch):
                flow.begun(task, self._clock.elapsed())
            self._begin(self._carrying(task, held_since), task)

    def _begin(self, doing: Coroutine[object, object, None], task: Task) -> None:
        under_way = asyncio.create_task(self._to_its_end(doing), name=f"task-{task.id}")
        self._running[under_way] = task.state
        under_way.add_done_callback(self._ended)
        under_way.add_done_callback(lambda _: doing.close())  # if it was cancelled before it began

    async def _to_its_end(self, doing: Coroutine[object, object, None]) -> None:
        """Nothing that goes wrong in there may pass unseen: a task that nobody carries would be waited for in vain."""
        try:
            await doing
        except Exception as error:  # noqa: BLE001 - the run ends with it
            self._fault = self._fault or error
            self._wake.set()

    def _ended(self, under_way: asyncio.Task[None]) -> None:
        del self._running[under_way]
        self._wake.set()

    async def _carrying(self, task: Task, held_since: Moment | None) -> None:
        this = asyncio.current_task()
        assert this is not None
        async for moved in self._run_task.steps(task, held_since):
            self._first.note(task.state, moved, self._clock.elapsed())
            looked = (
                task.state is State.SUBMITTING
                and task.attempt is not None
                and (task.attempt.looking or task.attempt.kind is not None)
            )
            task = moved
            self._running[this] = moved.state
            if flow := self._flows.get(moved.batch):
                flow.moved(moved, self._clock.elapsed())
            self.images_saved += len(moved.files)
            # Its slot is free, long before its pictures are here; or its answer says that others may go, too.
            if moved.state not in AT_VENDOR or looked:
                self._wake.set()
            if self._quick:
                return
            if moved.state is State.GENERATING and moved.cancel_requested:
                self._ask_to_cancel(moved)
        if task.state is State.IN_DOUBT:
            await self._decide_one(task)

    async def _rescue(self) -> None:
        """Adopt and go on before anything new is submitted; and what else is worth a look now and then."""
        if not self._stopping:
            adopted = await self._rescuer.adopt_all()
            if adopted:
                self._log.tell("tasks_adopted", count=len(adopted))
            for task in adopted:
                self._carry(task)
        await self._see_batches()
        await self._cancel_asked()
        await self._decide()

    # -- decisions and wishes

    async def _decide(self) -> None:
        """Apply each batch's policy to its tasks in doubt."""
        for batch in self._batches:
            if batch.on_doubt.action != "hold":
                for task in await self._engine.doubts(batch.id):
                    await self._decide_one(task)
        if not self._stopping:
            for task in await self._rescuer.adopt_unheld():
                self._carry(task)  # a job that a person found: somebody has to look at it

    async def _decide_one(self, task: Task) -> None:
        batch = await self._engine.batch(task.batch)
        event = batch.on_doubt.decision(task) if batch else None
        if event is None:
            return
        try:
            await self._engine.record(task, event)
        except StaleTask:
            return  # somebody decided meanwhile

    async def _cancel_asked(self) -> None:
        """Ask the vendor to drop jobs whose cancel was asked for; what it answers is seen by looking at the job."""
        for task_id in await self._engine.cancel_requests(self._presence.worker):
            if task_id not in self._cancels_asked:
                task = await self._engine.task(task_id)
                if task is not None and task.state is State.GENERATING:  # one that is submitting is asked for later
                    self._ask_to_cancel(task)

    def _ask_to_cancel(self, task: Task) -> None:
        if task.id not in self._cancels_asked:
            self._cancels_asked.add(task.id)
            self._begin(self._asking_to_cancel(task), task)  # it may take long, and claims don't wait for it

    async def _asking_to_cancel(self, task: Task) -> None:
        assert task.attempt is not None
        assert task.attempt.job_id is not None
        try:
            await self._provider.cancel(task.attempt.job_id, task.attempt.req_key, self._admission.key(task))
        except ProvenUncharged:
            self._cancels_asked.discard(task.id)  # it was not heard: asked again at the next look around
        except ProviderError:
            return  # a job that has begun can't be cancelled: it ends by itself, and is collected

    # -- ends

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _end(self, turn: Turn) -> RunEnd | None:
        self._raise_fault()
        if self._stopping:
            return RunEnd.INTERRUPTED
        if self._only is None:
            return None
        batch = self._only
        counts = await self._engine.counts(batch.id)
        if is_over(counts):
            return RunEnd.OVER
        under_way = any(
            count for state, count in counts.items() if state not in DONE_WITH | {State.QUEUED, State.READY}
        )
        if turn.is_out_of_budget and not under_way:  # what others have in hand may give back what was reserved
            return RunEnd.BUDGET
        return RunEnd.ELSEWHERE if await self._rest_is_elsewhere(batch, counts) else None

    async def _rest_is_elsewhere(self, batch: Batch, counts: Counts) -> bool:
        """Whether all that is left runs where this program can't look: another endpoint, or another account."""
        left = sum(count for state, count in counts.items() if state not in FINAL | AWAITING_DECISION)
        if left != counts.get(State.GENERATING, 0):
            return False
        jobs = [task.attempt for task in await self._engine.generating(batch.id)]
        if len(jobs) != left:
            return False  # one of them has ended since it was counted, and another program collects it
        return not any(attempt is None or self._admission.reaches(attempt) for attempt in jobs)

    async def _never_answered(self, started: float) -> RunEnd | None:
        """At the start, say at once that keys are refused, and after 30 s that nobody is there.

        Jobs that nobody can look at don't keep it: they are adopted at the next start.
        """
        hearing = self._run_task.hearing
        trouble = self._first.trouble or next(iter(hearing.silent.values()), None)
        if self._stopping or trouble is None or len(self._running) > len(hearing.silent):
            return None
        end = RunEnd.CREDENTIALS if trouble == "account" else RunEnd.UNREACHABLE
        silent_s = self._clock.elapsed() - max(self._first.answered_at, hearing.heard_at or 0.0)
        if self.give_up_after_s is not None and silent_s > self._clock.scaled(self.give_up_after_s):
            return end
        if self._first.answered or hearing.heard_at is not None:
            return None
        if trouble == "account" and await self._all_accounts_rest():
            return end
        return end if self._clock.elapsed() - started > self._clock.scaled(FIRST_ANSWER_WITHIN_S) else None

    async def _no_host(self, turn: Turn) -> RunEnd | None:
        """Nothing is left but tasks whose references no host takes: its account is refused, or it is away for long."""
        rest = None
        if turn.waiting and turn.waiting <= {State.QUEUED, State.PREPARING}:
            hosts = (rest for rest in await self._engine.rests() if rest.subject is Subject.HOST)
            rest = next(hosts, None)
        if rest is None or any(state in AT_VENDOR for state in self._running.values()):
            self._without_host_since = None
            return None
        if rest.code == "host_account" and not self._running:
            return RunEnd.CREDENTIALS
        now = self._clock.elapsed()
        self._without_host_since = since = self._without_host_since or now
        gives_up = self.give_up_after_s is not None and now - since > self._clock.scaled(self.give_up_after_s)
        return RunEnd.UNREACHABLE if gives_up and not self._running else None

    async def _all_accounts_rest(self) -> bool:
        rests = await self._engine.rests()
        resting = {rest.key for rest in rests if rest.subject is Subject.ACCOUNT}
        resting_lanes = {rest.key for rest in rests if rest.subject is Subject.LANE and rest.code == "account"}
        return all(
            str(lane.account_id) in resting or str(lane.id) in resting_lanes
            for lane, _, _ in self._admission.lanes.values()
        )
