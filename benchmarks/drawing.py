"""Charts as SVG: bars in groups, and lines. Nothing but text is needed for that."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TypeAlias

WIDTH: Final = 860
HEIGHT: Final = 400
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 84, 48
COLORS: Final = ("#0b6e4f", "#d1495b", "#edae49", "#8d99ae")
STYLE: Final = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:#444}"
    ".title{font-size:17px;font-weight:600;fill:#111}.value{font-size:10.5px;fill:#333}.grid{stroke:#e4e4e4}"
)
Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values on the upright axis."""

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def y(self, value: float) -> float:
        """Where it stands in the picture; what is below the axis stands on it."""
        low, high, at = (math.log10(max(v, self.low)) if self.logarithmic else v for v in (self.low, self.high, value))
        return HEIGHT - BOTTOM - (min(max(at, low), high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], scale: Scale) -> str:
    """A group of bars for each of `groups`, one of each series that has a value there."""
    return _picture(title, list(series), scale, _bars(groups, series, scale))


def lines(title: str, series: Mapping[str, Sequence[Point]], scale: Scale, ticks: Sequence[float], unit: str) -> str:
    """Lines from point to point; the first is broad and grey, as what the others are measured by."""
    return _picture(title, list(series), scale, _lines(series, scale, ticks, unit), first_is_grey=True)


def _picture(
    title: str, names: Sequence[str], scale: Scale, content: Iterator[str], *, first_is_grey: bool = False
) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{LEFT}" y="30">{escape(title)}</text>',
        *_legend(names, first_is_grey=first_is_grey),
        *_grid(scale),
        *content,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _colors(*, first_is_grey: bool) -> Iterator[str]:
    return iter(("#c9ced6", *COLORS) if first_is_grey else COLORS)


def _legend(names: Sequence[str], *, first_is_grey: bool) -> Iterator[str]:
    x = float(LEFT)
    for name, color in zip(names, _colors(first_is_grey=first_is_grey), strict=False):
        yield f'<rect x="{x:.0f}" y="46" width="13" height="13" rx="2" fill="{color}"/>'
        yield f'<text x="{x + 19:.0f}" y="57">{escape(name)}</text>'
        x += 19 + 6.7 * len(name) + 22


def _grid(scale: Scale) -> Iterator[str]:
    for tick in scale.ticks:
        y = scale.y(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'


def _bars(groups: Sequence[str], series: Mapping[str, Sequence[float | None]], scale: Scale) -> Iterator[str]:
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    wide = min(46.0, 0.84 * room / len(series))
    floor = HEIGHT - BOTTOM
    for number, group in enumerate(groups):
        middle = LEFT + (number + 0.5) * room
        there = [
            (values[number], color)
            for values, color in zip(series.values(), _colors(first_is_grey=False), strict=False)
            if values[number] is not None
        ]
        yield f'<text x="{middle:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{escape(group)}</text>'
        for place, (value, color) in enumerate(there):
            assert value is not None
            x, y = middle + (place - len(there) / 2) * wide, scale.y(value)
            yield f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{wide - 2:.1f}" height="{floor - y:.1f}" fill="{color}"/>'
            above = f'x="{x + wide / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle"'
            yield f'<text class="value" {above}>{_short(value)}</text>'


def _short(value: float) -> str:
    """As many figures as say something."""
    return f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _lines(series: Mapping[str, Sequence[Point]], scale: Scale, ticks: Sequence[float], unit: str) -> Iterator[str]:
    longest = max(x for points in series.values() for x, _ in points)
    across = (WIDTH - LEFT - RIGHT) / longest
    for tick in ticks:
        yield f'<text x="{LEFT + tick * across:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{tick:g}{unit}</text>'
    widths = itertools.chain((6.0,), itertools.repeat(2.0))
    for points, color, width in zip(series.values(), _colors(first_is_grey=True), widths, strict=False):
        path = " ".join(f"{LEFT + x * across:.1f},{scale.y(y):.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>'
