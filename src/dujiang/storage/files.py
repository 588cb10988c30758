"""Pictures on their way home: streamed, checked, flushed, renamed. A name on disk always means a complete picture.

Bytes gather on the event loop until there are enough for one hop to a thread, which checks and writes them; the last
hop also flushes and renames. A small picture takes one hop in all.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar

import httpx2
import stamina

from dujiang.connections import DIRECT
from dujiang.domain.errors import DownloadError, UrlGone
from dujiang.domain.lifecycle import StoredFile
from dujiang.messages import text
from dujiang.ports import Clock
from dujiang.storage.folders import disk_errors, put
from dujiang.storage.parts import Part, remove_leftovers

P = ParamSpec("P")
Result = TypeVar("Result")

HOP_BYTES: Final = 256 * 1024  # large enough to make hops rare, small enough that many downloads need little memory
GONE: Final = frozenset({403, 404, 410})  # how expired and signed-for-another-time addresses are answered


_HTTP_ERRORS: Final = (
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    ExceptionGroup,  # of a connect to what can't be an address, such as port 99999
)


class TooLarge(DownloadError):
    """Larger than any picture should be; fetching it again would not help."""


class FileStore:
    """The `ImageStore` over HTTP and the local disk.

    At most `downloads` run at once, which bounds memory. Passing faults are retried `attempts` times here; waits are
    ours and scale with the clock, socket time-outs are real.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        connect_timeout_s: float = 10,
        stall_timeout_s: float = 60,
        downloads: int = 8,
        attempts: int = 3,
        wait_s: float = 1,
        wait_max_s: float = 10,
        max_bytes: int = 200 * 1024 * 1024,
    ) -> None:
        self._clock = clock
        self._timeout = httpx2.Timeout(stall_timeout_s, connect=connect_timeout_s, pool=None)
        self._connections = httpx2.Limits(max_connections=downloads, max_keepalive_connections=downloads)
        self._downloads = asyncio.Semaphore(downloads)
        self._max_bytes = max_bytes
        self._retry = stamina.AsyncRetryingCaller(
            attempts=attempts,
            timeout=None,
            wait_initial=clock.scaled(wait_s),
            wait_max=clock.scaled(wait_max_s),
            wait_jitter=clock.scaled(wait_s),
        ).on(_passing)
        self._client: httpx2.AsyncClient | None = None
        self._tidied: set[Path] = set()

    async def save(self, url: str, folder: Path, stem: str) -> StoredFile:
        """Bring one picture home. See `ports.ImageStore`."""
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return await _to_its_end(self._save_inline, url, folder, stem)
        if scheme not in {"http", "https"}:
            raise DownloadError(text("download_scheme", value=scheme[:20]))
        return await self._retry(self._fetch, url, folder, stem)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    # -- the way home

    async def _fetch(self, url: str, folder: Path, stem: str) -> StoredFile:
        part = Part(folder, stem, self._open)
        try:
            async with self._downloads, self._http().stream("GET", url) as response:
                _raise_for_status(response.status_code)
                rest = await self._receive(response, part)
                return await _to_its_end(self._complete, part, rest, stem)
        except _HTTP_ERRORS as error:
            raise _translated(error) from error
        finally:
            part.discard()

    async def _receive(self, response: httpx2.Response, part: Part) -> list[bytes]:
        """Stream the body into `part`; what is left for the last hop. A length that isn't kept is an HTTP error."""
        waiting: list[bytes] = []
        size = total = 0
        async for data in response.aiter_bytes():
            waiting.append(data)
            size += len(data)
            total += len(data)
            if total > self._max_bytes:
                raise TooLarge(text("download_too_large", limit=self._max_bytes))
            if size >= HOP_BYTES:
                await _to_its_end(part.write, waiting)
                waiting, size = [], 0
        return waiting

    def _save_inline(self, url: str, folder: Path, stem: str) -> StoredFile:
        part = Part(folder, stem, self._open)
        try:
            return self._complete(part, [self._inline(url)], stem)
        finally:
            part.discard()

    def _inline(self, url: str) -> bytes:
        """What a `data:` address holds."""
        head, _, payload = url.partition(",")
        if len(payload) * 3 // 4 > self._max_bytes:
            raise TooLarge(text("download_too_large", limit=self._max_bytes))
        with suppress(binascii.Error, ValueError):
            if head.endswith(";base64"):
                return base64.b64decode(payload, validate=True)
        raise DownloadError(text("download_inline"))

    def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(
                timeout=self._timeout,
                limits=self._connections,
                follow_redirects=True,
                max_redirects=5,
                mounts=DIRECT,
                headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            )
        return self._client

    # -- the disk, always in a thread

    def _complete(self, part: Part, rest: list[bytes], stem: str) -> StoredFile:
        """Check and write the rest, flush, and let the picture appear under its name."""
        part.write(rest)
        checked = part.check.finish()
        final = part.path.with_name(f"{stem}{checked.suffix}")
        with disk_errors(final):
            part.close()
            self._publish(part.path, final)
        part.published()
        return StoredFile(final.name, checked.sha256, checked.bytes, checked.width, checked.height)

    def _open(self, path: Path) -> BinaryIO:
        """A new file for a picture on its way; tests put a full disk here."""
        folder = path.parent
        if folder not in self._tidied:
            self._tidied.add(folder)
            remove_leftovers(folder, self._clock.now())
        return path.open("xb", buffering=0)

    def _publish(self, part: Path, final: Path) -> None:
        """Let `part`, which is flushed, appear as `final` for good; kill tests stop here."""
        put(part, final)


def _passing(error: Exception) -> bool:
    """Whether it may go better the next time."""
    return isinstance(error, DownloadError) and not isinstance(error, UrlGone | TooLarge)


def _raise_for_status(status: int) -> None:
    if status in GONE:
        raise UrlGone(text("download_gone", value=status))
    if status != httpx2.codes.OK:
        raise DownloadError(text("download_status", value=status))


def _translated(error: Exception) -> DownloadError:
    """Ours for the HTTP client's. Its own words may hold the address, which may be signed: only its kind is told."""
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError() | ExceptionGroup():
            code = "download_unreachable"
        case httpx2.TimeoutException():
            code = "download_stalled"
        case httpx2.NetworkError() | httpx2.RemoteProtocolError():
            code = "download_cut"
        case _:
            code = "download_answer"
    return DownloadError(text(code, value=type(error).__name__))


async def _to_its_end(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run it in a thread. If we are cancelled it is still waited for: then nobody writes to the file any more."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # seen; the cancellation is what is told
        raise
