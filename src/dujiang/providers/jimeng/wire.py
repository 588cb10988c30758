"""The wire of the Visual API: what is asked, and what an answer says.

Three shapes of answers exist:
- business: `{"code": 10000, "data": {…}, "message": "Success", "request_id": "…"}`
- gateway: `{"ResponseMetadata": {"RequestId": "…", "Error": {"Code": "AccessDenied", "CodeN": 100013, "Message": …}}}`
- the gateway's with a business number as text in `Error.Code`.
Nothing in an answer is trusted: whatever isn't of the type that belongs there counts as absent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dujiang.domain.requests import Value

VERSION: Final = "2022-08-31"
SUBMIT: Final = f"Action=CVSync2AsyncSubmitTask&Version={VERSION}"
LOOK: Final = f"Action=CVSync2AsyncGetResult&Version={VERSION}"
CANCEL: Final = "Action=CVCancelTask&Version=2024-06-06"

SUCCESS: Final = 10000
LONGEST_ID: Final = 200  # real ids have 20 to 40 characters; what is longer is no id
DIGITS: Final = 9  # of a code; the longest have six


# -- What is asked ----------------------------------------------------------------------------------------------------


def submit_body(req_key: str, prompt: str, parameters: Mapping[str, Value], references: Sequence[str]) -> bytes:
    """Ask for pictures. `references`: public links, or `data:` URIs. UnicodeEncodeError if the text is no Unicode."""
    links = [one for one in references if not one.startswith("data:")]
    inline = [one.partition(",")[2] for one in references if one.startswith("data:")]
    pictures = {name: found for name, found in (("image_urls", links), ("binary_data_base64", inline)) if found}
    return _body({"req_key": req_key, "prompt": prompt, **parameters, **pictures})


def look_body(req_key: str, job_id: str) -> bytes:
    """Ask how a job is doing. `req_json` is text that holds JSON; without it pictures come back as base64."""
    return _body({"req_key": req_key, "task_id": job_id, "req_json": '{"return_url":true}'})


def cancel_body(req_key: str, job_id: str) -> bytes:
    """Ask to drop a job."""
    return _body({"req_key": req_key, "task_id": job_id})


def _body(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


# -- What an answer says ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the API, whatever its shape."""

    http: int
    """The HTTP status."""
    code: int | None
    """The vendor's number; None if only a name was given."""
    name: str = ""
    """The gateway's word for an error (`AccessDenied`); empty in the business shape."""
    message: str = ""
    request_id: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    """`data` of the business shape; empty in the others."""
    from_gateway: bool = False

    @property
    def succeeded(self) -> bool:
        """The call itself was accepted; how a job is doing stands in `data`."""
        return self.code == SUCCESS and not self.from_gateway


def read_answer(http: int, body: bytes) -> Answer | None:
    """The answer in `body`, or None if this isn't one of the three shapes (HTML, cut, garbage, a redirect, …)."""
    if 300 <= http < 400:
        return None  # somebody in between wants us elsewhere; the API never does
    try:
        root = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(root, dict):
        return None
    metadata = _mapping(root.get("ResponseMetadata"))
    error = _mapping(metadata.get("Error"))
    if error:
        return _gateway_answer(http, metadata, error)
    code = _number(root.get("code"))
    if code is None:
        return None
    return Answer(
        http,
        code,
        message=_text(root.get("message")),
        request_id=_word(root.get("request_id")) or None,
        data=_mapping(root.get("data")),
    )


def _gateway_answer(http: int, metadata: Mapping[str, object], error: Mapping[str, object]) -> Answer:
    business = _number(error.get("Code"))  # the third shape: the text is the number, and CodeN may be anything
    return Answer(
        http,
        _number(error.get("CodeN")) if business is None else business,
        name="" if business is not None else _word(error.get("Code")),
        message=_text(error.get("Message")),
        request_id=_word(metadata.get("RequestId")) or None,
        from_gateway=True,
    )


def job_id_in(answer: Answer) -> str | None:
    """The `task_id` of an accepted submit, if it can be polled with. JSON numbers are exact here, so they do too."""
    given = answer.data.get("task_id")
    job_id = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    return _word(job_id) or None


def status_in(answer: Answer) -> str:
    """`data.status` as a lower-case word; empty if there is none."""
    word = _text(answer.data.get("status"))[:LONGEST_ID].strip().lower()
    return word if word.isprintable() else repr(word)  # a word that we don't know is shown


def pictures_in(answer: Answer) -> tuple[str, ...]:
    """Where the pictures of a finished job are, in their order: links, or `data:` URLs if they came inside."""
    links = [link for link in _texts(answer.data.get("image_urls")) if link.startswith(("http://", "https://"))]
    return tuple(links) or tuple(_data_url(picture) for picture in _texts(answer.data.get("binary_data_base64")))


_MAGIC: Final = (("/9j/", "image/jpeg"), ("UklGR", "image/webp"))  # their first bytes, as base64


def _data_url(base64_text: str) -> str:
    kind = next((kind for magic, kind in _MAGIC if base64_text.startswith(magic)), "image/png")
    return f"data:{kind};base64,{base64_text}"


# -- Values that may be anything --------------------------------------------------------------------------------------


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, list) else []


def _word(value: object) -> str:
    text = _text(value).strip()
    return text if text.isascii() and text.isprintable() and " " not in text and len(text) <= LONGEST_ID else ""


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= DIGITS:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**DIGITS:
        return value
    return None
