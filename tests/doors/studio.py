"""A studio: one user with a home, a folder and a vendor, who types commands and reads what is said.

`run` calls the command in this process, which is fast; `start` makes a real process, for whatever needs signals,
terminals or a kill. Both see the same environment, in which nothing of the developer's is left.
"""

import contextvars
import json
import os
import queue
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, Final

import pytest

from dujiang.cli import command
from dujiang.simulator import RunningSimulator

SCALE: Final = 0.01
PATIENCE_S: Final = 20.0
ACCESS_KEY: Final = "AKLTsimulator"
SECRET_KEY: Final = "c2ltdWxhdG9y"
needs_signals: Final = pytest.mark.skipif(
    sys.platform == "win32", reason="programs are asked to end by SIGINT and SIGTERM, which Windows doesn't send"
)
FOREIGN: Final = re.compile(
    r"DUJIANG_|VOLCENGINE_|SUPERBED_|ARK_|(HTTP|HTTPS|ALL|NO)_PROXY$|LC_|LANG|COLUMNS$|LINES$|TERM$|NO_COLOR$", re.I
)
"""What the developer may have set and no test may see."""


class Stuck(AssertionError):
    """A process neither did what it should nor ended."""


@dataclass(frozen=True)
class Told:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def everything(self) -> str:
        """Both streams."""
        return self.out + self.err


@dataclass
class Studio:
    """Where commands are typed."""

    folder: Path
    environment: dict[str, str]
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    processes: list["Typed"] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def out(self) -> Path:
        return self.folder / "dujiang-out"

    def use(self, vendor: RunningSimulator | str, **settings: object) -> None:
        """Work with this vendor, and other settings."""
        endpoint = vendor if isinstance(vendor, str) else vendor.url
        self.set(DUJIANG_JIMENG_ENDPOINT=endpoint, **settings)

    def set(self, **variables: object) -> None:
        """Set environment variables; None takes one away."""
        for name, value in variables.items():
            if value is None:
                self.environment.pop(name, None)
                self.monkeypatch.delenv(name, raising=False)
            else:
                self.environment[name] = str(value)
                self.monkeypatch.setenv(name, str(value))

    def write(self, name: str, *lines: str, encoding: str = "utf-8") -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return path

    def sheet(self, name: str, *prompts: str, header: str = "id,prompt") -> Path:
        """A CSV file with ids r1, r2, …"""
        return self.write(name, header, *(f"r{number},{prompt}" for number, prompt in enumerate(prompts, start=1)))

    def run(self, *arguments: str | Path, stdin: bytes = b"") -> Told:
        """Type a command and wait for its end, in this process."""
        self.monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin)))
        self.capture.readouterr()
        words = [str(argument) for argument in arguments]
        code = contextvars.copy_context().run(command, words)  # a language that it chooses is its own
        out, err = self.capture.readouterr()
        return Told(code, out, err)

    def start(
        self,
        *arguments: str | Path,
        terminal: tuple[int, int] | None = None,
        keyboard: bool = False,
        deaf: bool = False,
        **variables: object,
    ) -> "Typed":
        """Type a command as a process of its own. `terminal`: columns and lines, if it shall have one; `keyboard`: it
        can be typed to (on the terminal, if there is one); `deaf`: nobody reads what it prints.
        """
        environment = self.environment | {name: str(value) for name, value in variables.items()}
        typed = Typed([str(argument) for argument in arguments], self.folder, environment, terminal, keyboard, deaf)
        self.processes.append(typed)
        return typed

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with closing(sqlite3.connect(f"file:{self.home / 'dujiang.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def charged(self, vendor: RunningSimulator) -> list[str]:
        """Prompts of the jobs that the vendor took *and* that the database knows by their job id."""
        known = {job_id for (job_id,) in self.rows("SELECT job_id FROM attempts WHERE job_id IS NOT NULL")}
        return [job["prompt"] for job in vendor.ledger()["charges"] if job["task_id"] in known]

    def pictures(self, batch: str) -> list[str]:
        """Names of the batch's pictures."""
        return sorted(path.name for path in (self.out / batch / "images").iterdir())


class Typed:
    """A command that runs as a process. What it says comes line by line."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        terminal: tuple[int, int] | None,
        keyboard: bool,
        deaf: bool,
    ) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.said: list[str] = []
        self.raw = b""
        self.out = ""
        self._spoke = threading.Event()
        self._ears, ours = _terminal(*terminal) if terminal else (-1, -1)
        keys = ours if terminal else subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dujiang", *arguments],
            cwd=folder,
            env={**environment, "PYTHONUNBUFFERED": "1", "TERM": "xterm-256color"},
            stdin=keys if keyboard else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=ours if terminal else subprocess.PIPE,
            start_new_session=True,
        )
        if terminal:
            os.close(ours)
        if deaf:
            assert self.process.stdout is not None
            self.process.stdout.close()
        listen = self._listen_to_terminal if terminal else self._listen
        listeners = [listen] if deaf else [listen, self._read]
        self._threads = [threading.Thread(target=listener, daemon=True) for listener in listeners]
        for thread in self._threads:
            thread.start()

    def until(self, words: str) -> str:
        """Wait for a line with `words` in it."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                raise Stuck(f"no {words!r} in {self.said}") from None
            if line is None:
                raise Stuck(f"ended without {words!r}: {self.said}")
            self.said.append(line)
            if words in line:
                return line

    def first_line(self) -> str:
        """The first thing that it prints."""
        assert self._spoke.wait(PATIENCE_S)
        return self.out.partition("\n")[0]

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def type(self, words: str) -> None:
        if self._ears >= 0:
            os.write(self._ears, words.encode())
            return
        assert self.process.stdin is not None
        self.process.stdin.write(words.encode())
        self.process.stdin.flush()

    def waits_for_input(self) -> bool:
        """Whether it has read all that was typed."""
        import fcntl
        import struct
        import termios

        assert self.process.stdin is not None
        unread = fcntl.ioctl(self.process.stdin, termios.FIONREAD, bytes(4))
        return struct.unpack("i", unread) == (0,)

    def end(self) -> Told:
        """Wait for its end."""
        code = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        with suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                self.said.append(line)
        return Told(code, self.out, "\n".join(self.said))

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._ears >= 0:
            os.close(self._ears)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw += line
            self._lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        self._lines.put(None)

    def _listen_to_terminal(self) -> None:
        """Every piece as it comes: a living line never ends."""
        with suppress(OSError):  # how Linux says that the other side is closed
            while piece := os.read(self._ears, 65536):
                self.raw += piece
                self._lines.put(piece.decode("utf-8", "replace"))
        self._lines.put(None)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.out += line.decode("utf-8")
            self._spoke.set()
        self._spoke.set()


def _terminal(columns: int, lines: int) -> tuple[int, int]:
    """A terminal of this size: the end of whoever looks at it, and the program's."""
    import fcntl
    import pty
    import struct
    import termios

    ears, mouth = pty.openpty()
    fcntl.ioctl(mouth, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return ears, mouth


def eventually(found: Callable[[], Any]) -> Any:
    """What `found` finds, as soon as it finds something: for changes that nobody announces."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        with suppress(sqlite3.OperationalError):  # the database is being made
            if result := found():
                return result
        time.sleep(0.005)
    raise Stuck("it never came to be")


__all__ = ["ACCESS_KEY", "PATIENCE_S", "SCALE", "SECRET_KEY", "Stuck", "Studio", "Told", "Typed", "eventually"]
