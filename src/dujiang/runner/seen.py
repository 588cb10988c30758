"""What was seen under which key, in bounded memory: a million ids would need hundreds of megabytes."""

import errno
import sqlite3
from typing import Final

KEPT: Final = 20_000  # keys in memory, about 3 MB; more go to a file of SQLite's that has no name
CACHE_KB: Final = 4096


class Seen:
    """Whole numbers by key."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._recent: dict[str | bytes, int] = {}
        self._file: sqlite3.Connection | None = None

    def get(self, key: str | bytes) -> int | None:
        """What was set last."""
        found = self._recent.get(key)
        if found is not None or self._file is None:
            return found
        row = self._file.execute("SELECT value FROM seen WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def set(self, key: str | bytes, value: int) -> None:
        """From now on it has this value."""
        self._recent[key] = value
        if len(self._recent) >= self._kept:
            try:
                self._put_away()
            except sqlite3.OperationalError as error:  # the folder of temporary files is full, or can't be written to
                raise OSError(errno.ENOSPC, str(error)) from error

    def close(self) -> None:
        """Nothing is left."""
        self._recent.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put_away(self) -> None:
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None)
            for setting in (f"cache_size = -{CACHE_KB}", "journal_mode = OFF", "synchronous = OFF"):
                self._file.execute(f"PRAGMA {setting}")
            # No type for the key: text and bytes stay what they are.
            self._file.execute("CREATE TABLE seen (key PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
        self._file.execute("BEGIN")
        # In order, so that each page of the file is written once; text and bytes are never in the same place.
        self._file.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", sorted(self._recent.items()))
        self._file.execute("COMMIT")
        self._recent.clear()
