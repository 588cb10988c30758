"""Which proxy is told to be on the way: the one that the client itself takes."""

import os
import re
from urllib.request import getproxies

import httpx2
import pytest

from dujiang.providers.jimeng.proxies import proxy_to

VENDOR = "https://visual.volcengineapi.com/"
PROXY = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if re.fullmatch(r"(http|https|all|no)_proxy", name, re.I)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, None),
        ({"https": PROXY}, PROXY),
        ({"all": PROXY}, PROXY),
        ({"http": PROXY}, None),
        ({"https": "127.0.0.1:8080"}, PROXY),
        ({"https": "http://me:pass@127.0.0.1:8080"}, "http://***@127.0.0.1:8080"),
        ({"https": "me:p@ss/word@127.0.0.1:8080"}, "http://***@127.0.0.1:8080"),
        ({"https": "socks5h://127.0.0.1:1080", "all": PROXY}, "socks5h://127.0.0.1:1080"),
    ],
)
def test_the_proxy_is_told_without_its_password(found: dict[str, str], told: str | None) -> None:
    assert proxy_to(httpx2.URL(VENDOR), found) == told


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://localhost/", "http://[::1]:9/"])
def test_this_machine_needs_none(url: str) -> None:
    assert proxy_to(httpx2.URL(url), {"http": PROXY, "https": PROXY, "all": PROXY}) is None


VENDORS = [VENDOR, "https://10.1.2.3/", "https://[fd00::7]/", "https://x.com:8443/"]


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy", "HTTP_PROXY"])
@pytest.mark.parametrize(
    "exceptions",
    [
        "", "*", "volcengineapi.com", ".volcengineapi.com", "*.volcengineapi.com", "visual.volcengineapi.com",
        "api.com", ".visual.volcengineapi.com", "VOLCENGINEAPI.COM", "localhost, visual.volcengineapi.com",
        "other.com,localhost", "10.1.2.3", "10.0.0.0/8", "11.0.0.0/8", "fd00::7", "[fd00::7]", "fd00::/8", "x.com:8443",
        "x.com:443", "x.com", "https://visual.volcengineapi.com", "http://visual.volcengineapi.com", "all://*.com",
        "a/b", ",,", "visual.volcengineapi.com:443", "10.1.2.3:443", "[fd00::7]:443", "https://volcengineapi.com",
    ],
)  # fmt: skip
def test_exceptions_are_those_of_the_client(variable: str, exceptions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, PROXY)
    monkeypatch.setenv("NO_PROXY", exceptions)

    with httpx2.Client(verify=False) as client:
        for url in map(httpx2.URL, VENDORS):
            direct = client._transport_for_url(url) is client._transport
            assert (proxy_to(url, getproxies()) is None) == direct, url
