"""`python -m dujiang.simulator`: one line with the URL on stdout, then it serves until SIGINT or SIGTERM."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .server import serve
from .settings import SimulatorSettings

_FLAGS: Final[Sequence[tuple[str, type, str]]] = (
    ("port", int, "0 picks a free one (default)"),
    ("limit", int, "jobs at once in each pool"),
    ("submit-qps", float, "submits a second and account"),
    ("poll-qps", float, "polls a second and account"),
    ("time-scale", float, "factor on all durations"),
    ("run-median-s", float, "half of the jobs are done within this"),
    ("run-fixed-s", float, "every job takes exactly so long"),
    ("queue-s", float, "time before a job generates"),
    ("picture-bytes", int, "size of the pictures"),
    ("competitor-slots", int, "slots that others hold"),
    ("upload-s", float, "how long an upload to the image host takes"),
    ("seed", int, "of run times and faults"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulator. 0: stopped by a signal; 2: something can't be used."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        asyncio.run(_serve_until_signal(settings))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dujiang.simulator", description="A local Jimeng and Superbed over HTTP."
    )
    parser.add_argument("--config", type=Path, help="JSON object of settings; flags win over it")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--instant", action="store_true", default=None, help="a job is done when it is accepted")
    parser.add_argument("--account", action="append", metavar="AK:SECRET[:NAME]", help="a key; may be repeated")
    parser.add_argument(
        "--host-token", action="append", metavar="TOKEN[:NAME]", help="of the image host; may be repeated"
    )
    parser.add_argument("--host-down", action="store_true", default=None, help="the image host takes nothing: 503")
    parser.add_argument("--fault", action="append", metavar="NAME=PROBABILITY", help="may be repeated")
    for name, kind, meaning in _FLAGS:
        parser.add_argument(f"--{name}", type=kind, help=meaning)
    return parser


def _settings(options: argparse.Namespace) -> SimulatorSettings:
    partial: dict[str, Any] = json.loads(options.config.read_text("utf-8")) if options.config else {}
    if not isinstance(partial, dict):
        raise ValueError(f"{options.config} holds no JSON object")
    for name in (*(flag.replace("-", "_") for flag, _, _ in _FLAGS), "host", "instant", "host_down"):
        if getattr(options, name) is not None:
            partial[name] = getattr(options, name)
    if options.account:
        partial["accounts"] = dict(_account(text) for text in options.account)
    if options.host_token:
        partial["host_tokens"] = dict(_host_token(text, n) for n, text in enumerate(options.host_token, start=1))
    for text in options.fault or ():
        name, _, odds = text.partition("=")
        partial["faults"] = {**partial.get("faults", {}), name: float(odds)}
    return SimulatorSettings(any_host=options.host is not None).changed(partial)


def _account(text: str) -> tuple[str, list[str]]:
    key, _, rest = text.partition(":")
    secret, _, name = rest.partition(":")
    if not key or not secret:
        raise ValueError(f"--account {text}: AK:SECRET or AK:SECRET:NAME is needed")
    return key, [secret, name or key]


def _host_token(text: str, number: int) -> tuple[str, str]:
    token, _, name = text.partition(":")
    if not token:
        raise ValueError(f"--host-token {text}: TOKEN or TOKEN:NAME is needed")
    return token, name or f"host-{number}"  # a token is a secret, an access key isn't


async def _serve_until_signal(settings: SimulatorSettings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # add_signal_handler doesn't exist on Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    await serve(settings, ready=_say, until=stop)


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
