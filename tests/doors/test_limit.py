"""The limit that finds itself, as a user meets it who sets nothing."""

import re

import pytest

from .conftest import MakeVendor
from .studio import Studio


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
    assert re.search(r"default/jimeng_t2i_v40 +auto +2 +0 ", table.out)


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
