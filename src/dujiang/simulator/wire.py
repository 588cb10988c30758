"""The bare ASGI side: read a body, send an answer, and break a connection the way real ones break.

ASGI can't break connections, so the protocol puts its transport into each request's scope.
"""

import socket
import struct
import sys
from email.utils import formatdate
from math import inf
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .answers import Answer

_LINGER: Final = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)
_SLICE_BYTES: Final = 256 * 1024  # small enough to keep little of a big picture in buffers


class OpenProtocol(H11Protocol):
    """HTTP over h11, with the transport in `scope["state"]`."""

    def connection_made(self, transport: Any) -> None:
        """A client connected."""
        self.app_state = {"transport": transport}
        super().connection_made(transport)


class DateHeader:
    """The Date header by the simulator's wall clock, formatted once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._header = (b"date", b"")

    def at(self, now: float) -> tuple[bytes, bytes]:
        """The header for this second."""
        if int(now) != self._second:
            self._second = int(now)
            self._header = (b"date", formatdate(now, usegmt=True).encode())
        return self._header


class TooLong(Exception):
    """A body is longer than the most that is kept of one; it was read to its end all the same."""


async def read_body(receive: Receive, most_bytes: float = inf) -> bytes | None:
    """The whole body; None if the client went away before it was complete."""
    chunks = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        size += len(message["body"])
        if size <= most_bytes:
            chunks.append(message["body"])
        else:
            chunks.clear()  # read on: a client that is cut off while it writes may never see the answer
        if not message["more_body"]:
            break
    if size > most_bytes:
        raise TooLong
    return b"".join(chunks)


async def skip_body(receive: Receive) -> None:
    """Read the body and keep nothing of it."""
    while (await receive()).get("more_body"):
        pass


async def send_answer(send: Send, answer: Answer, date: tuple[bytes, bytes]) -> None:
    """One complete answer."""
    more = (date,) if answer.location is None else (date, (b"location", answer.location))
    await _start(send, answer.status, answer.content_type, len(answer.body), *more)
    await send({"type": "http.response.body", "body": answer.body})


async def send_parts(
    send: Send,
    parts: tuple[bytes, ...],
    date: tuple[bytes, bytes],
    *,
    content_type: bytes = b"image/png",
    only_bytes: int | None = None,
) -> None:
    """A picture in slices. With `only_bytes` it stops there, although the header promises all of it."""
    size = sum(len(part) for part in parts)
    left = size if only_bytes is None else only_bytes
    await _start(send, 200, content_type, size, date)
    for part in parts:
        for at in range(0, min(len(part), left), _SLICE_BYTES):
            piece = part[at : min(at + _SLICE_BYTES, left)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        left = max(0, left - len(part))
    if only_bytes is None:
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, content_type: bytes, size: int, *more: tuple[bytes, bytes]) -> None:
    headers = [*more, (b"content-type", content_type), (b"content-length", b"%d" % size), (b"server", b"volc-dcdn")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def is_open(scope: Scope) -> bool:
    """Whether the client is still connected, as far as this side can tell."""
    return not scope["state"]["transport"].is_closing()


async def reset(scope: Scope, receive: Receive) -> None:
    """Abort the connection, so that the client sees a reset (RST) and not an orderly end."""
    transport = scope["state"]["transport"]
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    transport.abort()
    await hang(receive)


async def cut(scope: Scope, receive: Receive) -> None:
    """Close the connection in good order after what was sent, however much was promised."""
    scope["state"]["transport"].close()
    await hang(receive)


async def hang(receive: Receive) -> None:
    """Never answer; over when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
