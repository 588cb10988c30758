"""Who is alive: a worker holds an OS lock on a file of its own for as long as its process lives.

The operating system frees the lock however the process ends, so on one machine a free lock means gone, at once and
without a clock. "One machine" is whoever uses the same folder: host names and network cards change (a laptop on
another network, a container made anew), and what was paid for must not wait for a machine that only has a new name.
"""

import secrets
from pathlib import Path
from typing import Final, Protocol

from filelock import FileLock, Timeout

from dujiang.ports import Worker

MACHINE: Final = "machine"


class Presence(Protocol):
    """Tells which workers of this machine still live."""

    def is_gone(self, worker: Worker) -> bool | None:
        """Whether `worker` is gone; None if that can't be seen from here."""


class LockedPresence:
    """Lock files in one folder, one a worker."""

    def __init__(self, folder: Path, *, pid: int, now: float, name: str = "", version: str = "") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = Worker(secrets.token_hex(6), machine_of(folder), pid, now, name, version)
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


def machine_of(folder: Path) -> str:
    """Names the machine that this folder belongs to; made up when it is first asked for."""
    return known_machine(folder) or _name_machine(folder)


def known_machine(folder: Path) -> str:
    """The same; empty if nobody has worked here."""
    try:
        return (folder / MACHINE).read_text("ascii").strip()
    except FileNotFoundError:
        return ""


def _name_machine(folder: Path) -> str:
    """One of several that do this at once wins, and all agree on its name."""
    place = folder / MACHINE
    with FileLock(place.with_suffix(".lock")):
        if known := known_machine(folder):
            return known
        name, part = secrets.token_hex(8), place.with_suffix(".part")
        part.write_text(f"{name}\n", "ascii")
        part.replace(place)
        return name


def looks_alive(folder: Path, worker: Worker) -> bool:
    """Whether `worker` runs, as far as it can be seen from here; one of another machine is believed."""
    if worker.machine != known_machine(folder):
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
