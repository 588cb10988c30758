"""The signer gives the vendor's own signatures: its published vector, and whatever its SDK signs."""

import calendar
import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volcengine.auth.SignerV4 import SignerV4
from volcengine.auth.SignParam import SignParam
from volcengine.Credentials import Credentials

from dujiang.domain.accounts import Key
from dujiang.providers.jimeng.auth import VolcengineAuth, canonical_request, is_well_formed

BODY = '{"req_key":"jimeng_t2i_v40","prompt":"猫 cat","force_single":true}'.encode()
URL = "https://visual.volcengineapi.com/?Action=CVSync2AsyncSubmitTask&Version=2022-08-31"
AT = float(calendar.timegm((2026, 1, 2, 3, 4, 5)))


def a_key(token: str | None = None) -> Key:
    return Key("AKLTexampleaccesskey", "c2VjcmV0LWV4YW1wbGU=", token)


def signed(request: httpx2.Request, key: Key, at: float = AT) -> httpx2.Request:
    return next(VolcengineAuth(key, lambda: at).auth_flow(request))


def a_request(url: str = URL, body: bytes = BODY) -> httpx2.Request:
    return httpx2.Request("POST", url, content=body, headers={"Content-Type": "application/json"})


def signature_of(request: httpx2.Request) -> str:
    return request.headers["Authorization"].rpartition("Signature=")[2]


def test_the_published_vector_is_met() -> None:
    request = signed(a_request(), a_key())

    assert len(BODY) == 67
    assert request.headers["X-Date"] == "20260102T030405Z"
    assert request.headers["X-Content-Sha256"] == "6fc14234908087438a13a7b8787cdd1aeccf870b3b61059587e9a3ac51175724"
    assert request.headers["Authorization"] == (
        "HMAC-SHA256 Credential=AKLTexampleaccesskey/20260102/cn-north-1/cv/request, "
        "SignedHeaders=content-type;host;x-content-sha256;x-date, "
        "Signature=ea00be86ec4de4ed2630a87035592f3f35557a2a73eb3c556a402d6736cd2319"
    )


def test_the_canonical_request_is_the_published_one() -> None:
    headers = {
        "content-type": "application/json",
        "host": "visual.volcengineapi.com",
        "x-content-sha256": hashlib.sha256(BODY).hexdigest(),
        "x-date": "20260102T030405Z",
    }

    canonical = canonical_request("POST", httpx2.URL(URL), headers, ";".join(headers))

    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert digest == "9e6cac7d8de3ccf99a2610e12b1c4f8f4c754429e49a938d794b81e7648a2d24"


def test_a_session_token_is_sent_and_signed() -> None:
    request = signed(a_request(), a_key("STS-token-example"))

    assert request.headers["X-Security-Token"] == "STS-token-example"
    assert "x-date;x-security-token," in request.headers["Authorization"]
    assert signature_of(request) == "c7b5da815e7150676e46cf2a3fb8f1888e9d6d9a7ff32602cc1e33abb0e1187e"


@pytest.mark.parametrize(
    ("host", "counts_as"),
    [
        ("visual.volcengineapi.com:443", "visual.volcengineapi.com"),
        ("visual.volcengineapi.com:80", "visual.volcengineapi.com"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("[::80]", "[::80]"),
    ],
)
def test_a_port_belongs_to_the_host_unless_it_is_80_or_443(host: str, counts_as: str) -> None:
    def signature(name: str) -> str:
        request = httpx2.Request("POST", URL, content=BODY, headers={"Host": name})
        return signature_of(signed(request, a_key()))

    assert signature(host) == signature(counts_as)
    assert signature(host) != signature("elsewhere")


async def test_the_clock_is_read_once_and_nothing_is_sent_twice() -> None:
    times = iter([AT])
    auth = VolcengineAuth(a_key(), lambda: next(times))
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(401)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await client.post(URL, content=BODY, auth=auth)

    assert [request.headers["X-Date"] for request in seen] == ["20260102T030405Z"]


def test_the_bytes_that_are_sent_are_the_bytes_that_are_hashed() -> None:
    request = httpx2.Request("POST", URL, json={"prompt": "猫", "n": 1.0})

    signed(request, a_key())

    assert request.headers["X-Content-Sha256"] == hashlib.sha256(request.content).hexdigest()


def test_a_key_is_never_shown() -> None:
    key = a_key("STS-token-example")

    shown = f"{VolcengineAuth(key, lambda: AT)!r} {key!r}"

    assert not any(secret in shown for secret in ("AKLTexample", "c2VjcmV0", "STS-token"))


@pytest.mark.parametrize(
    "key",
    [Key("", "s"), Key("AK", ""), Key("AK ", "s"), Key("A\nK", "s"), Key("钥匙", "s"), Key("AK", "s", "to ken")],
)
def test_a_key_that_no_header_can_carry_is_not_well_formed(key: Key) -> None:
    assert not is_well_formed(key)
    assert is_well_formed(a_key())


# -- The vendor's SDK as an oracle ------------------------------------------------------------------------------------


def sdk_signature(url: str, query: dict[str, str], host: str, body: bytes, key: Key, at: float) -> str:
    param = SignParam()
    param.set_date(datetime.fromtimestamp(at, UTC))
    param.set_method("POST")
    param.set_body(body)
    param.set_host(host)
    param.set_query(OrderedDict(query))
    param.set_path(httpx2.URL(url).path)
    param.set_header_list(OrderedDict({"Content-Type": "application/json", "Host": host}))
    credentials = Credentials(key.access, key.secret, "cv", "cn-north-1", key.session_token or "")
    return str(SignerV4.sign_only(param, credentials).authorization)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
HEADER_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@given(
    query=st.dictionaries(TEXT, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), max_size=5),
    path=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), max_size=10),
    port=st.sampled_from(["", ":80", ":443", ":8080", ":65535"]),
    body=st.binary(max_size=300),
    access=HEADER_TEXT,
    secret=TEXT,
    token=st.none() | HEADER_TEXT,
    at=st.integers(0, 4_000_000_000),
)
def test_every_signature_is_the_one_of_the_vendors_sdk(
    query: dict[str, str],
    path: str,
    port: str,
    body: bytes,
    access: str,
    secret: str,
    token: str | None,
    at: int,
) -> None:
    key = Key(access, secret, token)
    host = f"visual.volcengineapi.com{port}"
    url = f"https://visual.volcengineapi.com/{quote(path, safe='')}?{urlencode(query)}"
    request = httpx2.Request("POST", url, content=body, headers={"Host": host, "Content-Type": "application/json"})

    signed(request, key, at)

    assert request.headers["Authorization"] == sdk_signature(url, query, host, body, key, at)
