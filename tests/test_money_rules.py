"""The rules about money (DESIGN §2), one after the other: what the product promises whoever pays."""

import asyncio
import json
import random
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dujiang.domain.accounts import Account, Key
from dujiang.domain.batch import Batch, OnDoubt
from dujiang.domain.errors import (
    AccountRefused,
    ContentBlocked,
    DownloadError,
    EndpointDown,
    JobCancelled,
    LaneFull,
    LinkUnreachable,
    OutputBlocked,
    ProviderError,
    RecordGone,
    RequestRefused,
    StaleTask,
    StoreError,
    TooFast,
    Undecided,
    Unproven,
)
from dujiang.domain.lifecycle import Accepted, JobFound, ResubmitDecided, State
from dujiang.domain.requests import Request
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.task import Outcome, Task
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.schema import attempts, tasks
from dujiang.ports import Engine, Job, NewTask, Offer, Turn, Worker
from dujiang.providers.jimeng.errors import CODES, Ends
from dujiang.runner.clock import Moment, SystemClock
from dujiang.runner.lease import Lease
from dujiang.runner.presence import LockedPresence
from dujiang.runner.worker import RunEnd
from dujiang.settings import Settings, load
from dujiang.testing import EPOCH, FakeClock, FakeLog, Rehearsal, Reply, a_picture, a_request, rehearsal
from dujiang.wiring import Parts, open_engine, open_worker

from .raw_vendor import Deed, RawVendor, answer, hang, hang_up, http, raw, raw_vendor, reset

LIMIT = 3
UNTIL_KNOWN_S = 120.0
SUBMIT_TIMEOUT_S = 60.0
LOOK = 0.1  # how long one answer of the fake vendor takes


# -- The product as it is wired, against a bare server ----------------------------------------------------------------


def settings_for(folder: Path, endpoint: str, **more: object) -> Settings:
    given: dict[str, object] = {"time_scale": 0.005, "concurrency": "fixed:50"}
    return load(
        home=folder,
        jimeng_endpoint=endpoint,
        volcengine_access_key="AKLTmoney",
        volcengine_secret_key="c2VjcmV0",
        **given | more,
    )


@asynccontextmanager
async def product(
    folder: Path, endpoint: str, prompts: Sequence[str] = ("a",), *, parts: Parts | None = None, **more: object
) -> AsyncIterator[tuple[SqlEngine, Callable[[], Any]]]:
    """The database with a batch in it, and what runs it."""
    settings = settings_for(folder, endpoint, **more)
    clock = SystemClock(settings.time_scale)
    async with open_engine(settings, clock) as engine:
        batch = await engine.open_batch(Batch("money", "money", str(folder / "out"), "money.csv"))
        (folder / "out" / "money" / "images").mkdir(parents=True)
        await engine.enqueue(batch.id, [a_row(n, prompt) for n, prompt in enumerate(prompts, start=1)])

        async def run() -> RunEnd:
            opened = open_worker(settings, engine, clock, log=FakeLog(), parts=parts)
            async with opened as worker, asyncio.timeout(20):
                return await worker.run(batch)

        yield engine, run


def a_row(number: int, prompt: str) -> NewTask:
    request = a_request(prompt)
    return NewTask(f"r{number}", request.canonical(), number, f"{number:05d}", "jimeng_t2i_v40", request)


async def stored(engine: SqlEngine, query: sa.Select[Any]) -> list[dict[str, Any]]:
    rows = await engine._read(lambda connection: connection.execute(query).mappings().all())
    return [dict(row) for row in rows]


async def states(engine: SqlEngine) -> dict[str, State]:
    """By prompt."""
    rows = await stored(engine, sa.select(tasks).order_by(tasks.c.id))
    return {json.loads(row["request"])["prompt"]: State(row["state"]) for row in rows}


async def outcomes(engine: SqlEngine) -> dict[str, list[Outcome]]:
    """Of every attempt, by prompt."""
    joined = sa.select(tasks.c.request, attempts.c.outcome).join(tasks, tasks.c.id == attempts.c.task_id)
    found: dict[str, list[Outcome]] = {}
    for row in await stored(engine, joined.order_by(attempts.c.task_id, attempts.c.number)):
        found.setdefault(json.loads(row["request"])["prompt"], []).append(Outcome(row["outcome"]))
    return found


def times_submitted(vendor: RawVendor) -> Counter[str]:
    return Counter(request.body["prompt"] for request in vendor.submitted)


@pytest.fixture
def look_inside(tmp_path: Path) -> Callable[[], list[tuple[Any, ...]]]:
    """(state, attempt, outcome, slot_until) of every task, through a connection of its own: what is committed."""

    def look() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{tmp_path / 'dujiang.db'}?mode=ro", uri=True)) as connection:
            query = (
                "SELECT state, number, outcome, slot_until FROM tasks LEFT JOIN attempts ON attempts.task_id = tasks.id"
            )
            return connection.execute(query).fetchall()

    return look


# -- 1: nothing leaves before it is written down ----------------------------------------------------------------------


async def test_rule_01_attempt_and_slot_are_committed_before_the_first_byte(
    tmp_path: Path, look_inside: Callable[[], list[tuple[Any, ...]]]
) -> None:
    at_first_byte: list[list[tuple[Any, ...]]] = []
    with raw_vendor() as vendor:
        vendor.on_first_byte = lambda: at_first_byte.append(look_inside())
        async with product(tmp_path, vendor.url) as (_, run):
            assert await run() is RunEnd.OVER

    assert at_first_byte[0] == [("submitting", 1, "open", float("inf"))]


async def test_rule_01_is_broken_by_an_engine_that_commits_late_and_the_watch_sees_it(
    tmp_path: Path, look_inside: Callable[[], list[tuple[Any, ...]]]
) -> None:
    """The same watch on a wiring that forgets to commit: a test that can't fail proves nothing."""

    class Forgetful(SqlEngine):
        def __init__(self, engine: SqlEngine) -> None:
            vars(self).update(vars(engine))

        async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
            kept: list[Turn] = []
            claim = super().claim

            class Undone(Exception):
                pass

            def change(connection: sa.Connection, now: float) -> None:
                from dujiang.engines.sql import claims

                kept.append(claims.claim(connection, worker, offers, batch_id, now))
                raise Undone

            if vendor.submitted:
                return await claim(worker, [], batch_id)
            with pytest.raises(Undone):
                await self._change(change)
            return kept[-1]

    def forgetful(engine: Engine) -> Engine:
        assert isinstance(engine, SqlEngine)
        return Forgetful(engine)

    at_first_byte: list[list[tuple[Any, ...]]] = []
    with raw_vendor() as vendor:
        vendor.on_first_byte = lambda: at_first_byte.append(look_inside())
        async with product(tmp_path, vendor.url, parts=Parts(engine=forgetful)) as (_, run):
            running = asyncio.create_task(run())
            while not at_first_byte:
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    assert at_first_byte[0] == [("ready", None, None, None)]


async def test_rule_01_a_commit_of_the_product_is_on_the_disk(tmp_path: Path) -> None:
    def pragmas(connection: sa.Connection) -> tuple[Any, ...]:
        names = ("synchronous", "journal_mode", "fullfsync")
        return tuple(connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names)

    async with open_engine(settings_for(tmp_path, "http://127.0.0.1:1")) as engine:
        assert await engine._change(lambda connection, _: pragmas(connection)) == (2, "wal", 1)  # 2 is FULL
        assert await engine._read(pragmas) == (2, "wal", 1)


# -- 2: what the vendor told is written down first --------------------------------------------------------------------


async def test_rule_02_the_job_id_is_in_the_first_transaction_after_the_answer(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b", "c", "d", "e"], limit=2) as stage:
        log = Log(stage)
        assert await stage.run() is RunEnd.OVER

    for moment, job_id in log.answers:
        first = next(written for at, written in log.transactions if at > moment)
        assert job_id in first, "another transaction came before it"


class Log:
    """What the writer committed, and when the vendor's answers came in, in one order."""

    def __init__(self, stage: Rehearsal) -> None:
        self.answers: list[tuple[int, str]] = []
        self.transactions: list[tuple[int, list[object]]] = []
        self._moment = 0
        self._written: list[object] = []
        sa.event.listen(stage.sql.database, "after_cursor_execute", self._executed)
        sa.event.listen(stage.sql.database, "commit", self._committed)
        submit = stage.provider.submit

        async def submitted(*args: Any) -> Job:
            job = await submit(*args)
            self.answers.append((self._next(), job.id))
            return job

        stage.provider.submit = submitted  # type: ignore[method-assign,assignment]

    def _next(self) -> int:
        self._moment += 1
        return self._moment

    def _executed(self, _: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self._written += values if isinstance(values, list | tuple) else [values]

    def _committed(self, _: Any) -> None:
        if self._written:
            self.transactions.append((self._next(), self._written))
        self._written = []


async def test_rule_02_picture_addresses_are_committed_when_first_seen(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", pictures=2)
        at_first_download: list[Task | None] = []
        save = stage.store.save

        async def saving(*args: Any) -> Any:
            at_first_download.append(await stage.elsewhere.task(1))
            return await save(*args)

        stage.store.save = saving  # type: ignore[method-assign,assignment]
        await stage.run()

    task = at_first_download[0]
    assert task is not None
    assert task.state is State.COLLECTING
    assert len(task.image_urls) == 2


# -- 3: proof, or doubt -----------------------------------------------------------------------------------------------

IN_DOUBT: dict[str, Deed] = {
    "reset": reset,
    "hung up": hang_up,
    "no answer in time": hang,
    "a cut 200": http(200, b'{"code":10000,"data":{"task_id":"7', told=500),
    "an unreadable 200": http(200, b"<html>hello</html>"),
    "no HTTP at all": raw(b"SSH-2.0-OpenSSH\r\n"),
    "accepted without a job id": answer(200, 10000, {}),
    "an unparsed 503": http(503, b"Service Unavailable"),
    "a 504 of HTML": http(504, b"<html>504 Gateway Time-out</html>"),
    "a redirect": raw(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
    "an unknown code": answer(400, 59999),
    "an unknown code with 500": answer(500, 61234),
    "an internal error": answer(500, 50500),
}


async def test_rule_03_without_proof_a_submit_is_in_doubt_and_never_repeated(tmp_path: Path) -> None:
    with raw_vendor({prompt: [deed] for prompt, deed in IN_DOUBT.items()}) as vendor:
        async with product(tmp_path, vendor.url, list(IN_DOUBT), submit_timeout=1) as (engine, run):
            assert await run() is RunEnd.OVER
            assert await run() is RunEnd.OVER  # nor by a new start

            assert await states(engine) == dict.fromkeys(IN_DOUBT, State.IN_DOUBT)
            assert await outcomes(engine) == {prompt: [Outcome.IN_DOUBT] for prompt in IN_DOUBT}
    assert times_submitted(vendor) == dict.fromkeys(IN_DOUBT, 1)


async def test_rule_03_a_code_without_proof_is_in_doubt(tmp_path: Path) -> None:
    codes = {str(row.number): [answer(500, row.number)] for row in CODES.values() if not row.proof}
    with raw_vendor(codes) as vendor:
        async with product(tmp_path, vendor.url, list(codes)) as (engine, run):
            assert await run() is RunEnd.OVER
            assert await states(engine) == dict.fromkeys(codes, State.IN_DOUBT)
    assert times_submitted(vendor) == dict.fromkeys(codes, 1)


async def test_rule_03_a_code_that_is_proof_may_be_sent_again_by_itself(tmp_path: Path) -> None:
    codes = {str(number): [answer(429, number)] for number in (50429, 50430, 50511, 50519, 100018)}
    with raw_vendor(codes) as vendor:
        async with product(tmp_path, vendor.url, list(codes)) as (engine, run):
            assert await run() is RunEnd.OVER
            assert await states(engine) == dict.fromkeys(codes, State.SUCCEEDED)
            assert await outcomes(engine) == {code: [Outcome.REFUSED, Outcome.DONE] for code in codes}
    assert times_submitted(vendor) == dict.fromkeys(codes, 2)


async def test_rule_03_a_code_that_is_proof_costs_nothing_whatever_follows(tmp_path: Path) -> None:
    codes = {
        str(row.number): [answer(400, row.number)] * 3
        for row in CODES.values()
        if row.on_submit in {ContentBlocked, RequestRefused, LinkUnreachable, OutputBlocked}
    }
    with raw_vendor(codes) as vendor:
        async with product(tmp_path, vendor.url, list(codes)) as (engine, run):
            assert await run() is RunEnd.OVER
            assert set((await states(engine)).values()) == {State.BLOCKED, State.FAILED}
            assert {outcome for told in (await outcomes(engine)).values() for outcome in told} == {Outcome.REFUSED}
    assert vendor.looked == []


def a_closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


async def test_rule_03_a_refused_connection_is_proof(tmp_path: Path) -> None:
    async with product(tmp_path, f"http://127.0.0.1:{a_closed_port()}") as (engine, run):
        assert await run() is RunEnd.UNREACHABLE
        await assert_waits_uncharged(engine)


async def test_rule_03_a_failed_handshake_is_proof(tmp_path: Path) -> None:
    with raw_vendor() as vendor:  # speaks no TLS, and hangs up on what it can't read
        vendor.serve = lambda connection, number: connection.close()  # type: ignore[method-assign]
        async with product(tmp_path, vendor.url.replace("http", "https")) as (engine, run):
            assert await run() is RunEnd.UNREACHABLE
            await assert_waits_uncharged(engine)
    assert vendor.connections


async def test_rule_03_an_unknown_name_is_proof(tmp_path: Path) -> None:
    async with product(tmp_path, "https://vendor.invalid") as (engine, run):
        assert await run() is RunEnd.UNREACHABLE
        await assert_waits_uncharged(engine)


async def assert_waits_uncharged(engine: SqlEngine) -> None:
    """Tried, refused and tried again: it waits, and none of its attempts costs anything or holds a slot."""
    assert await states(engine) == {"a": State.READY}
    found = await stored(engine, sa.select(attempts))
    assert len(found) > 1
    assert {row["outcome"] for row in found} == {Outcome.REFUSED}
    assert all(row["slot_until"] <= row["ended_at"] for row in found)


# -- 4: doubt is a state, with a slot and an end ----------------------------------------------------------------------


async def test_rule_04_a_doubtful_slot_lasts_until_no_job_can_run_any_more(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[Reply.NEVER_ARRIVED])
        assert await stage.run() is RunEnd.OVER
        (attempt,) = await stage.attempts()
        task = await stage.task("a")

    deadline = EPOCH + LOOK / 2 + SUBMIT_TIMEOUT_S
    assert attempt["slot_until"] == pytest.approx(deadline + UNTIL_KNOWN_S, abs=0.1)
    assert (task.state, task.error_code) == (State.IN_DOUBT, "doubt")


@pytest.mark.parametrize(
    ("runs_s", "ceiling_s"),
    [
        ([20.0] * 49, UNTIL_KNOWN_S),  # too few to know
        ([20.0] * 50, 40.0),  # 2 × the 99th percentile
        ([20.0] * 199 + [90.0], 112.5),  # 1.25 × the longest
        ([500.0] + [20.0] * 200, 40.0),  # the last 200 count
    ],
)
async def test_rule_04_the_ceiling_comes_from_the_lanes_last_runs(
    tmp_path: Path, runs_s: list[float], ceiling_s: float
) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        await remember_runs(stage, runs_s)
        stage.provider.on("a", submits=[Reply.LOST])
        await stage.run()
        attempt = (await stage.attempts(await stage.task("a")))[-1]

    assert attempt["slot_until"] == pytest.approx(EPOCH + LOOK + ceiling_s, abs=0.2)


async def remember_runs(stage: Rehearsal, runs_s: Sequence[float]) -> None:
    """Put an ended task with so many measured attempts into the lane's past."""
    lane = await stage.engine.lane(stage.provider.endpoint, stage.accounts[0], "jimeng_t2i_v40")
    other = await stage.engine.open_batch(Batch("past", "past", str(stage.folder), "past.csv", OnDoubt()))
    await stage.add(["past"], batch_id=other.id)
    past = await stage.task("past")
    row = {"task_id": past.id, "lane_id": lane.id, "key_fingerprint": "", "worker": "", "looking": False, "sent_at": 0}
    row |= {"slot_until": 0, "slot_for_s": 0, "outcome": "done", "images": 1}
    rows = [row | {"number": n, "ended_at": n, "run_s": run_s} for n, run_s in enumerate(runs_s, start=1)]
    with stage.clock.held():
        await stage.sql._change(lambda connection, _: connection.execute(sa.insert(attempts), rows))
        await stage.sql._change(
            lambda connection, _: connection.execute(
                sa.update(tasks).where(tasks.c.id == past.id).values(state="succeeded")
            )
        )


async def test_rule_04_a_dead_workers_submit_is_counted_from_when_it_was_sent(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[Reply.NEVER_ARRIVED])
        await stage.start()
        await stage.clock.until(lambda: bool(stage.provider.submitted))
        await stage.kill()
        await stage.clock.sleep(30)
        assert await stage.run() is RunEnd.OVER
        (attempt,) = await stage.attempts()

    assert attempt["slot_until"] == pytest.approx(attempt["sent_at"] + SUBMIT_TIMEOUT_S + UNTIL_KNOWN_S, abs=0.01)
    assert attempt["outcome"] == Outcome.IN_DOUBT


@pytest.mark.parametrize("reply", [Reply.LOST, Reply.NEVER_ARRIVED])
async def test_rule_04_a_lane_that_looks_for_its_limit_does_not_send_everything_into_doubt(
    tmp_path: Path, reply: Reply
) -> None:
    prompts = [f"p{n}" for n in range(60)]
    async with rehearsal(tmp_path, prompts, limit="auto", on_doubt="resubmit:2") as stage:
        for prompt in prompts:
            stage.provider.on(prompt, submits=[reply] * 9)
        await stage.start()
        await stage.clock.sleep(110)  # no slot of a doubt has ended yet
        await stage.kill()

    assert len(stage.provider.submitted) <= 3


async def test_rule_04_a_doubtful_submit_takes_a_slot_until_its_end(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", submits=[Reply.LOST], run_s=60)
        assert await stage.run() is RunEnd.OVER
        at = {call.prompt: call.at for call in stage.provider.submitted}

    assert UNTIL_KNOWN_S <= at["b"] - at["a"] < UNTIL_KNOWN_S + 1
    assert stage.provider.most_running == 1


async def test_rule_04_a_decision_does_not_end_the_slot(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], limit=1, on_doubt="resubmit:1") as stage:
        stage.provider.on("a", submits=[Reply.LOST], run_s=100)
        assert await stage.run() is RunEnd.OVER
        first, second = stage.provider.submitted

    assert second.at - first.at >= UNTIL_KNOWN_S, "sent again only when the first can't be running any more"


async def test_rule_04_a_job_that_cannot_be_polled_gives_up_its_slot_and_nothing_else(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", run_s=30)
        stage.provider.down_looks = Unproven("connection reset")
        await stage.start()
        await stage.clock.until(lambda: stage.provider.submits_of("b") > 0)
        silent_since = 0.0
        assert UNTIL_KNOWN_S <= stage.clock.elapsed() - silent_since < UNTIL_KNOWN_S + 20
        assert (await stage.task("a")).state is State.GENERATING
        stage.provider.down_looks = None
        await stage.clock.sleep(120)

        assert [task.state for task in await stage.tasks()] == [State.SUCCEEDED, State.SUCCEEDED]


async def test_rule_04_a_slot_that_was_given_an_end_lasts_again_when_an_adopter_sees_the_job_run(
    tmp_path: Path,
) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", run_s=1000)
        stage.provider.down_looks = Unproven("connection reset")
        await stage.start()
        await stage.clock.sleep(60)  # the slot has an end by now
        await stage.kill()
        stage.provider.down_looks = None
        assert await stage.run() is RunEnd.OVER

    assert stage.provider.most_running == 1


@pytest.mark.parametrize(
    ("on_doubt", "ends", "submits"),
    [("hold", State.IN_DOUBT, 1), ("fail", State.FAILED, 1), ("resubmit:2", State.IN_DOUBT, 3)],
)
async def test_rule_04_only_a_decision_or_the_batchs_policy_leads_out_of_doubt(
    tmp_path: Path, on_doubt: str, ends: State, submits: int
) -> None:
    async with rehearsal(tmp_path, ["a"], on_doubt=on_doubt) as stage:
        stage.provider.on("a", submits=[Reply.LOST] * 5)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is ends
        assert len(stage.provider.submitted) == submits


async def test_rule_04_a_found_job_is_polled_and_not_paid_again(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[Reply.LOST])
        await stage.run()
        await stage.elsewhere.record(await stage.task("a"), JobFound("job-1"))
        assert await stage.run() is RunEnd.OVER

        assert (await stage.task("a")).state is State.SUCCEEDED
        assert stage.provider.charges == ["job-1"]


# -- 5: one connection, one request -----------------------------------------------------------------------------------


async def test_rule_05_every_submit_has_a_connection_of_its_own(tmp_path: Path) -> None:
    with raw_vendor() as vendor:
        async with product(tmp_path, vendor.url, "abcdef", concurrency="fixed:1") as (engine, run):
            assert await run() is RunEnd.OVER
            assert set((await states(engine)).values()) == {State.SUCCEEDED}

    of_submits = [request.connection for request in vendor.submitted]
    assert len(of_submits) == len(set(of_submits)) == 6
    assert not set(of_submits) & {request.connection for request in vendor.looked}
    assert len(vendor.looked) >= 6


async def test_rule_05_no_library_repeats_a_submit(tmp_path: Path) -> None:
    deeds: dict[str, Sequence[Deed]] = {
        "reset": [reset],
        "hung up": [hang_up],
        "503": [http(503, b"no")],
        "silence": [hang],
    }
    with raw_vendor(deeds) as vendor:
        async with product(tmp_path, vendor.url, list(deeds), submit_timeout=1) as (_, run):
            await run()

    assert times_submitted(vendor) == dict.fromkeys(deeds, 1)
    assert vendor.connections == len(vendor.submitted)


# -- 6: what is paid for is brought home ------------------------------------------------------------------------------

PASSING: list[ProviderError] = [
    Unproven("connection reset"),
    EndpointDown("refused"),
    TooFast("50429"),
    LaneFull("50430"),
    AccountRefused("50400"),
    Undecided("50500", vendor_code="50500"),
]


@pytest.mark.parametrize("fault", PASSING, ids=[type(fault).__name__ for fault in PASSING])
async def test_rule_06_polling_goes_on_through_passing_faults(tmp_path: Path, fault: ProviderError) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        looks = [fault] * 4 if isinstance(fault, Undecided) else [fault] * 12
        stage.provider.on("a", looks=looks)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED
        assert len(stage.provider.submitted) == 1


async def test_rule_06_a_job_that_takes_long_is_waited_for(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", run_s=700)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED


async def test_rule_06_downloads_go_on_through_passing_faults(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.broken = DownloadError("stalled")
        running = await stage.start()
        await stage.clock.sleep(600)
        assert (await stage.task("a")).state in {State.GENERATING, State.COLLECTING}
        stage.store.broken = None
        assert await running is RunEnd.OVER

        assert (await stage.task("a")).state is State.SUCCEEDED
        assert stage.provider.charges == ["job-1"]


async def test_rule_06_dead_addresses_are_asked_for_anew_while_the_record_lives(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.store.is_gone = lambda url: stage.clock.elapsed() < 600
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED
        assert len(stage.provider.looked) < 100


async def test_rule_06_a_code_that_ends_no_job_ends_none(tmp_path: Path) -> None:
    ends_nothing = [row.number for row in CODES.values() if row.ends is Ends.NO]
    codes: dict[str, list[Deed]] = {str(number): [answer(400, number)] * 3 for number in ends_nothing}
    others: dict[str, list[Deed]] = {"unknown": [answer(500, 61234)], "garbage": [http(502, b"<html>")]}
    with raw_vendor(looks={**codes, **others}) as vendor:
        async with product(tmp_path, vendor.url, [*codes, "unknown", "garbage"]) as (engine, run):
            assert await run() is RunEnd.OVER
            assert set((await states(engine)).values()) == {State.SUCCEEDED}
    assert len(vendor.submitted) == len(codes) + 2
    assert len(vendor.looked) == 4 * len(codes) + 4


# -- 7: whoever submitted, polls --------------------------------------------------------------------------------------

TWO = (Account("a", (Key("AKLTa", "s"),)), Account("b", (Key("AKLTb", "s"),)))


async def test_rule_07_a_job_is_polled_with_the_account_that_submitted_it(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(8)], limit=1, accounts=TWO) as stage:
        await stage.start()
        await stage.clock.sleep(30)
        await stage.kill()
        stage.accounts = TWO[::-1]  # in another order after the restart
        assert await stage.run() is RunEnd.OVER

    of_job = {job.id: job.key.access for job in stage.provider.jobs.values()}
    assert {look.key.access for look in stage.provider.looked} == {"AKLTa", "AKLTb"}
    assert all(look.key.access == of_job[look.job_id or ""] for look in stage.provider.looked)


async def test_rule_07_after_a_rotation_the_accounts_current_key_polls(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["p1", "p2"], limit=1, accounts=TWO) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        stage.accounts = (TWO[1], Account("a", (Key("AKLTa-new", "s"),)))
        before = len(stage.provider.looked)
        assert await stage.run() is RunEnd.OVER

    of_account = {"AKLTa": "AKLTa-new", "AKLTb": "AKLTb"}
    for look in stage.provider.looked[before:]:
        assert look.key.access == of_account[stage.provider.jobs[look.job_id or ""].key.access]


# -- 8: after a start -------------------------------------------------------------------------------------------------


async def test_rule_08_what_runs_is_looked_at_before_anything_new_is_submitted(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=2) as stage:
        await stage.start()
        await stage.clock.sleep(10)
        await stage.kill()
        await stage.clock.sleep(3600)  # both jobs are long done; their slots are not known to be free
        looks, submits = len(stage.provider.looked), len(stage.provider.submitted)
        restart = stage.clock.elapsed()
        assert await stage.run() is RunEnd.OVER

    first_looks = stage.provider.looked[looks : looks + 2]
    assert {look.job_id for look in first_looks} == {"job-1", "job-2"}
    assert all(look.at - restart < 1 for look in first_looks), "at once, however old the job"
    assert stage.provider.submitted[submits].at > first_looks[0].at
    assert stage.provider.most_running == 2


async def test_rule_08_even_where_there_is_room_the_first_call_is_a_look(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(6)], limit=2) as stage:
        await stage.start()
        await stage.clock.sleep(10)
        await stage.kill()
        stage.limit = 4
        calls: list[str] = []
        told(calls, stage.provider, "look")
        told(calls, stage.provider, "submit")
        assert await stage.run() is RunEnd.OVER

    assert calls[0] == "look"
    assert calls[:4].count("look") == 2, "as fast as the account may be asked"


def told(calls: list[str], part: object, name: str) -> None:
    """Every call of `part.name` is noted."""
    method = getattr(part, name)

    async def noting(*args: object) -> object:
        calls.append(name)
        return await method(*args)

    setattr(part, name, noting)


async def test_rule_08_each_state_is_adopted_as_it_must_be(tmp_path: Path) -> None:
    prompts: list[str | Request] = ["submitting", "generating", "collecting"]
    prompts.append(a_request("preparing", references=[a_picture()]))
    async with rehearsal(tmp_path, prompts, limit=10) as stage:
        stage.provider.on("submitting", submits=[Reply.NEVER_ARRIVED])
        stage.provider.on("generating", run_s=100)
        stage.provider.on("collecting", run_s=1)
        stage.store.broken = StoreError("full", why="full")
        assert stage.host is not None
        stage.host.upload_s = 1000
        await stage.start()
        await stage.clock.sleep(30)
        before = {task.request.prompt: task.state for task in await stage.tasks()}
        past = {task.request.prompt: len(await stage.history(task)) for task in await stage.tasks()}
        await stage.kill()
        assert all(before[state.value] is state for state in map(State, before))

        stage.store.broken, stage.host.upload_s = None, 0.5
        await stage.start()
        await stage.clock.until(lambda: bool(stage.store.saved))
        history = {task.request.prompt: await stage.history(task) for task in await stage.tasks()}
        since = {prompt: events[past[prompt] :] for prompt, events in history.items()}
        await stage.clock.sleep(300)
        after = {task.request.prompt: task.state for task in await stage.tasks()}
        since["preparing"] = (await stage.history(await stage.task("preparing")))[past["preparing"] :]

    assert since["preparing"][:3] == ["Orphaned", "PreparationStarted", "Prepared"]
    assert since["submitting"] == since["generating"] == ["Orphaned"]
    assert since["collecting"] == ["Orphaned", "Saved"]
    assert after.pop("submitting") is State.IN_DOUBT
    assert set(after.values()) == {State.SUCCEEDED}
    assert all(stage.provider.submits_of(prompt) == 1 for prompt in before)


HOLDER = """
    import sys, time
    from pathlib import Path
    from dujiang.runner.presence import LockedPresence
    presence = LockedPresence(Path(sys.argv[1]), pid=0, now=0.0)
    print(presence.worker.id, presence.worker.machine, flush=True)
    time.sleep(60)
"""


async def test_rule_08_a_free_lock_means_gone_and_a_held_one_means_alive(tmp_path: Path) -> None:
    """A real process that is killed: the system frees its lock, whatever it was doing."""
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "workers")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        name, machine = holder.stdout.readline().split()
        async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
            other = Worker(name, machine, holder.pid, 0.0)
            await held_by(stage, other, "a")
            await stage.start()
            for _ in range(6):
                await stage.clock.sleep(10)
                assert await stage.elsewhere.heartbeat(other)
            assert (await stage.task("a")).state is State.SUBMITTING, "its holder lives"
            assert stage.provider.submitted == []

            holder.kill()
            holder.wait()
            await stage.clock.sleep(11)  # taken over at the next look around
            assert (await stage.task("a")).state is State.IN_DOUBT
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close() if holder.stdout else None


async def test_rule_08_whoever_is_silent_for_a_lease_is_taken_over_and_changes_nothing_any_more(tmp_path: Path) -> None:
    """Frozen, or cut off: its lock is held, and it comes back."""
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        frozen = LockedPresence(tmp_path / "workers", pid=0, now=0.0)
        await held_by(stage, frozen.worker, "a")
        held = await stage.task("a")
        await stage.start()
        await stage.clock.sleep(25)
        assert (await stage.task("a")).state is State.SUBMITTING
        await stage.clock.sleep(20)
        taken = await stage.task("a")
        assert taken.state is State.IN_DOUBT, "within one and a half leases"

        with pytest.raises(StaleTask):
            await stage.elsewhere.record(held, Accepted("late"), worker=frozen.worker)
        assert await stage.task("a") == taken
        assert not await stage.elsewhere.heartbeat(frozen.worker), "it learns that it was taken for dead"
        assert await stage.elsewhere.heartbeat(frozen.worker), "and lives from then on"
        frozen.leave()


@pytest.mark.parametrize(
    ("lease_s", "stood_s", "clock"),
    [
        pytest.param(30.0, 16, "elapsed", id="half a lease"),
        pytest.param(30.0, 16, "wall", id="asleep, with its monotonic clock"),
        pytest.param(5.0, 3, "elapsed", id="half of a short lease"),
    ],
)
async def test_rule_08_a_program_that_stood_still_before_a_submit_sends_nothing(
    tmp_path: Path, lease_s: float, stood_s: float, clock: str
) -> None:
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        stage.lease = Lease(lease_s)
        await stage.start()
        await stage.clock.until(lambda: len(stage.provider.submitted) == 1)
        await stage.clock.sleep(60)
        task = await stage.task("a")
        assert task.state is State.SUCCEEDED
        await stage.add(["b"])
        presence = LockedPresence(tmp_path / "workers", pid=0, now=0.0)
        await held_by(stage, presence.worker, "b")
        worker = await stage.make_worker(stage.engine, presence)

        now = Moment.of(stage.clock)
        before = replace(now, **{clock: getattr(now, clock) - stood_s})
        steps = worker._run_task.steps(await stage.task("b"), before)
        (moved,) = [moved async for moved in steps]
        presence.leave()

    assert (moved.state, moved.error_code) == (State.READY, "late")
    assert stage.provider.submits_of("b") == 0


async def test_rule_08_whoever_lives_is_not_taken_over_however_short_the_lease(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(12)], limit=4) as stage:
        stage.lease = Lease(5.0)
        stage.provider.answer_s = 25.0  # with a submit on its way for many leases
        programs = [await stage.start(beside=True) for _ in range(2)]
        assert [await program for program in programs] == [RunEnd.OVER] * 2
        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}
        assert not [event for task in await stage.tasks() for event in await stage.history(task) if event == "Orphaned"]


async def test_rule_08_whoever_stood_still_shows_that_it_lives_before_it_claims(tmp_path: Path) -> None:
    """Its last heartbeat is older than a lease: what it claimed would be taken over while it is on its way."""
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", run_s=16)
        running = await stage.start()
        await stage.clock.sleep(14)  # the heart beats at 10 s and at 20 s
        calls: list[str] = []
        told(calls, stage.worker._engine, "heartbeat")
        told(calls, stage.worker._engine, "claim")
        stage.clock.set_back(-31)
        await stage.clock.until(lambda: len(stage.provider.submitted) == 2)
        assert stage.clock.elapsed() < 20
        assert await running is RunEnd.OVER

    assert calls[0] == "heartbeat"


async def test_rule_08_a_job_that_was_answered_for_after_its_task_was_taken_over_is_told(tmp_path: Path) -> None:
    """Nobody but this program has its id; the task is in doubt, and stays so."""
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        stage.provider.answer_s = 20.0
        await stage.start()
        await stage.clock.sleep(5)
        other = Worker("other", "elsewhere", 1, stage.clock.now())
        await stage.elsewhere.register(other)
        await stage.elsewhere.adopt(other, stage.worker._presence.worker, lambda lane: 600.0)
        await stage.clock.sleep(20)
        assert (await stage.task("a")).state is State.IN_DOUBT

    (told,) = [fields for name, fields in stage.log.told if name == "submit_too_late"]
    assert list(stage.provider.jobs) == ["job-1"]
    assert (told["task"], told["job"]) == (1, "job-1")


async def test_rule_08_what_is_learned_of_a_task_after_its_takeover_is_told_and_not_recorded(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"], limit=1) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        assert (await stage.task("a")).state is State.GENERATING
        other = Worker("other", "elsewhere", 1, stage.clock.now())
        await stage.elsewhere.register(other)
        await stage.elsewhere.adopt(other, stage.worker._presence.worker, lambda lane: 600.0)
        taken_over = await stage.task("a")
        await stage.clock.sleep(20)  # less than the other's lease

        assert await stage.task("a") == taken_over
    (told,) = [fields for name, fields in stage.log.told if name == "task_too_late"]
    assert (told["task"], told["event_type"]) == (1, "Rendered")


async def held_by(stage: Rehearsal, worker: Worker, prompt: str) -> None:
    """`worker` has claimed the batch's first task."""
    await stage.engine.register(worker)
    account = stage.accounts[0]
    lane = await stage.engine.lane(stage.provider.endpoint, account, "jimeng_t2i_v40")
    offer = Offer(lane, limit=_limit(1), key_fingerprint=account.keys[0].fingerprint, at_most=1)
    turn = await stage.engine.claim(worker, [offer], stage.batch.id)
    assert [task.request.prompt for task in turn.tasks] == [prompt]


def _limit(slots: int) -> Any:
    from dujiang.domain.limits import FixedLimit

    return FixedLimit(slots)


async def test_rule_08_a_worker_is_known_again_when_its_machine_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laptops and containers change their names; what they paid for must not wait for a machine that is gone."""
    async with rehearsal(tmp_path, ["a"]) as stage:
        await stage.start()
        await stage.clock.sleep(5)
        await stage.kill()
        monkeypatch.setattr("platform.node", lambda: "renamed.lan")
        monkeypatch.setattr("uuid.getnode", lambda: 12345)
        assert await stage.run() is RunEnd.OVER
        assert (await stage.task("a")).state is State.SUCCEEDED


# -- 9: waiting is not failing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "times"), [(LaneFull("50430"), 20), (TooFast("50429"), 20), (AccountRefused("50400"), 4)]
)
async def test_rule_09_a_refusal_uses_up_no_try(tmp_path: Path, refusal: ProviderError, times: int) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", submits=[LaneFull("answers")] + [refusal] * times)
        seen: list[int] = []
        running = await stage.start()
        while not running.done():
            seen.append((await stage.task("a")).tries)
            await stage.clock.sleep(5)
        task = await stage.task("a")

    assert set(seen) == {0}
    assert task.state is State.SUCCEEDED
    assert stage.provider.submits_of("a") == times + 2


async def test_rule_09_a_dead_endpoint_is_never_a_tasks_fault(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", *(f"p{n}" for n in range(20))]) as stage:
        stage.provider.on("a", submits=[LaneFull("answers")])  # so that the run does not give up at its start
        await stage.start()
        await stage.clock.sleep(1)
        stage.provider.down = EndpointDown("refused")
        await stage.clock.sleep(450)
        assert {task.state for task in await stage.tasks()} <= {State.READY, State.SUBMITTING, State.GENERATING}
        at = [call.at for call in stage.provider.submitted]
        assert len(at) < 15, "minutes on end, and nobody hammers"
        stage.provider.down = None
        await stage.clock.sleep(300)

        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}


async def test_rule_09_a_full_disk_is_never_a_tasks_fault(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, [f"p{n}" for n in range(12)], limit=2) as stage:
        stage.store.broken = StoreError("no space left", why="full")
        running = await stage.start()
        await stage.clock.sleep(300)
        assert {task.state for task in await stage.tasks()} == {State.READY, State.COLLECTING}
        assert len(stage.provider.submitted) <= 4, "nothing is bought that can't be kept"
        stage.store.broken = None
        assert await running is RunEnd.OVER

        assert {task.state for task in await stage.tasks()} == {State.SUCCEEDED}


async def test_rule_09_a_task_fails_for_its_own_content(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a", "b"]) as stage:
        stage.provider.on("a", submits=[ContentBlocked("no", vendor_code="50412")])
        await stage.run()
        assert [task.state for task in await stage.tasks()] == [State.BLOCKED, State.SUCCEEDED]


# -- 10: the ledger ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_rule_10_every_charge_belongs_to_exactly_one_attempt(tmp_path: Path, seed: int) -> None:
    """A random life: refusals, lost answers, blocked and vanished jobs, cancels, decisions, and kills."""
    chance = random.Random(seed)
    prompts = [f"p{n}" for n in range(25)]
    async with rehearsal(tmp_path, prompts, clock=FakeClock(seed=seed), on_doubt=chance.choice(POLICIES)) as stage:
        for prompt in prompts:
            submits, looks, ends = (random_some(chance, kind) for kind in (SUBMITS, LOOKS, ENDS))
            stage.provider.on(prompt, submits=submits, looks=looks, ends=ends, run_s=chance.uniform(1, 60))
        for _ in range(4):
            await stage.start()
            await stage.clock.sleep(chance.uniform(1, 120))
            if chance.random() < 0.5:
                await stage.elsewhere.cancel(task_ids=[chance.randint(1, 25)])
            ledger = await stage.ledger()
            assert len(stage.provider.charges) <= ledger.settled + ledger.in_doubt
            await stage.kill()
        assert await stage.run() is RunEnd.OVER
        await decide_all(stage, chance)
        assert await stage.run() is RunEnd.OVER

        ledger = await stage.ledger()
        told = [row["job_id"] for row in await stage.attempts() if row["job_id"]]
        assert ledger.explains(len(stage.provider.charges)), (ledger, len(stage.provider.charges))
        assert ledger.running == 0
        assert len(told) == len(set(told)), "a job belongs to one attempt"
        assert set(told) <= set(stage.provider.jobs)
        await assert_no_second_attempt_without_a_reason(stage)
        assert stage.provider.most_running <= LIMIT


POLICIES = ("hold", "resubmit:1", "fail")
SUBMITS: list[Any] = [
    *[Reply.ACCEPTED] * 3,
    Reply.LOST,
    Reply.NEVER_ARRIVED,
    LaneFull("50430"),
    TooFast("50429"),
    EndpointDown("refused"),
    ContentBlocked("50412"),
    OutputBlocked("50511"),
]
LOOKS: list[Any] = [None, None, Unproven("reset"), TooFast("50429"), Undecided("50500", vendor_code="50500")]
ENDS: list[Any] = [
    *[None] * 5,
    OutputBlocked("50511"),
    ContentBlocked("50412"),
    RecordGone("not_found"),
    Undecided("done", charged=True, polls=4, for_s=0, vendor_code="done"),
    Undecided("failed", vendor_code="failed"),
    JobCancelled("canceled"),
]


def random_some(chance: random.Random, kinds: list[Any]) -> list[Any]:
    return [chance.choice(kinds) for _ in range(chance.randint(0, 3))]


async def decide_all(stage: Rehearsal, chance: random.Random) -> None:
    told = {row["job_id"] for row in await stage.attempts()}
    for task in await stage.elsewhere.doubts(stage.batch.id):
        unknown = [job.id for job in stage.provider.jobs.values() if job.prompt == task.request.prompt]
        found = next((job_id for job_id in unknown if job_id not in told), None)
        decision = JobFound(found) if found and chance.random() < 0.5 else ResubmitDecided()
        told |= {found} if isinstance(decision, JobFound) else set()
        await stage.elsewhere.record(task, decision)


async def assert_no_second_attempt_without_a_reason(stage: Rehearsal) -> None:
    for task in await stage.tasks():
        history = await stage.history(task)
        for place, event in enumerate(history):
            if event == "Claimed" and place:
                assert "Claimed" not in history[:place] or history[place - 1] in {
                    "Postponed",
                    "OutputRefused",
                    "ResubmitDecided",
                    "Prepared",
                }, history


# -- 11: clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
async def test_rule_11_a_doubtful_slot_is_not_held_longer_when_the_clock_goes_back(tmp_path: Path, when: str) -> None:
    async with rehearsal(tmp_path, ["a", "b"], limit=1) as stage:
        stage.provider.on("a", submits=[Reply.LOST])
        await stage.start()
        await stage.clock.sleep(10)
        if when == "before the start":
            await stage.kill()
        stage.clock.set_back(86_400)
        if when == "before the start":
            await stage.start()
        set_back_at = stage.clock.elapsed()
        await stage.clock.until(lambda: stage.provider.submits_of("b") > 0)

        assert stage.clock.elapsed() - set_back_at <= UNTIL_KNOWN_S + 21


async def test_rule_11_a_rest_is_not_honoured_longer_when_the_clock_goes_back(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        lane = await stage.engine.lane(stage.provider.endpoint, stage.accounts[0], "jimeng_t2i_v40")
        order = RestOrder(Subject.LANE, str(lane.id), "slot", "", RestRule(10, 10))
        await stage.engine.rest(order)
        stage.clock.set_back(86_400)
        await stage.run()

    assert stage.provider.submitted[0].at <= 10 + 0.1


async def test_rule_11_what_is_measured_in_a_process_does_not_see_the_wall_clock(tmp_path: Path) -> None:
    async with rehearsal(tmp_path, ["a"]) as stage:
        stage.provider.on("a", run_s=25)
        running = await stage.start()
        await stage.clock.sleep(10)
        stage.clock.set_back(-3600)
        await stage.clock.sleep(5)
        stage.clock.set_back(7200)
        assert await running is RunEnd.OVER
        (attempt,) = await stage.attempts()

    assert attempt["run_s"] == pytest.approx(25, abs=1)


async def test_rule_11_a_lock_and_not_a_clock_says_who_lives(tmp_path: Path) -> None:
    alive = LockedPresence(tmp_path, pid=0, now=0.0)  # started in 1970, as far as any clock can say
    other = LockedPresence(tmp_path, pid=0, now=4e9)
    try:
        assert other.is_gone(alive.worker) is False
        alive.leave()
        assert other.is_gone(alive.worker) is True
    finally:
        other.leave()
