"""What a batch leaves beside its pictures: `manifest.jsonl`, `failed.csv`, `summary.json`.

Each is written beside its place and renamed into it, row by row: a report is either the old one or the new one,
whole, and a batch of any size needs no more memory than a row. `manifest` and `failed` are for rows that come one by
one (from an engine that is awaited), the `write_…` functions for those that can be iterated.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dujiang.storage.folders import disk_errors, replacing

MANIFEST: Final = "manifest.jsonl"
FAILED: Final = "failed.csv"
SUMMARY: Final = "summary.json"

UNSTORABLE: Final = "backslashreplace"  # half a surrogate pair in a vendor's message must not cost the report


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that brought no picture, with all that it takes to ask for it again in the same batch."""

    prompt: str
    model: str
    batch: str
    row: str
    """The task's own key in its batch: `NewTask.row`."""
    state: str
    error: str
    name: str = ""
    references: Sequence[str] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    id: str = ""


@contextmanager
def manifest(folder: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """`manifest.jsonl`, one line for each picture: call what it gives with each. It appears when the block ends."""
    final = folder / MANIFEST
    with (
        disk_errors(final),
        replacing(final) as part,
        part.open("w", encoding="utf-8", errors=UNSTORABLE, newline="\n") as file,
    ):

        def add(line: Mapping[str, object]) -> None:
            file.write(f"{_json(line)}\n")

        yield add


@contextmanager
def failed(folder: Path, parameters: Sequence[str]) -> Iterator[Callable[[FailedRow], None]]:
    """`failed.csv`, an input that continues the batch: call what it gives with each row.

    `parameters`: every parameter that a row may have. With a byte order mark, so that Excel shows Chinese.
    """
    final = folder / FAILED
    with (
        disk_errors(final),
        replacing(final) as part,
        part.open("w", encoding="utf-8-sig", errors=UNSTORABLE, newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["prompt", "id", "name", "refs", "model", *parameters, "batch", "row", "state", "error"])

        def add(row: FailedRow) -> None:
            writer.writerow(_cells(row, parameters))

        yield add


def write_manifest(folder: Path, lines: Iterable[Mapping[str, object]]) -> Path:
    """`manifest.jsonl` at once, from lines that are read as they are written."""
    with manifest(folder) as add:
        for line in lines:
            add(line)
    return folder / MANIFEST


def write_failed(folder: Path, rows: Iterable[FailedRow], parameters: Sequence[str]) -> Path:
    """`failed.csv` at once; no rows leave only the header."""
    with failed(folder, parameters) as add:
        for row in rows:
            add(row)
    return folder / FAILED


def write_summary(folder: Path, summary: Mapping[str, object]) -> Path:
    """`summary.json`: the batch in figures."""
    final = folder / SUMMARY
    with disk_errors(final), replacing(final) as part:
        part.write_text(f"{json.dumps(summary, ensure_ascii=False, indent=2, default=str)}\n", "utf-8", UNSTORABLE)
    return final


def _cells(row: FailedRow, parameters: Sequence[str]) -> list[object]:
    values = [_cell(row.parameters.get(name, "")) for name in parameters]
    references = "|".join(row.references)
    return [row.prompt, row.id, row.name, references, row.model, *values, row.batch, row.row, row.state, row.error]


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _json(line: Mapping[str, object]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)
