"""`POST /`: the API itself. Reads a request, checks its signature, asks the vendor, and breaks what is to be broken."""

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from . import answers, signature, wire
from .answers import Answer, Question
from .chance import Kind
from .codes import Code, Refused
from .images import Images
from .jobs import DONE, EMPTY, Job
from .products import Body
from .settings import POLL_FAULTS
from .vendor import Vendor

SUBMIT: Final = "CVSync2AsyncSubmitTask"
POLL: Final = "CVSync2AsyncGetResult"
CANCEL: Final = "CVCancelTask"
_VERSIONS: Final = {SUBMIT: {"2022-08-31"}, POLL: {"2022-08-31"}, CANCEL: {"2022-08-31", "2024-06-06"}}
_KINDS: Final[dict[str, Kind]] = {SUBMIT: "submit", POLL: "poll"}

_PAGES: Final = {
    "submit_503": answers.proxy_page(503, "Service Temporarily Unavailable"),
    "submit_504_html": answers.proxy_page(504, "Gateway Time-out"),
    "submit_504_accepted": answers.proxy_page(504, "Gateway Time-out"),
    "poll_503": answers.proxy_page(503, "Service Temporarily Unavailable"),
}
_RESETS: Final = frozenset({"reset_before_reading", "lost_answer", "poll_reset"})
_HANGS: Final = frozenset({"lost_answer_hang", "poll_hang"})
_INSTEAD: Final = frozenset({"reset_before_reading", "submit_503", "submit_504_html", "poll_503", "poll_hang"})
"""These happen before the vendor has heard of the request; all others befall an answer of its own."""


@dataclass(frozen=True, slots=True)
class Link:
    """One request's connection."""

    scope: Scope
    receive: Receive
    send: Send
    headers: dict[str, str]
    question: Question


class Gateway:
    """The ASGI application behind `POST /`."""

    def __init__(self, vendor: Vendor, images: Images, close_door: Callable[[], Awaitable[None]]) -> None:
        self._vendor = vendor
        self._close_door = close_door
        self._images = images
        self._date = wire.DateHeader()
        self._request_ids = itertools.count(int.from_bytes(os.urandom(8)) >> 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or don't."""
        link = self._link(scope, receive, send)
        kind = _KINDS.get(link.question.action)
        fault = None
        if kind is not None:
            self._vendor.requests[kind] += 1
            fault = self._vendor.chance.fault(kind, self._vendor.settings)
        if fault in _INSTEAD:
            await self._break(fault, link)
            return
        body = await wire.read_body(receive)
        if body is None:
            return  # it never arrived as a whole, so the vendor never saw it
        try:
            await self._serve(link, body, fault)
        except Refused as refused:
            self._vendor.refused[kind or "other", refused.code.number] += 1
            await self._send(link, answers.refusal(link.question, refused, self._vendor.clock()))

    def _link(self, scope: Scope, receive: Receive, send: Send) -> Link:
        action, version = _action_and_version(scope["query_string"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = f"{next(self._request_ids):032x}"
        return Link(scope, receive, send, headers, Question(action, version, request_id, self._vendor.clock()))

    async def _serve(self, link: Link, raw: bytes, fault: str | None) -> None:
        account = self._authenticate(link, raw)
        body = _parsed(raw)
        match link.question.action:
            case "CVSync2AsyncSubmitTask":
                await self._submit(link, account, body, fault)
            case "CVSync2AsyncGetResult":
                await self._poll(link, account, body, fault)
            case _:
                self._vendor.cancel(account, body)
                await self._send(link, self._success(link, None))

    def _authenticate(self, link: Link, raw: bytes) -> str:
        question, settings = link.question, self._vendor.settings
        if not question.action or not question.version:
            raise Refused(100002)
        if link.scope["method"] != "POST" or question.version not in _VERSIONS.get(question.action, ()):
            raise Refused(100008)
        query = link.scope["query_string"].decode("latin-1")
        signed = signature.Signed("POST", "/", query, link.headers, raw)
        account = signature.check(signed, settings.accounts, self._vendor.wall_clock(), settings.clock_window_s)
        if account in settings.refused_accounts:
            status, word, message = settings.refused_accounts[account]
            raise Refused(Code(0, status, message, word))
        return account

    async def _submit(self, link: Link, account: str, body: Body, fault: str | None) -> None:
        marked = None if fault else self._vendor.marked_submit_fault(body)
        if marked in _INSTEAD:
            self._vendor.spend_fault(body["prompt"], marked)
            await self._break(marked, link)
            return
        client = link.headers.get("x-sim-client") or link.headers.get("user-agent", "")
        job = await self._vendor.submit(account, body, client)
        answer = self._success(link, {"task_id": job.task_id})
        if marked:
            self._vendor.spend_fault(body["prompt"], marked)
        if marked or fault:
            await self._break(marked or fault, link, answer)
            return
        listening = wire.is_open(link.scope)  # asked now: `Connection: close` closes it with the answer
        await self._send(link, answer)
        job.answered = listening

    async def _poll(self, link: Link, account: str, body: Body, fault: str | None) -> None:
        job, options = self._vendor.poll(account, body)
        fault = fault or (job.next_fault(POLL_FAULTS) if job else None)
        answer = self._success(link, self._result(link, job, options))
        if fault:
            await self._break(fault, link, answer)
            return
        if job and job.ended and not job.told:
            job.told = True
            await self._after_end()
        await self._send(link, answer)

    async def _after_end(self) -> None:
        """What may go wrong once a client knows that a job has ended: its next submit finds nobody."""
        fault = self._vendor.chance.fault("end", self._vendor.settings)
        if fault:
            self._vendor.chance.happened[fault] += 1
            await self._close_door()

    def _result(self, link: Link, job: Job | None, options: Body) -> dict[str, Any]:
        state = job.state(self._vendor.clock()) if job else "not_found"
        data: dict[str, Any] = {
            "binary_data_base64": None,
            "image_urls": None,
            "resp_data": "",
            "status": state,
            "video_url": "",
        }
        if state == EMPTY:
            data["status"] = DONE
        if job is None or state != DONE:
            return data
        if options.get("return_url") is True:
            data["image_urls"] = self._images.urls(job, link.headers.get("host", ""))
        else:
            data["binary_data_base64"] = self._images.base64(job)
        return data

    def _success(self, link: Link, data: dict[str, Any] | None) -> Answer:
        return answers.success(link.question, data, self._vendor.clock())

    async def _send(self, link: Link, answer: Answer) -> None:
        await wire.send_answer(link.send, answer, self._date.at(self._vendor.wall_clock()))

    async def _break(self, fault: str | None, link: Link, answer: Answer | None = None) -> None:
        assert fault is not None
        self._vendor.chance.happened[fault] += 1
        if fault in _RESETS:
            await wire.reset(link.scope, link.receive)
        elif fault in _HANGS:
            await wire.hang(link.receive)
        elif fault in _PAGES:
            await self._send(link, _PAGES[fault])
        elif answer and fault == "poll_slow":
            settings = self._vendor.settings
            await asyncio.sleep(settings.seconds(settings.poll_slow_s))
            await self._send(link, answer)
        elif answer:
            await self._send(link, answers.garbage(answer))


@lru_cache(maxsize=64)
def _action_and_version(query: bytes) -> tuple[str, str]:
    found = parse_qs(query.decode("latin-1"))
    return found.get("Action", [""])[0], found.get("Version", [""])[0]


def _parsed(raw: bytes) -> Body:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refused(50215, "the body is no JSON") from error
    if not isinstance(body, dict):
        raise Refused(50215, "the body is no JSON object")
    return body
