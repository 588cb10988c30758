"""Tables as text: comma, tab or semicolon, quoted cells of several lines, a header in the first row.

Rows are numbered as Excel shows them: a record is one row, however many lines its cells have, and so is a blank line.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final, TextIO

from dujiang.domain.requests import Problem
from dujiang.domain.rows import InputError, RawRow
from dujiang.intake_formats.decoding import LONGEST_LINE, opened

DELIMITERS: Final = ",\t;"
_QUOTED: Final = re.compile(r'"[^"]*"')

csv.field_size_limit(LONGEST_LINE)  # the module knows one limit for everybody; its own is 131,072 characters


def read(path: Path) -> Iterator[RawRow]:
    """The rows below the header; empty ones are left out."""
    with opened(path) as file:
        records = _records(file, _delimiter(file), path)
        header: list[str] = []
        for number, cells in records:
            if not any(cells):
                continue
            if header:
                yield _row(number, header, cells)
            else:
                header = _header(cells, path)


def _records(file: TextIO, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every record with its number. Strict: a quote that is never closed would swallow the rest of the file."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):  # the error needs it
            yield number, cells
    except csv.Error as error:
        raise InputError("input_csv", path=path, row=number + 1, line=reader.line_num, value=error) from error


def _delimiter(file: TextIO) -> str:
    """What divides the header; a comma if nothing does."""
    header = next((line for line in file if line.strip()), "")
    file.seek(0)
    bare = _QUOTED.sub("", header)
    return max(DELIMITERS, key=bare.count)


def _header(cells: Sequence[str], path: Path) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise InputError("input_column_twice", path=path, value=twice)
    return header


def _row(number: int, header: Sequence[str], cells: Sequence[str]) -> RawRow:
    if len(cells) == len(header) and "" not in header:
        return RawRow(number, dict(zip(header, cells, strict=True)))
    values: dict[str, object] = {name: "" for name in header if name}
    for name, cell in zip_longest(header, cells, fillvalue=""):
        if name:
            values[name] = cell
        elif cell.strip():
            return RawRow(number, values, (Problem("cell_without_header", "", cell, str(len(header)), number),))
    return RawRow(number, values)
