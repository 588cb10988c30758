"""The ways in which people say how large a picture should be, turned into the parameters that its model has.

`size` is an area in pixels (4194304), a name (`2K`) or two sides (`2048x1024`); `ratio` is `16:9` and takes its area
from `size`. What the model itself knows goes through as it is and is checked like every parameter.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from dujiang.domain.requests import ModelSpec, Problem

STEP: Final = 16  # models draw in blocks; sides that are no multiple come out rounded or blurred
_ROUNDINGS: Final[Sequence[Callable[[float], int]]] = (round, math.floor, math.ceil)
_NAMED: Final = re.compile(r"([124])\s*k", re.IGNORECASE)
_SIDES: Final = re.compile(r"(\d{1,6})\s*[xX×*＊]\s*(\d{1,6})")
_RATIO: Final = re.compile(r"(\d{1,4}(?:\.\d{1,4})?)\s*[:：/]\s*(\d{1,4}(?:\.\d{1,4})?)")


Meaning = tuple[Mapping[str, object], Sequence[Problem]]
"""Parameters to add, and what is wrong."""


def meaning_of(size: str, ratio: str, sides_given: Sequence[str], spec: ModelSpec) -> Meaning:
    """What `size` and `ratio` (empty: not given) mean for a model, beside the sides that the row gives itself."""
    sides = _SIDES.fullmatch(size)
    others = ", ".join(sides_given)
    if ratio and (sides_given or sides):
        return _wrong("size_conflict", "ratio", ratio, others or f"size = {size}")
    if sides and sides_given:
        return _wrong("size_conflict", "size", size, others)
    if sides:
        return {"width": sides[1], "height": sides[2]}, ()
    return _of_ratio(size, ratio, spec) if ratio else _of_area(size, others, spec)


def _of_area(size: str, others: str, spec: ModelSpec) -> Meaning:
    """An area goes to models that take one; a name is a square for the others."""
    named = _NAMED.fullmatch(size)
    if "size" in spec.parameters or not named:
        return {"size": _area(size)}, ()
    if others:
        return _wrong("size_conflict", "size", size, others)
    side = int(named[1]) * 1024
    return {"width": side, "height": side}, ()


def _of_ratio(size: str, ratio: str, spec: ModelSpec) -> Meaning:
    parts = _RATIO.fullmatch(ratio)
    if parts is None or not float(parts[1]) or not float(parts[2]):
        return _wrong("ratio_unreadable", "ratio", ratio, "16:9, 1:1, 3:4")
    if "width" not in spec.parameters:
        return _wrong("parameter_unknown", "ratio", ratio, spec.name)
    area = _area(size) if size else _usual_area(spec)
    bounds = spec.parameters.get("size")
    if not str(area).isdecimal() or (bounds and bounds.read(area) is None):
        return {"size": area}, ()  # its own check says what is wrong
    width, height = sides_of(int(area), float(parts[1]) / float(parts[2]), spec)
    return {"width": width, "height": height}, ()


def _wrong(code: str, field: str, value: str, limit: str) -> Meaning:
    return {}, (Problem(code, field, value, limit),)


def _area(size: str) -> int | str:
    named = _NAMED.fullmatch(size)
    return (int(named[1]) * 1024) ** 2 if named else size


def _usual_area(spec: ModelSpec) -> int:
    """What the vendor makes when nothing is said: models that know areas 2048², the others 1328²."""
    return 2048**2 if "size" in spec.parameters else 1328**2


def sides_of(area: int, shape: float, spec: ModelSpec) -> tuple[int, int]:
    """Sides of about `area` whose quotient is about `shape`: multiples of 16 that the model takes, if there are any."""
    longest = min(float(getattr(spec.parameters[side], "high", math.inf)) for side in ("width", "height"))
    width = min(math.sqrt(area * shape), longest, longest * shape)
    height = width / shape
    tries = [(_to_step(width, way), _to_step(height, way)) for way in _ROUNDINGS]
    return next((sides for sides in tries if _taken(*sides, spec)), tries[0])


def _to_step(side: float, rounding: Callable[[float], int]) -> int:
    return max(STEP, STEP * rounding(side / STEP))


def _taken(width: int, height: int, spec: ModelSpec) -> bool:
    sides = {"width": width, "height": height}
    known = all(spec.parameters[side].read(length) is not None for side, length in sides.items())
    return known and not any(rule(sides, 0) for rule in spec.rules)
