"""References from files: published once, ahead of the slots, and known to work when a paid submit uses them."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from dujiang.domain.errors import (
    EndpointDown,
    HostDown,
    HostRefused,
    LinkUnreachable,
    PictureRefused,
    PictureUnfit,
    StoreError,
)
from dujiang.domain.lifecycle import State
from dujiang.domain.requests import Request
from dujiang.domain.rests import Subject
from dujiang.runner.worker import RunEnd
from dujiang.testing import GUARD_S, Rehearsal, a_picture, a_request, rehearsal

RESET = HostDown("connection reset", why="reset", soon=True)
AWAY = HostDown("HTTP 503", why="503", soon=True)


def with_pictures(prompt: str, *paths: str) -> Request:
    return a_request(prompt, references=[a_picture(path) for path in paths])


def pauses(stage: Rehearsal) -> list[float]:
    """Seconds from each answer of the host to the next upload."""
    assert stage.host is not None
    return [later - sooner - stage.host.upload_s for (sooner, _), (later, _) in pairwise(stage.host.asked)]


async def ended(running: asyncio.Task[RunEnd]) -> RunEnd:
    """How a life ends; a run that hangs fails its test."""
    async with asyncio.timeout(GUARD_S):
        return await running


def as_seconds(*seconds: float) -> object:
    return pytest.approx(seconds, abs=0.05)


async def test_references_are_published_in_order_and_sent_as_links(tmp_path: Path) -> None:
    request = a_request("a", references=[a_picture("/1.png"), "https://example.com/2.png", a_picture("/3.png")])
    async with rehearsal(tmp_path, [request]) as stage:
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        history = await stage.history(task)

    assert stage.host is not None
    first, third = stage.host.items
    assert stage.provider.submitted[0].references == (first, "https://example.com/2.png", third)
    assert [stage.host.items[first], stage.host.items[third]] == [b"/1.png", b"/3.png"]
    assert history == ["PreparationStarted", "Prepared", "Claimed", "Accepted", "Rendered", "Saved"]


async def test_an_upload_with_two_resets_waits_one_second_then_two_and_succeeds(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png")]) as stage:
        assert stage.host is not None
        stage.host.faults.extend([RESET, RESET])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert pauses(stage) == as_seconds(1, 2)
    assert task.state is State.SUCCEEDED
    assert stage.log.lines("upload_again") == [
        f"任务 {task.id} 的参考图 1/1 上传失败（connection reset），第 1/3 次重试，等待 1.0 秒",
        f"任务 {task.id} 的参考图 1/1 上传失败（connection reset），第 2/3 次重试，等待 2.0 秒",
    ]


async def test_after_its_tries_the_host_rests_and_no_task_is_to_blame(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), with_pictures("b", "/2.png")]) as stage:
        assert stage.host is not None
        stage.uploads_at_once = 1
        stage.host.faults.extend([AWAY] * 5)
        assert await stage.run() is RunEnd.OVER
        states = {task.state for task in await stage.tasks()}

    # Four tries, the host's rest of 10 s, one task looks, fails and waits for its own retry.
    assert pauses(stage)[:5] == as_seconds(1, 2, 4, 10, 1)
    assert states == {State.SUCCEEDED}


async def test_a_host_that_is_away_for_five_minutes_fails_no_task(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}.png") for n in range(20)]
    async with rehearsal(tmp_path, requests) as stage:
        assert stage.host is not None
        stage.host.down = AWAY
        running = await stage.start()
        await stage.clock.sleep(300)
        waiting = {task.state for task in await stage.tasks()}
        knocks = len(stage.host.asked)
        stage.host.down = None
        assert await ended(running) is RunEnd.OVER
        tasks = await stage.tasks()

    assert waiting <= {State.QUEUED, State.PREPARING}
    assert knocks < 3 * 4 + 6 * 4  # three uploads at once with their tries, then one look a rest
    assert {task.state for task in tasks} == {State.SUCCEEDED}
    assert stage.clock.elapsed() < 300 + 130 + 20 * 25 / 3  # it was noticed within the longest rest


async def test_the_same_bytes_are_uploaded_once_whoever_asks_for_them(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n % 12}.png", f"/{(n + 1) % 12}.png") for n in range(60)]
    async with rehearsal(tmp_path, requests, limit=10) as stage:
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert stage.host is not None
    assert len(stage.host.asked) == len(stage.host.items) == 12


async def test_uploads_of_all_tasks_together_are_no_more_than_are_allowed(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}.png") for n in range(20)]
    async with rehearsal(tmp_path, requests, limit=20) as stage:
        assert await stage.run() is RunEnd.OVER

    assert stage.host is not None
    assert stage.host.most_at_once == 3


async def test_uploads_run_ahead_of_the_slots_but_not_without_bound(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n:02d}", f"/{n}.png") for n in range(30)]
    async with rehearsal(tmp_path, requests, limit=1) as stage:
        stage.prepare_ahead = 5
        await stage.start()
        await stage.clock.sleep(15)  # one job runs, and it takes 20 s
        states = [task.state for task in await stage.tasks()]
        await stage.kill()

    assert states.count(State.GENERATING) == 1
    assert states.count(State.READY) == 5
    assert states.count(State.QUEUED) == 24


async def test_a_slot_that_becomes_free_finds_a_task_that_is_prepared(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}a.png", f"/{n}b.png") for n in range(9)]
    async with rehearsal(tmp_path, requests, limit=3) as stage:
        stage.provider.on("p0", run_s=20)
        assert await stage.run() is RunEnd.OVER
        submits = [call.at for call in stage.provider.submitted]
        ends = sorted(job.begun_at + job.run_s for job in stage.provider.jobs.values())

    assert all(begun - ended < 2.0 for begun, ended in zip(submits[3:], ends, strict=False))


async def test_a_picture_that_the_host_refuses_fails_its_task_alone(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), with_pictures("b", "/2.png")]) as stage:
        assert stage.host is not None
        stage.uploads_at_once = 1
        stage.host.faults.append(PictureRefused("err 3 图片违规"))
        assert await stage.run() is RunEnd.OVER
        refused, other = await stage.task("a"), await stage.task("b")

    assert (refused.state, refused.error_code, refused.error_message) == (
        State.FAILED,
        "picture_refused",
        "err 3 图片违规",
    )
    assert other.state is State.SUCCEEDED


async def test_two_refused_pictures_in_a_row_rest_the_account(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}.png") for n in range(4)]
    async with rehearsal(tmp_path, requests) as stage:
        assert stage.host is not None
        stage.uploads_at_once = 1
        stage.host.faults.extend([PictureRefused("no"), PictureRefused("no")])
        running = await stage.start()
        await stage.clock.sleep(30)
        (rest,) = [rest for rest in await stage.engine.rests() if rest.subject is Subject.HOST]
        assert await ended(running) is RunEnd.OVER
        states = [task.state for task in await stage.tasks()]

    assert (rest.code, rest.detail, rest.length_s) == ("host_refusals", "2 pictures refused in a row", 60)
    assert pauses(stage) == as_seconds(0, 60, 0)
    assert states == [State.FAILED, State.FAILED, State.SUCCEEDED, State.SUCCEEDED]


@pytest.mark.parametrize("at_once", [1, 3])
async def test_a_fifth_refusal_that_would_suspend_the_account_is_not_risked(tmp_path: Path, at_once: int) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}.png") for n in range(9)]
    async with rehearsal(tmp_path, requests) as stage:
        assert stage.host is not None
        stage.uploads_at_once = at_once
        stage.host.down = PictureRefused("no")
        await stage.start()
        await stage.clock.sleep(1800)
        asked = len(stage.host.asked)
        await stage.kill()

    assert asked == 4


async def test_a_refused_token_ends_a_run_that_has_nothing_else_to_do(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), "b"]) as stage:
        assert stage.host is not None
        stage.host.down = HostRefused("err 1 token 无效")
        assert await stage.run() is RunEnd.CREDENTIALS
        assert (await stage.task("a")).state is State.QUEUED
        assert (await stage.task("b")).state is State.SUCCEEDED

        stage.host.down = None
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED


async def test_without_a_host_what_has_to_be_published_waits(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png")]) as stage:
        stage.host = None
        assert await stage.run() is RunEnd.CREDENTIALS
        assert (await stage.task("a")).state is State.QUEUED

    assert stage.provider.submitted == []


async def test_a_run_gives_up_on_a_host_when_it_was_told_how_long_to_wait(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png")]) as stage:
        assert stage.host is not None
        stage.host.down = AWAY
        running = await stage.start()
        stage.worker.give_up_after_s = 100
        assert await ended(running) is RunEnd.UNREACHABLE
        assert 100 < stage.clock.elapsed() < 300
        assert (await stage.task("a")).state is State.QUEUED


async def test_a_picture_that_was_changed_or_moved_is_its_tasks_own_fault(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), with_pictures("b", "/2.png")]) as stage:
        stage.files.broken["/1.png"] = PictureUnfit("changed")
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        other = await stage.task("b")

    assert (task.state, task.error_code) == (State.FAILED, "picture_unfit")
    assert other.state is State.SUCCEEDED


async def test_a_disk_that_refuses_to_read_keeps_the_task_waiting(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png")]) as stage:
        stage.files.broken["/1.png"] = StoreError("gone", why="gone")
        running = await stage.start()
        await stage.clock.sleep(60)
        waiting = (await stage.task("a")).state
        stage.files.broken.clear()
        assert await ended(running) is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED

    assert waiting in {State.QUEUED, State.PREPARING}


# -- links that may have gone -----------------------------------------------------------------------------------------


async def test_a_link_is_used_without_a_look_while_it_is_fresh_and_looked_at_when_it_is_old(tmp_path: Path) -> None:
    requests = [with_pictures(prompt, "/1.png") for prompt in ("a", "b")]
    async with rehearsal(tmp_path, requests[:1]) as stage:
        await stage.run()
        assert stage.links.asked == []

        await stage.clock.sleep(2 * 3600)
        await stage.add(requests)
        await stage.run()
        assert (await stage.task("b")).state is State.SUCCEEDED

    assert stage.host is not None
    assert stage.links.asked == [(next(iter(stage.host.items)),)]
    assert len(stage.host.asked) == 1


async def test_an_old_link_that_is_gone_is_published_again_before_anything_is_paid(tmp_path: Path) -> None:
    requests = [with_pictures(prompt, "/1.png") for prompt in ("a", "b")]
    async with rehearsal(tmp_path, requests[:1]) as stage:
        await stage.run()
        assert stage.host is not None
        (old,) = stage.host.items
        stage.links.broken = {old}

        await stage.clock.sleep(2 * 3600)
        await stage.add(requests)
        await stage.run()
        assert (await stage.task("b")).state is State.SUCCEEDED

    assert len(stage.host.items) == 2
    assert old not in stage.provider.submitted[-1].references


async def test_a_link_that_grew_old_while_its_task_waited_is_looked_at_before_it_is_paid_for(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), with_pictures("b", "/2.png")], limit=1) as stage:
        stage.uploads_at_once = 1  # so that "a" is prepared, and sent, first
        stage.provider.on("a", run_s=2 * 3600)
        running = await stage.start()
        await stage.clock.sleep(60)
        assert stage.host is not None
        with stage.clock.held():  # a job of two hours is over in a moment
            old = (await stage.task("b")).references[0]
            stage.links.broken = {old}
        assert await ended(running) is RunEnd.OVER
        task = await stage.task("b")
        outcomes = [row["outcome"] for row in await stage.attempts(task)]

    assert task.state is State.SUCCEEDED
    assert outcomes == ["refused", "done"]  # the first was never sent
    assert stage.provider.submits_of("b") == 1
    assert len(stage.host.items) == 3


async def test_50220_publishes_again_what_is_gone_and_only_that(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png", "/2.png")]) as stage:
        stage.provider.on("a", submits=[LinkUnreachable("50220", vendor_code="50220")])
        assert stage.host is not None
        running = await stage.start()
        await stage.clock.until(lambda: len(stage.host.items) == 2 if stage.host else False)
        first, second = stage.host.items
        stage.links.broken = {second}
        assert await ended(running) is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED

    sent = [call.references for call in stage.provider.submitted]
    assert sent[0] == (first, second)
    assert sent[1][0] == first
    assert sent[1][1] not in {first, second}


# -- into the request itself ------------------------------------------------------------------------------------------


async def test_inline_references_go_into_the_request_and_to_no_host(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png")]) as stage:
        stage.inline = lambda model: True
        stage.host = None
        assert await stage.run() is RunEnd.OVER

    assert stage.provider.submitted[0].references == ("data:image/png;base64,LzEucG5n",)


async def test_a_killed_program_uploads_nothing_twice(tmp_path: Path) -> None:
    requests = [with_pictures(f"p{n}", f"/{n}.png") for n in range(12)]
    async with rehearsal(tmp_path, requests) as stage:
        await stage.start()
        await stage.clock.sleep(1.7)  # some are published, some under way
        await stage.kill()
        assert stage.host is not None
        published = len(stage.host.items)
        assert await stage.run() is RunEnd.OVER
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}

    assert 0 < published < 12
    assert len(stage.host.items) == 12


async def test_a_link_that_grew_old_and_still_works_is_used_again(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [with_pictures("a", "/1.png"), with_pictures("b", "/2.png")], limit=1) as stage:
        stage.uploads_at_once = 1
        stage.provider.on("a", run_s=2 * 3600)
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("b")
        outcomes = [row["outcome"] for row in await stage.attempts(task)]

    assert (task.state, outcomes) == (State.SUCCEEDED, ["refused", "done"])
    assert stage.host is not None
    assert len(stage.host.items) == 2
    assert len(stage.links.asked) == 1


async def test_a_picture_that_can_never_be_read_holds_up_nobody_for_long(tmp_path: Path) -> None:
    requests: list[str | Request] = [with_pictures("a", "/1.png"), *(f"p{n}" for n in range(20))]
    async with rehearsal(tmp_path, requests) as stage:
        stage.files.broken["/1.png"] = StoreError("input/output error", why="gone")
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        others = {task.state for task in await stage.tasks() if task.request.prompt != "a"}

    assert (task.state, task.error_code) == (State.FAILED, "picture_unfit")
    assert others == {State.SUCCEEDED}
    assert stage.clock.elapsed() < 600


async def test_a_link_that_is_gone_is_no_answer_of_the_vendor(tmp_path: Path) -> None:
    requests = [with_pictures("a", "/1.png"), with_pictures("b", "/1.png")]
    async with rehearsal(tmp_path, requests[:1]) as stage:
        await stage.run()
        stage.links_good_for_s = 0.5
        await stage.clock.sleep(10)
        stage.provider.down = EndpointDown("refused")
        await stage.add(requests)
        before = stage.clock.elapsed()
        assert await stage.run() is RunEnd.UNREACHABLE
        assert stage.clock.elapsed() - before < 60
