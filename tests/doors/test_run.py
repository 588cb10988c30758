"""`dujiang run`: rows in, pictures on disk, and an exit code that says how it went."""

import csv
import json

import pytest

from dujiang.simulator import RunningSimulator, SimulatorSettings, running

from .conftest import MakeVendor
from .studio import SCALE, Studio, eventually

POOL = "sim/jimeng_t2i_v40"


def prompts_of(vendor: RunningSimulator) -> list[str]:
    return sorted(job["prompt"] for job in vendor.ledger()["charges"])


# -- inputs


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_csv_is_read_however_excel_saved_it(studio: Studio, vendor: RunningSimulator, encoding: str) -> None:
    studio.write("货.csv", "编号,提示词", "A1,一只猫", "A2,一条河", encoding=encoding)

    told = studio.run("run", "货.csv")

    assert told.code == 0, told
    assert prompts_of(vendor) == ["一只猫", "一条河"]
    assert studio.pictures("货") == ["00001-A1.png", "00002-A2.png"]


def test_jsonl_text_and_a_pipe_are_inputs_too(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("lines.jsonl", json.dumps({"prompt": "from jsonl", "width": 2048, "height": 2048}))
    studio.write("plain.txt", "from text", "")

    codes = [
        studio.run("run", "lines.jsonl").code,
        studio.run("run", "plain.txt").code,
        studio.run("run", "-", stdin="来自管道\n".encode("gb18030")).code,
    ]

    assert codes == [0, 0, 0]
    assert prompts_of(vendor) == ["from jsonl", "from text", "来自管道"]
    assert len(studio.pictures("stdin")) == 1


def test_a_run_may_let_the_machine_sleep(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    assert studio.run("config", "get", "allow_sleep").out == "false\n"

    assert studio.run("run", "cats.csv", "--allow-sleep").code == 0


# -- the result


def test_the_json_object_has_the_fields_of_the_contract(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "b", "[sim:lost-answer] c")

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 8
    result = told.json
    assert {"batch", "state", "counts", "images", "in_doubt", "elapsed_s", "refused", "out"} <= result.keys()
    assert (result["batch"], result["state"]) == ("cats", "waiting_decision")
    assert result["counts"] == {"succeeded": 2, "in_doubt": 1}
    assert (result["images"], result["in_doubt"], result["refused"]) == (2, [3], 0)
    assert isinstance(result["elapsed_s"], float)
    assert result["out"] == str(studio.out / "cats")
    assert json.loads((studio.out / "cats" / "summary.json").read_text("utf-8")) == result


def test_the_result_says_how_fast_it_was_and_how_fast_it_could_have_been(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    make_vendor(run_fixed_s=20.0, queue_s=0.0)
    studio.sheet("cats.csv", *(f"cat {number}" for number in range(6)))

    result = studio.run("run", "cats.csv", "--concurrency", "fixed:2", "--json").json
    again = studio.run("run", "cats.csv", "--json").json

    assert 2 / 0.2 * 60 * 0.4 < result["possible_a_minute"] <= 2 / 0.2 * 60
    assert result["tasks_a_minute"] > 0
    assert result["rate_ratio"] == pytest.approx(result["tasks_a_minute"] / result["possible_a_minute"], abs=0.01)
    assert again["tasks_a_minute"] is None  # nothing was left to do


def test_all_succeeded_is_0_and_a_second_run_asks_for_nothing(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "b")
    assert studio.run("run", "cats.csv").code == 0

    again = studio.run("run", "cats.csv", "--json")

    assert again.code == 0
    assert "new 0, changed 0, same 2" in again.err
    assert again.json["counts"] == {"succeeded": 2}
    assert vendor.ledger()["submits"] == 2


def test_blocked_is_3_and_stays_3_without_being_asked_for_again(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "[sim:50412] b")

    codes = [studio.run("run", "cats.csv").code, studio.run("run", "cats.csv").code]

    assert codes == [3, 3]
    assert vendor.ledger()["submits"] == 2


def test_a_doubt_is_8_and_names_what_to_do(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "[sim:lost-answer] a")

    told = studio.run("run", "cats.csv")

    assert told.code == 8
    assert "dujiang resolve 1 resubmit | found JOB_ID | fail" in told.err
    assert vendor.ledger()["accepted"] == 1


def test_wrong_keys_are_4_at_once(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(VOLCENGINE_SECRET_KEY="d3Jvbmc=")
    studio.sheet("cats.csv", "a", "b", "c", "d", "e")

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 4
    assert "dujiang doctor" in told.err
    assert "SignatureDoesNotMatch" in told.err
    assert told.json["counts"] == {"ready": 5}
    assert vendor.ledger()["accepted"] == 0
    assert vendor.ledger()["submits"] <= 3  # fast: a wrong key is not tried for every row


def test_no_keys_are_4(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(VOLCENGINE_ACCESS_KEY=None)
    studio.sheet("cats.csv", "a")

    told = studio.run("run", "cats.csv")

    assert told.code == 4
    assert "VOLCENGINE_ACCESS_KEY" in told.err
    assert vendor.ledger()["submits"] == 0


def test_an_endpoint_that_is_not_there_is_6_within_30_seconds_and_nothing_is_lost(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    studio.sheet("cats.csv", "a", "b")

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 6
    assert told.json["elapsed_s"] <= 30 * SCALE + 2  # and what a start and an end take on a busy machine
    assert "run the same command" in told.err
    assert "http://127.0.0.1:9: ConnectError" in told.err
    make_vendor()
    assert studio.run("run", "cats.csv").code == 0


def test_an_input_without_tasks_is_9(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("empty.csv")
    studio.write("header.csv", "id,prompt")

    told = [studio.run("run", name) for name in ("empty.csv", "header.csv", "-")]

    assert [one.code for one in told] == [9, 9, 9]
    assert "holds no tasks" in told[0].err


# -- which batch it is


def test_a_changed_sheet_asks_only_for_what_is_new_or_changed(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "b", "c")
    studio.run("run", "cats.csv")

    studio.sheet("cats.csv", "a", "B", "c", "d")
    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 0
    assert "new 1, changed 1, same 2" in told.err
    assert told.json["counts"] == {"succeeded": 4}
    assert prompts_of(vendor) == ["B", "a", "b", "c", "d"]
    assert studio.pictures("cats") == [
        "00001-r1.png", "00002-r2-v2.png", "00002-r2.png", "00003-r3.png", "00004-r4.png",
    ]  # fmt: skip


def test_another_file_of_the_same_name_is_refused_and_changes_nothing(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("run", "cats.csv")
    (studio.folder / "other").mkdir()
    studio.sheet("other/cats.csv", "b")

    refused = studio.run("run", "other/cats.csv", "--on-doubt", "fail")
    named = studio.run("run", "other/cats.csv", "--name", "cats2")

    assert refused.code == 2
    assert "--name" in refused.err
    assert studio.run("batch", "show", "cats", "--json").json["on_doubt"] == "hold"
    assert named.code == 0
    assert prompts_of(vendor) == ["a", "b"]


def test_the_same_file_written_otherwise_is_the_same_batch(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("run", "cats.csv")

    told = studio.run("run", studio.folder / "." / "cats.csv", "--out", studio.folder / "x" / ".." / "dujiang-out")

    assert (told.code, vendor.ledger()["accepted"]) == (0, 1)


def test_a_folder_that_belongs_to_another_batch_is_refused(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("run", "cats.csv")

    told = studio.run("run", "cats.csv", "--home", studio.folder / "elsewhere")

    assert told.code == 2
    assert "--name" in told.err
    assert vendor.ledger()["accepted"] == 1
    assert studio.run("batch", "list", "--home", studio.folder / "elsewhere", "--json").out == ""


def test_failed_csv_continues_its_batch(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("cats.csv", "id,prompt,scale,force_single", "r1,a,0.5,是", "r2,[sim:50412] b,0.25,true")
    studio.run("run", "cats.csv")
    failed = studio.out / "cats" / "failed.csv"

    as_it_is = studio.run("run", failed, "--json")
    mended = failed.read_text("utf-8").replace("[sim:50412] b", "better")
    failed.write_text(mended, "utf-8")
    after = studio.run("run", failed, "--json")

    assert (as_it_is.code, "new 0, changed 0, same 1" in as_it_is.err) == (3, True)
    assert (after.code, "new 0, changed 1, same 0" in after.err) == (0, True)
    assert after.json["batch"] == "cats"
    assert after.json["counts"] == {"succeeded": 2}
    assert prompts_of(vendor) == ["a", "better"]
    with failed.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.DictReader(file)) == []


def test_failed_csv_takes_the_policy_of_its_own_command_line(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "[sim:50412] b")
    studio.run("run", "cats.csv")

    studio.run("run", studio.out / "cats" / "failed.csv", "--on-doubt", "resubmit:2")

    assert studio.run("batch", "show", "cats", "--json").json["on_doubt"] == "resubmit:2"


def test_failed_csv_of_a_batch_that_is_not_here_is_refused(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("failed.csv", "prompt,batch,row", "a,0123456789,r1")

    told = studio.run("run", "failed.csv")

    assert (told.code, "0123456789" in told.err, vendor.ledger()["submits"]) == (2, True, 0)


def test_two_runs_of_one_file_at_once_make_one_set_of_charges(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", *(f"cat {number}" for number in range(8)))

    told = [process.end() for process in [studio.start("run", "cats.csv", "--json") for _ in range(2)]]

    assert [one.code for one in told] == [0, 0], told
    assert [one.json["counts"] for one in told] == [{"succeeded": 8}] * 2
    assert vendor.ledger()["accepted"] == 8
    assert len(studio.pictures("cats")) == 8


# -- flags


def test_retry_failed_makes_the_failed_ones_again(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "[sim:poll:50500 once] b", "[sim:50412] c", "[sim:50215] d")
    assert studio.run("run", "cats.csv").code == 3
    before = vendor.ledger()["submits"]

    told = studio.run("run", "cats.csv", "--retry-failed")

    assert told.code == 3
    assert "new tasks: 1" in told.err
    assert vendor.ledger()["submits"] == before + 1  # the failed one; never what moderation blocked


def test_skip_invalid_does_the_others_and_without_it_nothing_is_sent(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a", "", "c")

    refused = studio.run("run", "cats.csv")
    sent = vendor.ledger()["submits"]
    done = studio.run("run", "cats.csv", "--skip-invalid")

    assert (refused.code, sent) == (2, 0)
    assert "row 3" in refused.err
    assert "--skip-invalid" in refused.err
    assert done.code == 0
    assert prompts_of(vendor) == ["a", "c"]


@pytest.mark.parametrize(
    ("policy", "code", "accepted", "state"),
    [("resubmit:1", 0, 2, "succeeded"), ("fail", 3, 1, "failed"), ("hold", 8, 1, "in_doubt")],
)
def test_on_doubt_decides_beforehand(
    studio: Studio, vendor: RunningSimulator, policy: str, code: int, accepted: int, state: str
) -> None:
    studio.sheet("cats.csv", "[sim:lost-answer] a")

    told = studio.run("run", "cats.csv", "--on-doubt", policy, "--json")

    assert told.code == code
    assert told.json["counts"] == {state: 1}
    assert vendor.ledger()["accepted"] == accepted


def test_the_concurrency_is_kept_at_the_vendor_and_remembered(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", *"abcd")
    studio.sheet("dogs.csv", *"abcd")

    studio.run("run", "cats.csv", "--concurrency", "fixed:1")
    first = vendor.ledger()["max_running"]
    vendor.reset()
    studio.run("run", "dogs.csv")
    second = vendor.ledger()["max_running"]
    vendor.reset()
    studio.sheet("birds.csv", *"abcdefgh")
    studio.run("run", "birds.csv", "--concurrency", "fixed:4")

    assert (first, second) == ({POOL: 1}, {POOL: 1})
    assert vendor.ledger()["max_running"] == {POOL: 4}


def test_the_model_of_rows_that_name_none(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("cats.csv", "id,prompt,seed", "r1,a,7")

    told = studio.run("run", "cats.csv", "--model", "3.1")

    assert told.code == 0
    assert vendor.ledger()["charges"][0]["req_key"] == "jimeng_t2i_v31"


def test_give_up_after_ends_a_run_whose_vendor_went_away(studio: Studio) -> None:
    studio.sheet("cats.csv", "a", "b")
    with running(SimulatorSettings(time_scale=SCALE, run_fixed_s=100_000)) as vendor:
        studio.use(vendor)
        process = studio.start("run", "cats.csv", "--give-up-after", "40", "--json")
        eventually(lambda: len(studio.charged(vendor)) == 2)

    told = process.end()

    assert told.code == 6
    assert told.json["counts"] == {"generating": 2}
    assert "run the same command" in told.err


def test_a_paused_batch_says_how_to_go_on(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "[sim:50412] a")
    studio.run("run", "cats.csv")
    studio.run("batch", "pause", "cats")

    told = studio.run("run", "cats.csv")

    assert "dujiang batch resume cats" in told.err


def test_reports_that_cannot_be_written_do_not_hide_the_result(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    (studio.out / "cats" / "failed.csv").mkdir(parents=True)  # as good as one that Excel holds

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 2
    assert told.json["counts"] == {"succeeded": 1}
    assert "failed.csv" in told.err
