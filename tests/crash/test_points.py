"""Every named point is the moment that its name says, and each leaves what can be taken up again."""

from pathlib import Path

import pytest

from dujiang.domain.lifecycle import State

from .mortal import Point
from .storm import Kill, Weather, gathering

PROMPT = "江上一叶舟"


@pytest.fixture
def one_task() -> Weather:
    return Weather(seed=0, kills=[], prompts={PROMPT: State.SUCCEEDED}, vendor={"run_fixed_s": 20.0})


@pytest.mark.parametrize(
    ("point", "jobs", "state", "named", "then"),
    [
        (Point.AFTER_SUBMITTING_COMMIT, 0, State.SUBMITTING, False, State.IN_DOUBT),
        (Point.AFTER_SEND, 1, State.SUBMITTING, False, State.IN_DOUBT),
        (Point.AFTER_ACCEPT, 1, State.SUBMITTING, False, State.IN_DOUBT),
        (Point.BEFORE_JOB_ID_COMMIT, 1, State.SUBMITTING, False, State.IN_DOUBT),
        (Point.BEFORE_RENAME, 1, State.COLLECTING, False, State.SUCCEEDED),
        (Point.AFTER_RENAME, 1, State.COLLECTING, True, State.SUCCEEDED),
    ],
)
def test_a_kill_at_a_point_leaves(
    tmp_path: Path, one_task: Weather, point: Point, jobs: int, state: State, *, named: bool, then: State
) -> None:
    """`jobs` at the vendor, one attempt, a task in `state`, and perhaps a picture under its name."""
    with gathering(one_task, tmp_path) as storm:
        assert storm.dies(Kill(point))
        left, pictures = storm.evidence(), list((tmp_path / "home/out/storm/images").glob("*.png"))
        storm.to_the_end()
        after = storm.evidence()

    assert [job["prompt"] for job in left.ledger["charges"]] == [PROMPT] * jobs
    assert point is Point.AFTER_SEND or all(job["answered"] for job in left.ledger["charges"])
    assert [(task["state"], task["files"]) for task in left.tasks] == [(state, None)]
    assert len(left.attempts) == 1
    assert bool(pictures) == named
    assert [task["state"] for task in after.tasks] == [then]
    assert after.ledger["accepted"] == jobs, "nothing was sent again"
    assert not list(after.images.glob("*.part"))


@pytest.mark.parametrize("point", [Point.IN_MIGRATION, Point.BETWEEN_ENQUEUES])
def test_a_kill_at_the_start_is_made_good_by_starting_again(tmp_path: Path, point: Point) -> None:
    prompts = {f"第 {n} 幅": State.SUCCEEDED for n in range(21)}  # one more than a page
    plan = Weather(seed=0, kills=[Kill(point)], prompts=prompts, vendor={"instant": True})

    with gathering(plan, tmp_path) as storm:
        figures = storm.blow()

    assert figures.charges == len(prompts)
