"""When a batch is over, and what its owner decided beforehand about doubts."""

import re

import pytest

from dujiang.domain.batch import BatchState, OnDoubt, batch_state, is_over
from dujiang.domain.lifecycle import FINAL, Decider, GivenUp, ResubmitDecided, State
from tests.builders import a_task


@pytest.mark.parametrize("text", ["hold", "fail", "resubmit:1", "resubmit:9"])
def test_a_policy_is_written_as_it_is_read(text: str) -> None:
    assert str(OnDoubt.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "resubmit", "resubmit:", "resubmit:0", "resubmit:10", "resubmit:-1", "resubmit:x", "hold:1", "fail:1", "Hold"],
)
def test_other_policies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        OnDoubt.parse(text)


def test_holding_leaves_it_to_a_person() -> None:
    assert OnDoubt().decision(a_task(State.IN_DOUBT)) is None


def test_failing_is_decided_at_once() -> None:
    assert OnDoubt("fail").decision(a_task(State.IN_DOUBT)) == GivenUp(Decider.POLICY)


def test_a_task_is_sent_again_so_many_times_and_then_left_to_a_person() -> None:
    policy = OnDoubt.parse("resubmit:2")

    decided = [policy.decision(a_task(State.IN_DOUBT, policy_resubmits=times)) for times in range(4)]

    assert decided == [ResubmitDecided(Decider.POLICY)] * 2 + [None] * 2


def test_nothing_is_sent_again_against_a_wish_to_cancel() -> None:
    assert OnDoubt.parse("resubmit:2").decision(a_task(State.IN_DOUBT, cancel_requested=True)) is None


def test_a_batch_is_over_when_nothing_but_final_and_held_tasks_is_left() -> None:
    for state in State:
        assert is_over({state: 1, State.SUCCEEDED: 5}) is (state in FINAL | {State.IN_DOUBT})
        assert is_over({state: 0})
    assert is_over({})


@pytest.mark.parametrize(
    ("counts", "paused", "state"),
    [
        ({}, False, BatchState.DONE),
        ({State.SUCCEEDED: 3, State.FAILED: 1}, False, BatchState.DONE),
        ({State.SUCCEEDED: 3, State.FAILED: 1}, True, BatchState.DONE),
        ({State.SUCCEEDED: 3, State.IN_DOUBT: 1}, True, BatchState.WAITING_DECISION),
        ({State.SUCCEEDED: 3, State.IN_DOUBT: 0}, False, BatchState.DONE),
        ({State.READY: 1, State.IN_DOUBT: 1}, False, BatchState.RUNNING),
        ({State.READY: 1, State.IN_DOUBT: 1}, True, BatchState.PAUSED),
        ({State.COLLECTING: 1}, True, BatchState.PAUSED),
    ],
)
def test_what_a_batch_is_doing(counts: dict[State, int], paused: bool, state: BatchState) -> None:
    assert batch_state(counts, paused=paused) is state
