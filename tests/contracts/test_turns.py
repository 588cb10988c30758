"""Several workers of one batch: each has its turn at the lane."""

from dataclasses import replace

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
