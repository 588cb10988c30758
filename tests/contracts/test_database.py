"""What a database must promise before anything is entrusted to it, and its migrations."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from dujiang.engines.migrations import configuration
from dujiang.engines.sql import database as opening
from dujiang.engines.sql.database import _filesystem, connect, revision_of
from dujiang.engines.sql.refusals import DatabaseRefused
from dujiang.engines.sql.revisions import schema_revision
from dujiang.engines.sql.schema import METADATA, REVISION


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dujiang.db"


def refusal(path: Path) -> DatabaseRefused:
    with pytest.raises(DatabaseRefused) as refused:
        connect(url_of(path))
    return refused.value


# -- Durability -------------------------------------------------------------------------------------------------------


def test_rule_1_every_connection_of_the_pool_writes_durably(path: Path) -> None:
    database = connect(url_of(path))
    connections = [database.connect() for _ in range(12)]

    for connection in connections:
        with connection.execution_options(reading=True):
            asked = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "fullfsync", "checkpoint_fullfsync")
            }
        assert asked == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "fullfsync": 1,
            "checkpoint_fullfsync": 1,
        }
    for connection in connections:
        connection.close()
    database.dispose()


def test_tests_may_switch_durability_off(path: Path) -> None:
    database = connect(url_of(path), synchronous="OFF")
    with database.connect().execution_options(reading=True) as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 0
    database.dispose()


def test_a_reader_never_waits_for_a_writer_and_sees_nothing_half_done(path: Path) -> None:
    database = connect(url_of(path), synchronous="OFF")
    count = sa.text("SELECT count(*) FROM accounts")
    with database.connect() as writer, database.connect().execution_options(reading=True) as reader:
        writer.execute(sa.text("INSERT INTO accounts (name, fingerprints) VALUES ('a', '[]')"))
        assert reader.execute(count).scalar() == 0
        writer.commit()
        reader.rollback()
        assert reader.execute(count).scalar() == 1
    database.dispose()


# -- Places that are refused ------------------------------------------------------------------------------------------

MOUNTS = [
    ("/", "ext4"),
    ("/mnt", "xfs"),
    ("/mnt/nas", "nfs4"),
    ("/mnt/nas/disk", "ext4"),
    ("/home", "ext4"),
    ("/home/li/drive", "fuse.rclone"),
    ("/data", "ext4"),
    ("/data", "CIFS"),
]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/mnt", "xfs"),
        ("/mnt/nas", "nfs4"),
        ("/mnt/nas/a/b", "nfs4"),
        ("/mnt/nasty", "xfs"),
        ("/mnt/nas/disk/x", "ext4"),
        ("/home/li/drive/x", "fuse.rclone"),
        ("/data/x", "cifs"),
    ],
)
def test_a_folder_lies_on_what_is_mounted_last_and_nearest(folder: str, kind: str) -> None:
    assert _filesystem(Path(folder), MOUNTS) == kind


def test_where_nothing_is_known_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    assert _filesystem(tmp_path, []) == ""


def mounted(monkeypatch: pytest.MonkeyPatch, *partitions: tuple[Path, str, str]) -> None:
    found = [SimpleNamespace(mountpoint=str(place), fstype=kind, opts=opts) for place, kind, opts in partitions]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: found)


@pytest.mark.parametrize(
    ("kind", "opts"), [("nfs4", "rw"), ("cifs", "rw"), ("9p", "rw"), ("SMBFS", "rw"), ("NTFS", "rw,remote")]
)
def test_a_network_folder_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, opts: str) -> None:
    mounted(monkeypatch, (path.parent, kind, opts))

    assert refusal(path).why == "database_network_folder"
    assert not path.exists()


def test_a_link_into_a_network_folder_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nas, here = tmp_path / "nas", tmp_path / "here"
    nas.mkdir()
    here.mkdir()
    mounted(monkeypatch, (tmp_path, "ext4", "rw"), (nas, "nfs", "rw"))
    (here / "folder").symlink_to(nas, target_is_directory=True)
    (here / "file.db").symlink_to(nas / "dujiang.db")

    assert refusal(here / "folder" / "dujiang.db").why == "database_network_folder"
    assert refusal(here / "file.db").why == "database_network_folder"


@pytest.mark.parametrize("name", ["OneDrive - 公司", "Dropbox", "iCloud Drive", "坚果云", "Google Drive"])
def test_a_synced_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "work"
    folder.mkdir(parents=True)

    refused = refusal(folder / "dujiang.db")

    assert (refused.why, refused.fields["folder"]) == ("database_synced_folder", name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://user:secret@host/db"])
def test_other_databases_are_refused_without_telling_passwords(url: str) -> None:
    with pytest.raises(DatabaseRefused) as refused:
        connect(url)

    assert refused.value.why == "database_unsupported"
    assert "secret" not in str(refused.value.fields)


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "家" / "under 100%" / "dujiang.db"

    connect(url_of(path)).dispose()

    assert revision_of(url_of(path)) == REVISION


# -- Files that are refused -------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("id,prompt\n" * 1000)

    assert refusal(path).why == "database_unreadable"
    assert path.read_text() == "id,prompt\n" * 1000


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()

    assert refusal(path).why == "database_unreadable"


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.write_text("")

    assert refusal(path / "dujiang.db").why == "database_unreadable"


def test_a_database_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    connect(url_of(path)).dispose()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    refused = refusal(path)

    assert (refused.why, refused.fields["found"], refused.fields["known"]) == ("database_newer", "9999", REVISION)
    assert revision_of(url_of(path)) == "9999"


def test_a_database_that_can_not_use_wal_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_ask_for_wal", lambda _: "delete")

    assert refusal(path).why == "database_no_wal"


# -- Migrations -------------------------------------------------------------------------------------------------------


def test_a_migrated_database_has_the_tables_of_the_schema(path: Path) -> None:
    database = connect(url_of(path))
    with database.connect().execution_options(reading=True) as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    database.dispose()


def test_a_migrated_database_is_word_for_word_what_the_schema_would_make(path: Path) -> None:
    """Alembic compares neither the conditions of partial indexes nor table options. The schema has no triggers."""
    migrated = connect(url_of(path))
    made = sa.create_engine("sqlite://")
    METADATA.create_all(made)

    with migrated.connect().execution_options(reading=True) as one, made.connect() as other:
        assert definitions(one) == definitions(other)
    migrated.dispose()
    made.dispose()


# Between the parts of a definition; the table options behind the last one are a part, too.
_PARTS = re.compile(r",|\)(?=\s*(?:WITHOUT|$))")


def definitions(connection: sa.Connection) -> dict[str, list[str]]:
    """By name: the parts of every table's and index's definition, in any order."""
    # Foreign keys are written in any order, so that one or another comes last.
    found = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version' AND type <> 'trigger'"
    )
    return {
        name: sorted(re.sub(r"[\s()]+", " ", part).strip() for part in _PARTS.split(sql))
        for name, sql in found
        if not name.startswith("sqlite_")
    }


def test_an_account_that_rested_for_its_pace_rests_no_longer(path: Path) -> None:
    """Nobody knows that kind of rest any more: a row of it would stop every claim."""
    database = sa.create_engine(url_of(path))
    config = configuration()
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for subject in ("pace", "lane"):
            connection.exec_driver_sql(f"INSERT INTO rests VALUES ('{subject}', '1', 'qps', '', 1.0, 1.0, 0)")
    database.dispose()

    upgraded = connect(url_of(path))
    with upgraded.connect().execution_options(reading=True) as connection:
        assert connection.exec_driver_sql("SELECT subject FROM rests").scalars().all() == ["lane"]
    upgraded.dispose()


def test_the_schema_names_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(configuration()).get_heads() == [REVISION]


def test_a_known_database_is_opened_without_alembic(path: Path) -> None:
    """Importing it takes longer than many a command."""
    connect(url_of(path)).dispose()
    code = "import sys; from dujiang.engines.sql.database import connect"
    code += f"; connect({url_of(path)!r}); assert 'alembic' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_migration_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise sa.exc.OperationalError("CREATE INDEX", {}, sqlite3.OperationalError("boom"))

    monkeypatch.setattr("alembic.op.create_index", fail)

    assert refusal(path).fields["reason"] == "boom"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    monkeypatch.undo()
    connect(url_of(path)).dispose()


OPENS = """
import sys
import dujiang.engines.migrations
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.revisions import schema_revision
print("ready", flush=True)
for line in sys.stdin:
    database = connect(line.strip())
    print(schema_revision(database), flush=True)
    database.dispose()
"""


def test_programs_that_open_a_new_database_at_the_same_moment_all_succeed(tmp_path: Path) -> None:
    programs = [
        subprocess.Popen([sys.executable, "-c", OPENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        answers = []
        for round_number in range(-1, 8):
            for program in programs:
                assert program.stdin is not None
                if round_number >= 0:
                    program.stdin.write(url_of(tmp_path / f"{round_number}" / "dujiang.db") + "\n")
                    program.stdin.flush()
            for program in programs:
                assert program.stdout is not None
                answers.append(program.stdout.readline().strip())
    finally:
        for program in programs:
            program.communicate(timeout=60)

    assert answers == ["ready"] * 3 + [REVISION] * 24


def test_switching_to_wal_waits_for_another_program_that_does_the_same() -> None:
    """SQLite's own busy time-out does not cover this one."""
    answers: list[Any] = [sqlite3.OperationalError("database is locked")] * 3

    class Cursor:
        def execute(self, _: str) -> Any:
            if answers:
                raise answers.pop()
            return SimpleNamespace(fetchone=lambda: ("wal",))

    assert opening._ask_for_wal(Cursor()) == "wal"
    assert answers == []


def test_what_wal_refuses_for_another_reason_is_told_at_once() -> None:
    class Cursor:
        def execute(self, _: str) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError, match="disk"):
        opening._ask_for_wal(Cursor())


def test_looking_at_the_version_makes_and_changes_nothing(path: Path) -> None:
    assert revision_of(url_of(path)) is None
    assert not path.exists()


def test_a_new_database_has_no_version_yet(path: Path) -> None:
    database = sa.create_engine(url_of(path))
    assert schema_revision(database) is None
    database.dispose()


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_the_tables_can_be_written_for_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    written = [str(CreateTable(table).compile(dialect=dialect)) for table in METADATA.sorted_tables]
    written += [
        str(CreateIndex(index).compile(dialect=dialect)) for table in METADATA.sorted_tables for index in table.indexes
    ]
    text = "\n".join(written)

    for quoted in (
        'CREATE TABLE "references"',
        '"references" TEXT',
        '"limit" TEXT',
        "newest BOOLEAN",
        "WHERE state IN (",
    ):
        assert quoted in text
    assert "WHERE run_s IS NOT NULL" in text
