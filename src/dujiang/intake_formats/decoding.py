"""Text files as people have them: UTF-8 with or without a mark, GB18030 from a Chinese Excel, UTF-16 with a mark.

The file is read once beforehand, in portions, so that one that is read halfway never turns out to be something else.
"""

import bisect
import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from dujiang.domain.rows import InputError

PORTION: Final = 1 << 20
"""Bytes read at once."""

LONGEST_LINE: Final = 64 << 20
"""Characters; what is longer is no line. Pictures may stand in a row as `data:` URIs: one of 30 MB is 40 MB of text."""


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
        possible, flaws = [], []
        for encoding in candidates:
            file.seek(0)
            scan = _scanned(file, encoding, path)
            if scan.flaw:
                flaws.append(scan.flaw)
                continue
            possible.append(encoding)
            if not scan.is_misread:
                break
    if not possible:
        byte, line = max(flaws)  # the encoding that got farthest is the one that was meant
        raise InputError("input_encoding", path=path, line=line, byte=byte)
    return possible[-1]


@dataclass(slots=True)
class _Scan:
    """What decoding a whole file has shown."""

    encoding: str
    flaw: tuple[int, int] | None = None
    """Offset and line of the first byte that isn't in this encoding."""
    is_mixed: bool = False
    is_wide: bool = False

    @property
    def is_misread(self) -> bool:
        """UTF-8 only by accident: 一只猫 in GB18030 is a Cyrillic, a Hebrew and a Latin letter in UTF-8.

        Such accidents stay below U+0800, and no language mixes alphabets within a word.
        """
        return self.is_mixed and not self.is_wide

    def look_at(self, text: str) -> None:
        """Take note of what alphabets the text is in."""
        if not text.isascii():
            self.is_wide = self.is_wide or _WIDE.search(text) is not None
            self.is_mixed = self.is_mixed or any(_is_mixed(word) for word in _WORD.findall(text))


_WIDE: Final = re.compile("[\u0800-\U0010ffff]")
_WORD: Final = re.compile("[\u0080-\u07ff]{2,}")
_ALPHABETS: Final = (0x250, 0x370, 0x400, 0x530, 0x590, 0x600, 0x700, 0x750, 0x780)
"""Where Latin ends, and phonetic signs, Greek, Cyrillic, Armenian, Hebrew, Arabic, Syriac, Arabic again."""


def _is_mixed(word: str) -> bool:
    return len({bisect.bisect(_ALPHABETS, ord(sign)) for sign in word}) > 1


def is_misread(text: str) -> bool:
    """Whether a line was decoded as UTF-8 and is GB18030."""
    scan = _Scan("utf-8")
    scan.look_at(text)
    return scan.is_misread


def _scanned(file: BinaryIO, encoding: str, path: Path) -> _Scan:
    """Decode the whole file, in portions. Raises `InputError` for what no text file has."""
    scan = _Scan(encoding)
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    end, line, length = 0, 1, 0
    portion = b"?"
    while portion:
        portion = file.read(PORTION)
        end += len(portion)
        try:
            text = decoder.decode(portion, final=not portion)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            scan.flaw = end - len(error.object) + error.start, line + before.count(b"\n")
            break
        if "\0" in text:
            raise InputError("input_nul", path=path, line=line + text[: text.index("\0")].count("\n"))
        scan.look_at(text)
        line += text.count("\n")
        end_of_line = max(text.rfind("\n"), text.rfind("\r"))
        length = len(text) - end_of_line - 1 + (length if end_of_line < 0 else 0)
        if length > LONGEST_LINE:  # one that ended in this portion is at most a portion longer
            raise InputError("input_line", path=path, line=line, limit=LONGEST_LINE)
    return scan
