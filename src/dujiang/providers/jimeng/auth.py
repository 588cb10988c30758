"""Volcengine's signature V4 (HMAC-SHA256): proves who sent exactly these bytes, and when.

What is signed: method, path, query, four headers (five with temporary credentials) and the body's hash. The gateway
refuses a signature whose `X-Date` is too far from its own clock, so the clock is read once, at the moment of signing.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote

import httpx2

from dujiang.domain.accounts import Key, foreign_sign

ALGORITHM: Final = "HMAC-SHA256"
REGION: Final = "cn-north-1"
SERVICE: Final = "cv"
UNRESERVED: Final = "-_.~"


class VolcengineAuth(httpx2.Auth):
    """Signs each request with `key`, at the time that `now` tells (seconds since the epoch).

    The request needs a body that is already bytes: they are hashed as they will be sent. Same key, same time and same
    bytes give the same signature. Never shows the key.
    """

    requires_request_body = True

    def __init__(self, key: Key, now: Callable[[], float]) -> None:
        self._key = key
        self._now = now

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add `X-Date`, `X-Content-Sha256`, `X-Security-Token` (if there is one) and `Authorization`; send once."""
        request.headers.setdefault("Content-Type", "application/json")
        signed = {
            "content-type": request.headers["Content-Type"],
            "host": _signed_host(request.headers["Host"]),
            "x-content-sha256": hashlib.sha256(request.content).hexdigest(),
            "x-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now())),
        }
        if self._key.session_token:
            signed["x-security-token"] = self._key.session_token
        request.headers.update({name: signed[name] for name in signed if name.startswith("x-")})
        request.headers["Authorization"] = self._authorization(request, signed)
        yield request

    def _authorization(self, request: httpx2.Request, signed: dict[str, str]) -> str:
        at = signed["x-date"]
        day = at[:8]
        scope = f"{day}/{REGION}/{SERVICE}/request"
        names = ";".join(sorted(signed))
        canonical = canonical_request(request.method, request.url, signed, names)
        to_sign = "\n".join((ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = hmac.digest(_signing_key(self._key.secret, day), to_sign.encode(), "sha256").hex()
        return f"{ALGORITHM} Credential={self._key.access}/{scope}, SignedHeaders={names}, Signature={signature}"


def is_well_formed(key: Key) -> bool:
    """Whether requests can be signed with `key` at all: nothing is empty, and what is sent fits into a header."""
    sent = (key.access, key.session_token or "-")
    return bool(key.secret) and all(text and foreign_sign(text) is None for text in sent)


def canonical_request(method: str, url: httpx2.URL, signed: dict[str, str], names: str) -> str:
    """The request in the one form that both sides hash. `signed`: lower-case header names with their values."""
    headers = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    path = quote(url.path, safe="/" + UNRESERVED)
    return "\n".join((method, path, _canonical_query(url.query), headers, names, signed["x-content-sha256"]))


@lru_cache(maxsize=64)
def _canonical_query(raw: bytes) -> str:
    pairs = parse_qsl(raw.decode(), keep_blank_values=True)
    pairs.sort(key=lambda pair: pair[0])  # a key's own values keep their order, as in the vendor's SDK
    return "&".join(f"{quote(name, safe=UNRESERVED)}={quote(value, safe=UNRESERVED)}" for name, value in pairs)


@lru_cache(maxsize=64)
def _signing_key(secret: str, day: str) -> bytes:
    key = secret.encode()  # it looks like base64, but is used as it is
    for step in (day, REGION, SERVICE, "request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def _signed_host(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port in {"80", "443"} else host
