"""Jimeng as a `ports.Provider`.

A submit is sent once, over a connection of its own, and its failure is sorted by one question: is it proved that
nothing was charged? Everything that isn't a parsed answer is in doubt, unless no byte of it left. Polls may be
repeated, so they share connections, and a dropped one is asked again at once.
"""

import asyncio
import email.utils
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx2
import stamina

from dujiang import __version__
from dujiang.connections import endpoint_name, endpoint_url, failure_told, open_client
from dujiang.domain.accounts import Key
from dujiang.domain.errors import (
    AccountRefused,
    EndpointDown,
    JobCancelled,
    RecordGone,
    RequestRefused,
    Undecided,
    Unproven,
)
from dujiang.domain.requests import ModelSpec, Request
from dujiang.ports import Clock, Job, Look
from dujiang.providers.jimeng import errors, wire
from dujiang.providers.jimeng.auth import VolcengineAuth, is_well_formed
from dujiang.providers.jimeng.connections import Progress
from dujiang.providers.jimeng.models import MODELS

KEEP_ALIVE: Final = 8  # idle connections for polls; each is looked at before every poll, so more cost time
MORE_POLLS: Final = 2  # after a drop: at once, because a kept connection may just have been too old, and a moment later
MORE_POLLS_AFTER_S: Final = 0.2
DROPPED: Final = (httpx2.NetworkError, httpx2.RemoteProtocolError)
EMPTY_POLLS: Final = 4  # `done` without a picture is asked for 3 more times

HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": f"dujiang/{__version__}",
}
ONE_SHOT: Final = {**HEADERS, "Connection": "close"}  # no later request may find this connection


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines in real seconds: until a connection stands; until a submit, or a poll, is wholly answered."""

    connect_s: float = 10
    submit_s: float = 60
    poll_s: float = 30


class JimengProvider:
    """Jimeng behind one endpoint. Safe to call from many tasks of one event loop at once.

    `endpoint`: https, or http to this machine; ValueError with a code for anything else (`endpoint_url`).
    `transport` and `tls` take the place of the network and of the system's trust, for tests.
    """

    label = "即梦API"
    models: Mapping[str, ModelSpec] = MODELS

    def __init__(
        self,
        endpoint: str,
        clock: Clock,
        timeouts: Timeouts = Timeouts(),
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = endpoint_url(endpoint)
        self.endpoint = endpoint_name(endpoint)
        self._urls = {action: url.copy_with(query=action.encode()) for action in (wire.SUBMIT, wire.LOOK, wire.CANCEL)}
        self._clock = clock
        self._submit_s, self._poll_s = timeouts.submit_s, timeouts.poll_s
        self._connect_s = timeouts.connect_s
        trust: ssl.SSLContext | bool = tls or (httpx2.create_ssl_context() if url.scheme == "https" else False)
        self._submits = open_client(url, keep_alive=0, tls=trust, transport=transport)
        self._polls = open_client(url, keep_alive=KEEP_ALIVE, tls=trust, transport=transport)
        wait_s = clock.scaled(MORE_POLLS_AFTER_S)
        self._patiently = stamina.AsyncRetryingCaller(
            attempts=MORE_POLLS, timeout=None, wait_initial=wait_s, wait_max=wait_s, wait_jitter=0
        )

    async def submit(self, request: Request, references: Sequence[str], key: Key) -> Job:
        """Ask for the images, over a fresh connection, once. When this returns, it is paid for.

        Takes at most `submit_s`. Raises `ProvenUncharged` (nothing was charged) or `Unproven` (nobody knows).
        """
        spec = self.models.get(request.model)
        if spec is None:
            raise RequestRefused(f"unknown model {request.model}")
        try:
            body = wire.submit_body(spec.req_key, request.prompt, request.parameters, references)
        except UnicodeEncodeError:
            raise RequestRefused("the prompt or a link has characters that are not Unicode text") from None
        reply = await self._call(wire.SUBMIT, body, key)
        answer = _answer_in(reply)
        if not answer.succeeded:
            raise errors.after_submit(answer, key=key, prompt=request.prompt, skew_s=self._skew_s(reply))
        job_id = wire.job_id_in(answer)
        if job_id is None:
            raise Unproven("accepted, but without a job id", request_id=answer.request_id)
        return Job(job_id, answer.request_id)

    async def look(self, job_id: str, req_key: str, key: Key) -> Look:
        """How the job is doing. Raises what ends it, `Undecided`, or `Unproven`/`EndpointDown` (a passing fault).

        Takes at most `poll_s`; where a connection was refused or broke, it is asked again, twice at most.
        """
        body = wire.look_body(req_key, job_id)
        try:
            return await self._look(body, key)
        except (EndpointDown, Unproven) as failure:
            if not _was_dropped(failure):
                raise
        return await self._patiently(_was_dropped, self._look, body, key)

    async def _look(self, body: bytes, key: Key) -> Look:
        reply = await self._call(wire.LOOK, body, key)
        answer = _answer_in(reply)
        if not answer.succeeded:
            raise errors.after_look(answer, key=key, skew_s=self._skew_s(reply))
        return _seen_in(answer)

    async def cancel(self, job_id: str, req_key: str, key: Key) -> None:
        """Ask the vendor to drop a job that has not begun. Whether it did is seen by `look`.

        Raises `AccountRefused`, `TooFast`, `LaneFull`, `EndpointDown` or `Unproven`; none says anything about the job.
        """
        reply = await self._call(wire.CANCEL, wire.cancel_body(req_key, job_id), key)
        answer = _answer_in(reply)
        if not answer.succeeded:
            raise errors.after_cancel(answer, key=key, skew_s=self._skew_s(reply))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._submits.aclose()
        await self._polls.aclose()

    async def _call(self, action: str, body: bytes, key: Key) -> httpx2.Response:
        """Send once and read the whole answer, whatever it says; `EndpointDown` or `Unproven` if there is none."""
        if not is_well_formed(key):
            raise AccountRefused("the key is empty or has characters that no key has", why="auth")
        submits = action is wire.SUBMIT
        client, deadline_s = (self._submits, self._submit_s) if submits else (self._polls, self._poll_s)
        progress = Progress()
        # TCP and TLS have this time each; a deadline that cuts into a handshake would leave its socket open.
        connect_s = min(self._connect_s, deadline_s / 2)
        extensions = {"timeout": {"connect": connect_s}}  # the deadline is for the rest: it can't be trickled away
        request = httpx2.Request(
            "POST",
            self._urls[action],
            headers=ONE_SHOT if submits else HEADERS,
            content=body,
            # Only money needs the exact answer to "did anything leave?"; polls are many, and a trace costs them 5 %.
            extensions={**extensions, "trace": progress} if submits else extensions,
        )
        try:
            async with asyncio.timeout(deadline_s):
                return await client.send(request, auth=VolcengineAuth(key, self._clock.now))
        except Exception as failure:
            told = f"{self.endpoint}: {failure_told(failure, deadline_s)}"
            raise (EndpointDown if progress.proves_unsent(failure) else Unproven)(told) from failure

    def _skew_s(self, reply: httpx2.Response) -> float | None:
        """Our clock minus the vendor's, if the answer has a `Date`."""
        try:
            return self._clock.now() - email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None


def _answer_in(reply: httpx2.Response) -> wire.Answer:
    answer = wire.read_answer(reply.status_code, reply.content)
    if answer is None:
        raise Unproven(f"HTTP {reply.status_code} with a body that is no answer of the API")
    return answer


def _seen_in(answer: wire.Answer) -> Look:
    request_id = answer.request_id
    match wire.status_in(answer):
        case "in_queue":
            return Look(None, queued=True)
        case "generating":
            return Look(None)
        case "done":
            return Look(_pictures_in(answer))
        case ("not_found" | "expired") as word:
            raise RecordGone(f"the vendor says {word}", vendor_code=word, request_id=request_id)
        case ("canceled" | "cancelled") as word:
            raise JobCancelled(f"the vendor says {word}", vendor_code=word, request_id=request_id)
        case "":
            raise Unproven("an answer without a status", request_id=request_id)
        case word:
            raise Undecided(f"the vendor says {word}", vendor_code=word, request_id=request_id)


def _pictures_in(answer: wire.Answer) -> tuple[str, ...]:
    pictures = wire.pictures_in(answer)
    if pictures:
        return pictures
    raise Undecided(
        "done, but without a picture",
        charged=True,
        polls=EMPTY_POLLS,
        for_s=0,
        vendor_code="done",
        request_id=answer.request_id,
    )


def _was_dropped(failure: Exception) -> bool:
    """Whether a poll failed because a connection broke or was refused: asking again at once may be enough."""
    return isinstance(failure, EndpointDown | Unproven) and isinstance(failure.__cause__, DROPPED)
