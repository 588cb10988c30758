"""What is wrong with a command line, in the language in force. Typer itself speaks English only."""

import difflib
import re
from typing import Any, Final

from typer.core import TyperGroup
from typer.exceptions import TyperException

from dujiang.cli.exits import Exit, Refused, say
from dujiang.messages import text


class Commands(TyperGroup):
    """A group of commands that says which one was perhaps meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], list(self.commands), 1)
            known = near or self.commands
            raise Refused("usage_no_command", name=args[0], known=", ".join(known), command=ctx.command_path)
        return super().resolve_command(ctx, args)


def tell(error: TyperException) -> int:
    """Print it, with where to read on; the exit code."""
    context = getattr(error, "ctx", None)
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        say(error.format_message())
        return Exit.INPUT
    say(f"{text('error')}: {_described(error, kind)}")
    if context is not None:
        say(text("usage_hint", command=context.command_path))
    return Exit.INPUT


def _described(error: TyperException, kind: str) -> str:
    details, name = error.message.removeprefix("Value error, "), _name(error)
    match kind:
        case "NoSuchOption":
            near = getattr(error, "possibilities", None)
            code = "usage_no_option_near" if near else "usage_no_option"
            return text(code, name=name, near=", ".join(sorted(near or ())))
        case "MissingParameter":
            return text("usage_missing", name=name)
        case "BadParameter":
            return text("usage_value", name=name, details=_reason(details))
        case "BadOptionUsage" if "requires an argument" in details:
            return text("usage_no_value", name=name)
        case _ if found := _EXTRA.match(details):
            return text("usage_extra", details=found[1])
        case _:
            return text("usage_other", details=details)


_EXTRA: Final = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")
_REASONS: Final = (
    (re.compile(r"not one of (.*?)\.?$"), "usage_choice"),
    (re.compile(r"valid integer()"), "setting_whole"),
    (re.compile(r"valid number()"), "setting_number"),
    (re.compile(r"greater than or equal to (\S+)"), "setting_at_least"),
    (re.compile(r"less than or equal to (\S+)"), "setting_at_most"),
)
"""What Typer says, and our text for it."""


def _reason(details: str) -> str:
    for pattern, code in _REASONS:
        if found := pattern.search(details):
            return text(code, limit=found[1].replace("'", ""))
    return details


def _name(error: TyperException) -> str:
    """What the parameter is called on the command line."""
    if option := getattr(error, "option_name", ""):
        return str(option)
    parameter: Any = getattr(error, "param", None)
    if parameter is None:
        return ""
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name)
