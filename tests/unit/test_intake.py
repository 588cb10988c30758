"""Rows become tasks, or the list of everything that is wrong with them, in words."""

import contextvars
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dujiang.domain.requests import ModelSpec, Number, Problem, Truth, Value
from dujiang.domain.rows import InputError, RawRow
from dujiang.intake_formats import open_rows
from dujiang.messages import TEXTS, Language, text, use_language
from dujiang.ports import NewTask
from dujiang.runner.intake import Intake, described
from dujiang.storage.reports import FailedRow, write_failed


def area_between(low: int, high: int) -> Any:
    def rule(parameters: dict[str, Value], references: int) -> Sequence[Problem]:
        area = int(parameters.get("width", low)) * int(parameters.get("height", low))
        within = low**2 <= area <= high**2
        return [] if within else [Problem("parameter_out_of_range", "width × height", str(area), f"[{low}², {high}²]")]

    return rule


SIDE = Number(1, 20_000, whole=True)
MODELS = {
    "4.0": ModelSpec(
        "4.0",
        "t2i_v40",
        {
            "size": Number(1024**2, 4096**2, whole=True),
            "width": SIDE,
            "height": SIDE,
            "scale": Number(0, 1),
            "force_single": Truth(),
        },
        references_max=10,
        rules=(area_between(1024, 4096),),
        defaults={"force_single": True},
    ),
    "3.1": ModelSpec(
        "3.1",
        "t2i_v31",
        {"width": SIDE, "height": SIDE, "seed": Number(-1, 99, whole=True)},
        rules=(area_between(512, 2048),),
    ),
    "i2i-3.0": ModelSpec(
        "i2i-3.0", "i2i_v30", {side: Number(512, 2016, whole=True) for side in ("width", "height")}, references_max=1
    ),
    "plain": ModelSpec("plain", "plain", {}),
}


def read(*rows: dict[str, object], intake: Intake | None = None) -> list[NewTask | list[Problem]]:
    intake = intake or Intake(MODELS, "4.0")
    return list(intake.read(RawRow(number, values) for number, values in enumerate(rows, start=2)))


def tasks(*rows: dict[str, object], intake: Intake | None = None) -> list[NewTask]:
    made = read(*rows, intake=intake)
    assert all(isinstance(task, NewTask) for task in made), made
    return made  # type: ignore[return-value]


def task(**values: object) -> NewTask:
    (made,) = tasks({"prompt": "a cat", **values})
    return made


def problems(*rows: dict[str, object]) -> list[Problem]:
    return [problem for made in read(*rows) if isinstance(made, list) for problem in made]


def problem(**values: object) -> Problem:
    (found,) = problems({"prompt": "a cat", **values})
    assert found.row == 2
    assert found.code in TEXTS
    for language in Language:
        assert "2" in contextvars.copy_context().run(described_in, language, found)
    return found


def described_in(language: Language, found: Problem) -> str:
    use_language(language)
    return described(found)


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_task() -> None:
    made = task(
        id="A1", width="1024", height="2048", scale="0.7", refs="https://a/1|https://a/2\nhttps://a/3", priority="5"
    )

    assert (made.row, made.position, made.name, made.req_key, made.priority) == ("A1", 1, "00001-A1", "t2i_v40", 5)
    assert made.request.prompt == "a cat"
    assert made.request.parameters == {"width": 1024, "height": 2048, "scale": 0.7, "force_single": True}
    assert made.request.references == ("https://a/1", "https://a/2", "https://a/3")


@pytest.mark.parametrize(
    "columns", [("提示词", "编号", "优先级"), ("描述", "SKU", "Priority"), (" Prompt ", "ＩＤ", "PRIORITY")]
)
def test_columns_may_be_named_in_chinese_and_in_any_case(columns: tuple[str, str, str]) -> None:
    prompt, key, priority = columns

    (made,) = tasks({prompt: " 一只猫 ", key: "A1", priority: "-3"})

    assert (made.request.prompt, made.row, made.priority) == ("一只猫", "A1", -3)


def test_empty_cells_are_not_given() -> None:
    made = task(id="", width=" ", height=None, seed="", count="", name="", model="", ratio="", size="", refs="")

    assert made.request.parameters == {"force_single": True}
    assert made.row.endswith(":1")


def test_a_row_may_name_its_model() -> None:
    made = task(模型="3.1", seed="7")

    assert (made.req_key, made.request.model, made.request.parameters) == ("t2i_v31", "3.1", {"seed": 7})


def test_models_may_have_other_names() -> None:
    intake = Intake(MODELS, "4.0", model_named=lambda name: MODELS.get(name.removeprefix("v")))

    (made,) = tasks({"prompt": "a", "model": "v3.1"}, intake=intake)

    assert made.request.model == "3.1"


def test_the_priority_of_the_batch_holds_for_rows_without_one() -> None:
    intake = Intake(MODELS, "4.0", priority=7)

    made = tasks({"prompt": "a", "priority": ""}, {"prompt": "b", "priority": 0}, intake=intake)

    assert [one.priority for one in made] == [7, 0]


def test_json_may_hold_lists_and_numbers() -> None:
    made = task(id=12, model=4.0, refs=["https://a/1"], count=1, force_single=False, width=1024, height=1024)

    assert made.row == "12"
    assert made.request.references == ("https://a/1",)
    assert made.request.parameters["force_single"] is False


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"prompt": " "}, Problem("prompt_empty", "prompt")),
        ({"prompt": "猫" * 801}, Problem("prompt_too_long", "prompt", "801", "800")),
        ({"prompt": ["a"]}, Problem("cell_no_text", "prompt", "['a']")),
        ({"model": "9"}, Problem("model_unknown", "model", "9", "4.0, 3.1, i2i-3.0, plain")),
        ({"seed": "7"}, Problem("parameter_unknown", "seed", "7", "4.0")),
        ({"scale": "2"}, Problem("parameter_out_of_range", "scale", "2", "[0, 1]")),
        ({"scale": {"a": 1}}, Problem("parameter_out_of_range", "scale", "{'a': 1}", "[0, 1]")),
        ({"count": "0"}, Problem("parameter_out_of_range", "count", "0", "[1, 100]")),
        ({"数量": "1.5"}, Problem("parameter_out_of_range", "count", "1.5", "[1, 100]")),
        ({"priority": "101"}, Problem("parameter_out_of_range", "priority", "101", "[-100, 100]")),
        ({"refs": "cat.png"}, Problem("reference_not_public", "refs", "cat.png")),
        ({"id": "x" * 201}, Problem("key_too_long", "id", f"{'x' * 40}…{'x' * 39}", "200")),
        ({"提示词": "a dog"}, Problem("column_twice", "prompt", "prompt", "提示词")),
        ({"heigth": "7"}, Problem("column_close", "heigth", "7", "height")),
        ({"参考": "x"}, Problem("column_close", "参考", "x", "参考图")),
        ({"forcesingle": "1"}, Problem("column_close", "forcesingle", "1", "force_single")),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], found: Problem) -> None:
    assert problem(**values) == Problem(found.code, found.field, found.value, found.limit, 2)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = problems({"prompt": "", "count": "x", "scale": "9"}, {"prompt": "ok"}, {"prompt": "a", "model": "9"})

    assert [(one.row, one.field) for one in found] == [(2, "count"), (2, "prompt"), (2, "scale"), (4, "model")]


def test_a_row_whose_form_is_wrong_passes_its_problem_on() -> None:
    row = RawRow(7, {}, (Problem("json_broken", value="…"),))

    assert list(Intake(MODELS, "4.0").read([row])) == [[Problem("json_broken", value="…", row=7)]]


def test_a_sheet_without_prompts_is_refused_as_a_whole() -> None:
    with pytest.raises(InputError) as caught:
        read({"titel": "a", "id": "1"})

    assert caught.value.text_code == "input_no_prompt"
    assert "titel, id" in text("input_no_prompt", **caught.value.fields)


def test_long_values_are_shortened_for_people() -> None:
    assert len(described(Problem("model_unknown", "model", "x" * 5000, "4.0", 2))) < 200


def test_every_text_is_the_same_in_both_languages() -> None:
    for code, (chinese, english) in TEXTS.items():
        fields = [{name for _, name, _, _ in string.Formatter().parse(words) if name} for words in (chinese, english)]
        assert fields[0] == fields[1], code


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "parameters"),
    [
        ({"size": "4194304"}, {"size": 4194304}),
        ({"size": "2K"}, {"size": 2048**2}),
        ({"尺寸": "4k"}, {"size": 4096**2}),
        ({"size": "2048x1024"}, {"width": 2048, "height": 1024}),
        ({"size": "2048*1024"}, {"width": 2048, "height": 1024}),
        ({"size": "2048 × 1024"}, {"width": 2048, "height": 1024}),
        ({"size": 4194304, "width": 2048, "height": 1024}, {"size": 4194304, "width": 2048, "height": 1024}),
        ({"ratio": "1:1"}, {"width": 2048, "height": 2048}),
        ({"ratio": "16:9"}, {"width": 2736, "height": 1536}),
        ({"比例": "9：16", "size": "1K"}, {"width": 768, "height": 1376}),
        ({"ratio": "1:1", "size": "4K"}, {"width": 4096, "height": 4096}),
        ({"ratio": "3:4", "size": "4K"}, {"width": 3536, "height": 4720}),
        ({"ratio": "3:4", "size": "1048576"}, {"width": 896, "height": 1184}),
        ({"model": "3.1", "size": "1K"}, {"width": 1024, "height": 1024}),
        ({"model": "3.1", "ratio": "1:1"}, {"width": 1328, "height": 1328}),
        ({"model": "i2i-3.0", "ratio": "3:1"}, {"width": 2016, "height": 672}),
    ],
)
def test_sizes_may_be_said_in_many_ways(values: dict[str, object], parameters: dict[str, Value]) -> None:
    made = dict(task(**values).request.parameters)
    made.pop("force_single", None)

    assert made == parameters


@pytest.mark.parametrize(
    ("values", "code", "field"),
    [
        ({"size": "2000"}, "parameter_out_of_range", "size"),
        ({"size": "big"}, "parameter_out_of_range", "size"),
        ({"size": "big", "ratio": "1:1"}, "parameter_out_of_range", "size"),
        ({"size": "2000", "ratio": "1:1"}, "parameter_out_of_range", "size"),
        ({"size": "8x8"}, "parameter_out_of_range", "width × height"),
        ({"size": "4194304", "model": "3.1"}, "parameter_unknown", "size"),
        ({"size": "2K", "model": "3.1", "width": "1024", "height": "1024"}, "size_conflict", "size"),
        ({"size": "9x9", "width": "1024", "height": "1024"}, "size_conflict", "size"),
        ({"ratio": "1:1", "width": "1024"}, "size_conflict", "ratio"),
        ({"ratio": "1:1", "size": "9x9"}, "size_conflict", "ratio"),
        ({"ratio": "wide"}, "ratio_unreadable", "ratio"),
        ({"ratio": "0:1"}, "ratio_unreadable", "ratio"),
        ({"ratio": "1:1", "model": "plain"}, "parameter_unknown", "ratio"),
    ],
)
def test_a_size_that_can_not_be_is_named(values: dict[str, object], code: str, field: str) -> None:
    found = problem(**values)

    assert (found.code, found.field) == (code, field)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["1K", "2K", "4K", ""]))
def test_a_ratio_gives_sides_that_the_model_takes(width: int, height: int, size: str) -> None:
    made = task(ratio=f"{width}:{height}", size=size).request.parameters

    sides = int(made["width"]), int(made["height"])
    assert sides[0] % 16 == sides[1] % 16 == 0
    assert sides[0] / sides[1] == pytest.approx(width / height, rel=0.2)


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("一只{颜色}的猫", "一只红的猫"),
        ("{ 颜色 }{颜色}", "红红"),
        ("{空}猫", "猫"),
        ("{other} {} {{}} {", "{other} {} {{}} {"),
        ("{{颜色}} and {{other}}", "{颜色} and {{other}}"),
        ('{"style": "x"}', '{"style": "x"}'),
    ],
)
def test_columns_fill_the_prompt(prompt: str, filled: str) -> None:
    (made,) = tasks({"prompt": prompt, "颜色": " 红 ", "空": None})

    assert made.request.prompt == filled


def test_without_other_columns_braces_are_just_braces() -> None:
    (made,) = tasks({"prompt": "{prompts} {{prompt}}"})

    assert made.request.prompt == "{prompts} {{prompt}}"


@pytest.mark.parametrize(("prompt", "near"), [("a {colour}", "color"), ("{Colors}", "color"), ("no. {id}", "id")])
def test_a_place_that_looks_like_a_column_is_a_slip(prompt: str, near: str) -> None:
    found = problem(prompt=prompt, color="red", id="1")

    assert (found.code, found.limit) == ("place_unknown", near)


def test_a_column_that_looks_like_a_known_one_may_be_meant() -> None:
    (made,) = tasks({"prompt": "a flag of {country}", "country": "Peru"})

    assert made.request.prompt == "a flag of Peru"


def test_columns_that_nothing_uses_are_named_once() -> None:
    intake = Intake(MODELS, "4.0")

    row: dict[str, object] = {"prompt": "{颜色}", "颜色": "红", "备注": "x", "Note": ""}
    tasks(row, row, intake=intake)

    assert intake.ignored == ["备注", "Note"]


# -- who a row is -----------------------------------------------------------------------------------------------------


def test_equal_rows_are_variants() -> None:
    made = tasks({"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": "a", "count": "2"})

    keys = [one.row.partition(":") for one in made]
    assert [ordinal for _, _, ordinal in keys] == ["1", "1", "2", "3", "4"]
    assert len({key for key, _, _ in keys}) == 2
    assert [one.position for one in made] == [1, 2, 3, 4, 5]
    assert len({one.name for one in made}) == 5


def test_priority_name_and_group_do_not_make_another_row() -> None:
    first, second = tasks(
        {"prompt": "a", "priority": 1, "name": "x", "group": "g"},
        {"prompt": "a", "priority": 2, "name": "y", "group": ""},
    )

    assert first.digest == second.digest
    assert first.row != second.row


def test_a_changed_request_under_one_id_has_another_digest() -> None:
    assert task(id="A").digest != task(id="A", width="1024", height="1024").digest
    assert task(id="A").digest == task(id="B").digest


def test_the_order_of_columns_says_nothing() -> None:
    one, other = tasks(
        {"prompt": "a", "width": 1024, "height": 1024}, {"height": "1024", "width": "1024", "prompt": "a"}
    )

    assert one.digest == other.digest


def test_a_row_may_ask_for_several() -> None:
    made = tasks({"prompt": "a", "id": "A", "count": 3, "name": "cat"}, {"prompt": "b", "id": "B", "count": 2})

    assert [(one.row, one.position, one.name) for one in made] == [
        ("A", 1, "cat-1"),
        ("A#2", 2, "cat-2"),
        ("A#3", 3, "cat-3"),
        ("B", 4, "00004-B"),
        ("B#2", 5, "00005-B-2"),
    ]


def test_a_bad_row_keeps_its_place() -> None:
    made = read({"prompt": "", "count": 2}, {"prompt": "b"})

    assert isinstance(made[1], NewTask)
    assert made[1].position == 3


def test_new_rows_never_get_the_names_of_old_ones() -> None:
    """The engine keeps the names of the rows that it knows; a sheet may have changed around them."""
    old = tasks({"prompt": "b"}, {"prompt": "a"}, {"prompt": "a"})
    new = tasks({"prompt": "a"}, {"prompt": "x"}, {"prompt": "a"}, {"prompt": "a"})

    known = {one.row: one.name for one in old}
    assert not {one.name for one in new if one.row not in known} & set(known.values())


@pytest.mark.parametrize(
    ("rows", "code", "field", "value"),
    [
        ([{"id": "A"}, {"id": " A "}], "key_taken", "id", "A"),
        ([{"id": "A", "count": 2}, {"id": "A#2"}], "key_taken", "id", "A#2"),
        ([{"name": "Cat"}, {"name": "cAT"}], "name_taken", "name", "cAT"),
        ([{"name": "a:b"}, {"name": "a/b"}], "name_taken", "name", "a/b"),
        ([{"name": "a", "count": 2}, {"name": "a-2"}], "name_taken", "name", "a-2"),
    ],
)
def test_what_must_be_unique_names_both_rows(rows: list[dict[str, object]], code: str, field: str, value: str) -> None:
    (found,) = problems(*({"prompt": f"p{number}", **row} for number, row in enumerate(rows)))

    assert found == Problem(code, field, value, "2", 3)


def test_failed_rows_continue_their_batch(tmp_path: Path) -> None:
    (first, second) = tasks(
        {"prompt": "a {cat}", "size": "2K", "name": "x"}, {"prompt": "b", "id": "B", "refs": "https://a"}
    )
    failed = [
        FailedRow(
            one.request.prompt,
            one.request.model,
            "batch-1",
            one.row,
            "failed",
            "bad {word}",
            name=one.name,
            references=one.request.places,
            parameters=one.request.parameters,
        )
        for one in (second, first)
    ]
    path = write_failed(tmp_path, failed, ["width", "height", "size", "scale", "force_single", "seed"])

    intake = Intake(MODELS, "4.0")
    again = list(intake.read(open_rows(path)))

    assert [(one.row, one.digest, one.name) for one in again if isinstance(one, NewTask)] == [
        (second.row, second.digest, second.name),
        (first.row, first.digest, first.name),
    ]
    assert intake.batches == {"batch-1": 2}
    assert intake.ignored == []


def test_state_and_error_are_words_like_any_other_elsewhere() -> None:
    (made,) = tasks({"prompt": "a map of {state}", "state": "Ohio"})

    assert made.request.prompt == "a map of Ohio"


CELL = st.text(max_size=12) | st.sampled_from(["", "1", "2K", "16:9", "4.0", "3.1", "{颜色}", "https://a/1"])
COLUMN = st.sampled_from(
    ["prompt", "id", "refs", "model", "size", "ratio", "count", "name", "width", "颜色", "row", "batch"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"prompt": CELL}, optional={}), max_size=3), st.data())
def test_any_sheet_becomes_tasks_or_problems(sheet: list[dict[str, str]], data: st.DataObject) -> None:
    rows = [RawRow(n, {**row, **data.draw(st.dictionaries(COLUMN, CELL))}) for n, row in enumerate(sheet, start=2)]

    made = list(Intake(MODELS, "4.0").read(rows))

    keys = [one.row for one in made if isinstance(one, NewTask)]
    names = [one.name.casefold() for one in made if isinstance(one, NewTask)]
    assert len(set(keys)) == len(keys)
    assert len(set(names)) == len(names)
    for one in made:
        if isinstance(one, list):
            assert one
            assert all(described(problem) for problem in one)
