"""The log: one event, one line, for people or for programs.

An event has a stable name and fields; its text, in either language, is the catalogue's entry `log_NAME`, filled in
with them. Markers (`[并发控制]`, `[即梦API]`, `[Superbed]`) are the same in every language: `grep` goes on working.

What must not be told is taken out here, once, for every line: prompts are shown as a hash unless the user wants them,
every known secret is replaced, and links lose what stands behind their `?`.
"""

import hashlib
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import Collection, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from concurrent_log_handler import ConcurrentRotatingFileHandler

from dujiang.messages import text

FLOW: Final = "并发控制"
LOGGER: Final = "dujiang"
FILE_BYTES: Final = 20 * 1024 * 1024
FILES_KEPT: Final = 5
TELLING: Final = 4  # characters; a shorter "secret" stands in any text by chance

DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING

LEVELS: Final[dict[str, int]] = {
    "batch_started": INFO,
    "limit_reached": INFO,
    "limit_changed": INFO,
    "task_ended": INFO,
    "only_rest_left": INFO,
    "batch_ended": INFO,
    "batch_held": WARNING,
    "batch_stopped": WARNING,
    "lease_lost": WARNING,
    "tasks_adopted": INFO,
    "woke_up": WARNING,
    "submit_sent": INFO,
    "submit_accepted": INFO,
    "submit_refused": INFO,
    "submit_unanswered": WARNING,
    "submit_too_late": WARNING,
    "task_too_late": INFO,
    "link_refused": WARNING,
    "output_refused": WARNING,
    "job_done": INFO,
    "job_looked_at": DEBUG,
    "look_again": WARNING,
    "urls_gone": WARNING,
    "image_saved": INFO,
    "download_again": WARNING,
    "task_failed": WARNING,
    "task_moved": DEBUG,
    "lane_rests": INFO,
    "account_slowed": INFO,
    "endpoint_again": WARNING,
    "endpoint_rests": WARNING,
    "account_rests": WARNING,
    "disk_rests": WARNING,
    "host_rests": WARNING,
    "upload_sent": INFO,
    "upload_done": INFO,
    "upload_again": WARNING,
    "upload_given_up": WARNING,
    "upload_refused": WARNING,
    "upload_account": WARNING,
    "link_gone": WARNING,
}
"""Every event that can be told, and how much it matters."""

Event = MutableMapping[str, Any]

_QUERY: Final = re.compile(r"(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]+")
_LOGIN: Final = re.compile(r"(\w+://)[^\s/@\"'<>]+@")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where lines go, and what may stand in them."""

    file: Path | None
    """None: no file."""
    level: str = "info"
    as_json: bool = False
    prompts: bool = False
    secrets: Collection[str] = ()
    """Whatever must never be told."""


class StructuredLog:
    """The `ports.Log` of a program."""

    def __init__(self, logger: logging.Logger, settings: LogSettings) -> None:
        self._logger = logger
        self._log = structlog.wrap_logger(
            logger,
            processors=[
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=False, key="at"),
                _Discreet(settings.secrets, prompts=settings.prompts),
                _machine if settings.as_json else _human,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def tell(self, name: str, **fields: object) -> None:
        """See `ports.Log`."""
        level = LEVELS[name]
        if self._logger.isEnabledFor(level):
            marker = fields.pop("label", None) or FLOW
            getattr(self._log, logging.getLevelName(level).lower())(name, marker=marker, **fields)


class _Discreet:
    """Takes out what must not be told."""

    def __init__(self, secrets: Collection[str], *, prompts: bool) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= TELLING}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None
        self._prompts = prompts

    def __call__(self, _: object, __: str, event: Event) -> Event:
        """One event, ready to be told."""
        if not self._prompts and isinstance(prompt := event.get("prompt"), str):
            event["prompt"] = f"#{hashlib.sha256(prompt.encode(errors='replace')).hexdigest()[:12]}"
        for name, value in event.items():
            if isinstance(value, str) and name != "at":
                event[name] = self.untold(value)
        return event

    def untold(self, words: str) -> str:
        """`words` without secrets, log-ins and what stands behind a link's question mark."""
        if self._secrets is not None:
            words = self._secrets.sub("***", words)
        if "://" in words:
            words = _LOGIN.sub(r"\1***@", _QUERY.sub(r"\1?…", words))
        return words


# -- How lines look ---------------------------------------------------------------------------------------------------
# Made here, in the task that speaks, once for every place they go to: a thread of its own would not know the language.


def _human(_: object, __: str, event: Event) -> str:
    at = str(event["at"])[:19].replace("T", " ")
    flat = " ".join(text(f"log_{event['event']}", **event).splitlines())
    return f"{at} {str(event['level']).upper():7} [{event['marker']}] {flat}"


def _machine(logger: Any, method: str, event: Event) -> str:
    line = structlog.processors.JSONRenderer(ensure_ascii=False)(logger, method, event)
    return line if isinstance(line, str) else line.decode()


# -- Where lines go ---------------------------------------------------------------------------------------------------


class _Queue(logging.handlers.QueueHandler):
    """Hands records to a thread as they are: a disk that is slow keeps nobody waiting."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Nothing is made of it here."""
        return record


class _Stderr(logging.StreamHandler[TextIO]):
    """Wherever stderr is at the moment: a living line puts something else there while it is shown."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Asked for with each line."""
        return sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Whoever read stderr is gone: the work goes on."""


class _File(ConcurrentRotatingFileHandler):
    """Rotates, and may be written by several programs at once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """A disk that is full costs lines, not pictures."""


@contextmanager
def logging_to(settings: LogSettings) -> Iterator[StructuredLog]:
    """A log for as long as the block lasts; every line is written when it ends."""
    logger = logging.getLogger(LOGGER)
    handlers: list[logging.Handler] = [_Stderr()]
    if settings.file is not None and (file := _file(settings.file)) is not None:
        handlers.append(file)
    line: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    entry = _Queue(line)
    listener = logging.handlers.QueueListener(line, *handlers)
    before, logger.propagate, level = logger.propagate, False, logger.level
    logger.setLevel(settings.level.upper())
    logger.addHandler(entry)
    listener.start()
    try:
        yield StructuredLog(logger, settings)
    finally:
        listener.stop()
        logger.removeHandler(entry)
        logger.propagate = before
        logger.setLevel(level)
        for handler in handlers:
            handler.close()


def _file(path: Path) -> _File | None:
    """The file, or nothing if it can't be written: stderr still tells."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _File(str(path), maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    except OSError:
        return None
