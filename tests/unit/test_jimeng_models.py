"""Every documented parameter of Jimeng's models is checked before anything is sent."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.requests import Request
from dujiang.providers.jimeng.models import ALIASES, DEFAULT_MODEL, MODELS, model_named

LINKS = tuple(f"https://example.com/{n}.png" for n in range(20))


def accepted(model: str, raw: dict[str, object], references: int = 0, prompt: str = "猫") -> Request:
    request, problems = MODELS[model].checked(prompt, raw, LINKS[:references])
    assert problems == []
    assert request is not None
    return request


def refused(model: str, raw: dict[str, object], references: int = 0, prompt: str = "猫") -> tuple[str, str, str, str]:
    request, problems = MODELS[model].checked(prompt, raw, LINKS[:references])
    assert request is None
    assert len(problems) == 1
    problem = problems[0]
    return problem.code, problem.field, problem.value, problem.limit


def test_the_models_are_the_vendors() -> None:
    assert {name: spec.req_key for name, spec in MODELS.items()} == {
        "4.0": "jimeng_t2i_v40",
        "4.6": "jimeng_seedream46_cvtob",
        "3.1": "jimeng_t2i_v31",
        "3.0": "jimeng_t2i_v30",
        "i2i-3.0": "jimeng_i2i_v30",
    }
    assert DEFAULT_MODEL == "4.0"
    assert MODELS["4.0"].yuan_per_image == 0.22


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("4.0", "4.0"),
        (" 4 ", "4.0"),
        ("jimeng_t2i_v40", "4.0"),
        ("JIMENG-4.0", "4.0"),
        ("即梦 4.0", "4.0"),
        ("jimeng_seedream46_cvtob", "4.6"),
        ("v3.1", "3.1"),
        ("3", "3.0"),
        ("jimeng_i2i_v30", "i2i-3.0"),
        ("jimeng-i2i-3.0", "i2i-3.0"),
    ],
)
def test_a_model_is_known_by_many_spellings(text: str, name: str) -> None:
    spec = model_named(text)

    assert spec is not None
    assert spec.name == name


@pytest.mark.parametrize("text", ["", "5.0", "jimeng", "4.00", "t2i"])
def test_what_is_no_model_is_none(text: str) -> None:
    assert model_named(text) is None


def test_no_spelling_means_two_models() -> None:
    assert all(ALIASES[spec.req_key] == ALIASES[spec.name] == spec.name for spec in MODELS.values())


# -- Parameters -------------------------------------------------------------------------------------------------------

INSIDE: list[tuple[str, dict[str, object], int]] = [
    ("4.0", {"size": 1024**2}, 0),
    ("4.0", {"size": "16777216"}, 10),
    ("4.0", {"width": 1024, "height": 1024}, 0),
    ("4.0", {"width": 6198, "height": 2656}, 0),
    ("4.0", {"width": 4096, "height": 4096, "size": 4194304}, 0),
    ("4.0", {"scale": 0}, 0),
    ("4.0", {"scale": "1"}, 0),
    ("4.0", {"force_single": "否"}, 0),
    ("4.0", {"min_ratio": 1 / 16, "max_ratio": 15.99}, 0),
    ("4.0", {"min_ratio": 3}, 0),
    ("4.0", {"min_ratio": 2, "max_ratio": 2}, 0),
    ("4.6", {"scale": 1}, 14),
    ("4.6", {"scale": "100"}, 0),
    ("3.1", {"seed": -1, "use_pre_llm": "true", "width": 512, "height": 512}, 0),
    ("3.0", {"seed": 2**31 - 1, "width": 2048, "height": 2048}, 0),
    ("3.0", {"width": 1500, "height": 500}, 0),
    ("i2i-3.0", {"seed": "7", "scale": 0.5, "width": 512, "height": 2016}, 1),
]

OUTSIDE: list[tuple[str, dict[str, object], int, tuple[str, str]]] = [
    ("4.0", {"size": 1024**2 - 1}, 0, ("parameter_out_of_range", "size")),
    ("4.0", {"size": 4096**2 + 1}, 0, ("parameter_out_of_range", "size")),
    ("4.0", {"size": 2e6 + 0.5}, 0, ("parameter_out_of_range", "size")),
    ("4.0", {"size": "2K"}, 0, ("parameter_out_of_range", "size")),
    ("4.0", {"width": 2048}, 0, ("sides_together", "height")),
    ("4.0", {"height": 2048}, 0, ("sides_together", "width")),
    ("4.0", {"width": 0, "height": 2048}, 0, ("parameter_out_of_range", "width")),
    ("4.0", {"width": 1024, "height": 1023}, 0, ("area_out_of_range", "width × height")),
    ("4.0", {"width": 4096, "height": 4097}, 0, ("area_out_of_range", "width × height")),
    ("4.0", {"scale": 1.01}, 0, ("parameter_out_of_range", "scale")),
    ("4.0", {"scale": -0.01}, 0, ("parameter_out_of_range", "scale")),
    ("4.0", {"force_single": "maybe"}, 0, ("parameter_out_of_range", "force_single")),
    ("4.0", {"min_ratio": 0.0624}, 0, ("parameter_out_of_range", "min_ratio")),
    ("4.0", {"max_ratio": 16}, 0, ("parameter_out_of_range", "max_ratio")),
    ("4.0", {"min_ratio": 2, "max_ratio": 1.9}, 0, ("ratios_out_of_order", "min_ratio")),
    ("4.0", {"min_ratio": 3.1}, 0, ("ratios_out_of_order", "min_ratio")),
    ("4.0", {"max_ratio": 0.3}, 0, ("ratios_out_of_order", "min_ratio")),
    ("4.0", {"seed": 1}, 0, ("parameter_unknown", "seed")),
    ("4.0", {"negative_prompt": "x"}, 0, ("parameter_unknown", "negative_prompt")),
    ("4.0", {}, 11, ("references_count", "refs")),
    ("4.6", {"scale": 0}, 0, ("parameter_out_of_range", "scale")),
    ("4.6", {"scale": 101}, 0, ("parameter_out_of_range", "scale")),
    ("4.6", {"scale": 0.5}, 0, ("parameter_out_of_range", "scale")),
    ("4.6", {}, 15, ("references_count", "refs")),
    ("3.1", {"seed": -2}, 0, ("parameter_out_of_range", "seed")),
    ("3.1", {"seed": 2**31}, 0, ("parameter_out_of_range", "seed")),
    ("3.1", {"force_single": True}, 0, ("parameter_unknown", "force_single")),
    ("3.1", {"scale": 0.5}, 0, ("parameter_unknown", "scale")),
    ("3.1", {}, 1, ("references_count", "refs")),
    ("3.0", {"width": 1328}, 0, ("sides_together", "height")),
    ("3.0", {"width": 511, "height": 512}, 0, ("area_out_of_range", "width × height")),
    ("3.0", {"width": 2048, "height": 2049}, 0, ("area_out_of_range", "width × height")),
    ("3.0", {"width": 1501, "height": 500}, 0, ("shape_out_of_range", "width : height")),
    ("3.0", {"width": 500, "height": 1501}, 0, ("shape_out_of_range", "width : height")),
    ("i2i-3.0", {}, 0, ("references_count", "refs")),
    ("i2i-3.0", {}, 2, ("references_count", "refs")),
    ("i2i-3.0", {"width": 511, "height": 600}, 1, ("parameter_out_of_range", "width")),
    ("i2i-3.0", {"width": 600, "height": 2017}, 1, ("parameter_out_of_range", "height")),
    ("i2i-3.0", {"width": 600}, 1, ("sides_together", "height")),
    ("i2i-3.0", {"use_pre_llm": True}, 1, ("parameter_unknown", "use_pre_llm")),
]


@pytest.mark.parametrize(("model", "raw", "references"), INSIDE)
def test_what_is_documented_is_accepted(model: str, raw: dict[str, object], references: int) -> None:
    request = accepted(model, raw, references)

    assert set(raw) <= set(request.parameters)


@pytest.mark.parametrize(("model", "raw", "references", "what"), OUTSIDE)
def test_what_is_not_documented_is_refused_with_its_field(
    model: str, raw: dict[str, object], references: int, what: tuple[str, str]
) -> None:
    assert refused(model, raw, references)[:2] == what


@pytest.mark.parametrize("model", [name for name in MODELS if name != "i2i-3.0"])
def test_a_prompt_has_at_most_800_characters(model: str) -> None:
    accepted(model, {}, prompt="猫" * 800)
    assert refused(model, {}, prompt="猫" * 801) == ("prompt_too_long", "prompt", "801", "800")
    assert refused(model, {}, prompt="  ")[0] == "prompt_empty"


def test_a_refusal_names_value_and_limit() -> None:
    assert refused("4.0", {"width": 100, "height": 100})[2:] == ("100×100", "[1024², 4096²]")
    assert refused("4.0", {"min_ratio": 5})[2:] == ("5", "≤ 3 (max_ratio)")
    assert refused("4.0", {"width": 2048})[2:] == ("", "width")
    assert refused("4.6", {"scale": 0.5})[2:] == ("0.5", "[1, 100]")


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_a_picture_of_3_0_is_accepted_exactly_within_area_and_shape(width: int, height: int) -> None:
    request, _ = MODELS["3.0"].checked("猫", {"width": width, "height": height})

    documented = 512**2 <= width * height <= 2048**2 and Fraction(1, 3) <= Fraction(width, height) <= 3
    assert (request is not None) == documented


# -- How many pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["4.0", "4.6"])
def test_one_picture_is_asked_for_unless_the_row_says_otherwise(model: str) -> None:
    request = accepted(model, {})

    assert request.parameters["force_single"] is True
    assert request.images == 1


@pytest.mark.parametrize(
    ("model", "references", "images"), [("4.0", 0, 15), ("4.0", 10, 5), ("4.6", 1, 14), ("4.6", 14, 1)]
)
def test_a_model_that_may_choose_reserves_15_pictures_less_the_references(
    model: str, references: int, images: int
) -> None:
    assert accepted(model, {"force_single": "false"}, references).images == images


@pytest.mark.parametrize(("model", "references"), [("3.0", 0), ("3.1", 0), ("i2i-3.0", 1)])
def test_older_models_make_one_picture_and_get_no_parameters_that_were_not_asked_for(
    model: str, references: int
) -> None:
    request = accepted(model, {}, references)

    assert request.images == 1
    assert request.parameters == {}
