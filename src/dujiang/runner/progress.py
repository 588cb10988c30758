"""How a batch is doing, for whoever watches: counts, slots, why the rest waits, pace, and time left."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dujiang.domain.batch import Batch, Counts
from dujiang.domain.lifecycle import AT_VENDOR, FINAL, State
from dujiang.domain.reasons import BatchView, LaneView, Surroundings, Waiting, disk_reason, reason
from dujiang.ports import AccountUse, Clock, Engine, LaneUse
from dujiang.runner.admission import Admission
from dujiang.runner.clock import clock_time, midnight_before

PACE_OVER_S: Final = 300.0  # the last five minutes: long enough for 4K pictures, short enough to follow a new limit
GATE_MOST_S: Final = 120.0  # a longer wait after a refusal is a clock that went back
MOST_IMAGES: Final = 15  # of one task: what is left of a budget may be less than the next one may cost
ALIVE_S: Final = 60.0  # a worker that was heard of within this time
WAITING: Final = (State.QUEUED, State.READY)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A batch at one moment."""

    counts: Counts
    in_use: int
    limit: int | None
    """None while it is being looked for."""
    why: str | None
    """Reason of the waiting tasks, machine-readable; None if none waits."""
    images_a_minute: float | None
    """Brought home by this program over the last minutes; None before the first."""
    left_s: float | None
    tasks_a_minute: float | None = None
    """That ended over the last minutes."""
    possible_a_minute: float | None = None
    """What the lanes could do: limit ÷ mean run time; None before a run time is known."""

    @property
    def total(self) -> int:
        """Tasks in all."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Tasks that ended, however."""
        return sum(self.counts.get(state, 0) for state in FINAL)

    @property
    def running(self) -> int:
        """Tasks at the vendor."""
        return sum(self.counts.get(state, 0) for state in AT_VENDOR)

    @property
    def waiting(self) -> int:
        """Tasks that wait for their turn."""
        return sum(self.counts.get(state, 0) for state in WAITING)


def lane_view(
    use: LaneUse, slots: int | None, account: AccountUse | None, daily_images: int | None, now: float
) -> LaneView:
    """A lane as reasons need to know it.

    `slots`: None while it looks for its limit. `daily_images`: the account's cap as the settings say.
    """
    gate_s = max(0.0, use.belief.gate - now) if use.belief is not None else 0.0
    cap = day_cap(account, daily_images)
    return LaneView(
        use.lane,
        use.in_use,
        slots,
        gate_s=min(gate_s, GATE_MOST_S),
        former=use.belief.fell_from(now) if use.belief is not None else 0,
        stopped=account.stopped if account is not None else None,
        pace_s=account.pace.remaining_s(now) if account is not None and account.pace is not None else 0.0,
        day=(account.images_today, cap) if account is not None and cap else None,
    )


def day_cap(account: AccountUse | None, daily_images: int | None) -> int | None:
    """An account's images a day: as they were set for everybody, else as the settings say; None: no cap."""
    if account is None or account.daily_images is None:
        return daily_images
    return account.daily_images or None


def batch_view(paused: bool, taken: int | None, most: int | None) -> BatchView:
    """A batch as reasons need to know it."""
    return BatchView(paused, (taken or 0, most) if most is not None else None)


class Pace:
    """How many a minute, from a count that grows."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def seen(self, now: float, count: int) -> float | None:
        """The pace over the last minutes, with this count now; None before it grew."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[0][0] > PACE_OVER_S:
            self._seen.popleft()
        since, then = self._seen[0]
        return (count - then) / (now - since) * 60 if count > then and now > since else None


class Progress:
    """Takes snapshots of one batch and learns its pace from them."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        admission: Admission,
        batch: Batch,
        req_keys: Iterable[str],
        tries: int,
        images_saved: Callable[[], int],
        *,
        works: bool = True,
    ) -> None:
        """`works`: this program does; else it has to see whether any other does."""
        self._works = works
        self._engine = engine
        self._clock = clock
        self._admission = admission
        self._batch = batch
        self._req_keys = frozenset(req_keys)
        self._tries = tries
        self._images_saved = images_saved
        self._tasks, self._images = Pace(), Pace()

    async def snapshot(self) -> Snapshot:
        """The batch now."""
        counts = await self._engine.counts(self._batch.id)
        around = await self._around()
        lanes = [lane for lane in around.lanes if lane.lane.req_key in self._req_keys]
        waiting = [state for state in WAITING if counts.get(state)]
        why = await self._why(around, waiting) if waiting else disk_reason(around)
        done = sum(counts.get(state, 0) for state in FINAL)
        now = self._clock.elapsed()
        tasks, images = self._tasks.seen(now, done), self._images.seen(now, self._images_saved())
        total = sum(counts.values()) - counts.get(State.IN_DOUBT, 0)
        left_s = (total - done) / tasks * 60 if tasks and not disk_reason(around) else None
        why = why or await self._silence(around, counts)
        return Snapshot(
            counts,
            sum(lane.in_use for lane in lanes),
            self._admission.limit_of(self._req_keys),
            why,
            images,
            left_s,
            tasks,
            self._admission.possible_a_minute(self._req_keys),
        )

    async def _around(self) -> Surroundings:
        now, views = self._clock.now(), []
        accounts = {account.id: account for account in await self._engine.accounts(midnight_before(now))}
        for use in await self._engine.lanes():
            if use.lane.id in self._admission.lanes:
                _, account, _ = self._admission.lanes[use.lane.id]
                slots = self._admission.slots_of(use.lane.id)
                views.append(lane_view(use, slots, accounts.get(use.lane.account_id), account.daily_images, now))
        rests, paused = await self._engine.rests(), await self._engine.everything_is_paused()
        works = self._works or any(worker.silent_s < ALIVE_S for worker in await self._engine.workers())
        return Surroundings(views, rests, works, now, clock_time, self._tries, paused)

    async def _why(self, around: Surroundings, states: Sequence[State]) -> str | None:
        batch = await self._engine.batch(self._batch.id) or self._batch
        view = batch_view(batch.paused, batch.images_taken, batch.max_images)
        images = MOST_IMAGES if self._admission.is_out_of_budget else 1
        waiting = (Waiting(state, req_key, view, images) for req_key in self._req_keys for state in states)
        reasons = {reason(one, around) for one in waiting}
        return "; ".join(sorted(found for found in reasons if found)) or None

    async def _silence(self, around: Surroundings, counts: Counts) -> str | None:
        """Why jobs that run can't be looked at, where nothing else is left."""
        if not counts.get(State.GENERATING):
            return None
        running = (view.lane for view in around.lanes if view.in_use)
        reasons = {reason(Waiting(State.GENERATING, lane.req_key, lane=lane.name), around) for lane in running}
        return "; ".join(sorted(found for found in reasons if found)) or None
