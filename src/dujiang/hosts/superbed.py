"""Superbed (聚合图床) as a `ports.ImageHost`, by its token API.

`POST /upload` with the token in the form (a query would end up in logs) and one file a request. Its answers are known
from several clients only, so whatever it says is sorted by three questions: is the host away, is the account refused,
or is it this picture?
"""

import asyncio
import errno
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx2

from dujiang import __version__
from dujiang.connections import endpoint_url, failure_told, open_client
from dujiang.domain.errors import HostDown, HostError, HostRefused, PictureRefused

SOON: Final = frozenset({429, 503, 504})
"""Answers after which the host is asked again within seconds."""
NOT_THERE: Final = frozenset({404, 405, 407, 410})
"""Answers of whoever stands in the API's place: no picture is at fault."""
OF_PICTURE: Final = frozenset({413, 415})
"""Answers about the picture, whoever gives them: too large, of no kind that is taken."""
OF_ACCOUNT: Final = re.compile(
    r"token|api.?key|login|unauthori[sz]ed|forbidden|suspend|banned|expired|quota|balance"
    r"|登录|令牌|认证|权限|账号|帐号|封禁|停用|暂停|过期|余额|流量|额度|欠费",
    re.IGNORECASE,
)
TOO_MANY: Final = re.compile(r"too many|frequen|busy|频繁|过快|同时|并发|稍后|繁忙", re.IGNORECASE)
LONGEST: Final = 200
NAMED: Final = {"User-Agent": f"dujiang/{__version__}", "Accept": "application/json"}


class SuperbedHost:
    """One account of Superbed. `timeout_s`: real seconds until an upload is wholly answered.

    `endpoint`: https, or http to this machine; ValueError with a code for anything else. `transport` and `tls` take
    the place of the network and of the system's trust, for tests.
    """

    name = "superbed"
    label = "Superbed"

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        timeout_s: float = 30,
        connect_timeout_s: float = 10,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = endpoint_url(endpoint)
        self._token = token
        self._upload = url.copy_with(path=f"{url.path}upload")
        self._timeout_s = timeout_s
        self._connect_s = min(connect_timeout_s, timeout_s / 2)
        trust: ssl.SSLContext | bool = tls or (httpx2.create_ssl_context() if url.scheme == "https" else False)
        self._client = open_client(url, keep_alive=4, tls=trust, transport=transport)

    async def publish(self, content: bytes, name: str) -> str:
        """The public link of a picture. See `ports.ImageHost`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.post(
                    self._upload,
                    data={"token": self._token, "filename": name},
                    files={"file": (name, content)},
                    headers=NAMED,
                    extensions={"timeout": {"connect": self._connect_s}},
                )
        except Exception as failure:
            raise _down(failure, self._timeout_s) from failure
        link = _link_in(reply)
        if link is not None:
            return link
        raise self._refusal(reply)

    def _refusal(self, reply: httpx2.Response) -> HostError:
        status, said = reply.status_code, _said(reply, self._token)
        told = f"HTTP {status} {said}".strip()
        if status in SOON or (reply.is_success and TOO_MANY.search(said)):
            return HostDown(told, why="429" if reply.is_success else str(status), soon=True)
        if status >= 500 or 300 <= status < 400 or status in NOT_THERE:
            return HostDown(told, why=str(status))
        if status in {401, 402, 403} or OF_ACCOUNT.search(said):
            return HostRefused(told)
        if not _refuses(reply) and status not in OF_PICTURE:
            return HostDown(f"{told} (no answer of the API)", why="answer")
        return PictureRefused(told)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


async def silence_of(
    endpoint: str,
    *,
    timeout_s: float = 10,
    transport: httpx2.AsyncBaseTransport | None = None,
    tls: ssl.SSLContext | None = None,
) -> str | None:
    """What keeps the host from answering; None if it answers. Asks for its root, without the token: uploads nothing.

    Any answer but a 5xx shows that the way is there; nobody knows what a harmless question about the token would be.
    `endpoint` as in `SuperbedHost`.
    """
    url = endpoint_url(endpoint)
    trust: ssl.SSLContext | bool = tls or (httpx2.create_ssl_context() if url.scheme == "https" else False)
    async with open_client(url, keep_alive=0, tls=trust, transport=transport) as client:
        try:
            async with asyncio.timeout(timeout_s), client.stream("GET", url, headers=NAMED) as reply:
                return f"HTTP {reply.status_code}" if reply.status_code >= 500 else None
        except (TimeoutError, OSError, httpx2.HTTPError) as failure:
            return failure_told(failure, timeout_s)


def _down(failure: BaseException, timeout_s: float) -> HostDown:
    """What is worth asking again soon: reset, timed out, refused. The rest (no such host, TLS, …) lasts."""
    told = failure_told(failure, timeout_s)
    if isinstance(failure, TimeoutError | httpx2.TimeoutException):
        return HostDown(told, why="timeout", soon=True)
    numbers = {fault.errno for fault in _faults(failure) if isinstance(fault, OSError)}
    if numbers & {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}:
        return HostDown(told, why="reset", soon=True)
    if isinstance(failure, httpx2.ReadError | httpx2.WriteError | httpx2.RemoteProtocolError):
        return HostDown(told, why="reset", soon=True)  # it hung up, in whatever form that is told
    if errno.ETIMEDOUT in numbers:
        return HostDown(told, why="timeout", soon=True)
    if errno.ECONNREFUSED in numbers:
        return HostDown(told, why="refused", soon=True)
    return HostDown(told, why="network")


def _faults(failure: BaseException) -> Iterator[BaseException]:
    """The failure and everything that led to it; a group holds one for each address of the host."""
    waiting: list[BaseException | None] = [failure]
    seen: set[int] = set()
    while waiting:
        fault = waiting.pop()
        if fault is None or id(fault) in seen:
            continue
        seen.add(id(fault))
        yield fault
        waiting += [*getattr(fault, "exceptions", ()), fault.__cause__, fault.__context__]


def _answer(reply: httpx2.Response) -> Mapping[str, Any]:
    try:
        found = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _link_in(reply: httpx2.Response) -> str | None:
    """The link, if the answer says that all is well. Newer servers leave `err` out and put it into `data`."""
    answer = _answer(reply)
    if not reply.is_success or _is_failure(answer):
        return None
    data = answer.get("data")
    for url in (answer.get("url"), data.get("url") if isinstance(data, dict) else None):
        if isinstance(url, str) and url.startswith(("http://", "https://")) and not any(map(str.isspace, url)):
            return url
    return None


def _is_failure(answer: Mapping[str, Any]) -> bool:
    return bool(_error_number(answer)) or answer.get("success") is False or bool(answer.get("error"))


def _error_number(answer: Mapping[str, Any]) -> str:
    """`err` if it is one; newer servers leave it out, or empty."""
    number = str(answer.get("err") or 0)
    return "" if number == "0" else number


def _refuses(reply: httpx2.Response) -> bool:
    """Whether the API itself says no: a success without a link, or somebody else's page, is no refusal."""
    answer = _answer(reply)
    return _is_failure(answer) or (bool(answer) and not reply.is_success)


def _said(reply: httpx2.Response, secret: str) -> str:
    """Its own words, on one line; `secret` is left out before they are cut, so that no part of it stays."""
    answer = _answer(reply)
    words = next((str(answer[name]) for name in ("msg", "message", "error", "detail") if answer.get(name)), "")
    words = words.replace(secret, "***")[: 4 * LONGEST]
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())
    number = _error_number(answer).replace(secret, "***")[:LONGEST]
    return f"{f'err {number}' if number else ''} {line[:LONGEST]}".strip()
