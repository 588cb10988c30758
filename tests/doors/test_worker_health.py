"""`dujiang worker` and who asks whether it lives."""

import platform
import signal
import sqlite3
from contextlib import closing

from dujiang.simulator import RunningSimulator

from .studio import Studio, needs_signals


@needs_signals
def test_a_health_check_is_told_whether_the_worker_of_this_folder_lives(
    studio: Studio, vendor: RunningSimulator
) -> None:
    before = studio.run("workers", "check")
    process = studio.start("worker", "--name", "one", DUJIANG_LEASE=3600)
    process.until("works")

    lives, named, other = (studio.run("workers", "check", *name) for name in ([], ["one"], ["two"]))
    process.interrupt(signal.SIGTERM)
    ended = process.end()
    after = studio.run("workers", "check")

    assert (before.code, lives.code, named.code, other.code, after.code) == (1, 0, 0, 1, 1)
    assert "no such worker" in before.err
    assert ended.code == 7


@needs_signals
def test_of_two_workers_of_one_folder_the_one_is_well_that_works(studio: Studio, vendor: RunningSimulator) -> None:
    """The image's health check relies on the name: containers of one machine share a home folder."""
    one, two = (studio.start("worker", DUJIANG_LEASE=3600) for _ in "12")
    for process in (one, two):
        process.until("works")
    one.interrupt(signal.SIGTERM)
    one.end()

    here = platform.node()
    well = [studio.run("workers", "check", f"{here}-{each.process.pid}").code for each in (one, two)]
    two.interrupt(signal.SIGTERM)
    two.end()

    assert well == [1, 0]


def test_a_worker_that_is_silent_for_its_lease_is_not_well(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(DUJIANG_TIME_SCALE=1)
    studio.run("batch", "list")
    (studio.home / "workers").mkdir(exist_ok=True)
    (studio.home / "workers" / "machine").write_text("m")
    with closing(sqlite3.connect(studio.home / "dujiang.db")) as connection:
        connection.execute(
            "INSERT INTO workers (id, machine, pid, started_at, seen_at, name)"
            " VALUES ('w', 'm', 1, 0, strftime('%s') - 40, 'one')"
        )
        connection.commit()

    silent = studio.run("workers", "check")
    studio.set(DUJIANG_LEASE=60)

    assert (silent.code, studio.run("workers", "check").code) == (1, 0)
    assert "one has been silent for 4" in silent.err
