"""The way out: clients for one endpoint, addresses that may be used, and failures told without what was sent.

Used by every adapter that speaks HTTP. Proxies of the environment are used, but never to this machine.
"""

import ipaddress
import ssl
from collections.abc import Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2

DIRECT: Final = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}  # never through a proxy


def failure_told(failure: BaseException, deadline_s: float) -> str:
    """What went wrong, in the system's words; never what was sent (some exceptions quote headers)."""
    if isinstance(failure, TimeoutError):
        return f"no complete answer within {deadline_s:g} s"
    kind = type(failure).__name__
    if isinstance(failure, httpx2.ProxyError):
        return f"{kind}: {failure}"
    fault = next((fault for fault in _causes(failure) if isinstance(fault, OSError) and fault.strerror), None)
    return f"{kind} ({type(fault).__name__}: {fault.strerror})" if fault else kind


def _causes(failure: BaseException) -> Iterator[BaseException]:
    fault: BaseException | None = failure
    while fault is not None:
        yield fault
        # A group holds one failure for each address of the host.
        fault = fault.exceptions[0] if isinstance(fault, BaseExceptionGroup) else fault.__cause__ or fault.__context__


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def endpoint_url(endpoint: str) -> httpx2.URL:
    """The endpoint as an address with a path that ends in `/`.

    ValueError `endpoint_invalid`, or `endpoint_insecure` if it isn't https and leaves this machine: keys and prompts
    would be readable on the way.
    """
    try:
        url = httpx2.URL(endpoint.strip())
    except (httpx2.InvalidURL, ValueError) as exc:
        raise ValueError("endpoint_invalid") from exc
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or url.query or url.fragment:
        raise ValueError("endpoint_invalid")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError("endpoint_insecure")
    return url.copy_with(path=url.path.rstrip("/") + "/")


def endpoint_name(endpoint: str) -> str:
    """As it is stored and shown, however it was written. ValueError as `endpoint_url`."""
    return str(endpoint_url(endpoint)).rstrip("/")


def open_client(
    url: httpx2.URL,
    *,
    keep_alive: int,
    tls: ssl.SSLContext | bool,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> httpx2.AsyncClient:
    """A client for one endpoint that follows no redirects and remembers no cookies.

    Proxies of the environment are used, except to this machine. `keep_alive`: how many idle connections it keeps.
    ValueError `proxy_unsupported` if the environment names a proxy of a kind that isn't installed (SOCKS).
    """
    try:
        return httpx2.AsyncClient(
            verify=tls,
            transport=transport,
            trust_env=not is_loopback(url.host),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=keep_alive, keepalive_expiry=15),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=None,  # each call has a deadline of its own
        )
    except ImportError as exc:
        raise ValueError("proxy_unsupported") from exc
