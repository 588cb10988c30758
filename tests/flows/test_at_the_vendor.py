"""A job at the vendor: adopted by the next program, answered strangely, or gone."""

from pathlib import Path

import pytest

from dujiang.domain.batch import Batch
from dujiang.domain.errors import JobCancelled, RecordGone, TooFast, Undecided, Unproven
from dujiang.domain.lifecycle import State
from dujiang.runner.worker import RunEnd
from dujiang.testing import rehearsal

EMPTY = Undecided("done, but without a picture", charged=True, polls=4, for_s=0, vendor_code="done")
FAILING = Undecided("the vendor says failed", vendor_code="failed")


async def test_a_task_found_generating_is_not_paid_for_twice(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        (attempt,) = await stage.attempts(task)

    assert task.state is State.SUCCEEDED
    assert len(stage.provider.submitted) == 1
    assert attempt["run_s"] is None, "it was not watched all the time, so nobody knows when it ended"


async def test_a_task_found_collecting_is_brought_home_without_asking_the_vendor(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.save_s = 100
        await stage.start()
        await stage.clock.sleep(40)
        await stage.kill()
        looks = len(stage.provider.looked)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED
        assert len(stage.provider.looked) == looks


async def test_the_jobs_of_another_batch_are_adopted_but_none_is_submitted(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        mine = await stage.engine.open_batch(Batch("mine", "mine", str(tmp_path / "elsewhere"), "mine.csv"))
        await stage.add(["mine"], batch_id="mine")
        assert await stage.run(mine) is RunEnd.OVER
        states = [task.state for task in await stage.tasks()]

    assert states == [State.SUCCEEDED, State.SUCCEEDED, State.READY]  # a, mine, b
    folders = {path.parent for path in stage.store.saved}
    assert folders == {tmp_path / "out" / "rehearsal" / "images", tmp_path / "elsewhere" / "mine" / "images"}


async def test_a_job_whose_record_is_gone_is_lost(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", ends=[RecordGone("not_found", vendor_code="not_found")])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        (attempt,) = await stage.attempts(task)

    assert (task.state, task.error_code) == (State.LOST, "not_found")
    assert attempt["outcome"] == "lost"


async def test_a_job_that_the_vendor_cancelled_is_cancelled(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", ends=[JobCancelled("canceled")])
        await stage.run()
        assert (await stage.task("a")).state is State.CANCELLED


async def test_done_without_a_picture_is_asked_for_three_more_times(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", ends=[EMPTY])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        (attempt,) = await stage.attempts(task)
        done = [look for look in stage.provider.looked if look.at > 20]

    assert (task.state, task.error_code) == (State.FAILED, "done")
    assert attempt["outcome"] == "charged"
    assert len(done) == 4


async def test_pictures_that_come_late_are_taken(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", looks=[EMPTY] * 3, run_s=1)
        await stage.run()
        assert (await stage.task("a")).state is State.SUCCEEDED


async def test_an_undecided_answer_ends_a_job_only_if_it_stays_for_a_minute_and_five_polls(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", ends=[FAILING])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        first = next(look.at for look in stage.provider.looked if look.at > 19.9)
        last = stage.provider.looked[-1].at

    assert (task.state, task.error_code) == (State.FAILED, "failed")
    assert 60 <= last - first < 70
    assert sum(look.at >= first for look in stage.provider.looked) >= 5


@pytest.mark.parametrize("between", [None, Undecided("queueing", vendor_code="other")])
async def test_another_answer_in_between_starts_the_minute_anew(tmp_path: Path, between: Undecided | None) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", run_s=100, looks=[*[FAILING] * 12, between] * 8)
        await stage.run()
        assert (await stage.task("a")).state is State.SUCCEEDED


async def test_a_poll_that_is_too_fast_quietens_every_poll_of_the_account(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(5)], limit=5) as stage:
        stage.provider.on("p0", looks=[None, None, TooFast("50429")])
        await stage.run()
        at = sorted(look.at for look in stage.provider.looked)
        refused = [look.at for look in stage.provider.looked if look.prompt == "p0"][2] + 0.1
        next_look = min(moment for moment in at if moment > refused)

    assert 1 <= next_look - refused < 2.2


async def test_a_run_with_silent_looks_is_not_measured(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", looks=[None, Unproven("reset")])
        await stage.run()
        (attempt,) = await stage.attempts()

    assert attempt["run_s"] is None


async def test_a_living_program_is_not_robbed_of_its_tasks(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=3) as stage:
        first = await stage.start()
        await stage.clock.sleep(5)
        second = await stage.start()
        assert await first is RunEnd.OVER
        assert await second is RunEnd.OVER
        histories = [await stage.history(task) for task in await stage.tasks()]

    assert all(history == ["Claimed", "Accepted", "Rendered", "Saved"] for history in histories)
    assert stage.provider.most_running == 3


async def test_after_a_gap_in_time_every_job_is_looked_at_at_once(tmp_path: Path) -> None:
    """The machine slept: wall time went on, and the next look was minutes away."""
    async with rehearsal(tmp_path, ["a", "b"], limit=2) as stage:
        stage.provider.on("a", run_s=3000)
        stage.provider.on("b", run_s=3000)
        running = await stage.start()
        await stage.clock.sleep(2990)
        looked = len(stage.provider.looked)
        stage.clock.set_back(-600)
        await stage.clock.sleep(1.2)
        assert len(stage.provider.looked) >= looked + 2
        assert await running is RunEnd.OVER

    assert stage.log.lines("woke_up") == ["时间跳跃了 600 秒（休眠？），立即查询所有作业"]
