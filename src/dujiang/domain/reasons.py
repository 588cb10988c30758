"""Why a task waits: one machine-readable reason, shown as it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dujiang.domain.accounts import Lane
from dujiang.domain.lifecycle import State
from dujiang.domain.rests import Rest, Subject


@dataclass(frozen=True, slots=True)
class LaneView:
    """What a reason needs to know of a lane."""

    lane: Lane
    in_use: int
    limit: int | None
    """None while it is being looked for."""
    gate_s: float = 0.0
    """Seconds for which nothing is submitted after a refusal, where the limit finds itself."""
    former: int = 0
    """The limit before the vendor began to refuse within it; 0: it does not."""
    stopped: str | None = None
    """`paused` or `draining`, if somebody stopped the account."""
    pace_s: float = 0.0
    """Seconds until the account may submit again, as it was too fast."""
    day: tuple[int, int] | None = None
    """The account's images today, of how many; None: no cap."""


@dataclass(frozen=True, slots=True)
class BatchView:
    """What a reason needs to know of a batch."""

    paused: bool = False
    budget: tuple[int, int] | None = None
    """Its images taken, of how many; None: no budget."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything outside a task that can make it wait."""

    lanes: Sequence[LaneView]
    rests: Sequence[Rest]
    worker_runs: bool
    now: float
    clock_time: Callable[[float], str]
    """A moment as a person reads a clock."""
    tries: int = 3
    """Rests of an endpoint that count as tries, before it rests for longer."""
    paused: bool = False
    """Somebody has paused everything."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits, or one that stands for all in its state."""

    state: State
    req_key: str
    batch: BatchView = BatchView()
    images: int = 1
    """That it is reckoned to bring."""
    published: tuple[int, int] | None = None
    """How many of its references are published already, and how many have to be."""
    lane: str | None = None
    """Where its job runs."""


def reason(task: Waiting, around: Surroundings) -> str | None:
    """Why it waits; None if it doesn't."""
    match task.state:
        case State.IN_DOUBT:
            return "doubt"
        case State.PREPARING:
            return _upload_reason(task)
        case State.GENERATING:
            return _silence_reason(task, around)
        case State.QUEUED | State.READY:
            return _held_back(task, around) or _queue_reason(task, around)
        case _:
            return None


def _held_back(task: Waiting, around: Surroundings) -> str | None:
    """What people have decided, or the lack of anybody who works."""
    if around.paused:
        return "paused(all)"
    if task.batch.paused:
        return "paused(batch)"
    if task.batch.budget and task.batch.budget[0] + task.images > task.batch.budget[1]:
        return f"budget({task.batch.budget[0]}/{task.batch.budget[1]})"
    return None if around.worker_runs else "worker(none running)"


def _queue_reason(task: Waiting, around: Surroundings) -> str:
    lanes = [lane for lane in around.lanes if lane.lane.req_key == task.req_key]
    found = [_lane_reason(lane, task, around) for lane in lanes]
    if task.state is State.QUEUED:
        if why := _host_reason(around):
            return why
        has_room = (lane.limit is None or lane.in_use < lane.limit for lane in lanes)
        if any(room and rank == 1 for room, (rank, _) in zip(has_room, found, strict=True)):
            return _upload_reason(task)  # a slot would be there
    # The lane that is closest to taking it says why it does not yet.
    return min(found, default=(0, "slot(none)"))[1]


def _silence_reason(task: Waiting, around: Surroundings) -> str | None:
    """Why nobody can look at a job that runs."""
    lane = next((lane.lane for lane in around.lanes if lane.lane.name == task.lane), None)
    rest = _resting(around).get((Subject.ACCOUNT, str(lane.account_id))) if lane else None
    return f"account({rest.detail.partition(':')[0]})" if rest else None


def disk_reason(around: Surroundings) -> str | None:
    """Why nothing can be stored, which keeps paid pictures waiting, too; None if the disk answers."""
    rests = (rest for rest in around.rests if rest.subject is Subject.DISK and rest.remaining_s(around.now) > 0)
    return next((f"disk({rest.detail.partition(':')[0]})" for rest in rests), None)


def _upload_reason(task: Waiting) -> str:
    return f"upload({task.published[0]}/{task.published[1]})" if task.published else "upload"


def _host_reason(around: Surroundings) -> str | None:
    """Why no reference can be published; None if a host takes them."""
    rests = (rest for rest in around.rests if rest.subject is Subject.HOST and rest.remaining_s(around.now) > 0)
    for rest in rests:
        why = "account" if rest.code == "host_account" else rest.detail
        return f"host({rest.key}, {why}, next {around.clock_time(around.now + rest.remaining_s(around.now))})"
    return None


def _resting(around: Surroundings) -> Mapping[tuple[Subject, str], Rest]:
    return {(rest.subject, rest.key): rest for rest in around.rests if rest.remaining_s(around.now) > 0}


def _lane_reason(view: LaneView, task: Waiting, around: Surroundings) -> tuple[int, str]:
    """Why the lane does not take it, and how far away it is from that: 1 for a slot, more for greater obstacles."""
    lane, resting = view.lane, _resting(around)
    if disk := disk_reason(around):
        return 5, disk
    if rest := resting.get((Subject.ENDPOINT, lane.endpoint)):
        return 4, _endpoint_reason(rest, around)
    if view.stopped:
        return 3, "paused(account)"
    if rest := resting.get((Subject.ACCOUNT, str(lane.account_id))):
        return 3, f"account({rest.detail.partition(':')[0]})"
    if view.day and view.day[0] + task.images > view.day[1]:
        return 3, f"budget({view.day[0]}/{view.day[1]})"
    rest = resting.get((Subject.LANE, str(lane.id)))
    if rest and rest.code == "account":
        return 3, f"account({rest.detail.partition(':')[0]})"
    if view.pace_s > 0:
        return 2, "qps(50429)"
    if rest:
        return 2, f"cooldown({rest.detail}, {rest.remaining_s(around.now):.0f}s)"
    if view.gate_s > 0:
        others = "" if view.in_use else ", others"  # nothing of ours runs there, so what fills the lane isn't ours
        return 2, f"cooldown(50430, {view.gate_s:.0f}s{others})"
    limit = "?" if view.limit is None else view.limit
    former = f", was {view.former}" if view.former else ""
    return 1, f"slot({lane.name}, {view.in_use}/{limit}{former})"


def _endpoint_reason(rest: Rest, around: Surroundings) -> str:
    at = around.clock_time(around.now + rest.remaining_s(around.now))
    if rest.in_a_row < around.tries:
        return f"backoff(try {rest.in_a_row + 1}/{around.tries}, {at})"
    return f"network({rest.detail}, next {at})"
