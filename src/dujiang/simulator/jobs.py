"""The jobs, the slots they hold and the ledger of what was charged.

A job's whole course is settled when it is accepted, so time needs no timers: whoever looks first calls `settle`, which
ends the jobs whose time has come. Everything is append-only lists and dictionaries; a hundred thousand jobs are fine.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .markers import NONE, Markers

Pool: TypeAlias = tuple[str, str]
"""(account, req_key): what shares one limit."""

DONE = "done"
EMPTY = "empty"
CANCELED = "canceled"


@dataclass(slots=True, eq=False)
class Job:
    """One accepted submit. Times are the simulator's monotonic clock."""

    number: int
    task_id: str
    pool: Pool
    prompt: str
    images: int
    size: tuple[int, int]
    references: tuple[str, ...]
    client: str
    submitted_at: float
    starts_at: float
    ends_at: float
    outcome: str  # what it comes to; true only once it has ended
    markers: Markers = NONE
    faults: list[str] = field(default_factory=list)  # of polls and downloads, each still to happen once
    polls: int = 0
    answered: bool = False
    told: bool = False  # a poll has been answered with `done`
    ended: bool = False
    waiting: list[Callable[[], None]] | None = None

    @property
    def charged(self) -> bool:
        """Only pictures are billed, and what was made without one."""
        return self.ended and self.outcome in {DONE, EMPTY}

    def state(self, now: float) -> str:
        """The vendor's word for where the job stands."""
        if self.ended:
            return self.outcome
        return "in_queue" if now < self.starts_at else "generating"

    def next_fault(self, kind: Iterable[str]) -> str | None:
        """A fault of this kind that the prompt asked for; it happens this once."""
        for fault in self.faults:
            if fault in kind:
                self.faults.remove(fault)
                return fault
        return None

    def row(self, epoch: float, now: float) -> dict[str, Any]:
        """The ledger's line. `epoch` turns the simulator's clock into seconds since 1970."""
        return {
            "task_id": self.task_id,
            "account": self.pool[0],
            "req_key": self.pool[1],
            "prompt": self.prompt,
            "prompt_sha256": hashlib.sha256(self.prompt.encode()).hexdigest(),
            "references": list(self.references),
            "images": self.images if self.charged else 0,
            "submitted_at": self.submitted_at + epoch,
            "started_at": self.starts_at + epoch if self.starts_at <= now and self.outcome != CANCELED else None,
            "ended_at": self.ends_at + epoch if self.ended else None,
            "state": self.state(now),
            "outcome": self.outcome if self.ended else None,
            "charged": self.charged,
            "answered": self.answered,
            "polls": self.polls,
            "client": self.client,
        }


class JobBook:
    """Every job since the start or the last reset."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.running: Counter[Pool] = Counter()
        self.most_running: Counter[Pool] = Counter()
        self.most_running_overall = 0
        self._running_overall = 0
        self._ends: list[tuple[float, int, Job]] = []

    def accept(self, job: Job) -> None:
        """The job is taken on and holds a slot of its pool until it has ended."""
        self.jobs[job.task_id] = job
        self.running[job.pool] += 1
        self._running_overall += 1
        self.most_running[job.pool] = max(self.most_running[job.pool], self.running[job.pool])
        self.most_running_overall = max(self.most_running_overall, self._running_overall)
        heapq.heappush(self._ends, (job.ends_at, job.number, job))

    def settle(self, now: float) -> None:
        """End every job whose time has come."""
        ends = self._ends
        while ends and ends[0][0] <= now:
            self._end(heapq.heappop(ends)[2])

    def end_now(self, job: Job, now: float, outcome: str | None = None) -> None:
        """The job ends before its time: cancelled, or finished by a test's hand."""
        job.ends_at = now
        job.outcome = outcome or job.outcome
        self._end(job)

    def _end(self, job: Job) -> None:
        if job.ended:
            return
        job.ended = True
        self.running[job.pool] -= 1
        self._running_overall -= 1
        self.release(job)

    def release(self, job: Job) -> None:
        """Tell everyone who waits for this job to look again."""
        waiting, job.waiting = job.waiting or (), None
        for wake in waiting:
            wake()
