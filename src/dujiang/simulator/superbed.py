"""`POST /upload`, `POST /delete` and `/item/…`: the image host over HTTP, in the token API of Superbed."""

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from . import answers, wire
from .answers import Answer
from .forms import BadForm, Form, form_in, values_in
from .host import BAD_FORM, CONTENT_TYPES, NO_PICTURE, SEVERAL_PICTURES, TOO_LARGE, Host, HostRefusal, Item, Offer
from .host import offer_of as offer_of_source
from .vendor import Vendor

_BESIDE_THE_PICTURE: Final = 64 * 1024  # bytes of the other fields and of the heads
_MOST_DELETE_BYTES: Final = 1024 * 1024
_SAFE_IN_URLS: Final = "%/:?#[]@!$&'()*+,;=~"

_NOT_FOUND: Final = answers.proxy_page(404, "Not Found")
_WRONG_METHOD: Final = answers.proxy_page(405, "Not Allowed")
_DOWN: Final = answers.proxy_page(503, "Service Temporarily Unavailable")
_PAGES: Final = {
    "upload_503": _DOWN,
    "upload_429": answers.proxy_page(429, "Too Many Requests"),
    "upload_504": answers.proxy_page(504, "Gateway Time-out"),
}
_RESETS: Final = frozenset({"upload_reset", "upload_lost"})
_INSTEAD: Final = frozenset({"upload_reset", "upload_hang", *_PAGES})
"""These happen before the host has seen the picture; all others befall an answer of its own."""


class Superbed:
    """The ASGI application behind `/upload`, `/delete` and `/item/`."""

    def __init__(self, vendor: Vendor, host: Host) -> None:
        self._vendor = vendor
        self._host = host
        self._date = wire.DateHeader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or don't."""
        path = scope["path"]
        if path.startswith("/item/"):
            await self._serve_item(scope, send)
        elif scope["method"] != "POST":
            await self._send(send, _WRONG_METHOD)
        elif path == "/upload":
            await self._upload(scope, receive, send)
        else:
            await self._delete(scope, receive, send)

    async def _serve_item(self, scope: Scope, send: Send) -> None:
        item = self._host.found(scope["path"])
        if scope["method"] not in {"GET", "HEAD"}:
            await self._send(send, _WRONG_METHOD)
        elif item is None:
            await self._send(send, _NOT_FOUND)
        elif item.source:
            await self._send(send, _redirect(item.source))
        else:
            await wire.send_parts(send, (item.content,), self._now(), content_type=CONTENT_TYPES[item.kind])

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._vendor.requests["upload"] += 1
        if self._vendor.settings.host_down:
            await wire.skip_body(receive)
            await self._send(send, _DOWN)
            return
        fault = self._vendor.chance.fault("upload", self._vendor.settings)
        if fault in _INSTEAD:
            await self._break(fault, None, scope, receive, send)
            return
        try:
            body = await _body(receive, self._vendor.settings.host_max_bytes + _BESIDE_THE_PICTURE)
            if body is None:
                return  # it never arrived as a whole, so the host never saw it
            item = await self._stored(scope, body)
        except HostRefusal as refusal:
            self._vendor.refused["upload", refusal.err] += 1
            await self._send(send, _refusal(refusal))
            return
        answer = _success(item, _header(scope, b"host"))
        if fault:
            await self._break(fault, answer, scope, receive, send)
        else:
            await self._send(send, answer)

    async def _stored(self, scope: Scope, body: bytes) -> Item:
        form = _form(scope, body)
        account = self._host.uploader(_token(scope, form.text("token")))
        return await self._host.upload(account, _offer(form))

    async def _delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _body(receive, _MOST_DELETE_BYTES)
            if body is None:
                return
            values = _delete_values(scope, body)
            account = self._host.account(_token(scope, "".join(values["token"][:1])))
            count = self._host.delete(account, values["ids"], values["urls"])
        except HostRefusal as refusal:
            await self._send(send, _refusal(refusal))
        else:
            await self._send(send, _json({"err": 0, "msg": f"已删除 {count} 张图片"}))

    def _now(self) -> tuple[bytes, bytes]:
        return self._date.at(self._vendor.wall_clock())

    async def _send(self, send: Send, answer: Answer) -> None:
        await wire.send_answer(send, answer, self._now())

    async def _break(
        self, fault: str | None, answer: Answer | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        assert fault is not None
        self._vendor.chance.happened[fault] += 1
        if fault in _RESETS:
            await wire.reset(scope, receive)
        elif fault in _PAGES:
            await wire.skip_body(receive)
            await self._send(send, _PAGES[fault])
        elif answer:
            await self._send(send, answers.garbage(answer))
        else:
            await wire.hang(receive)


async def _body(receive: Receive, most_bytes: int) -> bytes | None:
    try:
        return await wire.read_body(receive, most_bytes)
    except wire.TooLong as error:
        raise HostRefusal(TOO_LARGE) from error


def _form(scope: Scope, body: bytes) -> Form:
    try:
        return form_in(_header(scope, b"content-type"), body)
    except BadForm as error:
        raise HostRefusal(BAD_FORM) from error


def _token(scope: Scope, of_form: str) -> str:
    """The form's token; the query's if it has none."""
    if of_form:
        return of_form
    try:
        return values_in(scope["query_string"].decode("latin-1")).text("token")
    except BadForm as error:
        raise HostRefusal(BAD_FORM) from error


def _offer(form: Form) -> Offer:
    """The one picture of a form."""
    source, title = form.text("src"), form.text("filename")
    if len(form.files) + bool(source) > 1:
        raise HostRefusal(SEVERAL_PICTURES)
    if source:
        return offer_of_source(source, title)
    pictures = [file for file in form.files if file.field == "file"]
    if not pictures:
        raise HostRefusal(NO_PICTURE)
    return Offer(pictures[0].name, title, content=pictures[0].content)


def _delete_values(scope: Scope, body: bytes) -> dict[str, list[str]]:
    """Clients send JSON as well as forms, and lists as well as texts with commas."""
    try:
        is_json = _header(scope, b"content-type").lower().startswith("application/json")
        found = json.loads(body) if is_json else _form(scope, body).values
        return {name: _texts(found.get(name) or ()) for name in ("token", "ids", "urls")}
    except (ValueError, AttributeError, TypeError) as error:
        raise HostRefusal(BAD_FORM) from error


def _texts(value: str | Iterable[str]) -> list[str]:
    several = [value] if isinstance(value, str) else value
    return [text.strip() for each in several for text in each.split(",") if text.strip()]


def _success(item: Item, host: str) -> Answer:
    url = f"http://{host}{item.path}"
    return _json({"err": 0, "msg": "上传成功", "url": url, "id": item.item_id, "name": item.name, "size": item.size})


def _refusal(refusal: HostRefusal) -> Answer:
    return _json({"err": refusal.err, "msg": refusal.message})


def _json(body: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(body, ensure_ascii=False).encode())


def _redirect(url: str) -> Answer:
    page = answers.proxy_page(302, "Found")
    return Answer(302, page.body, page.content_type, location=quote(url, safe=_SAFE_IN_URLS).encode())


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
