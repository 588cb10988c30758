"""How things look in a terminal: data on stdout, as a table for a person and as JSON for a program."""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(value: object) -> None:
    """One JSON value on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines; a terminal breaks the long ones."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    wide: Sequence[int] = (),
    wrapped: int | None = None,
) -> None:
    """A table. Columns in `wide` share what room a terminal leaves and are cut; into a file nothing is cut.

    The column `wrapped` gets what room is left and goes on in further lines.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    needed = [
        max(cell_len(line) for words in (column, *(row[n] for row in cells)) for line in words.splitlines() or [""])
        for n, column in enumerate(columns)
    ]
    giving = wide if wrapped is None else (*wide, wrapped)
    widths = _fitted(needed, giving, console.width - GAP * (len(columns) - 1)) if console.is_terminal else needed
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
        wraps = number == wrapped
        table.add_column(column, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis", width=width)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    total = sum(widths) + GAP * len(columns)
    (console if console.is_terminal else Console(highlight=False, width=total)).print(table)


GAP: Final = 2


def _fitted(needed: Sequence[int], wide: Sequence[int], room: int) -> list[int]:
    """Widths that fit: what the fixed columns leave is shared by the wide ones, the first served first."""
    widths = list(needed)
    left = room - sum(width for number, width in enumerate(needed) if number not in wide)
    for place, number in enumerate(wide):
        share = left // (len(wide) - place)
        wished = max(8, share, left - sum(needed[n] for n in wide[place + 1 :]))
        widths[number] = min(needed[number], wished)
        left -= widths[number]
    return widths


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line."""
    width = max((_cells(name) for name in fields), default=0)
    console = Console(highlight=False, soft_wrap=True)
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            console.print(Text(f"{name}{' ' * (width - _cells(name))}  {value}"))


def _cells(name: str) -> int:
    return Text(name).cell_len


def moment(at: float | None) -> str:
    """A moment in the machine's own time zone."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def counts_line(counts: Mapping[str, int]) -> str:
    """`succeeded 120, ready 8`."""
    from dujiang.messages import text

    return ", ".join(f"{text(f'state_{state}')} {count}" for state, count in sorted(counts.items()) if count)


def one_line(words: str, limit: int = 200) -> str:
    """A prompt on one line."""
    flat = " ".join(words.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
