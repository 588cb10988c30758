"""One lane in virtual time: a vendor with a hard cap, and a client whose policy says how many jobs may be submitted.

Nothing waits here. Whatever happens lies in a heap, so a run of 1,000 tasks, hours of the vendor's time, takes 50 ms.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from dujiang.domain.belief import ON_ITS_WAY_S, Kind, Load, Sent
from dujiang.domain.run_times import Lognormal

MEDIAN_S: Final = 22.0
SPREAD: Final = math.log(60 / 22) / 2.3263478740408408
"""Of the logarithm of a run time: p99 is 60 s."""
MEAN_S: Final = MEDIAN_S * math.exp(SPREAD**2 / 2)
ONE_WAY_S: Final = (0.03, 0.07)
"""A submit on its way, and its answer: 0.1 s for both."""
POLL_S: Final = 0.5
DOUBT_S: Final = 180.0
"""The slot of a submit without an answer is held for so long: 60 s for the answer, 120 s in which the job may run."""
RIVAL_WAITS_S: Final = 2.0
FOREVER: Final = 1_000_000
"""Tasks: there is always one more."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the vendor and others do; moments in seconds from the start."""

    caps: tuple[tuple[float, int], ...]
    """From when on how many jobs may run."""
    tasks: int = FOREVER
    until_s: float = math.inf
    hints: tuple[float, ...] = ()
    """When the client is told that the cap may have risen."""
    rival: float = 0.0
    """Slots that other programs hold on average, taken and given back at random."""
    leftovers: int = 0
    """Jobs that run at the start and that the client knows nothing of."""
    late_s: float = 0.0
    """For so long an ended job goes on counting."""
    punish_s: float = 0.0
    """For so long everything is refused after a refusal."""
    qps: float = math.inf
    lost_answers: float = 0.0
    """The share of submits that get none; half of them never arrive."""
    rare_looks: bool = False
    """Look at jobs as the product does, often only where they are likely to end; else every 0.5 s."""


class Policy(Protocol):
    """Says how many jobs may be submitted."""

    def permit(self, load: Load, backlog: int, now: float) -> tuple[int, Kind, float | None]:
        """How many now, as what, and in how many seconds to ask again if nothing happens until then."""

    def submitted(self, now: float) -> None:
        """One was."""

    def admitted(self, sent: Sent, load: Load, now: float) -> None:
        """The vendor has taken one."""

    def refused(self, sent: Sent, load: Load, tries: int, now: float) -> float | None:
        """50430. So long the task waits in its place; 0: back to the head of the line; None: it has failed."""

    def too_fast(self, sent: Sent, load: Load, tries: int, now: float, admitted_last_s: int) -> float | None:
        """50429; answers like `refused`."""

    def ended(self, run_s: float, now: float) -> float:
        """A job was seen to end. So long its slot stays empty."""

    def hinted(self, now: float) -> None:
        """The cap may have risen."""


@dataclass(slots=True)
class Run:
    """What happened."""

    scenario: Scenario
    trace: list[tuple[float, int, int]] = field(default_factory=list)
    """Moment, our jobs at the vendor, room for them: the cap less what isn't ours."""
    admissions: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    too_fast: int = 0
    lost: int = 0
    """Tasks that failed because they were refused."""
    in_doubt: int = 0

    @property
    def refused_per_100(self) -> float:
        """Refusals for every 100 tasks admitted."""
        return 100 * len(self.refusals) / max(1, len(self.admissions))

    @property
    def lost_per_100(self) -> float:
        """Tasks lost to refusals, of every 100."""
        return 100 * self.lost / max(1, self.lost + len(self.admissions))

    def utilization(self, begin: float = 0.0, end: float | None = None) -> float:
        """Slots used ÷ slots there were, as long as there was a backlog."""
        if end is None:
            end = min(self.scenario.until_s, self.admissions[-1] if self.scenario.tasks < FOREVER else math.inf)
        used = there = 0.0
        for (at, ours, room), (until, _, _) in zip(self.trace, [*self.trace[1:], (math.inf, 0, 0)], strict=True):
            seconds = max(0.0, min(until, end) - max(at, begin))
            used += seconds * max(0, min(ours, room))
            there += seconds * max(0, room)
        return used / there if there else 1.0

    def first(self, after: float, holds: Callable[[int, int], bool]) -> float:
        """Seconds from `after` until `holds(ours, room)`; infinity if it never does."""
        ends = [*(at for at, _, _ in self.trace[1:]), math.inf]
        for (at, ours, room), until in zip(self.trace, ends, strict=True):
            if until > after and holds(ours, room):
                return max(0.0, at - after)
        return math.inf


class Lane:
    """One run of one policy in one scenario."""

    def __init__(self, scenario: Scenario, policy: Policy, seed: int) -> None:
        self._scenario = scenario
        self._policy = policy
        self._run = Run(scenario)
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._events = 0
        self._run_s: list[float] = []  # of each task: the same for every policy
        self._times = random.Random(f"{seed} run times")
        self._chance = random.Random(f"{seed} client")
        self._others = random.Random(f"{seed} others")
        self._fit = Lognormal(MEDIAN_S, SPREAD)
        # at the vendor
        self._cap = scenario.caps[0][1]
        self._ours = 0
        self._not_ours = 0
        self._punished_until = 0.0
        self._last_second: deque[float] = deque()
        # at the client
        self._held = 0
        self._unanswered: set[tuple[int, Sent]] = set()
        self._empty = 0
        self._waiting = 0
        self._next_task = 0
        self._returned: list[int] = []
        self._tries: dict[int, int] = {}
        self._admitted: deque[float] = deque()
        self._wake_at = math.inf

    def go(self, enough: Callable[[float, int, int], bool] = lambda now, ours, cap: False) -> Run:
        """Until there is nothing left to submit, the scenario is over, or `enough(now, ours, cap)`."""
        for at, cap in self._scenario.caps[1:]:
            self._at(at, self._change_cap, cap)
        for at in self._scenario.hints:
            self._at(at, self._hint)
        self._not_ours = self._scenario.leftovers
        for _ in range(self._scenario.leftovers):
            self._at(self._others.uniform(0, MEAN_S), self._free_other)
        if self._scenario.rival:
            self._at(self._others.expovariate(self._scenario.rival / MEAN_S), self._rival_comes)
        self._note()
        self._turn()
        while self._heap and (self._backlog() or self._unanswered or self._waiting):
            self._now, _, happens, arguments = heapq.heappop(self._heap)
            if self._now > self._scenario.until_s:
                break
            happens(*arguments)
            if enough(self._now, self._ours, self._cap):
                break
        return self._run

    def _at(self, at: float, happens: Callable[..., None], *arguments: Any) -> None:
        self._events += 1
        heapq.heappush(self._heap, (at, self._events, happens, arguments))

    # -- The vendor ---------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        self._run.trace.append((self._now, self._ours, self._cap - self._not_ours))

    def _change_cap(self, cap: int) -> None:
        self._cap = cap
        self._note()

    def _receive(self, task: int, sent: Sent) -> None:
        answer = self._answer()
        end_at = 0.0
        if answer == "taken":
            end_at = self._now + self._run_time(task)
            self._ours += 1
            self._run.admissions.append(self._now)
            self._note()
            self._at(end_at + self._scenario.late_s, self._free)
        if self._chance.random() >= self._scenario.lost_answers / 2:
            self._at(self._now + self._chance.uniform(*ONE_WAY_S), self._hear, task, sent, answer, end_at)

    def _answer(self) -> str:
        while self._last_second and self._last_second[0] <= self._now - 1:
            self._last_second.popleft()
        if len(self._last_second) >= self._scenario.qps:
            self._run.too_fast += 1
            return "50429"
        self._last_second.append(self._now)
        if self._ours + self._not_ours < self._cap and self._now >= self._punished_until:
            return "taken"
        self._punished_until = self._now + self._scenario.punish_s
        self._run.refusals.append(self._now)
        return "50430"

    def _run_time(self, task: int) -> float:
        while len(self._run_s) <= task:
            self._run_s.append(self._times.lognormvariate(math.log(MEDIAN_S), SPREAD))
        return self._run_s[task]

    def _free(self) -> None:
        self._ours -= 1
        self._note()

    def _free_other(self) -> None:
        self._not_ours -= 1
        self._note()

    def _rival_comes(self, *, again: bool = False) -> None:
        if not again:
            self._at(self._now + self._others.expovariate(self._scenario.rival / MEAN_S), self._rival_comes)
        if self._ours + self._not_ours < self._cap:
            self._not_ours += 1
            self._note()
            self._at(self._now + self._others.lognormvariate(math.log(MEDIAN_S), SPREAD), self._free_other)
        else:
            self._at(self._now + RIVAL_WAITS_S, lambda: self._rival_comes(again=True))

    # -- The client ---------------------------------------------------------------------------------------------------

    def _backlog(self) -> int:
        return self._scenario.tasks - self._next_task + len(self._returned)

    def _load(self) -> Load:
        return Load(self._held, len(self._unanswered), self._empty)

    def _turn(self) -> None:
        again_s = None
        while backlog := self._backlog():
            count, kind, again_s = self._policy.permit(self._load(), backlog, self._now)
            if not count:
                break
            for _ in range(count):
                self._submit(self._take(), kind)
        if again_s is not None and self._now + again_s < self._wake_at:
            self._wake_at = self._now + max(again_s, 0.001)
            self._at(self._wake_at, self._wake, self._wake_at)

    def _wake(self, wake_at: float) -> None:
        if wake_at == self._wake_at:
            self._wake_at = math.inf
            self._turn()

    def _take(self) -> int:
        if self._returned:
            return self._returned.pop()
        self._next_task += 1
        return self._next_task - 1

    def _submit(self, task: int, kind: Kind) -> None:
        sent = Sent(kind, self._now)
        self._policy.submitted(self._now)
        self._unanswered.add((task, sent))
        if self._chance.random() >= self._scenario.lost_answers / 2:
            self._at(self._now + self._chance.uniform(*ONE_WAY_S), self._receive, task, sent)
        if self._scenario.lost_answers:
            self._at(self._now + ON_ITS_WAY_S, self._forget, task, sent)

    def _forget(self, task: int, sent: Sent) -> None:
        if (task, sent) in self._unanswered:
            self._unanswered.remove((task, sent))
            self._run.in_doubt += 1
            self._empty += 1
            self._at(sent.at + DOUBT_S, self._fill)
            self._turn()

    def _hear(self, task: int, sent: Sent, answer: str, end_at: float) -> None:
        self._unanswered.remove((task, sent))
        if answer == "taken":
            self._held += 1
            self._at(self._seen_at(end_at), self._see_end, self._now)
            self._admitted.append(self._now)
            self._policy.admitted(sent, self._load(), self._now)
        else:
            self._be_refused(task, sent, answer)
        self._turn()

    def _be_refused(self, task: int, sent: Sent, answer: str) -> None:
        tries = self._tries[task] = self._tries.get(task, 0) + 1
        if answer == "50430":
            waits_s = self._policy.refused(sent, self._load(), tries, self._now)
        else:
            while self._admitted and self._admitted[0] <= self._now - 1:
                self._admitted.popleft()
            waits_s = self._policy.too_fast(sent, self._load(), tries, self._now, len(self._admitted))
        if waits_s is None:
            self._run.lost += 1
        elif waits_s == 0:
            self._returned.append(task)
        else:
            self._empty += 1
            self._waiting += 1
            self._at(self._now + waits_s, self._try_again, task)

    def _try_again(self, task: int) -> None:
        self._empty -= 1
        self._waiting -= 1
        self._submit(task, Kind.ORDINARY)

    def _seen_at(self, end_at: float) -> float:
        """Looks have nothing to do with ends, so the end lies anywhere between two of them."""
        every_s = POLL_S
        if self._scenario.rare_looks:  # as runner/polling.py spaces them
            every_s = 0.2 / math.sqrt(self._fit.hazard(end_at - self._now) + 1 / 1500)
        return end_at + self._chance.uniform(0, every_s) + 0.05

    def _see_end(self, accepted_at: float) -> None:
        self._held -= 1
        settle_s = self._policy.ended(self._now - accepted_at, self._now)
        if settle_s:
            self._empty += 1
            self._at(self._now + settle_s, self._fill)
        self._turn()

    def _fill(self) -> None:
        self._empty -= 1
        self._turn()

    def _hint(self) -> None:
        self._policy.hinted(self._now)
        self._turn()
