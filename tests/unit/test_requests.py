"""Raw values become a valid request, or the list of everything that is wrong."""

import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.requests import ModelSpec, Number, Problem, Request, Truth, Value, is_public_link


def no_width_without_height(parameters: Mapping[str, Value], references: int) -> Sequence[Problem]:
    return [Problem("pair", "width")] if ("width" in parameters) != ("height" in parameters) else []


MODEL = ModelSpec(
    name="4.0",
    req_key="k",
    parameters={
        "width": Number(64, 4096, whole=True),
        "height": Number(64, 4096, whole=True),
        "scale": Number(0, 1),
        "ratio": Number(0.5, 2, open_high=True),
        "single": Truth(),
    },
    prompt_max=10,
    references_max=2,
    rules=(no_width_without_height,),
    defaults={"single": True},
    images=lambda parameters, references: 1 if parameters["single"] else 15 - references,
)
LINK = "https://example.com/r.png"


def problems(
    prompt: str = "猫", raw: Mapping[str, object] | None = None, references: Sequence[str] = ()
) -> list[Problem]:
    request, found = MODEL.checked(prompt, raw or {}, references)
    assert (request is None) is bool(found)
    return found


def test_a_valid_row_becomes_a_request_with_defaults_and_types() -> None:
    request, found = MODEL.checked("猫", {"width": "1024", "height": 512.0, "scale": "0.5"}, [LINK])

    assert found == []
    assert request == Request(
        "4.0", "猫", {"single": True, "width": 1024, "height": 512, "scale": 0.5}, (LINK,), images=1
    )


def test_a_row_may_overrule_a_default_and_then_reserves_more_images() -> None:
    request, _ = MODEL.checked("猫", {"single": "否"}, [LINK])

    assert request is not None
    assert request.parameters["single"] is False
    assert request.images == 14


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = problems(" ", {"seed": 1, "width": 63, "scale": "a lot"}, ["ftp://x", LINK, LINK])

    assert found == [
        Problem("prompt_empty", "prompt"),
        Problem("reference_not_public", "refs", "ftp://x"),
        Problem("references_count", "refs", "3", "0–2"),
        Problem("parameter_unknown", "seed", "1", "4.0"),
        Problem("parameter_out_of_range", "width", "63", "[64, 4096]"),
        Problem("parameter_out_of_range", "scale", "a lot", "[0, 1]"),
    ]


def test_a_rule_across_parameters_is_asked_once_they_are_valid() -> None:
    assert problems(raw={"width": 64}) == [Problem("pair", "width")]
    assert problems(raw={"width": 63}) == [Problem("parameter_out_of_range", "width", "63", "[64, 4096]")]


def test_a_prompt_may_be_as_long_as_the_limit() -> None:
    assert problems("猫" * 10) == []
    assert problems("猫" * 11) == [Problem("prompt_too_long", "prompt", "11", "10")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (64, 64),
        ("64", 64),
        (" 64 ", 64),
        ("64.0", 64),
        (4096, 4096),
        (63, None),
        (4097, None),
        (64.5, None),
        (True, None),
        (None, None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ([64], None),
        (10**400, None),
        ("1e400", None),
    ],
)
def test_whole_numbers(raw: object, expected: int | None) -> None:
    found = Number(64, 4096, whole=True).read(raw)

    assert found == expected
    assert type(found) is type(expected)


def test_a_bound_may_be_open() -> None:
    number = Number(0.5, 2, open_high=True)

    assert number.read("1.999") == 1.999
    assert number.read(2) is None
    assert number.read(0.5) == 0.5
    assert number.limit == "[0.5, 2)"


@pytest.mark.parametrize("raw", [True, "true", "TRUE", " 1 ", "yes", "on", "是", 1])
def test_words_for_true(raw: object) -> None:
    assert Truth().read(raw) is True


@pytest.mark.parametrize("raw", [False, "False", "0", "no", "off", "否", 0])
def test_words_for_false(raw: object) -> None:
    assert Truth().read(raw) is False


@pytest.mark.parametrize("raw", ["", "maybe", None, 2])
def test_words_for_neither(raw: object) -> None:
    assert Truth().read(raw) is None


def test_equal_requests_have_equal_text_and_others_another() -> None:
    one = Request("4.0", "猫", {"a": 1, "b": 2.5}, (LINK,))

    assert one.canonical() == Request("4.0", "猫", {"b": 2.5, "a": 1}, (LINK,), images=9).canonical()
    for other in (
        Request("4.6", "猫", {"a": 1, "b": 2.5}, (LINK,)),
        Request("4.0", "狗", {"a": 1, "b": 2.5}, (LINK,)),
        Request("4.0", "猫", {"a": 2, "b": 2.5}, (LINK,)),
        Request("4.0", "猫", {"a": 1}, (LINK,)),
        Request("4.0", "猫", {"a": 1, "b": 2.5}),
    ):
        assert other.canonical() != one.canonical()


@given(st.text(), st.dictionaries(st.text(), st.integers() | st.booleans() | st.text()))
def test_canonical_text_is_json(prompt: str, parameters: dict[str, Value]) -> None:
    assert json.loads(Request("4.0", prompt, parameters).canonical())[1] == prompt


@pytest.mark.parametrize(
    ("link", "public"),
    [
        (LINK, True),
        ("http://example.com/a", True),
        ("https://example.com/a b", False),
        ("example.com/a.png", False),
        ("./a.png", False),
        ("file:///a.png", False),
        ("", False),
    ],
)
def test_what_the_vendor_can_fetch(link: str, public: bool) -> None:
    assert is_public_link(link) is public
