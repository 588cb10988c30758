"""The vendor's object store: `GET /images/<token>/<n>.png`. Every poll hands out a new link with its own lifetime."""

import base64
import hashlib
import hmac
import os
from typing import Final

from starlette.types import Receive, Scope, Send

from . import wire
from .answers import Answer, proxy_page
from .jobs import Job
from .pictures import picture
from .settings import DOWNLOAD_FAULTS
from .vendor import Vendor

_NOT_FOUND: Final = Answer(404, b'{"error":"NoSuchKey"}')
_EXPIRED: Final = Answer(403, b'{"error":"AccessDenied","message":"Request has expired"}')
_WRONG_METHOD: Final = Answer(405, b'{"error":"MethodNotAllowed"}')


class Images:
    """The ASGI application behind `/images/`, and the links that lead there."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._key = os.urandom(16)
        self._date = wire.DateHeader()

    def urls(self, job: Job, host: str) -> list[str]:
        """Links to the job's images that live from now on."""
        settings = self._vendor.settings
        expires = int((self._vendor.clock() + settings.seconds(settings.image_url_lifetime_s)) * 1000)
        ticket = f"{job.task_id}-{expires:x}"
        return [f"http://{host}/images/{ticket}-{self._mark(ticket)}/{n}.png" for n in range(job.images)]

    def base64(self, job: Job) -> list[str]:
        """The job's images themselves, for who asks for no links."""
        return [base64.b64encode(b"".join(self._parts(job, n))).decode() for n in range(job.images)]

    def _mark(self, ticket: str) -> str:
        return hashlib.blake2b(ticket.encode(), key=self._key, digest_size=8).hexdigest()

    def _parts(self, job: Job, index: int) -> tuple[bytes, ...]:
        return picture(job.task_id, index, job.prompt, job.size, self._vendor.settings.picture_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one download, or break it."""
        found = self._found(scope["method"], scope["path"])
        if isinstance(found, Answer):
            await wire.send_answer(send, found, self._now())
            return
        job, index = found
        fault = None
        if scope["method"] == "GET":
            self._vendor.requests["download"] += 1
            fault = self._vendor.chance.fault("download", self._vendor.settings) or job.next_fault(DOWNLOAD_FAULTS)
        parts = self._parts(job, index)
        if fault is None:
            await wire.send_parts(send, parts, self._now())
        else:
            await self._break(fault, parts, scope, receive, send)

    def _found(self, method: str, path: str) -> tuple[Job, int] | Answer:
        if method not in {"GET", "HEAD"}:
            return _WRONG_METHOD
        token, _, name = path.removeprefix("/images/").partition("/")
        ticket, _, mark = token.rpartition("-")
        if not hmac.compare_digest(mark.encode(), self._mark(ticket).encode()):
            return _NOT_FOUND
        task_id, _, expires = ticket.partition("-")
        if self._vendor.clock() * 1000 >= int(expires, 16):
            return _EXPIRED
        job = self._vendor.book.jobs.get(task_id)
        index = name.removesuffix(".png")
        if job is None or not index.isdecimal() or int(index) >= job.images:
            return _NOT_FOUND
        return job, int(index)

    def _now(self) -> tuple[bytes, bytes]:
        return self._date.at(self._vendor.wall_clock())

    async def _break(self, fault: str, parts: tuple[bytes, ...], scope: Scope, receive: Receive, send: Send) -> None:
        self._vendor.chance.happened[fault] += 1
        if fault == "download_reset":
            await wire.reset(scope, receive)
        elif fault == "download_503":
            await wire.send_answer(send, proxy_page(503, "Service Temporarily Unavailable"), self._now())
        else:
            half = sum(len(part) for part in parts) // 2
            await wire.send_parts(send, parts, self._now(), only_bytes=half)
            await (wire.cut(scope, receive) if fault == "cut_download" else wire.hang(receive))
