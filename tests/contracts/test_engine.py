"""What `ports.Engine` promises, on every engine: one durable transaction a call, exact limits, fenced writers.

`open_engine` opens another engine on the same store, as another program would. A second kind of store is a second
parameter of `stores`.
"""

import asyncio
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.accounts import Lane
from dujiang.domain.batch import OnDoubt
from dujiang.domain.belief import Belief, Kind
from dujiang.domain.errors import StaleTask, StoreError, UnlawfulEvent
from dujiang.domain.lifecycle import FINAL, Event, State
from dujiang.domain.limits import AutoLimit, FixedLimit
from dujiang.domain.names import collision_key
from dujiang.domain.pictures import LocalPicture
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.task import Attempt, Outcome, Task
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import TaskFilter, list_tasks, reading, report_rows
from dujiang.engines.sql.records import Learning, Recording, record_all
from dujiang.engines.sql.schema import attempts, events, lane_events, tasks
from dujiang.engines.sql.sqlite import SqliteStore
from dujiang.ports import Added, Ahead, Offer, Published, Turn
from tests.builders import (
    ENDPOINT,
    NOON,
    a_batch,
    a_file,
    a_row,
    a_worker,
    an_account,
    an_order,
)
from tests.contracts.bench import URLS, Bench, an_offer, only_sqlite

IN_A_SUBMITS_WAY = [subject for subject in Subject if subject is not Subject.HOST]
AHEAD = Ahead(tasks=32, at_once=9, req_keys=["k"], host="superbed")


def names(found: Sequence[Task]) -> list[str]:
    return [task.request.prompt for task in found]


# -- Batches ----------------------------------------------------------------------------------------------------------


async def test_a_batch_is_opened_once_however_often_it_is_asked_for(bench: Bench) -> None:
    again = await bench.engine.open_batch(a_batch("another id", name="b"))

    assert again.id == "b"
    assert again == await bench.engine.batch("b")
    assert await bench.engine.batch("another id") is None


async def test_a_batch_of_that_name_in_another_folder_is_another(bench: Bench) -> None:
    other = await bench.engine.open_batch(a_batch("b2", name="b", out="/elsewhere"))

    assert other.id == "b2"
    assert await bench.engine.batch("b") == replace(other, id="b", out="/out")


async def test_a_batch_follows_the_policy_that_was_asked_for_last(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch(on_doubt=OnDoubt.parse("resubmit:2")))
    await bench.engine.pause("b", paused=True)

    found = await bench.engine.open_batch(a_batch(on_doubt=OnDoubt.parse("fail")))

    assert found == await bench.engine.batch("b")
    assert (str(found.on_doubt), found.paused, found.created_at) == ("fail", True, NOON)


# -- Rows -------------------------------------------------------------------------------------------------------------


async def test_rows_are_new_changed_or_the_same(bench: Bench) -> None:
    assert await bench.rows(1, 2, 3) == Added(new=3)

    rows = [a_row(1), a_row(2, digest="2"), a_row(4)]

    assert await bench.engine.enqueue("b", rows) == Added(new=1, changed=1, same=1)
    assert await bench.engine.enqueue("b", rows) == Added(same=3)
    assert await bench.engine.counts("b") == {State.READY: 4}


async def test_a_stored_task_is_what_was_asked_for(bench: Bench) -> None:
    row = a_row(7, priority=3)
    request = replace(row.request, parameters={"width": 1024, "scale": 0.5, "single": True}, references=URLS, images=4)
    await bench.engine.enqueue("b", [replace(row, request=request)])

    (task,) = await bench.claim()

    assert task == await bench.task(task.id)
    assert (task.batch, task.position, task.name, task.request) == ("b", 7, "picture-7", request)
    assert task.attempt == Attempt(1, bench.lane.id, bench.lane.account_id, "a", ENDPOINT, "k", "f" * 24, NOON)


async def test_a_changed_row_gets_a_new_revision_and_a_name_of_its_own(bench: Bench) -> None:
    await bench.rows(1)

    for digest in ("2", "3", "1"):
        await bench.rows(1, digest=digest)

    found = bench.read(sa.select(tasks).order_by(tasks.c.revision))
    assert [(row["revision"], row["newest"], row["name"], row["state"]) for row in found] == [
        (1, False, "picture-1", "cancelled"),
        (2, False, "picture-1-v2", "cancelled"),
        (3, False, "picture-1-v3", "cancelled"),
        (4, True, "picture-1-v4", "ready"),
    ]
    assert names(await bench.claim()) == ["cat 1"]


async def test_two_rows_never_share_the_name_of_a_picture(bench: Bench) -> None:
    await bench.rows(1)

    await bench.engine.enqueue("b", [replace(a_row(2), name="PICTURE-1"), replace(a_row(3), name="Picture-1")])

    found = [collision_key(row["name"]) for row in bench.read(sa.select(tasks))]
    assert len(set(found)) == 3, "a picture that is paid for is never overwritten, also where case does not count"


async def test_an_old_revision_that_was_sent_goes_on_and_nobody_asks_the_vendor_to_drop_it(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job-1"))

    assert await bench.rows(0, digest="2") == Added(changed=1)

    assert await bench.engine.cancel_requests(bench.worker) == []
    task = await bench.record(task, life.Rendered(URLS), life.Saved((a_file(),)))
    assert task.state is State.SUCCEEDED
    assert await bench.engine.counts("b") == {State.READY: 1}


async def test_an_old_revision_that_turns_out_not_to_be_sent_is_not_sent_any_more(bench: Bench) -> None:
    task = await bench.claimed()
    await bench.rows(0, digest="2")

    task = await bench.record(task, life.Postponed("slot"))

    assert task.state is State.CANCELLED
    assert bench.states() == {"row-0.1": "cancelled", "row-0.2": "ready"}


async def test_a_killed_enqueue_repeated_makes_no_doubles(bench: Bench) -> None:
    await bench.rows(*range(10))

    assert await bench.rows(*range(25)) == Added(new=15, same=10)
    assert await bench.engine.counts("b") == {State.READY: 25}


async def test_two_programs_that_enqueue_one_file_make_one_set_of_tasks(bench: Bench) -> None:
    other = bench.open_engine()
    chunks = [range(start, start + 20) for start in range(0, 200, 20)]

    async def fill(engine: SqlEngine) -> Added:
        total = Added()
        for chunk in chunks:
            total += await engine.enqueue("b", [a_row(number) for number in chunk])
        return total

    first, second = await asyncio.gather(fill(bench.engine), fill(other))

    assert first.new + second.new == 200
    assert first.same + second.same == 200
    assert len(bench.states()) == 200


async def test_more_rows_than_fit_into_one_question(bench: Bench) -> None:
    assert await bench.rows(*range(1203)) == Added(new=1203)
    assert await bench.rows(*range(1203), digest="2") == Added(changed=1203)
    assert await bench.rows(*range(1204), digest="2") == Added(new=1, same=1203)


# -- Claims -----------------------------------------------------------------------------------------------------------


async def test_a_claim_takes_never_more_than_the_limit(bench: Bench) -> None:
    await bench.rows(*range(10))

    assert len(await bench.claim(3)) == 3
    assert await bench.claim(3) == []
    assert len(await bench.claim(5)) == 2
    assert await bench.claim(1) == []
    assert await bench.in_use() == 5


async def test_a_claim_takes_no_more_than_is_asked_for(bench: Bench) -> None:
    await bench.rows(*range(10))

    assert len(await bench.claim(5, at_most=2)) == 2


async def test_priority_comes_first_and_then_the_order_of_the_file(bench: Bench) -> None:
    await bench.rows(3, 1, 2)
    await bench.rows(9, 8, priority=5)
    await bench.rows(0, priority=-1)

    assert names(await bench.claim()) == ["cat 8", "cat 9", "cat 1", "cat 2", "cat 3", "cat 0"]


async def test_priority_holds_until_the_last_moment(bench: Bench) -> None:
    await bench.rows(1, 2)
    await bench.claim(1)
    await bench.rows(3, priority=1)

    assert names(await bench.claim(2)) == ["cat 3"]


async def test_a_task_that_was_refused_goes_back_to_its_place(bench: Bench) -> None:
    await bench.rows(1, 2, 3)
    (task,) = await bench.claim(1)

    await bench.record(task, life.Postponed("slot"))

    assert names(await bench.claim(2)) == ["cat 1", "cat 2"]


async def test_only_tasks_of_the_lanes_product_and_of_the_batch_are_taken(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(1)])
    await bench.rows(2, req_key="another")
    await bench.rows(3)

    assert names(await bench.claim()) == ["cat 3"]


async def test_a_paused_batch_starts_nothing(bench: Bench) -> None:
    await bench.rows(1)
    await bench.engine.pause("b", paused=True)

    assert await bench.turn() == Turn([], None)
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], None)

    await bench.engine.pause("b", paused=False)
    assert len(await bench.claim()) == 1


async def test_rule_1_attempt_and_slot_are_stored_when_a_claim_returns(bench: Bench) -> None:
    task = await bench.claimed()

    stored = bench.attempt(task)
    assert (stored["outcome"], stored["slot_until"], stored["sent_at"]) == ("open", inf, NOON)
    assert (stored["worker"], stored["images"], stored["lane_id"]) == ("w", 1, bench.lane.id)
    assert bench.history(task) == ["Claimed"]
    assert (task.state, task.version) == (State.SUBMITTING, 1)


async def test_two_accounts_take_from_one_line(bench: Bench) -> None:
    other = await bench.engine.lane(ENDPOINT, an_account("z"), "k")
    await bench.rows(*range(10))

    turn = await bench.engine.claim(bench.worker, [an_offer(bench.lane, 3), an_offer(other, 4)], "b")

    assert names(turn.tasks) == [f"cat {number}" for number in range(7)]
    assert Counter(task.attempt.account for task in turn.tasks if task.attempt) == {"a": 3, "z": 4}
    assert {use.lane.account: use.in_use for use in await bench.engine.lanes()} == {"a": 3, "z": 4}


# -- Slots ------------------------------------------------------------------------------------------------------------

SLOT_FREE: dict[str, tuple[Event, ...]] = {
    "refused": (life.Postponed("slot"),),
    "link refused": (life.LinkRefused(),),
    "blocked": (life.Blocked("50411"),),
    "failed": (life.Failed("50207"),),
    "rendered": (life.Accepted("job"), life.Rendered(URLS)),
    "saved": (life.Accepted("job"), life.Rendered(URLS), life.Saved((a_file(),))),
    "asked for new addresses": (life.Accepted("job"), life.Rendered(URLS), life.UrlsGone()),
    "output refused": (life.Accepted("job"), life.OutputRefused("50511")),
    "failed there": (life.Accepted("job"), life.Failed("50500")),
    "lost": (life.Accepted("job"), life.Vanished("gone")),
    "dropped": (life.Accepted("job"), life.Cancelled()),
}


@pytest.mark.parametrize("happened", SLOT_FREE.values(), ids=SLOT_FREE)
async def test_a_slot_is_free_when_the_job_has_ended(bench: Bench, happened: tuple[Event, ...]) -> None:
    task = await bench.claimed()
    assert await bench.in_use() == 1

    await bench.record(task, *happened)

    assert await bench.in_use() == 0
    bench.clock.time -= 3600  # rule 11: not even a clock that goes back wakes it
    assert await bench.in_use() == 0


@pytest.mark.parametrize("happened", [(), (life.Accepted("job"),)], ids=["submitting", "generating"])
async def test_a_crash_frees_nothing_that_may_run(bench: Bench, happened: tuple[Event, ...]) -> None:
    await bench.record(await bench.claimed(), *happened)

    bench.clock.time += 10**9

    assert await bench.in_use() == 1
    assert await bench.claim(1) == []


async def test_rule_4_a_slot_in_doubt_counts_until_its_time_and_not_after(bench: Bench) -> None:
    await bench.rows(1, 2)
    (task,) = await bench.claim(1)
    await bench.record(task, life.Unanswered("timeout", slot_for_s=120.0))

    bench.clock.time += 119
    assert await bench.turn(1) == Turn([], 1.0)
    bench.clock.time += 1
    assert names(await bench.claim(1)) == ["cat 2"]


@pytest.mark.parametrize("decision", [life.ResubmitDecided(), life.GivenUp()])
async def test_rule_4_a_decision_never_ends_a_slot(bench: Bench, decision: Event) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))
    before = bench.attempt(task)

    await bench.record(task, decision)

    assert bench.attempt(task) == before
    assert await bench.claim(1) == []
    assert before["outcome"] == "in_doubt"


async def test_a_job_that_was_found_holds_its_slot_until_it_ends(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))

    task = await bench.engine.record(task, life.JobFound("job-9"))

    bench.clock.time += 500
    assert await bench.in_use() == 1
    assert bench.attempt(task)["outcome"] == "running"
    assert bench.attempt(task)["ended_at"] is None
    assert task.attempt is not None
    assert task.attempt.job_id == "job-9"


async def test_rule_10_a_job_belongs_to_one_attempt(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job-1"))
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout"))
    before = bench.everything()

    with pytest.raises(UnlawfulEvent):
        await bench.engine.record(task, life.JobFound("job-1"))

    assert bench.everything() == before


async def test_rule_11_a_slot_in_doubt_lasts_no_longer_than_its_length_from_now(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))
    await bench.rows(9)
    bench.clock.time -= 3600

    assert await bench.turn(1) == Turn([], 120.0)
    bench.clock.time += 120
    assert len(await bench.claim(1)) == 1


async def test_rule_11_waits_are_shortened_when_the_clock_went_back(bench: Bench) -> None:
    running = await bench.record(await bench.claimed(), life.Accepted("job"))
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))
    await bench.engine.rest(an_order())
    await bench.engine.shorten_waits()
    assert bench.attempt(task)["slot_until"] == NOON + 120

    bench.clock.time -= 3600
    await bench.engine.shorten_waits()

    assert bench.attempt(task)["slot_until"] == bench.clock.time + 120
    assert bench.attempt(running)["slot_until"] == inf
    assert [rest.until for rest in await bench.engine.rests()] == [bench.clock.time + 2]


async def test_a_clock_that_others_are_a_moment_ahead_of_has_not_gone_back(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))

    bench.clock.time -= 1
    await bench.engine.shorten_waits()
    await bench.turn()

    assert bench.attempt(task)["slot_until"] == NOON + 120


async def test_rule_4_the_slot_of_a_job_that_can_not_be_polled_ends_and_the_task_does_not(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job"))

    await bench.engine.hold_slot(task, 60.0)

    assert await bench.in_use() == 1
    bench.clock.time += 60
    assert await bench.in_use() == 0
    assert (await bench.task(task.id)).state is State.GENERATING
    await bench.engine.hold_slot(task, None)
    assert await bench.in_use() == 1


async def test_the_slot_of_a_job_that_has_ended_is_not_held_again(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job"))
    await bench.record(task, life.Rendered(URLS), life.UrlsGone())

    await bench.engine.hold_slot(task, None)
    await bench.engine.hold_slot(task, 60.0)

    assert await bench.in_use() == 0


async def test_a_worker_that_was_taken_for_dead_has_no_say_in_a_slot(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job"))
    other = a_worker("other")
    await bench.engine.register(other)
    await bench.engine.adopt(other, bench.worker, lambda lane_id: 120.0)

    await bench.engine.hold_slot(task, 60.0)

    assert bench.attempt(task)["slot_until"] == inf


async def test_lanes_tell_their_use_and_the_next_end(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=120.0))
    await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=60.0))
    await bench.record(await bench.claimed(), life.Accepted("job"))
    other = await bench.engine.lane(ENDPOINT, an_account(), "k2")
    await bench.engine.set_limit(bench.lane, FixedLimit(4))

    used, idle = await bench.engine.lanes()

    assert (used.lane, used.limit, used.in_use, used.next_end) == (bench.lane, FixedLimit(4), 3, NOON + 60)
    assert (idle.lane, idle.limit, idle.in_use, idle.next_end) == (other, None, 0, None)


async def test_only_a_time_is_a_next_end(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job"))

    (used,) = await bench.engine.lanes()

    assert (used.in_use, used.next_end) == (1, None)
    assert (await bench.turn(1)).due_in_s is None


async def test_engines_together_never_exceed_the_limit(bench: Bench) -> None:
    """Several engines, each with a writer of its own, claim and end jobs at the same time."""
    await bench.rows(*range(120))
    engines = [bench.engine, bench.open_engine(), bench.open_engine()]
    most = 0
    watching = True

    def watch() -> None:
        nonlocal most
        running = sa.select(sa.func.count()).select_from(attempts).where(attempts.c.slot_until > NOON)
        with bench.engine.database.connect().execution_options(reading=True) as connection:
            while watching:
                most = max(most, connection.execute(running).scalar_one())
                connection.rollback()

    async def work(engine: SqlEngine, chance: random.Random) -> int:
        done = 0
        for _ in range(200):
            turn = await engine.claim(bench.worker, [an_offer(bench.lane, 5, at_most=chance.randint(1, 5))], "b")
            for task in turn.tasks:
                accepted = await engine.record(task, life.Accepted(f"job-{task.id}"), worker=bench.worker)
                rendered = await engine.record(accepted, life.Rendered(URLS), worker=bench.worker)
                await engine.record(rendered, life.Saved((a_file(),)), worker=bench.worker)
                done += 1
            if done and not turn.tasks and await engine.counts("b") == {State.SUCCEEDED: 120}:
                break
        return done

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = await asyncio.gather(*(work(engine, random.Random(n)) for n, engine in enumerate(engines)))
    finally:
        watching = False
        await asyncio.to_thread(watcher.join)

    assert sum(done) == 120
    assert 1 <= most <= 5
    assert len(bench.read(sa.select(attempts.c.task_id))) == 120


CLAIMS_IN_A_PROCESS = """
import asyncio, sys
from dujiang.domain.accounts import Lane
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.runner.clock import SystemClock
from dujiang.ports import Worker
from tests.contracts.bench import an_offer

async def main(url, lane_id, name):
    engine = SqlEngine(connect(url, synchronous="OFF"), SystemClock())
    lane = Lane(lane_id, "e", 1, "a", "k")
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    for _ in range(40):
        turn = await engine.claim(Worker(name, "m", 1, 0.0), [an_offer(lane, 30, at_most=1)], "b")
        taken += len(turn.tasks)
    await engine.aclose()
    print(taken, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""


async def test_processes_together_never_exceed_the_limit(bench: Bench) -> None:
    await bench.rows(*range(100))
    others = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS_IN_A_PROCESS, bench.store.url, str(bench.lane.id), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for name in ("one", "two")
    ]

    def start_together() -> list[int]:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
        for other in others:
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
        return [int(other.communicate(timeout=60)[0]) for other in others]

    taken = await asyncio.to_thread(start_together)

    assert sum(taken) == 30
    assert len(bench.read(sa.select(attempts.c.task_id))) == 30


# -- Rests ------------------------------------------------------------------------------------------------------------


def orders(lane: Lane) -> dict[Subject, RestOrder]:
    keys = {
        Subject.LANE: str(lane.id),
        Subject.ACCOUNT: str(lane.account_id),
        Subject.ENDPOINT: lane.endpoint,
        Subject.DISK: "*",
    }
    return {subject: an_order(subject, key) for subject, key in keys.items()}


@pytest.mark.parametrize("subject", IN_A_SUBMITS_WAY)
async def test_while_something_rests_nothing_is_submitted_and_then_one_task_looks(
    bench: Bench, subject: Subject
) -> None:
    await bench.rows(*range(5))
    await bench.engine.rest(orders(bench.lane)[subject])

    assert await bench.turn() == Turn([], 2.0)
    bench.clock.time += 1.5
    assert await bench.turn() == Turn([], 0.5)
    bench.clock.time += 0.5
    (task,) = await bench.claim()
    assert task.attempt is not None
    assert task.attempt.looking
    assert await bench.turn() == Turn([], None)  # the one that looks will tell


@pytest.mark.parametrize("subject", [subject for subject in IN_A_SUBMITS_WAY if subject is not Subject.DISK])
async def test_an_answer_to_the_look_ends_the_rest(bench: Bench, subject: Subject) -> None:
    await bench.rows(*range(5))
    await bench.engine.rest(orders(bench.lane)[subject])
    bench.clock.time += 2
    (task,) = await bench.claim()

    await bench.record(task, life.Accepted("job"))

    assert await bench.engine.rests() == []
    assert len(await bench.claim()) == 4


@pytest.mark.parametrize("subject", IN_A_SUBMITS_WAY)
async def test_a_look_that_fails_lengthens_the_rest(bench: Bench, subject: Subject) -> None:
    order = orders(bench.lane)[subject]
    await bench.rows(1)
    lengths = []
    await bench.engine.rest(order)
    for _ in range(4):
        (rest,) = await bench.engine.rests()
        lengths.append(rest.length_s)
        bench.clock.time += rest.length_s
        (task,) = await bench.claim()
        await bench.record(task, life.Postponed("slot"), rest=order)

    assert lengths == [2, 4, 8, 10]


async def test_a_look_whose_answer_never_comes_tells_nothing(bench: Bench) -> None:
    await bench.rows(1, 2)
    await bench.engine.rest(orders(bench.lane)[Subject.ENDPOINT])
    bench.clock.time += 2
    (task,) = await bench.claim()

    await bench.record(task, life.Unanswered("timeout"))

    (rest,) = await bench.engine.rests()
    assert (rest.in_a_row, rest.remaining_s(bench.clock.time)) == (0, 0)
    assert len(await bench.claim()) == 1  # the next one looks


async def test_a_look_ends_the_rests_of_all_that_its_submit_has_passed(bench: Bench) -> None:
    every = orders(bench.lane)
    for refused_by, left in {
        Subject.ENDPOINT: {Subject.ENDPOINT, Subject.ACCOUNT, Subject.LANE},
        Subject.ACCOUNT: {Subject.ACCOUNT, Subject.LANE},
        Subject.LANE: {Subject.LANE},
    }.items():
        for subject in (Subject.LANE, Subject.ACCOUNT, Subject.ENDPOINT):
            await bench.engine.rest(every[subject])
        bench.clock.time += 100
        task = await bench.claimed()

        task = await bench.record(task, life.Postponed("x"), rest=every[refused_by])

        assert {rest.subject for rest in await bench.engine.rests()} == left
        await bench.engine.cancel(task_ids=[task.id])


async def test_a_submit_that_does_not_look_ends_no_rest(bench: Bench) -> None:
    first, second = await bench.claimed(), await bench.claimed()
    await bench.record(first, life.Postponed("slot"), rest=orders(bench.lane)[Subject.LANE])

    await bench.record(second, life.Accepted("job"))

    assert len(await bench.engine.rests()) == 1


async def test_a_submit_that_was_on_its_way_before_does_not_keep_others_from_looking(bench: Bench) -> None:
    first, _hanging = await bench.claimed(), await bench.claimed()
    await bench.record(first, life.Postponed("slot"), rest=orders(bench.lane)[Subject.LANE])
    bench.clock.time += 2

    assert names(await bench.claim()) == [first.request.prompt]


async def test_refusals_of_one_moment_make_one_rest(bench: Bench) -> None:
    found = [await bench.claimed() for _ in range(5)]
    for task in found:
        await bench.record(task, life.Postponed("slot"), rest=orders(bench.lane)[Subject.LANE])

    (rest,) = await bench.engine.rests()
    assert (rest.length_s, rest.in_a_row) == (2, 0)


async def test_another_reason_begins_its_own_row_of_rests(bench: Bench) -> None:
    order = orders(bench.lane)[Subject.LANE]
    for _ in range(3):
        await bench.engine.rest(order)
        bench.clock.time += 100

    await bench.engine.rest(replace(order, code="account"))

    (rest,) = await bench.engine.rests()
    assert (rest.code, rest.in_a_row, rest.length_s) == ("account", 0, 2)


async def test_a_rest_of_one_lane_does_not_stop_another(bench: Bench) -> None:
    other = await bench.engine.lane(ENDPOINT, an_account("z"), "k")
    await bench.rows(*range(4))
    await bench.engine.rest(orders(bench.lane)[Subject.LANE])
    await bench.engine.rest(orders(bench.lane)[Subject.ACCOUNT])

    turn = await bench.engine.claim(bench.worker, [an_offer(bench.lane, 2), an_offer(other, 2)], "b")

    assert [task.attempt.account for task in turn.tasks if task.attempt] == ["z", "z"]
    assert turn.due_in_s == 2


async def test_one_task_looks_for_an_endpoint_whatever_lanes_it_has(bench: Bench) -> None:
    other = await bench.engine.lane(ENDPOINT, an_account("z"), "k")
    await bench.rows(*range(4))
    await bench.engine.rest(orders(bench.lane)[Subject.ENDPOINT])
    bench.clock.time += 2
    offers = [an_offer(bench.lane, 2), an_offer(other, 2)]

    turn = await bench.engine.claim(bench.worker, offers, "b")
    again = await bench.engine.claim(bench.worker, offers, "b")

    assert len(turn.tasks) == 1
    assert again.tasks == []


async def test_rule_11_a_rest_is_honoured_no_longer_than_its_length_from_now(bench: Bench) -> None:
    await bench.rows(1)
    await bench.engine.rest(orders(bench.lane)[Subject.LANE])
    bench.clock.time -= 3600

    assert await bench.turn() == Turn([], 2.0)
    bench.clock.time += 2
    assert len(await bench.claim()) == 1


async def test_a_picture_that_was_saved_shows_that_the_disk_answers(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job"), life.Rendered(URLS))
    await bench.engine.rest(orders(bench.lane)[Subject.DISK])

    await bench.record(task, life.Saved((a_file(),)))

    assert await bench.engine.rests() == []


async def test_a_rest_can_be_ended(bench: Bench) -> None:
    await bench.engine.rest(orders(bench.lane)[Subject.DISK])

    await bench.engine.end_rest(Subject.DISK, "*")
    await bench.engine.end_rest(Subject.DISK, "*")

    assert await bench.engine.rests() == []


# -- Recording --------------------------------------------------------------------------------------------------------


async def test_a_whole_story_is_stored_step_by_step(bench: Bench) -> None:
    task = await bench.claimed()
    bench.clock.time += 1
    task = await bench.record(task, life.Accepted("job-1", "request-1"))
    assert bench.attempt(task)["job_id"] == "job-1"
    assert bench.attempt(task)["request_id"] == "request-1"
    bench.clock.time += 20
    task = await bench.record(task, life.Rendered(URLS, 20.0))
    assert replace(task, attempt=None) == replace(await bench.task(task.id), attempt=None)
    assert (await bench.task(task.id)).image_urls == URLS
    task = await bench.record(task, life.Saved((a_file(),)))

    stored = bench.attempt(task)
    assert (stored["outcome"], stored["images"], stored["run_s"]) == ("done", 1, 20.0)
    assert (stored["sent_at"], stored["accepted_at"], stored["ended_at"]) == (NOON, NOON + 1, NOON + 21)
    assert bench.history(task) == ["Claimed", "Accepted", "Rendered", "Saved"]
    assert (await bench.task(task.id)).files == (a_file(),)
    assert [row["owner"] for row in bench.read(sa.select(tasks.c.owner))] == [None]
    found = bench.read(sa.select(events).order_by(events.c.id.desc()).limit(1))[0]
    assert (found["at"], found["state"], found["attempt"]) == (NOON + 21, "succeeded", 1)
    assert json.loads(found["data"])["files"][0]["path"] == "cat.png"


async def test_a_stale_task_changes_nothing(bench: Bench) -> None:
    old = await bench.claimed()
    await bench.record(old, life.Accepted("job-1"))
    before = bench.everything()

    for event in (life.Accepted("job-2"), life.Unanswered("timeout", slot_for_s=9.0), life.Failed("x")):
        with pytest.raises(StaleTask):
            await bench.record(old, event, rest=orders(bench.lane)[Subject.LANE])

    assert bench.everything() == before


async def test_a_frozen_worker_that_comes_back_changes_nothing(bench: Bench) -> None:
    frozen = await bench.record(await bench.claimed(), life.Accepted("job"))
    (adopted,) = await bench.engine.adopt(a_worker("w2"), bench.worker, lambda _: 9.0)

    with pytest.raises(StaleTask):
        await bench.record(frozen, life.Rendered(URLS))

    assert (await bench.engine.record(adopted, life.Rendered(URLS), worker=a_worker("w2"))).state is State.COLLECTING


async def test_an_unlawful_event_changes_nothing(bench: Bench) -> None:
    task = await bench.claimed()
    before = bench.everything()

    with pytest.raises(UnlawfulEvent):
        await bench.record(task, life.Rendered(URLS))

    assert bench.everything() == before


async def test_a_task_that_nobody_knows_is_stale(bench: Bench) -> None:
    with pytest.raises(StaleTask):
        await bench.record(replace(await bench.claimed(), id=999), life.Accepted("job"))


async def test_of_two_writers_one_wins(bench: Bench) -> None:
    task = await bench.claimed()
    other = bench.open_engine()

    results = await asyncio.gather(
        *(engine.record(task, life.Accepted(f"job-{n}")) for n, engine in enumerate([bench.engine, other] * 4)),
        return_exceptions=True,
    )

    assert Counter(type(result) for result in results) == {Task: 1, StaleTask: 7}
    assert bench.history(task) == ["Claimed", "Accepted"]


async def test_rule_10_what_was_delivered_stays_on_the_books(bench: Bench) -> None:
    task = await bench.record(
        await bench.claimed(images=15), life.Accepted("job"), life.Rendered(URLS, 20.0), life.UrlsGone()
    )
    assert (bench.attempt(task)["outcome"], bench.attempt(task)["images"]) == ("done", 1)
    assert task.attempt is not None
    assert (await bench.task(task.id)).attempt == replace(task.attempt, accepted_at=NOON)

    task = await bench.record(task, life.Failed("50500"))

    stored = bench.attempt(task)
    assert (stored["outcome"], stored["images"], stored["run_s"]) == ("lost", 1, 20.0)


@pytest.mark.parametrize(
    ("happened", "outcome", "images"),
    [
        ((), Outcome.OPEN, 15),
        ((life.Unanswered("timeout"),), Outcome.IN_DOUBT, 15),
        ((life.Postponed("slot"),), Outcome.REFUSED, 0),
        ((life.Accepted("j"),), Outcome.RUNNING, 15),
        ((life.Accepted("j"), life.Rendered(URLS * 3)), Outcome.DONE, 3),
        ((life.Accepted("j"), life.Failed("x")), Outcome.UNCHARGED, 0),
        ((life.Accepted("j"), life.Failed("x", charged=True)), Outcome.CHARGED, 15),
        ((life.Accepted("j"), life.Vanished("x")), Outcome.LOST, 15),
        ((life.Accepted("j"), life.Cancelled()), Outcome.CANCELLED, 0),
        ((life.Unanswered("t"), life.GivenUp()), Outcome.IN_DOUBT, 15),
        ((life.Unanswered("t"), life.JobFound("j")), Outcome.RUNNING, 15),
    ],
)
async def test_rule_10_images_are_reserved_and_then_settled(
    bench: Bench, happened: tuple[Event, ...], outcome: Outcome, images: int
) -> None:
    task = await bench.record(await bench.claimed(images=15), *happened)

    stored = bench.attempt(task)
    assert (stored["outcome"], stored["images"]) == (outcome, images)


async def test_every_attempt_of_a_task_is_kept(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout", slot_for_s=9.0))
    await bench.record(task, life.ResubmitDecided())

    (again,) = await bench.claim()

    assert again.attempt is not None
    assert again.attempt.number == 2
    assert again.attempt.job_id is None
    assert [bench.attempt(task, n)["outcome"] for n in (1, 2)] == ["in_doubt", "open"]
    assert await bench.in_use() == 2


# -- Cancelling -------------------------------------------------------------------------------------------------------


async def test_what_waits_is_cancelled_what_runs_is_asked_for_the_rest_is_refused(bench: Bench) -> None:
    await bench.rows(*range(6))
    submitting, generating, collecting, doubtful, done = await bench.claim(at_most=5)
    await bench.record(generating, life.Accepted("j1"))
    await bench.record(collecting, life.Accepted("j2"), life.Rendered(URLS))
    await bench.record(doubtful, life.Unanswered("timeout"))
    await bench.record(done, life.Accepted("j3"), life.Rendered(URLS), life.Saved(()))

    assert await bench.engine.cancel(batch_id="b") == {"cancelled": 1, "requested": 2, "refused": 2}
    assert await bench.engine.cancel(batch_id="b") == {"cancelled": 0, "requested": 2, "refused": 2}

    found = await bench.engine.counts("b")
    assert found[State.CANCELLED] == 1
    assert sorted(await bench.engine.cancel_requests(bench.worker)) == [submitting.id, generating.id]
    assert await bench.engine.cancel_requests(a_worker("w2")) == []


async def test_single_tasks_are_cancelled_and_every_word_is_in_their_history(bench: Bench) -> None:
    await bench.rows(1, 2, 3)
    (running,) = await bench.claim(1)
    waiting = await bench.task(running.id + 1)

    done = await bench.engine.cancel(task_ids=[running.id, waiting.id, 999])
    await bench.engine.cancel(task_ids=[running.id, waiting.id])

    assert done == {"cancelled": 1, "requested": 1, "refused": 0}
    assert bench.history(running) == ["Claimed", "CancelRequested"]
    assert bench.history(waiting) == ["Cancelled"]
    assert (await bench.task(waiting.id)).state is State.CANCELLED


async def test_a_long_line_is_cancelled_in_pages_with_its_history(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dujiang.engines.sql.engine.CANCELLED", 7)
    await bench.rows(*range(30))
    refused = await bench.record((await bench.claim(1))[0], life.Postponed("slot", "busy"))

    assert (await bench.engine.cancel(batch_id="b"))["cancelled"] == 30

    assert await bench.engine.counts("b") == {State.CANCELLED: 30}
    assert bench.history(refused) == ["Claimed", "Postponed", "Cancelled"]
    assert (await bench.task(refused.id)).version == refused.version + 1
    found = bench.read(sa.select(events).where(events.c.type == "Cancelled"))
    assert len(found) == 30
    assert {row["state"] for row in found} == {"cancelled"}


async def test_cancelling_one_batch_leaves_others_alone(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(1)])

    assert await bench.engine.cancel(batch_id="b") == {"cancelled": 0, "requested": 0, "refused": 0}
    assert await bench.engine.counts("other") == {State.READY: 1}


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ((), life.Postponed("slot")),
        ((), life.LinkRefused()),
        ((life.Accepted("job"),), life.OutputRefused("50511")),
    ],
)
async def test_a_cancel_between_read_and_record_keeps_the_task_from_going_back_in_line(
    bench: Bench, before: tuple[Event, ...], event: Event
) -> None:
    task = await bench.record(await bench.claimed(), *before)
    await bench.engine.cancel(task_ids=[task.id])
    assert not task.cancel_requested  # the holder's copy knows nothing of it

    task = await bench.record(task, event)

    assert task.state is State.CANCELLED
    assert bench.history(task)[-1] == "Cancelled"
    assert bench.attempt(task)["outcome"] == ("uncharged" if before else "refused")
    assert await bench.claim() == []


async def test_a_cancel_between_read_and_record_changes_nothing_that_is_paid(bench: Bench) -> None:
    task = await bench.claimed()
    await bench.engine.cancel(task_ids=[task.id])

    task = await bench.record(task, life.Accepted("job"))

    assert task.state is State.GENERATING
    assert task.cancel_requested
    assert task == replace(await bench.task(task.id), attempt=task.attempt)
    assert await bench.engine.cancel_requests(bench.worker) == [task.id]
    assert (await bench.record(task, life.Rendered(URLS), life.Saved(()))).state is State.SUCCEEDED


async def test_a_decision_to_send_again_is_newer_than_the_wish_to_cancel(bench: Bench) -> None:
    task = await bench.claimed()
    await bench.engine.cancel(task_ids=[task.id])
    task = await bench.record(task, life.Unanswered("timeout"))
    assert task.cancel_requested

    task = await bench.record(task, life.ResubmitDecided())

    assert (task.state, task.cancel_requested) == (State.READY, False)
    assert not (await bench.task(task.id)).cancel_requested


# -- Retrying ---------------------------------------------------------------------------------------------------------

ENDS: dict[State, tuple[Event, ...]] = {
    State.FAILED: (life.Failed("x"),),
    State.BLOCKED: (life.Blocked("x"),),
    State.LOST: (life.Accepted("j"), life.Vanished("x")),
    State.CANCELLED: (life.Accepted("j"), life.Cancelled()),
    State.SUCCEEDED: (life.Accepted("j"), life.Rendered(URLS), life.Saved((a_file(),))),
}


@pytest.mark.parametrize("end", FINAL)
async def test_an_ended_task_is_retried_once_by_a_new_one(bench: Bench, end: State) -> None:
    old = await bench.record(await bench.claimed(), *ENDS[end])
    assert old.state is end
    again = end is State.SUCCEEDED
    if again:
        assert await bench.engine.retry([old.id]) == []

    (new_id,) = await bench.engine.retry([old.id], again=again)

    assert await bench.engine.retry([old.id, old.id], again=again) == []
    new = await bench.task(new_id)
    assert (new.state, new.request, new.position, new.attempt) == (State.READY, old.request, old.position, None)
    assert new.name == (f"{old.name}-v2" if again else old.name)
    assert (await bench.task(old.id)).state is end
    assert await bench.engine.counts("b") == {State.READY: 1}
    (stored,) = bench.read(sa.select(tasks).where(tasks.c.id == new_id))
    assert (stored["retry_of"], stored["revision"], stored["newest"]) == (old.id, 2, True)


async def test_only_a_rows_newest_task_can_be_retried(bench: Bench) -> None:
    first = await bench.record(await bench.claimed(), life.Failed("x"))
    (second_id,) = await bench.engine.retry([first.id])
    (second,) = await bench.claim()
    await bench.record(second, life.Failed("x"))

    assert await bench.engine.retry([first.id]) == []
    assert len(await bench.engine.retry([second_id])) == 1


async def test_what_has_not_ended_is_not_retried(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout"))
    await bench.rows(9)

    assert await bench.engine.retry([task.id, task.id + 1, 999], again=True) == []


async def test_a_row_that_was_retried_is_known_when_the_file_comes_again(bench: Bench) -> None:
    old = await bench.record(await bench.claimed(), life.Failed("x"))
    await bench.engine.retry([old.id])

    assert await bench.rows(0) == Added(same=1)
    assert await bench.rows(0, digest="2") == Added(changed=1)
    assert bench.states() == {"row-0.1": "failed", "row-0.2": "cancelled", "row-0.3": "ready"}


async def test_many_are_retried_in_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dujiang.engines.sql.engine.PAGE", 3)
    await bench.rows(*range(8))
    found = [await bench.record(task, life.Failed("x")) for task in await bench.claim()]

    assert len(await bench.engine.retry([task.id for task in found])) == 8
    assert await bench.engine.retry([task.id for task in found]) == []


# -- Adoption ---------------------------------------------------------------------------------------------------------


async def test_rule_8_on_adoption_each_state_goes_its_way(bench: Bench) -> None:
    await bench.rows(*range(6))
    submitting, generating, collecting, preparing, done, submitting_too = await bench.claim()
    await bench.record(generating, life.Accepted("j1"))
    await bench.record(collecting, life.Accepted("j2"), life.Rendered(URLS))
    await bench.record(preparing, life.LinkRefused())
    await bench.record(done, life.Failed("x"))
    bench.clock.time += 50

    adopted = await bench.engine.adopt(a_worker("w2"), bench.worker, lambda lane: 100.0 + lane)

    by_id = {task.id: task.state for task in adopted}
    assert by_id == {
        submitting.id: State.IN_DOUBT,
        generating.id: State.GENERATING,
        collecting.id: State.COLLECTING,
        preparing.id: State.QUEUED,
        submitting_too.id: State.IN_DOUBT,
    }
    stored = bench.attempt(submitting)
    assert stored["slot_until"] == NOON + 100 + bench.lane.id  # from when it was sent
    assert stored["outcome"] == "in_doubt"
    assert bench.attempt(generating)["slot_until"] == inf
    owners = {row["id"]: row["owner"] for row in bench.read(sa.select(tasks.c.id, tasks.c.owner))}
    assert (owners[generating.id], owners[collecting.id]) == ("w2", "w2")
    assert (owners[submitting.id], owners[preparing.id]) == (None, None)
    assert adopted == [await bench.task(task.id) for task in adopted]


async def test_a_worker_that_was_adopted_holds_nothing_any_more(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job"))
    await bench.engine.register(a_worker("w2"))

    assert len(await bench.engine.adopt(a_worker("w2"), bench.worker, lambda _: 9.0)) == 1

    assert [worker.id for worker in await bench.engine.workers()] == ["w2"]
    assert await bench.engine.adopt(a_worker("w3"), bench.worker, lambda _: 9.0) == []


async def test_a_worker_that_is_heard_of_after_it_was_seen_to_be_silent_keeps_everything(bench: Bench) -> None:
    task = await bench.claimed()
    bench.clock.time += 60
    (silent,) = await bench.engine.workers()

    await bench.open_engine().heartbeat(bench.worker)

    assert silent.silent_s == 60
    assert await bench.engine.adopt(a_worker("w2"), silent, lambda _: 9.0) == []
    assert (await bench.record(task, life.Accepted("job"))).state is State.GENERATING
    assert await bench.engine.heartbeat(bench.worker), "nobody has taken it for dead"


async def test_a_job_that_a_person_found_is_taken_by_whoever_looks(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Unanswered("timeout"))
    held = await bench.record(await bench.claimed(), life.Accepted("j"))
    await bench.engine.record(task, life.JobFound("job"))

    (found,) = await bench.engine.adopt(bench.worker, None, lambda _: 9.0)

    assert (found.id, found.state) == (task.id, State.GENERATING)
    assert await bench.engine.adopt(a_worker("w2"), None, lambda _: 9.0) == []
    assert (await bench.task(held.id)).version == held.version


async def test_a_submit_of_the_future_does_not_lengthen_its_slot(bench: Bench) -> None:
    task = await bench.claimed()
    bench.clock.time -= 3600

    await bench.engine.adopt(a_worker("w2"), bench.worker, lambda _: 60.0)

    assert bench.attempt(task)["slot_until"] == bench.clock.time + 60


async def test_of_two_that_adopt_one_gets_the_task(bench: Bench) -> None:
    for number in range(6):
        await bench.record(await bench.claimed(), life.Accepted(f"j{number}"))
    engines = [bench.engine, bench.open_engine(), bench.open_engine()]

    found = await asyncio.gather(
        *(engine.adopt(a_worker(f"w{n}"), bench.worker, lambda _: 9.0) for n, engine in enumerate(engines))
    )

    assert sorted(task.id for part in found for task in part) == [1, 2, 3, 4, 5, 6]


async def test_a_worker_is_known_while_it_is_registered_or_holds_something(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("job"))

    await bench.engine.unregister(bench.worker)

    assert await bench.engine.workers() == [bench.worker]
    await bench.record(task, life.Failed("x"))
    assert await bench.engine.workers() == []


# -- References -------------------------------------------------------------------------------------------------------


def a_local(number: int = 1) -> LocalPicture:
    return LocalPicture(f"/refs/{number}.png", f"{number:064d}", "png", 1000 + number, 640, 480)


WITH_PICTURE: dict[str, Any] = {"references": (a_local(1), "https://example.com/2.png")}


async def prepared(bench: Bench, task: Task) -> Task:
    return await bench.record(task, life.Prepared(URLS))


async def preparing(bench: Bench, engine: SqlEngine | None = None, batch: str = "b", **more: Any) -> list[Task]:
    return (await (engine or bench.engine).claim_preparation(bench.worker, batch, replace(AHEAD, **more))).tasks


async def host_rests(bench: Bench, subject: Subject = Subject.HOST, key: str = "superbed") -> None:
    await bench.engine.rest(RestOrder(subject, key, "host", "503", RestRule(10.0, 120.0)))


async def test_rows_with_pictures_of_this_machine_wait_to_be_published_and_others_do_not(bench: Bench) -> None:
    await bench.rows(1)
    await bench.rows(2, references=("https://example.com/1.png",))
    await bench.rows(3, **WITH_PICTURE)

    assert bench.states() == {"row-1.1": "ready", "row-2.1": "ready", "row-3.1": "queued"}


async def test_a_changed_row_and_a_retried_one_wait_for_what_they_refer_to_now(bench: Bench) -> None:
    await bench.rows(1, 2)
    await bench.rows(1, digest="2", **WITH_PICTURE)
    (task,) = await preparing(bench)
    failed = await bench.record(task, life.Failed("picture_refused", "no"))
    (other,) = await bench.claim()
    await bench.record(other, life.Failed("50207"))
    await bench.engine.retry([failed.id, other.id])

    assert bench.states() == {
        "row-1.1": "cancelled",
        "row-1.2": "failed",
        "row-1.3": "queued",
        "row-2.1": "failed",
        "row-2.2": "ready",
    }


async def test_a_request_with_pictures_is_stored_as_it_is(bench: Bench) -> None:
    references = (a_local(1), "https://example.com/2.png", replace(a_local(3), path='C:\\图片\\"a" b.png', kind="webp"))
    await bench.rows(1, references=references, parameters={"scale": 0.5}, images=3)

    (task,) = await preparing(bench)

    assert task.request == a_row(1, references=references, parameters={"scale": 0.5}, images=3).request
    assert (await bench.task(task.id)).request == task.request
    assert task.references == ()


async def test_the_best_are_prepared_first(bench: Bench) -> None:
    await bench.rows(1, 2, **WITH_PICTURE)
    await bench.rows(3, priority=5, **WITH_PICTURE)
    await bench.rows(0, priority=-5, **WITH_PICTURE)

    found = await preparing(bench, at_once=3)

    assert names(found) == ["cat 3", "cat 1", "cat 2"]
    assert {task.state for task in found} == {State.PREPARING}
    assert bench.history(found[0]) == ["PreparationStarted"]


async def test_prepared_and_in_preparation_together_are_no_more_than_are_wanted_ahead(bench: Bench) -> None:
    await bench.rows(*range(10), **WITH_PICTURE)

    first = await preparing(bench, tasks=4, at_once=3)
    assert names(first) == ["cat 0", "cat 1", "cat 2"]
    await prepared(bench, first[0])
    assert names(await preparing(bench, tasks=4, at_once=3)) == ["cat 3"]
    await prepared(bench, first[1])
    assert await preparing(bench, tasks=4, at_once=3) == []  # two prepared, two in preparation

    (claimed,) = await bench.claim(1)
    assert claimed.id == first[0].id
    assert names(await preparing(bench, tasks=4, at_once=3)) == ["cat 4"]


async def test_each_product_has_tasks_of_its_own_ahead(bench: Bench) -> None:
    await bench.rows(1, 2, 3, **WITH_PICTURE)
    await bench.rows(4, 5, 6, req_key="k2", **WITH_PICTURE)
    await bench.rows(7, req_key="nobody's", **WITH_PICTURE)

    found = await preparing(bench, tasks=2, req_keys=["k", "k2"])

    assert names(found) == ["cat 1", "cat 2", "cat 4", "cat 5"]


async def test_tasks_that_had_nothing_to_publish_are_not_ahead(bench: Bench) -> None:
    await bench.rows(*range(5))
    await bench.rows(7, 8, **WITH_PICTURE)

    assert names(await preparing(bench, tasks=1)) == ["cat 7"]


async def test_a_task_before_the_worst_prepared_one_is_always_taken(bench: Bench) -> None:
    await bench.rows(3, 4, **WITH_PICTURE)
    for task in await preparing(bench, tasks=2):
        await prepared(bench, task)
    assert await preparing(bench, tasks=2) == []

    await bench.rows(5, **WITH_PICTURE)  # behind
    await bench.rows(1, **WITH_PICTURE)
    await bench.rows(6, priority=1, **WITH_PICTURE)

    assert names(await preparing(bench, tasks=2)) == ["cat 6", "cat 1"]


async def test_uploads_at_once_are_counted_over_all_batches_and_programs(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch("b2"))
    await bench.rows(1, 2, **WITH_PICTURE)
    await bench.engine.enqueue("b2", [a_row(number, **WITH_PICTURE) for number in range(5)])
    other = bench.open_engine()

    assert len(await preparing(bench, at_once=3)) == 2
    (one,) = await preparing(bench, other, "b2", at_once=3)
    assert await preparing(bench, other, "b2", at_once=3) == []
    await prepared(bench, one)
    assert len(await preparing(bench, at_once=3, batch="b2")) == 1


async def test_programs_that_prepare_together_never_exceed_what_is_allowed_at_once(bench: Bench) -> None:
    await bench.rows(*range(40), **WITH_PICTURE)
    engines = [bench.engine, bench.open_engine()]
    taken: list[Task] = []
    most = 0

    async def prepare(engine: SqlEngine) -> None:
        nonlocal most
        while found := await preparing(bench, engine, at_once=3, tasks=100):
            taken.extend(found)
            (row,) = bench.read(sa.select(sa.func.count().label("n")).where(tasks.c.state == "preparing"))
            most = max(most, row["n"])
            for task in found:
                await engine.record(task, life.Prepared(URLS), None, bench.worker)

    await asyncio.gather(*(prepare(engine) for engine in engines for _ in range(3)))
    while await preparing(bench, at_once=3, tasks=100):
        raise AssertionError("something was left although nobody prepared any more")

    assert most <= 3
    assert len(taken) == len({task.id for task in taken}) == 40


async def test_a_paused_batch_prepares_nothing(bench: Bench) -> None:
    await bench.rows(1, **WITH_PICTURE)
    await bench.engine.pause("b", paused=True)
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], None)

    await bench.engine.pause("b", paused=False)
    assert len(await preparing(bench)) == 1


@pytest.mark.parametrize(("subject", "key"), [(Subject.HOST, "superbed"), (Subject.DISK, "*")])
async def test_while_host_or_disk_rest_nothing_is_prepared_and_then_one_looks(
    bench: Bench, subject: Subject, key: str
) -> None:
    await bench.rows(*range(5), **WITH_PICTURE)
    await host_rests(bench, subject, key)

    bench.clock.time += 4
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], 6.0)
    bench.clock.time += 6
    (looking,) = await preparing(bench)
    assert await preparing(bench) == []
    assert await preparing(bench, bench.open_engine()) == []  # nobody else looks either

    order = RestOrder(subject, key, "host", "503", RestRule(10.0, 120.0))
    await bench.record(looking, life.PutBack("host", "503"), rest=order)
    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], 20.0)


async def test_the_rest_of_another_host_is_in_nobodys_way(bench: Bench) -> None:
    await bench.rows(1, 2, **WITH_PICTURE)
    await host_rests(bench, key="other")
    await host_rests(bench, Subject.ENDPOINT, ENDPOINT)

    assert len(await preparing(bench)) == 2


async def test_a_hosts_rest_is_honoured_no_longer_than_its_length_from_now(bench: Bench) -> None:
    await bench.rows(1, **WITH_PICTURE)
    await host_rests(bench)
    bench.clock.time -= 9000

    assert await bench.engine.claim_preparation(bench.worker, "b", AHEAD) == Turn([], 10.0)
    await bench.engine.shorten_waits()
    bench.clock.time += 10
    assert len(await preparing(bench)) == 1


async def test_a_picture_that_was_published_ends_the_hosts_rest(bench: Bench) -> None:
    await bench.rows(*range(5), **WITH_PICTURE)
    await host_rests(bench)
    await host_rests(bench, key="other")

    await bench.engine.publish(a_local(), "superbed", "https://h/1.png")

    assert [rest.key for rest in await bench.engine.rests()] == ["other"]
    assert len(await preparing(bench)) == 5


async def test_a_host_is_known_to_have_what_was_published_last(bench: Bench) -> None:
    engine, picture = bench.engine, a_local()
    await engine.publish(picture, "superbed", "https://h/1.png")
    bench.clock.time += 60
    await engine.publish(picture, "superbed", "https://h/2.png")
    await engine.publish(picture, "other", "https://o/1.png")

    known = Published("https://h/2.png", NOON + 60)
    assert await engine.published([picture.sha256], "superbed") == {picture.sha256: known}
    assert await bench.open_engine().published([picture.sha256], "superbed") == {picture.sha256: known}
    assert await engine.published([picture.sha256], "nobody") == {}
    assert await engine.published([], "superbed") == {}


async def test_a_link_that_was_looked_at_is_good_from_then_on_and_one_that_is_gone_is_forgotten(bench: Bench) -> None:
    engine, picture = bench.engine, a_local()
    for host in ("superbed", "other"):
        await engine.publish(picture, host, f"https://{host}/1.png")
    bench.clock.time += 3600

    await engine.confirm(picture, "superbed", there=True)
    assert (await engine.published([picture.sha256], "superbed"))[picture.sha256].known_good_at == NOON + 3600
    bench.clock.time += 3600
    await engine.publish(picture, "superbed", "https://superbed/2.png")  # what was seen of the old link is over
    assert (await engine.published([picture.sha256], "superbed"))[picture.sha256].known_good_at == NOON + 7200

    await engine.confirm(picture, "superbed", there=False)
    await engine.confirm(picture, "superbed", there=False)
    await engine.confirm(picture, "superbed", there=True)  # a look that came too late brings nothing back
    assert await engine.published([picture.sha256], "superbed") == {}
    assert len(await engine.published([picture.sha256], "other")) == 1


async def test_many_links_are_asked_for_at_once(bench: Bench) -> None:
    pictures = [a_local(number) for number in range(1200)]
    for picture in pictures[::100]:
        await bench.engine.publish(picture, "superbed", f"https://h{picture.path}")

    found = await bench.engine.published([picture.sha256 for picture in pictures], "superbed")

    assert {sha256: one.url for sha256, one in found.items()} == {
        picture.sha256: f"https://h{picture.path}" for picture in pictures[::100]
    }


async def test_a_turn_tells_in_which_states_tasks_still_wait(bench: Bench) -> None:
    assert (await bench.turn(1)).waiting == frozenset()
    await bench.rows(1, 2, **WITH_PICTURE)
    await bench.rows(3, 4)

    assert (await bench.turn(1)).waiting == {State.QUEUED, State.READY}
    await preparing(bench, at_once=1)
    assert (await bench.turn(1)).waiting == {State.QUEUED, State.PREPARING, State.READY}
    assert (await bench.turn(2)).waiting == {State.QUEUED, State.PREPARING}
    await preparing(bench)
    assert (await bench.turn(2)).waiting == {State.PREPARING}
    await bench.engine.cancel(batch_id="b")


async def test_a_preparation_whose_program_died_is_put_back_and_its_references_are_found(bench: Bench) -> None:
    await bench.rows(1, **WITH_PICTURE)
    (task,) = await preparing(bench)

    await bench.engine.adopt(a_worker("w2"), bench.worker, lambda _: 9.0)

    assert (await bench.task(task.id)).state is State.QUEUED
    with pytest.raises(StaleTask):
        await prepared(bench, task)
    assert len(await preparing(bench)) == 1


async def test_tasks_in_a_list_tell_their_references_and_how_many_are_published(bench: Bench) -> None:
    await bench.rows(1, references=(a_local(1), "https://example.com/2.png", a_local(3)))
    await bench.engine.publish(a_local(3), "superbed", "https://h/3.png")

    with reading(bench.engine.database) as connection:
        (shown,) = list_tasks(connection, TaskFilter(batch_id="b"))

    assert shown["refs"] == ["/refs/1.png", "https://example.com/2.png", "/refs/3.png"]
    assert shown["published"] == (1, 2)


async def test_a_list_of_many_tasks_with_many_references_is_told(bench: Bench) -> None:
    rows = [a_row(n, references=tuple(a_local(10 * n + m) for m in range(10))) for n in range(3300)]
    await bench.engine.enqueue("b", rows)
    await bench.engine.publish(a_local(32_999), "superbed", "https://h/last.png")

    with reading(bench.engine.database) as connection:
        shown = list_tasks(connection, TaskFilter(batch_id="b", limit=10_000))

    assert len(shown) == 3300
    assert [task["published"] for task in shown[-2:]] == [(0, 10), (1, 10)]


async def test_a_list_tells_of_each_task_the_newest_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dujiang.engines.sql.queries.IN_ONE_LIST", 2)
    await bench.rows(*range(4))
    first, second, third = await bench.claim(at_most=3)
    await bench.record(first, life.Accepted("job-1"))
    await bench.record(second, life.Unanswered("timeout"), life.ResubmitDecided())
    await bench.record(third, life.Accepted("job-3"))
    (again,) = await bench.claim(at_most=1)
    await bench.record(again, life.Accepted("job-2, again"))

    with reading(bench.engine.database) as connection:
        shown = list_tasks(connection, TaskFilter(batch_id="b"))
        reported = list(report_rows(connection, "b"))

    told = [(task["attempt"], task["job_id"], task["account"]) for task in shown]
    account = bench.lane.account
    assert told == [(1, "job-1", account), (2, "job-2, again", account), (1, "job-3", account), (0, None, None)]
    assert [task["job_id"] for task in reported] == [task["job_id"] for task in shown]
    assert [task["key_fingerprint"] for task in reported] == ["f" * 24] * 3 + [None]


async def test_a_link_that_was_refused_is_prepared_again_from_the_head_of_the_line(bench: Bench) -> None:
    await bench.rows(*range(3))
    for task in await bench.claim():
        await bench.record(task, life.LinkRefused("404"), life.PutBack("network"))

    found = (await bench.engine.claim_preparation(bench.worker, "b", replace(AHEAD, at_once=2))).tasks

    assert names(found) == ["cat 0", "cat 1"]
    assert {task.state for task in found} == {State.PREPARING}
    prepared = await bench.record(found[0], life.Prepared(URLS))
    assert (prepared.state, prepared.references) == (State.READY, URLS)
    assert (await bench.task(prepared.id)).references == URLS
    assert len((await bench.engine.claim_preparation(bench.worker, "b", AHEAD)).tasks) == 1


# -- The limit that finds itself --------------------------------------------------------------------------------------


async def auto_turn(bench: Bench, limit: str = "auto") -> Turn:
    """A turn of the lane whose limit finds itself."""
    parsed = AutoLimit.parse(limit)
    offer = Offer(bench.lane, parsed, "f" * 24, at_most=parsed.high)
    return await bench.engine.claim(bench.worker, [offer], "b")


async def belief(bench: Bench) -> Belief:
    (found,) = [use.belief for use in await bench.engine.lanes() if use.lane.id == bench.lane.id]
    assert found is not None
    return found


async def test_one_submit_at_a_time_is_permitted_until_it_is_answered_and_says_why(bench: Bench) -> None:
    await bench.rows(*range(9))

    (first,) = (await auto_turn(bench)).tasks
    assert first.attempt is not None
    assert first.attempt.kind is Kind.GROW
    assert (await bench.task(first.id)).attempt == first.attempt
    assert (await auto_turn(bench)).tasks == []

    await bench.record(first, life.Accepted("j1"))
    assert len((await auto_turn(bench)).tasks) == 1


async def test_a_refusal_sets_the_limit_to_what_is_held_and_the_change_is_written_down(bench: Bench) -> None:
    await bench.rows(*range(9))
    for job in ("j1", "j2"):
        (task,) = (await auto_turn(bench)).tasks
        await bench.record(task, life.Accepted(job))
    (third,) = (await auto_turn(bench)).tasks
    await bench.record(third, life.Postponed("slot", "50430"))

    turn = await auto_turn(bench)
    assert turn.tasks == []
    assert turn.beliefs[bench.lane.id].level == "2"
    assert (await belief(bench)).level == "2"
    assert [row.what for row in bench.read(sa.select(lane_events))] == ["50430: climbing -> 2"]
    assert await bench.engine.rests() == []


async def test_what_is_learned_is_known_to_every_engine_of_the_store(bench: Bench) -> None:
    await bench.rows(*range(9))
    (task,) = (await auto_turn(bench)).tasks
    await bench.record(task, life.Accepted("j1"))
    (task,) = (await auto_turn(bench)).tasks
    await bench.record(task, life.Postponed("slot", "50430"))

    other = bench.open_engine()
    (use,) = [use for use in await other.lanes() if use.lane.id == bench.lane.id]
    assert use.belief is not None
    assert use.belief.level == "1"
    assert use.in_force == AutoLimit()
    assert await other.hint(bench.lane)
    assert (await belief(bench)).probe_at == bench.clock.time


async def test_too_many_requests_a_second_leave_the_limit_alone(bench: Bench) -> None:
    await bench.rows(*range(3))
    (task,) = (await auto_turn(bench)).tasks
    await bench.record(task, life.Postponed("qps", "50429"))

    assert (await belief(bench)).level == "climbing"
    assert bench.read(sa.select(lane_events)) == []


async def test_run_times_are_learned_from_what_was_measured_alone(bench: Bench) -> None:
    await bench.rows(*range(3))
    for job, run_s in (("j1", 30.0), ("j2", None)):
        (task,) = (await auto_turn(bench)).tasks
        task = await bench.record(task, life.Accepted(job))
        await bench.record(task, life.Rendered(URLS, run_s))

    assert (await belief(bench)).runs == 1


async def test_a_fixed_limit_has_no_belief_and_no_hint(bench: Bench) -> None:
    await bench.rows(1)
    (task,) = await bench.claim()

    assert task.attempt is not None
    assert task.attempt.kind is None
    assert not await bench.engine.hint(bench.lane)
    assert [use.belief for use in await bench.engine.lanes()] == [None] * len(await bench.engine.lanes())


async def test_bounds_are_never_overstepped_whatever_the_vendor_takes(bench: Bench) -> None:
    await bench.rows(*range(9))
    held = 0
    for number in range(12):
        for task in (await auto_turn(bench, "auto:1..3")).tasks:
            held += 1
            await bench.record(task, life.Accepted(f"j{number}-{task.id}"))

    assert held == 3


# -- Reading ----------------------------------------------------------------------------------------------------------


async def test_run_times_are_the_last_200_in_order(bench: Bench) -> None:
    other = await bench.engine.lane(ENDPOINT, an_account(), "k2")
    for number in range(203):
        task = await bench.record(await bench.claimed(), life.Accepted(f"j{number}"))
        bench.clock.time += 1
        await bench.record(task, life.Rendered(URLS, float(number) if number % 100 else None))

    found = await bench.engine.run_times(bench.lane.id)

    assert found == [float(number) for number in range(203) if number % 100][-200:]
    assert await bench.engine.run_times(other.id) == []


async def test_a_run_time_is_stored_once(bench: Bench) -> None:
    task = await bench.record(await bench.claimed(), life.Accepted("j"), life.Rendered(URLS, 20.0), life.UrlsGone())

    await bench.record(task, life.Rendered(URLS, 1.0))

    assert await bench.engine.run_times(bench.lane.id) == [20.0]


async def test_counts_and_what_is_finished_agree_with_the_rows(bench: Bench) -> None:
    """A random life of a batch, compared with what a plain look at the rows says."""
    chance = random.Random(5)
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(n) for n in range(5)])
    for _ in range(12):
        await bench.rows(*chance.sample(range(60), 20), digest=str(chance.randint(1, 2)))
        for task in await bench.claim(at_most=chance.randint(0, 6)):
            await bench.record(task, *chance.choice([*SLOT_FREE.values(), (), (life.Unanswered("t"),)]))
        ended = bench.read(sa.select(tasks.c.id).where(tasks.c.state.in_([s.value for s in FINAL])))
        await bench.engine.retry([row["id"] for row in ended if chance.random() < 0.2], again=True)

        rows = [row for row in bench.read(sa.select(tasks)) if row["newest"] and row["batch_id"] == "b"]
        assert await bench.engine.counts("b") == Counter(State(row["state"]) for row in rows)
        finished = [task.id async for task in bench.engine.finished("b")]
        expected = [row for row in rows if row["state"] in FINAL]
        assert finished == [row["id"] for row in sorted(expected, key=lambda row: (row["position"], row["id"]))]
        assert len({row["row"] for row in rows}) == len(rows)  # one newest task a row
        doubts = [task.id for task in await bench.engine.doubts("b")]
        assert sorted(doubts) == sorted(row["id"] for row in rows if row["state"] == "in_doubt")


async def test_what_is_finished_is_read_in_pages(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dujiang.engines.sql.engine.PAGE", 4)
    await bench.rows(*range(13))
    for task in await bench.claim():
        if task.position % 3:
            await bench.record(task, life.Failed("x"))

    found = [task.position async for task in bench.engine.finished("b")]

    assert found == [number for number in range(13) if number % 3]


async def test_doubts_come_in_the_order_of_the_file(bench: Bench) -> None:
    await bench.rows(5, 1, 3)
    for task in reversed(await bench.claim()):
        await bench.record(task, life.Unanswered("timeout"))

    assert [task.position for task in await bench.engine.doubts("b")] == [1, 3, 5]


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_a_task_that_is_claimed_while_its_batch_is_cancelled_is_not_said_to_be_cancelled(bench: Bench) -> None:
    await bench.rows(1, 2)
    first, second = [row["id"] for row in bench.read(sa.select(tasks.c.id).order_by(tasks.c.id))]
    claimed = {"state": "submitting", "version": 1, "owner": "w"}

    with bench.engine.database.connect() as claiming:
        claiming.execute(sa.update(tasks).where(tasks.c.id == first).values(claimed))
        cancelling = asyncio.create_task(bench.engine.cancel(batch_id="b"))
        async with asyncio.timeout(10):
            while not claiming.exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted").all():
                await asyncio.sleep(0.01)  # PostgreSQL tells nobody that it waits
        claiming.commit()
    done = await cancelling

    assert done == {"cancelled": 1, "requested": 1, "refused": 0}
    assert bench.history(await bench.task(first)) == ["CancelRequested"]
    assert bench.history(await bench.task(second)) == ["Cancelled"]


async def test_the_products_of_a_batch_are_those_of_its_newest_tasks(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch("other"))
    await bench.rows(1, 2, 3, req_key="k")
    await bench.rows(4, 5, req_key="k2")
    await bench.rows(6, req_key="a")
    await bench.rows(7, req_key="z")
    await bench.engine.enqueue("other", [a_row(1, req_key="k3")])
    await bench.record((await bench.claim(at_most=1))[0], life.Failed("x"))

    await bench.rows(7, req_key="k", digest="2")

    assert await bench.engine.products("b") == {"a", "k", "k2"}
    assert await bench.engine.products("nothing") == frozenset()


@pytest.mark.parametrize("limit", [3, 1000])
async def test_lists_of_states_and_codes_are_what_is_left_of_the_whole_list(
    bench: Bench, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dujiang.engines.sql.queries.IN_ONE_LIST", 4)
    await bench.engine.open_batch(a_batch("other"))
    await bench.rows(*range(20))
    await bench.engine.enqueue("other", [a_row(number) for number in range(20)])
    for batch in ("b", "other"):
        turn = await bench.engine.claim(bench.worker, [an_offer(bench.lane, at_most=12)], batch)
        for number, task in enumerate(turn.tasks):
            await bench.record(
                task, [life.Failed("x"), life.Failed("y"), life.Blocked("x"), life.Unanswered("x")][number % 4]
            )
    await bench.rows(0, 1, 2, digest="2")  # those that failed are not the newest any more

    def listed(**wanted: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with reading(bench.engine.database) as connection:
            while page := list_tasks(connection, TaskFilter(**wanted, limit=limit, after_id=last_id(found))):
                assert len(page) <= limit
                found += page
        return found

    def last_id(found: Sequence[dict[str, Any]]) -> int:
        return found[-1]["id"] if found else 0

    whole = listed()
    assert len(whole) == 40
    choices: list[Sequence[State]] = [[], [State.FAILED], [State.FAILED, State.READY, State.LOST], [State.LOST]]
    for batch_id in (None, "b", "other"):
        for states in choices:
            for code in (None, "x", "z"):
                expected = [
                    task
                    for task in whole
                    if batch_id in {None, task["batch_id"]}
                    and (not states or task["state"] in states)
                    and (code is None or (task["error"] and task["error"]["code"] == code))
                ]
                assert listed(batch_id=batch_id, states=states, code=code) == expected, (batch_id, states, code)


async def asked_until(engine: SqlEngine, answer: bool) -> None:
    """News of a server take a moment; before it is known that they come, something may always have changed.

    To ask is the only way to hear of them: whoever runs asks whenever it looks around.
    """
    async with asyncio.timeout(10):
        while await engine.changed_elsewhere() != answer:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_news_of_another_program_come_once_and_ones_own_never(bench: Bench) -> None:
    other = bench.open_engine()
    await asked_until(bench.engine, False)

    await bench.rows(1)
    await other.pause("b", paused=True)
    await asked_until(bench.engine, True)
    assert not await bench.engine.changed_elsewhere()
    await asked_until(other, True)  # of the rows


@only_sqlite
async def test_a_change_by_another_program_is_noticed_once(bench: Bench) -> None:
    other = bench.open_engine()
    await bench.engine.changed_elsewhere()

    await bench.rows(1)
    assert not await bench.engine.changed_elsewhere()
    await other.pause("b", paused=True)
    assert await bench.engine.changed_elsewhere()
    assert not await bench.engine.changed_elsewhere()


@only_sqlite
async def test_a_change_by_another_program_is_noticed_beside_a_change_that_fails(bench: Bench) -> None:
    stale = await bench.claimed()
    await bench.record(stale, life.Accepted("job"))
    await bench.engine.changed_elsewhere()
    await bench.open_engine().pause("b", paused=True)

    changed, failed = await asyncio.gather(
        bench.engine.changed_elsewhere(), bench.record(stale, life.Accepted("job")), return_exceptions=True
    )

    assert changed is True
    assert isinstance(failed, StaleTask)


# -- Accounts and lanes -----------------------------------------------------------------------------------------------


async def test_a_lane_is_made_once(bench: Bench) -> None:
    assert await bench.engine.lane(ENDPOINT, an_account(), "k") == bench.lane
    others = [
        await bench.engine.lane(ENDPOINT, an_account(), "k2"),
        await bench.engine.lane("https://elsewhere", an_account(), "k"),
        await bench.engine.lane(ENDPOINT, an_account("z"), "k"),
    ]

    assert len({lane.id for lane in [bench.lane, *others]}) == 4


async def test_an_account_that_shares_a_key_is_that_one_renamed(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job"))

    lane = await bench.engine.lane(ENDPOINT, an_account("renamed", "new key", "key-a"), "k")

    assert (lane.id, lane.account) == (bench.lane.id, "renamed")
    assert [use.lane.account for use in await bench.engine.lanes()] == ["renamed"]


async def test_rule_7_after_a_key_rotation_it_is_still_that_account(bench: Bench) -> None:
    rotated = await bench.engine.lane(ENDPOINT, an_account("a", "new key"), "k")
    by_old_key = await bench.engine.lane(ENDPOINT, an_account("other name", "key-a"), "k")

    assert rotated.id == by_old_key.id == bench.lane.id


async def test_two_accounts_that_swap_their_names_stay_two(bench: Bench) -> None:
    other = await bench.engine.lane(ENDPOINT, an_account("z"), "k")

    swapped = await bench.engine.lane(ENDPOINT, an_account("z", "key-a"), "k")
    swapped_too = await bench.engine.lane(ENDPOINT, an_account("a", "key-z"), "k")

    assert (swapped.id, swapped_too.id) == (bench.lane.id, other.id)


async def test_no_secret_is_stored(bench: Bench) -> None:
    await bench.claimed()

    stored = json.dumps(bench.everything(), default=str)

    assert "key-a" not in stored
    assert "secret of" not in stored


async def test_a_limit_holds_for_everybody_until_it_is_set_again(bench: Bench) -> None:
    await bench.engine.set_limit(bench.lane, FixedLimit(3))
    await bench.open_engine().set_limit(bench.lane, FixedLimit(5))

    assert [use.limit for use in await bench.engine.lanes()] == [FixedLimit(5)]


# -- The writer -------------------------------------------------------------------------------------------------------


async def test_a_change_that_fails_hurts_no_other_of_its_group(bench: Bench) -> None:
    await bench.rows(*range(20))
    found = await bench.claim()
    stale = found[7]
    await bench.record(stale, life.Accepted("job-7"))

    results = await asyncio.gather(
        *(bench.record(task, life.Accepted(f"job-{task.id}")) for task in found), return_exceptions=True
    )

    assert [type(result) for result in results] == [Task] * 7 + [StaleTask] + [Task] * 12
    assert await bench.engine.counts("b") == {State.GENERATING: 20}
    assert all(bench.history(task) == ["Claimed", "Accepted"] for task in found)


async def test_a_group_of_different_events_leaves_each_task_as_its_own_left_it(bench: Bench) -> None:
    await bench.rows(*range(3))
    lost, accepted, postponed = await bench.claim()

    results = await asyncio.gather(
        bench.record(lost, life.Unanswered("timeout", "它说“\\u0000” 'x'\n{}", slot_for_s=inf)),
        bench.record(accepted, life.Accepted("job")),
        bench.record(postponed, life.Postponed("slot")),
    )

    assert [task.state for task in results] == [State.IN_DOUBT, State.GENERATING, State.READY]
    for task in results:
        found = await bench.engine.task(task.id)
        assert found is not None
        assert (found.state, found.version, found.error_message) == (task.state, task.version, task.error_message)
    stored = {row["task_id"]: row["slot_until"] for row in bench.everything()["attempts"]}
    assert (stored[lost.id], stored[accepted.id], stored[postponed.id]) == (inf, inf, 0.0)


async def together(bench: Bench, *recordings: Recording) -> list[Any]:
    return await bench.engine._change(lambda connection, now: record_all(connection, now, recordings))


async def apart(bench: Bench, *recordings: Recording) -> list[Any]:
    return [(await together(bench, recording))[0] for recording in recordings]


async def test_of_two_that_find_the_same_job_at_once_one_has_it(bench: Bench) -> None:
    await bench.rows(0, 1)
    found = [await bench.record(task, life.Unanswered("timeout")) for task in await bench.claim()]

    results = await asyncio.gather(
        *(bench.record(task, life.JobFound("job")) for task in found), return_exceptions=True
    )

    assert [type(result) for result in results] == [Task, UnlawfulEvent]


async def test_an_unlawful_event_stands_in_the_way_of_no_lawful_one(bench: Bench) -> None:
    task = await bench.claimed()

    unlawful, lawful = await together(
        bench, Recording(task, life.Rendered(URLS, 1.0)), Recording(task, life.Accepted("job"))
    )

    assert isinstance(unlawful, UnlawfulEvent)
    assert lawful.state is State.GENERATING


@pytest.mark.parametrize("record", [apart, together])
async def test_a_disk_rests_from_the_last_that_found_it_full(bench: Bench, record: Any) -> None:
    full = RestOrder(Subject.DISK, "*", "disk", "full", RestRule(10, 10))
    await bench.rows(0, 1, 2)
    first, second, third = [
        await bench.record(task, life.Accepted(f"{task.id}"), life.Rendered(URLS, 1.0)) for task in await bench.claim()
    ]

    await record(bench, Recording(first, life.Saved(())), Recording(second, life.Orphaned("x"), order=full))
    assert [rest.subject for rest in await bench.engine.rests()] == [Subject.DISK]
    await record(bench, Recording(third, life.Saved(())))
    assert await bench.engine.rests() == []


@pytest.mark.parametrize("record", [apart, together])
async def test_a_lane_learns_from_a_refusal_by_what_it_held_at_that_moment(bench: Bench, record: Any) -> None:
    await bench.rows(*range(40))
    auto = replace(an_offer(bench.lane), limit=AutoLimit())
    learning = Learning(scale=1.0, chance=0.5)
    held: list[Task] = []
    refused: Sequence[Task] = ()
    while not refused:
        turn = await bench.engine.claim(bench.worker, [auto], "b")
        bench.clock.time += 1
        refused = turn.tasks if len(held) >= 10 else ()
        held += [await bench.record(task, life.Accepted(f"{task.id}")) for task in turn.tasks if not refused]
    before = len(held)

    await record(
        bench,
        *(Recording(task, life.Postponed("slot"), learning=learning) for task in refused),
        *(Recording(task, life.Rendered(URLS, 20.0), learning=learning) for task in held[:5]),
    )

    (use,) = await bench.engine.lanes()
    assert use.belief is not None
    assert use.belief.limit == before


async def test_a_result_comes_only_after_the_commit(bench: Bench) -> None:
    """Another connection sees what was recorded as soon as `record` returns."""
    await bench.rows(*range(50))
    found = await bench.claim()

    async def record_and_look(task: Task) -> str:
        await bench.record(task, life.Accepted(f"job-{task.id}"))
        return str(bench.attempt(task)["outcome"])

    assert set(await asyncio.gather(*map(record_and_look, found))) == {"running"}


async def test_closing_finishes_what_was_accepted(bench: Bench) -> None:
    engine = bench.open_engine()
    rows = [[a_row(n) for n in range(start, start + 5)] for start in range(0, 500, 5)]
    waiting = [asyncio.create_task(engine.enqueue("b", chunk)) for chunk in rows]
    await asyncio.sleep(0)

    await engine.aclose()

    assert sum([(await added).new for added in waiting]) == 500
    with pytest.raises(StoreError):
        await engine.pause("b", paused=True)
    await engine.aclose()


async def test_what_is_accepted_is_stored_even_if_nobody_waits_for_it_any_more(bench: Bench) -> None:
    task = await bench.claimed()
    recording = asyncio.create_task(bench.record(task, life.Accepted("job")))
    await asyncio.sleep(0)

    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording

    await bench.engine.aclose()  # finishes what it has accepted
    bench.engine = bench.open_engine()
    assert bench.attempt(task)["job_id"] == "job"


@only_sqlite
async def test_a_locked_database_is_waited_for(bench: Bench) -> None:
    lock = bench.store.connect(bench.store.url)
    with lock.connect() as connection:
        connection.begin()
        writing = asyncio.create_task(bench.rows(1))
        await asyncio.sleep(0.3)
        assert not writing.done()
        connection.rollback()
    lock.dispose()

    assert await writing == Added(new=1)


@only_sqlite
async def test_a_database_that_stays_locked_is_told_to_all_at_once(bench: Bench) -> None:
    impatient = sa.create_engine(bench.engine.database.url, connect_args={"timeout": 0.05, "check_same_thread": False})
    store = SqliteStore(_transacting(impatient), bench.clock.now, patience_s=0.1)
    with bench.engine.database.connect() as connection:
        connection.begin()
        results = await asyncio.gather(
            *(store.change(lambda connection, _: connection.execute(sa.delete(attempts))) for _ in range(40)),
            return_exceptions=True,
        )
        connection.rollback()
    await asyncio.to_thread(store.close)
    impatient.dispose()

    assert all(isinstance(result, StoreError) and result.why == "gone" for result in results)


def _transacting(database: sa.Engine) -> sa.Engine:
    """As `connect` sets connections up."""

    @sa.event.listens_for(database, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(database, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return database


@only_sqlite
async def test_a_full_disk_is_told_after_patience_and_leaves_nothing_half_written(bench: Bench) -> None:
    task = await bench.claimed()
    store = SqliteStore(bench.engine.database, bench.clock.now, patience_s=0.1)
    pages = await store.change(lambda connection, _: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    await store.change(lambda connection, _: connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 3}"))
    before = bench.everything()

    def too_much(connection: sa.Connection, _: float) -> None:
        connection.execute(sa.update(tasks).values(name="changed"))
        for number in range(1000):
            values = {"task_id": task.id, "at": 0.0, "type": "x" * 500, "state": "", "attempt": number, "data": ""}
            connection.execute(sa.insert(events).values(**values))

    def small(connection: sa.Connection, _: float) -> int:
        return connection.execute(sa.update(attempts).values(job_id="job")).rowcount

    results = await asyncio.gather(store.change(too_much), store.change(small), return_exceptions=True)

    assert isinstance(results[0], StoreError)
    assert results[0].why == "full"
    assert results[1] == 1  # a job's id may still find room
    after = bench.everything()
    assert after.pop("attempts") != before.pop("attempts")
    assert after == before
    await asyncio.to_thread(store.close)


@only_sqlite
async def test_a_read_only_database_is_a_refusal_of_the_store(bench: Bench) -> None:
    store = SqliteStore(bench.engine.database, bench.clock.now)
    await store.change(lambda connection, _: connection.exec_driver_sql("PRAGMA query_only=ON"))

    with pytest.raises(StoreError) as refused:
        await store.change(lambda connection, _: connection.execute(sa.update(attempts).values(job_id="job")))

    assert refused.value.why == "denied"
    await asyncio.to_thread(store.close)


# -- Speed ------------------------------------------------------------------------------------------------------------


def the_statements(bench: Bench) -> list[tuple[str, Any]]:
    """Collects every statement from now on."""
    seen: list[tuple[str, Any]] = []

    @sa.event.listens_for(bench.engine.database, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            seen.append((statement, parameters[0] if many else parameters))

    return seen


@only_sqlite
async def test_no_statement_walks_through_all_tasks_or_attempts(bench: Bench) -> None:
    await bench.rows(*range(300))
    seen = the_statements(bench)
    engine = bench.engine

    await bench.rows(*range(5), digest="2")
    first, second, third, *_ = await bench.claim(20)
    await bench.turn(3)
    await bench.engine.rest(orders(bench.lane)[Subject.ENDPOINT])
    bench.clock.time += 2
    await bench.claim(20)
    await bench.claim(20)
    first = await bench.record(first, life.Accepted("j"))
    await engine.hold_slot(first, 9.0)
    await bench.record(first, life.Rendered(URLS, 9.0))
    second = await bench.record(second, life.Unanswered("x"))
    await bench.record(second, life.JobFound("j2"))
    await bench.record(third, life.LinkRefused(), life.PutBack("x"))
    await engine.claim_preparation(bench.worker, "b", AHEAD)
    await bench.rows(*range(300, 600), **WITH_PICTURE)
    await engine.rest(RestOrder(Subject.HOST, "superbed", "host", "503", RestRule(1.0, 1.0)))
    await engine.claim_preparation(bench.worker, "b", AHEAD)
    await engine.publish(a_local(1), "superbed", "https://h/1.png")
    await engine.publish(a_local(1), "superbed", "https://h/2.png")
    for task in await preparing(bench):
        await prepared(bench, task)
    await preparing(bench, tasks=3)
    await engine.published([a_local(1).sha256], "superbed")
    await engine.confirm(a_local(1), "superbed", there=True)
    await engine.confirm(a_local(1), "superbed", there=False)
    await asyncio.to_thread(list_a_page, engine)
    await engine.cancel(task_ids=[50])
    await engine.retry([50])
    await engine.cancel_requests(bench.worker)
    await engine.workers()
    await engine.adopt(a_worker("w2"), bench.worker, lambda _: 9.0)
    await engine.adopt(a_worker("w2"), None, lambda _: 9.0)
    await engine.shorten_waits()
    await engine.lanes()
    await engine.run_times(bench.lane.id)
    await engine.doubts("b")
    await engine.counts("b")
    [_ async for _ in engine.finished("b")]
    await engine.cancel(batch_id="b")

    assert len(seen) > 40
    with engine.database.connect().execution_options(reading=True) as connection:
        for statement, parameters in seen:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [str(row[3]) for row in plan]
            for step in steps:
                walks = ("SCAN tasks", "SCAN attempts", "SCAN events", "SCAN references")
                assert not step.startswith(walks), (statement, steps)


def list_a_page(engine: SqlEngine, **more: Any) -> None:
    with reading(engine.database) as connection:
        list_tasks(connection, TaskFilter(batch_id="b", after_id=3, **more))


@only_sqlite
@pytest.mark.parametrize(
    ("what", "index"),
    [
        ("claim", "ix_tasks_line (batch_id=? AND state=? AND req_key=?)"),
        ("claim", "ix_attempts_slots (lane_id=? AND slot_until>?)"),
        ("full", "ix_attempts_slots (lane_id=? AND slot_until>? AND slot_until<?)"),
        ("counts", "task_counts USING PRIMARY KEY (batch_id=?)"),
        ("adopt", "ix_tasks_owner (owner=?)"),
        ("orphans", "ix_tasks_owner (owner=?)"),
        ("cancel_requests", "ix_tasks_owner (owner=?)"),
        ("workers", "ix_tasks_owner (owner>?)"),
        ("products", "ix_tasks_line (batch_id=? AND state=? AND req_key>?)"),
        ("doubts", "ix_tasks_states (batch_id=? AND newest=? AND state=?)"),
        ("finished", "ix_tasks_order (batch_id=? AND newest=? AND position>?)"),
        ("run_times", "ix_attempts_run_times (lane_id=?)"),
        ("enqueue", "(batch_id=? AND row=?)"),
        ("lanes", "ix_attempts_slots (lane_id=? AND slot_until>?)"),
        ("shorten", "ix_attempts_slots (lane_id=? AND slot_until>? AND slot_until<?)"),
        ("list", "ix_tasks_list (batch_id=? AND newest=? AND id>?)"),
        ("list of a state", "ix_tasks_states (batch_id=? AND newest=? AND state=? AND id>?)"),
        ("list of states", "COVERING INDEX ix_tasks_states (batch_id=? AND newest=? AND state=? AND id>?)"),
        ("list of a code", "ix_tasks_codes (batch_id=? AND newest=? AND state=? AND error_code=? AND id>?)"),
        ("prepare", "ix_tasks_line (batch_id=? AND state=? AND req_key=?)"),
        ("prepare", "ix_tasks_prepared (batch_id=? AND state=? AND req_key=?)"),
        ("prepare", "ix_tasks_owner (owner>?)"),
        ("published", "sqlite_autoindex_references_1 (sha256=? AND host=?)"),
    ],
)
async def test_every_question_that_is_asked_often_has_its_index(bench: Bench, what: str, index: str) -> None:
    await bench.rows(*range(50))
    await bench.claim(3)
    await bench.rows(*range(50, 90), **WITH_PICTURE)
    for task in await preparing(bench):
        await prepared(bench, task)
    engine = bench.engine
    seen = the_statements(bench)
    asked: dict[str, Callable[[], Any]] = {
        "claim": lambda: bench.claim(4),
        "full": lambda: bench.claim(3),
        "counts": lambda: engine.counts("b"),
        "products": lambda: engine.products("b"),
        "adopt": lambda: engine.adopt(a_worker("w2"), bench.worker, lambda _: 9.0),
        "orphans": lambda: engine.adopt(a_worker("w2"), None, lambda _: 9.0),
        "cancel_requests": lambda: engine.cancel_requests(bench.worker),
        "workers": engine.workers,
        "doubts": lambda: engine.doubts("b"),
        "finished": lambda: anext(engine.finished("b"), None),
        "run_times": lambda: engine.run_times(bench.lane.id),
        "enqueue": lambda: bench.rows(1),
        "lanes": engine.lanes,
        "shorten": engine.shorten_waits,
        "list": lambda: asyncio.to_thread(list_a_page, engine),
        "list of a state": lambda: asyncio.to_thread(list_a_page, engine, states=[State.READY]),
        "list of states": lambda: asyncio.to_thread(list_a_page, engine, states=[State.READY, State.SUBMITTING]),
        "list of a code": lambda: asyncio.to_thread(list_a_page, engine, states=[State.READY], code="x"),
        "prepare": lambda: preparing(bench),
        "published": lambda: engine.published([a_local(1).sha256], "superbed"),
    }

    await asked[what]()

    with engine.database.connect().execution_options(reading=True) as connection:
        plans = [
            [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in seen
        ]
    steps = [step for plan in plans for step in plan]
    assert any(index in step for step in steps), "\n".join(steps)
    if what in {"claim", "finished", "run_times", "prepare"} or (what.startswith("list") and what != "list of states"):
        assert not any("TEMP B-TREE" in step for step in steps), "the index gives the order, too"


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_known_rows_are_looked_up_one_by_one_in_a_batch_that_statistics_do_not_know(bench: Bench) -> None:
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(number) for number in range(2000)])
    await bench.engine.analyze()
    await bench.rows(*range(2000))
    seen = the_statements(bench)

    await bench.rows(*range(1999, 2099))

    lookups = [(statement, asked) for statement, asked in seen if "unnest" in statement]
    assert len(lookups) == 2
    with reading(bench.engine.database) as connection:
        for statement, asked in lookups:
            plan = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", asked)]
            assert any("Index Cond" in step and ">= given.value" in step for step in plan), plan


async def test_times_in_a_history_never_go_back_while_the_clock_does_not(bench: Bench) -> None:
    task = await bench.claimed()
    for event in (life.Accepted("j"), life.Rendered(URLS), life.Saved(())):
        bench.clock.time += 1
        task = await bench.record(task, event)

    found = [row["at"] for row in bench.read(sa.select(events.c.at).order_by(events.c.id))]

    assert all(earlier <= later for earlier, later in pairwise(found))


@pytest.mark.parametrize("bench", ["postgres"], indirect=True)
async def test_a_look_for_what_nobody_holds_that_finds_nothing_wakes_nobody(bench: Bench) -> None:
    import psycopg

    other = bench.open_engine()
    url = sa.make_url(bench.store.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as ears:
        ears.execute("LISTEN dujiang")

        await bench.engine.adopt(bench.worker, None, lambda lane: 0.0)
        await other.pause("b", paused=True)

        told = list(ears.notifies(timeout=20, stop_after=1))
        told += ears.notifies(timeout=0)
        assert len(told) == 1


@only_sqlite
async def test_what_was_claimed_is_carried_though_the_mark_beside_the_file_cant_be_written(bench: Bench) -> None:
    await bench.rows(1)
    assert bench.engine.database.url.database
    Path(f"{bench.engine.database.url.database}.seen").mkdir()

    (task,) = await bench.claim()

    assert task.state is State.SUBMITTING
