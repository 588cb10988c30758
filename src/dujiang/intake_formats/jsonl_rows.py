"""One JSON object a line, with the same names as the columns of a table."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dujiang.domain.requests import Problem
from dujiang.domain.rows import RawRow
from dujiang.intake_formats.decoding import opened

# NUL (as `dumps` writes it) and halves of surrogate pairs: no database and no vendor takes them.
_UNFIT: Final = re.compile("\\\\u0000|[\ud800-\udfff]")


def read(path: Path) -> Iterator[RawRow]:
    """The lines that are not blank."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _row(number, line)


def _row(number: int, line: str) -> RawRow:
    try:
        values = _DECODED(line)
    except json.JSONDecodeError as error:
        return _broken(number, "json_broken", f"{error.msg} ({error.colno})")
    except (ValueError, RecursionError) as error:
        return _broken(number, "json_broken", str(error))
    if not isinstance(values, dict):
        return _broken(number, "json_no_object", line.strip()[:100])
    unfit = _UNFIT.search(json.dumps(values, ensure_ascii=False)) if "\\u" in line else None
    if unfit:
        return _broken(number, "json_character", ascii(unfit.group()))
    return RawRow(number, values)


def _broken(number: int, code: str, value: str) -> RawRow:
    return RawRow(number, {}, (Problem(code, value=value, row=number),))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(next(f"{name!r} ×{names.count(name)}" for name in names if names.count(name) > 1))
    return values


def _whole(digits: str) -> int | str:
    """A number that no parameter can be stays text, as an id it is as good."""
    return int(digits) if len(digits) < 19 else digits


_DECODED: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole).decode  # one for a million lines
