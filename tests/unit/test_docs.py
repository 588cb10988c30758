"""The reference names everything that exists: commands, flags, settings, states, exit codes, reasons."""

from pathlib import Path

import pytest
import typer
from typer.main import get_command

from dujiang.cli.app import app
from dujiang.cli.config import environment_name
from dujiang.cli.exits import Exit
from dujiang.domain.lifecycle import State
from dujiang.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


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
