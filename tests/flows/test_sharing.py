"""Lanes shared by batches, programs and accounts: nobody waits longer than fair, no slot waits for anybody."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest

from dujiang.domain.accounts import Account, Key
from dujiang.domain.errors import AccountRefused, TooFast
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import FixedLimit
from dujiang.domain.rests import Subject
from dujiang.domain.task import Task
from dujiang.runner.worker import RunEnd
from dujiang.testing import FakeProvider, Rehearsal, a_request, rehearsal

OVERDUE = AccountRefused("the account is overdue", why="overdue")
REVOKED = AccountRefused("InvalidAccessKey", why="auth", vendor_code="100009")


def prompts(name: str, count: int) -> list[str]:
    return [f"{name}{number}" for number in range(count)]


def pool(*names: str) -> tuple[Account, ...]:
    return tuple(Account(name, (Key(f"AKLT{name}", "s"),)) for name in names)


async def states(stage: Rehearsal) -> set[State]:
    return {task.state for task in await stage.tasks()}


def order_of(provider: FakeProvider) -> str:
    """Whose tasks were submitted, in order: the first letters of their prompts."""
    return "".join(call.prompt[0] for call in provider.submitted)


def mean_gap_s(provider: FakeProvider, slots: int) -> float:
    """Mean time between a job's end and the submit that takes its slot."""
    ends = sorted(job.begun_at + job.run_s for job in provider.jobs.values())
    begins = sorted(call.at for call in provider.submitted)[slots:]
    return fmean(begin - end for begin, end in zip(begins, ends, strict=False))


# -- Two programs on one account --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_small_batch_beside_a_large_one_gets_its_share_from_the_next_free_slot_on(
    tmp_path: Path, limit: int
) -> None:
    async with rehearsal(tmp_path, prompts("many", 60), limit=limit) as stage:
        stage.provider.limit = limit
        large = await stage.start(beside=True)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 12)
        small = await stage.start(await stage.add_batch("few", prompts("few", 6)), beside=True)
        assert await small is RunEnd.OVER
        assert await large is RunEnd.OVER
        assert await states(stage) == {State.SUCCEEDED}

    order = order_of(stage.provider)
    assert order[12:].startswith("f")
    share = order[12 : order.rindex("f") + 1]
    assert abs(share.count("f") - share.count("m")) <= limit + 1
    assert stage.provider.most_running == limit
    assert len(stage.provider.submitted) == 66, "and nothing was refused"


async def test_a_slot_that_a_program_leaves_to_another_is_taken_at_once(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("a", 12), limit=1) as stage:
        stage.provider.limit = 1
        both = [
            await stage.start(beside=True),
            await stage.start(await stage.add_batch("b", prompts("b", 12)), beside=True),
        ]
        for program in both:
            await program

    assert order_of(stage.provider) in {"ab" * 12, "ba" * 12}
    assert mean_gap_s(stage.provider, 1) < 0.6, "a look that sees the end, and a moment for the other program"


async def test_a_batch_of_higher_priority_goes_first_from_the_next_free_slot_on(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("low", 30), limit=2) as stage:
        low = await stage.start(beside=True)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 6)
        urgent = await stage.add_batch("urgent", prompts("urgent", 8))
        await stage.engine.set_priority(10, batch_id="urgent")
        assert await (await stage.start(urgent, beside=True)) is RunEnd.OVER
        await low

    assert order_of(stage.provider)[6:14] == "u" * 8


async def test_a_killed_program_keeps_no_slot_from_the_others(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("a", 20), limit=2) as stage:
        here = await stage.start(beside=True)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 2)
        await stage.start(await stage.add_batch("gone", prompts("gone", 20)), beside=True)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 8)
        await stage.kill()
        at = stage.clock.elapsed()
        assert await here is RunEnd.OVER

    begins = [call.at for call in stage.provider.submitted if call.at > at + 60]
    assert max(later - sooner for sooner, later in pairwise(begins)) < 25, "two slots, twenty seconds a job"


# -- Several accounts -------------------------------------------------------------------------------------------------


async def test_no_task_fails_because_one_account_is_bad_while_another_is_good(tmp_path: Path) -> None:
    accounts = pool("good", "turns", "overdue")
    async with rehearsal(tmp_path, prompts("p", 60), limit="auto", accounts=accounts) as stage:
        provider = stage.provider
        provider.limits = {"AKLTgood": 3, "AKLTturns": 2, "AKLToverdue": 5}
        provider.refused_keys["AKLToverdue"] = OVERDUE
        running = await stage.start()
        await stage.clock.until(lambda: len(provider.jobs) == 20)
        provider.refused_keys["AKLTturns"] = REVOKED
        stranded = [
            job for job in provider.jobs.values() if job.key.access == "AKLTturns" and provider._is_running(job)
        ]
        await stage.clock.until(lambda: len(provider.jobs) == 58)
        why = {rest.key: rest.detail for rest in await stage.engine.rests() if rest.subject is Subject.ACCOUNT}
        del provider.refused_keys["AKLTturns"]  # the key is mended
        assert await running is RunEnd.OVER
        assert await states(stage) == {State.SUCCEEDED}
        names = {account.id: account.name for account in await stage.engine.accounts(0)}

    assert {names[int(key)]: detail.partition(":")[0] for key, detail in why.items()} == {
        "turns": "auth",
        "overdue": "overdue",
    }
    assert stranded, "its jobs were collected when it came back"
    assert len(provider.jobs) == 60, "and none was made twice"


async def test_an_account_that_is_refused_comes_back_by_itself(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 80), limit=2, accounts=pool("a", "b")) as stage:
        provider = stage.provider
        provider.refused_keys["AKLTb"] = OVERDUE
        running = await stage.start()
        await stage.clock.until(lambda: len(provider.jobs) == 10)
        assert {job.key.access for job in provider.jobs.values()} == {"AKLTa"}
        del provider.refused_keys["AKLTb"]
        await running

    by_key = {job.key.access for job in list(provider.jobs.values())[10:]}
    assert by_key == {"AKLTa", "AKLTb"}


async def test_a_paused_account_finishes_what_runs_there_and_others_take_the_rest(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 24), limit=2, accounts=pool("a", "b")) as stage:
        running = await stage.start()
        await stage.clock.until(lambda: len(stage.provider.jobs) == 8)
        ids = {account.name: account.id for account in await stage.elsewhere.accounts(0)}
        await stage.elsewhere.stop_account(ids["b"], "paused")
        at = stage.clock.elapsed()
        await running
        assert await states(stage) == {State.SUCCEEDED}

    assert not [call for call in stage.provider.submitted if call.key.access == "AKLTb" and call.at > at]


# -- Stopping and budgets ---------------------------------------------------------------------------------------------


async def test_everything_paused_is_collected_and_goes_on_when_it_may(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 12), limit=3) as stage:
        running = await stage.start()
        await stage.clock.until(lambda: len(stage.provider.jobs) == 6)
        await stage.elsewhere.pause_everything(paused=True)
        at = stage.clock.elapsed()
        await stage.clock.until(lambda: stage.clock.elapsed() > at + 300)
        paused = len(stage.provider.submitted)
        counts = await stage.engine.counts(stage.batch.id)
        await stage.elsewhere.pause_everything(paused=False)
        assert await running is RunEnd.OVER

    assert paused == 6
    assert counts == {State.SUCCEEDED: 6, State.READY: 6}
    assert len(stage.provider.jobs) == 12


async def test_a_run_ends_when_its_budget_is_used_up_and_what_runs_is_collected(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 12), limit=3) as stage:
        await stage.engine.set_budget(stage.batch.id, 5)
        assert await stage.run() is RunEnd.BUDGET
        counts: Mapping[State, int] = await stage.engine.counts(stage.batch.id)
        assert counts == {State.SUCCEEDED: 5, State.READY: 7}
        assert len(stage.provider.jobs) == 5
        await stage.engine.set_budget(stage.batch.id, 12)
        assert await stage.run() is RunEnd.OVER


async def test_a_budget_raised_while_it_runs_counts_from_then_on(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 12), limit=3) as stage:
        await stage.engine.set_budget(stage.batch.id, 4)
        running = await stage.start()
        await stage.clock.until(lambda: len(stage.provider.jobs) == 4)
        await stage.elsewhere.set_budget(stage.batch.id, 9)
        assert await running is RunEnd.BUDGET

    assert len(stage.provider.jobs) == 9


async def test_a_run_does_not_end_for_a_budget_that_another_program_may_give_back(tmp_path: Path) -> None:
    """Two runs of one batch: what the first has reserved is settled at what it brings."""
    requests = [a_request(f"p{n}", force_single=False) for n in range(3)]
    async with rehearsal(tmp_path, requests, limit=1) as stage:
        await stage.engine.set_budget(stage.batch.id, 20)
        first = await stage.start(beside=True)
        await stage.clock.until(lambda: len(stage.provider.jobs) == 1)
        second = await stage.start(beside=True)
        assert await second is RunEnd.OVER
        assert await first is RunEnd.OVER

    assert len(stage.provider.jobs) == 3


async def test_a_run_whose_last_jobs_end_while_it_looks_where_they_are_is_over(tmp_path: Path) -> None:
    """Two runs of one batch: the other one collects what this one has just counted."""
    async with rehearsal(tmp_path, prompts("a", 2), limit=2) as stage:
        first = await stage.start(beside=True)
        await stage.clock.until(lambda: len(stage.provider.jobs) == 2)
        second = await stage.start(beside=True)
        engine = stage.worker._engine
        generating = engine.generating

        async def late(batch_id: str) -> list[Task]:
            await first
            return await generating(batch_id)

        engine.generating = late  # type: ignore[method-assign]
        assert await second is RunEnd.OVER


async def test_what_is_set_on_a_shared_lane_is_heeded_within_a_second_or_so(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("a", 40), limit=1) as stage:
        await stage.start(beside=True)
        await stage.start(await stage.add_batch("b", prompts("b", 40)), beside=True)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 4)
        (lane,) = [use.lane for use in await stage.elsewhere.lanes() if use.in_use]
        await stage.clock.sleep(3)
        await stage.elsewhere.set_priority(0, batch_id="b")  # another change, a moment before
        await stage.clock.sleep(0.3)
        await stage.elsewhere.set_limit(lane, FixedLimit(4))
        at = stage.clock.elapsed()
        await stage.clock.until(lambda: stage.provider.running == 4)

    assert stage.clock.elapsed() - at < 2.5


async def test_refusals_use_up_no_budget(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 8), limit="auto") as stage:
        stage.provider.limit = 2
        await stage.engine.set_budget(stage.batch.id, 8)
        assert await stage.run() is RunEnd.OVER


# -- Pace -------------------------------------------------------------------------------------------------------------


async def test_after_50429_submits_are_spaced_and_the_limit_stays(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, prompts("p", 40), limit=20) as stage:
        for number in range(5, 20):
            stage.provider.on(f"p{number}", submits=[TooFast("50429")])
        assert await stage.run() is RunEnd.OVER
        assert await states(stage) == {State.SUCCEEDED}
        (account,) = await stage.engine.accounts(0)

    at = sorted(call.at for call in stage.provider.submitted)
    assert at[20] - at[19] >= 0.9
    assert min(later - sooner for sooner, later in pairwise(at[20:35])) > 0.15
    assert account.pace is not None
    assert stage.provider.most_running >= 18
