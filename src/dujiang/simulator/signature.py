"""Checks a request's signature (Volcengine V4) the way the gateway does: rebuild it from what came, then compare.

Written from the vendor's description alone, so that it can find a mistake in the program's own signer.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote

from .codes import Refused

REGION: Final = "cn-north-1"
SERVICE: Final = "cv"
_ALGORITHM: Final = "HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(rf"{_ALGORITHM} Credential=([^,\s]+), ?SignedHeaders=([^,\s]+), ?Signature=(\S+)")
_MUST_BE_SIGNED: Final = frozenset({"content-type", "host", "x-content-sha256", "x-date"})


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature covers, as it came over the wire."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


def check(request: Signed, secrets: Mapping[str, tuple[str, str]], now: float, window_s: float) -> str:
    """The account that signed this request; otherwise it is Refused. `now` is wall time in seconds."""
    key, scope, names, signature = _authorization(request.headers)
    if key not in secrets:
        raise Refused(100009)
    secret, account = secrets[key]
    date = request.headers.get("x-date", "")
    if abs(_timestamp(date) - now) > window_s:
        raise Refused(100006)
    if scope != [date[:8], REGION, SERVICE, "request"]:
        raise Refused(100025)
    if not hmac.compare_digest(_signature(request, names, date, secret), signature.encode()):
        raise Refused(100010)
    return account


def _authorization(headers: Mapping[str, str]) -> tuple[str, list[str], list[str], str]:
    header = headers.get("authorization")
    if not header:
        raise Refused(100009)
    match = _AUTHORIZATION.fullmatch(header)
    if match is None:
        raise Refused(100024)
    credential, joined, signature = match.groups()
    key, *scope = credential.split("/")
    names = joined.split(";")
    if not set(names) >= _MUST_BE_SIGNED or names != sorted(names) or not headers.keys() >= set(names):
        raise Refused(100024)
    if "x-security-token" in headers and "x-security-token" not in names:
        raise Refused(100024)
    return key, scope, names, signature


@lru_cache(maxsize=64)
def _timestamp(date: str) -> int:
    try:
        return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise Refused(100006) from None


def _signature(request: Signed, names: list[str], date: str, secret: str) -> bytes:
    body_hash = hashlib.sha256(request.body).hexdigest()
    if not hmac.compare_digest(request.headers["x-content-sha256"].encode(), body_hash.encode()):
        raise Refused(100010)
    lines = [request.method, quote(request.path, safe="/-_.~"), _canonical_query(request.query)]
    lines += [f"{name}:{_canonical_value(name, request.headers[name])}" for name in names]
    lines += ["", ";".join(names), body_hash]
    canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{date}\n{date[:8]}/{REGION}/{SERVICE}/request\n{canonical}"
    return hmac.digest(_signing_key(secret, date[:8]), to_sign.encode(), "sha256").hex().encode()


@lru_cache(maxsize=64)
def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


def _canonical_value(name: str, value: str) -> str:
    if name == "host":
        host, _, port = value.partition(":")
        return host if port in {"80", "443"} else value
    return value.strip()


@lru_cache(maxsize=64)
def _signing_key(secret: str, day: str) -> bytes:
    key = secret.encode()
    for part in (day, REGION, SERVICE, "request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
