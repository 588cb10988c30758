"""The kill storm, and the three ways of building this that it must catch."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dujiang.domain.lifecycle import State

from .ablations import AS_SHIPPED
from .invariants import Invariant, InvariantBroken
from .mortal import Point
from .storm import FAULTS, RANDOM, Kill, Weather, blow, weather


@pytest.fixture
def seed() -> int:
    """Another one each time; STORM_SEED repeats one."""
    seed = int(os.environ.get("STORM_SEED") or random.SystemRandom().randrange(10**6))
    print(f"STORM_SEED={seed}")
    return seed


def test_nothing_is_lost_or_paid_twice_in_a_short_storm(tmp_path: Path, seed: int) -> None:
    figures = blow(weather(seed, kills=18, tasks=80, faults=FAULTS), tmp_path)

    print(figures.told())
    assert figures.kills.total() >= 15
    assert figures.kills.keys() >= {RANDOM, *Point}


def test_a_limit_that_finds_itself_is_kept_by_every_life(tmp_path: Path, seed: int) -> None:
    plan = replace(weather(seed, kills=18, tasks=80, faults=FAULTS), finds_limit=True)

    figures = blow(plan, tmp_path)

    print(figures.told())
    assert figures.kills.total() >= 15
    assert figures.most_at_vendor <= plan.limit


@pytest.mark.storm
def test_nothing_is_lost_or_paid_twice_in_a_long_storm(tmp_path: Path, seed: int) -> None:
    figures = blow(weather(seed, kills=60, tasks=300, faults=FAULTS), tmp_path)

    print(figures.told())
    assert figures.kills.total() >= 60
    assert figures.kills.keys() >= {RANDOM, *Point}
    assert figures.faults["lost_answer"] > 0


def ablation(point: Point, on_pass: int, *prompts: str, wiring: str, run_s: float = 20.0) -> Weather:
    """One kill, and what it leaves to the next life."""
    return Weather(
        seed=0,
        kills=[Kill(point, on_pass)],
        limit=3,
        prompts=dict.fromkeys(prompts, State.SUCCEEDED),
        vendor={"run_fixed_s": run_s, "seed": 0},
        wiring=wiring,
    )


def full_lane(wiring: str) -> Weather:
    """Three jobs fill the lane, and run on for a second and a half when their process dies."""
    return ablation(Point.AFTER_ACCEPT, 3, *(f"第 {n} 幅" for n in range(6)), wiring=wiring, run_s=150.0)


def unwritten_answer(wiring: str) -> Weather:
    """The vendor took a job, and the process that was told so dies."""
    return ablation(Point.AFTER_ACCEPT, 1, "第一幅", "第二幅", wiring=wiring)


def lost_answer(wiring: str) -> Weather:
    """An answer is lost with the process that read it, and the next one on its way."""
    prompts = ("第一幅", "第二幅", "第三幅", "第四幅 [sim:lost-answer]")
    return ablation(Point.AFTER_ACCEPT, 1, *prompts, wiring=wiring)


def test_slots_kept_in_memory_let_too_many_in(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken) as caught:
        blow(full_lane("slots in memory"), tmp_path)

    assert Invariant.LIMIT in caught.value.broken


def test_without_a_commit_before_the_submit_a_task_is_paid_twice(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken) as caught:
        blow(unwritten_answer("no commit before the submit"), tmp_path)

    assert caught.value.broken >= {Invariant.ONE_CHARGE_AN_ATTEMPT, Invariant.COMMITTED_FIRST, Invariant.RULE_10}
    assert Invariant.ONE_CHARGE_A_TASK in caught.value.broken


def test_doubt_that_is_sent_again_by_itself_is_paid_twice(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken) as caught:
        blow(lost_answer("doubt resubmitted"), tmp_path)

    assert caught.value.broken >= {Invariant.CAUSE, Invariant.PROOF_HOLDS, Invariant.RULE_10}
    assert Invariant.ONE_CHARGE_A_TASK in caught.value.broken


@pytest.mark.parametrize("story", [full_lane, lost_answer])
def test_what_catches_the_others_leaves_the_product_whole(tmp_path: Path, story: Callable[[str], Weather]) -> None:
    plan = story(AS_SHIPPED)

    figures = blow(plan, tmp_path)

    assert figures.charges == len(plan.prompts)
    assert figures.most_at_vendor <= plan.limit
