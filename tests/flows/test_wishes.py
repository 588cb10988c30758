"""What people ask of a program that runs: cancel, pause, stop; and what happens when it breaks."""

import asyncio
from pathlib import Path

import pytest

from dujiang.domain.errors import EndpointDown, LaneFull, StoreError
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.ports import Worker
from dujiang.runner.worker import RunEnd
from dujiang.testing import rehearsal

# -- cancel -----------------------------------------------------------------------------------------------------------


async def test_a_waiting_task_is_cancelled_at_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        told = await stage.elsewhere.cancel(task_ids=[(await stage.task("b")).id])
        assert (await stage.task("b")).state is State.CANCELLED
        assert await running is RunEnd.OVER

    assert told == {"cancelled": 1, "requested": 0, "refused": 0}
    assert stage.provider.submits_of("b") == 0


async def test_a_cancelled_task_whose_submit_is_refused_is_not_sent_again(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.answer_s = 10
        stage.provider.on("a", submits=[LaneFull("50430")])
        running = await stage.start()
        await stage.clock.sleep(2)
        await stage.elsewhere.cancel(task_ids=[1])
        assert await running is RunEnd.OVER
        assert (await stage.task("a")).state is State.CANCELLED

    assert len(stage.provider.submitted) == 1


async def test_a_task_that_is_cancelled_while_it_is_submitted_is_asked_for_once_it_has_a_job(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.answer_s, stage.provider.queue_s = 10, 60
        stage.provider.on("a", run_s=90)
        running = await stage.start()
        await stage.clock.sleep(2)
        await stage.elsewhere.cancel(task_ids=[1])
        await stage.clock.sleep(3)  # the program has heard of it by now, and there is no job yet
        assert await running is RunEnd.OVER
        assert (await stage.task("a")).state is State.CANCELLED

    assert [call.at for call in stage.provider.cancelled] == [pytest.approx(10, abs=0.1)]
    assert stage.provider.charges == []


async def test_a_cancel_right_after_the_start_is_heard_within_a_second_or_two(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.queue_s = 60
        running = await stage.start()
        await stage.clock.sleep(0.5)
        await stage.elsewhere.cancel(task_ids=[1])
        assert await running is RunEnd.OVER

    assert stage.provider.cancelled[0].at < 2.1


@pytest.mark.parametrize(("queue_s", "ends"), [(15.0, State.CANCELLED), (0.0, State.SUCCEEDED)])
async def test_a_job_is_cancelled_if_it_has_not_begun_and_collected_otherwise(
    tmp_path: Path, queue_s: float, ends: State
) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.queue_s = queue_s
        running = await stage.start()
        await stage.clock.sleep(5)
        assert (await stage.elsewhere.cancel(task_ids=[1]))["requested"] == 1
        assert await running is RunEnd.OVER
        assert (await stage.task("a")).state is ends

    assert len(stage.provider.cancelled) == 1


async def test_a_cancel_that_was_not_heard_is_asked_for_again(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.queue_s = 200
        stage.provider.on("a", run_s=300)
        running = await stage.start()
        await stage.clock.sleep(5)
        stage.provider.down = EndpointDown("no network")
        await stage.elsewhere.cancel(task_ids=[1])
        await stage.clock.sleep(30)
        stage.provider.down = None
        assert await running is RunEnd.OVER
        assert (await stage.task("a")).state is State.CANCELLED


async def test_asking_to_cancel_does_not_hold_up_new_work(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b", "c", "d"], limit=2) as stage:
        cancel = stage.provider.cancel

        async def slowly(*args: str) -> None:
            await stage.clock.sleep(30)
            await cancel(*args)  # type: ignore[arg-type]

        stage.provider.cancel = slowly  # type: ignore[assignment,method-assign]
        stage.provider.on("a", run_s=100)
        running = await stage.start()
        await stage.clock.sleep(18)
        await stage.elsewhere.cancel(task_ids=[1])
        await running
        at = {call.prompt: call.at for call in stage.provider.submitted}

    assert at["c"] < 22


# -- pause ------------------------------------------------------------------------------------------------------------


async def test_a_pause_starts_nothing_and_what_runs_is_collected(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(4)], limit=1) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        await stage.elsewhere.pause(stage.batch.id, paused=True)
        await stage.clock.sleep(300)
        assert [task.state for task in await stage.tasks()] == [State.SUCCEEDED] + [State.READY] * 3
        assert not running.done()

        await stage.elsewhere.pause(stage.batch.id, paused=False)
        let_go_at = stage.clock.elapsed()
        assert await running is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert 0 <= stage.provider.submitted[1].at - let_go_at <= 1.1


async def test_a_pause_right_after_the_start_is_heard_too(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(4)], limit=1) as stage:
        running = await stage.start()
        await stage.clock.until(lambda: bool(stage.provider.submitted))
        await stage.elsewhere.cancel(task_ids=[2])
        await stage.elsewhere.pause(stage.batch.id, paused=True)
        await stage.clock.sleep(100)
        assert len(stage.provider.submitted) == 1
        await stage.elsewhere.pause(stage.batch.id, paused=False)
        await running


# -- stop -------------------------------------------------------------------------------------------------------------


async def test_a_stop_finishes_what_runs_and_claims_nothing(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(9)], limit=3) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        stage.worker.stop()
        assert await running is RunEnd.INTERRUPTED
        states = [task.state for task in await stage.tasks()]
        assert await stage.run() is RunEnd.OVER

    assert states == [State.SUCCEEDED] * 3 + [State.READY] * 6
    assert len(stage.provider.charges) == 9


async def test_a_stop_does_not_spin_and_adopts_nothing_more(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=2) as stage:
        stage.provider.on("a", run_s=100)
        running = await stage.start()
        await stage.clock.sleep(5)
        stage.worker.stop()
        calls = _counted(stage.worker)
        await running

    assert len(calls) < 30, "a hundred seconds, looked around now and then"


def _counted(worker: object) -> list[None]:
    calls: list[None] = []
    rescue = worker._rescue  # type: ignore[attr-defined]

    async def counted() -> None:
        calls.append(None)
        await rescue()

    worker._rescue = counted  # type: ignore[attr-defined]
    return calls


async def test_a_quick_stop_waits_for_answers_to_submits_and_for_nothing_else(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.answer_s = 10
        running = await stage.start()
        await stage.clock.sleep(2)
        stage.worker.stop(quick=True)
        assert await running is RunEnd.INTERRUPTED
        stopped_at = stage.clock.elapsed()
        assert [task.state for task in await stage.tasks()] == [State.GENERATING, State.READY]
        assert await stage.run() is RunEnd.OVER

    assert stopped_at == pytest.approx(10, abs=0.1)
    assert len(stage.provider.charges) == 2


async def test_leaving_now_loses_nothing(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b", "c"], limit=2) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        stage.worker.leave()
        assert await running is RunEnd.INTERRUPTED
        assert stage.clock.elapsed() == pytest.approx(5)
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert len(stage.provider.charges) == 3


# -- faults of our own ------------------------------------------------------------------------------------------------


class Bug(Exception):
    """Something that nobody foresaw."""


@pytest.mark.parametrize("where", ["look", "save"])
async def test_a_fault_of_our_own_ends_the_run_loudly_and_loses_nothing(tmp_path: Path, where: str) -> None:
    async with rehearsal(tmp_path, ["a", "b", "c"], limit=2) as stage:
        stage.provider.answer_s = 5
        part = stage.provider if where == "look" else stage.store
        whole = getattr(part, where)
        broken = asyncio.Event()
        broken.set()

        async def breaking(*args: object) -> object:
            if broken.is_set():
                raise Bug
            return await whole(*args)

        setattr(part, where, breaking)
        with pytest.raises(Bug):
            await stage.run()
        assert State.IN_DOUBT not in {task.state for task in await stage.tasks()}

        broken.clear()
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert len(stage.provider.charges) == 3


async def test_submits_on_their_way_are_written_down_before_a_broken_run_ends(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=2) as stage:
        stage.provider.answer_s = 20
        submit = stage.provider.submit

        async def breaking(request: object, *args: object) -> object:
            if request.prompt == "a":  # type: ignore[attr-defined]
                await stage.clock.sleep(1)
                raise Bug
            return await submit(request, *args)  # type: ignore[arg-type]

        stage.provider.submit = breaking  # type: ignore[method-assign,assignment]
        with pytest.raises(Bug):
            await stage.run()
        assert (await stage.task("b")).state is State.GENERATING
        assert (await stage.task("b")).attempt is not None
        assert (await stage.task("a")).state is State.SUBMITTING

        assert await stage.run() is RunEnd.OVER
        assert [task.state for task in await stage.tasks()] == [State.IN_DOUBT, State.SUCCEEDED]


async def test_a_fault_during_a_stop_is_told_all_the_same(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        look = stage.provider.look

        async def breaking(*args: str) -> object:
            if stage.clock.elapsed() > 6:
                raise Bug
            return await look(*args)  # type: ignore[arg-type]

        stage.provider.look = breaking  # type: ignore[assignment,method-assign]
        running = await stage.start()
        await stage.clock.sleep(3)
        stage.worker.stop()
        with pytest.raises(Bug):
            await running


async def test_a_heart_that_stops_is_told_and_not_lived_with(tmp_path: Path) -> None:
    """A worker that no longer shows that it lives would be taken over while it works."""
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        stage.provider.on("a", run_s=600)
        running = await stage.start()

        async def breaking(*args: object) -> bool:
            raise Bug

        stage.worker._engine.heartbeat = breaking  # type: ignore[assignment,method-assign]
        with pytest.raises(Bug):
            await running

    assert stage.clock.elapsed() < 15


async def test_whoever_left_is_not_called_back_by_its_last_sign_of_life(tmp_path: Path) -> None:
    calls: list[str] = []
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        stage.provider.on("a", run_s=600)
        running = await stage.start()
        began, goes_on, left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        engine = stage.worker._engine
        heartbeat, unregister = engine.heartbeat, engine.unregister

        async def slow(worker: Worker) -> bool:
            began.set()
            await goes_on.wait()
            calls.append("heartbeat")
            return await heartbeat(worker)

        async def noted(worker: Worker) -> None:
            calls.append("unregister")
            await unregister(worker)
            left.set()

        engine.heartbeat, engine.unregister = slow, noted  # type: ignore[method-assign]
        await began.wait()
        stage.worker.leave()
        for _ in range(20):
            await asyncio.sleep(0)
        goes_on.set()
        assert await running is RunEnd.INTERRUPTED
        await left.wait()

        assert calls == ["heartbeat", "unregister"]


async def test_who_leaves_before_anything_has_begun_is_interrupted_and_has_no_rate(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        begun = asyncio.Event()
        running = await stage.start()

        async def never(*args: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        stage.worker._engine.register = never  # type: ignore[assignment,method-assign]
        await begun.wait()
        stage.worker.leave()
        assert await running is RunEnd.INTERRUPTED
        assert stage.worker.rate(["jimeng_t2i_v40"]).tasks_a_minute is None

    assert stage.provider.submitted == []


async def test_a_database_that_refuses_ends_the_run_and_not_the_jobs(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        running = await stage.start()
        await stage.clock.sleep(5)
        claim = stage.sql.claim

        async def refusing(*args: object) -> object:
            raise StoreError("disk full", why="full")

        stage.sql.claim = refusing  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreError):
            await running
        stage.sql.claim = claim  # type: ignore[method-assign]
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}


@pytest.mark.parametrize(("times", "ends"), [(5, State.SUCCEEDED), (6, State.IN_DOUBT)])
async def test_a_job_id_is_not_given_up_for_a_database_that_refuses_for_a_while(
    tmp_path: Path, times: int, ends: State
) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        record = stage.sql.record
        left = times

        async def refusing(task: object, event: object, *args: object) -> object:
            nonlocal left
            if type(event).__name__ == "Accepted" and left:
                left -= 1
                raise StoreError("disk full", why="full")
            return await record(task, event, *args)  # type: ignore[arg-type]

        stage.sql.record = refusing  # type: ignore[method-assign,assignment]
        if ends is State.IN_DOUBT:
            with pytest.raises(StoreError, match="task 1 is job job-1"):
                await stage.run()
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is ends


async def test_a_lane_that_is_never_idle_heeds_a_new_limit_within_a_second_or_two(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(600)], limit=60) as stage:
        stage.provider._run_s = lambda chance: chance.uniform(5, 15)
        running = await stage.start()
        await stage.clock.sleep(22)
        (lane,) = [use.lane for use in await stage.elsewhere.lanes() if use.in_use]
        await stage.elsewhere.set_limit(lane, FixedLimit(5))
        at = stage.clock.elapsed()
        await stage.clock.sleep(30)
        late = [call for call in stage.provider.submitted if at + 2.5 < call.at < at + 6]
        await stage.kill()
        assert running.done()

    assert late == []  # those that run fill the smaller lane for a while
