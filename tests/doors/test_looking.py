"""What only looks: plan, doctor, config, version, help, and the simulator that it can all be tried on."""

import json
import re
import socket
import time
from pathlib import Path
from typing import Final, NoReturn

import pytest
from rich.cells import cell_len

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import SECRET_KEY, Studio

ROOT: Final = Path(__file__).parents[2]

# -- plan


def test_plan_lists_everything_that_is_wrong(studio: Studio) -> None:
    rows = [f"r{number}," if number % 2 else f"r{number},fine" for number in range(1, 61)]
    studio.write("cats.csv", "id,prompt", *rows)

    told = studio.run("plan", "cats.csv", "--json")

    assert told.code == 2
    assert told.err.count("the prompt is empty") == 30
    assert (told.json["tasks"], told.json["wrong_rows"]) == (30, 30)
    assert "wrong rows: 30" in told.err


def test_plan_counts_images_and_money(studio: Studio) -> None:
    studio.write(
        "cats.csv",
        "prompt,count,force_single,refs,model,colour",
        "a,3,,,,",
        "b,1,false,http://127.0.0.1/1.png|http://127.0.0.1/2.png,,",
        "c,1,,,3.1,",
    )

    told = studio.run("plan", "cats.csv", "--json")
    for_a_person = studio.run("--lang", "zh", "plan", "cats.csv")

    assert told.code == 0
    assert told.json == {
        "tasks": 5,
        "images": 3 + (15 - 2) + 1,
        "yuan": round(16 * 0.22, 2),
        "images_without_price": 1,
        "wrong_rows": 0,
        "ignored_columns": ["colour"],
    }
    assert (
        for_a_person.out
        == "5 个任务，最多 17 张图\n约 ¥3.52（按公开价，只对成功的图片计费）\n其中 1 张没有公开单价，未计入\n"
    )
    assert "colour" in for_a_person.err


def test_plan_uses_no_network_no_keys_and_no_home(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSocket(socket.socket):
        def __init__(self, *_: object, **__: object) -> NoReturn:
            raise AssertionError("plan opened a socket")

    monkeypatch.setattr(socket, "socket", NoSocket)
    studio.set(VOLCENGINE_ACCESS_KEY=None)
    studio.sheet("cats.csv", "a")

    assert studio.run("plan", "cats.csv").code == 0
    assert not studio.home.exists()


def test_plan_of_nothing_is_9_and_of_no_file_2(studio: Studio) -> None:
    studio.write("empty.csv")

    assert [studio.run("plan", name).code for name in ("empty.csv", "nowhere.csv")] == [9, 2]


# -- doctor


def sections_of(document: Path) -> list[str]:
    """As a link names them."""
    return [title.lower().replace(" ", "-") for title in re.findall("^## (.+)$", document.read_text("utf-8"), re.M)]


def checks(studio: Studio) -> tuple[int, dict[str, bool], str]:
    told = studio.run("doctor", "--json")
    assert told.err == ""
    for check in told.lines:
        path, _, section = check.get("help", "").partition("#")
        assert check["ok"] == (not path)
        assert check["ok"] or section in sections_of(ROOT / path)
    return told.code, {check["check"]: check["ok"] for check in told.lines}, told.out


def test_doctor_finds_everything_well(studio: Studio, vendor: RunningSimulator) -> None:
    code, found, _ = checks(studio)

    assert code == 0
    names = ("settings", "proxies", "endpoint", "keys", "clock", "host", "disk", "database")
    assert found == dict.fromkeys(names, True)
    assert vendor.ledger()["submits"] == 0
    chinese = studio.run("--lang", "zh", "doctor").out
    assert chinese.count("正常") == 8
    assert "troubleshooting" not in chinese


def test_doctor_finds_a_wrong_key(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(VOLCENGINE_SECRET_KEY="d3Jvbmc=")

    code, found, _ = checks(studio)

    assert (code, found["endpoint"], found["keys"]) == (4, True, False)


def test_doctor_finds_no_keys(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(VOLCENGINE_ACCESS_KEY=None)

    code, found, _ = checks(studio)

    assert (code, found["keys"]) == (4, False)


def test_doctor_finds_nobody_at_the_endpoint(studio: Studio) -> None:
    code, found, out = checks(studio)

    assert (code, found["endpoint"], found["keys"]) == (6, False, False)
    assert "http://127.0.0.1:9" in out
    assert out.count('"help":"docs/troubleshooting.md#network"') == 2


def test_doctor_finds_a_clock_that_is_wrong(studio: Studio, make_vendor: MakeVendor) -> None:
    make_vendor(wall_clock=lambda: time.time() + 3600)

    code, found, out = checks(studio)

    assert (code, found["endpoint"], found["keys"], found["clock"]) == (4, True, False, False)
    assert re.search(r"-3(599|600|601) s", out)


@pytest.mark.parametrize(
    ("endpoint", "variables", "words"),
    [
        ("http://127.0.0.1:9", {"HTTP_PROXY": "http://127.0.0.1:8"}, "none: they are never used for this machine"),
        ("https://127.0.0.2:9", {}, "none: they are never used for this machine"),
        ("ftp://nonsense", {}, None),
    ],
)
def test_doctor_tells_proxies(studio: Studio, endpoint: str, variables: dict[str, str], words: str | None) -> None:
    studio.set(DUJIANG_JIMENG_ENDPOINT=endpoint, **variables)

    found = {check["check"]: (check["ok"], check["details"]) for check in studio.run("doctor", "--json").lines}

    assert found.get("proxies") == ((True, words) if words else None)


def test_doctor_shows_the_proxy_on_the_way_to_the_endpoint_and_no_password(studio: Studio) -> None:
    studio.use("https://vendor.invalid")
    studio.set(https_proxy="http://me:hush-hush@127.0.0.1:9")

    told = studio.run("doctor", "--json")
    studio.set(NO_PROXY="invalid", VOLCENGINE_ACCESS_KEY=None)  # without keys nobody is asked
    without = studio.run("doctor", "--json")

    assert "through http://***@127.0.0.1:9" in told.out
    assert "hush-hush" not in told.everything
    assert {"check": "proxies", "ok": True, "details": "none"} in without.lines


def test_doctor_finds_a_misspelt_variable_a_bad_disk_and_a_bad_database(
    studio: Studio, vendor: RunningSimulator
) -> None:
    studio.set(DUJIANG_CONCURENCY="fixed:1")
    studio.write("dujiang-out", "a file")
    studio.home.mkdir()
    (studio.home / "dujiang.db").write_bytes(b"no database" * 500)

    code, found, out = checks(studio)

    assert code == 2
    assert [name for name, ok in found.items() if not ok] == ["settings", "disk", "database"]
    assert "DUJIANG_CONCURENCY" in out


def host_check(studio: Studio) -> dict[str, object]:
    return next(line for line in studio.run("doctor", "--json").lines if line["check"] == "host")


def test_doctor_asks_the_image_host_and_uploads_nothing(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(SUPERBED_TOKEN="any", DUJIANG_SUPERBED_ENDPOINT=vendor.url)

    found = host_check(studio)

    assert found["ok"] is True
    assert str(found["details"]).endswith("answers; the token is tested by the first upload")
    assert vendor.ledger()["uploads"] == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "references from files can't be uploaded"),
        ({"SUPERBED_TOKEN": ""}, "references from files can't be uploaded"),
        ({"SUPERBED_TOKEN": "any", "DUJIANG_IMAGE_HOST": "inline"}, "not used"),
    ],
)
def test_a_studio_without_an_image_host_has_no_problem(
    studio: Studio, vendor: RunningSimulator, variables: dict[str, str], words: str
) -> None:
    studio.set(DUJIANG_SUPERBED_ENDPOINT="http://127.0.0.1:9", **variables)

    told = studio.run("doctor", "--json")

    assert told.code == 0
    assert words in told.out


def test_doctor_finds_nobody_at_the_image_host(studio: Studio, vendor: RunningSimulator) -> None:
    studio.set(SUPERBED_TOKEN="hush-hush", DUJIANG_SUPERBED_ENDPOINT="http://127.0.0.1:9")

    code, found, out = checks(studio)

    assert (code, [name for name, ok in found.items() if not ok]) == (6, ["host"])
    assert '"help":"docs/troubleshooting.md#host"' in out
    assert "hush-hush" not in out


def test_doctor_refuses_an_image_host_that_the_token_could_be_overheard_by(
    studio: Studio, vendor: RunningSimulator
) -> None:
    studio.set(SUPERBED_TOKEN="any", DUJIANG_SUPERBED_ENDPOINT="http://example.com")

    code, found, _ = checks(studio)

    assert (code, [name for name, ok in found.items() if not ok]) == (2, ["host"])


@pytest.mark.parametrize(
    ("language", "line"),
    [("en", "see docs/troubleshooting.md#network"), ("zh", "见 docs/troubleshooting.zh-CN.md#network")],
)
@pytest.mark.parametrize("columns", [80, 120])
def test_doctor_wraps_what_is_long_and_ends_with_where_to_read_on(
    studio: Studio, language: str, line: str, columns: int
) -> None:
    studio.set(DUJIANG_JIMENG_ENDPOINT="http://127.0.0.1:9/a-very-long-address-that-does-not-fit-into-a-line-of-80")

    studio.set(TTY_COMPATIBLE=1, COLUMNS=columns)  # as in a terminal

    told = studio.run("--lang", language, "doctor")

    shown = [re.sub(r"\x1b\[[0-9;]*m", "", shown).rstrip() for shown in told.out.splitlines()]
    assert told.code == 6
    assert sum(one.endswith(line) for one in shown) == 2
    assert "…" not in told.out
    assert max(map(cell_len, shown)) <= columns


def test_doctor_finds_settings_that_cannot_be_read(studio: Studio) -> None:
    studio.set(DUJIANG_TIME_SCALE="fast")

    code, found, out = checks(studio)

    assert (code, found, "DUJIANG_TIME_SCALE" in out) == (2, {"settings": False}, True)


# -- config and version


def test_config_shows_every_setting_and_no_secret(studio: Studio) -> None:
    english, chinese = (studio.run("--lang", lang, "config", "schema") for lang in ("en", "zh"))
    shown = studio.run("config", "get")

    assert "DUJIANG_TIME_SCALE" in english.out
    assert "VOLCENGINE_SECRET_KEY" in english.out
    assert "at most" in english.out
    assert "同时下载多少张图片" in chinese.out
    assert json.loads(studio.run("config", "schema", "--json").out)["properties"].keys() >= {"home", "concurrency"}
    assert shown.code == 0
    assert "0.01" in shown.out
    assert SECRET_KEY not in shown.everything
    assert studio.run("config", "get", "volcengine_secret_key").out == '"********"\n'
    assert studio.run("config", "get", "DUJIANG_TIME_SCALE").out == "0.01\n"
    assert studio.run("config", "get", "nonsense").code == 2


def test_settings_follow_their_order(studio: Studio) -> None:
    studio.home.mkdir()
    studio.write("home/dujiang.toml", "concurrency = 'fixed:1'", "poll_timeout = 1.0", "submit_timeout = 1.0")
    studio.write("dujiang.toml", "poll_timeout = 2.0", "submit_timeout = 2.0")
    studio.set(DUJIANG_CONCURRENCY=None, DUJIANG_SUBMIT_TIMEOUT=3)

    told = [studio.run("config", "get", name).out for name in ("concurrency", "poll_timeout", "submit_timeout")]

    assert told == ['"fixed:1"\n', "2.0\n", "3.0\n"]


def test_version_is_for_a_bug_report(studio: Studio) -> None:
    found = studio.run("version", "--json").json

    assert found.keys() >= {"dujiang", "python", "system", "sqlite", "schema", "database"}
    assert not studio.home.exists()  # it only looks


# -- languages, help, and what is not understood


def test_the_language_of_a_file_of_settings_is_spoken_unless_a_flag_says_otherwise(studio: Studio) -> None:
    studio.set(DUJIANG_LANG=None)
    studio.write("dujiang.toml", "lang = 'zh'")

    assert "还没有批次" in studio.run("batch", "list").err
    assert "找不到文件" in studio.run("plan", "nowhere.csv").err
    assert "no batches" in studio.run("--lang", "en", "batch", "list").err


def test_the_systems_language_is_spoken_where_nothing_is_set(studio: Studio) -> None:
    studio.set(DUJIANG_LANG=None, LANG="zh_CN.UTF-8")

    assert "还没有批次" in studio.run("batch", "list").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "没有命令 frobnicate"),
        (["tasks", "lisst"], "list"),
        (["run"], "缺少 INPUT"),
        (["run", "a.csv", "--oot", "x"], "--out"),
        (["run", "a.csv", "--name"], "--name 后面缺少值"),
        (["tasks", "list", "--state", "sleeping"], "queued, preparing"),
        (["tasks", "list", "--limit", "0"], "不能小于 1"),
        (["tasks", "show", "x"], "应为整数"),
        (["run", "a.csv", "b.csv"], "b.csv"),
        (["--lang", "fr", "version"], "zh, en"),
    ],
)
def test_a_command_that_is_not_understood(studio: Studio, arguments: list[str], words: str) -> None:
    studio.set(DUJIANG_LANG="zh")

    told = studio.run(*arguments)

    assert (told.code, told.out) == (2, "")
    assert words in told.err
    assert told.err.startswith("错误: ")


@pytest.mark.parametrize(
    ("arguments", "language", "words"),
    [
        (["--lang", "zh", "run", "--help"], "en", "提交一个批次"),
        (["--lang=en", "--help"], "zh", "Submit a batch"),
        (["--help"], "zh", "提交一个批次"),
    ],
)
def test_help_is_in_the_language_in_force(studio: Studio, arguments: list[str], language: str, words: str) -> None:
    told = studio.start(*arguments, DUJIANG_LANG=language).end()

    assert (told.code, words in told.out) == (0, True)


def test_help_imports_nothing_heavy(studio: Studio) -> None:
    told = studio.start("--help", PYTHONPROFILEIMPORTTIME=1).end()

    heavy = (
        "sqlalchemy",
        "pydantic",
        "httpx2",
        "alembic",
        "asyncio",
        "uvicorn",
        "starlette",
        "dujiang.domain.lifecycle",
    )
    imported = {line.rpartition("|")[2].strip() for line in told.err.splitlines()}
    assert told.code == 0
    assert "typer" in imported
    assert imported.isdisjoint(heavy)


def test_a_reader_that_leaves_early_is_no_error(studio: Studio) -> None:
    process = studio.start("config", "schema", deaf=True)

    told = process.end()

    assert "Traceback" not in told.err
    assert "Exception" not in told.err


# -- the simulator


def test_sim_says_where_it_is_and_stops_when_told(studio: Studio) -> None:
    process = studio.start("sim", "--port", "0", "--time-scale", "0.01", "--instant")
    studio.use(process.first_line())
    studio.sheet("cats.csv", "a")

    told = studio.run("run", "cats.csv")
    process.interrupt()

    assert told.code == 0
    assert process.end().code == 0


def test_sim_listens_to_this_machine_alone(studio: Studio) -> None:
    studio.write("sim.json", '{"host": "0.0.0.0"}')

    told = studio.run("sim", "--config", "sim.json")

    assert (told.code, "loopback" in told.err) == (2, True)
