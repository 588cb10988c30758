"""The vendor as a bare TCP server in threads: it sees every connection and byte, and answers as a script says.

Threads, because a test may look at the database at the very moment at which the first byte of a request arrives,
while the product's event loop stands still or not.
"""

import base64
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Deed = Callable[[socket.socket], None]


def a_png() -> bytes:
    chunks = [(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\2\0\0\0"), (b"IDAT", zlib.compress(b"\0\0\0\0")), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [len(data).to_bytes(4, "big"), kind, data, zlib.crc32(kind + data).to_bytes(4, "big")]
    return b"".join(parts)


@dataclass(frozen=True)
class Seen:
    """One request, on which connection it came."""

    connection: int
    action: str
    body: dict[str, Any]
    headers: dict[str, str]


def raw(content: bytes) -> Deed:
    return lambda connection: connection.sendall(content)


def http(status: int, body: bytes, *, told: int | None = None) -> Deed:
    length = len(body) if told is None else told
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return raw(head.encode() + body)


def answer(status: int, code: int, data: object = None) -> Deed:
    return http(status, json.dumps({"code": code, "data": data, "message": "told", "request_id": "r"}).encode())


def accepted(job_id: str = "job") -> Deed:
    return answer(200, 10000, {"task_id": job_id})


def done() -> Deed:
    return answer(200, 10000, {"status": "done", "binary_data_base64": [base64.b64encode(a_png()).decode()]})


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def hang(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.recv(1)  # until the other side gives up


@dataclass
class RawVendor:
    """Answers the submits of a prompt with its deeds, one after the other, then accepts; looks find jobs done.

    A job is called like its prompt, so its looks have deeds of their own.
    """

    submits: Mapping[str, list[Deed]]
    looks: Mapping[str, list[Deed]]
    on_first_byte: Callable[[], None] = lambda: None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    @property
    def submitted(self) -> list[Seen]:
        return [request for request in self.seen if "Submit" in request.action]

    @property
    def looked(self) -> list[Seen]:
        return [request for request in self.seen if "GetResult" in request.action]

    def serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError, EOFError), connection:
            while request := self._read(connection, number):
                self.seen.append(request)
                self._deed(request)(connection)

    def _deed(self, request: Seen) -> Deed:
        if "Submit" in request.action:
            prompt = request.body["prompt"]
            return _next(self.submits.get(prompt)) or accepted(prompt.replace(" ", "_"))
        return _next(self.looks.get(request.body["task_id"].replace("_", " "))) or done()

    def _read(self, connection: socket.socket, number: int) -> Seen | None:
        data = connection.recv(1)
        if not data:
            return None
        self.on_first_byte()
        while b"\r\n\r\n" not in data:
            data += _more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += _more(connection)
        return Seen(number, first.split(" ")[1], json.loads(body or b"{}"), headers)


def _next(deeds: list[Deed] | None) -> Deed | None:
    return deeds.pop(0) if deeds else None


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise EOFError
    return data


@contextmanager
def raw_vendor(
    submits: Mapping[str, Sequence[Deed]] = MappingProxyType({}),
    looks: Mapping[str, Sequence[Deed]] = MappingProxyType({}),
) -> Iterator[RawVendor]:
    vendor = RawVendor(
        {prompt: list(deeds) for prompt, deeds in submits.items()},
        {prompt: list(deeds) for prompt, deeds in looks.items()},
    )
    listener = socket.create_server(("127.0.0.1", 0))
    vendor.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    open_now: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                vendor.connections += 1
                open_now.append(connection)
                thread = threading.Thread(target=vendor.serve, args=(connection, vendor.connections), daemon=True)
                threads.append(thread)
                thread.start()

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    try:
        yield vendor
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which a close alone does not
        listener.close()
        listening.join(5)
        for connection in open_now:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for connection in open_now:
            connection.close()
