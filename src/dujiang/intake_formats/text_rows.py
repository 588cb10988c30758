"""One prompt a line: the simplest input, and what can be piped in."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dujiang.domain.rows import InputError, RawRow
from dujiang.intake_formats.decoding import LONGEST_LINE, is_misread, opened


def read(path: Path) -> Iterator[RawRow]:
    """The lines that are not blank."""
    with opened(path) as file:
        yield from _rows(file)


def read_stream(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    """The same from a pipe, which can be read only once: each line is UTF-8 or, failing that, GB18030."""
    yield from _rows(_lines(stream, name))


def _rows(lines: Iterator[str]) -> Iterator[RawRow]:
    for number, line in enumerate(lines, start=1):
        prompt = line.strip()
        if prompt:
            yield RawRow(number, {"prompt": prompt})


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError("input_line", path=name, line=number, limit=LONGEST_LINE)
        if b"\0" in line:
            raise InputError("input_nul", path=name, line=number)
        yield _decoded(line, name, number)


def _decoded(line: bytes, name: str, number: int) -> str:
    with suppress(UnicodeDecodeError):
        text = line.decode("utf-8-sig")
        if not is_misread(text):
            return text
    try:
        return line.decode("gb18030")
    except UnicodeDecodeError as error:
        raise InputError("input_encoding", path=name, line=number, byte=error.start) from error
