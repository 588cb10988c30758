"""`dujiang run`: rows in, pictures on disk."""

import asyncio
import contextlib
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from dujiang import wiring
from dujiang.cli.awake import awake
from dujiang.cli.exits import Exit, Refused, exit_code_of, say
from dujiang.cli.opening import settings_of
from dujiang.cli.rows import Rows, Source, checked_rows
from dujiang.cli.show import counts_line, print_json
from dujiang.cli.watch import watch
from dujiang.domain.batch import Batch, OnDoubt, batch_state
from dujiang.domain.errors import BatchPruned, StoreError
from dujiang.domain.lifecycle import FINAL, State
from dujiang.domain.limits import Limit
from dujiang.domain.names import safe_stem
from dujiang.engines.sql.batches import counts as counted
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import Figures, TaskFilter, figures, find_batch, list_tasks, reading
from dujiang.messages import text
from dujiang.ports import Added, Clock, Log
from dujiang.runner.clock import SystemClock
from dujiang.runner.worker import BatchWorker, Rate, RunEnd
from dujiang.settings import Settings, parsed_limit
from dujiang.storage.folders import FolderTaken, disk_errors, open_batch_folder, read_marker

STDIN: Final = "-"
MANY: Final = 1000  # rows, that change how a database finds things
BAD: Final = frozenset({State.FAILED, State.BLOCKED, State.LOST})


class Working(StrEnum):
    """What this program does for its batch."""

    WORKS = "works"
    WATCHES = "watches"
    LEAVES = "leaves"
    """It submits the batch and returns; workers do the rest."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked for."""

    input_path: str
    out: Path
    name: str | None
    refs: Path | None
    model: str
    concurrency: str | None
    priority: int | None
    max_images: int | None
    on_doubt: str
    retry_failed: bool
    skip_invalid: bool
    quick_exit: bool
    give_up_after: float | None
    allow_sleep: bool
    working: Working
    as_json: bool
    log: Mapping[str, object]
    """Settings of the log that flags have set."""


def run(wish: Wish, home: Path | None) -> int:
    """Submit and work until the batch is over; the exit code says how it went."""
    settings = settings_of(home, allow_sleep=wish.allow_sleep or None, **wish.log)
    on_doubt, limit = _policy(wish.on_doubt), _limit(wish.concurrency)
    wiring.accounts_of(settings)
    wiring.check_endpoint(settings)
    source = Source(wish.input_path, wish.model, wish.refs, settings.home_folder / "uploads")
    with checked_rows(source, skip_invalid=wish.skip_invalid) as rows, awake(settings.allow_sleep):
        wiring.check_host(settings, rows.to_publish)
        return asyncio.run(_run(wish, settings, rows, on_doubt, limit))


def _policy(words: str) -> OnDoubt:
    try:
        return OnDoubt.parse(words)
    except ValueError:
        raise Refused("on_doubt_unknown", value=words) from None


def _limit(words: str | None) -> Limit | None:
    try:
        return parsed_limit(words) if words is not None else None
    except ValueError:
        raise Refused("limit_unknown", value=words) from None


async def _run(wish: Wish, settings: Settings, rows: Rows, on_doubt: OnDoubt, limit: Limit | None) -> int:
    clock = SystemClock(settings.time_scale)
    started = time.monotonic()
    async with wiring.open_engine(settings, clock) as engine:
        batch = await _open_batch(engine, wish, rows, on_doubt)
        folder = open_batch_folder(Path(batch.out), batch.name, batch.id)
        if wish.priority is not None:
            await engine.set_priority(wish.priority, batch_id=batch.id)
        if wish.max_images is not None:
            await engine.set_budget(batch.id, wish.max_images)
        added = await _enqueue(engine, batch, rows)
        say(text("run_added", batch=batch.name, new=added.new, changed=added.changed, same=added.same))
        if wish.retry_failed:
            await _retry_failed(engine, batch)
        if batch.paused:
            say(text("run_paused", batch=batch.name))
        if await engine.everything_is_paused():
            say(text("run_all_paused"))
        if wish.working is Working.LEAVES:
            return _left(wish, engine, batch, await engine.counts(batch.id), folder)
        with wiring.open_log(settings) as log:
            end, rate = await _work(wish, settings, engine, clock, batch, rows, limit, log)
        counts = await engine.counts(batch.id)
        obstacle = await _obstacle(engine, end)
        result = _counted(engine, batch, counts, folder, time.monotonic() - started) | rate.told
        unwritten = _write_reports(engine, batch, folder, result)
    _tell(wish, end, result, counts, folder, obstacle)
    return exit_code_of(unwritten) if unwritten else exit_code(end, counts)


def _left(wish: Wish, engine: SqlEngine, batch: Batch, counts: Mapping[State, int], folder: Path) -> int:
    """The batch is submitted: whoever works for it does the rest."""
    if wish.as_json:
        print_json(_counted(engine, batch, counts, folder, 0.0))
    say(text("run_left", batch=batch.name))
    return Exit.OK


async def _obstacle(engine: SqlEngine, end: RunEnd) -> str:
    """What the vendor, or the way to it, said when it ended the run."""
    codes = {RunEnd.CREDENTIALS: ("account", "host_account"), RunEnd.UNREACHABLE: ("network", "host")}
    return next((rest.detail for rest in await engine.rests() if rest.code in codes.get(end, ())), "")


def _write_reports(engine: SqlEngine, batch: Batch, folder: Path, result: dict[str, Any]) -> StoreError | None:
    """The pictures are there whether or not the reports can be written: the result is told in any case."""
    with reading(engine.database) as connection:
        return _written(connection, batch, folder, result)


def _written(connection: sa.Connection, batch: Batch, folder: Path, result: dict[str, Any]) -> StoreError | None:
    try:
        wiring.write_reports(connection, batch, folder, result)
    except StoreError as error:
        return error
    return None


def written_reports(connection: sa.Connection, batch: Batch) -> StoreError | None:
    """Write those of a batch that is over; why they could not be written."""
    folder = Path(batch.out) / batch.name
    counts = counted(connection, batch.id)
    return _written(connection, batch, folder, _result(batch, counts, figures(connection, batch.id), folder, 0.0))


def _counted(
    engine: SqlEngine, batch: Batch, counts: Mapping[State, int], folder: Path, elapsed_s: float
) -> dict[str, Any]:
    with reading(engine.database) as connection:
        return _result(batch, counts, figures(connection, batch.id), folder, elapsed_s)


async def _open_batch(engine: SqlEngine, wish: Wish, rows: Rows, on_doubt: OnDoubt) -> Batch:
    """The batch of (out, name): known by its folder's marker and by its place in the database.

    Nothing is stored, or changed about a batch that is there, before it is clear that it may be.
    """
    if rows.continues is not None:
        return await _continued(engine, rows.continues, on_doubt)
    out, source = _place(wish)
    name = safe_stem(wish.name or ("stdin" if source == STDIN else Path(source).stem))
    with reading(engine.database) as connection:
        known = next((batch for batch in find_batch(connection, name) if batch["out"] == out), None)
    if known is None:
        await _refuse_folder_of_another(engine, Path(out), name)
    elif wish.name is None:
        _refuse_other_source(name, known["source"], source, Path(out))
    if known is not None and known["pruned_at"] is not None:
        raise BatchPruned(name)
    _prove_writable(Path(out) / name)
    batch = await engine.open_batch(Batch(secrets.token_hex(5), name, out, source, on_doubt))
    if wish.name is None:  # another program may have been faster
        _refuse_other_source(name, batch.source, source, Path(out))
    return batch


def _refuse_other_source(name: str, known: str, source: str, out: Path) -> None:
    if known != source:
        raise Refused("batch_name_taken", batch=name, source=known, folder=out / name)


async def _refuse_folder_of_another(engine: SqlEngine, out: Path, name: str) -> None:
    owner = read_marker(out, name)
    batch = await engine.batch(owner) if owner else None
    if owner and (batch is None or (batch.out, batch.name) != (str(out), name)):
        raise FolderTaken(out / name, owner)


def _prove_writable(folder: Path) -> None:
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise Refused("out_is_file", path=above)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _place(wish: Wish) -> tuple[str, str]:
    """Real paths of the folder and of the input: the same batch, however it is written."""
    source = STDIN if wish.input_path == STDIN else str(Path(wish.input_path).expanduser().resolve())
    return str(wish.out.expanduser().resolve()), source


async def _continued(engine: SqlEngine, batch_id: str, on_doubt: OnDoubt) -> Batch:
    """failed.csv names the batch that it came from, and continues it."""
    batch = await engine.batch(batch_id)
    if batch is None:
        raise Refused("batch_unknown", batch=batch_id)
    return await engine.open_batch(replace(batch, on_doubt=on_doubt))


async def _enqueue(engine: SqlEngine, batch: Batch, rows: Rows) -> Added:
    added = Added()
    for chunk in rows.chunks():
        added += await engine.enqueue(batch.id, chunk)
    if added.new >= MANY:
        await engine.analyze()
    return added


async def _retry_failed(engine: SqlEngine, batch: Batch) -> None:
    failed: list[int] = []
    with reading(engine.database) as connection:
        after = 0
        while page := list_tasks(connection, TaskFilter(batch.id, [State.FAILED], None, after, 1000)):
            failed += [task["id"] for task in page]
            after = page[-1]["id"]
    made = await engine.retry(failed)
    if failed:
        say(text("retry_result", count=len(made), left=len(failed) - len(made)))


async def _work(
    wish: Wish,
    settings: Settings,
    engine: SqlEngine,
    clock: Clock,
    batch: Batch,
    rows: Rows,
    limit: Limit | None,
    log: Log,
) -> tuple[RunEnd, Rate]:
    """How it ended, and how fast it was."""
    async with wiring.open_worker(settings, engine, clock, log=log, set_limit=limit) as worker:
        worker.give_up_after_s = wish.give_up_after
        works = wish.working is Working.WORKS
        progress = wiring.make_progress(settings, worker, engine, batch, rows.req_keys, works=works)
        begun = asyncio.Event()
        showing = asyncio.create_task(watch(progress, begun))
        await begun.wait()
        try:
            with signals(worker, quick=wish.quick_exit):
                end = await (worker.run(batch) if works else worker.watch(batch))
                return end, worker.rate(rows.req_keys)
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing


@contextlib.contextmanager
def signals(worker: BatchWorker, *, quick: bool) -> Iterator[None]:
    """While it works. Once: finish what runs. Twice: leave now. Plain `signal.signal`, which Windows has too."""
    loop = asyncio.get_running_loop()
    times = 0

    def heard() -> None:
        nonlocal times
        times += 1
        if times == 1:
            say("\n" + text("stopping_quick" if quick else "stopping"))
            worker.stop(quick=quick)
        else:
            worker.leave()

    def handler(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(heard)

    numbers = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _result(batch: Batch, counts: Mapping[State, int], cost: Figures, folder: Path, elapsed_s: float) -> dict[str, Any]:
    return {
        "batch": batch.name,
        "batch_id": batch.id,
        "state": batch_state(counts, paused=batch.paused).value,
        "counts": {state.value: count for state, count in counts.items()},
        "images": cost.images,
        "in_doubt": cost.doubts,
        "elapsed_s": round(elapsed_s, 1),
        "refused": cost.refused,
        "out": str(folder),
    }


def exit_code(end: RunEnd, counts: Mapping[State, int]) -> Exit:
    """Precedence 7, 4/6, 8, 5, 3, 0."""
    ends = {
        RunEnd.INTERRUPTED: Exit.INTERRUPTED,
        RunEnd.CREDENTIALS: Exit.CREDENTIALS,
        RunEnd.UNREACHABLE: Exit.UNREACHABLE,
        RunEnd.ELSEWHERE: Exit.UNREACHABLE,
    }
    if end in ends:
        return ends[end]
    if counts.get(State.IN_DOUBT):
        return Exit.DECISION
    if end is RunEnd.BUDGET:
        return Exit.BUDGET
    return Exit.SOME_FAILED if any(counts.get(state) for state in BAD) else Exit.OK


def _tell(
    wish: Wish, end: RunEnd, result: dict[str, Any], counts: Mapping[State, int], folder: Path, obstacle: str
) -> None:
    if wish.as_json:
        print_json(result)
    say(text(f"end_{end.value}"))
    if obstacle:
        say(f"  {obstacle}")
    say(f"{counts_line(result['counts'])} · {text('images_paid', count=result['images'])}")
    say(text("where_images", path=folder / "images"))
    if any(counts.get(state) for state in BAD):
        say(text("where_failed", path=folder / "failed.csv"))
    if counts.get(State.FAILED):
        say(text("how_to_retry"))
    if result["in_doubt"]:
        say(text("some_doubts", count=len(result["in_doubt"])))
        say(text("how_to_resolve", task=result["in_doubt"][0]))
    if end is not RunEnd.OVER and any(counts.get(state) for state in counts if state not in FINAL):
        say(text("run_again"))
