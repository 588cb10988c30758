"""Draws what the benchmarks have found: `python benchmarks/plot.py FIGURES PLOTS`.

FIGURES is a folder with what `--json` has written: `limiter.json`, and `known.json` and `unknown.json` of
`utilization.py`. A cap that moves is drawn from a run of its own, in virtual time.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

from drawing import Point, Scale, bars, lines
from dujiang.domain.limits import PRESETS
from lane import Lane, Policy, Run, Scenario
from policies import Aimd, Fixed, Ours

POLICIES: Final[Mapping[str, str]] = {
    "ours": "Dujiang",
    "classic: fixed 3, 3 tries": "classic: 3 at once, 3 tries",
    "AIMD, half": "AIMD, half",
    "AIMD, 0.9, slow start": "AIMD, 0.9, slow start",
}
SHARE: Final = Scale(0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1))
REFUSALS: Final = Scale(0.1, 2000, (0.1, 1, 10, 100, 1000), logarithmic=True)
CAPS: Final = ((0.0, 10), (400.0, 20), (900.0, 5))
UNTIL_S: Final = 1300.0
STEP_S: Final = 10.0
SEED: Final = 101


def main() -> int:
    """Draw every plot."""
    figures, plots = Path(sys.argv[1]), Path(sys.argv[2])
    limiter, known, unknown = (
        json.loads((figures / f"{name}.json").read_text("utf-8")) for name in ("limiter", "known", "unknown")
    )
    pictures = {
        "limiter-utilization": _caps(limiter, "utilization", "Slots used ÷ slots there were, by the cap", SHARE),
        "limiter-refusals": _caps(limiter, "refused", "Refused for 100 tasks admitted, by the cap", REFUSALS),
        "limiter-moving": _moving(),
        "utilization": _whole_program(known, unknown),
    }
    plots.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        (plots / f"{name}.svg").write_text(picture, "utf-8")
    return 0


def _caps(limiter: Mapping[str, Any], figure: str, title: str, scale: Scale) -> str:
    rows = _sizes(limiter)
    series = {shown: [row[name][figure] for row in rows.values()] for name, shown in POLICIES.items()}
    return bars(title, list(rows), series, scale)


def _sizes(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("=", " = "): row for name, row in figures.items() if name.startswith("C=")}


def _whole_program(known: Mapping[str, Any], unknown: Mapping[str, Any]) -> str:
    groups = {f"{size}, told": rounds for size, rounds in _sizes(known).items()}
    groups |= {f"{size}, unknown": rounds for size, rounds in _sizes(unknown).items()}
    names = {"ours": "Dujiang", "classic": "classic: 3 at once, 3 tries", "plain": "plain script, told the cap"}
    series = {shown: [_to_null(rounds, name) for rounds in groups.values()] for name, shown in names.items()}
    return bars("The whole program: slots used, as a part of the null run's", list(groups), series, SHARE)


def _to_null(rounds: list[dict[str, Any]], name: str) -> float | None:
    found = [uses[name]["utilization"] / uses["null"]["utilization"] for uses in rounds if name in uses]
    return median(found) if found else None


def _moving() -> str:
    cap: list[Point] = []
    for (at, slots), (until, _) in zip(CAPS, (*CAPS[1:], (UNTIL_S, 0)), strict=True):
        cap += [(at, slots), (until, slots)]
    policies: Mapping[str, Policy] = {
        "Dujiang": Ours(PRESETS["auto"], SEED),
        "classic: 3 at once, 3 tries": Fixed(3),
        "AIMD, half": Aimd(0.5, slow_start=False),
    }
    scenario = Scenario(CAPS, until_s=UNTIL_S)
    ways = {name: _means(Lane(scenario, policy, SEED).go()) for name, policy in policies.items()}
    ticks = [float(at) for at in range(0, int(UNTIL_S) + 1, 100)]
    title = "Jobs at the vendor while its cap moves (means of 10 s)"
    return lines(title, {"the cap": cap} | ways, Scale(0, 22, (0, 5, 10, 15, 20)), ticks, " s")


def _means(run: Run) -> list[Point]:
    ends = [*(at for at, _, _ in run.trace[1:]), UNTIL_S]
    points = []
    for step in range(int(UNTIL_S / STEP_S)):
        begin, end = step * STEP_S, (step + 1) * STEP_S
        parts = (
            ours * max(0.0, min(until, end) - max(at, begin))
            for (at, ours, _), until in zip(run.trace, ends, strict=True)
        )
        points.append(((begin + end) / 2, sum(parts) / STEP_S))
    return points


if __name__ == "__main__":
    raise SystemExit(main())
