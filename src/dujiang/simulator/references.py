"""Fetches the references of a submit, as the vendor does before it accepts one.

Only loopback addresses are really asked, wherever a redirect leads. A link to a public host is believed, a private one
could never be reached.
"""

import asyncio
import http.client
import ipaddress
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from .codes import Refused

_MOST_BYTES: Final = 15 * 1024 * 1024
_TIMEOUT_S: Final = 10.0
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAGIC: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


async def fetch_all(urls: tuple[str, ...]) -> None:
    """Refuse the submit with 50220 for a link that can't be had and with 50207 for what is no JPEG or PNG."""
    for url in dict.fromkeys(urls):
        await _follow(url)


async def _follow(url: str) -> None:
    base = ""
    for _ in range(_MOST_REDIRECTS + 1):
        parts = _split(url, base)
        if not _is_loopback(parts.hostname or ""):
            return
        location = await asyncio.to_thread(_fetch, parts)
        if location is None:
            return
        base, url = parts.geturl(), location
    raise Refused(50220, "image url is redirected too often")


def _split(url: str, base: str) -> SplitResult:
    try:
        parts = urlsplit(urljoin(base, url))
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise Refused(50220, f"image url {url!r} can't be read") from error
    local = parts.scheme == "http" and _is_loopback(host)
    if not local and not (parts.scheme in {"http", "https"} and _is_public(host)):
        raise Refused(50220, f"image url {url!r} can't be downloaded")
    return parts


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _is_public(host: str) -> bool:
    address = _address(host)
    return address.is_global if address is not None else "." in host.strip(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _fetch(parts: SplitResult) -> str | None:
    """Where it leads if it is a redirect; None if it is a picture."""
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        if answer.status in _REDIRECTS:
            return answer.getheader("location", "")
        if answer.status != 200:
            raise Refused(50220, f"image url answered {answer.status}")
        content = answer.read(_MOST_BYTES + 1)
    except (OSError, http.client.HTTPException, UnicodeEncodeError) as error:
        raise Refused(50220, f"image url can't be downloaded: {error}") from error
    finally:
        connection.close()
    if len(content) > _MOST_BYTES or not content.startswith(_MAGIC):
        raise Refused(50207)
    return None
