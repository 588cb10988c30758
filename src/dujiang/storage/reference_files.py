"""References as people write them: a path, a link, or a `data:` URI; and their content again, when it is needed.

A file is checked from its first to its last byte as it streams by, and nothing is decoded: what claims to be larger
than it is costs no memory, and what is broken is told before anything is sent.
"""

import asyncio
import base64
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from dujiang.domain.errors import PictureUnfit, StoreError
from dujiang.domain.pictures import MEGABYTE, SUFFIXES, Flaw, LocalPicture, Reference, megabytes
from dujiang.messages import text
from dujiang.storage.folders import disk_errors, replacing, why_refused
from dujiang.storage.pictures import BrokenPicture, Checked, PictureCheck

MOST_BYTES: Final = 30 * MEGABYTE  # no model takes more, and no host is known to
PORTION: Final = 256 * 1024
SHOWN: Final = 80
LINKS: Final = frozenset({"http", "https"})


class _Unusable(Exception):
    def __init__(self, code: str, value: str, limit: str = "") -> None:
        super().__init__(code)
        self.flaw = Flaw(code, value, limit)


class ReferenceFiles:
    """The pictures of one input. Relative paths begin at `folder`; a picture that is named often is read once.

    `uploads` keeps pictures that came as `data:` URIs; None reads them and keeps nothing.
    """

    def __init__(self, folder: Path, uploads: Path | None = None, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._uploads = uploads
        self._most_bytes = most_bytes
        self._known: dict[str, Reference | Flaw] = {}

    def read(self, written: str) -> Reference | Flaw:
        """The reference that is meant, or what is wrong with it. Blocks while the file is read."""
        scheme = _scheme(written)
        if scheme in LINKS:
            return written
        if scheme == "data":
            return _told(lambda: self._inline(written))
        known = self._known.get(written)
        if known is None:
            known = self._known[written] = _told(lambda: self._file(written, scheme))
        return known

    def _file(self, written: str, scheme: str) -> LocalPicture:
        if scheme != "file" and "://" in written:
            raise _Unusable("reference_scheme", _cut(written), "http, https, file, data")
        path = (self._folder / (_path_of_url(written) if scheme == "file" else _at_home(written))).absolute()
        with _read_errors(path):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise _Unusable("reference_no_file", str(path))
            self._refuse_size(found.st_size, str(path))
            with path.open("rb") as file:
                checked = _checked(iter(lambda: file.read(PORTION), b""), str(path))
        return _picture(path, checked)

    def _inline(self, written: str) -> LocalPicture:
        shown = _cut(written)
        content = _decoded(written, shown)
        self._refuse_size(len(content), shown)
        checked = _checked(iter([content]), shown)
        path = (self._uploads or Path("data:")) / f"{checked.sha256}{checked.suffix}"
        if self._uploads is not None:
            with disk_errors(path):
                _keep(content, path)
        return _picture(path, checked)

    def _refuse_size(self, size: int, shown: str) -> None:
        if size > self._most_bytes:
            raise _Unusable("reference_bytes", f"{shown} ({megabytes(size)})", megabytes(self._most_bytes))


def _scheme(written: str) -> str:
    scheme, colon, _ = written.partition(":")
    return scheme.lower() if colon else ""


def _path_of_url(written: str) -> Path:
    try:
        url = urlsplit(written)
    except ValueError:
        raise _Unusable("reference_unreadable", _cut(written), "file:") from None
    elsewhere = url.netloc if url.netloc.lower() != "localhost" else ""
    if elsewhere and sys.platform != "win32":  # `file://cat.png` is a machine called cat.png
        raise _Unusable("reference_missing", _cut(written), "file:///")
    return Path(url2pathname(f"//{elsewhere}{url.path}" if elsewhere else url.path))


def _at_home(written: str) -> Path:
    """With `~` replaced; a user whom nobody knows is part of the name, as for a shell."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        return Path(written)


def _decoded(written: str, shown: str) -> bytes:
    """The content of a `data:` URI. In base64, too, signs may stand as `%2B`."""
    head, comma, payload = written.partition(",")
    try:
        if not comma:
            raise ValueError
        content = unquote_to_bytes(payload) if "%" in payload or not _is_base64(head) else payload.encode("ascii")
        return base64.b64decode(content, validate=True) if _is_base64(head) else content
    except ValueError:  # `binascii.Error` is one
        raise _Unusable("reference_inline", shown) from None


def _is_base64(head: str) -> bool:
    return head.lower().endswith(";base64")


def _keep(content: bytes, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(content)


def _told(read: Callable[[], LocalPicture]) -> Reference | Flaw:
    try:
        return read()
    except _Unusable as unusable:
        return unusable.flaw


class LocalFiles:
    """The `PictureFiles` of this machine's disk."""

    async def content(self, picture: LocalPicture) -> bytes:
        """See `ports.PictureFiles`."""
        return await asyncio.to_thread(_content, picture)


def _content(picture: LocalPicture) -> bytes:
    path = Path(picture.path)
    try:
        if not path.is_file():  # what took its place may be a pipe, and opening one waits
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with path.open("rb") as file:
            content = file.read(picture.bytes + 1)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise PictureUnfit(text("reference_lost", path=path, value=error.strerror or type(error).__name__)) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or type(error).__name__}", why=why_refused(error)) from error
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        raise PictureUnfit(text("reference_changed", path=path))
    return content


def _checked(portions: Iterator[bytes], shown: str) -> Checked:
    check = PictureCheck()
    try:
        for portion in portions:
            check.feed(portion)
        return check.finish()
    except BrokenPicture as error:
        raise _Unusable("reference_broken", shown, error.message) from None


_KINDS: Final = {suffix: kind for kind, suffix in SUFFIXES.items()}


def _picture(path: Path, checked: Checked) -> LocalPicture:
    kind = _KINDS[checked.suffix]
    return LocalPicture(str(path), checked.sha256, kind, checked.bytes, checked.width, checked.height)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise _Unusable("reference_missing", path.name, str(path.parent)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _Unusable("reference_unreadable", str(path), reason) from None


def _cut(written: str) -> str:
    return written if len(written) <= SHOWN else f"{written[:SHOWN]}…"
