"""Opening a database: what it must promise before anything is entrusted to it, and its migrations.

SQLite runs in WAL mode with `synchronous=FULL`: a commit is on disk when it returns, and readers never wait. WAL needs
shared memory, so a file on a network or synced folder is refused: it would be corrupted, not slow.
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa
from sqlalchemy import event

from dujiang.engines.sql import postgres
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.revisions import migrate

BUSY_S: Final = 30
NETWORK_FILESYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smbfs",
        "smb2",
        "smb3",
        "afpfs",
        "webdav",
        "davfs",
        "fuse.sshfs",
        "9p",
        "ceph",
        "glusterfs",
    }
    | {"remote", "fuse.rclone", "fuse.s3fs", "ncpfs", "afs", "lustre", "beegfs", "fuse.davfs", "macfuse", "osxfuse"}
)
SYNCED_FOLDERS: Final = (
    "onedrive",
    "dropbox",
    "google drive",
    "googledrive",
    "icloud drive",
    "mobile documents",
    "nutstore",
    "坚果云",
    "baidusyncdisk",
    "百度网盘同步",
    "wpsdrive",
)


def connect(url: str, *, synchronous: str = "FULL") -> sa.Engine:
    """A pool of connections to `url` (`sqlite:///PATH`, `postgresql://…`), checked, with the newest schema.

    `synchronous`: OFF is for tests alone. Raises `DatabaseRefused`.
    """
    place = sa.make_url(url)
    if place.get_backend_name() == "postgresql":
        return postgres.connect(place)
    if place.get_backend_name() != "sqlite" or not place.database or place.database == ":memory:":
        raise DatabaseRefused("unsupported", url=place.render_as_string(hide_password=True))
    path = Path(place.database).expanduser()
    _refuse_untrustworthy_folder(path)
    database = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_S, "check_same_thread": False},
        pool_size=4,
        max_overflow=8,
    )
    _set_up_connections(database, synchronous)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_wal(database, path)
        migrate(database, path)
    except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
        database.dispose()
        raise DatabaseRefused("unreadable", path=path, reason=_reason(error)) from error
    except BaseException:
        database.dispose()
        raise
    return database


def _set_up_connections(database: sa.Engine, synchronous: str) -> None:
    @event.listens_for(database, "connect")
    def set_up(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: see below
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone does not reach the disk
        connection.execute("PRAGMA checkpoint_fullfsync=ON")
        connection.execute("PRAGMA cache_size=-16000")
        connection.execute("PRAGMA temp_store=MEMORY")

    @event.listens_for(database, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        # A writer that starts as a reader can fail when it upgrades; it takes the lock at once instead.
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _require_wal(database: sa.Engine, path: Path) -> None:
    raw = database.raw_connection()
    try:
        answer = _ask_for_wal(raw.cursor())
    finally:
        raw.close()
    if str(answer).lower() != "wal":
        raise DatabaseRefused("no_wal", path=path, answer=answer)


def _ask_for_wal(cursor: Any) -> object:
    give_up_at = time.monotonic() + BUSY_S
    while True:
        try:
            return cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Here SQLite does not wait for another program that opens the new database, too.
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def revision_of(url: str) -> str | None:
    """The migration that the database at `url` stands at, without making or changing it; None if there is none."""
    if sa.make_url(url).get_backend_name() == "postgresql":
        return postgres.revision_of(sa.make_url(url))
    path = Path(sa.make_url(url).database or "").expanduser()
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return str(found[0]) if found else None


def _refuse_untrustworthy_folder(path: Path) -> None:
    folder = _nearest_existing(path.resolve().parent)  # of the file itself, if `path` is a link to it
    kind = _filesystem(folder, _mounts())
    if kind in NETWORK_FILESYSTEMS or str(folder).startswith("\\\\"):
        raise DatabaseRefused("network_folder", path=path, kind=kind or "UNC")
    for part in folder.parts:
        if any(part.lower().startswith(name) for name in SYNCED_FOLDERS):
            raise DatabaseRefused("synced_folder", path=path, folder=part)


def _mounts() -> Iterable[tuple[str, str]]:
    """Where file systems are mounted, and their kinds. Windows calls a share by its server's kind, and `remote`."""
    for partition in psutil.disk_partitions(all=True):
        yield partition.mountpoint, "remote" if "remote" in partition.opts.split(",") else partition.fstype


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.resolve()


def _filesystem(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The kind of file system that `folder` lies on: that of the longest mount point above it, mounted last."""
    best, kind = -1, ""
    for mountpoint, fstype in mounts:
        if len(mountpoint) >= best and folder.is_relative_to(mountpoint):
            best, kind = len(mountpoint), fstype.lower()
    return kind


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)
