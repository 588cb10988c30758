"""Which proxy of the environment stands on the way to the endpoint: told as httpx2 decides it, which doesn't tell."""

import ipaddress
import re
from collections.abc import Mapping

import httpx2

from dujiang.connections import is_loopback


def proxy_to(url: httpx2.URL, found: Mapping[str, str]) -> str | None:
    """The proxy that requests to `url` go through, its user and password hidden; None if they need none.

    `found`: proxies by scheme, and under `no` the hosts without one, as `urllib.request.getproxies()` gives them.
    """
    proxy = found.get(url.scheme) or found.get("all")
    if not proxy or is_loopback(url.host):
        return None
    if any(_excepts(entry.strip().lower(), url) for entry in found.get("no", "").split(",")):
        return None
    return re.sub(r"://.*@", "://***@", proxy if "://" in proxy else f"http://{proxy}")


def _excepts(entry: str, url: httpx2.URL) -> bool:
    """Whether an entry of NO_PROXY means `url`: `*`, a host (its subdomains, too), `.domain`, a network, a URL."""
    scheme, _, place = entry.rpartition("://")
    if not entry or scheme not in {"", "all", url.scheme}:
        return False
    address = _in_network(place, url.host)
    if address is not None:
        return address
    host, _, port = place.partition(":")
    if port and port != str(url.port):
        return False
    if not scheme and host != "localhost" and not host.startswith("*"):
        host = f"*{host}"
    return host in {"", "*"} or _matches(host, url.host)


def _in_network(place: str, host: str) -> bool | None:
    """None if `place` is no address and no network."""
    try:
        network = ipaddress.ip_network(place.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    if pattern.startswith("*"):
        return host == pattern[1:] or host.endswith(f".{pattern[1:]}")
    return host == pattern
