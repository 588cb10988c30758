"""A user sets nothing: the lane is filled until the vendor refuses, held there, and looked at again now and then."""

import random
from pathlib import Path

import pytest

from dujiang.domain.errors import LaneFull, TooFast
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.domain.rests import Subject
from dujiang.runner.worker import RunEnd
from dujiang.testing import Rehearsal, rehearsal


def lognormal(chance: random.Random) -> float:
    """Run times as the vendor has them: median 22 s, p99 60 s."""
    return chance.lognormvariate(3.09, 0.43)


def utilization(stage: Rehearsal, cap: int) -> float:
    jobs = list(stage.provider.jobs.values())
    first = min(job.begun_at for job in jobs)
    last = max(job.begun_at for job in jobs)
    used = sum(min(job.begun_at + job.run_s, last) - job.begun_at for job in jobs)
    return used / (cap * (last - first))


def refused(stage: Rehearsal) -> int:
    return len(stage.provider.submitted) - len(stage.provider.jobs)


@pytest.mark.parametrize(("cap", "tasks"), [(1, 30), (3, 90), (10, 200)])
async def test_the_cap_is_found_kept_full_and_seldom_overstepped(tmp_path: Path, cap: int, tasks: int) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(tasks)], limit="auto") as stage:
        stage.provider.limit = cap
        stage.provider._run_s = lognormal
        assert await stage.run() is RunEnd.OVER
        states = {task.state for task in await stage.tasks()}
        tries = {task.tries for task in await stage.tasks()}

    assert (states, tries) == ({State.SUCCEEDED}, {0})
    assert stage.provider.most_running == cap
    assert utilization(stage, cap) > 0.95
    assert refused(stage) <= 3 + 3 * tasks / 100


async def test_what_was_found_is_known_to_the_next_run(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(20)], limit="auto") as stage:
        stage.provider.limit = 3
        await stage.run()
        before = refused(stage)
        (use,) = [use for use in await stage.engine.lanes() if use.belief and use.belief.runs]
        assert use.belief is not None
        assert use.belief.level == "3"

        await stage.add([f"q{n}" for n in range(6)])
        await stage.run()
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert refused(stage) - before <= 1  # a probe, perhaps
    assert any(line.startswith("并发上限 default/jimeng_t2i_v40: 3（") for line in stage.log.lines("limit_changed"))


async def test_a_hint_makes_it_look_at_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(120)], limit="auto") as stage:
        stage.provider.limit = 2
        running = await stage.start()
        await stage.clock.sleep(200)
        assert stage.provider.most_running == 2
        stage.provider.limit = 6
        (lane,) = [use.lane for use in await stage.elsewhere.lanes() if use.belief and use.belief.runs]
        assert await stage.elsewhere.hint(lane)
        await stage.clock.sleep(20)
        assert stage.provider.most_running == 6
        assert await running is RunEnd.OVER


async def test_a_limit_that_somebody_has_changed_is_a_hint(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(60)], limit="auto") as stage:
        stage.provider.limit = 2
        await stage.run()
        stage.provider.limit = 6
        await stage.add([f"q{n}" for n in range(60)])
        stage.limit = "auto:1..20"
        running = await stage.start()
        at = stage.clock.elapsed()
        await stage.clock.until(lambda: stage.provider.running == 6)
        noticed_s = stage.clock.elapsed() - at
        await running

    assert noticed_s < 30


async def test_a_cap_that_falls_is_followed_and_nothing_is_lost(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(120)], limit="auto") as stage:
        stage.provider.limit = 8
        running = await stage.start()
        await stage.clock.sleep(120)
        stage.provider.limit = 2
        await stage.clock.sleep(120)
        before = refused(stage)
        await stage.clock.sleep(300)
        assert refused(stage) - before <= 6
        assert stage.provider.running <= 2
        assert await running is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}


async def test_a_vendor_that_refuses_everything_for_a_while_fails_nothing(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(9)], limit="auto") as stage:
        stage.provider.down = LaneFull("50430", vendor_code="50430")
        running = await stage.start()
        await stage.clock.sleep(300)
        knocks = len(stage.provider.submitted)
        stage.provider.down = None
        assert await running is RunEnd.OVER
        states = {task.state for task in await stage.tasks()}
        rests = [rest for rest in await stage.engine.rests() if rest.subject is Subject.LANE]

    assert states == {State.SUCCEEDED}
    assert knocks < 40
    assert rests == []  # the lane waits as its limit says, not as a fixed one would


async def test_too_many_requests_a_second_never_touch_the_limit(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(20)], limit="auto") as stage:
        stage.provider.limit = 2
        running = await stage.start()
        await stage.clock.sleep(100)
        stage.provider.on("p19", submits=[TooFast("50429", vendor_code="50429")] * 3)
        assert await running is RunEnd.OVER
        (use,) = [use for use in await stage.engine.lanes() if use.belief and use.belief.runs]

    assert use.belief is not None
    assert use.belief.level == "2"


async def test_bounds_are_kept(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(40)], limit="auto:1..4") as stage:
        assert await stage.run() is RunEnd.OVER

    assert stage.provider.most_running == 4
    assert refused(stage) == 0


async def test_a_killed_run_leaves_its_jobs_counted(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(30)], limit="auto") as stage:
        stage.provider.limit = 3
        await stage.start()
        await stage.clock.sleep(50)
        await stage.kill()
        before = refused(stage)
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} <= {State.SUCCEEDED, State.IN_DOUBT}

    assert stage.provider.most_running == 3
    assert refused(stage) - before <= 6


async def test_a_lane_that_somebody_has_fixed_learns_nothing_and_takes_no_hint(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(20)], limit="auto") as stage:
        stage.provider.limit = 2
        await stage.run()
        (lane,) = [use.lane for use in await stage.engine.lanes() if use.belief and use.belief.runs]
        await stage.engine.set_limit(lane, FixedLimit(5))
        stage.provider.limit = None
        await stage.add([f"q{n}" for n in range(20)])
        await stage.run()
        (use,) = [use for use in await stage.engine.lanes() if use.lane == lane]
        assert not await stage.engine.hint(lane)

    assert stage.provider.most_running == 5
    assert (use.limit, use.in_force, use.belief) == (FixedLimit(5), FixedLimit(5), None)


async def test_a_pause_is_not_the_end_of_the_line(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(9)], limit=3) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        await stage.elsewhere.pause(stage.batch.id, paused=True)
        await stage.clock.sleep(60)
        assert stage.log.lines("only_rest_left") == []
        await stage.elsewhere.pause(stage.batch.id, paused=False)
        assert await running is RunEnd.OVER
