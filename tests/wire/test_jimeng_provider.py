"""The Jimeng adapter against real sockets: what each fault of the way proves, and what each answer means.

The vendor here is a bare TCP server that does exactly what a test's script says; it knows nothing of HTTP libraries.
"""

import asyncio
import json
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs

import httpcore2
import httpx2
import pytest

from dujiang import __version__
from dujiang.connections import endpoint_url, failure_told
from dujiang.domain import errors as ours
from dujiang.domain.accounts import Key
from dujiang.domain.requests import Request
from dujiang.ports import Job, Look, Provider
from dujiang.providers.jimeng.connections import Progress
from dujiang.providers.jimeng.provider import JimengProvider, Timeouts
from dujiang.providers.jimeng.references import LinkCheck
from tests.parts import lacking

KEY = Key("AKLTexampleaccesskey", "c2VjcmV0LWV4YW1wbGU=", "STS-token-example")
PROMPT = "一只在月光下弹钢琴的猫，水彩"
SHORT = Timeouts(connect_s=0.2, submit_s=0.3, poll_s=0.3)
LONG = Timeouts(connect_s=5, submit_s=20, poll_s=20)


class RealClock:
    """Time as it is, with our constants shortened to nothing much."""

    scale = 0.01

    def __init__(self, skew_s: float = 0) -> None:
        self.random = random.Random(7)
        self._skew_s = skew_s

    def now(self) -> float:
        return time.time() + self._skew_s

    def elapsed(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def scaled(self, seconds: float) -> float:
        return seconds * self.scale


# -- A vendor that does what it is told -------------------------------------------------------------------------------


@dataclass
class Seen:
    """One request as it came in."""

    connection: int
    head: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.head.split(" ")[1].partition("?")[2])

    @property
    def json(self) -> dict[str, object]:
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content


Deed = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Vendor:
    """Answers request number n with `script[n]`, the last one for ever."""

    script: list[Deed]
    port: int = 0
    scheme: str = "http"
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode()
                length = next(
                    (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
                )
                self.seen.append(Seen(number, head, await reader.readexactly(length)))
                await self.script[min(len(self.seen), len(self.script)) - 1](writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def raw(content: bytes, *, close: bool = False) -> Deed:
    async def deed(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()
        if close:
            writer.close()

    return deed


def http(status: int, body: bytes, *, headers: str = "", length: int | None = None, close: bool = False) -> Deed:
    told = len(body) if length is None else length
    head = f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {told}\r\n{headers}\r\n"
    return raw(head.encode() + body, close=close)


def answer(status: int, body: object, headers: str = "") -> Deed:
    return http(status, json.dumps(body).encode(), headers=headers)


def business(status: int, code: int, data: object = None, message: str = "told") -> Deed:
    return answer(status, {"code": code, "data": data, "message": message, "request_id": "r-1", "status": code})


def gateway(status: int, name: str, number: int, message: str = "told", headers: str = "") -> Deed:
    error = {"Code": name, "CodeN": number, "Message": message}
    return answer(status, {"ResponseMetadata": {"RequestId": "r-1", "Error": error}}, headers=headers)


def accepted(job_id: object = "7392616336519610409") -> Deed:
    return business(200, 10000, {"task_id": job_id})


def looked(**data: object) -> Deed:
    return business(200, 10000, data)


async def reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)  # the point of it: each single read is quick


@asynccontextmanager
async def vendor_doing(*script: Deed, tls: ssl.SSLContext | None = None) -> AsyncIterator[Vendor]:
    vendor = Vendor(list(script), scheme="https" if tls else "http")
    handlers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(vendor.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    vendor.port = server.sockets[0].getsockname()[1]
    try:
        yield vendor
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def provider_at(
    endpoint: str,
    timeouts: Timeouts = LONG,
    *,
    skew_s: float = 0,
    tls: ssl.SSLContext | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> AsyncIterator[JimengProvider]:
    provider = JimengProvider(endpoint, RealClock(skew_s), timeouts, tls=tls, transport=transport)
    try:
        yield provider
    finally:
        await provider.aclose()


def a_request(**parameters: str | int | float | bool) -> Request:
    return Request("4.0", PROMPT, {"force_single": True, **parameters})


async def submitted(provider: Provider, key: Key = KEY) -> Job:
    return await provider.submit(a_request(), ("https://example.com/a.png",), key)


async def looking(provider: Provider) -> Look:
    return await provider.look("7392616336519610409", "jimeng_t2i_v40", KEY)


async def failure_of(doing: Awaitable[object]) -> ours.ProviderError:
    with pytest.raises(ours.ProviderError) as caught:
        await doing
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert not any(secret in told for secret in (KEY.access, KEY.secret, "STS-token", PROMPT, "Signature="))
    return error


# -- What is sent -----------------------------------------------------------------------------------------------------


async def test_a_submit_asks_for_what_the_request_says() -> None:
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        job = await provider.submit(a_request(width=2048, height=2048), ("https://example.com/a.png",), KEY)

    assert job == Job("7392616336519610409", "r-1")
    (seen,) = vendor.seen
    assert seen.query == {"Action": ["CVSync2AsyncSubmitTask"], "Version": ["2022-08-31"]}
    assert seen.json == {
        "req_key": "jimeng_t2i_v40",
        "prompt": PROMPT,
        "force_single": True,
        "width": 2048,
        "height": 2048,
        "image_urls": ["https://example.com/a.png"],
    }
    assert PROMPT.encode() in seen.body  # as UTF-8, not escaped
    assert seen.headers["user-agent"] == f"dujiang/{__version__}"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["x-security-token"] == "STS-token-example"
    assert f"Credential={KEY.access}/" in seen.headers["authorization"]
    assert seen.headers["host"] == f"127.0.0.1:{vendor.port}"


async def test_a_submit_without_references_sends_none() -> None:
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        await provider.submit(a_request(), (), KEY)

    assert "image_urls" not in vendor.seen[0].json


async def test_a_poll_asks_for_links() -> None:
    async with vendor_doing(looked(status="generating")) as vendor, provider_at(vendor.endpoint) as provider:
        await looking(provider)

    (seen,) = vendor.seen
    assert seen.query == {"Action": ["CVSync2AsyncGetResult"], "Version": ["2022-08-31"]}
    assert seen.json["req_key"] == "jimeng_t2i_v40"
    assert seen.json["task_id"] == "7392616336519610409"
    assert json.loads(str(seen.json["req_json"])) == {"return_url": True}


async def test_a_cancel_asks_in_its_own_version() -> None:
    async with vendor_doing(business(200, 10000)) as vendor, provider_at(vendor.endpoint) as provider:
        await provider.cancel("7", "jimeng_t2i_v40", KEY)

    (seen,) = vendor.seen
    assert seen.query == {"Action": ["CVCancelTask"], "Version": ["2024-06-06"]}
    assert seen.json == {"req_key": "jimeng_t2i_v40", "task_id": "7"}


# -- Rule 5: a fresh connection, once ---------------------------------------------------------------------------------


async def test_every_submit_has_a_connection_of_its_own() -> None:
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        await submitted(provider)
        await submitted(provider)
        await asyncio.gather(*(submitted(provider) for _ in range(5)))

    assert vendor.connections == 7
    assert len({seen.connection for seen in vendor.seen}) == 7


async def test_polls_share_connections() -> None:
    async with vendor_doing(looked(status="in_queue")) as vendor, provider_at(vendor.endpoint) as provider:
        for _ in range(5):
            await looking(provider)

    assert vendor.connections == 1


@pytest.mark.parametrize(
    "deed", [reset, close, http(504, b""), http(307, b"", headers="Location: /\r\n"), business(500, 50500)]
)
async def test_no_submit_is_sent_twice(deed: Deed) -> None:
    async with vendor_doing(deed, accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        await failure_of(submitted(provider))

    assert len(vendor.seen) == 1


async def test_cookies_are_not_remembered() -> None:
    first = answer(200, {"code": 10000, "data": {"status": "in_queue"}}, headers="Set-Cookie: who=me; Path=/\r\n")
    async with vendor_doing(first, looked(status="in_queue")) as vendor, provider_at(vendor.endpoint) as provider:
        await looking(provider)
        await looking(provider)

    assert "cookie" not in vendor.seen[1].headers


# -- Rule 3: what proves that nothing was charged ---------------------------------------------------------------------

IN_DOUBT: list[tuple[str, Deed]] = [
    ("reset after the request", reset),
    ("closed without an answer", close),
    ("no end of the headers", raw(b"HTTP/1.1 200 OK\r\nContent-", close=True)),
    ("no HTTP", raw(b"SSH-2.0-OpenSSH\r\n", close=True)),
    ("200 with a cut body", http(200, b'{"code":10000,"data":{"task_id":"7', length=200, close=True)),
    ("200 with a whole but short body", http(200, b'{"code":10000,"data":{"task_id":"7')),
    ("200 with garbage", http(200, b"\x00\x1f\x8b\xff\xfe")),
    ("200 with nothing", http(200, b"")),
    ("200 with broken compression", http(200, b"no gzip", headers="Content-Encoding: gzip\r\n")),
    ("504 with HTML", http(504, b"<html><body>504 Gateway Time-out</body></html>")),
    ("403 with HTML", http(403, b"<html>denied by a firewall</html>")),
    ("302 to elsewhere", http(302, b"", headers="Location: https://example.com/\r\n")),
    ("302 with a refusal", answer(302, {"code": 50430, "message": "told"})),
    ("gateway 500", gateway(500, "InternalError", 100014)),
    ("gateway 502", gateway(502, "FailToConnect", 100015)),
    ("gateway 503", gateway(503, "ServiceUnavailableTemp", 100019)),
    ("internal error", business(500, 50500)),
    ("internal RPC error", business(500, 50501)),
    ("unknown code", business(400, 59999)),
    ("accepted without a job id", business(200, 10000)),
    ("accepted with an empty job id", accepted("")),
    ("accepted with a list for a job id", accepted(["7"])),
    ("accepted with a text for data", business(200, 10000, "7392616336519610409")),
    ("accepted with an endless job id", accepted("7" * 5000)),
]


@pytest.mark.parametrize("deed", [deed for _, deed in IN_DOUBT], ids=[name for name, _ in IN_DOUBT])
async def test_rule_3_a_submit_that_reached_the_vendor_without_a_proof_is_in_doubt(deed: Deed) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(submitted(provider))

    assert type(error) is ours.Unproven


@pytest.mark.parametrize("deed", [hang, trickle])
async def test_rule_3_a_submit_without_a_whole_answer_at_its_deadline_is_in_doubt(deed: Deed) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint, SHORT) as provider:
        begun = time.monotonic()
        error = await failure_of(submitted(provider))
        took_s = time.monotonic() - begun

    assert type(error) is ours.Unproven
    assert "no complete answer within 0.3 s" in error.message
    assert took_s < 2


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (business(429, 50430), ours.LaneFull),
        (business(200, 50430), ours.LaneFull),
        (gateway(429, "50430", 50430), ours.LaneFull),
        (business(429, 50429), ours.TooFast),
        (gateway(429, "FlowLimitExceeded", 100018), ours.TooFast),
        (business(400, 50412), ours.ContentBlocked),
        (business(400, 50511), ours.OutputBlocked),
        (business(400, 50220), ours.LinkUnreachable),
        (business(400, 50215), ours.RequestRefused),
        (business(401, 50400), ours.AccountRefused),
        (gateway(401, "SignatureDoesNotMatch", 100010), ours.AccountRefused),
        (gateway(403, "AccountOverdue", 199999), ours.AccountRefused),
    ],
)
async def test_rule_3_a_parsed_refusal_is_proof(deed: Deed, kind: type[ours.ProviderError]) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(submitted(provider))

    assert type(error) is kind
    assert isinstance(error, ours.ProvenUncharged)
    assert error.request_id == "r-1"


async def test_a_job_id_as_a_number_is_kept_exactly() -> None:
    async with vendor_doing(accepted(99999999999999999999)) as vendor, provider_at(vendor.endpoint) as provider:
        assert (await submitted(provider)).id == "99999999999999999999"


async def test_a_wrong_clock_is_told_in_seconds() -> None:
    refusal = gateway(400, "InvalidTimestamp", 100006, headers=f"Date: {formatdate(usegmt=True)}\r\n")
    async with vendor_doing(refusal) as vendor, provider_at(vendor.endpoint, skew_s=5000) as provider:
        error = await failure_of(submitted(provider))

    assert isinstance(error, ours.AccountRefused)
    assert error.why == "clock"
    assert "s ahead of the vendor's" in error.message
    assert "500" in error.message or "4999" in error.message


async def test_a_refusal_that_repeats_the_prompt_does_not_show_it() -> None:
    refusal = business(400, 50412, message=f"no: {PROMPT}")
    async with vendor_doing(refusal) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(submitted(provider))

    assert error.message == "no: …"


@pytest.mark.parametrize("key", [Key("", "s"), Key("AK\n", "s"), Key("钥匙", "s")])
async def test_a_key_that_can_not_be_sent_is_refused_before_anything_is(key: Key) -> None:
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(submitted(provider, key))

    assert isinstance(error, ours.AccountRefused)
    assert vendor.connections == 0


@pytest.mark.parametrize("request_", [Request("5.0", "猫"), Request("4.0", "\ud83d")])
async def test_a_request_that_can_not_be_written_is_refused_before_anything_is_sent(request_: Request) -> None:
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(provider.submit(request_, (), KEY))

    assert isinstance(error, ours.RequestRefused)
    assert vendor.connections == 0


async def test_a_cancelled_submit_stays_cancelled() -> None:
    arrived = asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await hang(writer)

    async with vendor_doing(wait) as vendor, provider_at(vendor.endpoint) as provider:
        task = asyncio.create_task(submitted(provider))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# -- Rule 3: no byte of the request reached a connection --------------------------------------------------------------


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def both_fail(provider: Provider, kind: type[ours.ProviderError]) -> ours.ProviderError:
    assert isinstance(await failure_of(looking(provider)), ours.EndpointDown | ours.Unproven)
    error = await failure_of(submitted(provider))
    assert type(error) is kind
    return error


async def test_rule_3_a_refused_connection_is_proof(closed_port: int) -> None:
    async with provider_at(f"http://127.0.0.1:{closed_port}") as provider:
        error = await both_fail(provider, ours.EndpointDown)

    assert "refused" in error.message.lower()


async def test_rule_3_a_name_that_is_not_found_is_proof() -> None:
    async with provider_at("https://dujiang-test.invalid") as provider:
        await both_fail(provider, ours.EndpointDown)


@pytest.mark.skipif(sys.platform != "linux", reason="how a full backlog behaves is Linux's own")
async def test_rule_3_a_connect_time_out_is_proof() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # and nobody accepts: after the first connections the rest are ignored
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        async with provider_at(f"http://127.0.0.1:{address[1]}", Timeouts(0.2, 20, 20)) as provider:
            await both_fail(provider, ours.EndpointDown)
        async with provider_at(f"http://127.0.0.1:{address[1]}", Timeouts(20, 0.2, 0.2)) as provider:
            await both_fail(provider, ours.EndpointDown)
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("deed", [reset, close, raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", close=True)])
async def test_rule_3_a_failed_tls_handshake_is_proof(deed: Deed) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await deed(writer)
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, provider_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as provider:
        await both_fail(provider, ours.EndpointDown)


@pytest.mark.parametrize("timeouts", [Timeouts(0.2, 20, 20), Timeouts(20, 0.2, 0.2)])
async def test_rule_3_a_tls_handshake_without_an_end_is_proof(timeouts: Timeouts) -> None:
    plain = vendor_doing(accepted())  # it waits for the end of a head that is a ClientHello
    async with plain as vendor, provider_at(f"https://127.0.0.1:{vendor.port}", timeouts) as provider:
        await both_fail(provider, ours.EndpointDown)


@pytest.mark.parametrize("failure", [httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError])
async def test_rule_3_failures_that_only_come_before_sending_are_proof(failure: type[httpx2.TransportError]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise failure("told", request=request)

    async with provider_at("https://example.com", transport=httpx2.MockTransport(fail)) as provider:
        await both_fail(provider, ours.EndpointDown)


@pytest.mark.parametrize("failure", [httpx2.ReadTimeout("x"), httpx2.WriteError("x"), OSError("x"), RuntimeError("x")])
async def test_rule_3_any_other_failure_of_a_transport_proves_nothing(failure: Exception) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise failure

    async with provider_at("https://example.com", transport=httpx2.MockTransport(fail)) as provider:
        await both_fail(provider, ours.Unproven)


async def test_rule_3_a_deadline_on_a_transport_that_tells_no_steps_proves_nothing() -> None:
    class Silent(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async with provider_at("https://example.com", SHORT, transport=Silent()) as provider:
        await both_fail(provider, ours.Unproven)


@pytest.mark.parametrize(
    ("steps", "proved"),
    [
        ([], True),
        (["connection.connect_tcp.started"], True),
        (["connection.connect_tcp.complete", "connection.start_tls.started"], True),
        (["http11.send_request_headers.started CONNECT", "http11.send_request_headers.complete"], True),
        (["http11.send_request_headers.started CONNECT", "proxy.start_tls.started"], True),
        (["connection.connect_tcp.complete", "http11.send_request_headers.started POST"], False),
        (["http11.send_request_headers.started CONNECT", "http11.send_request_headers.started POST"], False),
        (["connection.connect_tcp.complete", "http11.a_step_of_a_later_version"], False),
        (["http11.send_request_headers.started CONNECT", "proxy.start_tls.complete", "http11.later"], False),
        (["connection.connect_tcp.complete", "http9.send.started"], False),
    ],
)
async def test_steps_that_are_not_known_to_come_before_sending_count_as_sent(steps: list[str], proved: bool) -> None:
    progress = Progress()
    for step in steps:
        name, _, method = step.partition(" ")
        await progress(name, {"request": httpcore2.Request(method, "http://x")} if method else {})

    assert progress.proves_unsent(httpx2.ConnectError("x")) == proved


# -- TLS that works ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        lacking("the openssl command", how_to_get_it="install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command = [openssl, "req", "-x509", *curve, "-keyout", str(key), "-out", str(cert), *subject]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


async def test_over_tls_everything_is_the_same(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    script = (accepted(), reset, close, http(200, b'{"code', length=99, close=True))
    async with (
        vendor_doing(*script, tls=server_tls) as vendor,
        provider_at(vendor.endpoint, tls=client_tls) as provider,
    ):
        assert (await submitted(provider)).id == "7392616336519610409"
        for _ in range(3):
            assert type(await failure_of(submitted(provider))) is ours.Unproven

    assert vendor.connections == 4


async def test_over_tls_a_deadline_after_the_request_is_in_doubt(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    silent = vendor_doing(hang, tls=server_tls)
    async with silent as vendor, provider_at(vendor.endpoint, SHORT, tls=client_tls) as provider:
        assert type(await failure_of(submitted(provider))) is ours.Unproven


async def test_rule_3_an_untrusted_certificate_is_proof(server_tls: ssl.SSLContext) -> None:
    async with vendor_doing(accepted(), tls=server_tls) as vendor, provider_at(vendor.endpoint) as provider:
        error = await both_fail(provider, ours.EndpointDown)

    assert "certificate" in error.message.lower()
    assert vendor.seen == []


# -- Proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", [http(403, b""), http(407, b""), http(502, b""), close, reset])
async def test_rule_3_a_proxy_that_refuses_is_proof(deed: Deed, monkeypatch: pytest.MonkeyPatch) -> None:
    async with vendor_doing(deed) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        async with provider_at("https://dujiang-test.invalid") as provider:
            await both_fail(provider, ours.EndpointDown)

    assert proxy.seen[0].head.startswith("CONNECT dujiang-test.invalid:443 ")


async def test_rule_3_a_proxy_that_says_nothing_is_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    async with vendor_doing(hang) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        async with provider_at("https://dujiang-test.invalid", SHORT) as provider:
            await both_fail(provider, ours.EndpointDown)


async def test_rule_3_a_tunnel_that_breaks_before_tls_is_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    async with vendor_doing(http(200, b"", close=True)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.endpoint)
        async with provider_at("https://dujiang-test.invalid") as provider:
            await both_fail(provider, ours.EndpointDown)


async def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    async with vendor_doing(accepted()) as vendor, provider_at(vendor.endpoint) as provider:
        assert await submitted(provider)


# -- Endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("http://visual.volcengineapi.com", "endpoint_insecure"),
        ("http://10.0.0.1:8080", "endpoint_insecure"),
        ("ftp://127.0.0.1", "endpoint_invalid"),
        ("visual.volcengineapi.com", "endpoint_invalid"),
        ("", "endpoint_invalid"),
        ("https://", "endpoint_invalid"),
        ("https://user:word@example.com", "endpoint_invalid"),
        ("https://example.com/?a=b", "endpoint_invalid"),
        ("http://[::1", "endpoint_invalid"),
    ],
)
def test_an_endpoint_that_is_not_safe_is_refused_with_a_code(endpoint: str, code: str) -> None:
    with pytest.raises(ValueError, match=f"^{code}$"):
        JimengProvider(endpoint, RealClock())


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://visual.volcengineapi.com", "https://visual.volcengineapi.com/"),
        ("https://visual.volcengineapi.com/", "https://visual.volcengineapi.com/"),
        ("http://localhost:8000", "http://localhost:8000/"),
        ("http://[::1]:8000/jimeng", "http://[::1]:8000/jimeng/"),
        ("http://127.1.2.3", "http://127.1.2.3/"),
    ],
)
def test_an_endpoint_is_https_or_this_machine(endpoint: str, url: str) -> None:
    assert str(endpoint_url(endpoint)) == url


# -- Polls ------------------------------------------------------------------------------------------------------------

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAE="


@pytest.mark.parametrize(
    ("deed", "look"),
    [
        (looked(status="in_queue"), Look(None, queued=True)),
        (looked(status="generating", image_urls=None), Look(None)),
        (looked(status="done", image_urls=["https://a/1", "https://a/2"]), Look(("https://a/1", "https://a/2"))),
        (looked(status="Done ", image_urls=[None, 7, "", "https://a/1"]), Look(("https://a/1",))),
        (looked(status="done", image_urls=[], binary_data_base64=[PNG]), Look((f"data:image/png;base64,{PNG}",))),
        (looked(status="done", binary_data_base64=["/9j/4A"]), Look(("data:image/jpeg;base64,/9j/4A",))),
    ],
)
async def test_a_poll_sees_how_a_job_is_doing(deed: Deed, look: Look) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint) as provider:
        assert await looking(provider) == look


@pytest.mark.parametrize(
    ("deed", "kind", "vendor_code"),
    [
        (looked(status="not_found"), ours.RecordGone, "not_found"),
        (looked(status="expired"), ours.RecordGone, "expired"),
        (business(400, 50215), ours.RecordGone, "50215"),
        (looked(status="canceled"), ours.JobCancelled, "canceled"),
        (looked(status="cancelled"), ours.JobCancelled, "cancelled"),
        (looked(status="failed"), ours.Undecided, "failed"),
        (looked(status="失败"), ours.Undecided, "失败"),
        (business(500, 50500), ours.Undecided, "50500"),
        (business(400, 50521), ours.Undecided, "50521"),
        (business(400, 50511), ours.OutputBlocked, "50511"),
        (business(400, 50412), ours.ContentBlocked, "50412"),
        (business(400, 50218), ours.RequestRefused, "50218"),
        (business(429, 50429), ours.TooFast, "50429"),
        (business(429, 50430), ours.LaneFull, "50430"),
        (business(401, 50400), ours.AccountRefused, "50400"),
        (gateway(403, "LackPolicy", 100012), ours.AccountRefused, "100012"),
        (gateway(400, "MissingParameter", 100002), ours.Unproven, "100002"),
        (gateway(404, "InvalidActionOrVersion", 100008), ours.Unproven, "100008"),
        (gateway(502, "FailToConnect", 100015), ours.Unproven, "100015"),
        (business(400, 59999), ours.Unproven, "59999"),
        (looked(), ours.Unproven, None),
        (looked(status=7), ours.Unproven, None),
        (business(200, 10000), ours.Unproven, None),
        (http(200, b"\x00garbage"), ours.Unproven, None),
        (http(504, b"<html></html>"), ours.Unproven, None),
        (http(302, b"", headers="Location: /\r\n"), ours.Unproven, None),
    ],
)
async def test_a_poll_tells_what_ends_a_job_from_what_says_nothing(
    deed: Deed, kind: type[ours.ProviderError], vendor_code: str | None
) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(looking(provider))

    assert type(error) is kind
    assert error.vendor_code == vendor_code
    assert len(vendor.seen) == 1


@pytest.mark.parametrize("data", [{}, {"image_urls": []}, {"image_urls": "https://a/1"}, {"image_urls": ["ftp://a"]}])
async def test_done_without_a_picture_is_asked_for_three_more_times(data: dict[str, object]) -> None:
    async with vendor_doing(looked(status="done", **data)) as vendor, provider_at(vendor.endpoint) as provider:
        error = await failure_of(looking(provider))

    assert isinstance(error, ours.Undecided)
    assert (error.polls, error.for_s, error.charged) == (4, 0, True)


@pytest.mark.parametrize("deed", [reset, close, http(200, b"{", length=99, close=True)])
async def test_a_poll_whose_connection_broke_is_asked_again(deed: Deed) -> None:
    script = (looked(status="in_queue"), deed, deed, looked(status="generating"))
    async with vendor_doing(*script) as vendor, provider_at(vendor.endpoint) as provider:
        await looking(provider)
        assert await looking(provider) == Look(None)

    assert vendor.connections == 3


async def test_a_poll_is_not_asked_again_for_ever() -> None:
    async with vendor_doing(close) as vendor, provider_at(vendor.endpoint) as provider:
        assert type(await failure_of(looking(provider))) is ours.Unproven

    assert len(vendor.seen) == 3


@pytest.mark.parametrize("deed", [hang, trickle])
async def test_a_poll_without_an_answer_says_nothing(deed: Deed) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint, SHORT) as provider:
        assert type(await failure_of(looking(provider))) is ours.Unproven

    assert len(vendor.seen) == 1


async def test_a_poll_that_can_not_connect_finds_the_endpoint_down(closed_port: int) -> None:
    async with provider_at(f"http://127.0.0.1:{closed_port}") as provider:
        assert type(await failure_of(looking(provider))) is ours.EndpointDown


# -- Cancels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "kind"),
    [
        (business(400, 50215), ours.Unproven),
        (business(500, 50500), ours.Unproven),
        (business(429, 50429), ours.TooFast),
        (gateway(403, "AccessDenied", 100013), ours.AccountRefused),
        (close, ours.Unproven),
        (http(200, b"[]"), ours.Unproven),
    ],
)
async def test_a_cancel_that_fails_says_nothing_about_the_job(deed: Deed, kind: type[ours.ProviderError]) -> None:
    async with vendor_doing(deed) as vendor, provider_at(vendor.endpoint) as provider:
        assert type(await failure_of(provider.cancel("7", "jimeng_t2i_v40", KEY))) is kind


# -- References -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def check_with(witness: str | None = None) -> AsyncIterator[LinkCheck]:
    check = LinkCheck(witness, timeout_s=0.3)
    try:
        yield check
    finally:
        await check.aclose()


@pytest.mark.parametrize(
    ("script", "there"),
    [
        ([http(200, b"")], True),
        ([http(405, b"", close=True), http(206, b"x", close=True)], True),
        ([close, http(200, b"x", close=True)], True),
        ([http(302, b"", headers="Location: /b.png\r\n", close=True), http(200, b"", close=True)], True),
        ([http(404, b"", close=True)], False),
        ([http(302, b"", headers="Location: /a.png\r\n", close=True)], False),
        ([close], False),
    ],
)
async def test_a_link_is_missing_if_it_can_not_be_fetched(script: list[Deed], there: bool) -> None:
    async with vendor_doing(*script) as host, check_with() as check:
        link = f"{host.endpoint}/a.png"
        assert await check.missing([link]) == (None if there else link)


async def test_the_first_missing_link_is_named() -> None:
    gone = http(404, b"", close=True)
    async with vendor_doing(http(200, b"", close=True), gone) as host, check_with() as check:
        links = [f"{host.endpoint}/{n}.png" for n in range(3)]
        assert await check.missing(links) == links[1]
        assert await check.missing([]) is None


async def test_a_host_that_is_away_is_the_links_fault_only_if_the_network_is_there(closed_port: int) -> None:
    link = f"http://127.0.0.1:{closed_port}/a.png"
    async with vendor_doing(http(404, b"", close=True)) as vendor, check_with(vendor.endpoint) as check:
        assert await check.missing([link]) == link
    for witness in (None, f"http://127.0.0.1:{closed_port}"):
        async with check_with(witness) as check:
            with pytest.raises(ours.EndpointDown):
                await check.missing([link])


def test_a_failure_is_told_in_the_systems_words_and_never_quotes_what_was_sent() -> None:
    failure = httpx2.ConnectError("All connection attempts failed")
    failure.__cause__ = ConnectionRefusedError(111, "Connect call failed")

    assert failure_told(failure, 1) == "ConnectError (ConnectionRefusedError: Connect call failed)"
    assert failure_told(httpx2.LocalProtocolError("Illegal header value b'secret'"), 1) == "LocalProtocolError"
