"""An input, read and checked as a whole before anything is stored: nothing is half-sent, and memory stays bounded."""

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from dujiang.cli.exits import Exit, Refused, say
from dujiang.domain.pictures import Reference
from dujiang.domain.requests import Problem, Request, Value
from dujiang.intake_formats import STDIN, open_rows
from dujiang.messages import text
from dujiang.ports import NewTask
from dujiang.providers.jimeng.models import MODELS, model_named
from dujiang.runner.intake import Intake, described
from dujiang.storage.reference_files import ReferenceFiles

CHUNK: Final = 1000  # rows in one transaction
IN_MEMORY_BYTES: Final = 8 * 1024 * 1024  # checked rows beyond this go to a temporary file
SHOWN: Final = 20
"""How many wrong rows `run` shows; `plan` shows all."""


@dataclass(slots=True)
class Rows:
    """The checked rows of an input, and what else was seen in it."""

    spool: IO[bytes]
    count: int = 0
    images: int = 0
    yuan: float = 0.0
    images_without_price: int = 0
    req_keys: set[str] = field(default_factory=set)
    to_publish: set[str] = field(default_factory=set)
    """Models of rows whose references have to be published first."""
    problems: list[Problem] = field(default_factory=list)
    wrong_rows: int = 0
    ignored: list[str] = field(default_factory=list)
    continues: str | None = None
    """Id of the batch that the rows say they continue (failed.csv)."""

    def chunks(self) -> Iterator[list[NewTask]]:
        """The rows again, in the order of the file."""
        self.spool.seek(0)
        while True:
            try:
                packed = pickle.load(self.spool)  # noqa: S301 - what this process wrote a moment ago
            except EOFError:
                return
            yield [_unpacked(*fields) for fields in packed]


@dataclass(frozen=True, slots=True)
class Source:
    """An input, and what it is read with."""

    path: str
    model: str
    refs: Path | None = None
    """Where its relative references begin; None: in its own folder."""
    uploads: Path | None = None
    """Where pictures that stand in the input itself are kept; None: nowhere."""

    @property
    def pictures(self) -> ReferenceFiles:
        """Its references."""
        own = Path() if self.path == STDIN else Path(self.path).expanduser().parent
        return ReferenceFiles((self.refs or own).expanduser().absolute(), self.uploads)


@contextmanager
def read_rows(source: Source) -> Iterator[Rows]:
    """Every row of an input, checked. Raises `InputError`, or `Refused` for a model that does not exist."""
    path, model = source.path, source.model
    default = model_named(model)
    if default is None:
        raise Refused("model_unknown", value=model, limit=", ".join(MODELS))
    read_reference = source.pictures.read
    intake = Intake(MODELS, default.name, model_named=model_named, read_reference=read_reference)
    with closing(intake), tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as spool:
        rows = Rows(spool)
        chunk: list[_Packed] = []
        for found in intake.read(open_rows(path)):
            if isinstance(found, list):
                rows.wrong_rows += 1
                rows.problems.extend(found)
                continue
            _count(rows, found)
            chunk.append(_packed(found))
            if len(chunk) == CHUNK:
                pickle.dump(chunk, spool, pickle.HIGHEST_PROTOCOL)
                chunk = []
        if chunk:
            pickle.dump(chunk, spool, pickle.HIGHEST_PROTOCOL)
        rows.ignored = intake.ignored
        rows.continues = _continued(intake)
        yield rows


# Plain tuples: pickle takes them several times as fast as dataclasses with slots.
_Packed = tuple[str, str, int, str, str, int, str, str, Mapping[str, Value], tuple[Reference, ...], int]


def _packed(task: NewTask) -> _Packed:
    request = task.request
    what = (request.model, request.prompt, request.parameters, request.references, request.images)
    return (task.row, task.digest, task.position, task.name, task.req_key, task.priority, *what)


def _unpacked(row: str, digest: str, position: int, name: str, req_key: str, priority: int, *what: Any) -> NewTask:
    return NewTask(row, digest, position, name, req_key, Request(*what), priority)


def _count(rows: Rows, task: NewTask) -> None:
    rows.count += 1
    rows.images += task.request.images
    rows.req_keys.add(task.req_key)
    if task.request.local_pictures:
        rows.to_publish.add(task.request.model)
    price = MODELS[task.request.model].yuan_per_image
    if price is None:
        rows.images_without_price += task.request.images
    else:
        rows.yuan += price * task.request.images


def _continued(intake: Intake) -> str | None:
    if len(intake.batches) > 1:
        raise Refused("several_batches", batches=", ".join(intake.batches))
    return next(iter(intake.batches), None)


@contextmanager
def checked_rows(source: Source, *, skip_invalid: bool) -> Iterator[Rows]:
    """The rows to run. Raises `Refused` if some are wrong and none may be left out, or if there are none."""
    with read_rows(source) as rows:
        tell_problems(rows, SHOWN)
        if rows.wrong_rows and not skip_invalid:
            raise Refused("rows_invalid", count=rows.wrong_rows)
        if rows.wrong_rows:
            say(text("rows_skipped", count=rows.wrong_rows))
        if not rows.count:
            raise Refused("input_empty", Exit.NO_TASKS, path=source.path)
        yield rows


def tell_problems(rows: Rows, at_most: int | None = None) -> None:
    """What is wrong, one line each, and the columns that nobody uses."""
    for problem in rows.problems[:at_most]:
        say(described(problem))
    if at_most is not None and len(rows.problems) > at_most:
        say(text("rows_more", count=len(rows.problems) - at_most))
    if rows.ignored:
        say(text("columns_ignored", columns=", ".join(rows.ignored)))
