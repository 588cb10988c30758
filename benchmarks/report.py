"""What a benchmark says: a small table, what it aimed at, and all its figures as JSON."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Aim:
    """A ratio measured within one run, and the bound that it has to keep."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the bound is kept."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{'ok    ' if self.is_met else 'MISSED'}  {self.name}: {self.value:.3f} (aim {sign} {self.bound:g})"


@dataclass(frozen=True, slots=True)
class Cost:
    """What the tasks took."""

    tasks: int
    wall_s: float
    cpu_s: float
    """Of the programs that did them."""

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU a task."""
        return self.cpu_s / self.tasks * 1000


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    options.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    return options


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns side by side, numbers to the right."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *shown]) for column in range(len(head))]
    for line in [list(head), *shown]:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]))
    print()


def _shown(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def conclude(aims: Sequence[Aim], figures: Mapping[str, object], json_file: Path | None) -> int:
    """Say which aims were met, keep the figures; 1 if one was missed."""
    for aim in aims:
        print(aim)
    if json_file is not None:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        told = {"machine": machine, "aims": [asdict(aim) | {"met": aim.is_met} for aim in aims], **figures}
        json_file.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
    sys.stdout.flush()
    return 0 if all(aim.is_met for aim in aims) else 1
