"""What the limit that finds itself is worth: the product's arithmetic beside other policies, in virtual time.

A vendor that runs C jobs at once refuses the rest, after 0.1 s like every answer; run times are lognormal, median 22 s
and p99 60 s; an end is noticed at one of the looks at a job, 0.5 s apart. There is always a backlog. `lane.py` is that
world, `policies.py` says who works in it.

- utilization: slots used ÷ slots there were, until the backlog is empty. Since an end must be noticed, no policy can do
  better than 0.986. A slot that the vendor frees late counts as used until then.
- refused: answers 50430 for every 100 tasks admitted. lost: tasks of 100 that failed because of them.
- filled: seconds until 95 % of the slots are used for the first time.

Parameters were chosen on seeds 1 to 40, never on those used here. Aims for C > 10, and what single refinements are
worth, are shown and don't fail the run.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, Final, Literal

from dujiang.domain.belief import Belief
from dujiang.domain.brim import Brim
from dujiang.domain.limits import PRESETS
from lane import MEAN_S, Lane, Policy, Run, Scenario
from policies import Aimd, Fixed, Ours
from report import Aim, conclude, parser, print_table

PolicyOf = Callable[[int], Policy]
"""A new one, with a seed for its random numbers."""
SEEDS: Final = (101, 102, 103, 104, 105, 106)
TASKS: Final[Mapping[int, int]] = {1: 1000, 2: 1000, 3: 1000, 10: 1000, 50: 1500, 200: 4000}
"""C -> N"""
UTILIZATION: Final[Mapping[int, float]] = {1: 0.98, 2: 0.98, 3: 0.98, 10: 0.98, 50: 0.98, 200: 0.975}
REFUSED: Final[Mapping[str, Mapping[int, float]]] = {
    "ours": {1: 3.2, 2: 2.2, 3: 2.0, 10: 1.3, 50: 0.8, 200: 0.7},
    "ours, quiet": {1: 1.3, 2: 1.0, 3: 1.0, 10: 1.0, 50: 0.6, 200: 0.6},
}
RISES: Final[Mapping[tuple[int, int], float]] = {(3, 6): 300, (1, 10): math.inf, (10, 20): 160, (20, 200): 120}
"""Caps before and after -> mean seconds until it is noticed without a hint"""
FALLS: Final = ((2, 1), (4, 2), (10, 5), (200, 100))
NOTHING: Final[Mapping[str, bool]] = dict.fromkeys(
    ("confirm", "slack", "memory", "patience", "settle", "pause", "budget"), False
)


def ours(brim: Brim, belief: Belief | None = None) -> PolicyOf:
    """The product with these parameters; `belief` is what an earlier batch has left."""
    return lambda seed: Ours(brim, seed, belief)


def fixed(slots: int) -> PolicyOf:
    """Always so many, and three more tries."""
    return lambda _: Fixed(slots)


AUTO: Final = PRESETS["auto"]
OURS: Final[Mapping[str, PolicyOf]] = {
    "ours": ours(AUTO),
    "ours, quiet": ours(PRESETS["quiet"]),
    "ours, eager": ours(PRESETS["eager"]),
    "ours, core only": ours(replace(AUTO, **NOTHING)),
}
OTHERS: Final[Mapping[str, PolicyOf]] = {
    "classic: fixed 3, 3 tries": fixed(3),
    "AIMD, half": lambda _: Aimd(0.5, slow_start=False),
    "AIMD, 0.9, slow start": lambda _: Aimd(0.9, slow_start=True),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario with its usual size, in words."""

    words: str
    cap: int
    scenario: Scenario


def case(words: str, cap: int, **scenario: Any) -> Case:
    """Where the cap stays and 1,000 tasks are to be done, unless said otherwise."""
    return Case(words, cap, Scenario(**{"caps": ((0, cap),), "tasks": 1000, **scenario}))


CASES: Final[Mapping[str, Case]] = {
    "sawtooth": Case(
        "C is 10 and 5 in turns, 200 s each",
        10,
        Scenario(tuple((200.0 * turn, 5 if turn % 2 else 10) for turn in range(12)), until_s=2400),
    ),
    "rival": case("C = 10, of which others hold 3, taken at random", 10, rival=3),
    "rival-3": case("C = 3, of which others hold 1, taken at random", 3, rival=1),
    "penalties": case("C = 10; after a refusal everything is refused for 5 s", 10, punish_s=5),
    "penalties-3": case("C = 3; after a refusal everything is refused for 5 s", 3, punish_s=5),
    "late": case("C = 10; a slot is freed 1 s after its job has ended", 10, late_s=1),
    "later": case("C = 10; a slot is freed 2 s after its job has ended", 10, late_s=2),
    "late-50": case("C = 50; a slot is freed 0.5 s after its job has ended", 50, late_s=0.5, tasks=1500),
    "qps": case("C = 50, but one submit a second at most, which keeps 24 busy", 50, qps=1),
    "lost-answers": case("C = 10; one submit of 100 is never answered", 10, lost_answers=0.01),
    "leftovers": case("C = 3, all taken at the start by jobs of a client that has crashed", 3, leftovers=3),
    "leftovers-2": case("C = 3, of which 2 are taken at the start", 3, leftovers=2),
    "outage": Case("C = 10, but 0 for 300 s", 10, Scenario(((0, 10), (600, 0), (900, 10)), until_s=1800)),
    "hints": case(
        "C = 1; every 5 s somebody says that it has risen", 1, hints=tuple(5.0 * turn for turn in range(6000))
    ),
    "looks": case("C = 10; looked at as the product does: young jobs seldom, others often", 10, rare_looks=True),
}


@dataclass(frozen=True, slots=True)
class Worth:
    """What a refinement has to be good for: by how much it reduces a figure in a scenario."""

    where: str
    scenario: Scenario
    figure: Literal["refused", "unused"]


WORTH: Final[Mapping[str, Worth]] = {
    "confirm": Worth("C = 10", Scenario(((0, 10),), tasks=1000), "refused"),
    "slack": Worth("C = 200", Scenario(((0, 200),), tasks=4000), "refused"),
    "memory": Worth("rival", CASES["rival"].scenario, "unused"),
    "patience": Worth("rival", CASES["rival"].scenario, "refused"),
    "settle": Worth("late", CASES["late"].scenario, "refused"),
    "pause": Worth("penalties", CASES["penalties"].scenario, "refused"),
    "budget": Worth("hints", CASES["hints"].scenario, "refused"),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy in one scenario, over all seeds."""

    utilization: float
    refused: float
    lost: float
    filled_s: float
    too_fast: float
    in_doubt: float

    @property
    def unused(self) -> float:
        """The share of the slots that was not used."""
        return 1 - self.utilization


@dataclass(slots=True)
class Report:
    """How much is measured, and what it has shown so far."""

    seeds: Sequence[int]
    lives: int
    """Runs for each seed, where a cap moves."""
    moments: int
    """At which it rises, in each of them."""
    aims: list[Aim] = field(default_factory=list)
    goals: list[Aim] = field(default_factory=list)
    """Aims that don't fail the run: those of large lanes, and what single refinements are worth."""
    figures: dict[str, Any] = field(default_factory=dict)
    lost_of_ours: int = 0

    def expect(self, cap: int, aim: Aim) -> None:
        """An aim for a lane of that size."""
        (self.aims if cap <= 10 else self.goals).append(aim)


def main() -> int:
    """Measure; 1 if an aim was missed."""
    options = _options()
    begun = time.perf_counter()
    report = Report(options.seeds[:2], 1, 4) if options.quick else Report(options.seeds, 4, 6)
    for name in options.scenarios:
        if name in MEASURES:
            MEASURES[name](report)
        else:
            _case(report, name, CASES[name])
    report.aims.append(Aim("ours, everywhere: tasks lost to refusals", report.lost_of_ours, 0))
    for goal in report.goals:
        print(f"{goal} (not enforced)")
    seconds = time.perf_counter() - begun
    goals = [asdict(goal) | {"met": goal.is_met} for goal in report.goals]
    figures = {"seeds": list(report.seeds), "seconds": seconds, "goals": goals, **report.figures}
    missed = conclude(report.aims, figures, options.json)
    print(f"{seconds:.0f} s")
    return missed


def _options() -> argparse.Namespace:
    names = [*MEASURES, *CASES]
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS], help="of all that is random")
    options.add_argument("--scenarios", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    options.add_argument("--quick", action="store_true", help="two seeds, fewer samples: too few for some aims")
    return options.parse_args()


# -- A cap that stays, and what else vendors do -----------------------------------------------------------------------


def _caps(report: Report) -> None:
    for cap, tasks in TASKS.items():
        print(f"caps: C = {cap}, N = {tasks}")
        policies = {**OURS, "fixed, of the right size": fixed(cap), **OTHERS}
        measured = _measured(report, f"C={cap}", Scenario(((0, cap),), tasks=tasks), policies)
        for name, bounds in REFUSED.items():
            row = measured[name]
            report.expect(cap, Aim(f"C = {cap}, {name}: utilization", row.utilization, UTILIZATION[cap], at_least=True))
            report.expect(cap, Aim(f"C = {cap}, {name}: refused for 100 tasks", row.refused, bounds[cap]))


def _case(report: Report, name: str, case: Case) -> None:
    print(f"{name}: {case.words}")
    measured = _measured(report, name, case.scenario, {**OURS, f"fixed {case.cap}, 3 tries": fixed(case.cap), **OTHERS})
    if name == "rival":
        row = measured["ours"]
        report.expect(case.cap, Aim(f"{name}: utilization", row.utilization, 0.88, at_least=True))
        report.expect(case.cap, Aim(f"{name}: refused for 100 tasks", row.refused, 45))


def _warm(report: Report) -> None:
    print("warm: the last batch ended with a limit of 50, now C = 10; and the limit of 200 is still right")
    for cap, limit, tasks in ((10, 50, 500), (200, 200, 4000)):
        left = Belief(limit=limit, former=limit, runs=200, run_s=MEAN_S, probe_every_s=100, admissions=500)
        policies = {"ours, warm": ours(AUTO, left), "ours, new": OURS["ours"], f"fixed {limit}, 3 tries": fixed(limit)}
        _measured(report, f"warm, C={cap}", Scenario(((0, cap),), tasks=tasks), policies)


def _worth(report: Report) -> None:
    """Each refinement turned off, where it is needed."""
    for name, worth in WORTH.items():
        print(f"worth of {name}: {worth.where}")
        policies = {"ours": ours(AUTO), f"ours, no {name}": ours(replace(AUTO, **{name: False}))}
        ratio = [getattr(row, worth.figure) for row in _measured(report, name, worth.scenario, policies).values()]
        report.goals.append(Aim(f"{name}: {worth.figure}, with it ÷ without it", ratio[0] / ratio[1], 0.75))


def _measured(report: Report, name: str, scenario: Scenario, policies: Mapping[str, PolicyOf]) -> Mapping[str, Figures]:
    """One table."""
    measured = {}
    for policy, policy_of in policies.items():
        runs = [Lane(scenario, policy_of(seed), seed).go() for seed in report.seeds]
        measured[policy] = _figures(runs)
        if policy.startswith("ours"):
            report.lost_of_ours += sum(run.lost for run in runs)
    head = ["", "utilization", "refused/100", "lost/100", "filled s", "50429/100"]
    print_table(
        head,
        [
            [
                policy,
                row.utilization,
                *(f"{figure:.2f}" for figure in (row.refused, row.lost, row.filled_s, row.too_fast)),
            ]
            for policy, row in measured.items()
        ],
    )
    report.figures[name] = {policy: asdict(row) for policy, row in measured.items()}
    return measured


def _figures(runs: Sequence[Run]) -> Figures:
    return Figures(
        utilization=fmean(run.utilization() for run in runs),
        refused=fmean(run.refused_per_100 for run in runs),
        lost=fmean(run.lost_per_100 for run in runs),
        filled_s=fmean(run.first(0, _is_filled) for run in runs),
        too_fast=fmean(100 * run.too_fast / len(run.admissions) for run in runs),
        in_doubt=fmean(run.in_doubt for run in runs),
    )


def _is_filled(ours: int, room: int) -> bool:
    return room > 0 and ours >= 0.95 * room


# -- A cap that moves -------------------------------------------------------------------------------------------------


def _rises(report: Report) -> None:
    told: dict[str, Any] = {}
    for (before, after), bound in RISES.items():
        print(f"rises: C = {before} -> {after}, seconds until 95 % are used")
        rows = {name: _noticed(report, before, after, OURS[name]) for name in ("ours", "ours, quiet", "ours, eager")}
        rows["ours, hint at once"] = _noticed(report, before, after, OURS["ours"], hint_s=0)
        rows["ours, hint 5 s too early"] = _noticed(report, before, after, OURS["ours"], hint_s=-5)
        rows |= {name: _noticed(report, before, after, OTHERS[name]) for name in OTHERS if name.startswith("AIMD")}
        print_table(
            ["", "mean", "at most"], [[name, f"{fmean(row):.1f}", f"{max(row):.1f}"] for name, row in rows.items()]
        )
        told[f"{before}->{after}"] = rows
        title = f"C = {before} -> {after}"
        if bound < math.inf:
            report.expect(before, Aim(f"{title}: mean seconds until it is noticed", fmean(rows["ours"]), bound))
        hinted = max(fmean(row) for name, row in rows.items() if "hint" in name)
        report.expect(before, Aim(f"{title}: the same with a hint, at once or too early", hinted, 15))
    report.figures["rises"] = told


def _noticed(report: Report, before: int, after: int, policy_of: PolicyOf, hint_s: float | None = None) -> list[float]:
    """The cap rises at moments that are spread evenly over two probe periods, once these have reached their length."""
    policy = policy_of(0)
    brim = policy.brim if isinstance(policy, Ours) else AUTO
    period_s = min(brim.longest_s, brim.spacing * MEAN_S / math.sqrt(before))
    found = []
    for seed, life, moment in _samples(report):
        part = (moment + random.Random(f"{seed} {life} {moment} rise").random()) / report.moments
        at = (2.4 + 2 * part) * period_s
        hints = () if hint_s is None else (at + hint_s,)
        scenario = Scenario(((0, before), (at, after)), until_s=at + 4 * period_s, hints=hints)
        lane = Lane(scenario, policy_of(100 * seed + life), 100 * seed + life)
        found.append(lane.go(_used(at)).first(at, _is_filled))
    return found


def _samples(report: Report) -> list[tuple[int, int, int]]:
    lives, moments = range(report.lives), range(report.moments)
    return [(seed, life, moment) for seed in report.seeds for life in lives for moment in moments]


def _used(after: float) -> Callable[[float, int, int], bool]:
    return lambda now, ours, cap: now > after and _is_filled(ours, cap)


def _falls(report: Report) -> None:
    told: dict[str, Any] = {}
    for before, after in FALLS:
        print(f"falls: C = {before} -> {after}")
        rows = []
        for name, policy_of in {**OURS, **OTHERS}.items():
            fall = told[f"{before}->{after}, {name}"] = _fallen(report, before, after, policy_of)
            means = {figure: fmean(of_each) for figure, of_each in fall.items()}
            rows.append([name, *(f"{mean:.2f}" for mean in means.values()), max(fall["refused"])])
            if name == "ours":
                title = f"C = {before} -> {after}"
                report.expect(before, Aim(f"{title}: mean seconds until 95 to 100 % are used", means["back_s"], 13))
                if before <= 10:
                    report.expect(before, Aim(f"{title}: refused within 60 s, mean", means["refused"], 12))
        print_table(["", "back s", "refill s", "utilization", "refused", "at most"], rows)
    report.figures["falls"] = told


def _fallen(report: Report, before: int, after: int, policy_of: PolicyOf) -> dict[str, list[float]]:
    """`back_s`: until 95 to 100 % of the new cap are used. `refill_s`: from the first slot free again until they are.

    The utilization is that of the 120 s from this slot on; the refusals are those of the first 60 s.
    """
    fall: dict[str, list[float]] = {"back_s": [], "refill_s": [], "utilization": [], "refused": []}
    for seed, life, moment in _samples(report):
        if before > 10 and (life or moment):
            continue  # one run shows hundreds of tasks
        at = random.Random(f"{seed} {life} {moment} fall").uniform(300, 600)
        scenario = Scenario(((0, before), (at, after)), until_s=at + 200)
        run = Lane(scenario, policy_of(100 * seed + life), 100 * seed + life).go()
        free_at = at + run.first(at, lambda ours, room: ours < room)
        fall["back_s"].append(run.first(at, lambda ours, room: 0.95 * room <= ours <= room))
        fall["refill_s"].append(run.first(free_at, _is_filled))
        fall["utilization"].append(run.utilization(free_at, free_at + 120))
        fall["refused"].append(sum(at <= refused_at <= at + 60 for refused_at in run.refusals))
    return fall


MEASURES: Final[Mapping[str, Callable[[Report], None]]] = {
    "caps": _caps,
    "rises": _rises,
    "falls": _falls,
    "worth": _worth,
    "warm": _warm,
}


if __name__ == "__main__":
    sys.exit(main())
