"""What a simulated picture shows: a river that a levee parts in two, as at Dujiangyan, over a plate with a number.

Drawings are rows of palette indices, rendered once for each size and shared; colours come with each job's palette.
"""

import colorsys
import math
from functools import lru_cache
from typing import Final

SKY, HILL, LAND, BANK, WATER, FOAM, LEVEE, PLATE, INK = range(9)

_DIGITS: Final = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00010 00100 01000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}
_CELL_COLUMNS: Final = 6  # five of the digit, one between
_CELL_ROWS: Final = 9  # seven of the digit, one above and one below
DIGITS_SHOWN: Final = 6


@lru_cache(maxsize=4096)
def _digit_row(digit: str, row: int, zoom: int) -> bytes:
    bits = _DIGITS[digit].split()[row] + "0"
    return b"".join(bytes([INK if bit == "1" else PLATE]) * zoom for bit in bits)


def zoom_of(width: int) -> int:
    """How many pixels a dot of the plate's digits has."""
    return max(1, width // ((DIGITS_SHOWN + 2) * _CELL_COLUMNS))


def plate_height(width: int) -> int:
    """Rows of the plate."""
    return _CELL_ROWS * zoom_of(width)


def plate(width: int, number: str) -> bytes:
    """The plate's rows, each with the filter byte 0 that PNG wants in front."""
    zoom = zoom_of(width)
    blank = b"\0" + bytes([PLATE]) * width
    lines = [blank * zoom]
    left = bytes([PLATE]) * (_CELL_COLUMNS * zoom)
    for row in range(7):
        line = left + b"".join(_digit_row(digit, row, zoom) for digit in number)
        lines.append((b"\0" + line.ljust(width, bytes([PLATE]))[:width]) * zoom)
    lines.append(blank * zoom)
    return b"".join(lines)


def river(width: int, height: int) -> bytes:
    """The landscape's rows, each with its filter byte."""
    return b"".join(b"\0" + _river_row(width, height, y) for y in range(height))


def _river_row(width: int, height: int, y: int) -> bytes:
    down = y / max(1, height - 1)  # 0 at the top, 1 at the bottom
    row = bytearray(_ground_row(width, down))
    if down < 0.22:
        return bytes(row)
    bend = 0.5 + 0.05 * math.sin(down * 9)
    parted = max(0.0, down - 0.5)  # the fish mouth lies half-way down
    if not parted:
        _water(row, bend, 0.04 + 0.11 * down)
        return bytes(row)
    _band(row, bend, 0.9 * parted, LEVEE)
    _water(row, bend - 0.045 - 0.75 * parted, 0.05)  # the inner river
    _water(row, bend + 0.05 + 0.6 * parted, 0.045)  # the outer one
    return bytes(row)


def _ground_row(width: int, down: float) -> bytes:
    """Sky with two ranges of hills, then fields."""
    if down >= 0.22:
        return bytes([LAND]) * width
    return bytes(
        HILL if down > 0.13 - 0.08 * math.sin(7 * x / width) * math.cos(3 * x / width + 1) else SKY
        for x in range(width)
    )


def _water(row: bytearray, middle: float, half: float) -> None:
    _band(row, middle, half + 0.02, BANK)
    _band(row, middle, half, WATER)
    _band(row, middle + half * 0.3, half * 0.12, FOAM)


def _band(row: bytearray, middle: float, half: float, colour: int) -> None:
    width = len(row)
    left = min(width, max(0, round((middle - half) * width)))
    right = min(width, max(left, round((middle + half) * width)))
    row[left:right] = bytes([colour]) * (right - left)


def palette(digest: bytes) -> bytes:
    """The nine colours of one picture, as PNG wants them: the digest turns the land's hue, water stays blue."""
    turn = digest[0] / 256
    water = 0.50 + digest[1] / 256 * 0.15
    tones = (
        (turn + 0.08, 0.14, 0.97),
        (turn + 0.02, 0.32, 0.62),
        (turn, 0.42, 0.80),
        (turn + 0.04, 0.22, 0.93),
        (water, 0.62, 0.72),
        (water, 0.18, 0.98),
        (turn + 0.05, 0.50, 0.42),
        (turn, 0.55, 0.22),
        (turn + 0.12, 0.12, 1.00),
    )
    return b"".join(bytes(round(255 * part) for part in colorsys.hsv_to_rgb(h % 1, s, v)) for h, s, v in tones)
