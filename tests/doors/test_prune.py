"""`dujiang prune`: what was over long ago goes, and what it cost can still be told."""

import sqlite3
import time
from contextlib import closing

import pytest

from dujiang.simulator import RunningSimulator

from .studio import Studio

MONTH_S = 30 * 86_400


def let_a_time_pass(studio: Studio, seconds: float = 40 * 86_400) -> None:
    """As if everything had happened so long ago."""
    with closing(sqlite3.connect(studio.home / "dujiang.db")) as connection:
        for table, column in [
            ("tasks", "updated_at"),
            ("attempts", "sent_at"),
            ("batches", "created_at"),
            ("batches", "used_at"),
        ]:
            connection.execute(f"UPDATE {table} SET {column} = {column} - ?", [seconds])
        connection.commit()


@pytest.fixture
def old_batch(studio: Studio, vendor: RunningSimulator) -> str:
    """Two pictures, forty days old."""
    studio.sheet("cats.csv", "a", "b")
    assert studio.run("run", "cats.csv").code == 0
    let_a_time_pass(studio)
    return "cats"


def test_a_dry_run_shows_what_would_go_and_changes_nothing(studio: Studio, old_batch: str) -> None:
    told = studio.run("prune", "--older-than", "30d", "--dry-run")

    assert (told.code, told.err) == (0, "would be pruned: 1 batches, 2 tasks\n")
    assert "cats" in told.out
    assert studio.run("tasks", "list", "--json").lines


def test_pictures_and_reports_stay_and_show_says_what_became_of_the_batch(studio: Studio, old_batch: str) -> None:
    before = {path.name: path.read_bytes() for path in (studio.out / "cats").rglob("*") if path.is_file()}

    told = studio.run("prune", "--older-than", "30d", "--json")

    assert (told.code, [line["batch"] for line in told.lines]) == (0, ["cats"])
    assert {path.name: path.read_bytes() for path in (studio.out / "cats").rglob("*") if path.is_file()} == before
    assert studio.run("tasks", "list", "--json").lines == []
    assert studio.run("batch", "list", "--json").lines == []
    shown = studio.run("batch", "show", "cats")
    assert "was pruned" in shown.err
    assert "images charged" in shown.out
    assert studio.run("batch", "show", "cats", "--json").json["images"] == 2
    again = studio.run("prune", "--older-than", "30d")
    assert (again.code, again.out) == (0, "")


def test_what_a_month_cost_is_told_before_and_after(studio: Studio, old_batch: str) -> None:
    ((sent_at,),) = studio.rows("SELECT min(sent_at) FROM attempts")
    month = time.strftime("%Y-%m", time.localtime(sent_at))

    before = studio.run("accounts", "spent", "--month", month, "--json").lines
    studio.run("prune", "--older-than", "30d")
    after = studio.run("accounts", "spent", "--month", month, "--json").lines

    assert before == after
    assert [(line["account"], line["images"], line["in_doubt"]) for line in after] == [("default", 2, 0)]
    assert "images charged" in studio.run("accounts", "spent", "--month", month).out
    assert studio.run("accounts", "spent", "--month", "1999-01").err == "nothing was submitted in that month\n"
    assert studio.run("accounts", "spent", "--month", "March").code == 2


def test_a_pruned_sheet_is_not_paid_for_again_by_running_it_again(
    studio: Studio, vendor: RunningSimulator, old_batch: str
) -> None:
    studio.run("prune", "--older-than", "30d")

    again = studio.run("run", "cats.csv")
    paused = studio.run("batch", "pause", "cats")
    anew = studio.run("run", "cats.csv", "--name", "cats-2")

    assert (again.code, paused.code, anew.code) == (2, 2, 0)
    assert "was pruned" in again.err
    assert len(vendor.ledger()["charges"]) == 4


def test_young_batches_stay_and_a_senseless_age_is_refused(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("run", "cats.csv")

    assert studio.run("prune", "--older-than", "1d").err == (
        "pruned: 0 batches, 0 tasks; dujiang accounts spent tells what they cost\n"
    )
    for age in ("30", "0d", "1h", "-1d", "a month"):
        assert studio.run("prune", f"--older-than={age}").code == 2
    assert studio.run("prune").code == 2
    assert studio.run("batch", "show", "cats", "--json").json["counts"] == {"succeeded": 1}
