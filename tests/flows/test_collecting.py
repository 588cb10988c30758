"""Bringing pictures home: addresses expire, downloads break, disks are full, and none of it costs a picture."""

from collections import deque
from pathlib import Path

import pytest

from dujiang.domain.errors import DownloadError, RecordGone, StoreError, UrlGone
from dujiang.domain.lifecycle import State
from dujiang.domain.rests import Subject
from dujiang.runner.worker import RunEnd
from dujiang.testing import rehearsal


async def test_an_expired_address_is_asked_for_anew(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.faults["00001"] = deque([UrlGone("403")])
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")
        history = await stage.history(task)
        (attempt,) = await stage.attempts(task)
        tried = [url for _, _, url in stage.store.asked]

    assert history == ["Claimed", "Accepted", "Rendered", "UrlsGone", "Rendered", "Saved"]
    assert len(set(tried)) == 2, "a fresh address"
    assert attempt["outcome"] == "done"
    assert attempt["run_s"] == pytest.approx(20, abs=1)


async def test_asking_for_a_fresh_address_happens_at_once_and_says_nothing_about_run_times(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.faults["00001"] = deque([UrlGone("403")])
        await stage.run()
        lane_times = stage.worker._run_task._with.times
        (seen,) = (seen for seen in lane_times._seen.values() if seen)
        first, second = [at for at, _, _ in stage.store.asked]

    assert len(seen) == 1
    assert second - first < 2


async def test_pictures_whose_address_and_record_are_gone_are_lost(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.is_gone = lambda url: True
        running = await stage.start()
        await stage.clock.until(lambda: len(stage.store.asked) == 3)
        stage.provider.jobs["job-1"].ends = RecordGone("not_found", vendor_code="not_found")
        assert await running is RunEnd.OVER
        task = await stage.task("a")
        (attempt,) = await stage.attempts(task)

    assert (task.state, task.error_code) == (State.LOST, "not_found")
    assert attempt["outcome"] == "lost"


async def test_addresses_that_stay_dead_longer_than_any_record_lives_are_lost(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.is_gone = lambda url: True
        await stage.start()
        await stage.clock.until(lambda: len(stage.store.asked) == 3)
        await stage.kill()
        await stage.clock.sleep(13 * 3600)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.LOST


@pytest.mark.parametrize("faults", [1, 4, 5, 23])
async def test_a_download_is_repeated_until_the_picture_is_there(tmp_path: Path, faults: int) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", pictures=2)
        stage.store.faults["00001-2"] = deque([DownloadError("cut")] * faults)
        assert await stage.run() is RunEnd.OVER
        task = await stage.task("a")

    assert task.state is State.SUCCEEDED
    assert len(task.files) == 2
    assert sum(stem == "00001-2" for _, stem, _ in stage.store.asked) == faults + 1


async def test_a_dead_address_after_many_broken_downloads_is_still_asked_for_anew(tmp_path: Path) -> None:
    """Broken downloads say nothing about the record, however many there were."""
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.faults["00001"] = deque([*[DownloadError("cut")] * 25, UrlGone("403")])
        await stage.run()
        assert (await stage.task("a")).state is State.SUCCEEDED


async def test_a_full_disk_rests_and_everything_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=2) as stage:
        stage.store.broken = StoreError("no space left", why="full")
        running = await stage.start()
        await stage.clock.sleep(120)
        (rest,) = await stage.engine.rests()
        bought = len(stage.provider.submitted)
        stage.store.broken, mended_at = None, stage.clock.elapsed()
        assert await running is RunEnd.OVER
        assert await stage.engine.rests() == []
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}
        next_submit = stage.provider.submitted[bought].at

    assert (rest.subject, rest.code, rest.detail) == (Subject.DISK, "disk", "full: no space left")
    assert bought <= 4
    assert next_submit - mended_at < 10


async def test_a_disk_that_was_full_when_a_run_ended_is_tried_by_the_next(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.store.broken = StoreError("no space left", why="full")
        await stage.start()
        await stage.clock.sleep(60)
        await stage.kill()
        stage.store.broken = None
        before = stage.clock.elapsed()
        assert await stage.run() is RunEnd.OVER
        assert stage.provider.submitted[-1].at - before < 2
