"""Prompts that tell the simulator what should happen to them: `[sim:50412]`, `[sim:lost-answer]`, …

The package's docstring lists them. An unknown one is refused with 50215, so that a typing mistake shows.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from .codes import CODES, OUTPUT_MODERATION, Refused
from .settings import PROMPT_FAULTS

_MARKER: Final = re.compile(r"\[sim:([^\]]*)\]")
_CODED: Final = re.compile(r"(?:(submit|poll):)?(\d{5,6})((?: (?:once|gateway))*)")


@dataclass(frozen=True, slots=True)
class CodedAnswer:
    """A code that a marker asks for."""

    number: int
    once: bool = False  # only the first time
    gateway: bool = False  # in the gateway's envelope

    def refusal(self) -> Refused:
        """This answer, ready to be raised."""
        return Refused(self.number, gateway_shaped=self.gateway)


@dataclass(frozen=True, slots=True)
class Markers:
    """Everything that one prompt asks for."""

    submit: CodedAnswer | None = None
    poll: CodedAnswer | None = None
    slow: bool = False
    empty: bool = False
    status: str = ""  # the word in data.status at the end
    run_s: float | None = None
    faults: tuple[str, ...] = ()  # each happens once


NONE: Final = Markers()


def markers_in(prompt: str) -> Markers:
    """What the prompt's markers ask for."""
    if "[sim:" not in prompt:
        return NONE
    found = NONE
    for words in _MARKER.findall(prompt):
        found = _with(found, words)
    return found


def _with(found: Markers, words: str) -> Markers:
    coded = _CODED.fullmatch(words)
    if coded:
        return _with_code(found, *coded.groups())
    kind, _, value = words.partition(":")
    if words == "slow":
        return replace(found, slow=True)
    if words == "empty":
        return replace(found, empty=True)
    if kind == "status" and value:
        return replace(found, status=value)
    if kind == "run" and value.replace(".", "", 1).isdigit():
        return replace(found, run_s=float(value))
    fault = words.replace("-", "_")
    if fault in PROMPT_FAULTS:
        return replace(found, faults=(*found.faults, fault))
    raise Refused(50215, f"[sim:{words}] is no marker of the simulator")


def _with_code(found: Markers, where: str | None, digits: str, words: str) -> Markers:
    number = int(digits)
    if number not in CODES:
        raise Refused(50215, f"[sim:{digits}]: no such code")
    answer = CodedAnswer(number, once="once" in words, gateway="gateway" in words)
    if where == "poll" or (where is None and number in OUTPUT_MODERATION):
        return replace(found, poll=answer)
    return replace(found, submit=answer)
