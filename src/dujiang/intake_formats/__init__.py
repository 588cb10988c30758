"""Input files as rows, before anybody knows what they mean. Every format streams: a million rows need little memory.

What makes the whole input unreadable is an `InputError`; what is wrong with the form of one row travels with the row.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from dujiang.domain.rows import InputError, RawRow
from dujiang.intake_formats import csv_rows, jsonl_rows, text_rows

STDIN: Final = "-"

_FORMATS: Final[Mapping[str, Callable[[Path], Iterator[RawRow]]]] = {
    ".csv": csv_rows.read,
    ".tsv": csv_rows.read,
    ".jsonl": jsonl_rows.read,
    ".txt": text_rows.read,
}


def open_rows(path_or_dash: str | Path, stdin: BinaryIO | None = None) -> Iterator[RawRow]:
    """The rows of a file, or with `-` one prompt a line from standard input. Raises `InputError`, then or later."""
    if str(path_or_dash) == STDIN:
        return text_rows.read_stream(stdin or sys.stdin.buffer, STDIN)
    path = Path(path_or_dash)
    read = _FORMATS.get(path.suffix.lower())
    if read is None:
        raise _unknown_kind(path)
    return read(path)


def _unknown_kind(path: Path) -> InputError:
    if path.is_dir():
        return InputError("input_directory", path=path)
    if not path.exists():
        return InputError("input_missing", path=path)
    return InputError("input_kind", path=path, value=path.suffix or path.name, limit=" ".join([*_FORMATS, STDIN]))
