"""Sharing what is scarce, as a user steers it: accounts, pauses, budgets, priorities, programs beside each other."""

import json
import re
from collections import Counter
from collections.abc import Collection

import httpx2
import pytest
from rich.cells import cell_len

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import ACCESS_KEY, SECRET_KEY, Studio, Typed, eventually, needs_signals

FOREVER_S = 1e6
KEYS = {"one": ("AKLTone", "c2VjcmV0LW9uZQ=="), "two": ("AKLTtwo", "c2VjcmV0LXR3bw==")}
ACCOUNT_FIELDS = {
    "account", "state", "reason", "message", "next_look_in_s", "in_use", "images_today", "daily_images", "keys",
    "models", "lanes",
}  # fmt: skip


@pytest.fixture
def slow(make_vendor: MakeVendor) -> RunningSimulator:
    """A vendor whose jobs end when the test says so."""
    return make_vendor(run_fixed_s=FOREVER_S, queue_s=0.0)


def use_two_accounts(studio: Studio, make_vendor: MakeVendor, **more: object) -> RunningSimulator:
    """One and two, and a vendor whose jobs end when the test says so."""
    vendor = make_vendor(run_fixed_s=FOREVER_S, queue_s=0.0, accounts={a: (s, name) for name, (a, s) in KEYS.items()})
    entries = [{"name": name, "access_key": access, "secret_key": secret} for name, (access, secret) in KEYS.items()]
    studio.set(DUJIANG_ACCOUNTS=json.dumps([entry | more for entry in entries]), DUJIANG_CONCURRENCY="fixed:1")
    return vendor


def finish(vendor: RunningSimulator, *, account: str = "") -> None:
    """End what runs now; what comes later runs for as long as before."""
    for job in vendor.ledger()["charges"]:
        if job["outcome"] is None and account in {"", job["account"]}:
            httpx2.post(f"{vendor.url}/_sim/jobs/{job['task_id']}/finish", trust_env=False).raise_for_status()


def finish_all(vendor: RunningSimulator) -> None:
    """From now on nothing takes long."""
    vendor.configure(run_fixed_s=1.0)
    finish(vendor)


def finish_oldest(vendor: RunningSimulator) -> None:
    """One slot is free, and taken again as soon as the vendor has another job."""
    before = vendor.ledger()
    oldest = next(job for job in before["charges"] if job["outcome"] is None)
    httpx2.post(f"{vendor.url}/_sim/jobs/{oldest['task_id']}/finish", trust_env=False).raise_for_status()
    until_accepted(vendor, before["accepted"] + 1)


def until_accepted(vendor: RunningSimulator, count: int) -> None:
    """Until the vendor has taken so many in all."""
    eventually(lambda: vendor.ledger()["accepted"] == count)


def submitted(vendor: RunningSimulator) -> list[str]:
    """First words of the prompts, in the order in which the vendor took them."""
    return [job["prompt"].split()[0] for job in vendor.ledger()["charges"]]


def running(vendor: RunningSimulator) -> Counter[str]:
    """Jobs that run at the vendor, by account."""
    return Counter(job["account"] for job in vendor.ledger()["charges"] if job["outcome"] is None)


def paid_once(vendor: RunningSimulator) -> bool:
    prompts = [job["prompt"] for job in vendor.ledger()["charges"]]
    return len(prompts) == len(set(prompts))


def a_sheet(studio: Studio, word: str, count: int) -> None:
    studio.sheet(f"{word}.csv", *(f"{word} {number}" for number in range(1, count + 1)))


def reasons(studio: Studio, *states: str, batch: str | None = None) -> set[str | None]:
    """Why tasks in one of these states wait."""
    words = [word for state in states or ("ready",) for word in ("--state", state)]
    words += ["--batch", batch] if batch else []
    return {task["reason"] for task in studio.run("tasks", "list", "--json", *words).lines}


def account(studio: Studio, name: str) -> dict[str, object]:
    return next(line for line in studio.run("accounts", "list", "--json").lines if line["account"] == name)


def stands_in_line(studio: Studio, batches: Collection[str]) -> bool:
    """Whether programs wait for a lane for all of these batches."""
    found = studio.rows("SELECT b.name FROM lines l JOIN batches b ON b.id = l.batch_id")
    return {name for (name,) in found} >= set(batches)


def start(studio: Studio, word: str, *flags: str) -> Typed:
    return studio.start("run", f"{word}.csv", "--json", *flags)


# -- accounts: seeing and testing them --------------------------------------------------------------------------------


def test_accounts_are_listed_before_and_after_they_are_used(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = use_two_accounts(studio, make_vendor, daily_images=50)
    before = studio.run("accounts", "list", "--json")
    finish_all(vendor)
    a_sheet(studio, "cat", 6)
    studio.run("run", "cat.csv")

    after = studio.run("accounts", "list", "--json")
    table = studio.run("accounts", "list")

    for listed in (before.lines, after.lines):
        assert [line["account"] for line in listed] == ["one", "two"]
        assert all(line.keys() == ACCOUNT_FIELDS for line in listed)
        assert {line["state"] for line in listed} == {"active"}
    assert sum(line["images_today"] for line in after.lines) == 6
    assert f"{after.lines[0]['images_today']}/50" in table.out
    assert studio.run("--lang", "zh", "accounts", "list").out.count("可用") == 2


def test_a_job_that_runs_is_seen_at_its_account(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = use_two_accounts(studio, make_vendor)
    a_sheet(studio, "cat", 3)
    process = start(studio, "cat")
    eventually(lambda: running(vendor) == {"one": 1, "two": 1})

    assert (account(studio, "one")["in_use"], account(studio, "one")["lanes"]) == (1, {"jimeng_t2i_v40": 1})

    finish_all(vendor)
    assert process.end().code == 0


def test_good_keys_are_told_by_their_fingerprints_alone(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = use_two_accounts(studio, make_vendor)

    told, one = studio.run("accounts", "test", "--json"), studio.run("accounts", "test", "one")
    listed = studio.run("accounts", "list", "--json")

    assert (told.code, [line["ok"] for line in told.lines]) == (0, [True, True])
    assert all(line.keys() == {"account", "key", "ok", "refused", "network", "skew_s"} for line in told.lines)
    assert [line["keys"] for line in listed.lines] == [[line["key"]] for line in told.lines]
    assert (one.code, one.err) == (0, f"key {told.lines[0]['key'][:8]} of account one is accepted\n")
    said = told.everything + one.everything + listed.everything + studio.run("accounts", "list").everything
    assert [word for key in KEYS.values() for word in key if word in said] == []
    assert vendor.ledger()["submits"] == 0


def test_a_wrong_key_is_4_and_says_which(studio: Studio, make_vendor: MakeVendor) -> None:
    use_two_accounts(studio, make_vendor)
    wrong = [{"name": name, "access_key": access, "secret_key": "d3Jvbmc="} for name, (access, _) in KEYS.items()]
    right = {"name": "right", "access_key": KEYS["two"][0], "secret_key": KEYS["two"][1]}
    studio.set(DUJIANG_ACCOUNTS=json.dumps([wrong[0], right]))

    told, right_one = studio.run("accounts", "test", "--json"), studio.run("accounts", "test", "right")
    for_a_person = studio.run("--lang", "zh", "accounts", "test")

    assert (told.code, [line["ok"] for line in told.lines], right_one.code) == (4, [False, True], 0)
    assert "SignatureDoesNotMatch" in told.lines[0]["refused"]
    assert "账号 one 的密钥" in for_a_person.err
    assert "d3Jvbmc=" not in told.everything + for_a_person.everything


def test_an_endpoint_that_is_away_is_6_and_no_key_is_blamed(studio: Studio) -> None:
    told = studio.run("accounts", "test", "--json")

    assert told.code == 6
    assert (told.lines[0]["ok"], told.lines[0]["refused"]) == (False, None)
    assert told.lines[0]["network"]
    assert "can't be reached" in studio.run("accounts", "test").err


@needs_signals
def test_an_account_for_models_that_nobody_knows_can_be_tested_and_takes_nothing(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    vendor = use_two_accounts(studio, make_vendor, models=["9.9"])
    a_sheet(studio, "cat", 1)
    process = start(studio, "cat")

    process.until("slot(none)")
    tested = studio.run("accounts", "test").code
    process.interrupt()

    assert (tested, process.end().code, vendor.ledger()["submits"]) == (0, 7, 0)


def test_no_accounts_are_nothing_to_list_and_4_to_test(studio: Studio) -> None:
    studio.set(VOLCENGINE_ACCESS_KEY=None, VOLCENGINE_SECRET_KEY=None)

    listed, tested = studio.run("accounts", "list"), studio.run("accounts", "test")

    assert (listed.code, listed.out, "dujiang init" in listed.err) == (0, "", True)
    assert (tested.code, "dujiang init" in tested.err) == (4, True)


def test_an_account_that_was_refused_rests_until_its_key_is_tested_well(
    studio: Studio, vendor: RunningSimulator
) -> None:
    studio.set(VOLCENGINE_SECRET_KEY="d3Jvbmc=", DUJIANG_TIME_SCALE=1)  # a rest that lasts as long as the test
    a_sheet(studio, "cat", 2)
    assert studio.run("run", "cat.csv").code == 4
    resting, refused = account(studio, "default"), studio.run("accounts", "test").code
    still = account(studio, "default")["state"]

    studio.set(VOLCENGINE_SECRET_KEY=SECRET_KEY)
    accepted = studio.run("accounts", "test").code

    assert (resting["state"], resting["reason"]) == ("resting", "account(auth)")
    assert "SignatureDoesNotMatch" in str(resting["message"])
    assert resting["next_look_in_s"] is not None
    assert (refused, still, accepted) == (4, "resting", 0)
    assert account(studio, "default")["state"] == "active"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_in_a_narrow_terminal_only_the_reason_is_cut(
    studio: Studio, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch, lang: str
) -> None:
    studio.set(VOLCENGINE_SECRET_KEY="d3Jvbmc=", DUJIANG_TIME_SCALE=1)
    a_sheet(studio, "cat", 1)
    studio.run("run", "cat.csv")
    into_a_file = studio.run("--lang", lang, "accounts", "list").out.splitlines()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")

    shown = re.sub(r"\x1b\[[0-9;]*m", "", studio.run("--lang", lang, "accounts", "list").out).splitlines()

    assert into_a_file[0].split() == shown[0].split()
    assert "account(auth)" in shown[1]
    assert shown[1].count("…") == 1
    assert max(cell_len(line) for line in shown) <= 80


# -- accounts: stopping them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "at_first", "at_last"), [("pause", "paused", "paused"), ("drain", "draining", "drained")]
)
def test_one_of_two_accounts_is_stopped_while_a_run_works(
    studio: Studio, make_vendor: MakeVendor, command: str, at_first: str, at_last: str
) -> None:
    vendor = use_two_accounts(studio, make_vendor)
    a_sheet(studio, "cat", 8)
    process = start(studio, "cat")
    eventually(lambda: running(vendor) == {"one": 1, "two": 1})

    told = studio.run("accounts", command, "two")
    states = [account(studio, "two")["state"]]
    finish(vendor, account="two")
    eventually(lambda: account(studio, "two")["in_use"] == 0)
    states.append(account(studio, "two")["state"])
    for done in (3, 4):
        finish(vendor, account="one")
        until_accepted(vendor, done)
    while_stopped = running(vendor)
    why = reasons(studio)
    assert studio.run("accounts", "resume", "two").code == 0
    eventually(lambda: running(vendor) == {"one": 1, "two": 1})
    finish_all(vendor)

    assert (told.code, states) == (0, [at_first, at_last])
    assert while_stopped == {"one": 1}
    assert why == {"slot(one/jimeng_t2i_v40, 1/1)"}  # the account that works is the nearer one
    ended = process.end()
    assert (ended.code, ended.json["counts"]) == (0, {"succeeded": 8})
    assert paid_once(vendor)


def test_with_every_account_stopped_all_wait_and_say_so(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = use_two_accounts(studio, make_vendor)
    a_sheet(studio, "cat", 4)
    assert [studio.run("accounts", "pause", name).code for name in KEYS] == [0, 0]  # before they were ever used
    process = start(studio, "cat")

    process.until("paused(account)")
    why, sent = reasons(studio), vendor.ledger()["submits"]
    finish_all(vendor)
    for name in KEYS:
        studio.run("accounts", "resume", name)

    assert (process.end().code, why, sent) == (0, {"paused(account)"}, 0)


def test_lanes_of_an_endpoint_or_account_of_former_days_have_no_say(studio: Studio, make_vendor: MakeVendor) -> None:
    former = use_two_accounts(studio, make_vendor)
    finish_all(former)
    a_sheet(studio, "dog", 4)
    studio.run("run", "dog.csv")
    vendor = use_two_accounts(studio, make_vendor)
    access, secret = KEYS["two"]
    studio.set(DUJIANG_ACCOUNTS=json.dumps([{"name": "two", "access_key": access, "secret_key": secret}]))
    a_sheet(studio, "cat", 2)
    process = start(studio, "cat")
    eventually(lambda: running(vendor) == {"two": 1})

    why = reasons(studio)
    studio.set(DUJIANG_ACCOUNTS=None, VOLCENGINE_ACCESS_KEY=None)
    without_keys = reasons(studio)
    finish_all(vendor)

    assert (why, process.end().code) == ({"slot(two/jimeng_t2i_v40, 1/1)"}, 0)
    assert without_keys == {"slot(one/jimeng_t2i_v40, 0/1)"}  # nobody knows which lanes are meant


# -- pausing everything -----------------------------------------------------------------------------------------------


def test_while_everything_is_paused_no_program_submits_and_what_runs_is_collected(
    studio: Studio, slow: RunningSimulator
) -> None:
    for word in ("cat", "dog"):
        a_sheet(studio, word, 3)
    first = start(studio, "cat", "--concurrency", "fixed:2")
    until_accepted(slow, 2)

    paused = studio.run("pause")
    second = start(studio, "dog")
    second.until("dujiang resume")
    finish(slow)
    first.until("paused(all)")
    second.until("paused(all)")
    eventually(lambda: studio.run("batch", "show", "cat", "--json").json["counts"].get("succeeded") == 2)
    why = reasons(studio, "ready")
    while_paused = slow.ledger()["accepted"]
    finish_all(slow)
    resumed = studio.run("resume")

    told = [first.end(), second.end()]
    assert [paused.code, resumed.code, *(one.code for one in told)] == [0, 0, 0, 0]
    assert (while_paused, why) == (2, {"paused(all)"})
    assert slow.ledger()["accepted"] == 6
    assert paid_once(slow)


def test_a_pause_of_everything_outlives_programs_and_does_not_keep_them_from_leaving(
    studio: Studio, vendor: RunningSimulator
) -> None:
    a_sheet(studio, "cat", 2)
    studio.run("pause")
    process = start(studio, "cat")
    process.until("paused(all)")

    studio.run("batch", "cancel", "cat")
    told = process.end()
    again = studio.run("run", "cat.csv")

    assert (told.code, told.json["counts"], again.code) == (0, {"cancelled": 2}, 0)
    assert "dujiang resume" in again.err
    assert vendor.ledger()["submits"] == 0


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_5_when_its_images_are_used_up_and_goes_on_when_there_are_more(
    studio: Studio, vendor: RunningSimulator
) -> None:
    a_sheet(studio, "cat", 5)

    first = studio.run("run", "cat.csv", "--max-images", "2", "--json")
    why = reasons(studio)
    again = studio.run("run", "cat.csv", "--json")
    raised = studio.run("batch", "budget", "cat", "4")
    more = studio.run("run", "cat.csv", "--json")
    studio.run("batch", "budget", "cat", "none")
    rest = studio.run("run", "cat.csv", "--json")

    assert (first.code, first.json["counts"], first.json["images"]) == (5, {"succeeded": 2, "ready": 3}, 2)
    assert "the budget of images is used up" in first.err
    assert why == {"budget(2/2)"}
    assert (again.code, again.json["counts"]) == (5, {"succeeded": 2, "ready": 3})
    assert "batch cat may bring 4 images in all; 2 are taken" in raised.err
    assert (more.code, more.json["counts"]) == (5, {"succeeded": 4, "ready": 1})
    assert (rest.code, rest.json["counts"]) == (0, {"succeeded": 5})
    assert (vendor.ledger()["charged"], paid_once(vendor)) == (5, True)


def test_a_budget_is_raised_while_the_run_works(studio: Studio, slow: RunningSimulator) -> None:
    a_sheet(studio, "cat", 5)
    process = start(studio, "cat", "--max-images", "1")
    until_accepted(slow, 1)
    process.until("budget(1/1)")
    shown = studio.run("batch", "show", "cat", "--json").json

    studio.run("batch", "budget", "cat", "3")
    until_accepted(slow, 3)
    why = reasons(studio)
    finish_all(slow)

    told = process.end()
    assert (shown["max_images"], shown["images_taken"]) == (1, 1)
    assert (told.code, told.json["counts"], why) == (5, {"succeeded": 3, "ready": 2}, {"budget(3/3)"})
    assert slow.ledger()["accepted"] == 3


def test_a_task_that_may_bring_many_images_is_not_begun_with_less_than_it_may_cost(
    studio: Studio, vendor: RunningSimulator
) -> None:
    studio.write("cat.csv", "prompt,force_single", "a,false", "b,true")

    told = studio.run("run", "cat.csv", "--max-images", "14", "--json")

    assert (told.code, vendor.ledger()["submits"]) == (5, 0)
    assert "budget(0/14)" in reasons(studio)
    assert studio.run("run", "cat.csv", "--max-images", "16").code == 0
    assert studio.run("batch", "show", "cat", "--json").json["images_taken"] == vendor.ledger()["images"]


def test_progress_says_that_the_budget_is_less_than_the_next_task_may_cost(
    studio: Studio, slow: RunningSimulator
) -> None:
    studio.write("cat.csv", "prompt,force_single", "a,false", "b,false")
    process = start(studio, "cat", "--max-images", "20")

    process.until("budget(15/20)")
    why = reasons(studio)
    finish_all(slow)

    assert (why, process.end().code, slow.ledger()["accepted"]) == ({"budget(15/20)"}, 5, 1)


def test_a_refused_submit_costs_nothing_of_the_budget(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cat.csv", "[sim:50412] blocked", "[sim:50430 once] a", "b")

    told = studio.run("run", "cat.csv", "--max-images", "2", "--json")

    assert (told.code, told.json["counts"], told.json["images"]) == (3, {"blocked": 1, "succeeded": 2}, 2)


def test_a_doubt_keeps_its_images_reserved_and_is_told_before_the_budget(
    studio: Studio, vendor: RunningSimulator
) -> None:
    studio.sheet("cat.csv", "[sim:lost-answer] a", "b")

    told = studio.run("run", "cat.csv", "--max-images", "1", "--json")

    assert (told.code, told.json["counts"]) == (8, {"in_doubt": 1, "ready": 1})
    assert reasons(studio) == {"budget(1/1)"}
    assert vendor.ledger()["accepted"] == 1


def test_a_days_cap_ends_a_run_with_5_and_can_be_lifted(studio: Studio, vendor: RunningSimulator) -> None:
    a_sheet(studio, "cat", 4)
    capped = studio.run("accounts", "cap", "default", "2")  # before it was ever used

    first = studio.run("run", "cat.csv", "--json")
    listed = account(studio, "default")
    lifted = studio.run("accounts", "cap", "default", "none")
    rest = studio.run("run", "cat.csv", "--json")

    assert (capped.err, lifted.err) == ("account default may bring 2 images a day\n", "account default has no cap\n")
    assert (first.code, first.json["counts"]) == (5, {"succeeded": 2, "ready": 2})
    assert (listed["state"], listed["reason"], listed["daily_images"]) == ("capped", "budget(2/2)", 2)
    assert (rest.code, vendor.ledger()["charged"]) == (0, 4)


def test_while_jobs_run_the_rest_says_that_the_day_is_used_up(studio: Studio, slow: RunningSimulator) -> None:
    studio.run("accounts", "cap", "default", "1")
    a_sheet(studio, "cat", 3)
    process = start(studio, "cat")

    process.until("budget(1/1)")
    why = reasons(studio)
    studio.run("accounts", "cap", "default", "2")
    until_accepted(slow, 2)
    finish_all(slow)

    assert (why, process.end().code, slow.ledger()["accepted"]) == ({"budget(1/1)"}, 5, 2)


@pytest.mark.parametrize("budget", ["batch", "day"])
def test_two_programs_at_once_never_overdraw(studio: Studio, vendor: RunningSimulator, budget: str) -> None:
    a_sheet(studio, "cat", 12)
    a_sheet(studio, "dog", 12)
    flags = ["--max-images", "5"] if budget == "batch" else []
    if budget == "day":
        studio.run("accounts", "cap", "default", "5")
    words = ["cat", "cat"] if budget == "batch" else ["cat", "dog"]

    told = [process.end() for process in [start(studio, word, *flags) for word in words]]

    assert [one.code for one in told] == [5, 5], told
    assert (vendor.ledger()["accepted"], paid_once(vendor)) == (5, True)


def test_a_cap_is_as_the_settings_say_until_it_is_set_for_everybody(studio: Studio, vendor: RunningSimulator) -> None:
    entry = {"name": "a", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "daily_images": 1}
    studio.set(DUJIANG_ACCOUNTS=json.dumps([entry]))
    a_sheet(studio, "cat", 4)

    codes = [studio.run("run", "cat.csv").code]
    studio.run("accounts", "cap", "a", "3")
    codes.append(studio.run("run", "cat.csv").code)
    as_set = studio.run("accounts", "cap", "a", "default")

    assert (codes, vendor.ledger()["charged"]) == ([5, 5], 3)
    assert as_set.err == "account a may bring 1 images a day\n"


def test_what_one_account_has_no_images_left_for_another_takes(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = use_two_accounts(studio, make_vendor)
    finish_all(vendor)
    studio.run("accounts", "cap", "one", "1")
    a_sheet(studio, "cat", 5)

    assert studio.run("run", "cat.csv").code == 0
    assert Counter(job["account"] for job in vendor.ledger()["charges"])["one"] <= 1


# -- priorities and shares --------------------------------------------------------------------------------------------


def two_programs(studio: Studio, vendor: RunningSimulator, *flags: str, limit: int = 1) -> list[Typed]:
    """One for 30 cats that holds every slot, and one for 20 dogs that has come to wait."""
    for word, count in (("cat", 30), ("dog", 20)):
        a_sheet(studio, word, count)
    cats = start(studio, "cat", "--concurrency", f"fixed:{limit}")
    until_accepted(vendor, limit)
    dogs = start(studio, "dog", *flags)
    eventually(lambda: stands_in_line(studio, {"cat", "dog"}))
    return [cats, dogs]


def all_is_done_and_paid_once(vendor: RunningSimulator, processes: list[Typed], tasks: int) -> bool:
    finish_all(vendor)
    told = [process.end() for process in processes]
    assert [one.code for one in told] == [0] * len(processes), told
    assert sum(one.json["counts"]["succeeded"] for one in told) == tasks
    return vendor.ledger()["accepted"] == tasks and paid_once(vendor)


def test_twenty_tasks_beside_a_large_batch_have_their_share_from_the_next_free_slot_on(
    studio: Studio, slow: RunningSimulator
) -> None:
    processes = two_programs(studio, slow, limit=4)

    for _ in range(12):
        finish_oldest(slow)

    order = submitted(slow)
    assert order[:6] == ["cat"] * 4 + ["dog"] * 2
    assert 5 <= order[4:].count("dog") <= 7
    assert all_is_done_and_paid_once(slow, processes, 50)


def test_the_priority_of_a_batch_is_heeded_from_the_next_free_slot_on(studio: Studio, slow: RunningSimulator) -> None:
    processes = two_programs(studio, slow, "--priority", "-7")
    at_first = studio.run("batch", "show", "dog", "--json").json["priority"]

    def next_three() -> list[str]:
        for _ in range(3):
            finish_oldest(slow)
        return submitted(slow)[-3:]

    lower = next_three()
    studio.run("batch", "priority", "dog", "5")
    higher = next_three()
    studio.run("batch", "priority", "dog", "-100")
    lowest = next_three()

    assert (at_first, lower, higher, lowest) == (-7, ["cat"] * 3, ["dog"] * 3, ["cat"] * 3)
    assert all_is_done_and_paid_once(slow, processes, 50)


def test_tasks_of_a_batch_are_put_first_while_it_runs(studio: Studio, slow: RunningSimulator) -> None:
    a_sheet(studio, "cat", 4)
    process = start(studio, "cat", "--concurrency", "fixed:1")
    until_accepted(slow, 1)

    told = [studio.run("tasks", "priority", "5", "4"), studio.run("tasks", "priority", "-7", "2")]
    for _ in range(3):
        finish_oldest(slow)
    finish_all(slow)

    assert ([one.code for one in told], process.end().code) == ([0, 0], 0)
    assert [job["prompt"] for job in slow.ledger()["charges"]] == ["cat 1", "cat 4", "cat 3", "cat 2"]


def test_the_lowest_priority_is_late_and_not_forgotten(studio: Studio, slow: RunningSimulator) -> None:
    studio.set(DUJIANG_PRIORITY_AGEING=0.2)  # a hundred points are soon made up for
    processes = two_programs(studio, slow, "--priority", "-100")

    while "dog" not in submitted(slow):
        finish_oldest(slow)

    assert slow.ledger()["accepted"] < 30
    assert all_is_done_and_paid_once(slow, processes, 50)


@needs_signals
def test_a_program_that_was_killed_leaves_its_turns_to_the_other(studio: Studio, slow: RunningSimulator) -> None:
    cats, dogs = two_programs(studio, slow)

    dogs.process.kill()
    for _ in range(3):
        finish_oldest(slow)

    assert submitted(slow) == ["cat"] * 4
    assert all_is_done_and_paid_once(slow, [cats, start(studio, "dog")], 50)


# -- others at the vendor ---------------------------------------------------------------------------------------------


def test_beside_a_competitor_nothing_is_lost_and_waiting_tasks_say_who_is_there(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    vendor = make_vendor(run_fixed_s=100.0, queue_s=0.0, limit=2)  # longer than it takes to notice an end
    studio.set(DUJIANG_CONCURRENCY=None)
    for word in ("cat", "dog"):
        a_sheet(studio, word, 6)
    processes = [start(studio, word) for word in ("cat", "dog")]
    eventually(lambda: "slot(default/jimeng_t2i_v40, 2/2)" in reasons(studio))
    eventually(lambda: vendor.ledger()["accepted"] >= 4)

    vendor.configure(competitor_slots=1)
    eventually(lambda: any(", was 2)" in str(why) for why in reasons(studio)))
    vendor.configure(competitor_slots=2)
    eventually(lambda: any("s, others)" in str(why) for why in reasons(studio)))
    vendor.configure(competitor_slots=0)

    assert all_is_done_and_paid_once(vendor, processes, 12)
    assert vendor.ledger()["max_running_overall"] == 2
