"""How a lane's slots are shared between batches and accounts: whose turn it is, budgets, pauses, pace."""

import random
from collections import Counter
from dataclasses import replace
from math import inf

import pytest
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.accounts import Lane
from dujiang.domain.lifecycle import State
from dujiang.domain.pictures import LocalPicture
from dujiang.domain.task import Task
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.lines import GRACE_S, LASTS_S
from dujiang.engines.sql.schema import accounts, attempts, batches, lines, tasks
from dujiang.ports import Ahead, Offer, Turn
from tests.builders import ENDPOINT, a_batch, a_row, a_worker, an_account
from tests.contracts.bench import Bench, an_offer

AHEAD = Ahead(tasks=32, at_once=9, req_keys=["k"], host="superbed")


class Program:
    """A program that works for one batch."""

    def __init__(self, bench: Bench, batch_id: str, limit: int = 10) -> None:
        self.bench = bench
        self.batch_id = batch_id
        self.limit = limit
        self.running: list[Task] = []

    async def begin(self, tasks: int, priority: int = 0) -> None:
        await self.bench.engine.open_batch(a_batch(self.batch_id))
        await self.bench.engine.enqueue(self.batch_id, [a_row(number) for number in range(tasks)])
        await self.bench.engine.set_priority(priority, batch_id=self.batch_id)

    async def join(self, tasks: int, priority: int = 0) -> None:
        """Begin, and ask for slots for the first time."""
        await self.begin(tasks, priority)
        await self.turn()

    async def turn(self, *lanes: Lane) -> Turn:
        offers = [replace(an_offer(lane, self.limit), ageing_s=300.0) for lane in lanes or [self.bench.lane]]
        turn = await self.bench.engine.claim(a_worker(self.batch_id), offers, self.batch_id)
        for task in turn.tasks:
            self.running.append(await self.accepted(task))
        return turn

    async def accepted(self, task: Task) -> Task:
        return await self.bench.engine.record(task, life.Accepted(f"job-{task.id}"), worker=a_worker(self.batch_id))

    def oldest(self) -> tuple[float, int]:
        """When the job was sent that ends next; jobs take equally long."""
        return min(((task.attempt.sent_at, task.id) for task in self.running if task.attempt), default=(inf, 0))

    async def end_one(self) -> None:
        task = self.running.pop(0)
        await self.bench.engine.record(task, life.Rendered(("u",), 20.0), worker=a_worker(self.batch_id))


# -- Turns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_twenty_tasks_behind_two_thousand_get_their_share_from_the_next_free_slot_on(
    bench: Bench, limit: int
) -> None:
    many, few = Program(bench, "many", limit), Program(bench, "few", limit)
    await many.join(2000)
    assert len(many.running) == limit
    await few.begin(20)
    assert not (await few.turn()).tasks

    order = ""
    for _ in range(3 * limit):
        bench.clock.time += 20 / limit
        await min((many, few), key=Program.oldest).end_one()
        order += "m" * len((await many.turn()).tasks) + "f" * len((await few.turn()).tasks)

    assert order.startswith("f" * (limit // 2 or 1))
    assert abs(len(many.running) - len(few.running)) <= 1
    assert abs(order[limit:].count("m") - order[limit:].count("f")) <= 2


async def test_a_higher_priority_goes_first_from_the_next_free_slot_on_until_it_has_nothing_ready(
    bench: Bench,
) -> None:
    low, high = Program(bench, "low", 3), Program(bench, "high", 3)
    await low.join(100)
    await high.join(4, priority=1)

    taken = []
    for _ in range(6):
        bench.clock.time += 10
        await (low if low.running else high).end_one()
        taken += [(len((await low.turn()).tasks), len((await high.turn()).tasks))]

    assert taken == [(0, 1)] * 4 + [(1, 0)] * 2


async def test_a_priority_can_be_changed_while_both_run(bench: Bench) -> None:
    one, other = Program(bench, "one", 1), Program(bench, "other", 1)
    await one.begin(100)
    await other.begin(100)
    await one.turn()
    await other.turn()
    await bench.engine.set_priority(-7, batch_id="other")

    for _ in range(4):
        await one.end_one()
        assert not (await other.turn()).tasks
        assert len((await one.turn()).tasks) == 1


async def test_the_priority_of_a_task_counts_beside_that_of_its_batch(bench: Bench) -> None:
    one, other = Program(bench, "one", 1), Program(bench, "other", 1)
    await one.begin(3)
    await other.begin(3)
    await one.turn()
    await other.turn()
    (last,) = [row["id"] for row in bench.read(sa.select(tasks.c.id).where(tasks.c.position == 2))][-1:]
    assert await bench.engine.set_priority(5, task_ids=[last, 999]) == 1

    await one.end_one()
    assert not (await one.turn()).tasks
    (task,) = (await other.turn()).tasks
    assert task.id == last


async def test_a_place_left_to_a_program_that_does_not_come_is_taken_after_a_moment(bench: Bench) -> None:
    here, gone = Program(bench, "here", 1), Program(bench, "gone", 1)
    await here.join(100)
    await gone.begin(100)
    await gone.turn()  # and then it is killed
    await here.end_one()

    turn = await here.turn()
    assert (turn.tasks, turn.due_in_s, turn.is_shared) == ([], GRACE_S, True)
    bench.clock.time += GRACE_S
    assert len((await here.turn()).tasks) == 1
    await here.end_one()
    assert len((await here.turn()).tasks) == 1, "and nothing is left to it any more"


async def test_a_program_that_was_away_for_a_moment_has_its_turns_again(bench: Bench) -> None:
    here, slow = Program(bench, "here", 1), Program(bench, "slow", 1)
    await here.join(100)
    await slow.join(100)
    await here.end_one()
    await here.turn()
    bench.clock.time += GRACE_S
    await here.turn()

    assert not (await slow.turn()).tasks
    await here.end_one()
    assert not (await here.turn()).tasks
    assert len((await slow.turn()).tasks) == 1


async def test_a_line_that_nobody_renews_is_given_up(bench: Bench) -> None:
    here, gone = Program(bench, "here", 1), Program(bench, "gone", 1)
    await here.join(100)
    await gone.join(100)
    await here.end_one()
    bench.clock.time += LASTS_S

    turn = await here.turn()
    assert (len(turn.tasks), turn.is_shared) == (1, False)


async def test_a_line_is_renewed_by_waiting(bench: Bench) -> None:
    here, waits = Program(bench, "here", 1), Program(bench, "waits", 1)
    await here.join(100)
    await waits.begin(100)
    for _ in range(6):
        await here.turn()
        await waits.turn()
        bench.clock.time += LASTS_S / 2

    await here.end_one()
    assert not (await here.turn()).tasks


async def test_however_many_programs_were_killed_they_are_waited_for_at_the_same_time(bench: Bench) -> None:
    here = Program(bench, "here", 1)
    await here.join(100)
    for number in range(5):
        gone = Program(bench, f"gone-{number}", 1)
        await gone.join(3)
    await here.end_one()
    assert not (await here.turn()).tasks

    bench.clock.time += GRACE_S
    assert len((await here.turn()).tasks) == 1


async def test_whoever_is_there_keeps_its_place_when_others_go_first(bench: Bench) -> None:
    here, waits, urgent = (Program(bench, name, 1) for name in ("here", "waits", "urgent"))
    await here.join(100)
    await waits.join(100)
    await here.end_one()
    assert not (await here.turn()).tasks, "left to the one that waits"
    await urgent.begin(1, priority=9)
    assert len((await urgent.turn()).tasks) == 1
    for _ in range(20):
        bench.clock.time += 1
        await waits.turn()

    await urgent.end_one()
    assert not (await here.turn()).tasks, "it was there all the time"
    assert len((await waits.turn()).tasks) == 1


@pytest.mark.parametrize("back_s", [600, 86_400])
async def test_rule_11_a_clock_that_went_back_costs_nobody_its_turns(bench: Bench, back_s: float) -> None:
    one, other = Program(bench, "one", 1), Program(bench, "other", 1)
    await one.begin(100)
    await other.begin(100)
    order = ""
    for turn in range(20):
        bench.clock.time += 20 - (back_s if turn == 9 else 0)
        for program in (one, other):
            for _ in list(program.running):
                await program.end_one()
        order += "1" * len((await one.turn()).tasks) + "2" * len((await other.turn()).tasks)
        bench.clock.time += GRACE_S
        order += "1" * len((await one.turn()).tasks) + "2" * len((await other.turn()).tasks)

    assert "111" not in order[12:], order
    assert "222" not in order[12:], order


async def test_no_place_is_left_to_a_program_whose_own_limit_is_lower(bench: Bench) -> None:
    large, small = Program(bench, "large", 10), Program(bench, "small", 2)
    await large.join(100)
    await small.join(100)

    await large.end_one()
    assert len((await large.turn()).tasks) == 1


@pytest.mark.parametrize("how", ["paused", "nothing ready", "no budget"])
async def test_no_place_is_left_to_a_batch_that_can_take_none(bench: Bench, how: str) -> None:
    here, other = Program(bench, "here", 1), Program(bench, "other", 1)
    await here.join(100)
    await other.join(1)
    if how == "paused":
        await bench.engine.pause("other", paused=True)
    elif how == "no budget":
        await bench.engine.set_budget("other", 0)
    else:
        await bench.engine.cancel(batch_id="other")

    await here.end_one()
    assert len((await here.turn()).tasks) == 1


async def test_rule_11_a_clock_that_went_back_leaves_no_place_to_anybody_for_long(bench: Bench) -> None:
    here, other = Program(bench, "here", 1), Program(bench, "other", 1)
    await here.join(100)
    await other.join(100)
    await here.end_one()
    await here.turn()  # leaves it to the other
    bench.clock.time -= 86_400

    assert len((await here.turn()).tasks) == 1


async def test_batches_of_other_products_have_no_part_in_a_lane(bench: Bench) -> None:
    here, other = Program(bench, "here", 1), Program(bench, "other", 1)
    await here.begin(100)
    await other.begin(100)
    elsewhere = await bench.engine.lane(ENDPOINT, an_account(), "k2")
    await bench.engine.enqueue("other", [a_row(200, req_key="k2")])
    await bench.engine.cancel(task_ids=[row["id"] for row in bench.read(sa.select(tasks.c.id))][100:200])
    await other.turn(elsewhere)

    assert len((await here.turn()).tasks) == 1


async def test_any_lane_with_room_takes_the_head_of_the_line(bench: Bench) -> None:
    program = Program(bench, "p", limit=1)
    await program.begin(5)
    second = await bench.engine.lane(ENDPOINT, an_account("second"), "k")

    turn = await program.turn(bench.lane, second)

    assert [(task.position, task.attempt and task.attempt.account) for task in turn.tasks] == [(0, "a"), (1, "second")]


# -- Budgets ----------------------------------------------------------------------------------------------------------


def counted(bench: Bench, batch_id: str = "b") -> tuple[int | None, int]:
    """Images taken as the batch's row says, and as its attempts say."""
    (row,) = bench.read(sa.select(batches.c.images_taken).where(batches.c.id == batch_id))
    (summed,) = bench.read(
        sa.select(sa.func.coalesce(sa.func.sum(attempts.c.images), 0).label("images"))
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.batch_id == batch_id)
    )
    return row["images_taken"], summed["images"]


async def test_a_budget_is_never_overdrawn_and_can_be_raised(bench: Bench) -> None:
    await bench.rows(*range(5))
    await bench.engine.set_budget("b", 2)

    assert len((await bench.turn()).tasks) == 2
    turn = await bench.turn()
    assert (turn.tasks, turn.is_out_of_budget) == ([], True)
    await bench.engine.set_budget("b", 3)
    assert len((await bench.turn()).tasks) == 1
    await bench.engine.set_budget("b", None)
    assert len((await bench.turn()).tasks) == 2
    assert counted(bench)[0] is None


async def test_proof_of_no_charge_gives_back_what_was_reserved(bench: Bench) -> None:
    await bench.rows(*range(5))
    await bench.engine.set_budget("b", 1)
    (task,) = await bench.claim()

    await bench.record(task, life.Postponed("slot"))

    assert counted(bench) == (0, 0)
    assert len(await bench.claim()) == 1


async def test_a_doubt_keeps_what_was_reserved(bench: Bench) -> None:
    await bench.rows(*range(5))
    await bench.engine.set_budget("b", 1)
    (task,) = await bench.claim()

    task = await bench.record(task, life.Unanswered("timeout"))
    await bench.record(task, life.GivenUp())

    assert counted(bench) == (1, 1)
    assert (await bench.turn()).is_out_of_budget


async def test_a_task_that_may_bring_many_is_settled_at_what_it_brings(bench: Bench) -> None:
    await bench.rows(*range(3), images=15)
    await bench.engine.set_budget("b", 20)
    (task,) = await bench.claim()
    assert (await bench.turn()).is_out_of_budget

    task = await bench.record(task, life.Accepted("j"), life.Rendered(("1", "2", "3", "4"), 20.0))

    assert counted(bench) == (4, 4)
    assert len(await bench.claim()) == 1


async def test_a_budget_set_late_counts_what_was_taken_before(bench: Bench) -> None:
    await bench.rows(*range(5))
    for task in await bench.claim(3):
        await bench.record(task, life.Accepted(f"j{task.id}"))

    await bench.engine.set_budget("b", 3)

    assert (await bench.turn()).is_out_of_budget
    assert counted(bench) == (3, 3)


@pytest.mark.parametrize("seed", range(8))
async def test_the_running_sum_is_always_that_of_the_attempts(bench: Bench, seed: int) -> None:
    """Whatever happens, in any order; and no claim overdraws what the attempts say."""
    chance = random.Random(seed)
    await bench.rows(*range(40), images=3)
    await bench.engine.set_budget("b", 30)
    held: list[Task] = []
    ways: dict[State, list[life.Event]] = {
        State.SUBMITTING: [
            life.Accepted("j"),
            life.Postponed("slot"),
            life.Unanswered("timeout"),
            life.Failed("50207"),
            life.Blocked("50412"),
        ],
        State.GENERATING: [
            *(life.Rendered(("1",) * brought, 9.0) for brought in (1, 3, 5)),
            life.OutputRefused("50511"),
            life.Failed("x", charged=True),
            life.Vanished("x"),
            life.Cancelled(),
        ],
        State.COLLECTING: [life.Saved(), life.UrlsGone(), life.Vanished("x")],
        State.IN_DOUBT: [life.ResubmitDecided(), life.JobFound("j"), life.GivenUp()],
    }
    for step in range(150):
        held += await bench.claim(at_most=2)
        if held:
            task = held.pop(chance.randrange(len(held)))
            event = chance.choice(ways[task.state])
            if isinstance(event, life.Accepted | life.JobFound):
                event = replace(event, job_id=f"j{seed}-{step}")
            if isinstance(event, life.OutputRefused) and task.attempt and task.attempt.delivered:
                event = life.Vanished("x")
            task = await bench.record(task, event)
            held += [task] if task.state in ways else []
        stored, summed = counted(bench)
        assert stored == summed
        reserved_once = 30 + 2 * 15  # a result may bring more than was reserved; nothing is claimed on top of it
        assert summed <= reserved_once


async def test_another_account_may_take_what_one_has_no_budget_for(bench: Bench) -> None:
    await bench.rows(*range(5))
    other = await bench.engine.lane(ENDPOINT, an_account("other"), "k")
    capped = replace(an_offer(bench.lane), daily_images=2)

    turn = await bench.engine.claim(bench.worker, [capped, an_offer(other, 1)], "b")
    assert Counter(task.attempt.account for task in turn.tasks if task.attempt) == {"a": 2, "other": 1}

    turn = await bench.engine.claim(bench.worker, [capped, an_offer(other, 1)], "b")
    assert (turn.tasks, turn.is_out_of_budget) == ([], False), "the other one will have room"
    turn = await bench.engine.claim(bench.worker, [capped], "b")
    assert turn.is_out_of_budget


async def test_a_days_cap_holds_for_all_products_of_the_account_and_ends_at_midnight(bench: Bench) -> None:
    await bench.rows(*range(3))
    await bench.rows(*range(10, 13), req_key="k2")
    second = await bench.engine.lane(ENDPOINT, an_account(), "k2")
    midnight = bench.clock.time - 100

    def offers() -> list[Offer]:
        return [replace(an_offer(lane), daily_images=4, day_began_at=midnight) for lane in (bench.lane, second)]

    assert len((await bench.engine.claim(bench.worker, offers(), "b")).tasks) == 4
    assert (await bench.engine.claim(bench.worker, offers(), "b")).is_out_of_budget
    bench.clock.time += 86_400
    midnight += 86_400
    assert len((await bench.engine.claim(bench.worker, offers(), "b")).tasks) == 2


async def test_a_cap_set_for_everybody_wins_over_the_settings(bench: Bench) -> None:
    await bench.rows(*range(9))
    offer = replace(an_offer(bench.lane), daily_images=2)
    account_id = bench.lane.account_id

    async def taken() -> int:
        return len((await bench.engine.claim(bench.worker, [offer], "b")).tasks)

    await bench.engine.cap_account(account_id, 1)
    assert await taken() == 1
    await bench.engine.cap_account(account_id, None)
    assert await taken() == 1
    await bench.engine.cap_account(account_id, 0)
    assert await taken() == 7
    (use,) = await bench.engine.accounts(0)
    assert (use.images_today, use.daily_images) == (9, 0)


async def test_a_budget_is_not_used_up_while_something_queued_may_cost_less(bench: Bench) -> None:
    await bench.rows(1, images=15)
    await bench.rows(2, references=(a_picture(),))
    await bench.engine.set_budget("b", 10)

    turn = await bench.turn()

    assert (turn.tasks, turn.is_out_of_budget) == ([], False)


async def test_nothing_is_uploaded_that_there_is_no_budget_for(bench: Bench) -> None:
    await bench.rows(1)
    await bench.claim()
    await bench.engine.set_budget("b", 1)
    await bench.rows(*range(10, 13), references=(a_picture(),))

    turn = await bench.turn()
    assert State.QUEUED in turn.waiting
    assert turn.is_out_of_budget
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], None)


def a_picture() -> LocalPicture:
    return LocalPicture("/x.png", "0" * 64, "png", 10, 4, 4)


# -- Pauses -----------------------------------------------------------------------------------------------------------


async def test_while_everything_is_paused_nothing_is_uploaded_or_submitted_for_anybody(bench: Bench) -> None:
    await bench.rows(1)
    await bench.rows(2, references=(a_picture(),))
    await bench.engine.pause_everything(paused=True)
    await bench.engine.pause_everything(paused=True)

    assert await bench.engine.everything_is_paused()
    assert (await bench.turn()).tasks == []
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], None)

    await bench.engine.pause_everything(paused=False)
    assert len((await bench.turn()).tasks) == 1
    assert len((await bench.engine.claim_preparation(bench.worker, "b", AHEAD)).tasks) == 1


@pytest.mark.parametrize("stopped", ["paused", "draining"])
async def test_a_stopped_account_takes_nothing_and_others_go_on(bench: Bench, stopped: str) -> None:
    await bench.rows(*range(5))
    await bench.rows(9, references=(a_picture(),))
    other = await bench.engine.lane(ENDPOINT, an_account("other"), "k")
    await bench.engine.stop_account(bench.lane.account_id, stopped)
    both = replace(AHEAD, account_ids=[bench.lane.account_id, other.account_id])

    turn = await bench.engine.claim(bench.worker, [an_offer(bench.lane), an_offer(other, 1)], "b")

    assert [task.attempt.account for task in turn.tasks if task.attempt] == ["other"]
    assert len((await bench.engine.claim_preparation(bench.worker, "b", both)).tasks) == 1
    only = replace(both, account_ids=[bench.lane.account_id])
    assert (await bench.engine.claim_preparation(bench.worker, "b", only)).tasks == []
    await bench.engine.stop_account(bench.lane.account_id, None)
    assert len(await bench.claim()) == 4


# -- Pace -------------------------------------------------------------------------------------------------------------


async def test_50429_slows_all_lanes_of_the_account_and_no_other(bench: Bench) -> None:
    await bench.rows(*range(20))
    await bench.rows(*range(30, 33), req_key="k2")
    sister = await bench.engine.lane(ENDPOINT, an_account(), "k2")
    stranger = await bench.engine.lane(ENDPOINT, an_account("stranger"), "k")
    first, second, third = await bench.claim(3)
    await bench.record(first, life.Accepted("j1"))
    await bench.record(second, life.Accepted("j2"))
    await bench.record(third, life.Postponed("qps", "50429"))

    assert await bench.turn() == Turn([], 1.0)
    assert await bench.turn(lane=sister) == Turn([], 1.0)
    assert len(await bench.claim(5, lane=stranger)) == 5
    bench.clock.time += 1
    assert len(await bench.claim()) == 1
    turn = await bench.turn(lane=sister)
    assert turn.tasks == []
    assert turn.due_in_s == pytest.approx(1.05 / 2, rel=0.01)
    bench.clock.time += 0.53
    assert len(await bench.claim(lane=sister)) == 1


async def test_the_next_submit_of_a_slowed_account_is_due_when_its_pace_allows_it(bench: Bench) -> None:
    """Whatever is answered until then: a lane that looked again only by chance would stand idle."""
    await bench.rows(*range(20))
    (task,) = await bench.claim(1)
    await bench.record(task, life.Postponed("qps", "50429"))
    bench.clock.time += 1

    turn = await bench.turn()

    assert len(turn.tasks) == 1
    assert turn.due_in_s == pytest.approx(1.05, rel=0.01)


async def test_a_pace_is_shared_by_programs_and_survives_them(bench: Bench) -> None:
    await bench.rows(*range(5))
    (task,) = await bench.claim(1)
    await bench.record(task, life.Postponed("qps", "50429"))

    other: SqlEngine = bench.open_engine()
    assert await other.claim(a_worker("other"), [an_offer(bench.lane)], "b") == Turn([], 1.0)
    (use,) = await other.accounts(0)
    assert use.pace is not None
    assert use.pace.remaining_s(bench.clock.time) == 1.0
    assert bench.read(sa.select(accounts.c.pace))[0]["pace"] is not None


async def test_lines_of_batches_long_gone_are_forgotten(bench: Bench) -> None:
    await bench.rows(1)
    await bench.claim()
    assert len(bench.read(sa.select(lines))) == 1

    bench.clock.time += 2 * 86_400
    await bench.engine.shorten_waits()

    assert bench.read(sa.select(lines)) == []
