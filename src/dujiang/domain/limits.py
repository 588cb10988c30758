"""How many jobs a lane may hold, as settings and `--concurrency` say it: always N, or what `Brim` finds out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from dujiang.domain.brim import MOST, Brim

PRESETS: Final[Mapping[str, Brim]] = {
    "auto": Brim(),
    "quiet": Brim(spacing=100.0, longest_s=3600.0),
    "eager": Brim(spacing=12.0),
}


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """Always N slots."""

    slots: int

    @classmethod
    def parse(cls, text: str) -> "FixedLimit":
        """`fixed:N` (N from 1 to 10,000), as settings and `--concurrency` write it; ValueError otherwise."""
        kind, _, slots = text.partition(":")
        if kind != "fixed" or not slots.isdecimal() or not 1 <= int(slots) <= MOST:
            raise ValueError(text)
        return cls(int(slots))

    def __str__(self) -> str:
        return f"fixed:{self.slots}"

    def free(self, slots_in_use: int) -> int:
        """How many more jobs may be submitted now."""
        return max(0, self.slots - slots_in_use)


@dataclass(frozen=True, slots=True)
class AutoLimit:
    """A limit that finds itself, never below `low` nor above `high`."""

    preset: str = "auto"
    """`quiet` probes rarely, `eager` often."""
    low: int = 1
    high: int = MOST

    @classmethod
    def parse(cls, text: str) -> "AutoLimit":
        """`auto`, `quiet` or `eager`, alone or with bounds as in `auto:1..8`; ValueError otherwise."""
        preset, colon, bounds = text.partition(":")
        low, dots, high = bounds.partition("..") if colon else ("1", "..", str(MOST))
        numbers = low.isdecimal() and high.isdecimal()
        if preset not in PRESETS or not dots or not numbers or not 1 <= int(low) <= int(high) <= MOST:
            raise ValueError(text)
        return cls(preset, int(low), int(high))

    def __str__(self) -> str:
        bounded = (self.low, self.high) != (1, MOST)
        return f"{self.preset}:{self.low}..{self.high}" if bounded else self.preset

    def brim(self, scale: float = 1.0) -> "Brim":
        """The arithmetic of this limit, with our seconds times `scale`."""
        return replace(PRESETS[self.preset], low=self.low, high=self.high).scaled(scale)


Limit: TypeAlias = FixedLimit | AutoLimit


def parse_limit(text: str) -> Limit:
    """`fixed:N`, or a limit that finds itself; ValueError otherwise. `str` writes what this reads."""
    return FixedLimit.parse(text) if text.startswith("fixed") else AutoLimit.parse(text)
