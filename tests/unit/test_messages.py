"""The catalogue: every text in both languages, every code that the source uses, and nothing that nobody says."""

import ast
import contextvars
import inspect
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dujiang
from dujiang.domain.batch import BatchState
from dujiang.domain.lifecycle import State
from dujiang.domain.task import Outcome
from dujiang.messages import TEXTS, Language, catalogue, door_texts, text, use_language
from dujiang.runner.worker import RunEnd
from dujiang.settings import Settings

SOURCE = Path(dujiang.__file__).parent
PAGES = (SOURCE / "messages" / "catalogue.py", SOURCE / "messages" / "door_texts.py")
PREFIXES = {
    "text": "",
    "Refused": "",
    "InputError": "",
    "Problem": "",
    "EndpointRefused": "",
    "KeyringRefused": "",
    "DatabaseRefused": "database_",
}
"""What a call of this name says: an entry of the catalogue, after this prefix."""
ROW_FIELDS = {"field", "value", "limit", "row"}


@dataclass(frozen=True)
class Said:
    """One place in the source that names an entry."""

    code: str
    fields: frozenset[str] | None
    """What it gives to fill in; None if that can't be seen."""
    where: str


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in SOURCE.rglob("*.py"):
        if path not in PAGES and "simulator" not in path.parts:
            yield path, ast.parse(path.read_text("utf-8"))


def calls() -> Iterator[Said]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (name := called(node)) in PREFIXES and node.args:
                for code in constants(node.args[0]):
                    yield Said(PREFIXES[name] + code, fields_given(node, name), f"{path.name}:{node.lineno}")


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return "" if path_like(node) else name
    return ""


def path_like(node: ast.Call) -> bool:
    """`cells.text("prompt")` and `sa.text("SELECT …")` are other people's."""
    return isinstance(node.func, ast.Attribute) and node.func.attr == "text"


def constants(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(code)):
            yield code
        case ast.IfExp(body=body, orelse=orelse):
            yield from constants(body)
            yield from constants(orelse)


def fields_given(node: ast.Call, name: str) -> frozenset[str] | None:
    if name == "Problem":
        return frozenset(ROW_FIELDS)
    if any(keyword.arg is None for keyword in node.keywords) or (name in {"EndpointRefused"}):
        return None
    return frozenset(keyword.arg or "" for keyword in node.keywords)


def fields_of(entry: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(entry) if name is not None}


def prefixes_used() -> set[str]:
    """How codes begin that are put together: `f"state_{state}"`."""
    found = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                found.add(str(node.values[0].value))
    return {prefix for prefix in found if prefix.endswith("_")}


def words_used() -> set[str]:
    found = {said.code for said in calls()}
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_every_text_is_there_in_both_languages_with_the_same_fields(code: str) -> None:
    chinese, english = TEXTS[code]

    assert chinese.strip()
    assert english.strip()
    assert fields_of(chinese) == fields_of(english)
    assert not any("一" <= sign <= "鿿" for sign in english.replace("提示词", ""))  # the column's name


def test_no_text_stands_on_two_pages() -> None:
    assert set(catalogue.TEXTS) & set(door_texts.DOOR_TEXTS) == set()


def test_every_code_that_is_said_exists() -> None:
    assert [said for said in calls() if said.code not in TEXTS] == []


def test_whoever_says_it_gives_what_is_to_be_filled_in() -> None:
    lacking = [
        (said, missing)
        for said in calls()
        if said.fields is not None and (missing := fields_of(TEXTS[said.code][0]) - said.fields)
    ]

    assert lacking == []


def test_no_text_is_unused() -> None:
    words, prefixes = words_used(), tuple(prefixes_used())

    assert [code for code in TEXTS if code not in words and not code.startswith(prefixes)] == []


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("state_", [state.value for state in State]),
        ("batch_", [state.value for state in BatchState]),
        ("outcome_", [outcome.value for outcome in Outcome]),
        ("end_", [end.value for end in RunEnd]),
        ("disk_", ["full", "denied", "gone"]),
        ("resolved_", ["resubmit", "found", "fail"]),
        ("setting_is_", list(Settings.model_fields)),
        ("doctor_", ["settings", "keys", "proxies", "endpoint", "clock", "host", "disk", "database"]),
    ],
)
def test_a_family_of_texts_is_complete(prefix: str, names: list[str]) -> None:
    assert [name for name in names if f"{prefix}{name}" not in TEXTS] == []


def test_settings_mean_in_english_what_their_docstrings_say() -> None:
    def meanings() -> list[str]:
        use_language(Language.EN)
        return [text(f"setting_is_{name}") for name in Settings.model_fields]

    said = contextvars.copy_context().run(meanings)

    assert said == [info.description for info in Settings.model_fields.values()]


def test_a_text_that_lacks_does_not_hide_what_happened() -> None:
    assert text("no_such_code", path="/x") == "no_such_code path=/x"


def test_the_pages_hold_nothing_but_texts() -> None:
    for page in (catalogue, door_texts):
        assert [name for name, _ in inspect.getmembers(page, inspect.isfunction)] == []
