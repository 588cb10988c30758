"""Why a task waits: one machine-readable reason, shown as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dujiang.domain.lifecycle import State
from dujiang.domain.rests import Rest, Subject


@dataclass(frozen=True, slots=True)
class LaneView:
    """What a reason needs to know of a lane."""

    id: int
    endpoint: str
    account_id: int
    account: str
    req_key: str
    in_use: int
    limit: int | None
    """None while it is being looked for."""
    gate_s: float = 0.0
    """Seconds for which nothing is submitted after a refusal, where the limit finds itself."""

    @property
    def name(self) -> str:
        """As shown: account/product."""
        return f"{self.account}/{self.req_key}"


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


def reason(
    state: State, req_key: str, *, paused: bool, around: Surroundings, published: tuple[int, int] | None = None
) -> str | None:
    """Why a task in this state waits; None if it doesn't.

    `published`: how many of its references are published already, and how many have to be.
    """
    if state is State.IN_DOUBT:
        return "doubt"
    if state is State.PREPARING:
        return _upload_reason(published)
    if state not in {State.QUEUED, State.READY}:
        return None
    if paused:
        return "paused(batch)"
    if not around.worker_runs:
        return "worker(none running)"
    lanes = [lane for lane in around.lanes if lane.req_key == req_key]
    if state is State.QUEUED and (why := _host_reason(around)):
        return why
    if state is State.QUEUED and any(_has_room(lane, around) for lane in lanes):
        return _upload_reason(published)  # a slot would be there
    found = [_lane_reason(lane, around) for lane in lanes]
    # The lane that is closest to taking it says why it does not yet.
    return min(found, default=(0, "slot(none)"))[1]


def disk_reason(around: Surroundings) -> str | None:
    """Why nothing can be stored, which keeps paid pictures waiting, too; None if the disk answers."""
    rests = (rest for rest in around.rests if rest.subject is Subject.DISK and rest.remaining_s(around.now) > 0)
    return next((f"disk({rest.detail.partition(':')[0]})" for rest in rests), None)


def _upload_reason(published: tuple[int, int] | None) -> str:
    return f"upload({published[0]}/{published[1]})" if published else "upload"


def _host_reason(around: Surroundings) -> str | None:
    """Why no reference can be published; None if a host takes them."""
    rests = (rest for rest in around.rests if rest.subject is Subject.HOST and rest.remaining_s(around.now) > 0)
    for rest in rests:
        why = "account" if rest.code == "host_account" else rest.detail
        return f"host({rest.key}, {why}, next {around.clock_time(around.now + rest.remaining_s(around.now))})"
    return None


def _has_room(lane: LaneView, around: Surroundings) -> bool:
    return (lane.limit is None or lane.in_use < lane.limit) and _lane_reason(lane, around)[0] == 1


def _lane_reason(lane: LaneView, around: Surroundings) -> tuple[int, str]:
    now = around.now
    resting = {(rest.subject, rest.key): rest for rest in around.rests if rest.remaining_s(now) > 0}
    if disk := disk_reason(around):
        return 5, disk
    if rest := resting.get((Subject.ENDPOINT, lane.endpoint)):
        return 4, _endpoint_reason(rest, around)
    if rest := resting.get((Subject.ACCOUNT, str(lane.account_id))):
        return 3, f"account({rest.detail.partition(':')[0]})"
    if rest := resting.get((Subject.PACE, str(lane.account_id))):
        return 2, f"qps({rest.detail})"
    rest = resting.get((Subject.LANE, str(lane.id)))
    if rest and rest.code == "account":
        return 3, f"account({rest.detail.partition(':')[0]})"
    if rest:
        return 2, f"cooldown({rest.detail}, {rest.remaining_s(now):.0f}s)"
    if lane.gate_s > 0:
        return 2, f"cooldown(50430, {lane.gate_s:.0f}s)"
    return 1, f"slot({lane.name}, {lane.in_use}/{'?' if lane.limit is None else lane.limit})"


def _endpoint_reason(rest: Rest, around: Surroundings) -> str:
    at = around.clock_time(around.now + rest.remaining_s(around.now))
    if rest.in_a_row < around.tries:
        return f"backoff(try {rest.in_a_row + 1}/{around.tries}, {at})"
    return f"network({rest.detail}, next {at})"
