"""References: pictures that go into a request. Either a public link, or a picture on this machine that has to be
published first and is known by its content, so that the same bytes are one reference wherever they lie.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LocalPicture:
    """A complete picture on this machine, as it was when the row was read."""

    path: str
    """Absolute."""
    sha256: str
    kind: str
    """`png`, `jpeg` or `webp`."""
    bytes: int
    width: int
    height: int


Reference = str | LocalPicture
"""A public link (text), or a picture to publish."""

MEGABYTE: Final = 1024 * 1024
SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
MIME_TYPES: Final = {kind: f"image/{kind}" for kind in SUFFIXES}


@dataclass(frozen=True, slots=True)
class Flaw:
    """What a model does not take about a picture: its text's code, what it is, and what would be taken."""

    code: str
    value: str
    limit: str


@dataclass(frozen=True, slots=True)
class PictureRules:
    """What a model takes as a reference."""

    max_bytes: int
    kinds: Sequence[str] = ("jpeg", "png")
    max_side: int = 4096
    max_area: int | None = None
    """Width × height; None: only the sides are bounded."""
    narrowest: float | None = None
    """Width : height lies in [1/narrowest, narrowest]; None: any shape."""

    def flaws(self, picture: LocalPicture) -> list[Flaw]:
        """Everything about the picture that the model does not take."""
        return [*self._form(picture), *self._shape(picture)]

    def _form(self, picture: LocalPicture) -> list[Flaw]:
        found = []
        if picture.kind not in self.kinds:
            found.append(Flaw("reference_kind", picture.kind.upper(), ", ".join(kind.upper() for kind in self.kinds)))
        if picture.bytes > self.max_bytes:
            found.append(Flaw("reference_bytes", megabytes(picture.bytes), megabytes(self.max_bytes)))
        return found

    def _shape(self, picture: LocalPicture) -> list[Flaw]:
        width, height = picture.width, picture.height
        written = f"{width}×{height}"
        found = []
        if self.max_area is not None and width * height > self.max_area:
            found.append(Flaw("reference_sides", written, f"width × height ≤ {self.max_area}"))
        if self.max_area is None and max(width, height) > self.max_side:
            found.append(Flaw("reference_sides", written, f"≤ {self.max_side}×{self.max_side}"))
        if self.narrowest is not None and max(width, height) > self.narrowest * min(width, height):
            found.append(Flaw("reference_shape", written, f"1:{self.narrowest:g} – {self.narrowest:g}:1"))
        return found


def megabytes(size: int) -> str:
    """A size as a person reads it, rounded up: what is a byte too large does not look as large as its limit."""
    return f"{math.ceil(size * 10 / MEGABYTE) / 10:.1f} MB"


def data_uri(content: bytes, kind: str) -> str:
    """A picture as it stands in a request."""
    return f"data:{MIME_TYPES[kind]};base64,{base64.b64encode(content).decode()}"
