"""From rows of an input to tasks, or to everything that is wrong with them. Nothing here touches a network.

A row is known by its `id`, or by the hash of its request and an ordinal among equal rows: so a sheet may be sorted,
extended or run again, and only what is new is asked for.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Final

from dujiang.domain.names import collision_key, safe_stem
from dujiang.domain.pictures import Flaw, Reference
from dujiang.domain.requests import ModelSpec, Number, Problem, Request
from dujiang.domain.rows import InputError, RawRow
from dujiang.messages import text
from dujiang.ports import NewTask
from dujiang.runner.intake_columns import Columns, filled, resolved
from dujiang.runner.intake_sizes import Meaning, meaning_of
from dujiang.runner.seen import Seen

COUNT: Final = Number(1, 100, whole=True)
PRIORITY: Final = Number(-100, 100, whole=True)
KEY_MAX: Final = 200  # characters; the database indexes them
SHOWN: Final = 80
"""How much of a value stands in a message."""
REMEMBERED: Final = 1000  # sets of columns and sizes: a sheet has few, and any JSON line may have others


def described(problem: Problem) -> str:
    """The problem for a person: row, field, value and limit."""
    words = text(problem.code, field=problem.field, value=shown(problem.value), limit=problem.limit)
    return text("problem_in_row", row=problem.row, text=words) if problem.row is not None else words


def shown(value: str) -> str:
    """As much of a value as a message holds: both ends, because a path tells most at its end."""
    return value if len(value) <= SHOWN else f"{value[: SHOWN // 2]}…{value[1 - SHOWN // 2 :]}"


class _Cells:
    """What a row gives, under known names; collects what is wrong with it."""

    def __init__(self, row: RawRow, columns: Columns, read: Callable[[str], Reference | Flaw]) -> None:
        self.row = row
        self.columns = columns
        self.problems: list[Problem] = []
        self._read = read
        values = row.values
        self.given = {name: value for name, key in columns.known.items() if is_given(value := values[key])}

    def text(self, name: str) -> str:
        """A cell as text, empty if nothing is given."""
        value = self.given.get(name, "")
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, list | dict | bool):
            self.problems.append(Problem("cell_no_text", name, str(value)))
        return str(value)

    def number(self, name: str, allowed: Number, default: int) -> int:
        """A whole number, or `default` if none is given."""
        value = self.given.get(name)
        if value is None:
            return default
        number = allowed.read(value)
        if number is None:
            self.problems.append(Problem("parameter_out_of_range", name, str(value), allowed.limit))
            return default
        return int(number)

    def parameters(self) -> dict[str, object]:
        """Every parameter that is given, as it was written."""
        names = self.columns.parameters
        return {name: value for name, value in self.given.items() if name in names}

    def references(self) -> list[Reference]:
        """The references, from a list or from text divided by `|` or line ends."""
        value = self.given.get("refs")
        if value is None:
            return []
        parts = value if isinstance(value, list) else str(value).replace("\n", "|").split("|")
        found = [self._read(part) for part in (str(part).strip() for part in parts) if part]
        self.problems += [Problem(one.code, "refs", one.value, one.limit) for one in found if isinstance(one, Flaw)]
        return [one for one in found if not isinstance(one, Flaw)]


def is_given(value: object) -> bool:
    """Whether the cell isn't empty."""
    return value is not None and not (isinstance(value, str) and (not value or value.isspace()))


class Intake:
    """Reads one input. After it was read, `ignored` and `batches` say what else was seen in it.

    `read_reference` finds the picture that a cell means; it is the one thing here that may touch the disk.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSpec],
        default_model: str,
        *,
        model_named: Callable[[str], ModelSpec | None] | None = None,
        priority: int = 0,
        read_reference: Callable[[str], Reference | Flaw] = lambda written: written,
    ) -> None:
        self._models = models
        self._default_model = default_model
        self._model_named = model_named or models.get
        self._priority = priority
        self._read_reference = read_reference
        self._parameters = frozenset(name for spec in models.values() for name in spec.parameters)
        self._layouts: dict[tuple[str, ...], Columns] = {}
        self._sizes: dict[tuple[str, str, tuple[str, ...], str], Meaning] = {}
        self._variables: dict[str, bool] = {}  # column -> whether a prompt used it
        self._rows_by_key, self._rows_by_stem, self._equals = Seen(), Seen(), Seen()
        self._position = 0
        self.batches: dict[str, int] = {}
        """Batches that the rows say they continue (failed.csv), and the first row that says so."""

    @property
    def ignored(self) -> list[str]:
        """Columns that mean nothing and stand in no prompt."""
        return [column for column, used in self._variables.items() if not used]

    def read(self, rows: Iterable[RawRow]) -> Iterator[NewTask | list[Problem]]:
        """The tasks of each row, or everything that is wrong with it. Raises `InputError` if no column holds prompts.

        A bad row keeps its place in the order, so that mending it later moves nobody.
        """
        for row in rows:
            tasks, problems = self._row(row)
            if problems:
                # Cut: a picture in a wrong column is megabytes, and every wrong row is remembered.
                yield [replace(problem, row=row.number, value=shown(problem.value)) for problem in problems]
            else:
                yield from tasks

    def _row(self, row: RawRow) -> tuple[list[NewTask], list[Problem]]:
        first = self._position + 1
        self._position = first
        if row.problems:
            return [], list(row.problems)
        cells = _Cells(row, self._columns(row), self._read_reference)
        count = cells.number("count", COUNT, 1)
        self._position += count - 1
        priority = cells.number("priority", PRIORITY, self._priority)
        spec, request = self._request(cells)
        key, stem = self._key(cells, count), self._stem(cells, count)
        if cells.problems or spec is None or request is None:
            return [], cells.problems
        digest = hashlib.sha256(request.canonical().encode()).digest()[:16]
        tasks = []
        for nth in range(count):
            position = first + nth
            row_key, usual_name = self._identity(key, digest, position, nth)
            name = _variant(stem, nth, count) if stem else usual_name
            tasks.append(NewTask(row_key, digest.hex(), position, name, spec.req_key, request, priority))
        return tasks, cells.problems

    def close(self) -> None:
        """Forget what was seen."""
        for seen in (self._rows_by_key, self._rows_by_stem, self._equals):
            seen.close()

    # -- what is asked for

    def _columns(self, row: RawRow) -> Columns:
        layout = tuple(row.values)
        columns = self._layouts.get(layout)
        if columns is None:
            columns = resolved(layout, self._parameters)
            if not self._layouts and "prompt" not in columns.known:
                raise InputError("input_no_prompt", row=row.number, value=", ".join(layout))
            if len(self._layouts) >= REMEMBERED:
                self._layouts.clear()
            self._layouts[layout] = columns
            for column in columns.variables.values():
                self._variables.setdefault(column, False)
        return columns

    def _request(self, cells: _Cells) -> tuple[ModelSpec | None, Request | None]:
        name = cells.text("model") or self._default_model
        spec = self._model_named(name)
        prompt = self._prompt(cells)
        if cells.columns.twice:
            cells.problems += _said_twice(cells)
        if spec is None:
            cells.problems.append(Problem("model_unknown", "model", name, ", ".join(self._models)))
            return None, None
        parameters = cells.parameters()
        if "size" in cells.given or "ratio" in cells.given:
            added, problems = self._size(cells, parameters, spec)
            parameters.update(added)
            cells.problems += problems
        before = len(cells.problems)
        references = cells.references()
        request, flaws = spec.checked(prompt, parameters, references)
        unreadable = len(cells.problems) > before  # then their number says nothing
        cells.problems += [flaw for flaw in flaws if not (unreadable and flaw.code == "references_count")]
        return spec, request

    def _size(self, cells: _Cells, parameters: Mapping[str, object], spec: ModelSpec) -> Meaning:
        """What `size` and `ratio` mean, worked out once: most rows of a sheet say the same."""
        sides = tuple(side for side in ("width", "height") if side in parameters)
        said = (cells.text("size"), cells.text("ratio"), sides, spec.name)
        meaning = self._sizes.get(said)
        if meaning is None:
            if len(self._sizes) >= REMEMBERED:
                self._sizes.clear()
            meaning = self._sizes[said] = meaning_of(*said[:3], spec)
        return meaning

    def _prompt(self, cells: _Cells) -> str:
        prompt, columns = cells.text("prompt"), cells.columns
        used: Set[str] = frozenset()
        if "{" in prompt and len(columns.names) > 1 and not columns.continues:
            result = filled(prompt, columns, cells.row.values)
            prompt, used = result.prompt, result.used
            self._variables.update(dict.fromkeys(used, True))
            cells.problems += [Problem("place_unknown", "prompt", place, near) for place, near in result.slips]
        for column, near in columns.slips.items():
            if column not in used and is_given(cells.row.values[column]):
                cells.problems.append(Problem("column_close", column, str(cells.row.values[column]), near))
        return prompt

    # -- what it is called

    def _key(self, cells: _Cells, count: int) -> str:
        """What the row itself says it is known by, if anything; nobody else in this input may be."""
        key, field = cells.text("id"), "id"
        if cells.columns.continues:
            key, field = cells.text("row") or key, "row"
            if batch := cells.text("batch"):
                self.batches.setdefault(batch, cells.row.number)
        if len(key) > KEY_MAX:
            cells.problems.append(Problem("key_too_long", field, key, str(KEY_MAX)))
        elif key:
            for nth in range(count):
                self._claim(self._rows_by_key, _numbered(key, "#", nth), cells, Problem("key_taken", field, key))
        return key

    def _stem(self, cells: _Cells, count: int) -> str:
        """The name that the row wants for its files, if it wants one."""
        name = cells.text("name")
        if not name:
            return ""
        stem = safe_stem(name)
        for nth in range(count):
            wanted = _variant(stem, nth, count)
            self._claim(self._rows_by_stem, collision_key(wanted), cells, Problem("name_taken", "name", name))
        return stem

    def _claim(self, taken: Seen, key: str, cells: _Cells, problem: Problem) -> None:
        owner = taken.get(key)
        if owner is None:
            taken.set(key, cells.row.number)
        elif owner != cells.row.number:
            cells.problems.append(replace(problem, limit=str(owner)))

    def _identity(self, key: str, digest: bytes, position: int, nth: int) -> tuple[str, str]:
        """Row and usual name of a row's `nth` task.

        The name holds what the row is known by: rows move in later versions of a sheet, and a new one in an old one's
        place must not get the name of the old one's pictures.
        """
        if key:
            return _numbered(key, "#", nth), _numbered(f"{position:05d}-{safe_stem(key)}", "-", nth)
        equals = self._equals.get(digest) or 0
        self._equals.set(digest, equals + 1)
        known_by = digest.hex()
        return f"{known_by}:{equals + 1}", _numbered(f"{position:05d}-{known_by[:6]}", "-", equals)


def _numbered(word: str, sign: str, nth: int) -> str:
    """`word`, then `word#2`, `word#3`: asking for more of a row later changes nothing about its first one."""
    return f"{word}{sign}{nth + 1}" if nth else word


def _variant(stem: str, nth: int, count: int) -> str:
    return f"{stem}-{nth + 1}" if count > 1 else stem


def _said_twice(cells: _Cells) -> list[Problem]:
    """Two columns that mean the same are fine as long as only one of them is filled in."""
    return [
        Problem("column_twice", known, cells.columns.known[known], column)
        for known, column in cells.columns.twice
        if known in cells.given and is_given(cells.row.values[column])
    ]
