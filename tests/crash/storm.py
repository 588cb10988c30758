"""The storm: one life of the product after the other, killed at a point, at a random moment, or beside a living one.

    python -m tests.crash.storm --kills 60 --tasks 300 --seed 7

Everything random comes from the seed, which is told; the order of the machine's own threads is not ours to repeat.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from dujiang.domain.lifecycle import State
from dujiang.domain.task import SETTLED, UNSETTLED

from .ablations import AS_SHIPPED, WIRINGS
from .client import END, PAGE, Orders
from .invariants import Evidence, gather, require
from .mortal import DIED, Point
from .processes import Life, Lives, Stuck, VendorProcess, vendor_process

RANDOM: Final = "random"
BESIDE: Final = "beside a living one"

EVENTS: Final = ("Claimed", "Accepted", "Rendered", "Saved", "Postponed", "Unanswered", "OutputRefused")
EVENTS_A_TASK: Final = 4

MOST_LIVES_A_KILL: Final = 10

AT_START: Final = (Point.IN_MIGRATION, Point.BETWEEN_ENQUEUES)
NAMED: Final = tuple(point for point in Point if point not in AT_START)

# Short enough for a storm of seconds, long enough that a job outlives the process that sent it and the start of the
# next one: only so is the limit at stake. A slot in doubt outlasts its job (at most ~0.9 s): it is held for the ceiling
# (1.2 s at first), and for a dead process for the submit time-out as well, so a busy machine does not break the limit.
TIME_SCALE: Final = 0.01
SUBMIT_TIMEOUT_S: Final = 1.0
VENDOR: Final[Mapping[str, Any]] = {
    "limit": None,  # the vendor would let us in: only our own counting keeps the limit
    "time_scale": TIME_SCALE,
    "run_median_s": 50.0,
    "run_p99_s": 75.0,
    "image_url_lifetime_s": 1e6,
    "record_lifetime_s": 1e6,
}
FAULTS: Final[Mapping[str, float]] = {
    "lost_answer": 0.05,
    "lost_answer_hang": 0.01,
    "submit_504_accepted": 0.01,
    "garbage_body": 0.01,
    "reset_before_reading": 0.02,
    "submit_503": 0.01,
    "poll_reset": 0.005,
    "poll_503": 0.005,
    "poll_garbage": 0.005,
    "poll_hang": 0.0005,
    "cut_download": 0.05,
    "download_503": 0.03,
    "download_reset": 0.03,
}


@dataclass(frozen=True, slots=True)
class Kill:
    """How one life ends: at the `on_pass`-th passing of a point, or from outside `after_s` after so many events."""

    how: str
    on_pass: int = 1
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Weather:
    """What a storm is made of."""

    seed: int
    prompts: Mapping[str, State]
    """What is asked for, and how it ends when every doubt is resolved."""
    kills: Sequence[Kill]
    limit: int = 5
    vendor: Mapping[str, Any] = field(default_factory=dict)
    wiring: str = AS_SHIPPED
    decide_in_between: bool = True
    finds_limit: bool = False
    """The limit finds itself, up to `limit`, instead of being fixed."""


def weather(seed: int, *, kills: int, tasks: int, faults: Mapping[str, float] | None = None) -> Weather:
    """A random storm with every point in it."""
    chance = random.Random(seed)
    hows: list[str] = [*NAMED, RANDOM, RANDOM, BESIDE]
    more = kills - len(AT_START) - len(hows)
    hows += chance.choices([RANDOM, BESIDE, *NAMED], [3, 1] + [1] * len(NAMED), k=more)
    chance.shuffle(hows)
    # No life may do so much that nothing is left for the others.
    most_events = max(2, int(0.5 * EVENTS_A_TASK * tasks / kills))
    pages = -(-tasks // PAGE)
    planned = [Kill(Point.IN_MIGRATION, chance.randint(1, 8)), Kill(Point.BETWEEN_ENQUEUES, chance.randint(1, pages))]
    for how in hows:
        most = most_events if how in {RANDOM, BESIDE} else max(1, most_events // 3)
        planned.append(Kill(how, chance.randint(1, most), chance.uniform(0, 0.1)))
    vendor = {"seed": seed, "faults": dict(faults or {})}
    return Weather(seed, some_prompts(chance, seed, tasks), planned, vendor=vendor)


def some_prompts(chance: random.Random, seed: int, tasks: int) -> dict[str, State]:
    """Prompts and how their tasks end. Some are refused once (with proof, before or after a run), some for good."""
    markers = [
        ("", State.SUCCEEDED, 90),
        (" [sim:submit:50430 once]", State.SUCCEEDED, 3),
        (" [sim:50511 once]", State.SUCCEEDED, 3),
        (" [sim:lost-answer]", State.SUCCEEDED, 2),
        (" [sim:50412]", State.BLOCKED, 2),
    ]
    drawn = chance.choices(markers, [weight for *_, weight in markers], k=tasks)
    return {f"江上风暴 {seed}，第 {n} 幅{marker}": state for n, (marker, state, _) in enumerate(drawn, start=1)}


@dataclass(slots=True)
class Figures:
    """What happened in a storm."""

    seed: int
    tasks: int
    kills: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    attempts: int = 0
    jobs: int = 0
    charges: int = 0
    settled: int = 0
    in_doubt: int = 0
    doubtful_tasks: int = 0
    found: int = 0
    sent_again: int = 0
    most_at_vendor: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0

    def told(self) -> str:
        """For a person."""
        kills = ", ".join(f"{how} {count}" for how, count in sorted(self.kills.items()))
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {self.tasks} tasks, {self.kills.total()} kills in {self.lives} lives"
            f" and {self.duration_s:.1f} s\n"
            f"  kills: {kills}\n"
            f"  {self.attempts} attempts, {self.jobs} jobs, {self.charges} charges;"
            f" before the last decisions {self.settled} settled, {self.in_doubt} attempts in doubt"
            f" ({self.doubtful_tasks} tasks)\n"
            f"  decided: {self.found} jobs found, {self.sent_again} sent again\n"
            f"  at most {self.most_at_vendor} at the vendor; its faults: {faults or 'none'}"
        )


class Storm:
    """One storm over one home and one vendor."""

    def __init__(self, plan: Weather, home: Path, vendor: VendorProcess, lives: Lives) -> None:
        self._plan = plan
        self._home = home
        self._vendor = vendor
        self._lives = lives
        self._prompts = dict(plan.prompts)
        self._chance = random.Random(plan.seed + 1)
        self._sent_again: set[int] = set()
        self.figures = Figures(plan.seed, len(plan.prompts))

    def blow(self) -> Figures:
        """All kills, then the quiet after. Raises `InvariantBroken`."""
        began = time.monotonic()
        for kill in self._plan.kills:
            self._one_kill(kill)
        self.to_the_end()
        self._note_doubts(self.evidence())
        while decisions := self._decisions(left := self.evidence()):
            require(left, resolved=False)
            self.to_the_end(decisions)
        self._note_end(left)
        require(left, resolved=True)
        self.figures.duration_s = time.monotonic() - began
        return self.figures

    # -- lives

    def _one_kill(self, kill: Kill) -> None:
        """Live until this kill has happened; a life that finds nothing to do is given more, and tried again."""
        decisions = self._decisions_in_between()
        for _ in range(MOST_LIVES_A_KILL):
            if self.dies(kill, decisions):
                self.figures.kills[kill.how] += 1
                return
            decisions = self._decisions(self.evidence())
            if not decisions:
                self._add_rows()
        raise Stuck(f"{kill} never comes")

    def _add_rows(self) -> None:
        """Somebody adds to the file what the plan has foreseen too little of."""
        known = len(self._prompts)
        self._prompts |= {f"江上风暴 {self._plan.seed}，补第 {known + n} 幅": State.SUCCEEDED for n in range(1, 11)}
        self.figures.tasks = len(self._prompts)

    def dies(self, kill: Kill, decisions: Sequence[tuple[int, str | None]] = ()) -> bool:
        """One life; whether it died of this kill, and not of having nothing left to do."""
        if kill.how == BESIDE:
            return self._dies_beside_another(kill, decisions)
        with self._begin(kill, decisions) as life:
            return self._is_killed(life, kill)

    def _dies_beside_another(self, kill: Kill, decisions: Sequence[tuple[int, str | None]]) -> bool:
        """Two at once on one home: one is killed, the other takes over what it held, and is killed as well."""
        with self._begin(kill, decisions) as other, self._begin(kill, ()) as life:
            if not self._is_killed(life, kill):
                return False
            other.catch_up()
            if self._is_killed(other, kill):
                self.figures.kills[BESIDE] += 1  # the second of two
            return True

    def _begin(self, kill: Kill, decisions: Sequence[tuple[int, str | None]]) -> Life:
        named = kill.how not in {RANDOM, BESIDE}
        orders = replace(self._orders(decisions), die_at=kill.how if named else None, on_pass=kill.on_pass)
        return self._live(orders)

    def _is_killed(self, life: Life, kill: Kill) -> bool:
        """Whether it died as planned, and not of having nothing left to do."""
        if kill.how in {RANDOM, BESIDE}:
            life.until(*EVENTS, END, times=kill.on_pass)
            if life.kill(kill.after_s):
                return True
        return life.last_words().startswith(DIED)

    def to_the_end(self, decisions: Sequence[tuple[int, str | None]] = ()) -> None:
        """A life that nobody disturbs."""
        with self._live(self._orders(decisions)) as life:
            words = life.last_words()
        assert words == "end over", words

    def _live(self, orders: Orders) -> Life:
        self.figures.lives += 1
        return self._lives.begin(orders)

    def _orders(self, decisions: Sequence[tuple[int, str | None]]) -> Orders:
        return Orders(
            home=str(self._home),
            endpoint=self._vendor.url,
            prompts=list(self._prompts),
            limit=self._plan.limit,
            time_scale=TIME_SCALE,
            submit_timeout_s=SUBMIT_TIMEOUT_S,
            wiring=self._plan.wiring,
            finds_limit=self._plan.finds_limit,
            decisions=decisions,
        )

    # -- a person

    def _decisions_in_between(self) -> Sequence[tuple[int, str | None]]:
        """Now and then somebody looks at the doubts although the storm goes on."""
        if (
            not self._plan.decide_in_between
            or self.figures.kills.total() <= len(AT_START)
            or self._chance.random() > 0.25
        ):
            return ()
        return self._decisions(self.evidence())

    def _decisions(self, left: Evidence) -> Sequence[tuple[int, str | None]]:
        decided = decisions_of(left)
        self._sent_again |= {task_id for task_id, job_id in decided if job_id is None}
        return decided

    def evidence(self) -> Evidence:
        """What there is now that no process is at work."""
        self._vendor.ledger()  # what a dead process had sent is read before this is answered
        return gather(
            f"sqlite:///file:{self._home / 'dujiang.db'}?mode=ro&uri=true",
            self._home / "out" / "storm" / "images",
            self._vendor.quiet(),
            expected=self._prompts,
            limit=self._plan.limit,
            decisions=frozenset(self._sent_again),
        )

    # -- figures

    def _note_doubts(self, left: Evidence) -> None:
        outcomes = [attempt["outcome"] for attempt in left.attempts]
        self.figures.settled = sum(outcome in SETTLED for outcome in outcomes)
        self.figures.in_doubt = sum(outcome in UNSETTLED for outcome in outcomes)
        self.figures.doubtful_tasks = sum(task["state"] == State.IN_DOUBT for task in left.tasks)

    def _note_end(self, left: Evidence) -> None:
        events = Counter(event["type"] for event in left.events)
        self.figures.found, self.figures.sent_again = events["JobFound"], events["ResubmitDecided"]
        self.figures.attempts, self.figures.jobs = len(left.attempts), left.ledger["accepted"]
        self.figures.charges, self.figures.faults = left.ledger["charged"], dict(left.ledger["faults"])
        self.figures.most_at_vendor = max(left.ledger["max_running"].values())


def decisions_of(left: Evidence) -> list[tuple[int, str | None]]:
    """For every doubt: the vendor's job that no attempt has, or else to send it again."""
    decided: list[tuple[int, str | None]] = []
    for task in left.tasks:
        if task["state"] != State.IN_DOUBT:
            continue
        jobs = left.jobs_of.get(left.prompts[task["id"]], [])
        job_id = next((job["task_id"] for job in jobs if job["task_id"] not in left.owned), None)
        decided.append((task["id"], job_id))
    return decided


@contextmanager
def gathering(plan: Weather, folder: Path) -> Iterator[Storm]:
    """Everything that a storm needs, in `folder`."""
    home = folder / "home"
    home.mkdir()
    expected = len(plan.kills) + 2  # to the end, and once more after the last decisions
    with vendor_process(folder, {**VENDOR, **plan.vendor}) as vendor, Lives(folder, expected) as lives:
        yield Storm(plan, home, vendor, lives)


def blow(plan: Weather, folder: Path) -> Figures:
    """The whole storm in an empty folder. Raises `InvariantBroken`."""
    with gathering(plan, folder) as storm:
        return storm.blow()


def main(arguments: Sequence[str] | None = None) -> int:
    """Blow a storm and tell its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.storm", description="Kill, start again, compare.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--wiring", choices=sorted(WIRINGS), default=AS_SHIPPED, help="what to blow at")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything that is left, for a look afterwards")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    plan = weather(seed, kills=options.kills, tasks=options.tasks, faults=FAULTS)
    plan = replace(plan, wiring=options.wiring)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.write(f"{blow(plan, folder).told()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
