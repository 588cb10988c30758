"""The command line: a door. It parses, calls the runner and shows.

Modules are imported by the command that needs them, so that help and version stay fast.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

KILLED_BY_CTRL_C: Final = 130  # what Typer makes of a KeyboardInterrupt


def main() -> None:
    """Entry point of the command `dujiang`."""
    _readable_output()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, wherever nobody listens more closely
    try:
        code = command(sys.argv[1:])
    except KeyboardInterrupt:  # before the command began, or after it ended
        code = _interrupted()
    sys.exit(_flushed(code))


def _interrupted() -> int:
    from dujiang.cli.exits import exit_code_of

    return exit_code_of(KeyboardInterrupt())


def command(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Whatever goes wrong becomes one clear message."""
    from dujiang.cli.exits import Exit, exit_code_of

    _choose_language(arguments)
    from dujiang.cli.app import app  # its help is written in the language in force

    try:
        code = app(args=list(arguments), prog_name="dujiang", standalone_mode=False) or 0
    except Exception as error:  # noqa: BLE001 - the last place where an error can become one clear message
        return exit_code_of(error)
    if code == KILLED_BY_CTRL_C:
        return _interrupted()
    return int(code) if isinstance(code, int) else Exit.OK


def _choose_language(arguments: Sequence[str]) -> None:
    """Help and usage errors are in the language of `--lang`, too: they are made before the flag is parsed."""
    from dujiang.messages import Language, use_language

    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        wanted = following if word == "--lang" else word.removeprefix("--lang=")
        if word.startswith("--lang") and wanted in set(Language):
            use_language(Language(wanted))
            return


def _readable_output() -> None:
    """Chinese must not crash on a console that can't show it (Windows code pages, LANG=C)."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:
            continue
        if (getattr(stream, "encoding", "") or "").lower().replace("-", "") in {"ascii", "ansi_x3.41968", "latin1"}:
            reconfigure(encoding="utf-8")
        reconfigure(errors="replace")


def _flushed(code: int) -> int:
    """What is still on its way is written now: whoever read it may be gone (`dujiang tasks list | head`)."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
