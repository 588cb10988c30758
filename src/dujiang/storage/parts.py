"""A picture that is not complete yet: `STEM.OWNER.part`, beside its place and unique to one call.

The owner in the name (machine, process, call) tells a later run which ones a killed run has left.
"""

import os
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import psutil

from dujiang.storage.folders import disk_errors, flush
from dujiang.storage.pictures import PictureCheck

KEPT_S: Final = 24 * 3600.0
"""A `.part` of another machine that was not written to for so long belongs to nobody."""

_MACHINE: Final = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_PROCESS: Final = secrets.token_hex(3)  # a process id comes again after a restart, in a container always
_OWNER: Final = re.compile(r"\.([0-9a-f]{8})-(\d+)-([0-9a-f]{6})-[0-9a-f]{6}\.part$")


class Part:
    """Bytes that are checked and written as they come. The file is made with the first of them."""

    def __init__(self, folder: Path, stem: str, opened: Callable[[Path], BinaryIO]) -> None:
        owner = f"{_MACHINE}-{os.getpid()}-{_PROCESS}-{secrets.token_hex(3)}"
        self.path = folder / f"{stem}.{owner}.part"
        self.check = PictureCheck()
        self._opened = opened
        self._file: BinaryIO | None = None
        self._may_exist = False

    def write(self, pieces: Sequence[bytes]) -> None:
        """Check and write the next bytes. Raises `BrokenPicture` or `StoreError`."""
        for piece in pieces:
            self.check.feed(piece)
        with disk_errors(self.path):
            if self._file is None:
                self._may_exist = True
                self._file = self._opened(self.path)
            _write_all(self._file, pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Every byte is on the disk. Raises `OSError`."""
        if self._file is not None:
            flush(self._file.fileno())
            self._file.close()

    def published(self) -> None:
        """It has its own name now: nothing is left to discard."""
        self._may_exist = False

    def discard(self) -> None:
        """Leave nothing behind. May be called at any time, but not while another call runs."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        if self._may_exist:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """An unbuffered file may take less than it is given; the next write then says why."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def remove_leftovers(folder: Path, now: float) -> None:
    """Remove what killed runs have left in `folder`, and nothing that may still be written to."""
    for path in list(_leftovers(folder, now)):
        with suppress(OSError):
            path.unlink()


def _leftovers(folder: Path, now: float) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            owner = _OWNER.search(entry.name)
            if owner and (_is_dead(*owner.groups()) or now - entry.stat().st_mtime > KEPT_S):
                yield Path(entry.path)


def _is_dead(machine: str, pid: str, process: str) -> bool:
    """Whether the process is known to be gone; of another machine's nothing is known."""
    if machine != _MACHINE:
        return False
    return process != _PROCESS if int(pid) == os.getpid() else not psutil.pid_exists(int(pid))
