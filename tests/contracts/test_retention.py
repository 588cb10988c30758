"""What pruning promises: only what is over goes, its costs stay, neither a kill nor a second program counts twice."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import BatchPruned
from dujiang.domain.run_times import REMEMBERED
from dujiang.domain.task import Task
from dujiang.engines.sql import retention
from dujiang.engines.sql.ledger import ledger
from dujiang.engines.sql.queries import figures, find_batch, lane_hours, list_batches, reading
from dujiang.engines.sql.schema import (
    attempts,
    batches,
    events,
    lines,
    pruned_attempts,
    pruned_run_times,
    task_counts,
    tasks,
    waiters,
)
from tests.builders import NOON, a_batch, a_file, a_row
from tests.contracts.bench import URLS, Bench

DAY_S = 86_400.0
MONTH_S = 30 * DAY_S
CHARGE_STAYS = ("delivered", "charged_for_nothing", "lost", "running", "in_doubt")


class Killed(Exception):
    """The program ends here: this transaction and all that would follow are not."""


def day_of(at: float) -> str:
    return f"day {(at - NOON) // DAY_S:.0f}"


async def delivered(bench: Bench, run_s: float = 20.0) -> Task:
    task = await bench.claimed()
    return await bench.record(
        task, life.Accepted(f"job-{task.id}"), life.Rendered(URLS, run_s), life.Saved((a_file(),))
    )


async def pruned(bench: Bench, older_than_s: float = MONTH_S) -> dict[str, int | None]:
    found = await bench.engine.prunable(older_than_s)
    return {batch.name: await bench.engine.prune(batch.id, older_than_s, day_of) for batch in found}


def told(bench: Bench) -> dict[str, Any]:
    with reading(bench.engine.database) as connection:
        cost, whole = figures(connection, "b"), ledger(connection)
    return {name: getattr(whole, name) for name in CHARGE_STAYS} | {"images": cost.images, "refused": cost.refused}


def rows(bench: Bench, *tables: sa.Table) -> list[int]:
    return [len(bench.read(sa.select(table))) for table in tables]


async def test_nothing_is_counted_any_more_of_a_batch_that_is_gone(bench: Bench) -> None:
    await delivered(bench)
    await bench.rows(7)
    await bench.engine.cancel(batch_id="b")
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(1)])
    bench.clock.time += MONTH_S + 1

    assert await pruned(bench) == {"b": 2}

    counted = bench.read(sa.select(task_counts.c.batch_id))
    assert {row["batch_id"] for row in counted} == {"other"}


async def test_a_batch_that_was_over_long_ago_goes_and_what_it_cost_stays(bench: Bench) -> None:
    await delivered(bench)
    refused = await bench.claimed()
    await bench.record(refused, life.Postponed("slot", "50430"))
    bench.clock.time += DAY_S
    (again,) = await bench.claim()
    await bench.record(again, life.Unanswered("timeout", "", 120.0), life.GivenUp(life.Decider.PERSON))
    before = told(bench)
    bench.clock.time += MONTH_S + 1

    assert await pruned(bench) == {"b": 2}

    assert rows(bench, tasks, attempts, events, lines) == [0, 0, 0, 0]
    assert told(bench) == before == {
        "delivered": 1, "charged_for_nothing": 0, "lost": 0, "running": 0, "in_doubt": 1, "images": 1, "refused": 1,
    }  # fmt: skip
    found = bench.read(sa.select(pruned_attempts).order_by(pruned_attempts.c.day, pruned_attempts.c.outcome))
    assert [(row["day"], row["outcome"], row["attempts"], row["images"]) for row in found] == [
        ("day 0", "done", 1, 1),
        ("day 0", "refused", 1, 0),
        ("day 1", "in_doubt", 1, 1),
    ]
    assert await pruned(bench) == {}


async def test_a_batch_that_a_worker_waited_for_a_place_of_goes_too(bench: Bench) -> None:
    task = await bench.claimed()
    await bench.rows(1)
    assert not await bench.claim(1), "another one stands in the queue"
    (waiting,) = bench.read(sa.select(waiters))
    await bench.record(task, life.Failed("x"))
    await bench.engine.cancel(batch_id=waiting["batch_id"])
    bench.clock.time += MONTH_S + 1

    assert await pruned(bench) == {"b": 2}

    assert rows(bench, tasks, lines, waiters) == [0, 0, 0]


async def test_a_batch_goes_in_pages_and_a_retry_before_the_task_that_it_names(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS", 7)
    for _ in range(4):
        task = await bench.claimed()
        await bench.record(task, life.Failed("bad", ""))
        await bench.engine.retry([task.id])
        (task,) = await bench.claim()
        await bench.record(task, life.Failed("bad", ""))
    before = told(bench)
    bench.clock.time += MONTH_S + 1

    assert await pruned(bench) == {"b": 8}
    assert (told(bench), before["refused"]) == (before, 8)


@pytest.mark.parametrize("pages", [0, 1, 2])
async def test_what_was_killed_in_the_middle_goes_on_and_counts_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(retention, "ROWS", 7)
    for _ in range(5):
        await delivered(bench)
    before = told(bench)
    bench.clock.time += MONTH_S + 1
    left = pages

    def dying(at: float) -> str:
        nonlocal left
        if not left:
            raise Killed
        left -= 1
        return day_of(at)

    with pytest.raises(Killed):
        await bench.engine.prune("b", MONTH_S, dying)

    assert told(bench) == before
    assert len(bench.read(sa.select(tasks))) == 5 - pages
    with pytest.raises(BatchPruned):
        await bench.engine.open_batch(a_batch())
    assert await pruned(bench, 9 * MONTH_S) == {"b": 5 - pages}  # it is half gone, however old it is
    assert told(bench) == before


async def test_two_programs_that_prune_at_once_count_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS", 7)
    for _ in range(20):
        await delivered(bench)
    before = told(bench)
    bench.clock.time += MONTH_S + 1
    other = bench.open_engine()

    done = await asyncio.gather(
        bench.engine.prune("b", MONTH_S, day_of), other.prune("b", MONTH_S, day_of), pruned(bench)
    )

    assert told(bench) == before
    assert rows(bench, tasks, attempts, events) == [0, 0, 0]
    assert (done[0] or 0) + (done[1] or 0) + (done[2].get("b") or 0) == 20


async def ready(bench: Bench) -> None:
    await bench.rows(100)


async def in_doubt(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Unanswered("timeout", "", 120.0))


async def generating(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job"))


async def a_superseded_one_that_runs(bench: Bench) -> None:
    await bench.record(await bench.claimed(), life.Accepted("job"))
    await bench.engine.enqueue("b", [a_row(1, digest="other")])
    bench.clock.time += 1
    await bench.engine.cancel(batch_id="b")


async def given_up_with_its_slot_held(bench: Bench) -> None:
    await bench.record(
        await bench.claimed(), life.Unanswered("timeout", "", 9 * MONTH_S), life.GivenUp(life.Decider.PERSON)
    )


@pytest.mark.parametrize("left", [ready, in_doubt, generating, a_superseded_one_that_runs, given_up_with_its_slot_held])
async def test_a_batch_with_something_to_do_or_to_decide_stays_whatever_its_age(bench: Bench, left: Any) -> None:
    await delivered(bench)
    await left(bench)
    bench.clock.time += MONTH_S + 1
    before = bench.everything()

    assert await pruned(bench) == {}
    assert await bench.engine.prune("b", MONTH_S, day_of) is None
    assert bench.everything() == before


async def test_a_batch_that_was_run_or_retried_since_stays(bench: Bench) -> None:
    await delivered(bench)
    bench.clock.time += MONTH_S + 1
    assert [batch.name for batch in await bench.engine.prunable(MONTH_S)] == ["b"]

    await bench.engine.open_batch(a_batch())

    assert await pruned(bench) == {}
    bench.clock.time += MONTH_S + 1
    await bench.engine.retry([1], again=True)
    await bench.engine.cancel(batch_id="b")
    assert await pruned(bench) == {}


async def test_what_was_sent_within_the_last_day_stays_for_the_caps_whatever_is_asked_for(bench: Bench) -> None:
    await delivered(bench)
    bench.clock.time += DAY_S

    assert await pruned(bench, 0.0) == {}
    bench.clock.time += 3601.0
    assert await pruned(bench, 0.0) == {"b": 1}


async def test_the_images_of_a_day_are_the_same_before_and_after(bench: Bench) -> None:
    await delivered(bench)
    bench.clock.time += MONTH_S
    await bench.engine.open_batch(a_batch("new"))
    await bench.engine.enqueue("new", [a_row(1)])
    assert await pruned(bench, DAY_S) == {"b": 1}

    (account,) = await bench.engine.accounts(NOON + MONTH_S - DAY_S)

    assert account.images_today == 0


async def test_a_lane_keeps_its_last_run_times(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS", 7)
    for number in range(5):
        bench.clock.time += 1
        await delivered(bench, run_s=float(number))
    before = await bench.engine.run_times(bench.lane.id)
    bench.clock.time += MONTH_S + 1

    await pruned(bench)

    assert await bench.engine.run_times(bench.lane.id) == before == [0.0, 1.0, 2.0, 3.0, 4.0]
    with reading(bench.engine.database) as connection:
        assert list(lane_hours(connection, bench.clock.time)) == [bench.lane.id]


async def test_no_more_run_times_are_kept_than_are_read(bench: Bench) -> None:
    await bench.rows(*range(REMEMBERED + 50))
    for task in await bench.claim(1000, at_most=1000):
        bench.clock.time += 1
        await bench.record(task, life.Accepted(f"j{task.id}"), life.Rendered(URLS, 5.0), life.Saved((a_file(),)))
    bench.clock.time += MONTH_S + 1

    await pruned(bench)

    assert rows(bench, pruned_run_times) == [REMEMBERED]


async def test_a_pruned_batch_is_not_run_again_because_everything_would_be_paid_again(bench: Bench) -> None:
    task = await delivered(bench)
    bench.clock.time += MONTH_S + 1
    await pruned(bench)

    with pytest.raises(BatchPruned):
        await bench.engine.open_batch(a_batch())
    assert await bench.engine.retry([task.id], again=True) == []
    with reading(bench.engine.database) as connection:
        (found,) = find_batch(connection, "b")
        assert list_batches(connection) == []
    assert found["pruned_at"] == bench.clock.time
    assert rows(bench, batches) == [1]


async def test_other_batches_are_left_as_they_are(bench: Bench) -> None:
    await delivered(bench)
    bench.clock.time += MONTH_S + 1
    await bench.engine.open_batch(a_batch("other"))
    await bench.engine.enqueue("other", [a_row(number) for number in range(3)])

    await pruned(bench)

    assert await bench.engine.counts("other") == {life.State.READY: 3}
