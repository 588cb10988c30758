"""The Superbed adapter against real sockets: what is sent, which link is taken, and what each failure means."""

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dujiang import __version__
from dujiang.domain.errors import HostDown, HostError, HostRefused, PictureRefused
from dujiang.hosts.superbed import LONGEST, SuperbedHost
from dujiang.ports import ImageHost
from dujiang.simulator import RunningSimulator, SimulatorSettings, running
from tests.parts import lacking
from tests.raw_vendor import a_png

from .test_jimeng_provider import Deed, answer, close, hang, http, raw, reset, trickle, vendor_doing

TOKEN = "superbed-simulator-token"
LINK = "https://pic.superbed.cn/item/0123456789abcdef01234567.png"
PNG = a_png()


@asynccontextmanager
async def host_at(endpoint: str, *, token: str = TOKEN, timeout_s: float = 20, **more: Any) -> AsyncIterator[ImageHost]:
    host = SuperbedHost(endpoint, token, timeout_s=timeout_s, **more)
    try:
        yield host
    finally:
        await host.aclose()


async def published(host: ImageHost) -> str:
    return await host.publish(PNG, "0123.png")


async def failure_of(host: ImageHost) -> HostError:
    """How publishing fails; the token stands nowhere in it."""
    with pytest.raises(HostError) as caught:
        await published(host)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert TOKEN not in told
    return error


async def failure_after(*script: Deed, timeout_s: float = 20) -> HostError:
    async with vendor_doing(*script) as vendor, host_at(vendor.endpoint, timeout_s=timeout_s) as host:
        error = await failure_of(host)
        assert len(vendor.seen) == 1, "asks once"
        return error


class Failing(httpx2.AsyncBaseTransport):
    """A network on which every request fails in this way."""

    def __init__(self, failure: BaseException, cause: BaseException | None = None) -> None:
        self._failure = failure
        self._failure.__cause__ = cause

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise self._failure


# -- What is sent, and which link is taken ----------------------------------------------------------------------------


async def test_the_token_and_one_file_are_in_the_form_and_nothing_is_in_the_query() -> None:
    async with vendor_doing(answer(200, {"err": 0, "url": LINK})) as vendor, host_at(vendor.endpoint) as host:
        assert await published(host) == LINK

    (seen,) = vendor.seen
    assert seen.head.startswith("POST /upload HTTP/1.1\r\n")
    assert TOKEN not in seen.head
    assert seen.headers["user-agent"] == f"dujiang/{__version__}"
    parts = re.findall(rb'name="(\w+)"(?:; filename="([^"]*)")?', seen.body)
    assert parts == [(b"token", b""), (b"filename", b""), (b"file", b"0123.png")]
    assert f"\r\n\r\n{TOKEN}\r\n".encode() in seen.body
    assert seen.body.count(PNG) == 1


async def test_an_endpoint_may_have_a_path() -> None:
    async with vendor_doing(answer(200, {"url": LINK})) as vendor, host_at(f"{vendor.endpoint}/api") as host:
        await published(host)

    assert vendor.seen[0].head.startswith("POST /api/upload HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "body",
    [
        {"err": 0, "msg": "上传成功", "url": LINK, "id": "1"},
        {"url": LINK},
        {"err": None, "url": LINK},
        {"err": "0", "url": LINK},
        {"success": True, "error": "", "data": {"url": LINK}},
        {"err": 0, "url": "/relative.png", "data": {"url": LINK}},
    ],
)
async def test_every_form_of_a_link_is_taken(body: dict[str, object]) -> None:
    async with vendor_doing(answer(200, body)) as vendor, host_at(vendor.endpoint) as host:
        assert await published(host) == LINK


@pytest.mark.parametrize(
    "body",
    [
        {"err": 0, "msg": "ok"},
        {"err": 0, "url": ""},
        {"err": 0, "url": "/item/relative.png"},
        {"err": 0, "url": "javascript:alert(1)"},
        {"err": 0, "url": "https://a.example/b c.png"},
        {"err": 0, "url": ["https://a.example/b.png"]},
        {"err": 0, "data": ["https://a.example/b.png"]},
    ],
)
async def test_a_success_without_a_link_is_no_refusal_of_the_picture(body: dict[str, object]) -> None:
    error = await failure_after(answer(200, body))

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == ("answer", False)


async def test_cookies_are_not_remembered_and_redirects_are_not_followed() -> None:
    first = http(302, b"", headers="Location: /elsewhere\r\nSet-Cookie: who=me; Path=/\r\n")
    async with vendor_doing(first, answer(200, {"url": LINK})) as vendor, host_at(vendor.endpoint) as host:
        await failure_of(host)
        await published(host)

    assert [seen.head.split(" ")[1] for seen in vendor.seen] == ["/upload", "/upload"]
    assert "cookie" not in vendor.seen[1].headers


# -- The host, or the way to it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        (reset, "reset"),
        (close, "reset"),
        (raw(b"SSH-2.0-OpenSSH\r\n", close=True), "reset"),
        (http(200, b'{"err":0,"url":"https://a', length=200, close=True), "reset"),
        (answer(429, {"err": 1, "msg": "no"}), "429"),
        (http(429, b"<html>429</html>"), "429"),
        (http(503, b"<html>503</html>"), "503"),
        (http(504, b"<html>504</html>"), "504"),
        (answer(200, {"err": 9, "msg": "同时上传的图片过多，请稍后再试"}), "429"),
        (answer(200, {"err": 9, "msg": "Too many requests"}), "429"),
    ],
)
async def test_what_may_be_over_in_a_moment_is_asked_again_soon(deed: Deed, why: str) -> None:
    error = await failure_after(deed)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == (why, True)


@pytest.mark.parametrize("deed", [hang, trickle])
async def test_an_upload_that_is_not_wholly_answered_in_time_is_asked_again_soon(deed: Deed) -> None:
    begun = time.monotonic()
    error = await failure_after(deed, timeout_s=0.3)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == ("timeout", True)
    assert "0.3 s" in error.message
    assert time.monotonic() - begun < 3


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address on which nobody takes connections, and the queue for them is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in waiting:
            one.close()


async def test_a_connection_that_is_never_made_times_out_by_itself(deaf: str) -> None:
    async with host_at(deaf, timeout_s=20, connect_timeout_s=0.2) as host:
        begun = time.monotonic()
        error = await failure_of(host)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == ("timeout", True)
    assert time.monotonic() - begun < 10


async def test_a_refused_connection_is_asked_again_soon() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with host_at(endpoint) as host:
            error = await failure_of(host)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == ("refused", True)


@pytest.mark.parametrize(
    ("failure", "why", "soon"),
    [
        (Failing(httpx2.ConnectError("x"), socket.gaierror(-2, "Name or service not known")), "network", False),
        (Failing(httpx2.ConnectError("x"), ssl.SSLCertVerificationError(1, "self-signed")), "network", False),
        (Failing(httpx2.ConnectError("x"), OSError(113, "No route to host")), "network", False),
        (Failing(httpx2.ProxyError("403 Forbidden")), "network", False),
        (Failing(httpx2.ConnectError("x"), TimeoutError(110, "Connection timed out")), "timeout", True),
        (Failing(httpx2.ConnectError("x"), ConnectionResetError(104, "Connection reset by peer")), "reset", True),
        (Failing(httpx2.WriteError("x"), BrokenPipeError(32, "Broken pipe")), "reset", True),
        (
            Failing(
                httpx2.ConnectError("x"),
                ExceptionGroup("all", [OSError(101, "unreachable"), ConnectionRefusedError(111, "refused")]),
            ),
            "refused",
            True,
        ),
    ],
)
async def test_each_fault_of_the_network_is_told_apart(failure: Failing, why: str, soon: bool) -> None:
    async with host_at("https://host.invalid", transport=failure) as host:
        error = await failure_of(host)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == (why, soon)
    assert error.message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        lacking("openssl", how_to_get_it="install openssl")
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", path, "-out", path], check=True, capture_output=True)
    return path


async def test_a_certificate_that_nobody_trusts_lasts_and_a_trusted_one_is_fine(certificate: Path) -> None:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    async with vendor_doing(answer(200, {"url": LINK}), tls=theirs) as vendor:
        async with host_at(vendor.endpoint) as host:
            error = await failure_of(host)
        assert vendor.seen == []
        async with host_at(vendor.endpoint, tls=ssl.create_default_context(cafile=certificate)) as host:
            assert await published(host) == LINK

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == ("network", False)


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        (answer(500, {"err": 1, "msg": "token"}), "500"),
        (http(502, b"<html>Bad Gateway</html>"), "502"),
        (http(302, b"", headers="Location: https://example.com/\r\n"), "302"),
        (http(404, b"<html>Not Found</html>"), "404"),
        (answer(405, {"detail": "Method Not Allowed"}), "405"),
        (http(400, b"<html>400 The plain HTTP request was sent to HTTPS port</html>"), "answer"),
        (http(200, b"<html>login to the hotel's network</html>"), "answer"),
        (http(200, b""), "answer"),
        (http(200, b"\x00\x1f\x8b\xff\xfe"), "answer"),
        (http(200, b"[1, 2]"), "answer"),
        (http(200, b"{}"), "answer"),
        (http(200, b"[" * 100_000), "answer"),
        (http(200, b"9" * 100_000), "answer"),
        (http(200, b"no gzip", headers="Content-Encoding: gzip\r\n"), "network"),
    ],
)
async def test_what_lasts_is_not_asked_again_soon_and_no_picture_is_at_fault(deed: Deed, why: str) -> None:
    error = await failure_after(deed)

    assert isinstance(error, HostDown)
    assert (error.why, error.soon) == (why, False)


# -- The account, or this picture -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "deed",
    [
        http(401, b"<html>401</html>"),
        http(403, b"<html>403</html>"),
        answer(403, {"detail": "no"}),
        *(
            answer(200, {"err": 1001, "msg": words})
            for words in (
                "token 无效，请检查后重试",
                "请先登录",
                "账号因多次上传违规图片已被封禁，请联系客服",
                "帐号已停用",
                "流量已用完",
                "余额不足",
                "会员已过期",
                "Invalid token",
                "Unauthorized",
                "your account was suspended",
                "quota exceeded",
            )
        ),
        answer(200, {"success": False, "message": "invalid API key"}),
        answer(400, {"detail": ["api_key is missing"]}),
    ],
)
async def test_what_is_said_about_the_account_is_no_pictures_fault(deed: Deed) -> None:
    assert isinstance(await failure_after(deed), HostRefused)


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (
            answer(200, {"err": 3001, "msg": "不支持的图片格式，或图片已损坏"}),
            "HTTP 200 err 3001 不支持的图片格式，或图片已损坏",
        ),
        (answer(200, {"err": "3", "msg": "图片\n未通过\t审核"}), "HTTP 200 err 3 图片 未通过 审核"),
        (answer(200, {"success": False, "error": "not an image"}), "HTTP 200 not an image"),
        (answer(200, {"err": 7, "url": LINK}), "HTTP 200 err 7"),
        (answer(400, {"detail": "unsupported type"}), "HTTP 400 unsupported type"),
        (answer(422, {"detail": ["file"]}), "HTTP 422 ['file']"),
        (http(413, b"<html>413 Request Entity Too Large</html>"), "HTTP 413"),
    ],
)
async def test_any_other_refusal_is_about_the_picture(deed: Deed, message: str) -> None:
    error = await failure_after(deed)

    assert isinstance(error, PictureRefused)
    assert error.message == message


@pytest.mark.parametrize("before", [0, LONGEST - 10, 4 * LONGEST - 10])
async def test_a_token_in_the_hosts_own_words_is_left_out_wherever_they_are_cut(before: int) -> None:
    error = await failure_after(answer(200, {"err": 3, "msg": "很" * before + TOKEN + "很长" * 500}))

    assert TOKEN[:5] not in error.message
    assert len(error.message) < LONGEST + 30


async def test_a_token_in_the_number_of_an_error_is_left_out() -> None:
    assert (await failure_after(answer(200, {"err": TOKEN}))).message == "HTTP 200 err ***"


# -- Where it may be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("http://api.superbed.cn", "endpoint_insecure"),
        ("http://127.0.0.1.example.com", "endpoint_insecure"),
        ("ftp://api.superbed.cn", "endpoint_invalid"),
        ("api.superbed.cn", "endpoint_invalid"),
        ("https://me:secret@api.superbed.cn", "endpoint_invalid"),
        (f"https://api.superbed.cn?token={TOKEN}", "endpoint_invalid"),
        ("", "endpoint_invalid"),
    ],
)
def test_an_endpoint_that_must_not_be_used_is_refused(endpoint: str, code: str) -> None:
    with pytest.raises(ValueError, match=f"^{code}$"):
        SuperbedHost(endpoint, TOKEN)


@pytest.mark.parametrize(
    "endpoint", ["https://api.superbed.cn", "http://127.0.0.1:8080", "http://[::1]", "http://localhost"]
)
async def test_https_and_this_machine_may_be_used(endpoint: str) -> None:
    async with host_at(endpoint):
        pass


# -- Against the simulator, which was written without it --------------------------------------------------------------


@asynccontextmanager
async def simulated(*, token: str = TOKEN, **settings: Any) -> AsyncIterator[tuple[RunningSimulator, ImageHost]]:
    with running(SimulatorSettings(**{"upload_s": 0.0, **settings})) as simulator:
        async with host_at(simulator.url, token=token) as host:
            yield simulator, host


async def test_a_published_picture_can_be_had_by_everybody() -> None:
    async with simulated() as (simulator, host):
        link = await published(host)
        found = await asyncio.to_thread(httpx2.get, link, trust_env=False)

        (item,) = simulator.ledger()["items"]
        assert found.content == PNG
        assert (item["name"], item["account"], item["bytes"]) == ("0123.png", "sim", len(PNG))


async def test_many_uploads_at_once_are_as_many_pictures() -> None:
    async with simulated(host_parallel=None) as (simulator, host):
        links = await asyncio.gather(*(host.publish(PNG, f"{number}.png") for number in range(20)))

        assert len(set(links)) == len(simulator.ledger()["items"]) == 20


@pytest.mark.parametrize(
    ("fault", "kind", "soon"),
    [
        ("upload_reset", HostDown, True),
        ("upload_lost", HostDown, True),
        ("upload_503", HostDown, True),
        ("upload_429", HostDown, True),
        ("upload_504", HostDown, True),
        ("upload_garbage", HostDown, False),
    ],
)
async def test_the_simulators_faults_are_the_hosts(fault: str, kind: type[HostError], soon: bool) -> None:
    async with simulated(faults={fault: 1.0}) as (_, host):
        error = await failure_of(host)

    assert type(error) is kind
    assert isinstance(error, HostDown)
    assert error.soon is soon


async def test_the_simulators_refusals_are_told_apart() -> None:
    async with simulated(host_max_bytes=100) as (_, host):
        with pytest.raises(PictureRefused, match="3001"):
            await host.publish(b"no picture", "a.png")
        with pytest.raises(PictureRefused, match="3002"):
            await host.publish(PNG + bytes(100), "a.png")
    async with simulated() as (_, host):
        for _ in range(5):
            with pytest.raises(PictureRefused, match="3003"):
                await host.publish(PNG, "[sim:refuse].png")
        with pytest.raises(HostRefused, match="1002"):
            await published(host)
    async with simulated(token="wrong") as (_, host):
        with pytest.raises(HostRefused, match="1001"):
            await published(host)
    async with simulated(host_parallel=0) as (_, host):
        with pytest.raises(HostDown, match="1003") as caught:
            await published(host)
        assert caught.value.soon
