"""The demo: a vendor that allows two jobs at a time, 24 prompts, and what may happen to them.

`make demo` runs it. The vendor is a simulator on this machine; nothing leaves it and nothing costs money. Everything is
kept in `.demo/`, so that a second run finds nothing left to do. Exits 0 when the story went as it is told here.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

ROOT: Final = Path(__file__).resolve().parent.parent
SHEET: Final = ROOT / "examples" / "demo.csv"
PLACE: Final = ROOT / ".demo"
HOME: Final = PLACE / "home"
OUT: Final = PLACE / "out"
IMAGES: Final = OUT / SHEET.stem / "images"
TOLD: Final = PLACE / "told"  # the story was told to its end: what is here is worth going on with

TASKS: Final = 24
LIMIT: Final = 2
TIME_SCALE: Final = 0.1  # ten times as fast as the real vendor
KEY, SECRET = "AKLTsimulator", "c2ltdWxhdG9y"  # the simulator's own; they open nothing else
HOST_TOKEN = "superbed-simulator-token"
REFERENCES: Final = 4  # pictures in examples/refs; eight rows use them, and each is uploaded once
FAULTS: Final = ("poll_503=0.03", "poll_reset=0.02", "cut_download=0.1", "download_503=0.05", "upload_reset=0.1")
MODERATED: Final = "D-13"
LOST_ANSWER: Final = 17  # the 17th submit is accepted, and its answer is lost on the way
SOME_FAILED, DECISION_NEEDED = 3, 8

OURS: Final = ("DUJIANG_", "VOLCENGINE_", "SUPERBED_")

Tasks = Mapping[str, Mapping[str, Any]]


def main() -> int:
    """Tell the story; 0 if it went as told."""
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(encoding="utf-8", errors="replace")
    first = not TOLD.exists()
    if first:
        shutil.rmtree(PLACE, ignore_errors=True)  # an earlier demo was stopped, and its vendor is gone
        PLACE.mkdir()
    with simulator() as url:
        if first:
            lose_an_answer(url)
        code, result = run(url)
        tasks, ledger = listed(url), asked(f"{url}/_sim/ledger")
    problems = [*told_wrong(code, result, tasks, first=first), *charged_wrong(ledger, first=first)]
    tell(result, tasks, ledger)
    for problem in problems:
        print(f"✗ {problem}")
    if not problems:
        TOLD.touch()
    return 1 if problems else 0


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """A vendor on this machine, for as long as the block lasts; its address."""
    command = [sys.executable, "-m", "dujiang.simulator", "--limit", str(LIMIT), "--time-scale", str(TIME_SCALE)]
    command += ["--seed", "4"] + [word for fault in FAULTS for word in ("--fault", fault)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def lose_an_answer(url: str) -> None:
    """Tell the vendor to accept one submit and drop the connection before it answers."""
    asked(f"{url}/_sim/faults/next", {"submit": [None] * (LOST_ANSWER - 1) + ["lost_answer"]})


def asked(address: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the simulator's control surface answers."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(address, data=data, headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


def run(url: str) -> tuple[int, dict[str, Any]]:
    """`dujiang run`, as a person would call it; its progress is shown as it goes."""
    done = called(url, "run", str(SHEET), "--out", str(OUT), "--concurrency", f"fixed:{LIMIT}", "--json")
    return done.returncode, json.loads(done.stdout or "{}")


def listed(url: str) -> dict[str, dict[str, Any]]:
    """Every task by its row, from `dujiang tasks list --json`."""
    lines = called(url, "tasks", "list", "--json").stdout.splitlines()
    return {task["row"]: task for task in map(json.loads, lines)}


def called(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command `dujiang`, with the demo's own settings; none of the user's get in."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment = clean | {
        "DUJIANG_HOME": str(HOME),
        "DUJIANG_JIMENG_ENDPOINT": url,
        "DUJIANG_TIME_SCALE": str(TIME_SCALE),
        "VOLCENGINE_ACCESS_KEY": KEY,
        "VOLCENGINE_SECRET_KEY": SECRET,
        "DUJIANG_SUPERBED_ENDPOINT": url,
        "SUPERBED_TOKEN": HOST_TOKEN,
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-m", "dujiang", *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=False)


def told_wrong(code: int, result: Mapping[str, Any], tasks: Tasks, *, first: bool) -> Iterator[str]:
    """Where the story went another way than it is told."""
    doubtful = [row for row, task in tasks.items() if task["state"] == "in_doubt"]
    if code != (DECISION_NEEDED if doubtful else SOME_FAILED):
        yield f"dujiang run ended with {code}: {dict(result)}"
    if len(tasks) != TASKS:
        yield f"{len(tasks)} of {TASKS} tasks are known"
    if first and len(doubtful) != 1:
        yield f"one task should be in doubt: {doubtful}"
    if MODERATED in tasks and tasks[MODERATED]["state"] != "blocked":
        yield f"{MODERATED} should have been blocked by moderation, and is {tasks[MODERATED]['state']}"
    for row in tasks.keys() - {MODERATED, *doubtful}:
        task = tasks[row]
        missing = [file["path"] for file in task["files"] if not (IMAGES / file["path"]).is_file()]
        decided = task["state"] in {"failed", "lost"} and not first
        if missing or not (task["state"] == "succeeded" or decided):
            yield f"{row} is {task['state']}, missing {missing}"


def charged_wrong(ledger: Mapping[str, Any], *, first: bool) -> Iterator[str]:
    """Nothing is paid or uploaded twice, and never more at once than the vendor allows: by the vendor's own ledger."""
    uploaded = [item["sha256"] for item in ledger["items"]]
    if len(uploaded) != len(set(uploaded)) or (first and len(uploaded) != REFERENCES):
        yield f"{len(uploaded)} uploads of {len(set(uploaded))} pictures"
    prompts = [charge["prompt"] for charge in ledger["charges"]]
    for prompt in sorted({prompt for prompt in prompts if prompts.count(prompt) > 1}):
        yield f"paid twice: {prompt}"
    if ledger["max_running_overall"] > LIMIT:
        yield f"{ledger['max_running_overall']} jobs at the vendor at once"


def tell(result: Mapping[str, Any], tasks: Tasks, ledger: Mapping[str, Any]) -> None:
    """What happened, in both languages."""
    done = result.get("counts", {}).get("succeeded", 0)
    print()
    print(f"图片 Images       {done}/{TASKS} in {IMAGES}")
    print(f"作业 Jobs         {ledger['accepted']} accepted this time, at most {ledger['max_running_overall']} at once")
    print(f"参考图 References {len(ledger['items'])} uploaded this time; 8 rows use {REFERENCES} pictures")
    for row, task in tasks.items():
        if task["state"] == "blocked":
            reason = f"{task['error']['code']} {task['error']['message']}"
            print(f"被拦截 Blocked    {row} (task {task['id']}): {reason}")
        elif task["state"] == "in_doubt":
            print(f"存疑 In doubt     {row} (task {task['id']}): 提交已送出，应答丢失，可能已付费，不会自动重交")
            print("                  Sent, and its answer was lost: it may be paid, so it is not sent again by itself.")
            print(f"怎么决定 Resolve  {resolve_command(task['id'])}")
            print("                  then run the demo again. 然后再运行一次。")
        elif task["state"] != "succeeded":
            print(f"{task['state']}  {row} (task {task['id']})")
    if not ledger["submits"]:
        print("没有剩下的事      Nothing was left to do: not one submit was sent.")


def resolve_command(task_id: int) -> str:
    """What a person types to decide about a task in doubt."""
    command = Path(sys.executable).with_name("dujiang")
    return f"{command} resolve {task_id} resubmit --home {HOME}"


if __name__ == "__main__":
    sys.exit(main())
