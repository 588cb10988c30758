"""The processes of a storm: the vendor, and lives of the product. Nothing waits without a limit."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Self

import httpx2

from .client import END, READY, Orders
from .mortal import DIED

PATIENCE_S: Final = 60.0  # for one line or one end, on a machine that is busy with other things
ROOT: Final = Path(__file__).parents[2]


class Stuck(AssertionError):
    """A process neither did what it should nor ended."""


class Life:
    """One process of the product, started ahead and waiting for its orders. Leaving the block ends it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.said: list[str] = []
        self._errors: IO[bytes] = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.client"],
            cwd=log.parent,  # no dujiang.toml of somebody else
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, name=log.stem, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()

    def begin(self, orders: Orders) -> None:
        """Give it its orders."""
        assert self._process.stdin is not None
        self.until(READY)
        self._process.stdin.write(f"{orders.dumped()}\n")
        self._process.stdin.flush()

    def until(self, *words: str, times: int = 1) -> str | None:
        """Wait for the line that begins with one of `words` for the `times`-th time; None if it ended before."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                raise Stuck(f"no {' or '.join(words)} within {PATIENCE_S:g} s; {self._story()}") from None
            if line is None:
                self._lines.put(None)  # whoever asks again gets the same answer
                return None
            self.said.append(line)
            times -= line.startswith(words)
            if times <= 0:
                return line

    def catch_up(self) -> None:
        """Hear what it has said so far: only what comes now counts."""
        with suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                self.said.append(line)
            self._lines.put(None)

    def kill(self, after_s: float = 0.0) -> bool:
        """End it from outside, `after_s` from now; whether it was still alive."""
        try:
            self._process.wait(after_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            return True
        return False

    def last_words(self) -> str:
        """Wait for its end: "died POINT" or "end WHY". Raises `Stuck` for an end that nobody ordered."""
        heard = (line for line in self.said if line.startswith((DIED, END)))
        line = next(heard, None) or self.until(DIED, END)
        self._process.wait(PATIENCE_S)
        if line is None:
            raise Stuck(f"it ended by itself; {self._story()}")
        if line.startswith(END) and self._process.returncode:
            raise Stuck(f"exit code {self._process.returncode}; {self._story()}")
        return line

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _story(self) -> str:
        errors = self._log.read_text("utf-8", "replace")[-4000:]
        return f"{self._log.name}: last lines {self.said[-5:]}\n{errors}"


class Lives:
    """Lives of the product, one after the other; one is always being started ahead until `expected` have been."""

    def __init__(self, folder: Path, expected: int) -> None:
        self._folder = folder
        self._expected = expected
        self._started = 0
        self._ahead: Life | None = None

    def __enter__(self) -> Self:
        self._ahead = self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is not None:
            self._ahead.__exit__()

    def begin(self, orders: Orders) -> Life:
        """A life with these orders."""
        life = self._ahead or self._start()
        self._ahead = self._start() if self._started < self._expected else None
        life.begin(orders)
        return life

    def _start(self) -> Life:
        self._started += 1
        return Life(self._folder / f"life-{self._started:03d}.log")


def environment() -> dict[str, str]:
    """Ours, without settings of the product and without proxies."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DUJIANG_", "VOLCENGINE_"))}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return ours | {"PYTHONPATH": path, "PYTHONUTF8": "1", "NO_PROXY": "127.0.0.1"}


class VendorProcess:
    """The simulator as a process of its own, asked over HTTP."""

    def __init__(self, url: str, http: httpx2.Client) -> None:
        self.url = url
        self._http = http

    def ledger(self) -> dict[str, Any]:
        """Everything it was asked for and what it charged."""
        ledger: dict[str, Any] = self._http.get("/_sim/ledger").raise_for_status().json()
        return ledger

    def quiet(self) -> dict[str, Any]:
        """The ledger once every job has ended."""
        running = [job["task_id"] for job in self.ledger()["charges"] if job["ended_at"] is None]
        for job_id in running:
            self._http.get(f"/_sim/jobs/{job_id}/end").raise_for_status()
        return self.ledger()


@contextmanager
def vendor_process(folder: Path, settings: Mapping[str, Any]) -> Iterator[VendorProcess]:
    """A simulated vendor that lives as long as the block."""
    config = folder / "vendor.json"
    config.write_text(json.dumps(settings), "utf-8")
    with ExitStack() as stack:
        errors = stack.enter_context((folder / "vendor.log").open("wb"))
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "dujiang.simulator", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        )
        stack.callback(process.wait, PATIENCE_S)
        stack.callback(process.kill)
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        stack.callback(watchdog.cancel)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        watchdog.cancel()
        assert url, (folder / "vendor.log").read_text("utf-8", "replace")
        http = stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False))
        yield VendorProcess(url, http)
