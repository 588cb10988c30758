"""Keys are told to the vendor's signature and to nobody else: not on success, not on any failure."""

from pathlib import Path

import pytest

from dujiang.simulator import RunningSimulator
from dujiang.simulator.pictures import picture

from .conftest import MakeVendor
from .studio import Studio, Told

ACCESS = "AKLTcanaryAccessNeverShown"
SECRET = "Y2FuYXJ5LXNlY3JldC1uZXZlci1zaG93bg=="
TOKEN = "STScanaryTokenNeverShown"
WRONG = "d3JvbmctY2FuYXJ5LXNlY3JldA=="
HOST_TOKEN = "superbed-canary-token-never-shown"
CANARIES = [word.encode() for word in (ACCESS, SECRET, TOKEN, WRONG, HOST_TOKEN)]
PROMPT = "canary-prompt-told-to-the-vendor-alone"


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
    studio.set(VOLCENGINE_ACCESS_KEY=ACCESS, VOLCENGINE_SECRET_KEY=SECRET, DUJIANG_DEBUG=1, DUJIANG_LOG_LEVEL="debug")
    vendor = make_vendor(accounts={ACCESS: (SECRET, "canary")}, host_tokens={HOST_TOKEN: "canary"}, upload_s=0.0)
    studio.set(SUPERBED_TOKEN=HOST_TOKEN, DUJIANG_SUPERBED_ENDPOINT=vendor.url)
    return vendor


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


def spoken(studio: Studio, *told: Told) -> str:
    """Everything but the data on stdout, where prompts belong: stderr and the log, whole."""
    log = (studio.home / "logs" / "app.log").read_text("utf-8")
    return log + "".join(one.err for one in told)


EVERY_KIND = [
    *("a", "[sim:50412] b", "[sim:50511 once] c", "[sim:50215] d", "[sim:50430 once] e", "[sim:50429 once] f"),
    *("[sim:lost-answer] g", "[sim:garbage_body] h", "[sim:submit-503] i", "[sim:poll-503] j", "[sim:poll-reset] k"),
    *("[sim:poll-garbage] l", "[sim:cut-download] m", "[sim:download-503] n", "[sim:empty] o", "[sim:status:odd] p"),
    *("[sim:submit:100014] q", "[sim:submit:50500] r", "[sim:submit:50218] s", "[sim:reset-before-reading] t"),
]


@pytest.mark.parametrize("as_json", [0, 1])
def test_prompts_are_told_to_the_vendor_alone_on_every_path(
    studio: Studio, guarded: RunningSimulator, as_json: int
) -> None:
    studio.set(DUJIANG_LOG_JSON=as_json)
    studio.sheet("cats.csv", *(f"{PROMPT} {kind}" for kind in EVERY_KIND))

    told = studio.run("run", "cats.csv")

    assert told.code == 8
    assert guarded.ledger()["accepted"] > 10
    assert PROMPT not in spoken(studio, told)
    assert_untold(studio, told)


def test_whoever_wants_prompts_in_the_log_gets_them(studio: Studio, guarded: RunningSimulator) -> None:
    studio.sheet("cats.csv", PROMPT)

    told = studio.run("run", "cats.csv", "--log-prompts", "--log-file", "own.log")

    assert PROMPT in told.err
    assert PROMPT in (studio.folder / "own.log").read_text("utf-8")


def test_a_host_that_fails_in_every_way_is_never_told_about_with_its_token(
    studio: Studio, guarded: RunningSimulator
) -> None:
    faults = ("upload_reset", "upload_503", "upload_429", "upload_504", "upload_garbage", "upload_lost")
    guarded.plan_faults("upload", *faults)
    rows = [f"r{n},{PROMPT} {n},{a_reference(studio, n)}" for n in range(8)]
    rows.append(f"r9,{PROMPT},{a_reference(studio, 9, 'x[sim:refuse].png')}")
    studio.write("cats.csv", "id,prompt,refs", *rows)

    told = studio.run("run", "cats.csv", "--json")

    assert told.code == 0, told.err
    assert len(guarded.ledger()["items"]) >= 8
    assert PROMPT not in spoken(studio, told)
    assert "?" not in "".join(line for line in spoken(studio, told).splitlines() if "/item/" in line)
    assert_untold(studio, told, *everything_that_shows(studio))


def test_a_refused_token(studio: Studio, guarded: RunningSimulator) -> None:
    guarded.configure(host_tokens={"another-token": "other"})
    studio.write("cats.csv", "id,prompt,refs", f"r1,{PROMPT},{a_reference(studio, 1)}")

    told = studio.run("run", "cats.csv")

    assert told.code == 4
    assert_untold(studio, told, *everything_that_shows(studio))


def a_reference(studio: Studio, number: int, name: str = "") -> str:
    """A picture of its own in the studio's folder."""
    path = studio.folder / (name or f"ref-{number}.png")
    path.write_bytes(b"".join(picture(str(number), number, "reference", (64, 64))))
    return path.name


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
