"""The log: one event, one line, in either language, for people or programs, and nothing in it that must not be told."""

import contextvars
import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dujiang.messages import TEXTS, Language, use_language
from dujiang.telemetry.logs import LEVELS, LogSettings, logging_to

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING|DEBUG) +\[[^]]+\] .+")


def told(
    folder: Path, *events: tuple[str, Mapping[str, object]], language: Language = Language.ZH, **more: object
) -> str:
    """What stands in the file after these events."""
    file = folder / "logs" / "app.log"

    def tell() -> None:
        use_language(language)
        with logging_to(LogSettings(file, **more)) as log:  # type: ignore[arg-type]
            for name, fields in events:
                log.tell(name, **fields)

    contextvars.copy_context().run(tell)
    return file.read_text("utf-8") if file.exists() else ""


STARTED = ("batch_started", {"batch": "b", "tasks": 6, "limit": 3})
SENT = ("submit_sent", {"label": "即梦API", "batch": "b", "task": 7, "attempt": 1, "prompt": "一只猫"})


def test_a_line_is_what_grep_has_always_found(tmp_path: Path) -> None:
    (line,) = told(tmp_path, STARTED).splitlines()

    assert LINE.fullmatch(line)
    assert line.endswith(" INFO    [并发控制] 开始处理 6 个任务，最大并发数: 3")


def test_the_marker_is_the_same_in_every_language(tmp_path: Path) -> None:
    (line,) = told(tmp_path, STARTED, language=Language.EN).splitlines()

    assert line.endswith("[并发控制] starting 6 tasks, at most 3 at once")


def test_a_program_reads_names_and_fields(tmp_path: Path) -> None:
    (line,) = told(tmp_path, SENT, as_json=True).splitlines()

    found = json.loads(line)
    assert found.pop("at")
    assert found == {
        "event": "submit_sent",
        "level": "info",
        "marker": "即梦API",
        "batch": "b",
        "task": 7,
        "attempt": 1,
        "prompt": found["prompt"],
    }


def test_prompts_are_a_hash_unless_they_are_wanted(tmp_path: Path) -> None:
    hidden = told(tmp_path / "a", SENT)
    shown = told(tmp_path / "b", SENT, prompts=True)

    assert "一只猫" not in hidden
    assert re.search(r"提示词 #[0-9a-f]{12}）", hidden)
    assert "提示词 一只猫）" in shown


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_no_log_in_and_nothing_behind_a_question_mark_is_told(tmp_path: Path, as_json: bool) -> None:
    reason = "failed at https://user:word@host.example/item/1.png?token=sekret-1234&x=1 with AKLTsecret"
    event = ("upload_again", {"label": "Superbed", "task": 1, "place": "1/2", "reason": reason, "tries": 1, "most": 3})
    event[1]["wait_s"] = 1.0

    line = told(tmp_path, event, secrets=["AKLTsecret", "sekret-1234"], as_json=as_json)

    for word in ("user:word", "sekret", "token=", "AKLTsecret"):
        assert word not in line
    assert "https://***@host.example/item/1.png?…" in line


def test_an_event_of_several_lines_is_one_line(tmp_path: Path) -> None:
    event = ("task_failed", {"label": "即梦API", "task": 1, "state": "failed", "reason": "a\nb\r\nc"})

    assert len(told(tmp_path, event).splitlines()) == 1


def test_looks_are_told_only_to_who_wants_to_see_them(tmp_path: Path) -> None:
    look = ("job_looked_at", {"label": "即梦API", "task": 1, "job": "j", "status": "generating"})

    assert told(tmp_path / "a", look) == ""
    assert "generating" in told(tmp_path / "b", look, level="debug")


def test_lines_go_to_stderr_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(tmp_path, STARTED)

    assert "[并发控制] 开始处理 6 个任务" in capsys.readouterr().err


def test_a_file_that_can_not_be_written_costs_nothing_but_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")

    with logging_to(LogSettings(tmp_path / "logs" / "app.log")) as log:
        log.tell("batch_ended", batch="b")

    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "[并发控制]" in err


def test_nothing_stays_behind_when_the_log_is_closed(tmp_path: Path) -> None:
    logger = logging.getLogger("dujiang")
    before = (list(logger.handlers), logger.level, logger.propagate)

    told(tmp_path, STARTED)

    assert (list(logger.handlers), logger.level, logger.propagate) == before


WRITER = """
import sys
from pathlib import Path
from dujiang.telemetry import logs
logs.FILE_BYTES = 20_000
with logs.logging_to(logs.LogSettings(Path(sys.argv[1]))) as log:
    for number in range(200):
        log.tell("task_ended", batch=sys.argv[2], task=number, done=number, tasks=200, running=int(sys.argv[2]))
"""


def test_several_programs_write_one_rotating_file_and_no_line_is_lost_or_torn(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    programs = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(number)], stderr=subprocess.DEVNULL)
        for number in range(3)
    ]
    assert [program.wait(60) for program in programs] == [0, 0, 0]

    parts = sorted(tmp_path.glob("app.log*"))
    lines = [line for part in parts for line in part.read_text("utf-8").splitlines()]
    assert len(parts) > 1
    assert all(LINE.fullmatch(line) for line in lines)
    for number in range(3):
        assert sum(line.endswith(f": {number}") for line in lines) == 200


def test_every_event_has_its_text_and_every_text_its_event() -> None:
    assert {f"log_{name}" for name in LEVELS} == {code for code in TEXTS if code.startswith("log_")}
