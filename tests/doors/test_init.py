"""`dujiang init`: keys go from a person, or a script, into a file that nobody else can read, and nowhere else."""

import os
import re
import signal
import stat
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dujiang.simulator import RunningSimulator

from .studio import ACCESS_KEY, SECRET_KEY, Studio, Told, Typed, eventually

TOKEN = "c3VwZXJiZWQtdG9rZW4"
GOOD = f"{ACCESS_KEY}\n{SECRET_KEY}\n{TOKEN}\n".encode()
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither mode bits nor a pty")


@pytest.fixture(autouse=True)
def newcomer(studio: Studio) -> None:
    """Somebody without keys in the environment."""
    studio.set(VOLCENGINE_ACCESS_KEY=None, VOLCENGINE_SECRET_KEY=None)


@pytest.fixture
def careless() -> Iterator[None]:
    """A user whose new files are open to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def toml(studio: Studio) -> Path:
    return studio.home / "dujiang.toml"


def settings(studio: Studio) -> dict[str, Any]:
    return tomllib.loads(toml(studio).read_text("utf-8"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def an_old_file(studio: Studio, *lines: str) -> Path:
    studio.home.mkdir()
    return studio.write("home/dujiang.toml", *lines)


def assert_untold(*told: Told) -> None:
    said = "".join(one.everything for one in told)
    assert [secret for secret in (ACCESS_KEY, SECRET_KEY, TOKEN) if secret in said] == []


def assert_nothing_written(studio: Studio) -> None:
    assert list(studio.folder.rglob("*.toml*")) == []


# -- from a script


def test_three_lines_on_stdin_make_a_file_that_a_run_can_use(studio: Studio, vendor: RunningSimulator) -> None:
    studio.sheet("cats.csv", "a")

    told = studio.run("init", stdin=GOOD)

    assert (told.code, told.out) == (0, "")
    assert settings(studio) == {
        "superbed_token": TOKEN,
        "accounts": [{"name": "default", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}],
    }
    assert str(toml(studio)) in told.err
    assert told.err.endswith("next: dujiang doctor\n")
    assert_untold(
        told, studio.run("doctor"), studio.run("config", "get"), studio.run("config", "get", "superbed_token")
    )
    assert studio.run("run", "cats.csv").code == 0
    assert "下一步：dujiang doctor" in studio.run("--lang", "zh", "init", stdin=GOOD).err


@posix
def test_the_file_is_for_its_owner_alone(studio: Studio, careless: None) -> None:
    studio.run("init", stdin=GOOD)

    assert mode(toml(studio)) == 0o600
    assert mode(studio.home) == 0o700
    assert [path.name for path in studio.home.iterdir()] == ["dujiang.toml"]


@posix
def test_an_open_file_is_closed_and_keeps_what_stands_in_it(studio: Studio, careless: None) -> None:
    path = an_old_file(
        studio,
        "# of the studio",
        "concurrency = 'fixed:2'  # what we bought",
        "[[accounts]]",
        "name = 'li'  # Li pays",
        "access_key = 'AKLTli'",
        "secret_key = 'bGk='",
        "[[accounts]]",
        "name = 'default'",
        "access_key = 'AKLTold'",
        "secret_key = 'b2xk'",
        "session_token = 'STSold'",
        "concurrency = 'fixed:1'",
    )
    path.chmod(0o644)

    told = studio.run("init", stdin=GOOD)

    assert told.code == 0, told
    assert mode(path) == 0o600
    assert settings(studio) == {
        "superbed_token": TOKEN,
        "concurrency": "fixed:2",
        "accounts": [
            {"name": "li", "access_key": "AKLTli", "secret_key": "bGk="},
            {"name": "default", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "concurrency": "fixed:1"},
        ],
    }
    for comment in ("# of the studio", "# what we bought", "# Li pays"):
        assert comment in path.read_text("utf-8")


def test_an_account_more_and_another_home(studio: Studio) -> None:
    studio.run("init", "--home", "other home", stdin=GOOD)
    told = studio.run("init", "--home", "other home", "--account", "李", stdin=b"AKLTli\nbGk=\n")

    assert told.code == 0
    assert 'dujiang doctor --home "other home"' in told.err
    found = studio.run("config", "get", "accounts", "--home", "other home").out
    assert ("default (" in found, "李 (" in found) == (True, True)
    assert not studio.home.exists()


def test_what_was_pasted_along_is_taken_off(studio: Studio) -> None:
    told = studio.run("init", stdin=f'\ufeff "{ACCESS_KEY}"\r\n\t\u201c{SECRET_KEY}\u201d \u3000\r\n{TOKEN}'.encode())

    assert told.code == 0
    assert settings(studio)["accounts"] == [
        {"name": "default", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY},
    ]


def test_without_a_token_it_says_what_will_not_work(studio: Studio) -> None:
    told = studio.run("init", stdin=f"{ACCESS_KEY}\n{SECRET_KEY}\n".encode())
    assert told.code == 0
    assert "must be public addresses" in told.err
    assert "superbed_token" not in settings(studio)

    studio.run("init", stdin=GOOD)
    again = studio.run("init", stdin=f"{ACCESS_KEY}\n{SECRET_KEY}\n\n".encode())
    assert "the Superbed token that was set before stays" in again.err
    assert settings(studio)["superbed_token"] == TOKEN


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        (b"", ["access key", "nothing was given"]),
        (b"\n\n\n", ["access key", "nothing was given"]),
        (b"hush hush\nx\n", ["access key", "character 5"]),
        (b"hush-hush\n", ["secret key", "nothing was given"]),
        ("hush-hush\n密钥hush-hush\n".encode(), ["secret key", "character 1"]),
        (b"hush-hush\nhush\x07-hush\n", ["secret key", "character 5"]),
        (b"hush-hush\nhush-hush\nhush\xff-hush", ["Superbed", "character 5"]),
    ],
)
def test_what_can_be_no_key_is_named_and_not_shown(studio: Studio, stdin: bytes, words: list[str]) -> None:
    told, chinese = studio.run("init", stdin=stdin), studio.run("--lang", "zh", "init", stdin=stdin)

    assert (told.code, chinese.code) == (2, 2)
    assert [word for word in words if word not in told.err] == [], told
    assert told.err.count("error: ") == chinese.err.count("错误: ") == 1
    assert "hush" not in told.everything + chinese.everything
    assert_nothing_written(studio)


def test_one_key_in_two_accounts(studio: Studio) -> None:
    studio.run("init", "--account", "li", stdin=GOOD)
    before = toml(studio).read_bytes()

    told = studio.run("init", stdin=GOOD)

    assert told.code == 2
    assert "'li' and 'default' have the same access key" in told.err
    assert toml(studio).read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"concurrency = fixed", "TOML"), (b"# \xff\xfe", "UTF-8"), (b"concurency = 'fixed:1'", "concurency")],
)
def test_a_file_that_cannot_be_read_is_left_alone(studio: Studio, content: bytes, words: str) -> None:
    path = an_old_file(studio)
    path.write_bytes(content)

    told = studio.run("init", stdin=GOOD)

    assert told.code == 2
    assert told.err.count("error: ") == 1
    assert words in told.err
    assert str(path) in told.err
    assert path.read_bytes() == content
    assert_untold(told)


def test_a_home_that_cannot_be_made(studio: Studio) -> None:
    studio.write("home", "a file")

    told = studio.run("init", stdin=GOOD)

    assert told.code == 2
    assert str(toml(studio)) in told.err
    assert_untold(told)


@pytest.mark.parametrize("arguments", [[SECRET_KEY], ["--secret-key", SECRET_KEY], [f"--secret-key={SECRET_KEY}"]])
def test_keys_on_the_command_line_are_refused_and_not_repeated(studio: Studio, arguments: list[str]) -> None:
    told = studio.run("init", *arguments, stdin=GOOD)

    assert told.code == 2
    assert_untold(told)
    assert_nothing_written(studio)


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_an_account_needs_a_name(studio: Studio, name: str) -> None:
    told = studio.run("init", "--account", name, stdin=GOOD)

    assert (told.code, "--account" in told.err) == (2, True)
    assert_nothing_written(studio)


def test_it_says_what_comes_before_the_file_and_what_no_longer_counts(studio: Studio) -> None:
    quiet = studio.run("init", stdin=GOOD)
    studio.set(SUPERBED_TOKEN="other", VOLCENGINE_SECRET_KEY="other")
    studio.set(DUJIANG_ACCOUNTS='[{"name":"a","access_key":"b","secret_key":"c"}]')
    studio.write("dujiang.toml", "accounts = []")

    told = studio.run("init", stdin=GOOD)
    without_token = studio.run("init", stdin=f"{ACCESS_KEY}\n{SECRET_KEY}\n".encode())

    assert "note" not in quiet.err
    assert f"note: DUJIANG_ACCOUNTS, SUPERBED_TOKEN, {studio.folder / 'dujiang.toml'} comes before" in told.err
    assert "note: VOLCENGINE_SECRET_KEY no longer counts" in told.err
    assert told.err.count("note: ") == 2
    assert "SUPERBED_TOKEN" not in without_token.err
    assert_untold(told)


# -- in a terminal


def at_a_terminal(studio: Studio, *arguments: str) -> Typed:
    return studio.start("init", *arguments, terminal=(100, 24), keyboard=True)


def answer(process: Typed, question: str, words: str, times: int = 1) -> None:
    """Type it when the question stands there for the so-many-th time: what comes earlier, the terminal drops."""
    asked = re.compile(re.escape(question) + r"[^\r\n]*: (?=\r?\n|$)")
    eventually(lambda: len(asked.findall(process.raw.decode())) >= times)
    process.type(words)


@posix
def test_it_asks_and_does_not_show_what_is_typed(studio: Studio) -> None:
    process = at_a_terminal(studio)

    answer(process, "access key", f"{ACCESS_KEY}\n")
    answer(process, "secret key", f"{SECRET_KEY}\n")
    answer(process, "Superbed token", f"{TOKEN}\n")
    told = process.end()

    assert told.code == 0, told
    assert b"What you type is not shown" in process.raw
    assert_untold(told, Told(0, process.raw.decode(), ""))
    assert settings(studio)["superbed_token"] == TOKEN


@posix
def test_it_asks_again_for_what_can_be_no_key(studio: Studio) -> None:
    process = at_a_terminal(studio)

    answer(process, "access key", "\n")
    answer(process, "access key", "AKLT simulator\n", times=2)
    answer(process, "access key", f"  {ACCESS_KEY}  \n", times=3)
    answer(process, "secret key", f"{SECRET_KEY}\n")
    answer(process, "Superbed token", "\n")
    told = process.end()

    assert told.code == 0, told
    assert b"nothing was given" in process.raw
    assert b"character 5" in process.raw
    assert settings(studio) == {
        "accounts": [{"name": "default", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}],
    }


@posix
@pytest.mark.parametrize("leave", ["Ctrl-C", "Ctrl-D", "SIGTERM"])
def test_whoever_leaves_has_written_nothing(studio: Studio, leave: str) -> None:
    process = at_a_terminal(studio)
    answer(process, "access key", f"{ACCESS_KEY}\n")

    answer(process, "secret key", "\x04" if leave == "Ctrl-D" else "half")
    if leave != "Ctrl-D":
        process.interrupt(signal.SIGINT if leave == "Ctrl-C" else signal.SIGTERM)
    told = process.end()

    assert told.code == 7, told
    assert "nothing was written" in told.err
    assert "Traceback" not in told.err
    assert_nothing_written(studio)


# -- the system's keyring


class Keyring(ModuleType):
    """A library with one keyring, which can be locked, and can forget."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.held: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str]] = []
        self.locked = self.forgets = False

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise RuntimeError("No recommended backend was available")
        self.asked.append((service, name))
        return self.held.get((service, name))

    def set_password(self, service: str, name: str, secret: str) -> None:
        if not self.forgets:
            self.held[service, name] = secret


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    made = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", made)
    return made


def test_keys_in_the_keyring_are_found_there(studio: Studio, vendor: RunningSimulator, keyring: Keyring) -> None:
    studio.sheet("cats.csv", "a")

    told = studio.run("init", "--keyring", stdin=GOOD)

    assert told.code == 0, told
    (account,) = settings(studio)["accounts"]
    for reference in (account["access_key"], account["secret_key"], settings(studio)["superbed_token"]):
        assert reference.startswith("keyring:dujiang/")
    assert sorted(keyring.held.values()) == sorted([ACCESS_KEY, SECRET_KEY, TOKEN])
    assert not any(secret in toml(studio).read_text() for secret in (ACCESS_KEY, SECRET_KEY, TOKEN))
    assert studio.run("run", "cats.csv").code == 0
    assert_untold(told, studio.run("config", "get"), studio.run("doctor"))


def test_the_keyring_is_asked_only_by_who_needs_a_key_and_once(studio: Studio, keyring: Keyring) -> None:
    studio.run("init", "--keyring", stdin=GOOD)
    keyring.asked.clear()

    studio.run("tasks", "list")
    assert keyring.asked == []
    studio.run("doctor")
    assert len(keyring.asked) == len(set(keyring.asked)) == 3


def test_doctor_finds_a_token_that_the_keyring_does_not_hold(studio: Studio, keyring: Keyring) -> None:
    studio.set(SUPERBED_TOKEN="keyring:dujiang/nothing")

    found = {check["check"]: check for check in studio.run("doctor", "--json").lines}

    assert (found["host"]["ok"], found["host"]["help"]) == (False, "docs/troubleshooting.md#keys")


def test_keys_of_another_home_are_not_overwritten(studio: Studio, keyring: Keyring) -> None:
    studio.run("init", "--keyring", stdin=GOOD)
    before = studio.run("config", "get", "accounts").out

    studio.run("init", "--keyring", "--home", "other", stdin=b"AKLTother\nb3RoZXI=\n")

    assert studio.run("config", "get", "accounts").out == before
    assert studio.run("config", "get", "accounts", "--home", "other").out != before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no library", "pip install keyring"),
        ("locked", "No recommended backend was available"),
        ("forgets", "did not keep"),
        ("twice", "have the same access key"),
    ],
)
def test_a_keyring_that_cannot_be_used(
    studio: Studio, keyring: Keyring, fault: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring.locked, keyring.forgets = fault == "locked", fault == "forgets"
    if fault == "no library":
        monkeypatch.setitem(sys.modules, "keyring", None)
    if fault == "twice":
        studio.run("init", "--account", "li", stdin=GOOD)
        before = toml(studio).read_bytes()

    told = studio.run("init", "--keyring", stdin=GOOD)

    assert told.code in {2, 4}
    assert told.err.count("error: ") == 1
    assert words in told.err
    assert keyring.held == {}
    assert_untold(told)
    if fault == "twice":
        assert toml(studio).read_bytes() == before
    else:
        assert_nothing_written(studio)


@pytest.mark.parametrize("gone", ["library", "entry"])
def test_a_run_without_its_keyring_says_so(
    studio: Studio, vendor: RunningSimulator, keyring: Keyring, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.sheet("cats.csv", "a")
    studio.run("init", "--keyring", stdin=GOOD)
    keyring.held.clear()
    if gone == "library":
        monkeypatch.setitem(sys.modules, "keyring", None)

    told, doctor = studio.run("run", "cats.csv"), studio.run("doctor", "--json")

    assert (told.code, doctor.code) == (4, 4)
    assert told.err.count("error: ") == 1
    assert ("run dujiang init again" if gone == "entry" else "pip install keyring") in told.err
    assert {check["check"]: check["ok"] for check in doctor.lines} == {"keys": False}
    assert vendor.ledger()["submits"] == 0
