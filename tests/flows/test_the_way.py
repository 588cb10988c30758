"""The way of a task when all goes well, one at a time and many side by side."""

from pathlib import Path

import pytest

from dujiang.domain.errors import LaneFull
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.runner.worker import RunEnd
from dujiang.testing import FakeClock, a_request, rehearsal


async def test_a_task_goes_from_ready_to_a_picture_on_disk(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a cat"]) as stage:
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a cat")

        assert task.state is State.SUCCEEDED
        assert [file.path for file in task.files] == ["00001.png"]
        assert list(stage.store.saved) == [tmp_path / "out" / "rehearsal" / "images" / "00001.png"]
        assert await stage.history(task) == ["Claimed", "Accepted", "Rendered", "Saved"]
        (attempt,) = await stage.attempts(task)

    assert attempt["job_id"] == "job-1"
    assert attempt["request_id"] == "request-job-1"
    assert attempt["run_s"] == pytest.approx(20, abs=1)


async def test_several_pictures_have_numbers_and_are_settled_as_what_came(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [a_request("cats", force_single=False)]) as stage:
        stage.provider.on("cats", pictures=3)
        await stage.run()
        task = await stage.task("cats")
        (attempt,) = await stage.attempts(task)

    assert task.request.images == 15
    assert [file.path for file in task.files] == ["00001-1.png", "00001-2.png", "00001-3.png"]
    assert attempt["images"] == 3


async def test_ten_tasks_slide_through_three_slots(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(10)], limit=3) as stage:
        for n in range(10):
            stage.provider.on(f"p{n}", run_s=15 + 3 * n)
        assert await stage.run() is RunEnd.OVER
        jobs = list(stage.provider.jobs.values())

    assert stage.provider.most_running == 3
    assert [job.prompt for job in jobs] == [f"p{n}" for n in range(10)]
    ends = sorted(job.begun_at + job.run_s for job in jobs)
    late = [job.begun_at - end for job, end in zip(jobs[3:], ends, strict=False)]
    assert all(0 < delay < 2 for delay in late), "a new one starts as each ends"
    assert sum(late) / len(late) < 0.6


async def test_the_next_job_does_not_wait_for_a_download(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.store.save_s = 300
        await stage.run()
        second = stage.provider.submitted[1].at

    assert second < 25


async def test_two_models_have_a_limit_each(tmp_path: Path) -> None:
    rows = [a_request(f"p{n}") for n in range(4)]
    async with rehearsal(tmp_path, rows, limit=2) as stage:
        other = stage.provider.models["3.1"].checked("other", {})[0]
        assert other is not None
        await stage.add([*rows, other])
        await stage.run()
        at = {call.prompt: call.at for call in stage.provider.submitted}

    assert at["other"] == at["p0"] == 0
    assert stage.provider.most_running == 3


async def test_a_limit_that_somebody_sets_holds_for_whoever_runs(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(12)], limit=4) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        for use in await stage.elsewhere.lanes():
            await stage.elsewhere.set_limit(use.lane, FixedLimit(1))
        await stage.clock.sleep(30)  # the four that ran are done
        assert stage.provider.running == 1
        assert await running is RunEnd.OVER


async def test_a_batch_that_is_over_ends_at_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        await stage.run()
        before = stage.clock.elapsed()
        assert await stage.run() is RunEnd.OVER
        assert stage.clock.elapsed() == before
        assert len(stage.provider.submitted) == 1


async def test_a_scaled_run_is_as_much_faster(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], clock=FakeClock(scale=0.1)) as stage:
        stage.provider.on("a", submits=[LaneFull("full")] * 4, run_s=2)
        await stage.run()
        at = [call.at for call in stage.provider.submitted]

    assert at[1:] == pytest.approx([0.3, 0.8, 1.7, 2.8], abs=0.05)  # 0.2, 0.4, 0.8, 1.0 and the answers
