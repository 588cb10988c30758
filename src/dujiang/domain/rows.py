"""Rows of an input as they were read, before anybody knows what they mean, and what can be wrong with a whole input."""

from collections.abc import Mapping
from dataclasses import dataclass

from dujiang.domain.errors import DujiangError
from dujiang.domain.requests import Problem


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row: column -> cell. Cells of a spreadsheet are text, those of JSON are whatever JSON has."""

    number: int
    """As the user sees it: the row in Excel (the header is row 1), or the line of a text file."""
    values: Mapping[str, object]
    problems: tuple[Problem, ...] = ()
    """What is wrong with its form; such a row becomes no task."""


class InputError(DujiangError):
    """The input as a whole can't be read. `text_code` and `fields` name the text that says why and what to do."""

    code = "input"

    def __init__(self, text_code: str, **fields: object) -> None:
        super().__init__(" ".join([text_code, *(f"{name}={value}" for name, value in fields.items())]))
        self.text_code = text_code
        self.fields = fields
