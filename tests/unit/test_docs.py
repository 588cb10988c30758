"""The docs name everything that exists: commands, flags, settings, states, exit codes, reasons, lines of the log.

And what they point at exists: files, sections, and the lines that are shown as the program's own.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.main import get_command

from dujiang.cli import doctor
from dujiang.cli.app import app
from dujiang.cli.config import environment_name
from dujiang.cli.exits import Exit
from dujiang.domain import reasons
from dujiang.domain.lifecycle import State
from dujiang.hosts.superbed import SuperbedHost
from dujiang.messages import TEXTS
from dujiang.messages.log_texts import LOG_TEXTS
from dujiang.providers.jimeng.provider import JimengProvider
from dujiang.settings import Settings
from dujiang.telemetry.logs import FLOW, LEVELS

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
CONCURRENCY = (ROOT / "docs" / "concurrency.md").read_text("utf-8")
TROUBLESHOOTING = [ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "troubleshooting.zh-CN.md"]
REASONS: Final = [
    "slot",
    "cooldown",
    "qps",
    "backoff",
    "budget",
    "paused",
    "upload",
    "account",
    "network",
    "host",
    "disk",
    "doubt",
    "worker",
]


def _commands() -> list[str]:
    root = get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    found = []
    for name, command in root.commands.items():
        subcommands = getattr(command, "commands", {})
        found += [f"{name} {sub}" for sub in subcommands] or [name]
    return found


@pytest.mark.parametrize("command", _commands())
def test_every_command_stands_in_the_reference(command: str) -> None:
    assert f"dujiang {command}" in REFERENCE or f"`{command}" in REFERENCE


@pytest.mark.parametrize("command", ["init", "run"])
def test_every_flag_stands_in_the_reference(command: str) -> None:
    root = get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    flags = [
        option for parameter in root.commands[command].params for option in parameter.opts if option.startswith("--")
    ]

    assert [flag for flag in flags if flag not in REFERENCE] == []


def test_every_setting_stands_in_the_reference_with_its_default() -> None:
    for name, info in Settings.model_fields.items():
        variable = environment_name(name, info)
        line = next((line for line in REFERENCE.splitlines() if f"`{variable}`" in line and line.startswith("|")), None)
        assert line is not None, variable
        if isinstance(info.default, int | float) or name in {"concurrency", "jimeng_endpoint"}:
            assert f"`{info.default}`" in line, f"{variable} has the default {info.default}"


def test_every_state_stands_in_the_architecture() -> None:
    assert [state for state in State if f"`{state.value}`" not in ARCHITECTURE] == []


def test_every_exit_code_stands_in_the_reference() -> None:
    assert [code for code in Exit if f"| {code.value} |" not in REFERENCE] == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_both_readmes_show_the_two_commands_and_the_first_real_run(readme: str) -> None:
    words = (ROOT / readme).read_text("utf-8")

    for command in ("make demo", "make test", "dujiang init", "dujiang doctor", "dujiang plan", "dujiang run"):
        assert command in words, command


# -- troubleshooting --------------------------------------------------------------------------------------------------


def _words_of(module: object) -> set[str]:
    """Every reason that a module can give: words, and what stands before the bracket."""
    tree = ast.parse(Path(str(module.__dict__["__file__"])).read_text("utf-8"))
    texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {found[1] for one in texts if (found := re.fullmatch(r"([a-z]+)(\(.*)?", one)) and found[1] in REASONS}


@pytest.mark.parametrize("document", TROUBLESHOOTING, ids=lambda path: path.name)
def test_every_reason_why_a_task_can_wait_has_its_remedy(document: Path) -> None:
    words = document.read_text("utf-8")
    said = _words_of(reasons)

    assert said >= set(REASONS)
    assert [word for word in said if not re.search(rf"^\| `{word}[(`]", words, re.MULTILINE)] == []


@pytest.mark.parametrize("document", TROUBLESHOOTING, ids=lambda path: path.name)
def test_whatever_doctor_finds_has_a_section_to_read(document: Path) -> None:
    sections = set(_anchors(document))
    named = {name.removeprefix("doctor_") for name in TEXTS if re.fullmatch("doctor_[a-z]+", name)}
    checks = named - {"ok", "bad", "see", "proxy", "proxies"}  # the way through proxies is never at fault

    read = {doctor.Check(name, False, "").anchor for name in checks - {"endpoint"}} | {doctor.NETWORK}

    assert checks >= {"keys", "host", "disk"}
    assert sorted(read - sections) == []
    shown = [re.sub(r".*(docs/.+)#.*", r"\1", words) for words in TEXTS["doctor_see"]]
    assert [ROOT / path for path in (*shown, doctor.TROUBLESHOOTING)] == [
        *reversed(TROUBLESHOOTING),
        TROUBLESHOOTING[0],
    ]


def test_both_languages_have_the_same_sections() -> None:
    english, chinese = (list(_sections(path)) for path in TROUBLESHOOTING)

    assert re.findall(r'<a id="(.+?)"></a>\n## ', TROUBLESHOOTING[1].read_text("utf-8")) == english
    assert len(english) == len(chinese)


# -- the log ----------------------------------------------------------------------------------------------------------


def test_every_event_of_the_log_has_its_words_and_every_marker_is_explained() -> None:
    markers = {FLOW, JimengProvider.label, SuperbedHost.label}

    assert {f"log_{event}" for event in LEVELS} == set(LOG_TEXTS)
    assert [marker for marker in markers if f"`[{marker}]`" not in CONCURRENCY] == []


def _shown_lines() -> list[str]:
    return re.findall(r"^\d\d:\d\d:\d\d .*$", CONCURRENCY, re.MULTILINE)


def test_the_lines_that_are_shown_are_lines_of_the_program() -> None:
    def pattern(words: str) -> str:
        return re.sub(r"\\\{\w+\\\}", ".+", re.escape(words))

    events = {event: pattern(LOG_TEXTS[f"log_{event}"][1]) for event in LEVELS}

    def told(line: str) -> bool:
        level, words = re.fullmatch(r"\S+ (\w+) +\[.+?\] (.+)", line).groups()  # type: ignore[union-attr]
        return any(
            re.fullmatch(expected, words) and level == {20: "INFO", 30: "WARNING"}.get(LEVELS[event])
            for event, expected in events.items()
        )

    assert len(_shown_lines()) > 20
    assert [line for line in _shown_lines() if not told(line)] == []


# -- links ------------------------------------------------------------------------------------------------------------


def _sections(document: Path) -> Iterator[str]:
    """Sections of the second level, as a link names them."""
    for title in re.findall(r"^## (.+)$", document.read_text("utf-8"), re.MULTILINE):
        yield _slug(title)


def _anchors(document: Path) -> Iterator[str]:
    """Whatever in a document can be linked to: headings as GitHub names them, and names given by hand."""
    words = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from map(_slug, re.findall(r"^#+ (.+)$", words, re.MULTILINE))
    yield from re.findall(r'<a id="(.+?)">', words)


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


DOCUMENTS: Final = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in set(_anchors(target))):
            dead.append(link)

    assert dead == []


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_both_readmes_lead_to_what_helps(readme: str) -> None:
    words = (ROOT / readme).read_text("utf-8")

    assert "(docs/concurrency.md)" in words
    assert "(docs/troubleshooting" in words
