"""Keeps the machine awake while a run works: asleep, it would collect nothing until somebody opens it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from dujiang.cli.exits import say
from dujiang.messages import text

FALL_ASLEEP: Final = frozenset({"win32", "darwin"})
"""Where the library is installed. On Linux, servers don't sleep, and desktops have their own way to say so."""


@contextmanager
def awake(allow_sleep: bool, platform: str = sys.platform) -> Iterator[None]:
    """No sleep inside the block. Whatever keeps that from working costs one line, never the run."""
    mode = _begun() if platform in FALL_ASLEEP and not allow_sleep else None
    try:
        yield
    finally:
        if mode is not None:
            with suppress(Exception):
                mode.__exit__(None, None, None)


def _begun() -> Any:
    """What is to be ended, or None."""
    try:
        from wakepy import keep

        mode = keep.running(on_fail="error")
        mode.__enter__()
    except Exception as error:  # noqa: BLE001 - a run does not depend on it
        say(text("awake_failed", reason=type(error).__name__))
        return None
    return mode
