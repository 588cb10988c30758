"""A batch's folder: `OUT/NAME/images` and the marker that says whose it is; and how files become durable.

A file is written beside its place, flushed, and renamed into it, so that it is either complete or not there.
"""

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dujiang.domain.errors import DujiangError, StoreError
from dujiang.messages import text

MARKER: Final = ".dujiang-batch"
IMAGES: Final = "images"

_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_GONE: Final = frozenset(
    getattr(errno, name, errno.ENOENT)
    for name in ("ENOENT", "ENODEV", "ESTALE", "ENXIO", "EIO", "ENOTDIR", "ENOTCONN", "EHOSTDOWN", "ETIMEDOUT")
)


class FolderTaken(DujiangError):
    """The folder belongs to another batch; another name for the batch is the way out."""

    code = "folder_taken"

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(text(self.code, path=folder, value=owner))
        self.folder = folder
        self.owner = owner


def open_batch_folder(out: Path, name: str, batch_id: str) -> Path:
    """The batch's folder, made and marked if it is new. Raises `FolderTaken` or `StoreError`."""
    folder = out / name
    with disk_errors(folder):
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        owner = _read(folder / MARKER) or _mark(folder, batch_id)
        if owner != batch_id:
            raise FolderTaken(folder, owner)
        _prove_writable(folder / IMAGES)
    return folder


def read_marker(out: Path, name: str) -> str | None:
    """Id of the batch that owns OUT/NAME; None if nobody does."""
    with disk_errors(out / name):
        return _read(out / name / MARKER) or None


def _read(marker: Path) -> str:
    try:
        return marker.read_text("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _mark(folder: Path, batch_id: str) -> str:
    """Write the marker unless somebody else was first; whoever's it is now."""
    marker, part = folder / MARKER, folder / f"{MARKER}.{secrets.token_hex(4)}.part"
    if marker.exists() and not _read(marker):
        marker.unlink()  # emptied by hand or by a file system's crash: it names nobody
    try:
        part.write_text(f"{batch_id}\n", "utf-8")
        flush_file(part)
        _link_or_rename(part, marker)
    finally:
        part.unlink(missing_ok=True)
    flush_folder(folder)
    return _read(marker)


def _link_or_rename(part: Path, marker: Path) -> None:
    """A link is refused where the name exists already, so that two processes can't both own a folder."""
    try:
        os.link(part, marker)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        part.replace(marker)


def _prove_writable(folder: Path) -> None:
    probe = folder / f".{secrets.token_hex(4)}.part"
    try:
        probe.touch()
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A new file to write, which takes the place of `final` when the block ends well."""
    part = final.with_name(f"{final.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        flush_file(part)
        put(part, final)
    finally:
        part.unlink(missing_ok=True)


def put(part: Path, final: Path) -> None:
    """Rename a flushed file into its place, for good."""
    part.replace(final)
    flush_folder(final.parent)


def flush_file(path: Path) -> None:
    """What the file holds survives a power cut."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Its names survive a power cut. Windows can't, and keeps names by its journal."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flush(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:  # some network file systems can't either
            raise
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """To the disk itself: on macOS `fsync` alone stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # only there

        with suppress(OSError):  # network volumes can't
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Every `OSError` leaves as a `StoreError` that names `path`."""
    try:
        yield
    except OSError as error:
        why = why_refused(error)
        raise StoreError(
            text(f"disk_{why}", path=path, value=error.strerror or type(error).__name__), why=why
        ) from error


def why_refused(error: OSError) -> str:
    """`full`, `gone` or `denied`."""
    if error.errno in _FULL:
        return "full"
    return "gone" if error.errno in _GONE else "denied"
