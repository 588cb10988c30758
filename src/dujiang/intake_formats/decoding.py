"""Text files as people have them: UTF-8 with or without a mark, GB18030 from a Chinese Excel, UTF-16 with a mark.

The file is read once beforehand, in portions, so that one that is read halfway never turns out to be something else.
"""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from dujiang.domain.rows import InputError

PORTION: Final = 1 << 20
"""Bytes read at once; a line that is longer is no line."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The file as text, line ends as they are. Raises `InputError`."""
    with readable(path):
        encoding = encoding_of(path)
        with path.open(encoding=encoding, newline="") as file:
            yield file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Every `OSError` leaves as an `InputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(_reason(error, path), path=path, value=error.strerror or type(error).__name__) from error


def _reason(error: OSError, path: Path) -> str:
    if path.is_dir():  # Windows calls that a lack of permission
        return "input_directory"
    match error:
        case FileNotFoundError():
            return "input_missing"
        case PermissionError():
            return "input_denied"
        case _:
            return "input_unreadable"


def encoding_of(path: Path) -> str:
    """The encoding in which the whole file can be read. Raises `InputError` naming the first byte that can't be."""
    with path.open("rb") as file:
        mark = file.read(3)
        if mark[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            candidates = ["utf-16"]
        else:
            candidates = ["utf-8-sig"] if mark == codecs.BOM_UTF8 else ["utf-8", "gb18030"]
        flaws = []
        for encoding in candidates:
            file.seek(0)
            flaw = _first_flaw(file, encoding, path)
            if flaw is None:
                return encoding
            flaws.append(flaw)
    byte, line = max(flaws)  # the encoding that got farthest is the one that was meant
    raise InputError("input_encoding", path=path, line=line, byte=byte)


def _first_flaw(file: BinaryIO, encoding: str, path: Path) -> tuple[int, int] | None:
    """Offset and line of the first byte that isn't `encoding`. Raises `InputError` for what no text file has."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    end, line = 0, 1
    while True:
        portion = file.read(PORTION)
        end += len(portion)
        try:
            text = decoder.decode(portion, final=not portion)
        except UnicodeDecodeError as error:
            return end - len(error.object) + error.start, line + error.object[: error.start].count(b"\n")
        if "\0" in text:
            raise InputError("input_nul", path=path, line=line + text[: text.index("\0")].count("\n"))
        if len(portion) == PORTION and "\n" not in text and "\r" not in text:
            raise InputError("input_line", path=path, line=line, limit=PORTION)
        line += text.count("\n")
        if not portion:
            return None
