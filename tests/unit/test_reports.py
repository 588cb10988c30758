"""Reports are whole or not there, and failed.csv is an input again."""

import csv
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dujiang.domain.errors import StoreError
from dujiang.storage.folders import FolderTaken, open_batch_folder, read_marker
from dujiang.storage.reports import FailedRow, failed, manifest, write_failed, write_manifest, write_summary


def a_row(**changes: object) -> FailedRow:
    values: dict[str, object] = {
        "prompt": "一只猫，\n两行",
        "model": "4.0",
        "batch": "b1",
        "row": "h:1",
        "state": "failed",
        "error": "bad",
    }
    return FailedRow(**{**values, **changes})  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_manifest_has_a_line_for_each_picture(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [{"task": 1, "prompt": "猫\n"}, {"task": 2}])

    assert path == tmp_path / "manifest.jsonl"
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"task": 1, "prompt": "猫\n"},
        {"task": 2},
    ]
    assert "猫" in path.read_text("utf-8")


async def test_rows_may_come_one_by_one_from_an_engine(tmp_path: Path) -> None:
    async def pages() -> AsyncIterator[dict[str, object]]:
        for task in range(3):
            yield {"task": task}

    with manifest(tmp_path) as add:
        async for line in pages():
            add(line)
    with failed(tmp_path, ["width"]) as add_row:
        add_row(a_row())

    assert len((tmp_path / "manifest.jsonl").read_text("utf-8").splitlines()) == 3
    assert names(tmp_path) == ["failed.csv", "manifest.jsonl"]


def test_failed_rows_are_an_input_again(tmp_path: Path) -> None:
    parameters = {"width": 1024, "force_single": True}
    links = ["https://a/1", "https://a/2"]

    path = write_failed(
        tmp_path,
        [a_row(parameters=parameters, references=links, id="A1", name="a"), a_row()],
        ["width", "height", "force_single"],
    )

    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "Excel needs the mark to show Chinese"
    with path.open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "prompt": "一只猫，\n两行",
        "id": "A1",
        "name": "a",
        "refs": "https://a/1|https://a/2",
        "model": "4.0",
        "width": "1024",
        "height": "",
        "force_single": "true",
        "batch": "b1",
        "row": "h:1",
        "state": "failed",
        "error": "bad",
    }
    assert (second["id"], second["refs"], second["width"]) == ("", "", "")


def test_a_summary_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write_summary(tmp_path, {"state": "running"})
    path = write_summary(tmp_path, {"state": "done", "name": "都江"})

    assert json.loads(path.read_text("utf-8")) == {"state": "done", "name": "都江"}
    assert names(tmp_path) == ["summary.json"]


def test_a_report_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"task": 1}
        raise RuntimeError

    path = write_manifest(tmp_path, [{"task": 0}])
    with pytest.raises(RuntimeError):
        write_manifest(tmp_path, rows())

    assert json.loads(path.read_text("utf-8")) == {"task": 0}
    assert names(tmp_path) == ["manifest.jsonl"]


def test_a_report_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "failed.csv" / "in the way").mkdir(parents=True)

    with pytest.raises(StoreError, match=r"failed\.csv") as caught:
        write_failed(tmp_path, [a_row()], [])

    assert caught.value.why == "denied"
    assert names(tmp_path) == ["failed.csv"]


# -- the batch's folder -----------------------------------------------------------------------------------------------


def test_a_batch_has_a_folder_that_says_whose_it_is(tmp_path: Path) -> None:
    folder = open_batch_folder(tmp_path / "out", "prompts", "b1")

    assert folder == tmp_path / "out" / "prompts"
    assert names(folder) == [".dujiang-batch", "images"]
    assert read_marker(tmp_path / "out", "prompts") == "b1"
    assert open_batch_folder(tmp_path / "out", "prompts", "b1") == folder


def test_a_folder_of_another_batch_is_left_alone(tmp_path: Path) -> None:
    open_batch_folder(tmp_path, "prompts", "b1")

    with pytest.raises(FolderTaken, match="b1"):
        open_batch_folder(tmp_path, "prompts", "b2")

    assert read_marker(tmp_path, "prompts") == "b1"


def test_an_empty_marker_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / ".dujiang-batch").touch()

    assert read_marker(tmp_path, "prompts") is None
    open_batch_folder(tmp_path, "prompts", "b1")
    assert read_marker(tmp_path, "prompts") == "b1"


def test_no_folder_has_no_owner(tmp_path: Path) -> None:
    assert read_marker(tmp_path, "prompts") is None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")

    with pytest.raises(StoreError, match="a file"):
        open_batch_folder(tmp_path / "a file", "prompts", "b1")
