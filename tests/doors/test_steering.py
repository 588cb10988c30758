"""Batches and tasks: seeing them, pausing, cancelling, retrying, and deciding about doubts."""

import pytest

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import Studio, eventually

TASK_FIELDS = {
    "id", "batch", "state", "reason", "prompt", "attempt", "account", "lane", "job_id", "priority", "created_at",
    "files",
}  # fmt: skip


@pytest.fixture
def mixed(studio: Studio, vendor: RunningSimulator) -> RunningSimulator:
    """A batch of five: two succeeded (1, 2), one blocked (3), one failed (4), one in doubt (5)."""
    studio.sheet("cats.csv", "a", "b", "[sim:50412] c", "[sim:50215] d", "[sim:lost-answer] e")
    assert studio.run("run", "cats.csv").code == 8
    return vendor


# -- batches


def test_batches_are_listed_and_shown(studio: Studio, mixed: RunningSimulator) -> None:
    listed = studio.run("batch", "list", "--json").lines
    shown = studio.run("batch", "show", "cats", "--json").json

    assert [batch["batch"] for batch in listed] == ["cats"]
    assert shown["state"] == "waiting_decision"
    assert shown["counts"] == {"succeeded": 2, "blocked": 1, "failed": 1, "in_doubt": 1}
    assert (shown["images"], shown["refused"], shown["in_doubt"]) == (2, 2, [5])
    assert studio.run("batch", "show", shown["id"]).code == 0


def test_a_batch_is_shown_to_a_person_in_his_language(studio: Studio, mixed: RunningSimulator) -> None:
    english = studio.run("batch", "show", "cats")
    chinese = studio.run("--lang", "zh", "batch", "show", "cats")

    assert "waiting for a decision" in english.out
    assert "dujiang resolve 5" in english.err
    assert "等待决定" in chinese.out
    assert "存疑任务" in chinese.out


def test_a_batch_that_does_not_exist_and_one_that_exists_twice(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("run", "cats.csv")
    studio.run("run", "cats.csv", "--out", "other")

    unknown = studio.run("batch", "show", "dogs")
    twice = studio.run("batch", "show", "cats")

    assert (unknown.code, "dujiang batch list" in unknown.err) == (2, True)
    assert (twice.code, "use the id" in twice.err) == (2, True)


def test_no_batches_yet(studio: Studio) -> None:
    told = studio.run("batch", "list")

    assert (told.code, told.out) == (0, "")
    assert "no batches" in told.err


def test_a_paused_batch_submits_nothing_until_it_is_resumed(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=20.0)
    studio.sheet("cats.csv", *"abcd")
    process = studio.start("run", "cats.csv", "--concurrency", "fixed:1")
    eventually(lambda: vendor.ledger()["accepted"] == 1)

    assert studio.run("batch", "pause", "cats").code == 0
    process.until("paused(batch)")
    while_paused = studio.run("batch", "show", "cats", "--json").json
    accepted = vendor.ledger()["accepted"]
    assert studio.run("batch", "resume", "cats").code == 0

    assert process.end().code == 0
    assert (while_paused["paused"], while_paused["state"]) == (True, "paused")
    assert accepted < 4
    assert vendor.ledger()["accepted"] == 4


def test_a_cancelled_batch_drops_what_waits_and_asks_for_what_runs(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(queue_s=1e6)  # a job can be taken back as long as it has not begun
    studio.sheet("cats.csv", *"abcd")
    process = studio.start("run", "cats.csv", "--concurrency", "fixed:1", "--json")
    eventually(lambda: len(studio.charged(vendor)) == 1)

    told = studio.run("batch", "cancel", "cats")

    assert told.code == 0
    assert "cancelled 3, asked to cancel 1" in told.err
    ended = process.end()
    assert ended.json["counts"] == {"cancelled": 4}
    assert (vendor.ledger()["accepted"], vendor.ledger()["charged"]) == (1, 0)


# -- tasks


def test_a_task_on_a_line_has_the_fields_of_the_contract(studio: Studio, mixed: RunningSimulator) -> None:
    tasks = studio.run("tasks", "list", "--json").lines

    assert [task["id"] for task in tasks] == [1, 2, 3, 4, 5]
    assert all(task.keys() >= TASK_FIELDS for task in tasks)
    assert [task["state"] for task in tasks] == ["succeeded", "succeeded", "blocked", "failed", "in_doubt"]
    (file,) = tasks[0]["files"]
    assert file.keys() >= {"path", "sha256", "bytes", "width", "height"}
    assert (studio.out / "cats" / "images" / file["path"]).stat().st_size == file["bytes"]
    assert tasks[2]["error"]["code"] == "50412"
    assert tasks[4]["reason"] == "doubt"


def test_tasks_come_in_pages(studio: Studio, mixed: RunningSimulator) -> None:
    first = studio.run("tasks", "list", "--limit", "2")
    pages = [studio.run("tasks", "list", "--limit", "2", "--after", str(after), "--json").lines for after in (0, 2, 4)]

    assert "--after 2" in first.err
    assert [[task["id"] for task in page] for page in pages] == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--state", "blocked", "--state", "failed"], [3, 4]),
        (["--code", "50412"], [3]),
        (["--batch", "cats", "--state", "succeeded"], [1, 2]),
        (["--state", "cancelled"], []),
    ],
)
def test_tasks_are_filtered(studio: Studio, mixed: RunningSimulator, filters: list[str], ids: list[int]) -> None:
    assert [task["id"] for task in studio.run("tasks", "list", "--json", *filters).lines] == ids


def test_every_waiting_task_says_why(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=1e6)
    studio.sheet("cats.csv", "a", "b", "c")
    process = studio.start("run", "cats.csv", "--concurrency", "fixed:1")
    eventually(lambda: len(studio.charged(vendor)) == 1)

    def reasons() -> list[str | None]:
        return [task["reason"] for task in studio.run("tasks", "list", "--json").lines]

    running = reasons()
    process.interrupt()
    process.until("stopping")
    process.interrupt()
    process.end()
    stopped = reasons()
    studio.run("batch", "pause", "cats")
    paused = reasons()

    assert running == [None, *["slot(default/jimeng_t2i_v40, 1/1)"] * 2]
    assert stopped == [None, *["worker(none running)"] * 2]
    assert paused == [None, *["paused(batch)"] * 2]


def test_a_task_is_shown_with_its_history(studio: Studio, mixed: RunningSimulator) -> None:
    task = studio.run("tasks", "show", "5", "--json").json
    for_a_person = studio.run("--lang", "zh", "tasks", "show", "1")

    assert task.keys() >= TASK_FIELDS | {"events", "attempts"}
    assert [event["type"] for event in task["events"]] == ["Claimed", "Unanswered"]
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["in_doubt"]
    assert for_a_person.code == 0
    assert "完成，已计费" in for_a_person.out
    assert "force_single=true" in for_a_person.out
    assert studio.run("tasks", "show", "99").code == 2


def test_tasks_are_cancelled_by_id(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "b")
    studio.use("http://127.0.0.1:9")
    studio.run("run", "cats.csv")

    waiting = studio.run("tasks", "cancel", "1", "2")
    over = studio.run("tasks", "cancel", "1")
    unknown = studio.run("tasks", "cancel", "99")

    assert (waiting.code, "cancelled 2" in waiting.err) == (0, True)
    assert (over.code, "refused 1" in over.err) == (2, True)
    assert (unknown.code, "tasks that do not exist: 1" in unknown.err) == (2, True)


def test_retry_makes_new_tasks_and_says_how_they_are_run(studio: Studio, mixed: RunningSimulator) -> None:
    by_reason = studio.run("tasks", "retry", "--batch", "cats", "--code", "50412")
    succeeded = studio.run("tasks", "retry", "1")
    again = studio.run("tasks", "retry", "1", "--again")
    nothing = studio.run("tasks", "retry")
    before = mixed.ledger()["submits"]
    studio.run("run", "cats.csv")

    assert (by_reason.code, "new tasks: 1" in by_reason.err, "dujiang run" in by_reason.err) == (0, True, True)
    assert succeeded.code == 2
    assert again.code == 0
    assert nothing.code == 2
    assert mixed.ledger()["submits"] == before + 2
    assert {task["retry_of"] for task in studio.run("tasks", "list", "--json").lines} == {None, 1, 3}
    assert "00001-r1-v2.png" in studio.pictures("cats")


# -- doubts


def test_a_doubt_is_resubmitted(studio: Studio, mixed: RunningSimulator) -> None:
    told = studio.run("resolve", "5", "resubmit")
    after = studio.run("run", "cats.csv", "--json")

    assert (told.code, "submitted again" in told.err) == (0, True)
    assert after.json["counts"] == {"succeeded": 3, "blocked": 1, "failed": 1}
    assert mixed.ledger()["charged"] == 4


def test_a_doubt_whose_job_was_found_is_collected_without_a_second_charge(
    studio: Studio, mixed: RunningSimulator
) -> None:
    job = next(job for job in mixed.ledger()["charges"] if "lost-answer" in job["prompt"])

    told = studio.run("resolve", "5", "found", job["task_id"])
    after = studio.run("run", "cats.csv", "--json")

    assert (told.code, "collected" in told.err) == (0, True)
    assert after.json["counts"] == {"succeeded": 3, "blocked": 1, "failed": 1}
    assert mixed.ledger()["accepted"] == 3


def test_a_doubt_is_given_up(studio: Studio, mixed: RunningSimulator) -> None:
    assert studio.run("resolve", "5", "fail").code == 0

    after = studio.run("run", "cats.csv", "--json")
    assert (after.code, after.json["counts"]["failed"]) == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["1", "resubmit"], "not in doubt"),
        (["5", "found"], "task_id"),
        (["5", "fail", "123"], "task_id"),
        (["99", "fail"], "no task 99"),
        (["5", "perhaps"], "resubmit, found, fail"),
    ],
)
def test_a_decision_that_cannot_be(studio: Studio, mixed: RunningSimulator, arguments: list[str], words: str) -> None:
    told = studio.run("resolve", *arguments)

    assert (told.code, words in told.err) == (2, True), told
    assert studio.run("batch", "show", "cats", "--json").json["in_doubt"] == [5]
