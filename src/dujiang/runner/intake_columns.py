"""What the columns of an input mean, worked out once for each set of columns and not for each row.

A column is a known one (in English or Chinese), a parameter of a model, or a template variable. A variable that looks
like a slip of the pen (`heigth`) is told apart from one that is meant by whether the prompt uses it.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

KNOWN: Final[Mapping[str, str]] = {
    "prompt": "prompt",
    "提示词": "prompt",
    "描述": "prompt",
    "id": "id",
    "编号": "id",
    "sku": "id",
    "refs": "refs",
    "参考图": "refs",
    "model": "model",
    "模型": "model",
    "width": "width",
    "height": "height",
    "size": "size",
    "尺寸": "size",
    "ratio": "ratio",
    "比例": "ratio",
    "count": "count",
    "数量": "count",
    "priority": "priority",
    "优先级": "priority",
    "name": "name",
    "文件名": "name",
    "group": "group",
}
FAILED_ONLY: Final = ("batch", "row", "state", "error")
"""Columns of failed.csv. Known only if `batch` and `row` are both there: alone they are words like any other."""

CLOSE: Final = 0.8  # `heigth` for `height` is 0.83, `参考` for `参考图` 0.8

_PLACE: Final = re.compile(r"\{\{([^{}]*)\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a row, resolved. All values are the row's own keys."""

    known: Mapping[str, str]
    """Known name -> key."""
    parameters: frozenset[str]
    """Those of the known names that are parameters as they are; `size` needs reading first."""
    variables: Mapping[str, str]
    """Name in a template -> key."""
    slips: Mapping[str, str]
    """Key of a variable -> the known name that was perhaps meant."""
    twice: Sequence[tuple[str, str]]
    """(known name, key) of columns that mean what another one means already."""
    names: frozenset[str]
    """Every column's name as it is compared."""
    continues: bool
    """The rows come from a failed.csv: they name their batch and themselves, and prompts are taken as they are."""


@functools.lru_cache(maxsize=4096)
def compared(name: str) -> str:
    """`name` as names are compared: without case, width and blanks around it."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def resolved(keys: Sequence[str], parameters: frozenset[str]) -> Columns:
    """What `keys` mean where models have `parameters`."""
    names = {key: compared(key) for key in keys}
    present = frozenset(names.values())
    continues = {"batch", "row"} <= present
    own = {name: name for name in FAILED_ONLY} if continues else {}
    meanings = {**{parameter: parameter for parameter in parameters}, **KNOWN, **own}
    known: dict[str, str] = {}
    twice = []
    for key, name in names.items():
        meaning = meanings.get(name)
        if meaning in known:
            twice.append((meaning, key))
        elif meaning:
            known[meaning] = key
    variables = {name: key for key, name in names.items() if name not in meanings}
    return Columns(
        known=known,
        parameters=parameters.intersection(known) - {"size"},
        variables=variables,
        slips={key: near for name, key in variables.items() if (near := closest(name, frozenset(meanings)))},
        twice=twice,
        names=present,
        continues=continues,
    )


@functools.lru_cache(maxsize=4096)
def closest(name: str, names: frozenset[str]) -> str | None:
    """The one of `names` that `name` looks like; two letters look like too much."""
    near = difflib.get_close_matches(name, [other for other in names if other != "id"], 1, CLOSE)
    return near[0] if near else None


@dataclass(frozen=True, slots=True)
class Filled:
    """A prompt with its places filled in."""

    prompt: str
    used: frozenset[str]
    """Keys of the variables that stand in it."""
    slips: Sequence[tuple[str, str]]
    """(what stands in braces, the column that was perhaps meant)."""


def filled(prompt: str, columns: Columns, values: Mapping[str, object]) -> Filled:
    """Replace each `{column}` by the row's cell.

    Only template variables are replaced; other braces stay as they are, unless they look like a column. `{{column}}`
    stands for the text `{column}`.
    """
    used, slips = set(), []

    def fill(place: re.Match[str]) -> str:
        literal, name = place.groups()
        if literal is not None:
            return f"{{{literal}}}" if compared(literal) in columns.names else place.group()
        key = columns.variables.get(compared(name))
        if key is None:
            near = compared(name) if compared(name) in columns.names else closest(compared(name), columns.names)
            if near:
                slips.append((name, near))
            return place.group()
        used.add(key)
        value = values.get(key)
        return "" if value is None else str(value).strip()

    text = _PLACE.sub(fill, prompt)
    return Filled(text, frozenset(used), slips)
