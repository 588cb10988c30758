"""Workers for every batch, beside runs that only submit or watch: real processes on one database file."""

import json
import signal
from collections import Counter

import pytest

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import Studio, Typed, eventually, needs_signals

pytestmark = needs_signals
FOREVER_S = 1e6


@pytest.fixture
def vendor(make_vendor: MakeVendor, studio: Studio) -> RunningSimulator:
    vendor = make_vendor(run_fixed_s=2.0, queue_s=0.0, limit=3)
    studio.use(vendor)
    return vendor


def workers(studio: Studio, *names: str, **flags: int) -> list[Typed]:
    """Started, and at work."""
    words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
    started = [studio.start("worker", "--name", name, *words) for name in names]
    for worker in started:
        worker.until("Ctrl-C")
    return started


def leave(worker: Typed) -> None:
    """At once, whatever runs."""
    worker.interrupt()
    worker.until("stopping")
    worker.interrupt()
    assert worker.end().code == 7


def paid_once(vendor: RunningSimulator, tasks: int) -> bool:
    prompts = Counter(job["prompt"] for job in vendor.ledger()["charges"])
    return len(prompts) == tasks and set(prompts.values()) == {1}


def test_two_workers_bring_two_batches_home_that_nobody_else_works_on(studio: Studio, vendor: RunningSimulator) -> None:
    cats = studio.sheet("cats.csv", *(f"cat {n}" for n in range(12)))
    dogs = studio.sheet("dogs.csv", *(f"dog {n}" for n in range(12)))
    for sheet in (cats, dogs):
        assert studio.run("run", sheet, "--no-work").code == 0
    assert vendor.ledger()["submits"] == 0

    both = workers(studio, "one", "two")
    told = studio.run("run", cats, "--watch", "--json")
    assert (told.code, told.json["counts"]) == (0, {"succeeded": 12})
    assert studio.run("run", dogs, "--watch").code == 0
    for worker in both:
        worker.interrupt()
        assert worker.end().code == 7

    assert paid_once(vendor, 24)
    assert max(vendor.ledger()["max_running"].values()) == 3
    for batch in ("cats", "dogs"):
        assert len(studio.pictures(batch)) == 12
        summary = json.loads((studio.out / batch / "summary.json").read_text("utf-8"))
        assert summary["counts"] == {"succeeded": 12}


def test_two_runs_and_two_workers_at_once_on_one_file_keep_its_promises(
    studio: Studio, vendor: RunningSimulator
) -> None:
    """Four processes, each of which submits."""
    both = workers(studio, "one", "two")
    names = ("cats", "dogs")
    runs = [
        studio.start("run", studio.sheet(f"{name}.csv", *(f"{name} {n}" for n in range(15))), "--json")
        for name in names
    ]
    ends = [run.end() for run in runs]
    for worker in both:
        worker.interrupt()
        assert worker.end().code == 7

    assert [(end.code, end.json["counts"]) for end in ends] == [(0, {"succeeded": 15})] * 2
    assert paid_once(vendor, 30)
    assert max(vendor.ledger()["max_running"].values()) == 3
    assert [len(studio.pictures(name)) for name in names] == [15, 15]
    assert len(studio.rows("SELECT DISTINCT worker FROM attempts")) > 2, "runs and workers had parts of it"


def test_a_worker_alone_writes_the_reports_of_a_batch_that_is_over(studio: Studio, vendor: RunningSimulator) -> None:
    sheet = studio.sheet("cats.csv", *(f"cat {n}" for n in range(4)))
    (worker,) = workers(studio, "one")
    studio.run("run", sheet, "--no-work")

    worker.until("cats")
    eventually((studio.out / "cats" / "summary.json").is_file)
    worker.interrupt()

    assert worker.end().code == 7
    assert len((studio.out / "cats" / "manifest.jsonl").read_text("utf-8").splitlines()) == 4


def test_workers_list_says_who_works_on_how_much(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=FOREVER_S, queue_s=0.0)
    studio.use(vendor)
    studio.set(DUJIANG_CONCURRENCY="fixed:5")
    assert studio.run("workers", "list").code == 0
    studio.run("run", studio.sheet("cats.csv", *(f"cat {n}" for n in range(9))), "--no-work")
    both = workers(studio, "one", "two", max_jobs=2)

    eventually(lambda: vendor.ledger()["accepted"] == 4)
    found = {line["name"]: line for line in studio.run("workers", "list", "--json").lines}
    assert {name: line["jobs"] for name, line in found.items()} == {"one": 2, "two": 2}
    assert all(line["version"] and line["pid"] and line["silent_s"] < 60 for line in found.values())
    assert "one" in studio.run("workers", "list").out
    assert vendor.ledger()["accepted"] == 4, "two slots are free, and no worker may have more"

    for worker in both:
        leave(worker)
    assert studio.run("workers", "list", "--json").lines == []


def test_a_killed_workers_jobs_are_collected_by_the_other(studio: Studio, vendor: RunningSimulator) -> None:
    studio.run("run", studio.sheet("cats.csv", *(f"cat {n}" for n in range(20))), "--no-work")
    one, _other = workers(studio, "one", "two")
    eventually(lambda: vendor.ledger()["accepted"] >= 5)
    one.interrupt(signal.SIGKILL)
    one.end()

    told = studio.run("run", studio.folder / "cats.csv", "--watch", "--json")

    states = told.json["counts"]
    assert sum(states.values()) == 20
    assert set(states) <= {"succeeded", "in_doubt"}
    assert all(count == 1 for count in Counter(job["prompt"] for job in vendor.ledger()["charges"]).values())


def test_a_batch_that_is_watched_can_be_left_and_goes_on(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=FOREVER_S, queue_s=0.0, limit=2)
    studio.use(vendor)
    (worker,) = workers(studio, "one")
    watching = studio.start("run", studio.sheet("cats.csv", "cat 1", "cat 2"), "--watch")
    eventually(lambda: vendor.ledger()["accepted"] == 2)

    watching.interrupt()

    assert watching.end().code == 7
    assert vendor.ledger()["running"], "its worker has it in hand"
    leave(worker)
