"""What a fleet of workers asks of one PostgreSQL: transactions, bytes of log, connections; at rest and at work.

Everything runs in real time (a job takes 20 s), so what a worker asks for while it waits counts as it does in life.
`--server`: a PostgreSQL whose user may make databases; one is made for each size of fleet, and dropped.
"""

import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa

from report import Aim, conclude, parser, print_table
from vendor import environment, ledger, output_of, vendor

JOB_S: Final = 20.0
REST_S: Final = 20.0
STARTED_S: Final = 240.0
SETTLED_S: Final = 10.0
EVERY_S: Final = 0.25
LATE_S: Final = 1.5
"""PostgreSQL counts up to a second late."""
COMMITS: Final = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = :name"
CONNECTIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND application_name = 'dujiang'"
LOG: Final = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"


@dataclass(frozen=True, slots=True)
class Stretch:
    """What happened in some seconds, as the database and the system counted it."""

    seconds: float
    transactions: float
    log_bytes: float
    connections: int
    """At most."""
    database_cpu_s: float
    worker_cpu_s: float

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.seconds


@dataclass(frozen=True, slots=True)
class Fleet:
    """One size of fleet."""

    workers: int
    slots: int
    tasks: int
    rest: Stretch
    work: Stretch
    charges: int
    most_at_once: int

    @property
    def used(self) -> float:
        """Slots used ÷ slots there were."""
        return self.tasks * JOB_S / self.slots / self.work.seconds


class Eyes:
    """Looks at a database and at processes. What can be seen from another database is: a look is a transaction, too."""

    def __init__(self, url: str, server: str, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        self._name = str(sa.make_url(url).database)
        self._workers = [psutil.Process(worker.pid) for worker in workers]
        self._inside, self._beside = _connected(url), _connected(server)

    def close(self) -> None:
        """Look no more."""
        for connection in (self._inside, self._beside):
            connection.close()

    def ask(self, query: str) -> Any:
        """The one value of the answer."""
        return self._inside.execute(sa.text(query)).scalar_one()

    def stretch(self, until: Any) -> Stretch:
        """What happens until `until` says so."""
        time.sleep(LATE_S)
        before, began, most = self._counted(), time.monotonic(), 0
        while not until(time.monotonic() - began):
            most = max(most, int(self._told(CONNECTIONS)))
            time.sleep(EVERY_S)
        seconds = time.monotonic() - began
        time.sleep(LATE_S)
        after = self._counted()
        changed = [late - early for early, late in zip(before, after, strict=True)]
        return Stretch(seconds, changed[0], changed[1], most, changed[2], changed[3])

    def _told(self, query: str) -> float:
        return float(self._beside.execute(sa.text(query), {"name": self._name}).scalar_one())

    def _counted(self) -> tuple[float, float, float, float]:
        log = float(self._beside.execute(sa.text(LOG)).scalar_one())
        return self._told(COMMITS), log, _cpu(self._backends()), _cpu(self._workers)

    def _backends(self) -> list[psutil.Process]:
        """The server's processes for this database, where they run on this machine; their title names it."""
        found = psutil.process_iter(["name", "cmdline"])
        return [
            each
            for each in found
            if each.info["name"] == "postgres" and self._name in " ".join(each.info["cmdline"] or ())
        ]


def _connected(url: str) -> sa.Connection:
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _cpu(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def main() -> int:
    """Measure each size."""
    options = parser(__doc__)
    options.add_argument("--server", required=True, metavar="URL")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 5, 20])
    options.add_argument("--slots", type=int, default=40)
    options.add_argument("--tasks", type=int, default=160)
    given = options.parse_args()
    fleets = [measured(given.server, size, given.slots, given.tasks) for size in given.workers]
    print_table(
        [
            "workers",
            "used",
            "tx/s at rest",
            "tx a task",
            "log KB a task",
            "connections",
            "db ms a task",
            "ours ms a task",
        ],
        [
            [
                fleet.workers,
                fleet.used,
                fleet.rest.rate,
                fleet.work.transactions / fleet.tasks,
                fleet.work.log_bytes / fleet.tasks / 1000,
                fleet.work.connections,
                fleet.work.database_cpu_s / fleet.tasks * 1000,
                fleet.work.worker_cpu_s / fleet.tasks * 1000,
            ]
            for fleet in fleets
        ],
    )
    aims = []
    for fleet in fleets:
        aims.append(Aim(f"{fleet.workers} workers, charges ÷ tasks", fleet.charges / fleet.tasks, 1.0))
        aims.append(Aim(f"{fleet.workers} workers, most at once ÷ slots", fleet.most_at_once / fleet.slots, 1.0))
    for fleet in fleets[1:]:
        name = f"slots used, {fleet.workers} workers ÷ {fleets[0].workers}"
        aims.append(Aim(name, fleet.used / fleets[0].used, 0.9, at_least=True))
    return conclude(aims, {"fleets": [asdict(fleet) for fleet in fleets]}, given.json)


def measured(server: str, size: int, slots: int, tasks: int) -> Fleet:
    """One size, on a database of its own."""
    with (
        tempfile.TemporaryDirectory() as named,
        vendor(limit=slots, run_fixed_s=JOB_S, submit_qps=1000, poll_qps=1000) as at,
        database(server) as url,
    ):
        folder = Path(named)
        variables = environment(folder / "home", at, database_url=url, concurrency=f"fixed:{slots}")
        workers = [_started(folder, variables, number) for number in range(size)]
        eyes = Eyes(url, server, workers)
        try:
            _wait(lambda: eyes.ask("SELECT count(*) FROM workers") == size)
            time.sleep(SETTLED_S)
            rest = eyes.stretch(lambda passed: passed > REST_S)
            sheet = folder / "cats.csv"
            sheet.write_text("prompt\n" + "".join(f"cat {number}\n" for number in range(tasks)), "utf-8")
            command = [sys.executable, "-m", "dujiang", "run", sheet, "--no-work"]
            submitting = threading.Thread(target=output_of, args=(command, folder, variables))
            submitting.start()
            _wait(lambda: eyes.ask("SELECT count(*) FROM attempts") > 0)
            left = "SELECT count(*) FROM tasks WHERE state <> 'succeeded'"
            work = eyes.stretch(lambda passed: eyes.ask(left) == 0)  # four looks a second are ours
            submitting.join()
            seen = ledger(at)
        finally:
            eyes.close()
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            for worker in workers:
                worker.wait(60)
    return Fleet(size, slots, tasks, rest, work, len(seen["charges"]), seen["max_running_overall"])


def _started(folder: Path, variables: dict[str, str], number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dujiang", "worker", "--name", f"w{number}"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=variables, stdin=quiet, stdout=quiet, stderr=quiet)


def _wait(come_true: Any) -> None:
    give_up_at = time.monotonic() + STARTED_S
    while True:
        with contextlib.suppress(sa.exc.ProgrammingError):  # the first worker is making the tables
            if come_true():
                return
        if time.monotonic() > give_up_at:
            raise SystemExit("the fleet did not come to life")
        time.sleep(0.1)


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """A new one, for as long as the block lasts; its URL."""
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    name = f"dujiang_fleet_{secrets.token_hex(4)}"
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    try:
        yield url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))


if __name__ == "__main__":
    sys.exit(main())
