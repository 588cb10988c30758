"""A large batch whose submitting is killed again and again: `dujiang run --no-work` as a process.

What must be there at the end is what a reading of the file gives: each row once, in its place, under its name.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from dujiang.cli.rows import Source, read_rows
from dujiang.engines.sql.batches import counts
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.queries import reading
from dujiang.engines.sql.schema import batches, tasks

from .processes import PATIENCE_S, Stuck, environment

KILLS: Final = 3
LOOK_EVERY_S: Final = 0.002  # a transaction takes about 20 ms
KILLED_BY: Final = -9
STORED: Final = ("row", "digest", "position", "name", "req_key")


@dataclass(frozen=True, slots=True)
class Killed:
    """How many rows were there when it was killed, and how many it had wanted to see."""

    stored: int
    wanted: int


class Submitting:
    """One file, submitted by one process after the other."""

    def __init__(self, folder: Path, database_url: str, rows: int, *, patience_s: float = PATIENCE_S) -> None:
        self._folder = folder
        self._url = database_url
        self._rows = rows
        self._patience_s = patience_s
        self.source = folder / "rows.jsonl"
        _write(self.source, rows)
        self._database = connect(database_url)

    def close(self) -> None:
        """Done with looking."""
        self._database.dispose()

    def killed(self, wanted: int, chance: random.Random) -> Killed:
        """Submit, and be killed a few looks after so many rows were there, anywhere in a transaction or between two."""
        looks_left = chance.randrange(10)
        with (self._folder / "killed.log").open("wb") as log, self._start(log) as process:
            give_up_at = time.monotonic() + self._patience_s
            while looks_left >= 0:
                looks_left -= self.stored() >= wanted
                if process.poll() is not None or time.monotonic() > give_up_at:
                    process.kill()
                    raise Stuck((self._folder / "killed.log").read_text("utf-8", "replace")[-3000:])
                time.sleep(LOOK_EVERY_S)  # nobody but the database tells how far it is
            process.kill()
            process.wait(self._patience_s)
        found = self.stored()
        assert process.returncode == KILLED_BY or sys.platform == "win32", process.returncode
        return Killed(found, wanted)

    def to_the_end(self) -> dict[str, Any]:
        """Submit; what it says."""
        with self._start(subprocess.PIPE) as process:
            told, _ = process.communicate(timeout=self._patience_s)
        assert process.returncode == 0, told
        found: dict[str, Any] = json.loads(told)
        return found

    def _start(self, stdout: Any) -> "subprocess.Popen[bytes]":
        ours = {"DUJIANG_HOME": str(self._folder / "home"), "DUJIANG_DATABASE_URL": self._url}
        keys = {"VOLCENGINE_ACCESS_KEY": "AKLTstorm", "VOLCENGINE_SECRET_KEY": "c3Rvcm0="}
        order = ["run", str(self.source), "--out", str(self._folder / "out"), "--no-work", "--json"]
        with (self._folder / "errors.log").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "dujiang", *order],
                cwd=self._folder,
                env=environment() | ours | keys,
                stdout=stdout,
                stderr=errors,
            )

    def stored(self) -> int:
        """How many rows are there."""
        with reading(self._database) as connection:
            batch_id = connection.execute(sa.select(batches.c.id)).scalar()
            return sum(counts(connection, batch_id).values()) if batch_id else 0

    def differences(self) -> Iterator[tuple[Any, Any]]:
        """What should be there beside what is, where the two differ."""
        query = sa.select(*(tasks.c[name] for name in (*STORED, "revision", "newest", "state")))
        with reading(self._database) as connection, read_rows(Source(str(self.source), "4.0")) as rows:
            stored = connection.execution_options(yield_per=1000).execute(query.order_by(tasks.c.position, tasks.c.id))
            for task in chain.from_iterable(rows.chunks()):
                should_be = (*(getattr(task, name) for name in STORED), 1, True, "ready")
                found = next(stored, None)
                if found is None or tuple(found) != should_be:
                    yield should_be, found
            yield from ((None, extra) for extra in stored)


def _write(path: Path, rows: int) -> None:
    """Rows with an id, with a name of their own, and without both, some of which are equal."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row: dict[str, object] = {"prompt": f"岷江的第 {number} 张"}
            if number % 3 == 0:
                row["id"] = f"SKU-{number:07d}"
            elif number % 3 == 1:
                row["name"] = f"picture {number}"
            elif number % 2:
                row["prompt"] = f"同一张 {number % 50}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def killed_again_and_again(submitting: Submitting, rows: int, chance: random.Random) -> Sequence[Killed]:
    """Killed at random moments, each later than the last one; then it runs to its end, and all is in its place."""
    kills = []
    for left in range(KILLS, 0, -1):
        already = submitting.stored()
        kills.append(submitting.killed(already + chance.randint(1, (rows - already) // (left + 1)), chance))
    told = submitting.to_the_end()

    assert told["counts"] == {"ready": rows}
    assert list(submitting.differences()) == []
    return kills
