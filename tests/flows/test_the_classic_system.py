"""The three scenarios of the system that studios know, and what happens to them now."""

from itertools import pairwise
from pathlib import Path

import pytest

from dujiang.domain.errors import LaneFull
from dujiang.domain.lifecycle import State
from dujiang.runner.worker import RunEnd
from dujiang.testing import Reply, rehearsal

FLOW = ("batch_started", "limit_reached", "task_ended", "only_rest_left", "batch_ended")

REACHED = "达到并发限制 (3)，等待任务完成..."


def classic_lines(tasks: int, limit: int) -> list[str]:
    """What the classic loop prints when tasks end one at a time: start while there is room, else wait for one."""
    lines = [f"开始处理 {tasks} 个任务，最大并发数: {limit}"]
    running = ended = 0
    for _ in range(tasks):
        if running == limit:
            lines.append(f"达到并发限制 ({limit})，等待任务完成...")
            running, ended = running - 1, ended + 1
            lines.append(f"任务完成 ({ended}/{tasks})，当前并发: {running}")
        running += 1
    if running:
        lines.append(f"等待剩余 {running} 个任务完成...")
    for _ in range(running):
        running, ended = running - 1, ended + 1
        lines.append(f"任务完成 ({ended}/{tasks})，当前并发: {running}")
    return [*lines, "所有任务处理完成"]


async def test_ten_tasks_at_limit_three_are_a_sliding_window_told_in_the_classic_lines(tmp_path: Path) -> None:
    prompts = [f"p{n}" for n in range(10)]
    async with rehearsal(tmp_path, prompts, limit=3) as stage:
        for n, prompt in enumerate(prompts):
            stage.provider.on(prompt, run_s=20 + 3 * n)  # so that they end one at a time
        assert await stage.run() is RunEnd.OVER
        jobs = list(stage.provider.jobs.values())

    assert stage.provider.most_running == 3
    ends = sorted(job.begun_at + job.run_s for job in jobs)
    begins = sorted(job.begun_at for job in jobs)
    assert max(begins[:3]) < 0.2
    for begun, ended in zip(begins[3:], ends, strict=False):
        assert 0 < begun - ended < 2.5  # a new one starts as each ends
    assert stage.log.lines(*FLOW) == classic_lines(10, 3)
    assert stage.log.lines("limit_reached") == [REACHED] * 7


async def test_a_batch_of_one_never_reaches_its_limit(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], limit=3) as stage:
        await stage.run()

    assert stage.log.lines(*FLOW) == classic_lines(1, 3)


@pytest.mark.parametrize("refusals", [2, 20])
async def test_a_submit_refused_with_50430_waits_and_then_succeeds(tmp_path: Path, refusals: int) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[LaneFull("50430", vendor_code="50430")] * refusals)
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        outcomes = [row["outcome"] for row in await stage.attempts(task)]
        at = [call.at for call in stage.provider.submitted]

    waits = [2, 4, 8, *[10] * refusals][:refusals]
    assert [later - sooner - 0.1 for sooner, later in pairwise(at)] == pytest.approx(waits, abs=0.05)
    assert (task.state, task.tries) == (State.SUCCEEDED, 0)
    assert outcomes == [*["refused"] * refusals, "done"]
    assert stage.log.lines("lane_rests")[:2] == [
        "并发已满（50430），第 1 次重试，不限次数，等待 2 秒",
        "并发已满（50430），第 2 次重试，不限次数，等待 4 秒",
    ]


async def test_a_task_that_is_refused_has_not_ended(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=2) as stage:
        stage.provider.limit = 1
        assert await stage.run() is RunEnd.OVER

    assert stage.log.lines("task_ended") == ["任务完成 (1/2)，当前并发: 0", "任务完成 (2/2)，当前并发: 0"]


async def test_a_doubt_is_told_and_the_end_says_that_a_decision_is_needed(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", submits=[Reply.LOST])
        await stage.run()

    assert len(stage.log.lines("submit_unanswered")) == 1
    assert stage.log.lines("batch_held") == ["处理结束，1 个任务存疑，等待决定"]
    assert stage.log.lines("batch_ended") == []
