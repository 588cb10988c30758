"""Whether the image host answers is found out without the token, and without an upload."""

import asyncio

import httpx2
import pytest

from dujiang.hosts.superbed import silence_of

ENDPOINT = "https://api.superbed.example/base"


@pytest.mark.parametrize(
    ("status", "told"), [(200, None), (301, None), (404, None), (405, None), (500, "HTTP 500"), (503, "HTTP 503")]
)
async def test_any_answer_but_a_5xx_shows_that_the_way_is_there(status: int, told: str | None) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(status, headers={"Location": "https://elsewhere.example/"}, content=b"x" * 1000)

    assert await silence_of(ENDPOINT, transport=httpx2.MockTransport(answer)) == told
    assert [(one.method, str(one.url), one.content) for one in asked] == [("GET", f"{ENDPOINT}/", b"")]


async def test_a_host_that_never_answers_is_left_in_time() -> None:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    told = await silence_of(ENDPOINT, timeout_s=0.01, transport=httpx2.MockTransport(answer))

    assert told == "no complete answer within 0.01 s"


async def test_a_connection_that_fails_is_told_in_the_systems_words() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("secret") from ConnectionRefusedError(111, "Connection refused")

    told = await silence_of(ENDPOINT, transport=httpx2.MockTransport(answer))

    assert told == "ConnectError (ConnectionRefusedError: Connection refused)"
