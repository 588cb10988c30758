"""References from files, as a user has them: beside the sheet, published once, and what is said when they can't be."""

import base64
import csv
import json
from pathlib import Path

import pytest

from dujiang.simulator import RunningSimulator
from dujiang.simulator.pictures import picture
from tests.raw_vendor import a_png

from .conftest import MakeVendor
from .studio import Studio, eventually

TOKEN = "superbed-simulator-token"


def other_png(number: int) -> bytes:
    """A picture with other bytes: what follows its end does no harm."""
    return a_png() + bytes([number])


@pytest.fixture
def hosted(studio: Studio, vendor: RunningSimulator) -> RunningSimulator:
    """A vendor, and the image host beside it."""
    with_host(studio, vendor)
    return vendor


def with_host(studio: Studio, vendor: RunningSimulator, token: str = TOKEN) -> None:
    studio.set(DUJIANG_SUPERBED_ENDPOINT=vendor.url, SUPERBED_TOKEN=token)


def put(studio: Studio, name: str, content: bytes | None = None) -> Path:
    path = studio.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(a_png() if content is None else content)
    return path


def sheet(studio: Studio, *refs: str, header: str = "prompt,refs", model: str = "") -> None:
    studio.write("cats.csv", header, *(f"cat {number},{each}{model}" for number, each in enumerate(refs, start=1)))


def reason_that_begins(studio: Studio, words: str) -> str:
    found = studio.run("tasks", "list", "--batch", "cats", "--json")
    reasons = [task["reason"] or "" for task in found.lines] if found.code == 0 else []
    return next((reason for reason in reasons if reason.startswith(words)), "")


def test_files_beside_the_sheet_are_published_once_and_sent_as_links(studio: Studio, hosted: RunningSimulator) -> None:
    put(studio, "refs/a.png")
    put(studio, "b.png", other_png(1))
    sheet(studio, "refs/a.png|b.png", f"{studio.folder / 'b.png'}|https://example.com/x.png", "refs/a.png")

    told = studio.run("run", "cats.csv")

    assert told.code == 0, told
    items = hosted.ledger()["items"]
    assert len(items) == 2
    assert not any(name in item["name"] for item in items for name in ("a.png", "b.png", "refs"))
    assert len(hosted.ledger()["charges"]) == 3
    assert studio.run("run", "cats.csv").code == 0
    assert len(hosted.ledger()["items"]) == 2


def test_refs_says_where_relative_paths_begin(studio: Studio, hosted: RunningSimulator) -> None:
    put(studio, "shop/a.png")
    sheet(studio, "a.png")

    assert studio.run("plan", "cats.csv").code == 2
    assert studio.run("plan", "cats.csv", "--refs", "shop").code == 0
    assert studio.run("run", "cats.csv").code == 2
    assert hosted.ledger()["items"] == []
    told = studio.run("run", "cats.csv", "--refs", "shop")

    assert told.code == 0, told
    assert len(hosted.ledger()["items"]) == 1


def test_plan_needs_no_token_names_everything_and_keeps_nothing(studio: Studio) -> None:
    put(studio, "a.png")
    put(studio, "cut.png", a_png()[:-1])
    inline = f"data:image/png;base64,{base64.b64encode(a_png()).decode()}"
    sheet(studio, "a.png", "cut.png|none.png", f'"{inline}"', "ftp://x/y.png")

    told = studio.run("plan", "cats.csv")

    assert told.code == 2
    for words in ("row 3", "cut.png", "none.png", "row 5", "ftp://x/y.png"):
        assert words in told.everything
    assert not (studio.home / "uploads").exists()
    chinese = studio.run("--lang", "zh", "plan", "cats.csv").everything
    assert "cut.png" in chinese
    assert "参考图" in chinese


@pytest.mark.parametrize("token", [None, "", "  "])
def test_without_a_token_nothing_is_stored_or_sent(studio: Studio, vendor: RunningSimulator, token: str | None) -> None:
    studio.set(DUJIANG_SUPERBED_ENDPOINT=vendor.url, SUPERBED_TOKEN=token)
    put(studio, "a.png")
    sheet(studio, "a.png", "")

    told = studio.run("run", "cats.csv")

    assert told.code == 4, told
    assert "SUPERBED_TOKEN" in told.err
    assert not (studio.home / "dujiang.db").exists()
    assert not studio.out.exists()
    assert vendor.ledger()["charges"] == vendor.ledger()["items"] == []


def test_public_links_need_no_token(studio: Studio, vendor: RunningSimulator) -> None:
    sheet(studio, "https://example.com/a.png")

    assert studio.run("run", "cats.csv").code == 0


def test_where_the_model_takes_that_a_picture_goes_into_the_request(studio: Studio, vendor: RunningSimulator) -> None:
    put(studio, "a.png")
    sheet(studio, "a.png", header="prompt,refs,model", model=",i2i-3.0")

    told = studio.run("run", "cats.csv")

    assert told.code == 0, told
    assert vendor.ledger()["items"] == []
    assert len(vendor.ledger()["charges"]) == 1


def test_a_picture_in_the_sheet_itself_is_kept_and_published(studio: Studio, hosted: RunningSimulator) -> None:
    content = a_png() + bytes(2_000_000)
    inline = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    studio.write("cats.jsonl", json.dumps({"prompt": "a", "refs": [inline]}), json.dumps({"prompt": "b"}))
    sheet(studio, f'"{inline}"')

    told = [studio.run("run", "cats.jsonl"), studio.run("run", "cats.csv", "--name", "table")]

    assert [one.code for one in told] == [0, 0], told
    (kept,) = (studio.home / "uploads").iterdir()
    assert kept.read_bytes() == content
    (item,) = hosted.ledger()["items"]
    assert item["bytes"] == len(content)


def test_a_wrong_token_ends_the_run_and_stands_in_no_text(studio: Studio, hosted: RunningSimulator) -> None:
    studio.set(SUPERBED_TOKEN="a-wrong-token-of-mine")
    put(studio, "a.png")
    sheet(studio, "a.png", "")

    told = studio.run("run", "cats.csv")

    assert told.code == 4, told
    assert "token 无效" in told.err
    assert "a-wrong-token" not in told.everything
    assert [job["prompt"] for job in hosted.ledger()["charges"]] == ["cat 2"]

    studio.set(SUPERBED_TOKEN=TOKEN)
    assert studio.run("run", "cats.csv").code == 0


def test_a_picture_that_the_host_refuses_fails_its_task_and_failed_csv_runs(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    vendor = make_vendor(host_max_bytes=1000)
    with_host(studio, vendor)
    large = put(studio, "refs/large.png", a_png() + bytes(2000))
    put(studio, "a.png")
    sheet(studio, "refs/large.png", "a.png")

    told = studio.run("run", "cats.csv")

    assert told.code == 3, told
    failed = studio.out / "cats" / "failed.csv"
    (row,) = csv.DictReader(failed.read_text("utf-8-sig").splitlines())
    assert row["refs"] == str(large)
    assert "3002" in row["error"]
    (task,) = studio.run("tasks", "list", "--batch", "cats", "--json", "--state", "failed").lines
    assert (task["refs"], task["error"]["code"]) == ([str(large)], "picture_refused")

    vendor.configure(host_max_bytes=10_000)
    again = studio.run("run", failed, "--retry-failed")
    assert again.code == 0, again
    assert len(vendor.ledger()["charges"]) == 2


def test_why_a_task_waits_for_its_pictures_is_told(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(upload_s=3000.0)  # of the vendor's seconds
    with_host(studio, vendor)
    first, second = put(studio, "a.png"), put(studio, "b.png", other_png(1))
    sheet(studio, "a.png|b.png|https://example.com/x.png")
    studio.start("run", "cats.csv")

    def reason() -> str:
        return reason_that_begins(studio, "upload(")

    assert eventually(reason) == "upload(0/2)"
    (task,) = studio.run("tasks", "list", "--batch", "cats", "--json").lines
    assert task["refs"] == [str(first), str(second), "https://example.com/x.png"]


def test_a_host_that_is_away_is_told_as_the_reason(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(host_down=True)
    with_host(studio, vendor)
    put(studio, "a.png")
    sheet(studio, "a.png")
    studio.start("run", "cats.csv")

    def reason() -> str:
        return reason_that_begins(studio, "host(")

    assert eventually(reason).startswith("host(superbed, 503, next ")


def test_five_hundred_tasks_that_share_twelve_references_upload_twelve(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=1.0, queue_s=0.0, upload_s=0.1)
    studio.set(SUPERBED_TOKEN="superbed-simulator-token", DUJIANG_SUPERBED_ENDPOINT=vendor.url)
    for number in range(12):
        content = b"".join(picture(str(number), number, "reference", (64, 64)))
        (studio.folder / f"ref-{number}.png").write_bytes(content)
    rows = [f"r{n},cat {n},ref-{n % 12}.png|ref-{(n * 5 + 1) % 12}.png" for n in range(500)]
    studio.write("cats.csv", "id,prompt,refs", *rows)

    told = studio.run("run", "cats.csv", "--concurrency", "fixed:50", "--json")
    first = vendor.ledger()
    again = studio.run("run", "cats.csv", "--json")
    second = vendor.ledger()

    assert (told.code, told.json["counts"]) == (0, {"succeeded": 500})
    assert (first["uploads"], len(first["items"]), first["accepted"]) == (12, 12, 500)
    assert again.code == 0
    assert (second["uploads"], second["submits"]) == (first["uploads"], first["submits"])
