"""A home folder's database that came back from a backup: what the doors say, and that nothing is paid twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dujiang.simulator import RunningSimulator

from .studio import Studio


def back_up(studio: Studio) -> Path:
    place = studio.folder / "backup.db"
    with closing(sqlite3.connect(studio.home / "dujiang.db")) as source, closing(sqlite3.connect(place)) as copy:
        source.backup(copy)
    return place


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_was_submitted_since_the_backup_is_not_submitted_again_by_itself(
    studio: Studio, vendor: RunningSimulator, elsewhere: bool
) -> None:
    studio.sheet("cats.csv", "a", "b", "c")
    studio.run("run", "cats.csv", "--no-work")
    backup = back_up(studio)
    assert studio.run("run", "cats.csv").code == 0

    if elsewhere:
        studio.set(DUJIANG_HOME=studio.folder / "second")
        (studio.folder / "second").mkdir()
    home = studio.folder / ("second" if elsewhere else "home")
    (home / "dujiang.db").write_bytes(backup.read_bytes())
    refused = [studio.run(*words) for words in (["run", "cats.csv"], ["worker"], ["batch", "resume", "cats"])]
    examined = studio.run("doctor", "--json")
    looked = studio.run("batch", "show", "cats", "--json")
    taken_over = studio.run("restored")
    shown = studio.run("batch", "show", "cats", "--json").json

    assert [told.code for told in refused] == [2, 2, 2]
    assert all("dujiang restored" in told.err for told in refused)
    assert "dujiang restored" in examined.out
    assert looked.json["counts"] == {"ready": 3}
    assert "Paused" in taken_over.err
    assert "cats" in taken_over.err
    assert (shown["state"], shown["counts"]) == ("paused", {"ready": 3})
    assert len(vendor.ledger()["charges"]) == 3
    studio.run("batch", "cancel", "cats")
    assert studio.run("restored").err == "this database is used from now on. Nothing in it is unfinished\n"
