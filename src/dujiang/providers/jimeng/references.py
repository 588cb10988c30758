"""Can the vendor fetch a reference? Looks at published links the way it does: from outside, following redirects."""

from collections.abc import Sequence

import httpx2

from dujiang import __version__
from dujiang.connections import DIRECT, failure_told
from dujiang.domain.errors import EndpointDown


class LinkCheck:
    """A `ports.ReferenceCheck` over HTTP. `timeout_s`: the longest silence of a link's host, in real seconds.

    `witness`: an address that is known to answer (the vendor's endpoint). When a link's host can't be reached, it
    tells whether the fault is the link's or our network's; without one it counts as the network's.
    """

    def __init__(
        self, witness: str | None = None, timeout_s: float = 10, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._witness = witness
        self._timeout_s = timeout_s
        try:
            self._client = httpx2.AsyncClient(
                follow_redirects=True,
                max_redirects=5,
                timeout=timeout_s,
                transport=transport,
                mounts=None if transport else DIRECT,
                headers={"User-Agent": f"dujiang/{__version__}"},
            )
        except ImportError as exc:
            raise ValueError("proxy_unsupported") from exc

    async def missing(self, links: Sequence[str]) -> str | None:
        """The first link that nobody can fetch, or None. Raises `EndpointDown` when the network is away."""
        for link in links:
            if not await self._is_there(link):
                return link
        return None

    async def _is_there(self, link: str) -> bool:
        try:
            return await self._answers_well("HEAD", link) or await self._answers_well("GET", link)
        except (httpx2.TransportError, OSError) as failure:
            if await self._network_is_there():
                return False
            raise EndpointDown(f"a reference: {failure_told(failure, self._timeout_s)}") from failure
        except (httpx2.HTTPError, httpx2.InvalidURL):
            return False  # it redirects in circles, or to nowhere

    async def _answers_well(self, method: str, link: str) -> bool:
        # Hosts that refuse HEAD (some signed links do) are asked for one byte; the answer's body is never read.
        headers = {"Range": "bytes=0-0"} if method == "GET" else {}
        try:
            async with self._client.stream(method, link, headers=headers) as reply:
                return reply.is_success
        except (httpx2.ReadError, httpx2.RemoteProtocolError):
            return False  # it can be reached, and hangs up

    async def _network_is_there(self) -> bool:
        if self._witness is None:
            return False
        try:
            async with self._client.stream("HEAD", self._witness):
                return True  # whatever it answers
        except (httpx2.HTTPError, OSError):
            return False

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
