"""A fleet: `dujiang worker` processes on one PostgreSQL, each with a home of its own, so that only the lease tells.

What every process writes is noted by triggers under its name (`fleet.who`, a setting of its connections), so that
whoever wrote after its tasks were taken over is seen, and whoever tried in vain is counted.
"""

import asyncio
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from dujiang.domain.lifecycle import AWAITING_DECISION, FINAL, HELD, JobFound, ResubmitDecided, State
from dujiang.engines.sql.database import connect
from dujiang.engines.sql.engine import SqlEngine
from dujiang.runner.clock import SystemClock

from .client import ENOUGH
from .invariants import Evidence, Row, gather, tables_of
from .processes import PATIENCE_S, Stuck, VendorProcess, environment
from .storm import decisions_of

TIME_SCALE: Final = 0.1
LEASE_S: Final = 30.0 * TIME_SCALE
SUBMIT_TIMEOUT_S: Final = 2.0
VENDOR: Final[Mapping[str, Any]] = {
    "limit": None,  # only our own counting keeps the limit
    "time_scale": TIME_SCALE,
    "run_median_s": 10.0,
    "run_p99_s": 20.0,
    "image_url_lifetime_s": 1e6,
    "record_lifetime_s": 1e6,
}
LOOK_EVERY_S: Final = 0.05
BATCH: Final = "storm"
_TOO_LATE: Final = re.compile("had been taken over by others|after others had taken it over")
NOBODY: Final = ""

_NOTE_WRITES: Final = (
    """CREATE TABLE fleet_writes (
        id bigserial PRIMARY KEY, xid text, at float8, who text, relation text, task_id int, event text, data text)""",
    """CREATE FUNCTION fleet_wrote() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE line jsonb := to_jsonb(NEW);
    BEGIN
        INSERT INTO fleet_writes (xid, at, who, relation, task_id, event, data) VALUES (
            pg_current_xact_id()::text, extract(epoch FROM clock_timestamp()),
            coalesce(current_setting('fleet.who', true), ''), TG_TABLE_NAME,
            coalesce(line->>'task_id', line->>'id')::int, line->>'type', line::text);
        RETURN NULL;
    END $$""",
    "CREATE TRIGGER wrote AFTER INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION fleet_wrote()",
    "CREATE TRIGGER wrote AFTER INSERT OR UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION fleet_wrote()",
    "CREATE TRIGGER wrote AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION fleet_wrote()",
)


@dataclass
class Absence:
    """A time, on the wall's clock, in which a worker did nothing."""

    since: float
    until: float = math.inf


class Machine:
    """One life of a worker. Its name tells it from all others."""

    def __init__(self, who: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.who = who
        self.process = process
        self.log = log
        self.absences: list[Absence] = []
        """When it was killed or stood still, oldest first."""

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.absences.append(Absence(time.time()))
        self.process.wait(PATIENCE_S)

    def freeze(self) -> None:
        """It stands still, with everything open."""
        self.process.send_signal(signal.SIGSTOP)
        self.absences.append(Absence(time.time()))

    def thaw(self) -> float:
        """It goes on as if nothing had been. After so many seconds."""
        absence = self.absences[-1]
        absence.until = time.time()
        self.process.send_signal(signal.SIGCONT)
        return absence.until - absence.since

    def end(self) -> None:
        """Ask it to end. Raises `Stuck` if it doesn't, or ends in another way."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.who} does not end\n{self.story()}") from None
        if code != 7:
            raise Stuck(f"{self.who} ended with {code}\n{self.story()}")

    def story(self) -> str:
        """The end of what it said."""
        return self._said()[-3000:]

    def refused_writes(self) -> int:
        """How often it says that it came too late to write about a task."""
        return len(_TOO_LATE.findall(self._said()))

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace")


@dataclass
class Fleet:
    """Workers, their batch, and what they leave."""

    folder: Path
    database_url: str
    vendor: VendorProcess
    limit: int
    concurrency: str
    time_scale: float = TIME_SCALE
    prompts: dict[str, State] = field(default_factory=dict)
    living: list[Machine] = field(default_factory=list)
    gone: list[Machine] = field(default_factory=list)
    sent_again: set[int] = field(default_factory=set)
    _lives: int = 0

    def __post_init__(self) -> None:
        self._database = sa.create_engine(self.database_url, pool_pre_ping=True)

    # -- processes

    def submit(self, prompts: Mapping[str, State]) -> None:
        """Put them into the batch, behind what is there; nobody works for it by that."""
        # A budget that is never used up, counted from the first row on, and never anew: no kill may make it drift.
        budget = [] if self.prompts else ["--max-images", str(ENOUGH)]
        self.prompts |= prompts
        source = self.folder / f"{BATCH}.jsonl"
        source.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in self.prompts), "utf-8")
        order = ["run", str(source), "--out", str(self.folder / "out"), "--no-work", *budget]
        done = subprocess.run(
            [sys.executable, "-m", "dujiang", *order],
            env=self._environment("person"),
            cwd=self.folder,
            check=False,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr.decode()

    def note_writes(self) -> None:
        """From now on it is known who wrote what about a task."""
        with self._database.begin() as connection:
            for statement in _NOTE_WRITES:
                connection.exec_driver_sql(statement)

    def start(self, machines: int = 1) -> None:
        """So many workers more, each on a machine of its own."""
        for _ in range(machines):
            self._lives += 1
            who = f"m{self._lives}"
            log = self.folder / f"{who}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "dujiang", "worker", "--name", who],
                    env=self._environment(who),
                    cwd=self.folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self.living.append(Machine(who, process, log))

    def lose(self, machine: Machine) -> None:
        """It was killed."""
        self.living.remove(machine)
        self.gone.append(machine)

    def close(self) -> None:
        """Leave no process behind."""
        for machine in self.living:
            with suppress(ProcessLookupError):
                machine.process.kill()
            machine.process.wait(PATIENCE_S)
        self._database.dispose()

    def _environment(self, who: str) -> dict[str, str]:
        url = sa.make_url(self.database_url).update_query_dict({"options": f"-c fleet.who={who}"})
        return environment() | {
            "DUJIANG_HOME": str(self.folder / f"home-{who}"),
            "DUJIANG_DATABASE_URL": url.render_as_string(hide_password=False),
            "DUJIANG_JIMENG_ENDPOINT": self.vendor.url,
            "DUJIANG_CONCURRENCY": self.concurrency,
            "DUJIANG_TIME_SCALE": str(self.time_scale),
            "DUJIANG_SUBMIT_TIMEOUT": str(SUBMIT_TIMEOUT_S),
            "DUJIANG_POLL_TIMEOUT": "1",
            "DUJIANG_DOWNLOAD_TIMEOUT": "1",
            "DUJIANG_LANG": "en",
            "VOLCENGINE_ACCESS_KEY": "AKLTsimulator",
            "VOLCENGINE_SECRET_KEY": "c2ltdWxhdG9y",
        }

    # -- looking

    def ask(self, query: str, **values: Any) -> Any:
        """The first value of the answer, with the workers at work."""
        with self._database.connect() as connection:
            return connection.execute(sa.text(query), values).scalar()

    def until(self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Look until it is so. A database that is away is looked at again; a worker that ended is told at once.

        Nothing calls when other programs have got somewhere, or when their database is back: it is looked at.
        """
        give_up_at = time.monotonic() + within_s
        while True:
            with suppress(OperationalError):
                if condition():
                    return
            for machine in self.living:
                if machine.process.poll() is not None:
                    raise Stuck(f"{machine.who} ended with {machine.process.returncode}\n{machine.story()}")
            if time.monotonic() > give_up_at:
                stories = "\n".join(f"{machine.who}: {machine.story()[-800:]}" for machine in self.living)
                raise Stuck(f"not within {within_s:g} s: {what}\n{stories}")
            time.sleep(LOOK_EVERY_S)

    def works(self, machine: Machine) -> bool:
        """Whether it has begun."""
        return bool(self.ask("SELECT count(*) FROM workers WHERE name = :who", who=machine.who))

    def holds(self, machine: Machine, *states: State) -> int:
        """How many tasks it holds, in these states."""
        names = ", ".join(f"'{state}'" for state in states or HELD)
        held = f"SELECT count(*) FROM tasks JOIN workers ON owner = workers.id AND state IN ({names})"
        return int(self.ask(f"{held} WHERE workers.name = :who", who=machine.who))

    def unfinished(self, *but: State) -> int:
        """Tasks that will go on by themselves."""
        names = ", ".join(f"'{state}'" for state in FINAL | AWAITING_DECISION | set(but))
        return int(self.ask(f"SELECT count(*) FROM tasks WHERE state NOT IN ({names})"))

    def is_quiet(self) -> bool:
        """Whether only decisions can lead on, and nobody who is gone counts as alive."""
        alive = self.ask("SELECT count(*) FROM workers WHERE ended_at IS NULL")
        return not self.unfinished() and alive <= len(self.living)

    # -- the end

    def evidence(self) -> Evidence:
        """What there is, now that everything is quiet."""
        images = self.folder / "out" / BATCH / "images"
        decisions = frozenset(self.sent_again)
        self.vendor.ledger()
        return gather(
            self.database_url,
            images,
            self.vendor.quiet(),
            expected=self.prompts,
            limit=self.limit,
            decisions=decisions,
        )

    def settle(self, within_s: float = PATIENCE_S) -> None:
        """Wait until nothing goes on, with every doubt resolved by somebody who sees the vendor's ledger."""
        self.until(self.is_quiet, "quiet", within_s)
        while decisions := decisions_of(self.evidence()):
            self.sent_again |= {task_id for task_id, job_id in decisions if job_id is None}
            asyncio.run(_decide(self.database_url, decisions))
            self.until(self.is_quiet, "quiet after decisions", within_s)

    def end(self) -> None:
        """Everybody goes home."""
        for machine in list(self.living):
            machine.end()
            self.lose(machine)


async def _decide(database_url: str, decisions: Sequence[tuple[int, str | None]]) -> None:
    engine = SqlEngine(connect(database_url), SystemClock())
    try:
        for task_id, job_id in decisions:
            task = await engine.task(task_id)
            assert task is not None
            await engine.record(task, JobFound(job_id) if job_id else ResubmitDecided())
    finally:
        await engine.aclose()


@contextmanager
def fleet_of(
    folder: Path, database_url: str, vendor: VendorProcess, *, limit: int, concurrency: str | None = None
) -> Iterator[Fleet]:
    """A fleet without a machine yet; whatever is started ends with the block."""
    fleet = Fleet(folder, database_url, vendor, limit, concurrency or f"fixed:{limit}")
    try:
        yield fleet
    finally:
        fleet.close()


# -- What the history tells


def takeovers(database_url: str, machines: Iterable[Machine]) -> tuple[list[float], list[str]]:
    """Of each task that one of them held when it was gone: after how many seconds somebody else had it.

    And in words: what was taken from one that was there.
    """
    tables = tables_of(database_url, workers="started_at", events="id")
    names = {worker["id"]: worker["name"] for worker in tables["workers"]}
    absences = {machine.who: machine.absences for machine in machines}
    found, from_living = [], []
    for event in tables["events"]:
        if event["type"] == "Orphaned" and (gone := json.loads(event["data"]).get("worker")):
            who, at = names[gone], event["at"]
            since = [absence.since for absence in absences[who] if absence.since <= at <= absence.until]
            found += [at - moment for moment in since]
            if not since:
                from_living.append(f"task {event['task_id']} was taken from {who}, which lived")
    return found, from_living


def late_writes(database_url: str) -> list[str]:
    """What somebody wrote about a task that another one held, in words."""
    holders: dict[int, str] = {}
    found = []
    for (_, task_id), writes in _changes(tables_of(database_url, fleet_writes="id")["fleet_writes"]).items():
        who = writes[0]["who"]
        events = [write["event"] for write in writes if write["event"]]
        if who in {NOBODY, "person"}:
            holders.pop(task_id, None)
        elif {"Claimed", "Orphaned"} & set(events):
            holders[task_id] = who
        elif holders.get(task_id) != who:
            data = [write["data"] for write in writes]
            found.append(f"{who}: {events or data} of task {task_id}, held by {holders.get(task_id)}")
    return found


def _changes(writes: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    """By transaction and task, in the order of their first write: a task's row is locked from then on."""
    found: dict[tuple[str, int], list[Row]] = {}
    for write in writes:
        found.setdefault((write["xid"], write["task_id"]), []).append(write)
    return found
