"""What a policy made of the vendor's slots, by the vendor's own ledger. Seconds are the vendor's, moments are ours.

A slot is used from the accepted submit to the end of the job, and it is there as long as the cap says so: who is slow
to see that a cap has risen leaves empty what was there, and who goes on above one that has fallen gains nothing.
"""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, TypeAlias

TIME_SCALE: Final = 0.1
"""Everything runs ten times as fast as in life."""

Caps: TypeAlias = Sequence[tuple[float, int]]
"""How many jobs may run, and from when on: seconds after the first submit."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a policy says itself; moments are real ones."""

    noticed: Mapping[str, float] = field(default_factory=dict)
    """Job id -> when its end was known here."""
    lost: int = 0
    """Tasks given up because they were refused."""
    put_off: int = 0
    """Submits that found nobody to connect to."""
    in_doubt: Mapping[str, float] = field(default_factory=dict)
    """Prompt of a submit whose answer was lost -> until when its slot is held."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job, in seconds after the first submit of all."""

    account: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Use:
    """What one policy made of the slots."""

    utilization: float
    while_filling: float
    """The same up to the last submit: it leaves out the end, where there is nothing left to fill."""
    makespan_s: float
    refill_s: float
    """Mean time from the end of a job to the submit that took its slot; 0 where slots come and go."""
    filled_s: float
    """From the last change of a cap until all its slots are used; 0 where it stays."""
    notice_s: float
    """Mean time from the end of a job until the policy knew."""
    polls: float
    """For each job."""
    refused: int
    lost: int
    put_off: int
    in_doubt: int
    uploads: int


def use_of(seen: Mapping[str, Any], told: Told, caps: Mapping[str, Caps]) -> Use:
    """From the vendor's ledger, what the policy says, and the caps of the accounts that count."""
    rows = seen["charges"]
    begun = min(row["submitted_at"] for row in rows)
    jobs = [_job(row, begun, told) for row in rows]
    last_submit, last_end = max(job.begin for job in jobs), _scaled(max(row["ended_at"] for row in rows) - begun)
    late = [told.noticed[row["task_id"]] - row["ended_at"] for row in rows if row["task_id"] in told.noticed]
    return Use(
        utilization=utilization(jobs, caps, last_end),
        while_filling=utilization(jobs, caps, last_submit),
        makespan_s=last_end,
        refill_s=_refill_s(jobs, caps),
        filled_s=_filled_s(jobs, caps),
        notice_s=_scaled(fmean(late)),
        polls=seen["polls"] / len(jobs),
        refused=seen["refused"].get("50430", 0),
        lost=told.lost,
        put_off=told.put_off,
        in_doubt=len(told.in_doubt),
        uploads=seen["stored"],
    )


def _scaled(real_s: float) -> float:
    return real_s / TIME_SCALE


def _job(row: Mapping[str, Any], begun: float, told: Told) -> Job:
    """A slot that is held because nobody knows whether there is a job counts as used."""
    end = max(row["ended_at"], told.in_doubt.get(row["prompt"], 0.0))
    return Job(row["account"], _scaled(row["submitted_at"] - begun), _scaled(end - begun))


def utilization(jobs: Sequence[Job], caps: Mapping[str, Caps], until: float) -> float:
    """Slots used ÷ slots there were, from the first submit until then."""
    shares = [_used_and_there([job for job in jobs if job.account == name], caps[name], until) for name in caps]
    return sum(used for used, _ in shares) / sum(there for _, there in shares)


def _used_and_there(jobs: Sequence[Job], caps: Caps, until: float) -> tuple[float, float]:
    """Of one account."""
    used = there = 0.0
    for (at, running, cap), (next_at, _, _) in itertools.pairwise([*_course(jobs, caps), (until, 0, 0)]):
        seconds = max(0.0, min(next_at, until) - at)
        used += seconds * min(running, cap)
        there += seconds * cap
    return used, there


def _course(jobs: Sequence[Job], caps: Caps) -> list[tuple[float, int, int]]:
    """Of one account: from when on how many jobs run, and may run."""
    changes: list[tuple[float, int, int | None]] = [(at, 0, cap) for at, cap in caps]
    changes += [change for job in jobs for change in ((job.begin, 1, None), (job.end, -1, None))]
    course = []
    running = cap = 0
    for at, more, new_cap in sorted(changes, key=lambda change: change[0]):
        running += more
        cap = cap if new_cap is None else new_cap
        course.append((at, running, cap))
    return course


def _filled_s(jobs: Sequence[Job], caps: Mapping[str, Caps]) -> float:
    changes = [(steps[-1][0], name) for name, steps in caps.items() if len(steps) > 1 and steps[-1][1]]
    if not changes:
        return 0.0
    since, name = max(changes)
    course = _course([job for job in jobs if job.account == name], caps[name])
    return next(at for at, running, cap in course if at >= since and running >= cap) - since


def _refill_s(jobs: Sequence[Job], caps: Mapping[str, Caps]) -> float:
    """Each submit takes the slot that has been free for longest: who waits the same in sum, whichever is said."""
    first, *others = [cap for steps in caps.values() for _, cap in steps]
    if others:
        return 0.0
    begins, ends = sorted(job.begin for job in jobs)[first:], [job.end for job in jobs]
    heapq.heapify(ends)
    return fmean(begin - heapq.heappop(ends) for begin in begins)
