"""The command line: a door. It parses, calls the runner and shows.

Modules are imported by the command that needs them, so that help and version stay fast.
"""

import sys


def main() -> None:
    """Entry point of the command `dujiang`."""
    from dujiang.cli.app import app
    from dujiang.cli.exits import exit_code_of

    _readable_output()
    try:
        app(prog_name="dujiang", standalone_mode=True)
    except Exception as error:  # noqa: BLE001 - the last place where an error can become one clear message
        sys.exit(exit_code_of(error))


def _readable_output() -> None:
    """Chinese must not crash on a console that can't show it (Windows code pages, LANG=C)."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:
            continue
        if (getattr(stream, "encoding", "") or "").lower().replace("-", "") in {"ascii", "ansi_x3.41968", "latin1"}:
            reconfigure(encoding="utf-8")
        reconfigure(errors="replace")
