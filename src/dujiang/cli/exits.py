"""Exit codes (part of the contract), and how an error becomes one clear message."""

import asyncio
import os
import sys
import traceback
from enum import IntEnum
from typing import Final

from dujiang.domain.errors import DujiangError, StoreError
from dujiang.messages import text


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    UNEXPECTED = 1
    INPUT = 2
    SOME_FAILED = 3
    CREDENTIALS = 4
    BUDGET = 5
    UNREACHABLE = 6
    INTERRUPTED = 7
    DECISION = 8
    NO_TASKS = 9


class Refused(DujiangError):
    """A command that can't be carried out as given: the text of `text_code`, and the exit code."""

    def __init__(self, text_code: str, exit_code: Exit = Exit.INPUT, **fields: object) -> None:
        super().__init__(text_code)
        self.text_code = text_code
        self.exit_code = exit_code
        self.fields = fields


_BY_CODE: Final = {"no_credentials": Exit.CREDENTIALS, "disk": Exit.UNEXPECTED, "error": Exit.INPUT}


def say(message: str) -> None:
    """A line for a person, on stderr: stdout is for data."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def exit_code_of(error: BaseException) -> int:
    """Print what went wrong, once and clearly; the exit code."""
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        say(text("interrupted"))
        return Exit.INTERRUPTED
    if os.environ.get("DUJIANG_DEBUG"):
        traceback.print_exception(error)
    if not isinstance(error, DujiangError):
        say(text("unexpected", kind=type(error).__name__, message=str(error)[:500]))
        return Exit.UNEXPECTED
    say(f"{text('error')}: {describe(error)}")
    if isinstance(error, Refused):
        return error.exit_code
    if isinstance(error, StoreError):
        return Exit.UNEXPECTED if error.why == "full" else Exit.INPUT
    return _BY_CODE.get(error.code, Exit.INPUT)


def describe(error: DujiangError) -> str:
    """The error in words."""
    fields = getattr(error, "fields", {})
    if code := getattr(error, "text_code", None):
        return text(code, **fields)
    if hasattr(error, "why") and error.code == "error":  # DatabaseRefused: `why` is its text's code
        return text(error.why, **fields)
    if problems := getattr(error, "problems", None):
        return text(error.code) + "".join(f"\n  {name}: {reason}" for name, reason in problems)
    return error.message or text(error.code)
