"""Whatever is wrong with what a user gives: one clear message in each language, the right exit code, nothing sent."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dujiang.simulator import RunningSimulator
from tests.parts import lacking

from .studio import Studio

LONG = "猫" * 801


def refused(studio: Studio, vendor: RunningSimulator, *arguments: str | Path, code: int = 2) -> str:
    """What is said, in both languages, after seeing that it is one message and that nothing was sent."""
    english, chinese = (studio.run("--lang", lang, *arguments) for lang in ("en", "zh"))
    for told in (english, chinese):
        assert told.code == code, told
        assert "Traceback" not in told.everything
        assert told.out == ""
    assert english.err != chinese.err
    assert any("一" <= sign <= "鿿" for sign in chinese.err)
    assert english.err.count("error: ") == chinese.err.count("错误: ") == 1
    ledger = vendor.ledger()
    assert (ledger["accepted"], ledger["submits"]) == (0, 0)
    return english.err


# -- the input as a whole


def test_a_missing_file(studio: Studio, vendor: RunningSimulator) -> None:
    assert "there is no file nowhere.csv" in refused(studio, vendor, "run", "nowhere.csv")


def test_a_folder(studio: Studio, vendor: RunningSimulator) -> None:
    (studio.folder / "pictures").mkdir()

    assert "is a folder" in refused(studio, vendor, "run", "pictures")


def test_a_kind_of_file_that_is_not_known(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("cats.docx", "a")

    assert ".csv .tsv .jsonl .txt" in refused(studio, vendor, "run", "cats.docx")


def test_a_file_that_may_not_be_read_or_is_open_in_excel(
    studio: Studio, vendor: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = studio.sheet("cats.csv", "a")
    really = Path.open

    def locked(self: Path, *arguments: Any, **more: Any) -> Any:  # root may read everything, and Excel is not here
        if self.name == path.name:
            raise PermissionError(13, "Permission denied")
        return really(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", locked)

    said = refused(studio, vendor, "run", "cats.csv")

    assert "cats.csv" in said
    assert "Excel" in said


def test_bytes_that_are_no_text(studio: Studio, vendor: RunningSimulator) -> None:
    (studio.folder / "cats.csv").write_bytes(b"prompt\n\xff\xff\xff\n")

    assert "UTF-8" in refused(studio, vendor, "run", "cats.csv")


def test_no_column_for_prompts(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("cats.csv", "id,text", "r1,a")

    assert "prompt" in refused(studio, vendor, "run", "cats.csv")


def test_an_empty_input(studio: Studio, vendor: RunningSimulator) -> None:
    studio.write("empty.csv")

    assert "holds no tasks" in refused(studio, vendor, "run", "empty.csv", code=9)


# -- rows


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("prompt,id", ",r1", ["row 2", "prompt"]),
        ("prompt", LONG, ["row 2", "801", "800"]),
        ("prompt,width,height", "a,100,100", ["row 2", "100×100", "[1024², 4096²]"]),
        ("prompt,scale", "a,1.5", ["row 2", "scale", "1.5", "[0, 1]"]),
        ("prompt,width", "a,2048", ["row 2", "width", "height"]),
        ("prompt,model", "a,9.9", ["row 2", "9.9", "4.0, 4.6, 3.1, 3.0, i2i-3.0"]),
        ("prompt,seed", "a,7", ["row 2", "seed", "7", "4.0"]),
        ("prompt,heigth", "a,2048", ["row 2", "heigth", "2048", "height"]),
        ("prompt,refs", "a,C:\\cat.png", ["row 2", "cat.png"]),
        ("prompt,count", "a,1000", ["row 2", "count", "1000", "[1, 100]"]),
    ],
)
def test_a_row_that_breaks_a_limit(
    studio: Studio, vendor: RunningSimulator, header: str, row: str, words: list[str]
) -> None:
    studio.write("cats.csv", header, row)

    said = refused(studio, vendor, "run", "cats.csv")

    assert [word for word in words if word not in said] == [], said


def test_an_unknown_model_on_the_command_line(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")

    assert "4.0, 4.6, 3.1, 3.0, i2i-3.0" in refused(studio, vendor, "run", "cats.csv", "--model", "5")


@pytest.mark.parametrize(
    ("flag", "value", "way"),
    [("--concurrency", "many", "fixed:3"), ("--on-doubt", "resubmit:0", "resubmit:N"), ("--give-up-after", "-1", "0")],
)
def test_a_flag_that_cannot_be_used(studio: Studio, vendor: RunningSimulator, flag: str, value: str, way: str) -> None:
    studio.sheet("cats.csv", "a")

    said = refused(studio, vendor, "run", "cats.csv", flag, value)

    assert flag in said
    assert way in said


# -- steering


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("batch priority dogs 5", "there is no batch dogs"),
        ("batch priority cats 101", "at most 100"),
        ("batch priority cats -101", "at least -100"),
        ("batch priority cats high", "whole number"),
        ("batch priority cats", "PRIORITY is missing"),
        ("batch budget dogs 5", "there is no batch dogs"),
        ("batch budget cats 0", "above 0, or none"),
        ("batch budget cats -1", "-1"),
        ("batch budget cats many", "above 0, or none"),
        ("batch budget cats", "IMAGES is missing"),
        ("tasks priority 5 99", "tasks that do not exist: 1"),
        ("tasks priority -101 1", "at least -100"),
        ("tasks priority high 1", "whole number"),
        ("tasks priority 5", "TASK is missing"),
        ("accounts test nobody", "Known: default"),
        ("accounts pause nobody", "Known: default"),
        ("accounts drain nobody", "Known: default"),
        ("accounts resume nobody", "Known: default"),
        ("accounts cap nobody 5", "Known: default"),
        ("accounts cap default 0", "above 0, none (no cap) or default"),
        ("accounts cap default -5", "-5"),
        ("accounts cap default many", "above 0, none (no cap) or default"),
        ("accounts pause", "ACCOUNT is missing"),
        ("pause cats", "not understood: cats"),
        ("resume cats", "not understood: cats"),
        ("run cats.csv --priority 101", "--priority"),
        ("run cats.csv --priority high", "whole number"),
        ("run cats.csv --max-images 0", "at least 1"),
        ("run cats.csv --max-images many", "whole number"),
    ],
)
def test_steering_that_cannot_be(studio: Studio, vendor: RunningSimulator, command: str, words: str) -> None:
    studio.sheet("cats.csv", "a")
    studio.use("http://127.0.0.1:9")
    studio.run("run", "cats.csv")  # the batch is there, and nothing of it was submitted
    before = studio.run("batch", "show", "cats", "--json").json

    said = refused(studio, vendor, *command.split())

    assert words in said
    assert studio.run("batch", "show", "cats", "--json").json == before


# -- keys, endpoint, settings


def test_no_keys(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(VOLCENGINE_SECRET_KEY=None)
    studio.sheet("cats.csv", "a")

    assert "VOLCENGINE_SECRET_KEY" in refused(studio, vendor, "run", "cats.csv", code=4)


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [("http://visual.volcengineapi.com", "not https"), ("ftp://x", "no valid address"), ("nonsense", "no valid")],
)
def test_an_endpoint_that_must_not_be_used(studio: Studio, vendor: RunningSimulator, endpoint: str, words: str) -> None:
    studio.use(endpoint)
    studio.sheet("cats.csv", "a")

    said = refused(studio, vendor, "run", "cats.csv")

    assert words in said
    assert endpoint in said


def test_a_proxy_that_is_not_known(studio: Studio, vendor: RunningSimulator) -> None:
    studio.use("https://vendor.invalid")
    studio.set(HTTPS_PROXY="gopher://me:hush-hush@127.0.0.1:9")
    studio.sheet("cats.csv", "a")

    said = refused(studio, vendor, "run", "cats.csv")

    assert "proxy" in said
    assert "hush-hush" not in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["concurrency = 'hush-hush'"], ["concurrency", "fixed:N"]),
        (["time_scale = 'hush-hush'"], ["time_scale", "number"]),
        (["allow_sleep = 'hush-hush'"], ["allow_sleep", "true or false"]),
        (["downloads_at_once = 1000"], ["downloads_at_once", "64"]),
        (["secret = 'hush-hush'"], ["secret", "no such setting"]),
        (["[[accounts]]", "name = 'a'", "acces_key = 'hush-hush'"], ["accounts.0.acces_key", "no such setting"]),
        (["[[accounts]]", "name = 'a'", "access_key = 'hush-hush'"], ["'a'", "secret_key"]),
        (["secret = hush-hush"], ["TOML", "line 1"]),
        (
            [
                *("[[accounts]]", "name = 'a'", "access_key = 'hush-hush1'", "secret_key = 'hush-hush'"),
                *("[[accounts]]", "name = 'a'", "access_key = 'hush-hush2'", "secret_key = 'hush-hush'"),
            ],
            ["two accounts are called 'a'"],
        ),
    ],
)
@pytest.mark.parametrize("place", [".", "home"])
def test_bad_settings_name_file_and_setting_and_never_the_value(
    studio: Studio, vendor: RunningSimulator, lines: list[str], words: list[str], place: str
) -> None:
    studio.set(DUJIANG_CONCURRENCY=None, DUJIANG_TIME_SCALE=None)
    studio.set(VOLCENGINE_ACCESS_KEY=None, VOLCENGINE_SECRET_KEY=None)
    (studio.folder / place).mkdir(exist_ok=True)
    path = studio.write(f"{place}/dujiang.toml", *lines)
    studio.sheet("cats.csv", "a")

    said = refused(studio, vendor, "run", "cats.csv")

    assert [word for word in words if word not in said] == [], said
    assert "hush-hush" not in said
    if lines[0] != "[[accounts]]" or "such" in words[-1]:  # the others are known only when all are read
        assert str(path.resolve()) in said


def test_a_bad_variable_is_named_as_it_is_set(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(DUJIANG_CONCURRENCY="hush-hush", DUJIANG_ACCOUNTS='[{"name":"a","access_key":"hush-hush"')
    studio.sheet("cats.csv", "a")

    said = refused(studio, vendor, "run", "cats.csv")

    assert "DUJIANG_CONCURRENCY: must be auto" in said
    assert "DUJIANG_ACCOUNTS: is no valid JSON" in said
    assert "hush-hush" not in said


def test_settings_of_the_home_folder_that_a_flag_names(studio: Studio, vendor: RunningSimulator) -> None:
    (studio.folder / "other").mkdir()
    studio.set(DUJIANG_CONCURRENCY=None)
    studio.write("other/dujiang.toml", "concurrency = 'fixed:7'")

    told = studio.run("config", "get", "concurrency", "--home", "other")

    assert (told.code, told.out) == (0, '"fixed:7"\n')


# -- where results and tasks go


def test_results_that_would_go_into_a_file(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.write("taken", "x")

    for out in ("taken", "taken/below"):
        assert "is a file" in refused(studio, vendor, "run", "cats.csv", "--out", out)
    assert studio.run("batch", "list", "--json").out == ""  # nothing was begun


def test_a_database_that_is_no_database(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.home.mkdir()
    (studio.home / "dujiang.db").write_bytes(b"this is a shopping list, not a database" * 200)

    for command in (["run", "cats.csv"], ["tasks", "list"], ["batch", "list"]):
        assert "dujiang.db" in refused(studio, vendor, *command)


def test_a_database_of_a_newer_version(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("batch", "list")
    with closing(sqlite3.connect(studio.home / "dujiang.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()

    said = refused(studio, vendor, "run", "cats.csv")

    assert "9999" in said
    assert "Upgrade" in said


def test_a_home_that_cannot_be_made(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")
    studio.write("taken", "x")
    studio.set(DUJIANG_HOME=studio.folder / "taken")

    assert "taken" in refused(studio, vendor, "run", "cats.csv")


@pytest.mark.parametrize("url", ["mysql://root:hush-hush@db/x", "nonsense hush-hush"])
def test_a_database_address_that_is_not_supported(studio: Studio, vendor: RunningSimulator, url: str) -> None:
    studio.sheet("cats.csv", "a")
    studio.set(DUJIANG_DATABASE_URL=url)

    refused(studio, vendor, "run", "cats.csv")
    told = studio.run("config", "get")

    if "@" in url:
        assert "hush-hush" not in told.everything
        assert "hush-hush" not in studio.run("version").everything


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of 256 KB, where the machine lets us have one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        lacking("a small disk to fill", how_to_get_it="run on Linux as root, where tmpfs can be mounted")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    studio: Studio, vendor: RunningSimulator, small_disk: Path
) -> None:
    studio.sheet("cats.csv", "a", "b", "c", "d")
    filler = small_disk / "filler"
    (small_disk / "cats" / "images").mkdir(parents=True)
    filler.write_bytes(b"x" * 4096 * 62)

    process = studio.start("run", "cats.csv", "--out", small_disk, "--concurrency", "fixed:1", "--json")
    process.until("disk(full)")
    accepted = vendor.ledger()["accepted"]
    filler.unlink()
    told = process.end()

    assert told.code == 0, told
    assert accepted < 4  # submits stopped while nothing could be stored
    assert told.json["counts"] == {"succeeded": 4}
    assert vendor.ledger()["accepted"] == 4


def test_a_disk_that_is_full_from_the_start(studio: Studio, vendor: RunningSimulator, small_disk: Path) -> None:
    studio.sheet("cats.csv", "a")
    studio.set(DUJIANG_HOME=small_disk)
    (small_disk / "filler").write_bytes(b"x" * 4096 * 63)

    refused(studio, vendor, "run", "cats.csv", code=1)
