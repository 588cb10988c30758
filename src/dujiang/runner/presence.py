"""Who is alive: a worker holds an OS lock on a file of its own for as long as its process lives.

The operating system frees the lock however the process ends, so on one machine a free lock means gone, at once and
without a clock.
"""

import platform
import secrets
import uuid
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from dujiang.ports import Worker


class Presence(Protocol):
    """Tells which workers of this machine still live."""

    def is_gone(self, worker: Worker) -> bool | None:
        """Whether `worker` is gone; None if that can't be seen from here."""


class LockedPresence:
    """Lock files in one folder, one a worker."""

    def __init__(self, folder: Path, *, pid: int, now: float) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = Worker(secrets.token_hex(6), machine_name(), pid, now)
        self._lock = FileLock(self._path(self.worker.id))
        self._lock.acquire(timeout=0)

    def is_gone(self, worker: Worker) -> bool | None:
        """A free lock, or no lock file at all, means gone. Other machines' locks can't be seen."""
        if worker.id == self.worker.id:
            return False
        if worker.machine != self.worker.machine:
            return None
        return not _is_locked(self._path(worker.id))

    def forget(self, worker: Worker) -> None:
        """Its tasks are taken over: the lock file has served."""
        self._path(worker.id).unlink(missing_ok=True)

    def leave(self) -> None:
        """Let go of the lock, as the end of the process would."""
        self._lock.release()
        self._path(self.worker.id).unlink(missing_ok=True)

    def _path(self, worker_id: str) -> Path:
        return self._folder / f"{worker_id}.lock"


def machine_name() -> str:
    """Names this machine: its host name, and a number of its hardware, since host names repeat."""
    return f"{platform.node()}-{uuid.getnode():012x}"


def looks_alive(folder: Path, worker: Worker) -> bool:
    """Whether `worker` runs, as far as it can be seen from here; one of another machine is believed."""
    if worker.machine != machine_name():
        return True
    return _is_locked(folder / f"{worker.id}.lock")


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
