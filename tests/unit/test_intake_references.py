"""A row's references: several in a cell or a list, and each broken one named with row, field, value and limit."""

import base64
import contextvars
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from dujiang.domain.pictures import MEGABYTE, LocalPicture
from dujiang.domain.requests import Problem
from dujiang.domain.rows import RawRow
from dujiang.intake_formats import open_rows
from dujiang.messages import Language, use_language
from dujiang.ports import NewTask
from dujiang.providers.jimeng.models import MODELS, model_named
from dujiang.runner.intake import SHOWN, Intake, described
from dujiang.storage.reference_files import ReferenceFiles

from .test_pictures import PICTURES, a_png

PNG = PICTURES["png"]
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def of_size(width: int, height: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return a_png((b"IHDR", size + b"\x08\x02\0\0\0"), (b"IDAT", b"x"), (b"IEND", b""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.jpg").write_bytes(PICTURES["jpeg"])
    (tmp_path / "cut.png").write_bytes(PNG[:-3])
    (tmp_path / "c.webp").write_bytes(PICTURES["webp"])
    (tmp_path / "wide.png").write_bytes(of_size(5000, 1000))
    return tmp_path


def read(folder: Path, rows: Iterable[RawRow]) -> list[NewTask | list[Problem]]:
    files = ReferenceFiles(folder)
    return list(Intake(MODELS, "4.0", model_named=model_named, read_reference=files.read).read(rows))


def references(folder: Path, refs: object, **values: object) -> list[str]:
    (made,) = read(folder, [RawRow(2, {"prompt": "a cat", "refs": refs, **values})])
    assert isinstance(made, NewTask), made
    return [one if isinstance(one, str) else Path(one.path).name for one in made.request.references]


def problems(folder: Path, refs: object, **values: object) -> list[Problem]:
    (made,) = read(folder, [RawRow(2, {"prompt": "a cat", "refs": refs, **values})])
    assert isinstance(made, list), made
    return made


def told(problem: Problem, language: Language) -> str:
    def tell() -> str:
        use_language(language)
        return described(problem)

    return contextvars.copy_context().run(tell)


@pytest.mark.parametrize(
    "refs",
    [
        "a.png|https://example.com/x.png|b.jpg",
        " a.png \n\n https://example.com/x.png\r\nb.jpg\n",
        ["a.png", "https://example.com/x.png", " b.jpg "],
    ],
)
def test_several_references_keep_their_order(refs: object, folder: Path) -> None:
    assert references(folder, refs) == ["a.png", "https://example.com/x.png", "b.jpg"]


def test_a_picture_may_stand_in_the_cell_itself(folder: Path) -> None:
    first, second, third = references(folder, f"a.png|{DATA}\n{DATA}")

    assert first == "a.png"
    assert second == third
    assert second.endswith(".png")


def test_files_and_pictures_in_json_lines(folder: Path) -> None:
    sheet = folder / "a.jsonl"
    sheet.write_text(f'{{"prompt": "a", "refs": ["a.png", "{DATA}"]}}\n{{"prompt": "b", "refs": "b.jpg"}}\n')

    first, second = read(folder, open_rows(sheet))

    assert isinstance(first, NewTask)
    assert isinstance(second, NewTask)
    pictures = [one for one in (*first.request.references, *second.request.references) if isinstance(one, LocalPicture)]
    assert [picture.kind for picture in pictures] == ["png", "png", "jpeg"]
    assert pictures[0].sha256 == pictures[1].sha256


def test_a_broken_picture_is_named_in_both_languages(folder: Path) -> None:
    (found,) = problems(folder, "a.png|cut.png|https://example.com/x.png")

    assert (found.code, found.field, found.row) == ("reference_broken", "refs", 2)
    for language in Language:
        words = told(found, language)
        assert "2" in words
        assert "cut.png" in words
    assert told(found, Language.ZH) != told(found, Language.EN)


def test_every_reference_that_is_wrong_is_named(folder: Path) -> None:
    found = problems(folder, ["none.png", "cut.png", "ftp://x/a.png", ".", "data:image/png;base64,!"])

    assert [problem.code for problem in found] == [
        "reference_missing",
        "reference_broken",
        "reference_scheme",
        "reference_no_file",
        "reference_inline",
    ]
    assert all(problem.field == "refs" and problem.row == 2 for problem in found)


@pytest.mark.parametrize(
    ("model", "refs", "code", "value", "limit"),
    [
        ("4.0", "c.webp", "reference_kind", "WEBP", "JPEG, PNG"),
        ("4.0", "wide.png", "reference_sides", "5000×1000", "≤ 4096×4096"),
        ("4.6", "wide.png", "reference_shape", "5000×1000", "1:3 – 3:1"),
        ("i2i-3.0", "c.webp", "reference_kind", "WEBP", "JPEG, PNG"),
        ("3.1", "a.png", "references_count", "1", "0–0"),
        ("i2i-3.0", "a.png|b.jpg", "references_count", "2", "1–1"),
        ("4.0", "|".join(["a.png"] * 11), "references_count", "11", "0–10"),
    ],
)
def test_what_a_model_does_not_take_is_named_with_its_limit(
    folder: Path, model: str, refs: str, code: str, value: str, limit: str
) -> None:
    found = next(problem for problem in problems(folder, refs, model=model) if problem.code == code)

    assert value in found.value
    assert found.limit == limit
    for language in Language:
        assert limit in told(found, language)


def test_what_is_wrong_with_a_picture_far_down_is_told_in_full(folder: Path) -> None:
    deep = folder / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    (deep / "wide.png").write_bytes(of_size(5000, 1000))

    found = problems(folder, str(deep / "wide.png"))

    for problem in found:
        assert len(problem.value) <= SHOWN
        assert problem.value.endswith("wide.png (5000×1000)")


def test_pictures_in_a_wrong_column_are_not_remembered_whole(folder: Path) -> None:
    def rows() -> Iterable[RawRow]:
        for number in range(2, 42):
            yield RawRow(number, {"prompt": "a cat", "ref": f"data:image/png;base64,{number:0{MEGABYTE}}"})

    tracemalloc.start()
    try:
        found = read(folder, rows())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [problem.code for made in found if isinstance(made, list) for problem in made] == ["column_close"] * 40
    assert peak < 10 * MEGABYTE
