"""`/_sim/…` and `/healthz`: what a test or a benchmark may ask and change. Unsigned; the real ones have none of it."""

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .host import Host
from .images import Images
from .jobs import DONE, Job
from .vendor import Vendor


def ledger_of(vendor: Vendor, host: Host, *, since: int = 0, rows: bool = True) -> dict[str, Any]:
    """Everything that was submitted, uploaded, refused, charged and broken; `since` skips the first charges."""
    now = vendor.now()
    book = vendor.book
    jobs = list(book.jobs.values())
    charges = [job.row(vendor.epoch, now) for job in jobs[since:]] if rows else []
    return {
        "charges": charges,
        "accepted": len(jobs),
        "charged": sum(job.charged for job in jobs),
        "images": sum(job.images for job in jobs if job.charged),
        "submits": vendor.requests["submit"],
        "polls": vendor.requests["poll"],
        "downloads": vendor.requests["download"],
        "uploads": vendor.requests["upload"],
        "stored": len(host.items),
        "refused": vendor.refused_of("submit"),
        "polls_refused": vendor.refused_of("poll"),
        "uploads_refused": vendor.refused_of("upload"),
        "faults": dict(vendor.chance.happened),
        "running": {"/".join(pool): count for pool, count in book.running.items() if count},
        "max_running": {"/".join(pool): count for pool, count in book.most_running.items()},
        "max_running_overall": book.most_running_overall,
        "most_uploads_at_once": host.most_uploads_at_once,
        "items": [item.row(vendor.epoch) for item in host.items.values()] if rows else [],
        "now": now + vendor.epoch,
    }


def begin_anew(vendor: Vendor, host: Host) -> None:
    """As after the start."""
    vendor.reset()
    host.reset()


class Control:
    """The routes of the control surface."""

    def __init__(self, vendor: Vendor, images: Images, host: Host) -> None:
        self._vendor = vendor
        self._images = images
        self._host = host
        self.app = Starlette(
            routes=[
                Route("/healthz", self._health, methods=["GET"]),
                Route("/_sim/ledger", self._ledger, methods=["GET"]),
                Route("/_sim/config", self._show_config, methods=["GET"]),
                Route("/_sim/config", self._change_config, methods=["POST"]),
                Route("/_sim/faults/next", self._plan_faults, methods=["POST"]),
                Route("/_sim/reset", self._reset, methods=["POST"]),
                Route("/_sim/jobs/{task_id}", self._job, methods=["GET"]),
                Route("/_sim/jobs/{task_id}/end", self._end_of_job, methods=["GET"]),
                Route("/_sim/jobs/{task_id}/finish", self._finish_job, methods=["POST"]),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def _ledger(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        rows = request.query_params.get("rows", "1") != "0"
        first = int(since) if since.isdecimal() else 0
        return JSONResponse(ledger_of(self._vendor, self._host, since=first, rows=rows))

    async def _show_config(self, _: Request) -> Response:
        return JSONResponse(self._vendor.settings.as_json())

    async def _change_config(self, request: Request) -> Response:
        try:
            self._vendor.change(await _json_object(request))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return await self._show_config(request)

    async def _plan_faults(self, request: Request) -> Response:
        try:
            for kind, names in (await _json_object(request)).items():
                self._vendor.chance.plan_faults(kind, names)
        except (ValueError, TypeError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({kind: list(names) for kind, names in self._vendor.chance.next_faults.items()})

    async def _reset(self, _: Request) -> Response:
        begin_anew(self._vendor, self._host)
        return JSONResponse({})

    async def _job(self, request: Request) -> Response:
        job = self._found(request)
        return _NO_SUCH_JOB if job is None else JSONResponse(job.row(self._vendor.epoch, self._vendor.now()))

    async def _finish_job(self, request: Request) -> Response:
        job = self._found(request)
        if job is None:
            return _NO_SUCH_JOB
        if not job.ended:
            self._vendor.book.end_now(job, self._vendor.clock())
        return await self._job(request)

    async def _end_of_job(self, request: Request) -> Response:
        """Answers at the moment the job ends: for a client that shall lose no time to polling."""
        job = self._found(request)
        if job is None:
            return _NO_SUCH_JOB
        await self._vendor.ended(job)
        if self._found(request) is not job:
            return _NO_SUCH_JOB
        urls = self._images.urls(job, request.headers.get("host", "")) if job.outcome == DONE else []
        return JSONResponse({**job.row(self._vendor.epoch, self._vendor.clock()), "image_urls": urls})

    def _found(self, request: Request) -> Job | None:
        self._vendor.now()
        return self._vendor.book.jobs.get(request.path_params["task_id"])


_NO_SUCH_JOB = JSONResponse({"error": "no such job"}, status_code=404)


async def _json_object(request: Request) -> dict[str, Any]:
    body = json.loads(await request.body())
    if not isinstance(body, dict):
        raise ValueError("a JSON object is needed")
    return body
