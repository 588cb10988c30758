"""One import in a process of its own: `importing.py URL FILE` reads, checks and stores the rows as `dujiang run` does.

Before and after it the same file is read and hashed. It prints what each took and how much memory there was, as JSON.
"""

import asyncio
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

from dujiang.cli.rows import Rows, Source, read_rows
from dujiang.domain.batch import Batch, OnDoubt
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.runner.clock import SystemClock

BATCH: Final = "benchmark"
LOOK_EVERY_S: Final = 0.05
EARLY: Final = 0.1  # of a phase: by then it has all that it keeps


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the import."""

    seconds: float
    early_bytes: int
    """The highest RSS in its first tenth."""
    later_bytes: int
    """The highest after that."""


@dataclass(frozen=True, slots=True)
class Import:
    """What an import took."""

    hashing_s: list[float]
    reading: Phase
    storing: Phase

    @property
    def told(self) -> str:
        """For whoever started it."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, told: str) -> "Import":
        """What `told` says."""
        found = json.loads(told)
        return cls(found["hashing_s"], Phase(**found["reading"]), Phase(**found["storing"]))


def main() -> None:
    """Import once."""
    url, path = sys.argv[1], Path(sys.argv[2])
    before = _hashed(path)
    with watched() as reading, read_rows(Source(str(path), "4.0")) as rows:
        reading.end()
        with watched() as storing:
            asyncio.run(_store(url, rows))
    print(Import([before, _hashed(path)], reading.phase, storing.phase).told)


def _hashed(path: Path) -> float:
    """What anybody must do who wants to know which rows are new; how long it took."""
    begun = time.perf_counter()
    with path.open(encoding="utf-8") as file:
        for line in file:
            hashlib.sha256(json.dumps(sorted(json.loads(line).items())).encode()).hexdigest()
    return time.perf_counter() - begun


async def _store(url: str, rows: Rows) -> None:
    engine = SqlEngine(connect(url), SystemClock())
    try:
        batch = await engine.open_batch(Batch(BATCH, "batch", "/nowhere", "-", OnDoubt.parse("hold")))
        for chunk in rows.chunks():
            await engine.enqueue(batch.id, chunk)
        await engine.analyze()
    finally:
        await engine.aclose()


@dataclass(slots=True)
class Watch:
    """Looks at our memory until it is over."""

    seen: list[tuple[float, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """In a thread; it looks at least once."""
        this = psutil.Process()
        is_over = False
        while not is_over:
            self.seen.append((time.perf_counter(), this.memory_info().rss))
            is_over = self._over.wait(LOOK_EVERY_S)

    def end(self) -> None:
        """Here it ends."""
        self._over.set()

    @property
    def phase(self) -> Phase:
        """What was seen."""
        begun, ended = self.seen[0][0], self.seen[-1][0]
        early = begun + EARLY * (ended - begun)
        first = max(rss for at, rss in self.seen if at <= early)
        return Phase(ended - begun, first, max((rss for at, rss in self.seen if at > early), default=first))


@contextmanager
def watched() -> Iterator[Watch]:
    """While the block lasts, or until its end is told."""
    watch = Watch()
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()


if __name__ == "__main__":
    main()
