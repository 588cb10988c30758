"""Several workers of one batch: each has its turn at the lane."""

from dataclasses import replace

import pytest

from dujiang.domain import lifecycle as life
from dujiang.domain.limits import FixedLimit
from dujiang.domain.task import Task
from dujiang.engines.sql.lines import GRACE_S
from dujiang.ports import Turn
from tests.builders import a_worker
from tests.contracts.bench import Bench, an_offer


class Member:
    """One of the workers."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.me = a_worker(name)
        self.running: list[Task] = []
        self.jobs = 0

    async def turn(self, limit: int = 3) -> Turn:
        offer = replace(an_offer(self.bench.lane), limit=FixedLimit(limit))
        turn = await self.bench.engine.claim(self.me, [offer], "b")
        for task in turn.tasks:
            self.running.append(await self.bench.engine.record(task, life.Accepted(f"{task.id}"), worker=self.me))
        self.jobs += len(turn.tasks)
        return turn

    async def end_one(self) -> None:
        await self.bench.engine.record(self.running.pop(0), life.Rendered(("u",), 20.0), worker=self.me)


async def members(bench: Bench, count: int, tasks: int = 200) -> list[Member]:
    """Workers that have all asked; the first of them has everything."""
    await bench.rows(*range(tasks))
    found = [Member(bench, f"w{number}") for number in range(count)]
    for member in found:
        await member.turn()
        bench.clock.time += 0.01
    assert len(found[0].running) == 3
    return found


async def test_whoever_has_waited_longest_has_the_next_place_though_others_ask_first(bench: Bench) -> None:
    fleet = await members(bench, 8)

    for _ in range(80):
        bench.clock.time += 7
        await min((each for each in fleet if each.running), key=lambda each: each.running[0].id).end_one()
        for member in fleet:  # the first one always asks first
            await member.turn()

    jobs = [member.jobs for member in fleet]
    assert sum(jobs) == 83
    assert max(jobs) - min(jobs) <= 3


async def test_a_worker_that_is_alone_leaves_nothing(bench: Bench) -> None:
    (alone,) = await members(bench, 1)

    await alone.end_one()
    turn = await alone.turn()

    assert len(turn.tasks) == 1
    assert not turn.is_shared


async def test_a_place_left_to_a_worker_that_does_not_come_is_taken_after_a_moment(bench: Bench) -> None:
    alive, _dead = await members(bench, 2)
    await alive.end_one()

    left = await alive.turn()
    assert (len(left.tasks), left.due_in_s, left.is_shared) == (0, GRACE_S, True)
    bench.clock.time += GRACE_S
    assert len((await alive.turn()).tasks) == 1
    await alive.end_one()
    assert len((await alive.turn()).tasks) == 1, "and it is waited for only once"


async def test_several_free_places_are_shared_out(bench: Bench) -> None:
    first, second, third = await members(bench, 3)
    for _ in range(3):
        await first.end_one()

    taken = [len((await member.turn()).tasks) for member in (second, third, first)]

    assert taken == [2, 1, 0]


async def test_whoever_goes_home_is_not_waited_for(bench: Bench) -> None:
    alive, leaving = await members(bench, 2)

    await bench.engine.unregister(leaving.me)
    await alive.end_one()

    assert len((await alive.turn()).tasks) == 1


async def test_whoever_has_nothing_to_take_does_not_wait(bench: Bench) -> None:
    first, second = await members(bench, 2, tasks=3)
    await bench.rows(3)
    await first.end_one()

    assert len((await first.turn()).tasks) == 1
    assert not (await second.turn()).tasks


async def until_it_takes(bench: Bench, *asking: tuple[Member, int]) -> float:
    """Each asks every tenth of a second, by its own limit, until one gets something; after how many seconds."""
    began = bench.clock.time
    while bench.clock.time - began < 60:
        for member, limit in asking:
            if (await member.turn(limit)).tasks:
                return bench.clock.time - began
        bench.clock.time += 0.1
    raise AssertionError("a free place is never taken")


async def test_nothing_is_left_to_one_whose_own_limit_is_reached(bench: Bench) -> None:
    high, low = await members(bench, 2)
    await high.end_one()
    await low.turn(2)

    assert await until_it_takes(bench, (low, 2), (high, 3)) == 0


@pytest.mark.parametrize("dead", [1, 7, 20])
async def test_many_that_are_gone_cost_a_moment_together(bench: Bench, dead: int) -> None:
    fleet = await members(bench, dead + 2)
    await fleet[0].end_one()

    assert await until_it_takes(bench, (fleet[-1], 3)) <= GRACE_S + 0.2


async def test_whoever_was_taken_over_waits_for_nothing_any_more(bench: Bench) -> None:
    owner, gone, alive = await members(bench, 3)
    await bench.engine.register(gone.me)
    await owner.end_one()
    await bench.engine.adopt(alive.me, replace(gone.me, silent_s=0.0), lambda lane_id: 0.0)

    assert await until_it_takes(bench, (alive, 3)) == 0


async def test_one_that_may_have_little_leaves_others_what_is_left_besides(bench: Bench) -> None:
    owner, _waits = await members(bench, 2)
    for _ in range(2):
        await owner.end_one()
    little = replace(an_offer(bench.lane), limit=FixedLimit(3), at_most=1)

    assert len((await bench.engine.claim(a_worker("little"), [little], "b")).tasks) == 1, "two were free, one waits"


async def test_nobody_waits_for_what_is_not_there(bench: Bench) -> None:
    first, _second = await members(bench, 2, tasks=4)
    await bench.engine.cancel(batch_id="b")
    await first.end_one()

    turn = await first.turn()

    assert not turn.is_shared
    assert turn.due_in_s is None
