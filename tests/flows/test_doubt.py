"""Submits whose answer never came: who decides, and what a decision leads to."""

from pathlib import Path

import pytest

from dujiang.domain.errors import Unproven
from dujiang.domain.lifecycle import GivenUp, JobFound, ResubmitDecided, State
from dujiang.runner.worker import RunEnd
from dujiang.testing import Reply, rehearsal


async def test_a_held_doubt_lets_the_batch_end(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b", "c"]) as stage:
        stage.provider.on("b", submits=[Reply.LOST])
        assert await stage.run() is RunEnd.OVER
        assert [task.state for task in await stage.tasks()] == [State.SUCCEEDED, State.IN_DOUBT, State.SUCCEEDED]


async def test_a_policy_of_resubmitting_pays_at_most_as_often_as_it_says(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], on_doubt="resubmit:2") as stage:
        stage.provider.on("a", submits=[Reply.LOST, Reply.NEVER_ARRIVED])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert task.state is State.SUCCEEDED
    assert task.policy_resubmits == 2
    assert stage.provider.charges == ["job-1", "job-2"]


async def test_a_policy_of_failing_ends_the_task(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], on_doubt="fail") as stage:
        stage.provider.on("a", submits=[Unproven("HTTP 503", vendor_code="503")])
        await stage.run()
        task = await stage.task("a")

    assert (task.state, task.error_code) == (State.FAILED, "given_up")
    assert "503" in (task.error_message or "")


async def test_a_policy_decides_about_what_an_earlier_run_left_in_doubt(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], on_doubt="resubmit:1") as stage:
        stage.provider.on("a", submits=[Reply.NEVER_ARRIVED])
        await stage.start()
        await stage.clock.sleep(10)
        await stage.kill()
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED
        assert stage.provider.charges == ["job-1"]


@pytest.mark.parametrize("decided", [ResubmitDecided(), JobFound("job-1"), GivenUp()])
async def test_a_decision_is_heard_by_a_program_that_runs(tmp_path: Path, decided: object) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=3) as stage:
        stage.provider.on("a", submits=[Reply.LOST])
        stage.provider.on("b", run_s=200)
        running = await stage.start()
        await stage.clock.sleep(30)
        await stage.elsewhere.record(await stage.task("a"), decided)  # type: ignore[arg-type]
        await stage.clock.sleep(30)
        ended = await stage.task("a")
        assert await running is RunEnd.OVER

    assert ended.state is (State.FAILED if isinstance(decided, GivenUp) else State.SUCCEEDED)
    assert stage.provider.submits_of("a") == (2 if isinstance(decided, ResubmitDecided) else 1)


async def test_a_job_that_somebody_found_wrongly_is_lost(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[Reply.NEVER_ARRIVED])
        await stage.run()
        await stage.elsewhere.record(await stage.task("a"), JobFound("another"))
        await stage.run()
        assert (await stage.task("a")).state is State.LOST
