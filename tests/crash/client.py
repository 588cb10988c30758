"""The product as a process that dies on order: `python -m tests.crash.client`, one JSON object of `Orders` on stdin.

It imports everything, says that it is ready, and waits for its orders, so that the next one can be started while this
one still runs. Then it does what `dujiang run` does with a file: opens the batch, enqueues the rows (again), applies
what a person decided, and works until the batch is over.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dujiang.domain.batch import Batch
from dujiang.domain.lifecycle import Event, JobFound, ResubmitDecided
from dujiang.engines.sql.engine import SqlEngine
from dujiang.ports import Engine, ImageStore, NewTask, Provider
from dujiang.providers.jimeng.models import MODELS
from dujiang.providers.jimeng.provider import JimengProvider
from dujiang.runner.clock import SystemClock
from dujiang.runner.folders import IMAGES, batch_folder
from dujiang.settings import Settings, load
from dujiang.storage.files import FileStore
from dujiang.testing import FakeLog
from dujiang.wiring import Parts, open_engine, open_worker

from .ablations import AS_SHIPPED, WIRINGS
from .mortal import Death, MortalProvider, MortalStore, Point, die_in_transactions, tell

READY: Final = "ready"
WORKING: Final = "working"
END: Final = "end"

BATCH_ID: Final = "storm"
ENOUGH: Final = 100_000  # a budget that is never used up
PAGE: Final = 20  # rows in one enqueue: several, so that there is something to be killed between


@dataclass(frozen=True, slots=True)
class Orders:
    """What one process is to do. Times in real seconds."""

    home: str
    endpoint: str
    prompts: Sequence[str]
    limit: int
    time_scale: float
    submit_timeout_s: float
    wiring: str = AS_SHIPPED
    finds_limit: bool = False
    die_at: str | None = None
    on_pass: int = 1
    decisions: Sequence[tuple[int, str | None]] = ()
    """Doubtful task -> the job that a person found; None: send it again."""

    def dumped(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))


def settings_of(orders: Orders) -> Settings:
    """The product's settings for a storm."""
    return load(
        home=Path(orders.home),
        jimeng_endpoint=orders.endpoint,
        concurrency=f"auto:1..{orders.limit}" if orders.finds_limit else f"fixed:{orders.limit}",
        time_scale=orders.time_scale,
        submit_timeout=orders.submit_timeout_s,
        poll_timeout=1.0,
        download_timeout=1.0,
        volcengine_access_key="AKLTsimulator",
        volcengine_secret_key="c2ltdWxhdG9y",
    )


async def live(orders: Orders) -> str:
    """One life; how it ended, if it did by itself."""
    death = Death(Point(orders.die_at) if orders.die_at else None, orders.on_pass)
    die_in_transactions(death)
    settings = settings_of(orders)
    clock = SystemClock(settings.time_scale)
    async with open_engine(settings, clock) as engine:
        batch = await engine.open_batch(Batch(BATCH_ID, "storm", str(Path(orders.home) / "out"), "storm.csv"))
        if batch.max_images is None:  # counted from the first life on, and never anew: no kill may make it drift
            await engine.set_budget(batch.id, ENOUGH)
        (batch_folder(batch) / IMAGES).mkdir(parents=True, exist_ok=True)
        for page in _pages(rows_of(orders.prompts)):
            await engine.enqueue(batch.id, page)
            death.passing(Point.BETWEEN_ENQUEUES)
        for task_id, job_id in orders.decisions:
            await _decide(engine, task_id, JobFound(job_id) if job_id else ResubmitDecided())
        parts = _parts(orders.wiring, death)
        async with open_worker(settings, engine, clock, log=FakeLog(), parts=parts) as worker:
            tell(WORKING)
            return await worker.run(batch)


def _pages(rows: Sequence[NewTask]) -> list[Sequence[NewTask]]:
    return [rows[start : start + PAGE] for start in range(0, len(rows), PAGE)]


def rows_of(prompts: Sequence[str]) -> list[NewTask]:
    """The file's rows, one a prompt."""
    spec = MODELS["4.0"]
    rows = []
    for position, prompt in enumerate(prompts, start=1):
        request, problems = spec.checked(prompt, {})
        assert request is not None, problems
        rows.append(NewTask(f"r{position}", prompt, position, f"{position:05d}", spec.req_key, request))
    return rows


async def _decide(engine: SqlEngine, task_id: int, event: Event) -> None:
    task = await engine.task(task_id)
    assert task is not None
    await engine.record(task, event)
    tell(f"{type(event).__name__} {task_id}")


def _parts(wiring: str, death: Death) -> Parts:
    def engine(real: Engine) -> Engine:
        assert isinstance(real, SqlEngine)
        return WIRINGS[wiring](real, death)

    def provider(real: Provider) -> Provider:
        assert isinstance(real, JimengProvider)
        return MortalProvider(real, death)

    def store(real: ImageStore) -> ImageStore:
        assert isinstance(real, FileStore)
        return MortalStore(real, death)

    return Parts(engine=engine, provider=provider, store=store)


def main() -> int:
    """Wait for orders, then live."""
    tell(READY)
    line = sys.stdin.readline()
    if not line:
        return 0  # not needed after all
    orders = Orders(**json.loads(line))
    tell(f"{END} {asyncio.run(live(orders))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
