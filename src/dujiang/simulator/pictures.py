"""PNG files, one for each image of a job, put together from ready-made parts.

The landscape of a size is rendered and compressed once. A job's own are: the palette (by its hash), the plate with the
last digits of its task id, and text chunks (`prompt` in UTF-8, `task_id`, `image`, `size`). The plate is compressed
alone and follows the landscape in one deflate stream: a full flush between the two makes that lawful.

A picture is never larger than 512 pixels a side. What asks for more gets a drawing of the same shape, with 256 on its
longer side; the size that was asked for stands in the text chunk `size`.
"""

import hashlib
import random
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from . import drawing

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MODEST: Final = 512
_DRAWN: Final = 256
_SHORTEST: Final = 64  # room for the plate
_PADDING_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Canvas:
    """What all pictures of one size share."""

    width: int
    height: int
    header: bytes
    landscape: bytes  # compressed
    landscape_crc: int  # of the IDAT's name and the landscape
    landscape_adler: int


def chunk(name: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


_END: Final = chunk(b"IEND", b"")


def drawn_size(width: int, height: int) -> tuple[int, int]:
    """The size of the drawing for a size that was asked for."""
    if width > _MODEST or height > _MODEST:
        longer = max(width, height)
        width, height = width * _DRAWN // longer, height * _DRAWN // longer
    return max(width, _SHORTEST), max(height, _SHORTEST)


@lru_cache(maxsize=64)
def _canvas(width: int, height: int) -> Canvas:
    rows = drawing.river(width, height - drawing.plate_height(width))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    landscape = b"\x78\xda" + packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    return Canvas(
        width=width,
        height=height,
        header=_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        landscape=landscape,
        landscape_crc=zlib.crc32(b"IDAT" + landscape),
        landscape_adler=zlib.adler32(rows),
    )


def _drawing(canvas: Canvas, number: str) -> bytes:
    rows = drawing.plate(canvas.width, number)
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    end = packer.compress(rows) + packer.flush() + struct.pack(">I", zlib.adler32(rows, canvas.landscape_adler))
    length = struct.pack(">I", len(canvas.landscape) + len(end))
    return length + b"IDAT" + canvas.landscape + end + struct.pack(">I", zlib.crc32(end, canvas.landscape_crc))


@lru_cache(maxsize=4)
def _padding(size: int) -> bytes:
    """Chunks that nobody reads and nothing can compress; the first letter's case says that they may be skipped."""
    noise = random.Random(size)  # noqa: S311
    chunks = []
    while size > 12:
        content = min(size - 12, _PADDING_CHUNK)
        chunks.append(chunk(b"siMp", noise.randbytes(content)))
        size -= content + 12
    return b"".join(chunks)


def _text(keyword: bytes, text: str) -> bytes:
    return chunk(b"tEXt", keyword + b"\0" + text.encode("latin-1"))


def picture(task_id: str, index: int, prompt: str, size: tuple[int, int], picture_bytes: int = 0) -> tuple[bytes, ...]:
    """The file of a job's image, in parts that follow each other."""
    canvas = _canvas(*drawn_size(*size))
    digest = hashlib.sha256(f"{task_id}/{index}".encode()).digest()
    head = b"".join(
        (
            canvas.header,
            chunk(b"PLTE", drawing.palette(digest)),
            _text(b"task_id", task_id),
            _text(b"image", str(index)),
            _text(b"size", f"{size[0]}x{size[1]}"),
            chunk(b"iTXt", b"prompt\0\0\0zh\0\0" + prompt.encode()),
            _drawing(canvas, task_id[-drawing.DIGITS_SHOWN :]),
        )
    )
    missing = picture_bytes - len(head) - len(_END)
    return (head, _padding(missing // 64 * 64), _END) if missing > 64 else (head, _END)
