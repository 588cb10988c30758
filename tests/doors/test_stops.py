"""Ctrl-C, SIGTERM and kill -9: whatever stops a run, nothing is lost and nothing is paid twice. Real processes."""

import signal

import httpx2
import pytest

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import Studio, Typed, eventually, needs_signals

pytestmark = needs_signals

FOREVER_S = 1e6


@pytest.fixture
def slow(make_vendor: MakeVendor) -> RunningSimulator:
    """A vendor whose jobs end when the test says so."""
    return make_vendor(run_fixed_s=FOREVER_S)


def a_run_with_two_jobs(studio: Studio, vendor: RunningSimulator, *flags: str) -> Typed:
    studio.sheet("cats.csv", "a", "b", "c", "d")
    process = studio.start("run", "cats.csv", "--concurrency", "fixed:2", "--json", *flags)
    eventually(lambda: len(studio.charged(vendor)) == 2)
    return process


def finish_jobs(vendor: RunningSimulator) -> None:
    vendor.configure(run_fixed_s=1.0)
    for job in vendor.ledger()["charges"]:
        httpx2.post(f"{vendor.url}/_sim/jobs/{job['task_id']}/finish", trust_env=False).raise_for_status()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_once_it_finishes_what_runs(studio: Studio, slow: RunningSimulator, number: int) -> None:
    process = a_run_with_two_jobs(studio, slow)

    process.interrupt(number)
    process.until("running jobs finish")
    finish_jobs(slow)
    told = process.end()

    assert told.code == 7, told
    assert told.json["counts"] == {"succeeded": 2, "ready": 2}
    assert "run the same command" in told.err
    assert studio.run("run", "cats.csv", "--json").json["counts"] == {"succeeded": 4}
    assert slow.ledger()["accepted"] == 4


def test_stopped_twice_it_leaves_now_and_the_next_run_collects(studio: Studio, slow: RunningSimulator) -> None:
    process = a_run_with_two_jobs(studio, slow)

    process.interrupt()
    process.until("stopping")
    process.interrupt()
    told = process.end()

    assert told.code == 7
    assert told.json["counts"] == {"generating": 2, "ready": 2}
    finish_jobs(slow)
    again = studio.run("run", "cats.csv", "--json")
    assert (again.code, again.json["counts"]) == (0, {"succeeded": 4})
    assert slow.ledger()["accepted"] == 4


def test_a_quick_exit_leaves_running_jobs_to_the_next_run(studio: Studio, slow: RunningSimulator) -> None:
    process = a_run_with_two_jobs(studio, slow, "--quick-exit")

    process.interrupt()
    told = process.end()

    assert told.code == 7
    assert "left to the next run" in told.err
    assert told.json["counts"] == {"generating": 2, "ready": 2}
    finish_jobs(slow)
    assert studio.run("run", "cats.csv").code == 0
    assert slow.ledger()["accepted"] == 4


def test_killed_and_started_again_it_completes(studio: Studio, slow: RunningSimulator) -> None:
    process = a_run_with_two_jobs(studio, slow)

    process.interrupt(signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    finish_jobs(slow)
    told = studio.run("run", "cats.csv", "--json")

    assert (told.code, told.json["counts"]) == (0, {"succeeded": 4})
    assert slow.ledger()["accepted"] == 4


def test_stopped_in_the_middle_of_a_submit_it_waits_for_the_answer(studio: Studio, slow: RunningSimulator) -> None:
    studio.sheet("cats.csv", "[sim:lost-answer-hang] a")
    process = studio.start("run", "cats.csv", "--quick-exit", DUJIANG_SUBMIT_TIMEOUT=2)
    eventually(lambda: slow.ledger()["accepted"] == 1)

    process.interrupt()

    assert process.end().code == 7
    assert studio.rows("SELECT state FROM tasks") == [("in_doubt",)]


def test_interrupted_while_it_reads_its_input_it_says_so(studio: Studio, slow: RunningSimulator) -> None:
    process = studio.start("run", "-", keyboard=True)
    process.type("a\n")
    eventually(process.waits_for_input)

    process.interrupt()
    told = process.end()

    assert (told.code, "Traceback" in told.err) == (7, False), told
    assert slow.ledger()["submits"] == 0
