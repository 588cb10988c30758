"""Pictures are brought home over real sockets that lie, stall and break; a name on disk means a complete picture."""

import asyncio
import base64
import errno
import gzip
import hashlib
import io
import os
import random
import re
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from dujiang.domain.errors import DownloadError, StoreError, UrlGone
from dujiang.storage.files import FileStore, TooLarge
from dujiang.storage.parts import remove_leftovers
from dujiang.storage.pictures import BrokenPicture


class FastClock:
    """Waits of ours take no time."""

    scale = 0.0
    random = random.Random(1)

    def now(self) -> float:
        return 1_000_000.0

    def elapsed(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def scaled(self, seconds: float) -> float:
        return seconds * self.scale


def a_png(size: int = 0) -> bytes:
    """A picture of 3 × 2 with about `size` bytes."""
    chunks = [(b"IHDR", b"\0\0\0\3\0\0\0\2\x08\2\0\0\0"), (b"IDAT", bytes(size)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [len(data).to_bytes(4, "big"), kind, data, zlib.crc32(kind + data).to_bytes(4, "big")]
    return b"".join(parts)


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(code: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} Whatever", "Content-Length: 0", *headers, "", ""]).encode()


class Server:
    """Gives its answers one after the other, the last one for ever. An answer is bytes, or does as it likes."""

    def __init__(self) -> None:
        self.answers: list[bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]] = []
        self.requests: list[bytes] = []
        self.asked = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                self.asked.set()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
                    return
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()


async def hang(writer: asyncio.StreamWriter) -> None:
    writer.write(ok(a_png(300_000)[:290_000], length=300_057))
    await asyncio.Event().wait()


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.write(ok(a_png(5000)[:1000], length=5057))
    await writer.drain()
    writer.transport.abort()


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.write(ok(a_png()[:-4], length=len(a_png())))


async def without_length(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + a_png())


async def cut_without_length(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + a_png()[:-4])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(server.serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/a.png?Signature=secret"
    yield server
    listening.close()
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


Save = Callable[..., Awaitable[Any]]


@pytest.fixture
async def make_store() -> AsyncIterator[Callable[..., FileStore]]:
    made: list[FileStore] = []

    def make(kind: type[FileStore] = FileStore, **options: Any) -> FileStore:
        made.append(kind(FastClock(), **options))
        return made[-1]

    yield make
    for store in made:
        await store.aclose()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_picture_is_brought_home(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png())]

    stored = await make_store().save(server.url, tmp_path, "00001.a")

    data = (tmp_path / "00001.a.png").read_bytes()
    assert data == a_png()
    assert (stored.path, stored.bytes, stored.width, stored.height) == ("00001.a.png", len(data), 3, 2)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert names(tmp_path) == ["00001.a.png"]


async def test_a_large_picture_is_brought_home(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png(3_000_000))]

    stored = await make_store().save(server.url, tmp_path, "a")

    assert stored.bytes == len(a_png(3_000_000))
    assert (tmp_path / "a.png").read_bytes() == a_png(3_000_000)
    assert names(tmp_path) == ["a.png"]


async def test_repeating_it_leaves_the_same_file(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png())]
    store = make_store()

    first = await store.save(server.url, tmp_path, "a")

    assert await store.save(server.url, tmp_path, "a") == first
    assert names(tmp_path) == ["a.png"]


async def test_many_may_save_the_same_file(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png(600_000))]
    store = make_store()

    stored = await asyncio.gather(*(store.save(server.url, tmp_path, "a") for _ in range(12)))

    assert len(set(stored)) == 1
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("fault", [cut, reset, cut_without_length, status(503), status(429), ok(b"<html>busy</html>")])
async def test_a_passing_fault_is_tried_again(fault: Any, server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [fault, fault, ok(a_png())]

    stored = await make_store(attempts=3).save(server.url, tmp_path, "a")

    assert stored.bytes == len(a_png())
    assert len(server.requests) == 3
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (cut, DownloadError),
        (reset, DownloadError),
        (hang, DownloadError),
        (cut_without_length, BrokenPicture),
        (ok(a_png() * 2, length=len(a_png()) - 1), DownloadError),
        (ok(a_png(300_000)[:-100]), BrokenPicture),
        (ok(b""), BrokenPicture),
        (b"what is HTTP?\r\n\r\n", DownloadError),
        (status(500), DownloadError),
        (status(204), DownloadError),
        (ok(b"no gzip", "Content-Encoding: gzip"), DownloadError),
        (status(302, "Location: /again?Signature=secret"), DownloadError),
        (status(302, "Location: ftp://elsewhere/?Signature=secret"), DownloadError),
    ],
)
async def test_what_goes_on_failing_is_a_download_error_and_leaves_nothing(
    fault: Any, error: type[DownloadError], server: Server, make_store: Any, tmp_path: Path
) -> None:
    server.answers = [fault]

    with pytest.raises(DownloadError) as caught:
        await make_store(attempts=2, stall_timeout_s=0.2 if fault is hang else 60).save(server.url, tmp_path, "a")

    assert isinstance(caught.value, error)
    assert "secret" not in str(caught.value)
    assert names(tmp_path) == []


async def test_nobody_listening_is_a_download_error(make_store: Any, tmp_path: Path) -> None:
    listening = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()

    with pytest.raises(DownloadError, match="ConnectError"):
        await make_store().save(f"http://127.0.0.1:{port}/?Signature=secret", tmp_path, "a")


@pytest.mark.parametrize("code", [403, 404, 410])
async def test_an_expired_address_is_told_apart_and_not_asked_again(
    code: int, server: Server, make_store: Any, tmp_path: Path
) -> None:
    server.answers = [status(code)]

    with pytest.raises(UrlGone, match=str(code)):
        await make_store(attempts=5).save(server.url, tmp_path, "a")

    assert len(server.requests) == 1


async def test_a_redirect_is_followed(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [status(302, "Location: /b.png"), ok(a_png())]

    assert (await make_store().save(server.url, tmp_path, "a")).path == "a.png"


async def test_no_length_is_needed(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [without_length]

    assert (await make_store(attempts=1).save(server.url, tmp_path, "a")).bytes == len(a_png())


async def test_an_encoding_that_nobody_asked_for_is_undone(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(gzip.compress(a_png()), "Content-Encoding: gzip")]

    await make_store().save(server.url, tmp_path, "a")

    assert b"accept-encoding: identity" in server.requests[0].lower()
    assert (tmp_path / "a.png").read_bytes() == a_png()


async def test_what_is_too_large_is_refused_once(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png(2_000_000))]

    with pytest.raises(TooLarge, match="1000000"):
        await make_store(max_bytes=1_000_000).save(server.url, tmp_path, "a")

    assert len(server.requests) == 1
    assert names(tmp_path) == []


async def test_a_picture_may_come_inside_its_address(make_store: Any, tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(a_png()).decode()

    await make_store().save(url, tmp_path, "a")

    assert (tmp_path / "a.png").read_bytes() == a_png()


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,???",
        "data:text/plain,hello",
        "data:",
        "ftp://a/b?secret",
        "x",
        "http://",
        "http://localhost:99999/?secret",
    ],
)
async def test_an_address_that_means_nothing_is_a_download_error(url: str, make_store: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        await make_store().save(url, tmp_path, "a")

    assert "secret" not in str(caught.value)


# -- the disk ---------------------------------------------------------------------------------------------------------


class FullDisk(io.BytesIO):
    """Takes 300,000 bytes, half of the last write included."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 300_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


class StoreOnFullDisk(FileStore):
    def _open(self, path: Path) -> BinaryIO:
        super()._open(path).close()
        return FullDisk()


class Unpublished(FileStore):
    """Stops where a picture is complete and flushed, and not yet under its name."""

    error: OSError | None = None

    def _publish(self, part: Path, final: Path) -> None:
        assert part.read_bytes() == a_png(), "what gets a name is complete"
        assert not final.exists()
        if self.error:
            raise self.error


async def test_a_full_disk_is_the_disks_fault(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png(1_000_000))]

    with pytest.raises(StoreError) as caught:
        await make_store(StoreOnFullDisk).save(server.url, tmp_path, "a")

    assert caught.value.why == "full"
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EACCES, "denied"),
        (errno.EROFS, "denied"),
        (errno.EPERM, "denied"),
        (errno.ENODEV, "gone"),
        (errno.ESTALE, "gone"),
    ],
)
async def test_a_disk_says_why_it_refuses(
    number: int, why: str, server: Server, make_store: Any, tmp_path: Path
) -> None:
    server.answers = [ok(a_png())]
    store = make_store(Unpublished)
    store.error = OSError(number, os.strerror(number))

    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "a.png"))) as caught:
        await store.save(server.url, tmp_path, "a")

    assert caught.value.why == why
    assert names(tmp_path) == []


async def test_a_folder_that_is_gone_is_told(server: Server, make_store: Any, tmp_path: Path) -> None:
    server.answers = [ok(a_png())]

    with pytest.raises(StoreError) as caught:
        await make_store().save(server.url, tmp_path / "gone", "a")

    assert caught.value.why == "gone"


async def test_a_cancelled_download_leaves_nothing(server: Server, make_store: Any, tmp_path: Path) -> None:
    opened = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(FileStore):
        def _open(self, path: Path) -> BinaryIO:
            loop.call_soon_threadsafe(opened.set)
            return super()._open(path)

    server.answers = [hang]
    saving = asyncio.create_task(make_store(Watched).save(server.url, tmp_path, "a"))
    await opened.wait()

    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving

    assert names(tmp_path) == []


async def test_leftovers_of_dead_processes_go_and_nobody_elses(make_store: Any, tmp_path: Path) -> None:
    kept, url = tmp_path / "b.00000000-1-aaaaaa-bbbbbb.part", "data:image/png;base64,"
    part_names: list[str] = []

    class Watched(FileStore):
        def _publish(self, part: Path, final: Path) -> None:
            part_names.append(part.name)
            super()._publish(part, final)

    await make_store(Watched).save(url + base64.b64encode(a_png()).decode(), tmp_path, "a")
    (mine,) = part_names
    machine = mine.split(".")[1].split("-")[0]
    earlier_life = tmp_path / re.sub(r"-[0-9a-f]{6}-", "-000000-", mine)
    dead = tmp_path / f"d.{machine}-4194305-aaaaaa-bbbbbb.part"  # one more than the largest process id
    for path in (tmp_path / mine, kept, earlier_life, dead, tmp_path / "mine.part"):
        path.touch()

    remove_leftovers(tmp_path, now=kept.stat().st_mtime)
    assert names(tmp_path) == sorted(["a.png", mine, kept.name, "mine.part"])

    remove_leftovers(tmp_path, now=kept.stat().st_mtime + 25 * 3600)
    assert names(tmp_path) == ["a.png", "mine.part"]


async def test_fifty_large_downloads_need_little_memory(server: Server, make_store: Any, tmp_path: Path) -> None:
    block = bytes(1 << 20)
    head = a_png(0)[:33]
    crc = zlib.crc32(b"IDAT")
    for _ in range(4):
        crc = zlib.crc32(block, crc)
    tail = crc.to_bytes(4, "big") + a_png()[-12:]
    total = 33 + 8 + (4 << 20) + len(tail)

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(ok(head + (4 << 20).to_bytes(4, "big") + b"IDAT", length=total))
        for _ in range(4):
            writer.write(block)
            await writer.drain()
        writer.write(tail)

    server.answers = [stream]
    store = make_store()
    tracemalloc.start()
    try:
        await asyncio.gather(*(store.save(server.url, tmp_path, f"a{number}") for number in range(50)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(names(tmp_path)) == 50
    assert peak < 24 << 20  # 8 at once, with less than 1 MB each on either side of the wire; 200 MB came by
