"""Exit codes (part of the contract), and how an error becomes one clear message."""

import os
import sys
from enum import IntEnum
from typing import Final

from typer.exceptions import TyperException

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


_BY_CODE: Final = dict.fromkeys(("no_credentials", "no_host_token", "keyring"), Exit.CREDENTIALS)


def say(message: str) -> None:
    """A line for a person, on stderr: stdout is for data."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def exit_code_of(error: BaseException) -> int:
    """Print what went wrong, once and clearly; the exit code."""
    if isinstance(error, KeyboardInterrupt):
        say(text("interrupted"))
        return Exit.INTERRUPTED
    if os.environ.get("DUJIANG_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, TyperException):
        from dujiang.cli import usage

        return usage.tell(error)
    if not isinstance(error, DujiangError):
        say(text("unexpected", kind=type(error).__name__, message=str(error)[:500]))
        return Exit.UNEXPECTED
    say(f"{text('error')}: {describe(error)}")
    if isinstance(error, Refused):
        return error.exit_code
    if _tells_of_a_full_disk(error):
        return Exit.UNEXPECTED
    return _BY_CODE.get(error.code, Exit.INPUT)


def _tells_of_a_full_disk(error: DujiangError) -> bool:
    """A disk can be too full even for opening the database on it."""
    if isinstance(error, StoreError):
        return error.why == "full"
    reason = str(getattr(error, "fields", {}).get("reason", "")).lower()
    return " full" in reason or "no space" in reason


def describe(error: DujiangError) -> str:
    """The error in words."""
    fields = getattr(error, "fields", {})
    if code := getattr(error, "text_code", None):
        return text(code, **fields)
    if hasattr(error, "why") and error.code == "error":  # DatabaseRefused: `why` is its text's code
        if _tells_of_a_full_disk(error):
            return text("disk_full", path=fields["path"], value=fields["reason"])
        return text(error.why, **fields)
    if problems := getattr(error, "problems", None):
        return text(error.code) + "".join(f"\n  {name}: {reason}" for name, reason in problems)
    return error.message or text(error.code)
