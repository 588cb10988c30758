"""A batch: tasks asked for together, and when it is over."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dujiang.domain.lifecycle import AWAITING_DECISION, FINAL, Decider, Event, GivenUp, ResubmitDecided, State
from dujiang.domain.task import Task


class BatchState(StrEnum):
    """What a batch as a whole is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    WAITING_DECISION = "waiting_decision"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class OnDoubt:
    """What the batch's owner decided beforehand about submits whose answer never comes."""

    action: str = "hold"
    """`hold`, `resubmit` or `fail`."""
    times: int = 0
    """How often one task may be sent again."""

    @classmethod
    def parse(cls, text: str) -> "OnDoubt":
        """`hold`, `fail` or `resubmit:N` with N from 1 to 9; ValueError otherwise."""
        action, _, times = text.partition(":")
        if action in {"hold", "fail"} and not times:
            return cls(action)
        if action == "resubmit" and times.isdecimal() and 1 <= int(times) <= 9:
            return cls(action, int(times))
        raise ValueError(text)

    def decision(self, task: Task) -> Event | None:
        """What the policy decides about a task in doubt; None leaves it to a person.

        A wish to cancel is newer than the policy: nothing is sent again against it.
        """
        if self.action == "fail":
            return GivenUp(Decider.POLICY)
        if self.action == "resubmit" and task.policy_resubmits < self.times and not task.cancel_requested:
            return ResubmitDecided(Decider.POLICY)
        return None

    def __str__(self) -> str:
        return f"{self.action}:{self.times}" if self.times else self.action


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it is stored. `id` is unique everywhere: a marker file in its folder carries it."""

    id: str
    name: str
    out: str
    """Absolute path of the folder that holds the batch's own folder."""
    source: str
    on_doubt: OnDoubt = OnDoubt()
    paused: bool = False
    created_at: float = 0.0
    priority: int = 0
    """Of all its tasks; a task adds its own."""
    max_images: int | None = None
    """Its budget, over all its submits; None: as many as are wanted."""
    images_taken: int | None = None
    """Of the budget: charged or reserved; None where there is none."""


Counts = Mapping[State, int]


def is_over(counts: Counts) -> bool:
    """Nothing but final and held tasks is left."""
    return all(state in FINAL | AWAITING_DECISION for state, count in counts.items() if count)


def batch_state(counts: Counts, *, paused: bool) -> BatchState:
    """What the batch is doing, from its newest tasks' states."""
    if is_over(counts):
        held = any(counts.get(state) for state in AWAITING_DECISION)
        return BatchState.WAITING_DECISION if held else BatchState.DONE
    return BatchState.PAUSED if paused else BatchState.RUNNING
