"""Forms as HTTP clients send them: multipart/form-data and urlencoded, read into memory.

Only the heads of parts go through the standard library's e-mail parser. It takes contents for lines of text, and a
picture has none: contents stay the very bytes between two marks.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from email.utils import collapse_rfc2231_value
from typing import Final
from urllib.parse import parse_qsl

_MOST_FIELDS: Final = 100
_MOST_HEAD_BYTES: Final = 8 * 1024
_LONGEST_BOUNDARY: Final = 70  # RFC 2046
_AFTER_MARK: Final = re.compile(rb"(--)?[ \t]*(?=\r\n|\Z)")  # two dashes: the last one


class BadForm(Exception):
    """The body isn't the form that its content type promises."""


@dataclass(frozen=True, slots=True)
class File:
    """One part with a file name, whatever the field is called."""

    field: str
    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What a body says; a field may come more than once."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Sequence[File] = ()

    def text(self, name: str) -> str:
        """The field's first value; empty if it is missing."""
        return next(iter(self.values.get(name, ())), "")


def form_in(content_type: str, body: bytes) -> Form:
    """The form in a body. Empty if the content type is none of a form; BadForm if it lies."""
    head = Message()
    head["content-type"] = content_type
    match head.get_content_type():
        case "multipart/form-data":
            return _multipart(body, _boundary(head))
        case "application/x-www-form-urlencoded":
            return values_in(body.decode("utf-8", "replace"))
        case _:
            return Form()


def values_in(text: str) -> Form:
    """An urlencoded form, which is also what a query is."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise BadForm(str(error)) from error
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return Form(values)


def _boundary(head: Message) -> bytes:
    boundary = head.get_boundary("")
    if not boundary.isascii() or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise BadForm("no usable boundary")
    return boundary.encode()


def _multipart(body: bytes, boundary: bytes) -> Form:
    values: dict[str, list[str]] = {}
    files: list[File] = []
    for count, (start, end) in enumerate(_parts(body, b"--" + boundary)):
        if count == _MOST_FIELDS:
            raise BadForm("too many parts")
        name, file_name, content = _part(body, start, end)
        if file_name:
            files.append(File(name, file_name, content))
        else:
            values.setdefault(name, []).append(content.decode("utf-8", "replace"))
    return Form(values, files)


def _parts(body: bytes, mark: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins, with the line break before its head, and where it ends."""
    start, last = -1, False
    at = 0
    while not last:
        at = body.find(mark, at)
        if at < 0:
            raise BadForm("the closing boundary is missing")
        after = _AFTER_MARK.match(body, at + len(mark))
        if after is None or not (at == 0 or body[at - 2 : at] == b"\r\n"):
            at += 1  # looks like the mark and belongs to the content
            continue
        if start >= 0:
            yield start, at - 2
        start, last = after.end(), bool(after[1])
        at = start


def _part(body: bytes, start: int, end: int) -> tuple[str, str, bytes]:
    """Field, file name (empty: it is a text) and content."""
    empty_line = body.find(b"\r\n\r\n", start, min(end, start + _MOST_HEAD_BYTES))
    if empty_line < 0:
        raise BadForm("a part without a head, or with too long a one")
    head = HeaderParser().parsestr(body[start:empty_line].decode("utf-8", "replace").removeprefix("\r\n"))
    name = _parameter(head, "name")
    if head.get_content_disposition() != "form-data" or not name:
        raise BadForm("a part without a name")
    return name, _parameter(head, "filename"), body[empty_line + 4 : end]


def _parameter(head: Message, name: str) -> str:
    return collapse_rfc2231_value(head.get_param(name, "", header="content-disposition"))
