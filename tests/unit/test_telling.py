"""How a batch gets on, counted for whoever is told."""

import pytest

from dujiang.domain.lifecycle import State
from dujiang.runner.telling import Flow
from dujiang.runner.worker import Rate
from dujiang.testing import FakeLog
from tests.builders import a_task


def test_a_run_lasts_from_the_first_task_at_the_vendor_to_the_last_end() -> None:
    flow = Flow(FakeLog(), "b", 2)
    flow.begun(a_task(State.SUBMITTING, id=1), 10.0)
    flow.begun(a_task(State.SUBMITTING, id=2), 12.0)
    assert flow.lasted_s is None

    flow.moved(a_task(State.COLLECTING, id=1), 34.0)
    flow.moved(a_task(State.SUCCEEDED, id=1), 35.0)
    flow.moved(a_task(State.FAILED, id=2), 70.0)

    assert flow.ended_tasks == 2
    assert flow.lasted_s == 60.0


def test_tasks_of_other_batches_are_nobodys_business() -> None:
    flow = Flow(FakeLog(), "another")
    flow.begun(a_task(State.GENERATING), 1.0)
    flow.moved(a_task(State.SUCCEEDED), 2.0)

    assert (flow.ended_tasks, flow.lasted_s) == (0, None)


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (Rate(7.5, 10.0), (7.5, 10.0, 0.75)),
        (Rate(None, 10.0), (None, 10.0, None)),
        (Rate(7.5, None), (7.5, None, None)),
    ],
)
def test_a_rate_is_told_with_what_is_known(rate: Rate, told: tuple[float | None, ...]) -> None:
    assert tuple(rate.told.values()) == told
