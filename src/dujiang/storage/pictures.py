"""Whether a picture is complete, told while it streams by; nothing of it is kept.

A parser is a generator that reads from a `_Source` and yields whenever it needs more bytes. It returns the picture's
size once the format says that the picture has ended, and raises `BrokenPicture` as soon as something can't be right.
"""

import hashlib
import re
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from dujiang.domain.errors import DownloadError
from dujiang.messages import text

Bytes = bytes | bytearray | memoryview


class BrokenPicture(DownloadError):
    """What arrived is no complete picture. `what` is a short name of the flaw: `cut`, `crc`, `unknown`, …"""

    def __init__(self, what: str, **fields: object) -> None:
        super().__init__(text(f"picture_{what}", **fields))
        self.what = what


@dataclass(frozen=True, slots=True)
class Checked:
    """A complete picture."""

    suffix: str
    width: int
    height: int
    bytes: int
    sha256: str


class PictureCheck:
    """Fed with a picture's bytes in any portions; `finish` says what it was."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._source = _Source()
        self._parser = _picture(self._source)
        self._shape: _Shape | None = None
        next(self._parser)

    def feed(self, data: Bytes) -> None:
        """Check the next bytes. Raises `BrokenPicture` as early as it can be known."""
        self.bytes += len(data)
        self._sha256.update(data)
        if self._shape is None:
            self._source.data = memoryview(data)
            try:
                next(self._parser)
            except StopIteration as end:
                self._shape = end.value

    def finish(self) -> Checked:
        """The picture, now that every byte was fed. Raises `BrokenPicture`."""
        shape = self._shape
        if shape is None:
            raise BrokenPicture("empty") if self.bytes == 0 else BrokenPicture("cut", value=self.bytes)
        if shape.bytes not in {None, self.bytes}:
            raise BrokenPicture("length", value=self.bytes, limit=shape.bytes)
        if shape.width < 1 or shape.height < 1:
            raise BrokenPicture("size", value=f"{shape.width}×{shape.height}")
        return Checked(shape.suffix, shape.width, shape.height, self.bytes, self._sha256.hexdigest())


@dataclass(frozen=True, slots=True)
class _Shape:
    suffix: str
    width: int
    height: int
    bytes: int | None = None
    """What the format itself says about the file's length; None if bytes after the end do no harm."""


class _Source:
    """Bytes that have arrived and were not read yet."""

    def __init__(self) -> None:
        self.data = memoryview(b"")

    def some(self, at_most: int) -> memoryview:
        """What is there, possibly nothing."""
        taken, self.data = self.data[:at_most], self.data[at_most:]
        return taken

    def exactly(self, count: int) -> Generator[None, None, bytes]:
        taken = bytearray(self.some(count))
        while len(taken) < count:
            yield
            taken += self.some(count - len(taken))
        return bytes(taken)

    def skip(self, count: int) -> Generator[None, None, None]:
        while count := count - len(self.some(count)):
            yield


_Parser = Generator[None, None, _Shape]


def _picture(source: _Source) -> _Parser:
    magic = yield from source.exactly(2)
    if magic == b"\xff\xd8":
        return (yield from _jpeg(source))
    magic += yield from source.exactly(6)
    if magic == b"\x89PNG\r\n\x1a\n":
        return (yield from _png(source))
    if magic[:4] == b"RIFF":
        return (yield from _webp(source, 8 + int.from_bytes(magic[4:], "little")))
    raise BrokenPicture("unknown", value=_shown(magic))


def _shown(magic: bytes) -> str:
    """The first bytes as a person can read them: an error page shows itself by its `<html`."""
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in magic)


# -- PNG: chunks of length, type, data and CRC, up to IEND ------------------------------------------------------------

_PNG_CHUNK_MAX: Final = 2**31 - 1


def _png(source: _Source) -> _Parser:
    kind, header = yield from _png_chunk(source, keep=True)
    if kind != b"IHDR" or len(header) != 13:
        raise BrokenPicture("header", value="PNG")
    has_pixels = False
    while kind != b"IEND":
        kind, _ = yield from _png_chunk(source)
        has_pixels |= kind == b"IDAT"
    if not has_pixels:
        raise BrokenPicture("no_pixels", value="PNG")
    return _Shape(".png", int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big"))


def _png_chunk(source: _Source, *, keep: bool = False) -> Generator[None, None, tuple[bytes, bytes]]:
    """Read and check one chunk; its type and, with `keep`, its first bytes."""
    head = yield from source.exactly(8)
    left, kind = int.from_bytes(head[:4], "big"), head[4:]
    if left > _PNG_CHUNK_MAX or not kind.isalpha():
        raise BrokenPicture("header", value="PNG")
    kept = (yield from source.exactly(min(left, 13))) if keep else b""
    left -= len(kept)
    crc = zlib.crc32(kept, zlib.crc32(kind))
    while left:
        piece = source.some(left)
        if not piece:
            yield
            continue
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    if int.from_bytes((yield from source.exactly(4)), "big") != crc:
        raise BrokenPicture("crc", value=kind.decode("latin-1"))
    return kind, kept


# -- JPEG: marker segments, and after each SOS coded pixels in which FF is followed by 00 or a restart ----------------

_SOS, _EOI = 0xDA, 0xD9
_RESTARTS: Final = frozenset(range(0xD0, 0xD8))
_ALONE: Final = _RESTARTS | {0x01}  # markers without a segment: restarts and TEM
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOFn; the three are DHT, JPG and DAC
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg(source: _Source) -> _Parser:
    width = height = 0
    has_pixels = False
    marker = yield from _jpeg_marker(source)
    while marker != _EOI:
        head = b""
        if marker not in _ALONE:
            head = yield from _jpeg_segment(source)
        if marker in _FRAMES:
            if len(head) < 5:
                raise BrokenPicture("header", value="JPEG")
            height, width = int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big")
        if marker == _SOS:
            has_pixels = True
            marker = yield from _jpeg_scan(source)
        else:
            marker = yield from _jpeg_marker(source)
    if not has_pixels:
        raise BrokenPicture("no_pixels", value="JPEG")
    return _Shape(".jpg", width, height)


def _jpeg_marker(source: _Source) -> Generator[None, None, int]:
    fill, code = yield from source.exactly(2)
    while code == 0xFF:  # any number of FF may stand before a marker
        code = (yield from source.exactly(1))[0]
    if fill != 0xFF or code == 0:
        raise BrokenPicture("header", value="JPEG")
    return code


def _jpeg_segment(source: _Source) -> Generator[None, None, bytes]:
    """Skip a segment; its first bytes, which hold a frame's size."""
    length = int.from_bytes((yield from source.exactly(2)), "big") - 2
    if length < 0:
        raise BrokenPicture("header", value="JPEG")
    head = yield from source.exactly(min(length, 5))
    yield from source.skip(length - len(head))
    return head


def _jpeg_scan(source: _Source) -> Generator[None, None, int]:
    """Skip coded pixels; the marker after them."""
    after_ff = False  # an FF ended the portion before, so its second byte opens the next one
    while True:
        if not source.data:
            yield
        elif after_ff:
            code = source.some(1)[0]
            if code not in _RESTARTS | {0x00, 0xFF}:
                return code
            after_ff = code == 0xFF
        elif found := _MARKER_IN_SCAN.search(source.data):
            code = source.data[found.end() - 1]
            source.data = source.data[found.end() :]
            return code
        else:
            after_ff = source.data[-1] == 0xFF
            source.data = source.data[:0]


# -- WebP: a RIFF file of a known length; its first chunk holds the size ----------------------------------------------


def _webp(source: _Source, length: int) -> _Parser:
    form, kind, _ = (yield from source.exactly(4)), (yield from source.exactly(4)), (yield from source.exactly(4))
    if form != b"WEBP":
        raise BrokenPicture("unknown", value=_shown(b"RIFF" + form))
    head = yield from source.exactly(max(0, min(10, length - 20)))
    width, height = _webp_size(kind, head)
    yield from source.skip(length - 20 - len(head))
    return _Shape(".webp", width, height, length)


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    if kind == b"VP8X" and len(head) == 10:
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8 " and len(head) == 10 and head[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    if kind == b"VP8L" and len(head) >= 5 and head[0] == 0x2F:
        sides = int.from_bytes(head[1:5], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    raise BrokenPicture("header", value="WebP")
