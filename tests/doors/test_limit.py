"""The limit that finds itself, as a user meets it who sets nothing."""

import json
import re

import pytest
from rich.cells import cell_len

from .conftest import MakeVendor
from .studio import ACCESS_KEY, SECRET_KEY, Studio


@pytest.fixture
def unset(studio: Studio) -> Studio:
    studio.set(DUJIANG_CONCURRENCY=None)
    return studio


def test_who_sets_nothing_finds_the_quota_and_sees_it(unset: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(limit=2, run_fixed_s=10.0, queue_s=0.0)
    unset.sheet("cats.csv", *(f"cat {number}" for number in range(20)))

    told = unset.run("run", "cats.csv", "--json")
    shown = unset.run("limit", "show", "--json").lines
    table = unset.run("limit", "show")

    assert (told.code, told.json["counts"]) == (0, {"succeeded": 20})
    assert vendor.ledger()["max_running_overall"] == 2
    assert vendor.ledger()["refused"]["50430"] <= 6
    assert "starting 20 tasks, at most auto at once" in told.err
    assert "the limit of default/jimeng_t2i_v40 is 2 now (50430)" in told.err
    (lane,) = shown
    assert (lane["lane"], lane["limit"], lane["slots"], lane["in_use"]) == ("default/jimeng_t2i_v40", "auto", 2, 0)
    assert lane["refusals"] == vendor.ledger()["refused"]["50430"]
    assert lane["events"][0]["what"] == "50430: climbing -> 2"
    assert re.search(r"default/jimeng_t2i_v40 +auto +0/2 +\d of \d\d ", table.out)
    assert "believes in 2 (more was refused, 50430)" in table.out


def test_limit_show_tells_what_happened_what_is_believed_and_what_stands_in_the_way(
    unset: Studio, make_vendor: MakeVendor
) -> None:
    make_vendor(limit=2, run_fixed_s=10.0, queue_s=0.0)
    unset.sheet("cats.csv", *(f"cat {number}" for number in range(20)))
    unset.run("run", "cats.csv")
    (lane,) = unset.run("limit", "show", "--json").lines
    unset.run("accounts", "pause", "default")
    (stopped,) = unset.run("limit", "show", "--json").lines

    assert lane.keys() >= {
        "lane", "endpoint", "limit", "slots", "in_use", "reason", "submits", "refusals", "median_run_s", "p95_run_s",
        "next_look_in_s", "submit_every_s", "fell_from", "belief", "events",
    }  # fmt: skip
    assert 0 < lane["median_run_s"] <= lane["p95_run_s"]
    assert (lane["reason"], lane["submit_every_s"], lane["fell_from"]) == (None, None, None)
    assert stopped["reason"] == "paused(account)"
    assert "nothing is submitted now: paused(account)" in unset.run("limit", "show").out
    assert "现在不提交：paused(account)" in unset.run("--lang", "zh", "limit", "show").out


def test_a_lane_whose_account_was_too_fast_says_how_it_is_slowed_down(unset: Studio, make_vendor: MakeVendor) -> None:
    make_vendor(submit_qps=0.2, run_fixed_s=1.0)
    unset.sheet("cats.csv", *"abcdefgh")

    assert unset.run("run", "cats.csv").code == 0

    assert unset.run("limit", "show", "--json").lines[0]["submit_every_s"] > 0
    assert "its account was too fast: one submit each" in unset.run("limit", "show").out


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_name_of_a_lane_is_whole_in_a_narrow_terminal(
    unset: Studio, make_vendor: MakeVendor, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    vendor = make_vendor(run_fixed_s=1.0)
    key = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    unset.set(DUJIANG_ACCOUNTS=json.dumps([{"name": "the-studio-in-shenzhen"} | key]))
    unset.sheet("cats.csv", "a")
    unset.run("run", "cats.csv")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")

    shown = re.sub(r"\x1b\[[0-9;]*m", "", unset.run("--lang", lang, "limit", "show").out)

    assert vendor.ledger()["accepted"] == 1
    assert "the-studio-in-shenzhen/jimeng_t2i_v40\n" in shown
    assert max(cell_len(line) for line in shown.splitlines()) <= 80


def test_a_hint_is_taken_and_one_for_nobody_is_refused(unset: Studio, make_vendor: MakeVendor) -> None:
    make_vendor(limit=1, run_fixed_s=1.0)
    nothing = unset.run("limit", "hint")
    unset.sheet("cats.csv", "a", "b", "c")
    unset.run("run", "cats.csv")

    assert (nothing.code, unset.run("limit", "show").code) == (2, 0)
    assert unset.run("limit", "hint").code == 0
    assert "default/jimeng_t2i_v40" in unset.run("limit", "hint", "default/jimeng_t2i_v40").err
    wrong = unset.run("limit", "hint", "nobody/else")
    assert wrong.code == 2
    assert "nobody/else" in wrong.err


def test_a_fixed_limit_takes_the_place_of_one_that_was_found_and_back(unset: Studio, make_vendor: MakeVendor) -> None:
    make_vendor(run_fixed_s=1.0)
    unset.sheet("cats.csv", "a", "b", "c", "d")
    unset.run("run", "cats.csv", "--concurrency", "fixed:2")
    (fixed,) = unset.run("limit", "show", "--json").lines
    unset.sheet("dogs.csv", "a", "b", "c", "d")
    unset.run("run", "dogs.csv", "--concurrency", "auto:1..3")
    (found,) = unset.run("limit", "show", "--json").lines

    assert (fixed["limit"], fixed["slots"], fixed["belief"]) == ("fixed:2", 2, None)
    assert found["limit"] == "auto:1..3"
    assert found["belief"] is not None


@pytest.mark.parametrize("words", ["3", "auto:0..3", "auto:5..2", "fast", "fixed:0"])
def test_a_limit_that_is_none_is_refused_before_anything_is_stored(unset: Studio, words: str) -> None:
    unset.sheet("cats.csv", "a")

    told = unset.run("run", "cats.csv", "--concurrency", words)

    assert told.code == 2
    assert "auto:1..8" in told.err
    assert not (unset.home / "dujiang.db").exists()
