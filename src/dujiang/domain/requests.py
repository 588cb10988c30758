"""What may be asked of a model, checked before anything is sent.

A `ModelSpec` is a table of parameters; `checked` turns a row's raw values into a `Request` or into the list of
everything that is wrong with it. Raw values come from spreadsheets, so numbers and truth values may be text.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dujiang.domain.pictures import LocalPicture, PictureRules, Reference

Value = str | int | float | bool


_CANONICAL: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # one for a million rows


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input, ready to be put in words: `messages` has a text for `code`."""

    code: str
    field: str = ""
    value: str = ""
    limit: str = ""
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One valid request to a model. Parameters are canonical: typed, complete as given, sorted when hashed."""

    model: str
    prompt: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    images: int = 1
    """How many pictures it may bring at most: what a plan and a budget reserve."""

    def canonical(self) -> str:
        """The request as text that is equal exactly for equal requests; rows without an id are known by its hash.

        A picture on this machine counts by its content: another file name is the same row, other bytes are not.
        """
        references = [one if isinstance(one, str) else f"sha256:{one.sha256}" for one in self.references]
        return _CANONICAL([self.model, self.prompt, sorted(self.parameters.items()), references])

    @property
    def local_pictures(self) -> list[LocalPicture]:
        """Those of its references that have to be published before it can be sent."""
        return [one for one in self.references if not isinstance(one, str)]

    @property
    def places(self) -> list[str]:
        """Its references as a person writes them: links and paths."""
        return [one if isinstance(one, str) else one.path for one in self.references]


@dataclass(frozen=True, slots=True)
class Number:
    """A number in [low, high], or [low, high) with `open_high`."""

    low: float
    high: float
    whole: bool = False
    open_high: bool = False

    @property
    def limit(self) -> str:
        """The bounds as a person writes them."""
        end = ")" if self.open_high else "]"
        return f"[{_plain(self.low)}, {_plain(self.high)}{end}"

    def read(self, raw: object) -> Value | None:
        """The value, or None if `raw` is not such a number."""
        number = _number(raw)
        if number is None or (self.whole and number != int(number)):
            return None
        inside = self.low <= number <= self.high and not (self.open_high and number == self.high)
        if not inside:
            return None
        return int(number) if self.whole else number


TRUE_WORDS: Final = frozenset({"true", "1", "yes", "y", "on", "是", "真"})
FALSE_WORDS: Final = frozenset({"false", "0", "no", "n", "off", "否", "假"})


@dataclass(frozen=True, slots=True)
class Truth:
    """A truth value; spreadsheets write it in many ways."""

    limit: str = "true / false"

    def read(self, raw: object) -> Value | None:
        """The value, or None if `raw` is neither true nor false."""
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


Parameter = Number | Truth
Rule = Callable[[Mapping[str, Value], int], Sequence[Problem]]
"""A rule across parameters: (typed parameters, number of references) -> problems."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as its vendor documents it."""

    name: str
    req_key: str
    parameters: Mapping[str, Parameter]
    prompt_max: int = 800
    references_min: int = 0
    references_max: int = 0
    pictures: PictureRules | None = None
    """What it takes as a reference; None: nothing is known."""
    takes_inline: bool = False
    """Whether its vendor documents that references may stand in the request itself (base64)."""
    rules: tuple[Rule, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """Sent unless the row says otherwise."""
    yuan_per_image: float | None = None
    """What one successful picture costs, where the vendor's price is known."""
    images: Callable[[Mapping[str, Value], int], int] = lambda parameters, references: 1
    """How many pictures a request may bring at most."""

    def checked(
        self, prompt: str, raw: Mapping[str, object], references: Sequence[Reference] = ()
    ) -> tuple[Request | None, list[Problem]]:
        """A valid request, or None and everything that is wrong."""
        problems = self._prompt_problems(prompt) + self._reference_problems(references)
        parameters: dict[str, Value] = dict(self.defaults)
        for name, value in raw.items():
            parameter = self.parameters.get(name)
            if parameter is None:
                problems.append(Problem("parameter_unknown", name, str(value), self.name))
                continue
            typed = parameter.read(value)
            if typed is None:
                problems.append(Problem("parameter_out_of_range", name, str(value), parameter.limit))
            else:
                parameters[name] = typed
        if problems:
            return None, problems
        for rule in self.rules:
            problems.extend(rule(parameters, len(references)))
        if problems:
            return None, problems
        images = self.images(parameters, len(references))
        return Request(self.name, prompt, parameters, tuple(references), images), []

    def _prompt_problems(self, prompt: str) -> list[Problem]:
        if not prompt.strip():
            return [Problem("prompt_empty", "prompt")]
        if len(prompt) > self.prompt_max:
            return [Problem("prompt_too_long", "prompt", str(len(prompt)), str(self.prompt_max))]
        return []

    def _reference_problems(self, references: Sequence[Reference]) -> list[Problem]:
        problems = []
        for one in references:
            if isinstance(one, LocalPicture):
                flaws = self.pictures.flaws(one) if self.pictures else []
                problems += [Problem(flaw.code, "refs", f"{one.path} ({flaw.value})", flaw.limit) for flaw in flaws]
            elif not is_public_link(one):
                problems.append(Problem("reference_not_public", "refs", one))
        if not self.references_min <= len(references) <= self.references_max:
            limit = f"{self.references_min}–{self.references_max}"
            problems.append(Problem("references_count", "refs", str(len(references)), limit))
        return problems


def is_public_link(link: str) -> bool:
    """Whether the vendor can fetch it as it is."""
    return link.startswith(("http://", "https://")) and not any(sign.isspace() for sign in link)


def _number(raw: object) -> float | None:
    if isinstance(raw, bool):
        return None
    try:
        number = float(raw)  # type: ignore[arg-type]  # whatever float() takes; the rest is told apart by its errors
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
