"""Whether the tests would notice: the share of small changes to the rules (mutants) that make a test fail.

Reads what `mutmut run` has left (`make mutation` does both). mutmut changes one thing in one function at a time; which
modules and which tests it takes stands in pyproject.toml. Only a test that fails kills: a mutant that no test reaches,
that never ends, or that changes nothing anybody can see, has survived.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from report import Aim, conclude, parser, print_table

KILLED: Final = 0.85
AIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "lifecycle": ("lifecycle",),
    "retry": ("retry",),
    "limits": ("limits",),
    "brim, belief, pace": ("brim", "belief", "pace"),
}
"""What is judged. The arithmetic of a limit is spread over three modules, so these count together."""
DOMAIN: Final = "dujiang.domain."


def main() -> int:
    """Print what happened to the mutants of each module; 1 if too many live."""
    options = parser(__doc__).parse_args()
    found = counted(mutmut("results", "--all", "true"))
    modules = [module for group in AIMS.values() for module in group]
    rows = [(module, *row(found[module])) for module in modules]
    print_table(["module", "mutants", "killed", "survived", "timeout", "killed, %"], rows)
    aims = [Aim(f"killed in {name}", share([found[m] for m in group]), KILLED, True) for name, group in AIMS.items()]
    return conclude(aims, {"modules": {module: dict(found[module]) for module in modules}}, options.json)


def mutmut(*arguments: str) -> str:
    """What the mutmut beside this Python says."""
    command = [str(Path(sys.executable).parent / "mutmut"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def counted(results: str) -> dict[str, Counter[str]]:
    """Module -> how many mutants came to which end, from lines like `dujiang.domain.brim.x_f__mutmut_1: killed`."""
    found: dict[str, Counter[str]] = {module: Counter() for group in AIMS.values() for module in group}
    for line in results.splitlines():
        mutant, _, end = line.strip().partition(": ")
        found[mutant.removeprefix(DOMAIN).partition(".")[0]][end] += 1
    return found


def row(ends: Counter[str]) -> tuple[int, int, int, int, str]:
    """One line of the table; `no tests` and whatever else is no kill are among the survivors."""
    killed, timeout = ends["killed"], ends["timeout"]
    return ends.total(), killed, ends.total() - killed - timeout, timeout, f"{100 * share([ends]):.1f}"


def share(modules: list[Counter[str]]) -> float:
    """Of these modules' mutants, how many of 1 were killed; none at all would be a mistake, not a success."""
    mutants = sum(ends.total() for ends in modules)
    return sum(ends["killed"] for ends in modules) / mutants if mutants else 0.0


if __name__ == "__main__":
    sys.exit(main())
