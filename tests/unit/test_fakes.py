"""The fakes keep the promises of the ports that they stand for, and time passes only when nothing else happens."""

import asyncio
import time
from pathlib import Path

import pytest

from dujiang.domain.accounts import Key
from dujiang.domain.errors import DownloadError, LaneFull, Unproven
from dujiang.ports import Clock, ImageStore, Look, Provider, ReferenceCheck
from dujiang.testing import FakeClock, FakeLinks, FakeProvider, FakeStore, Reply, a_request, held_engine, rehearsal

KEY = Key("AKLT", "s")


async def test_sleepers_wake_in_the_order_of_their_times_without_any_time_passing() -> None:
    clock, woken, began = FakeClock(), list[tuple[str, float]](), time.monotonic()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.elapsed()))

    await asyncio.gather(sleeper("late", 3600), sleeper("soon", 1), sleeper("never mind", 0))

    assert woken == [("never mind", 0), ("soon", 1), ("late", 3600)]
    assert time.monotonic() - began < 1


async def test_time_stands_still_while_something_real_is_under_way() -> None:
    clock = FakeClock()
    sleeping = asyncio.create_task(clock.sleep(1))

    with clock.held():
        await asyncio.to_thread(time.sleep, 0.05)  # the one thing here that is real
        assert clock.elapsed() == 0
        assert not sleeping.done()
    await sleeping

    assert clock.elapsed() == 1


async def test_time_does_not_pass_while_others_have_work_to_do() -> None:
    clock = FakeClock()

    async def busy() -> float:
        for _ in range(500):
            await asyncio.sleep(0)
        return clock.elapsed()

    _, elapsed = await asyncio.gather(clock.sleep(1), busy())

    assert elapsed == 0


async def test_by_hand_time_passes_only_when_it_is_told_to() -> None:
    clock, ticks = FakeClock(auto=False), list[float]()

    async def ticking() -> None:
        while True:
            await clock.sleep(10)
            ticks.append(clock.elapsed())

    ticker = asyncio.create_task(ticking())
    await clock.settled()
    await clock.advance(9.9)
    assert ticks == []
    await clock.advance(25)
    assert ticks == [10, 20, 30]
    assert clock.elapsed() == pytest.approx(34.9)
    ticker.cancel()


async def test_a_cancelled_sleep_is_forgotten() -> None:
    clock = FakeClock()
    sleeping = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    sleeping.cancel()
    await clock.sleep(10)
    assert clock.elapsed() == 10


async def test_until_waits_for_what_is_true_when_all_is_quiet() -> None:
    clock, seen = FakeClock(), list[int]()

    async def counting() -> None:
        for number in range(10):
            await clock.sleep(1)
            seen.append(number)

    running = asyncio.create_task(counting())
    await clock.until(lambda: len(seen) == 3)
    assert clock.elapsed() == 3
    await running


async def test_what_goes_on_for_ever_is_told() -> None:
    clock = FakeClock(gives_up_after_s=100)

    async def waiting() -> None:
        while True:
            await clock.sleep(30)

    with pytest.raises(AssertionError, match="somebody still waits"):
        await waiting()


async def test_the_wall_clock_can_be_put_back_and_monotonic_time_not() -> None:
    clock = FakeClock()
    before = clock.now()
    clock.set_back(3600)
    assert clock.now() == before - 3600
    assert clock.elapsed() == 0


async def test_the_fakes_are_what_the_ports_ask_for() -> None:
    clock = FakeClock()
    a_clock: Clock = clock
    provider: Provider = FakeProvider(clock)
    store: ImageStore = FakeStore(clock)
    links: ReferenceCheck = FakeLinks(clock)
    assert a_clock.scaled(2) == 2
    for part in (provider, store):
        await part.aclose()
    assert await links.missing(["https://example.com/a.png"]) is None


async def test_a_vendor_follows_its_script_and_then_does_well() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, run_s=10)
    provider.on("a", submits=[LaneFull("50430"), Reply.LOST], looks=[Unproven("reset")], pictures=2)
    request = a_request("a")
    for refusal in (LaneFull, Unproven):
        with pytest.raises(refusal):
            await provider.submit(request, (), KEY)
    job = await provider.submit(request, (), KEY)
    with pytest.raises(Unproven):
        await provider.look(job.id, "", KEY)

    assert await provider.look(job.id, "", KEY) == Look(None)
    assert (provider.running, provider.most_running, provider.charges) == (2, 2, ["job-1", "job-2"])
    await clock.sleep(10)
    assert len((await provider.look(job.id, "", KEY)).urls or ()) == 2
    assert provider.running == 0


async def test_a_vendor_with_a_limit_refuses_what_is_too_much() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, run_s=10, limit=1)
    await provider.submit(a_request("a"), (), KEY)
    with pytest.raises(LaneFull):
        await provider.submit(a_request("b"), (), KEY)
    await clock.sleep(10)
    await provider.submit(a_request("b"), (), KEY)


async def test_a_store_breaks_as_it_is_told() -> None:
    store = FakeStore(FakeClock())
    store.broken = DownloadError("cut")
    with pytest.raises(DownloadError):
        await store.save("https://fake.invalid/1", Path("x"), "a")
    store.broken = None
    assert (await store.save("https://fake.invalid/1", Path("x"), "a")).path == "a.png"


async def test_two_rehearsals_with_one_seed_are_the_same_to_the_millisecond(tmp_path: Path) -> None:
    async def rehearsed(folder: Path) -> list[tuple[float, str]]:
        async with rehearsal(folder, [f"p{n}" for n in range(12)], clock=FakeClock(seed=3)) as stage:
            stage.provider._run_s = lambda chance: chance.uniform(5, 40)
            await stage.run()
            return [(round(call.at, 3), call.prompt) for call in stage.provider.submitted + stage.provider.looked]

    assert await rehearsed(tmp_path / "one") == await rehearsed(tmp_path / "two")


async def test_a_held_engine_passes_everything_on(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"]) as stage:
        await stage.run()
        engine = held_engine(stage.sql, stage.clock)
        assert [task.name async for task in engine.finished(stage.batch.id)] == ["00001", "00002"]
