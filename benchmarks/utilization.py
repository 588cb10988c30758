"""How well the vendor's slots are used: the whole program, plain scripts and a null run, on the same jobs at once.

The vendor runs C jobs at once and N are to be done; everything runs ten times as fast as in life. The policies work at
the same moment (`race.py`), ours as the command `dujiang run`, its database with `synchronous=FULL`; `clients.py` says
who the others are, `use.py` what is measured. Since the jobs are the same, the quotient of two utilizations is that of
the rates at which N jobs were done.

Without an option ours is told C. Groups of their own, where nobody tells it:

- `--unknown`: 1 % of its requests fail in ways that prove that nothing was sent, or that say nothing.
- `--lost-answers`: 1 % of its submits are accepted, and their answers lost.
- `--moving` (`moving.py`): the cap falls and rises.
- `--pool` (`pool.py`): several accounts, of which two are refused.

With `--references 2` each task brings two pictures of its own, which have to be uploaded first: ours publishes them
ahead of the slots, the plain script while it holds one, and the null run has links already.
"""

import argparse
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, Final

import moving
import pool
from clients import CLASSIC_SLOTS
from race import Entry, Rounds, as_json, only_account, race, show, to_null
from report import Aim, conclude, parser
from use import TIME_SCALE

SIZES: Final[Mapping[int, int]] = {3: 60, 10: 150}
"""C -> N"""
UNKNOWN_SIZES: Final[Mapping[int, int]] = {1: 30, 3: 90, 20: 400}
"""The same where nobody tells us C."""
FAULTS: Final[Mapping[str, float]] = {"poll_503": 0.01, "poll_slow": 0.01, "cut_download": 0.01}
REFUSED_A_HUNDRED: Final[Mapping[int, float]] = {1: 3, 3: 2, 20: 1}


def main() -> int:
    """Compare; 1 if an aim was missed."""
    options = _options()
    group = next((measure for name, measure in GROUPS.items() if getattr(options, name)), _known)
    figures: dict[str, Any] = {"time_scale": TIME_SCALE, "seeds": options.seeds}
    aims = group(options, figures)
    return conclude(aims, figures, options.json)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the jobs' run times")
    options.add_argument("--compare", dest="slots_compared", type=int, nargs="+", metavar="C", help="only these")
    options.add_argument("--references", type=int, default=0, help="pictures of its own that each task brings")
    groups = options.add_mutually_exclusive_group()
    groups.add_argument("--unknown", action="store_true", help="nobody tells us C (auto), and 1 %% of requests fail")
    groups.add_argument("--lost-answers", action="store_true", help="the same, and 1 %% of submits are in doubt")
    groups.add_argument("--moving", action="store_true", help="the cap falls and rises while we work")
    groups.add_argument("--pool", action="store_true", help="several accounts, of which two are refused")
    return options.parse_args()


def _known(options: argparse.Namespace, figures: dict[str, Any]) -> list[Aim]:
    """Ours is told C, beside the plain script."""
    aims = []
    for slots, tasks in _sizes(SIZES, options):
        entry = Entry("ours", tasks, only_account(slots), f"fixed:{slots}", references=options.references)
        entries = {role: replace(entry, role=role) for role in ("ours", "plain", "null")}
        brought = f", {options.references} references a task" if options.references else ""
        all_alike = dict.fromkeys(options.seeds, entries)
        rounds = _rounds(f"C = {slots}, N = {tasks}{brought}", slots, all_alike, options, figures)
        ours, plain = to_null(rounds, "ours"), to_null(rounds, "plain")
        aims.append(Aim(f"C = {slots}: utilization, ours ÷ null (median)", ours, 0.97, at_least=True))
        aims.append(Aim(f"C = {slots}: utilization, ours ÷ plain (medians)", ours / plain, 1.0, at_least=True))
    return aims


def _unknown(options: argparse.Namespace, figures: dict[str, Any]) -> list[Aim]:
    """Nobody tells ours C, and its network is bad; beside the classic system."""
    aims = []
    for slots, tasks in _sizes(UNKNOWN_SIZES, options):
        entries = {seed: _with_faults(slots, tasks, seed) for seed in options.seeds}
        rounds = _rounds(f"C = {slots}, N = {tasks}, unknown to us", slots, entries, options, figures)
        refused = median(uses["ours"].refused for uses in rounds.values())
        allowed = 3 + REFUSED_A_HUNDRED[slots] * tasks / 100
        aims.append(Aim(f"C = {slots}: refusals of ours (median)", refused, allowed))
        ours = to_null(rounds, "ours")
        aims.append(Aim(f"C = {slots}: utilization, ours ÷ null (median)", ours, 0.95, at_least=True))
    return aims


def _lost_answers(options: argparse.Namespace, figures: dict[str, Any]) -> list[Aim]:
    """A slot that is held because nobody knows whether there is a job counts as used."""
    aims = []
    for slots, tasks in _sizes(UNKNOWN_SIZES, options):
        entry = Entry("ours", tasks, only_account(slots))
        null = replace(entry, role="null")
        lost = {seed: replace(entry, lost_answers=_hundredth(tasks, seed)) for seed in options.seeds}
        entries = {seed: {"ours": ours, "null": null} for seed, ours in lost.items()}
        rounds = _rounds(f"C = {slots}, N = {tasks}, unknown, lost answers", slots, entries, options, figures)
        ours = to_null(rounds, "ours")
        aims.append(Aim(f"C = {slots}: slots used or held in doubt, ours ÷ null (median)", ours, 0.95, at_least=True))
    return aims


def _with_faults(slots: int, tasks: int, seed: int) -> dict[str, Entry]:
    entry = Entry("ours", tasks, only_account(slots))
    unlucky = _hundredth(tasks, seed)
    doors = ["closed_door" if number in unlucky else None for number in range(tasks)]
    few = min(tasks, tasks * CLASSIC_SLOTS // slots)  # all of them would take it seven times as long
    return {
        "ours": replace(entry, vendor={"faults": FAULTS}, planned={"end": doors}),
        "classic": replace(entry, role="classic", tasks=few),
        "null": replace(entry, role="null"),
    }


GROUPS: Final[Mapping[str, Callable[[argparse.Namespace, dict[str, Any]], list[Aim]]]] = {
    "unknown": _unknown,
    "lost_answers": _lost_answers,
    "moving": moving.measure,
    "pool": pool.measure,
}


def _sizes(sizes: Mapping[int, int], options: argparse.Namespace) -> list[tuple[int, int]]:
    return [(slots, tasks) for slots, tasks in sizes.items() if slots in (options.slots_compared or [slots])]


def _hundredth(tasks: int, seed: int) -> list[int]:
    """One task of a hundred, and at least one."""
    return random.Random(f"{seed} faults").sample(range(tasks), max(1, tasks // 100))


def _rounds(
    title: str,
    slots: int,
    entries: Mapping[int, Mapping[str, Entry]],
    options: argparse.Namespace,
    figures: dict[str, Any],
) -> Rounds:
    print(f"{title}, time scale {TIME_SCALE:g}")
    rounds = {seed: race(entries[seed], seed, {"sim": [(0, slots)]}) for seed in options.seeds}
    show(rounds)
    figures[f"C={slots}"] = as_json(rounds)
    return rounds


if __name__ == "__main__":
    raise SystemExit(main())
