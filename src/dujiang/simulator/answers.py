"""The three shapes of an answer: the business one, the gateway's, and the gateway's with a business code's number."""

import json
from dataclasses import dataclass
from typing import Any, Final

from .codes import SUCCESS, Refused
from .signature import REGION, SERVICE

JSON: Final = b"application/json; charset=utf-8"
HTML: Final = b"text/html"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, complete."""

    status: int
    body: bytes
    content_type: bytes = JSON
    location: bytes | None = None  # of a redirect


@dataclass(frozen=True, slots=True)
class Question:
    """What every answer repeats of the request."""

    action: str
    version: str
    request_id: str
    asked_at: float


def success(question: Question, data: dict[str, Any] | None, now: float) -> Answer:
    """10000, in the business shape."""
    return Answer(200, _business(question, SUCCESS, "Success", data, now))


def refusal(question: Question, refused: Refused, now: float) -> Answer:
    """A code, in the shape that it asks for."""
    code = refused.code
    if refused.gateway_shaped:
        return Answer(code.http, _gateway(question, code.name or str(code.number), code.number, refused.message))
    return Answer(code.http, _business(question, code.number, refused.message, None, now))


def _business(question: Question, code: int, message: str, data: dict[str, Any] | None, now: float) -> bytes:
    body = {
        "code": code,
        "data": data,
        "message": message,
        "request_id": question.request_id,
        "status": code,
        "time_elapsed": f"{(now - question.asked_at) * 1000:.6f}ms",
    }
    return json.dumps(body, ensure_ascii=False).encode()


def _gateway(question: Question, code: str, number: int, message: str) -> bytes:
    metadata = {
        "RequestId": question.request_id,
        "Action": question.action,
        "Version": question.version,
        "Service": SERVICE,
        "Region": REGION,
        "Error": {"Code": code, "CodeN": number, "Message": message},
    }
    return json.dumps({"ResponseMetadata": metadata}, ensure_ascii=False).encode()


def proxy_page(status: int, words: str) -> Answer:
    """What a proxy in front of everything says: HTML, and nothing that can be parsed."""
    page = f"<html>\r\n<head><title>{status} {words}</title></head>\r\n<body>{status} {words}</body>\r\n</html>\r\n"
    return Answer(status, page.encode(), HTML)


def garbage(answer: Answer) -> Answer:
    """An answer that came to harm on its way: HTTP says all is well, the body can't be read."""
    return Answer(200, b"\x00\x1f\x8b" + answer.body[: len(answer.body) // 2])
