"""What follows when the vendor, the network or an account says no: who waits, how long, and who is not to blame."""

from itertools import pairwise
from pathlib import Path

import pytest

from dujiang.domain.accounts import Account, Key
from dujiang.domain.errors import (
    AccountRefused,
    ContentBlocked,
    EndpointDown,
    LaneFull,
    LinkUnreachable,
    OutputBlocked,
    RequestRefused,
    TooFast,
)
from dujiang.domain.lifecycle import State
from dujiang.domain.rests import Subject
from dujiang.runner.worker import RunEnd
from dujiang.testing import Rehearsal, a_request, rehearsal

TWO = (Account("a", (Key("AKLTa", "s"),)), Account("b", (Key("AKLTb", "s"),)))
LINK = "https://example.com/a.png"


def pauses(stage: Rehearsal, prompt: str | None = None) -> list[float]:
    """Seconds from each answer to the next submit."""
    at = [call.at for call in stage.provider.submitted if prompt in (None, call.prompt)]
    return [later - sooner - 0.1 for sooner, later in pairwise(at)]


def as_seconds(*seconds: float) -> object:
    return pytest.approx(seconds, abs=0.05)


# -- 50430 ------------------------------------------------------------------------------------------------------------


async def test_a_full_lane_waits_longer_and_longer_up_to_ten_seconds(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[LaneFull("50430")] * 6)
        assert await stage.run() is RunEnd.OVER

    assert pauses(stage) == as_seconds(2, 4, 8, 10, 10, 10)


async def test_a_task_that_is_refused_twenty_times_still_succeeds_and_has_used_no_try(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[LaneFull("50430")] * 20)
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert (task.state, task.tries) == (State.SUCCEEDED, 0)
    assert pauses(stage) == as_seconds(2, 4, 8, *[10] * 17)
    assert len(stage.provider.jobs) == 1


async def test_an_admission_ends_a_lanes_waiting(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", submits=[LaneFull("50430")] * 4)
        stage.provider.on("b", submits=[LaneFull("50430")] * 2)
        await stage.run()
        task = await stage.task("a")
        outcomes = [row["outcome"] for row in await stage.attempts(task)]

    assert pauses(stage, "b") == as_seconds(2, 4)
    assert outcomes == ["refused"] * 4 + ["done"]
    assert task.tries == 0


async def test_the_rest_of_the_lane_starts_as_soon_as_one_was_admitted(tmp_path: Path) -> None:
    """While something rests one task looks; what it finds is known to all at once, not when it has ended."""
    async with rehearsal(tmp_path, ["a", "b", "c"], limit=3) as stage:
        for prompt in "abc":
            stage.provider.on(prompt, submits=[LaneFull("50430")])
        await stage.run()
        admitted = [job.begun_at for job in stage.provider.jobs.values()]

    assert max(admitted) - min(admitted) < 1


async def test_a_full_lane_is_asked_by_one_task_at_a_time(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(9)], limit=9) as stage:
        stage.provider.limit = 2
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert stage.provider.most_running == 2
    assert len(stage.provider.submitted) < 60


# -- 50429 ------------------------------------------------------------------------------------------------------------


async def test_too_many_requests_pause_the_whole_account_and_no_other(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=1, accounts=TWO) as stage:
        stage.provider.on("p0", submits=[TooFast("50429")])
        other_model = stage.provider.models["3.1"].checked("slow", {})[0]
        assert other_model is not None
        stage.provider.on("slow", run_s=1)
        await stage.add([other_model])
        await stage.run()
        of_a = [call.at for call in stage.provider.submitted if call.key.access == "AKLTa"]
        of_b = [call.at for call in stage.provider.submitted if call.key.access == "AKLTb"]

    first_after = min(at for at in of_a if at > 0.05)
    assert 1 <= first_after <= 2.3
    assert min(of_b) == 0


# -- the endpoint -----------------------------------------------------------------------------------------------------


async def test_an_endpoint_that_never_answered_ends_the_run(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(50)], limit=3) as stage:
        stage.provider.down = EndpointDown("refused")
        assert await stage.run() is RunEnd.UNREACHABLE
        assert 30 <= stage.clock.elapsed() < 50
        assert {task.state for task in await stage.tasks()} == {State.READY}

    assert len(stage.provider.submitted) == 3 + 4  # what had started, then one look after each rest
    assert pauses(stage)[2:] == as_seconds(2, 4, 8, 10)


async def test_after_its_tries_an_endpoint_rests_ten_seconds_doubling_to_two_minutes(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(50)], limit=3) as stage:
        stage.provider.on("p0", submits=[LaneFull("it answers")])
        running = await stage.start()
        await stage.clock.sleep(0.5)
        stage.provider.down = EndpointDown("refused")
        await stage.clock.sleep(420)
        looks = pauses(stage)[3:]
        (rest,) = [rest for rest in await stage.engine.rests() if rest.subject is Subject.ENDPOINT]
        stage.provider.down = None
        assert await running is RunEnd.OVER
        tries = [task.tries for task in await stage.tasks()]

    assert looks[:8] == as_seconds(2, 4, 8, 10, 20, 40, 80, 120)
    assert set(tries) == {0}
    assert (rest.code, rest.detail) == ("network", "refused")


async def test_jobs_that_nobody_can_look_at_do_not_keep_a_run_that_never_got_an_answer(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        stage.provider.down = EndpointDown("refused")
        before = stage.clock.elapsed()
        assert await stage.run() is RunEnd.UNREACHABLE
        assert 30 <= stage.clock.elapsed() - before < 60
        assert (await stage.task("a")).state is State.GENERATING

        stage.provider.down = None
        assert await stage.run() is RunEnd.OVER
        assert stage.provider.submits_of("a") == 1


async def test_a_look_that_was_answered_is_an_answer(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", run_s=200)
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        running = await stage.start()
        await stage.clock.sleep(50)
        stage.provider.down = EndpointDown("refused")
        await stage.clock.sleep(30)
        stage.provider.down = None
        assert await running is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}


async def test_a_run_gives_up_when_it_was_told_how_long_to_wait(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        running = await stage.start()
        stage.worker.give_up_after_s = 100
        await stage.clock.sleep(25)
        stage.provider.down = EndpointDown("refused")
        assert await running is RunEnd.UNREACHABLE
        assert 100 < stage.clock.elapsed() < 300


# -- the account ------------------------------------------------------------------------------------------------------


async def test_a_refused_key_ends_the_run_at_its_start(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"]) as stage:
        stage.provider.down = AccountRefused("unknown access key")
        assert await stage.run() is RunEnd.CREDENTIALS
        assert stage.clock.elapsed() < 1
        assert {task.state for task in await stage.tasks()} == {State.READY}


async def test_a_mended_key_is_tried_at_once_by_the_next_run(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.down = AccountRefused("unknown access key")
        await stage.run()
        stage.provider.down, before = None, stage.clock.elapsed()
        assert await stage.run() is RunEnd.OVER

    assert stage.provider.submitted[-1].at - before < 1


async def test_a_key_that_is_refused_later_is_waited_for(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=1) as stage:
        running = await stage.start()
        await stage.clock.sleep(30)
        stage.provider.down = AccountRefused("overdue", why="overdue")
        await stage.clock.sleep(300)
        details = [rest.detail for rest in await stage.engine.rests() if rest.subject is Subject.ACCOUNT]
        stage.provider.down = None
        assert await running is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert len(details) == 1
    assert details[0].startswith("overdue")


async def test_the_tasks_of_a_refused_account_go_to_the_others(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=1, accounts=TWO) as stage:
        submit = stage.provider.submit

        async def refusing_a(request: object, references: object, key: Key) -> object:
            if key.access == "AKLTa":
                raise AccountRefused("unknown access key")
            return await submit(request, references, key)  # type: ignore[arg-type]

        stage.provider.submit = refusing_a  # type: ignore[method-assign,assignment]
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert {job.key.access for job in stage.provider.jobs.values()} == {"AKLTb"}


# -- content ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["submits", "ends"])
async def test_what_moderation_refuses_is_blocked_and_never_sent_again(tmp_path: Path, where: str) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", **{where: [ContentBlocked("no", vendor_code="50412")]})  # type: ignore[arg-type]
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert (task.state, task.error_code) == (State.BLOCKED, "50412")
    assert len(stage.provider.submitted) == 1
    assert stage.provider.charges == []


@pytest.mark.parametrize("where", ["submits", "ends"])
@pytest.mark.parametrize(("refused", "state"), [(1, "succeeded"), (2, "succeeded"), (3, "blocked")])
async def test_a_refused_output_is_made_anew_at_most_twice(
    tmp_path: Path, where: str, refused: int, state: str
) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        answers = [OutputBlocked("no", vendor_code="50511")] * refused
        stage.provider.on("a", **{where: answers})  # type: ignore[arg-type]
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert task.state == state
    assert len(stage.provider.submitted) == min(refused + 1, 3)


async def test_bad_parameters_fail_the_task_and_nothing_else(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"]) as stage:
        stage.provider.on("a", submits=[RequestRefused("no", vendor_code="50215")])
        await stage.run()
        assert [task.state for task in await stage.tasks()] == [State.FAILED, State.SUCCEEDED]


# -- references -------------------------------------------------------------------------------------------------------


async def test_a_link_that_the_vendor_could_not_fetch_is_checked_and_sent_again_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [a_request("a", references=[LINK])]) as stage:
        stage.provider.on("a", submits=[LinkUnreachable("50220")])
        await stage.run()
        task = await stage.task("a")
        assert await stage.history(task) == [
            *("Claimed", "LinkRefused", "Prepared", "Claimed", "Accepted", "Rendered", "Saved")
        ]

    assert stage.links.asked == [(LINK,)]
    assert [call.references for call in stage.provider.submitted] == [(LINK,), (LINK,)]


async def test_a_link_that_is_refused_twice_fails(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [a_request("a", references=[LINK])]) as stage:
        stage.provider.on("a", submits=[LinkUnreachable("no", vendor_code="50220")] * 5)
        await stage.run()
        task = await stage.task("a")

    assert (task.state, task.error_code) == (State.FAILED, "50220")
    assert len(stage.provider.submitted) == 2


async def test_a_dead_link_fails_without_being_sent_again(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [a_request("a", references=[LINK])]) as stage:
        stage.provider.on("a", submits=[LinkUnreachable("50220")])
        stage.links.broken = {LINK}
        await stage.run()
        task = await stage.task("a")

    assert (task.state, task.error_code) == (State.FAILED, "link")
    assert len(stage.provider.submitted) == 1


async def test_a_check_without_a_network_is_put_off(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [a_request("a", references=[LINK])]) as stage:
        stage.provider.on("a", submits=[LinkUnreachable("50220")])
        stage.links.down = EndpointDown("no network")
        running = await stage.start()
        await stage.clock.sleep(60)
        assert (await stage.task("a")).state is State.QUEUED
        assert len(stage.links.asked) < 10
        stage.links.down = None
        assert await running is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED
