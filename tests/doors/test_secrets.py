"""Keys are told to the vendor's signature and to nobody else: not on success, not on any failure."""

from pathlib import Path

import pytest

from dujiang.simulator import RunningSimulator

from .conftest import MakeVendor
from .studio import Studio, Told

ACCESS = "AKLTcanaryAccessNeverShown"
SECRET = "Y2FuYXJ5LXNlY3JldC1uZXZlci1zaG93bg=="
TOKEN = "STScanaryTokenNeverShown"
WRONG = "d3JvbmctY2FuYXJ5LXNlY3JldA=="
CANARIES = [word.encode() for word in (ACCESS, SECRET, TOKEN, WRONG)]


def places_of_canaries(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "dujiang.toml" and any(word in path.read_bytes() for word in CANARIES):
            found.append(str(path))
    return found


def assert_untold(studio: Studio, *told: Told) -> None:
    spoken = "".join(one.everything for one in told).encode()
    assert [word for word in CANARIES if word in spoken] == []
    assert places_of_canaries(studio.folder) == []


@pytest.fixture
def guarded(studio: Studio, make_vendor: MakeVendor, monkeypatch: pytest.MonkeyPatch) -> RunningSimulator:
    """A vendor that takes the canary's keys. Errors are printed in full, as for somebody who looks for a bug."""
    studio.set(VOLCENGINE_ACCESS_KEY=ACCESS, VOLCENGINE_SECRET_KEY=SECRET, SUPERBED_TOKEN=TOKEN, DUJIANG_DEBUG=1)
    return make_vendor(accounts={ACCESS: (SECRET, "canary")})


def everything_that_shows(studio: Studio) -> list[Told]:
    commands = [
        ["tasks", "list", "--json"], ["tasks", "show", "1", "--json"], ["tasks", "show", "1"], ["batch", "list"],
        ["batch", "show", "cats", "--json"], ["doctor"], ["doctor", "--json"], ["config", "get"], ["version"],
        ["config", "schema", "--json"], ["config", "get", "accounts"], ["config", "get", "volcengine_access_key"],
        ["config", "get", "superbed_token"], ["init", "--home", "another"],
    ]  # fmt: skip
    return [studio.run(*command) for command in commands]


def test_a_run_of_every_kind_of_task(studio: Studio, guarded: RunningSimulator) -> None:
    prompts = [
        "a",
        "[sim:50412] b",
        "[sim:50215] c",
        "[sim:lost-answer] d",
        "[sim:garbage_body] e",
        "[sim:submit-503] f",
    ]
    studio.sheet("cats.csv", *prompts)

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 8
    assert_untold(studio, told, *everything_that_shows(studio))


def test_refused_keys(studio: Studio, guarded: RunningSimulator) -> None:
    studio.set(VOLCENGINE_SECRET_KEY=WRONG)
    studio.sheet("cats.csv", "a")

    told = studio.run("run", "cats.csv")

    assert told.code == 4
    assert_untold(studio, told, *everything_that_shows(studio))


def test_a_vendor_that_is_away(studio: Studio, guarded: RunningSimulator) -> None:
    studio.use("http://127.0.0.1:9")
    studio.sheet("cats.csv", "a")

    told = studio.run("run", "cats.csv")

    assert told.code == 6
    assert_untold(studio, told, *everything_that_shows(studio))


@pytest.mark.parametrize(
    "lines",
    [
        [f"access_key = '{ACCESS}'", f"secret_key = '{SECRET}'"],
        ["[[accounts]]", "name = 'a'", f"access_key = '{ACCESS}'", f"secret_kye = '{SECRET}'"],
        ["[[accounts]]", f"access_key = '{ACCESS}'", f"secret_key = '{SECRET}'", f"session_token = '{TOKEN}'"],
        ["[[accounts]]", "name = 'a'", f"keys = '{ACCESS}:{SECRET}'"],
        ["[[accounts]]", "name = 'a'", f"access_key = {ACCESS}"],
        [f'accounts = \'[{{"name":"a","access_key":"{ACCESS}"\''],
        [f"concurrency = '{SECRET}'", f"time_scale = '{SECRET}'", f"lang = '{SECRET}'"],
        [f"database_url = 'postgresql://me:{WRONG}@db/x'"],
    ],
)
def test_settings_that_cannot_be_used(studio: Studio, guarded: RunningSimulator, lines: list[str]) -> None:
    studio.set(DUJIANG_TIME_SCALE=None, DUJIANG_LANG=None, VOLCENGINE_ACCESS_KEY=None, VOLCENGINE_SECRET_KEY=None)
    studio.write("dujiang.toml", *lines)
    studio.sheet("cats.csv", "a")

    told = studio.run("run", "cats.csv")

    assert told.code in {2, 4}
    assert_untold(studio, told, *everything_that_shows(studio))


def test_several_accounts_from_a_file(studio: Studio, guarded: RunningSimulator) -> None:
    studio.set(VOLCENGINE_ACCESS_KEY=None, VOLCENGINE_SECRET_KEY=None)
    studio.write(
        "dujiang.toml",
        *("[[accounts]]", "name = 'one'", f"access_key = '{ACCESS}'", f"secret_key = '{SECRET}'"),
        *(
            "[[accounts]]",
            "name = 'two'",
            "access_key = 'AKLTother'",
            f"secret_key = '{WRONG}'",
            f"session_token = '{TOKEN}'",
        ),
    )
    studio.sheet("cats.csv", "a", "b")

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 0, told
    assert_untold(studio, told, *everything_that_shows(studio))
