"""What must be true after any number of kills, judged from three witnesses that cannot agree on a lie.

The database says what we believe, the vendor's ledger what was charged, the disk what there is to see.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from PIL import Image

from dujiang.domain.lifecycle import AWAITING_DECISION, FINAL, TRANSITIONS, State
from dujiang.domain.task import SETTLED, UNSETTLED, Outcome

SAME_MOMENT_S: Final = 0.05  # two clocks of one machine: the vendor's is monotonic, the database's is not
CAUSES: Final = frozenset({"Postponed", "LinkRefused", "OutputRefused", "ResubmitDecided"})
PROOFS: Final = frozenset({"Postponed", "LinkRefused"})


class Invariant(StrEnum):
    """One promise."""

    NOTHING_LOST = "nothing lost"
    LAWFUL_HISTORY = "every history is lawful"
    NOBODY_HOLDS = "nothing is held by the dead"
    COMMITTED_FIRST = "the attempt is on disk before anything is sent"
    ONE_CHARGE_AN_ATTEMPT = "at most one job an attempt"
    CAUSE = "no second attempt without proof or a decision"
    PROOF_HOLDS = "what counts as proof is true"
    RULE_10 = "settled <= charges <= settled + in doubt"
    BUDGET = "a budget counts what its attempts took"
    LIMIT = "never more at the vendor than the limit"
    FILES = "every picture is complete"
    ONE_CHARGE_A_TASK = "everything came out as told, paid once"


class InvariantBroken(AssertionError):
    """Promises that were not kept, each with what shows it."""

    def __init__(self, found: Sequence[tuple[Invariant, str]]) -> None:
        counted = Counter(invariant for invariant, _ in found)
        told = "\n".join(f"  {invariant}: {detail}" for invariant, detail in found[:40])
        super().__init__(f"{dict(counted)}\n{told}")
        self.broken = frozenset(counted)


Row = Mapping[str, Any]
"""A line of a table or of the ledger, by column."""


@dataclass(frozen=True)
class Evidence:
    """Everything that is left after the last process has ended."""

    expected: Mapping[str, State]
    """Prompt -> how its task ends when every doubt is resolved."""
    limit: int
    decisions: frozenset[int]
    """Tasks that somebody decided to send again."""
    ledger: Mapping[str, Any]
    images: Path
    tasks: list[Row]
    attempts: list[Row]
    events: list[Row]
    workers: list[Row]
    batches: list[Row]
    prompts: dict[int, str] = field(default_factory=dict)

    @cached_property
    def attempts_of(self) -> dict[int, list[Row]]:
        """By task, in order."""
        return _by_task(self.attempts)

    @cached_property
    def events_of(self) -> dict[int, list[Row]]:
        """By task, in order."""
        return _by_task(self.events)

    @cached_property
    def jobs_of(self) -> dict[str, list[Row]]:
        """The vendor's jobs by prompt, in order."""
        found: dict[str, list[Row]] = {}
        for job in sorted(self.ledger["charges"], key=lambda job: float(job["submitted_at"])):
            found.setdefault(job["prompt"], []).append(job)
        return found

    @cached_property
    def owned(self) -> set[str]:
        """Job ids that an attempt has."""
        return {attempt["job_id"] for attempt in self.attempts if attempt["job_id"]}

    def jobs_by_attempt(self, task_id: int) -> dict[int, list[Row]]:
        """The task's jobs under the number of their attempt; 0: no attempt can have caused it."""
        attempts = self.attempts_of.get(task_id, [])
        numbers = {attempt["job_id"]: int(attempt["number"]) for attempt in attempts if attempt["job_id"]}
        found: dict[int, list[Row]] = {}
        for job in self.jobs_of.get(self.prompts[task_id], []):
            number = numbers.get(job["task_id"]) or _sender(job, attempts)
            found.setdefault(number, []).append(job)
        return found


def _sender(job: Row, attempts: Sequence[Row]) -> int:
    """The number of the attempt that must have sent a job whose answer nobody has; 0: none can have."""
    before = [attempt for attempt in attempts if attempt["sent_at"] <= job["submitted_at"] + SAME_MOMENT_S]
    unanswered = [attempt for attempt in before if not attempt["job_id"]]
    return max((int(attempt["number"]) for attempt in unanswered or before), default=0)


def gather(
    database_url: str,
    images: Path,
    ledger: Mapping[str, Any],
    *,
    expected: Mapping[str, State],
    limit: int,
    decisions: frozenset[int] = frozenset(),
) -> Evidence:
    """Read the database. No process may be at work."""
    tables = tables_of(
        database_url, tasks="id", attempts="task_id, number", events="id", workers="started_at", batches="id"
    )
    prompts = {int(task["id"]): str(json.loads(task["request"])["prompt"]) for task in tables["tasks"]}
    return Evidence(expected, limit, decisions, ledger, images, **tables, prompts=prompts)


def tables_of(database_url: str, **orders: str) -> dict[str, list[Row]]:
    """The rows of each named table, in this order."""
    database = sa.create_engine(database_url, poolclass=sa.NullPool)
    with database.connect() as connection:
        return {
            name: [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {name} ORDER BY {order}").mappings()]
            for name, order in orders.items()
        }


def require(evidence: Evidence, *, resolved: bool) -> None:
    """Raise `InvariantBroken` unless all is as promised. `resolved`: no doubt is left, so all must have come out."""
    checks = [*CHECKS, _came_out] if resolved else CHECKS
    found = [problem for check in checks for problem in check(evidence)]
    if found:
        raise InvariantBroken(found)


Problems = Iterator[tuple[Invariant, str]]


def _nothing_lost(evidence: Evidence) -> Problems:
    newest = Counter(evidence.prompts[task["id"]] for task in evidence.tasks if task["newest"])
    for prompt in evidence.expected.keys() | newest.keys():
        if newest[prompt] != (prompt in evidence.expected):
            yield Invariant.NOTHING_LOST, f"{prompt}: {newest[prompt]} tasks"
    for task in evidence.tasks:
        state = State(task["state"])
        if state not in FINAL | AWAITING_DECISION:
            yield Invariant.NOTHING_LOST, f"{_told(evidence, task)} was left {state}"
        if state in AWAITING_DECISION and not task["error_code"]:
            yield Invariant.NOTHING_LOST, f"{_told(evidence, task)} is {state} without a reason"


def _lawful_history(evidence: Evidence) -> Problems:
    lawful = {(state, event.__name__): after for (state, event), after in TRANSITIONS.items()}
    for task in evidence.tasks:
        state = State.READY
        claims = 0
        for event in evidence.events_of.get(task["id"], []):
            claims += event["type"] == "Claimed"
            after = lawful.get((state, event["type"]))
            if after != event["state"] or event["attempt"] != claims:
                yield Invariant.LAWFUL_HISTORY, f"{_told(evidence, task)}: {event['type']} while {state}"
            state = State(event["state"])
        numbers = [attempt["number"] for attempt in evidence.attempts_of.get(task["id"], [])]
        if state != task["state"] or numbers != list(range(1, claims + 1)) or task["attempt"] != claims:
            yield (
                Invariant.LAWFUL_HISTORY,
                f"{_told(evidence, task)}: {task['state']} with attempts {numbers} after {claims} claims to {state}",
            )


def _nobody_holds(evidence: Evidence) -> Problems:
    for task in evidence.tasks:
        if task["owner"] is not None:
            yield Invariant.NOBODY_HOLDS, f"{_told(evidence, task)} is held by {task['owner']}"
    for worker in evidence.workers:
        if worker["ended_at"] is None:
            yield Invariant.NOBODY_HOLDS, f"worker {worker['id']} still counts as alive"


def _one_charge_an_attempt(evidence: Evidence) -> Problems:
    for task in evidence.tasks:
        sent = {attempt["number"]: attempt["sent_at"] for attempt in evidence.attempts_of.get(task["id"], [])}
        for number, jobs in evidence.jobs_by_attempt(task["id"]).items():
            if number == 0 or len(jobs) > 1:
                yield Invariant.ONE_CHARGE_AN_ATTEMPT, f"{_told(evidence, task)}: attempt {number} has {len(jobs)} jobs"
            for job in jobs:
                if number == 0 or job["submitted_at"] < sent[number] - SAME_MOMENT_S:
                    yield Invariant.COMMITTED_FIRST, f"{_told(evidence, task)}: job {job['task_id']} came before it"
    known = {job["task_id"] for job in evidence.ledger["charges"]}
    for job_id, count in Counter(a["job_id"] for a in evidence.attempts if a["job_id"]).items():
        if job_id not in known or count > 1:
            yield Invariant.ONE_CHARGE_AN_ATTEMPT, f"job {job_id} belongs to {count} attempts"
    for prompt in evidence.jobs_of.keys() - evidence.expected.keys():
        yield Invariant.ONE_CHARGE_AN_ATTEMPT, f"{prompt}: a job that nobody asked for"


def _cause(evidence: Evidence) -> Problems:
    for task in evidence.tasks:
        since: list[str] = []
        for event in evidence.events_of.get(task["id"], []):
            if event["type"] != "Claimed":
                since.append(event["type"])
                continue
            if event["attempt"] > 1 and len(CAUSES.intersection(since)) != 1:
                yield Invariant.CAUSE, f"{_told(evidence, task)}: attempt {event['attempt']} after {since}"
            since = []
        decided = [e for e in evidence.events_of.get(task["id"], []) if e["type"] == "ResubmitDecided"]
        if decided and (task["id"] not in evidence.decisions or any('"person"' not in e["data"] for e in decided)):
            yield Invariant.CAUSE, f"{_told(evidence, task)}: nobody decided to send it again"


def _proof_holds(evidence: Evidence) -> Problems:
    for task in evidence.tasks:
        jobs = evidence.jobs_by_attempt(task["id"])
        for event in evidence.events_of.get(task["id"], []):
            if event["type"] in PROOFS and event["attempt"] in jobs:
                yield Invariant.PROOF_HOLDS, f"{_told(evidence, task)}: attempt {event['attempt']} did make a job"


def _rule_10(evidence: Evidence) -> Problems:
    totals = Counter[str]()
    for task in evidence.tasks:
        outcomes = [Outcome(attempt["outcome"]) for attempt in evidence.attempts_of.get(task["id"], [])]
        settled = sum(outcome in SETTLED for outcome in outcomes)
        in_doubt = sum(outcome in UNSETTLED for outcome in outcomes)
        charges = sum(job["charged"] for job in evidence.jobs_of.get(evidence.prompts[task["id"]], []))
        totals += Counter(settled=settled, in_doubt=in_doubt)
        if not settled <= charges <= settled + in_doubt:
            yield (
                Invariant.RULE_10,
                f"{_told(evidence, task)}: {settled} settled, {charges} charges, {in_doubt} in doubt",
            )
    charged = evidence.ledger["charged"]
    if not totals["settled"] <= charged <= totals["settled"] + totals["in_doubt"]:
        yield Invariant.RULE_10, f"in all {dict(totals)}, {charged} charges"


def _budget(evidence: Evidence) -> Problems:
    for batch in evidence.batches:
        mine = {task["id"] for task in evidence.tasks if task["batch_id"] == batch["id"]}
        taken = sum(attempt["images"] for attempt in evidence.attempts if attempt["task_id"] in mine)
        if batch["images_taken"] != taken:
            yield Invariant.BUDGET, f"{batch['name']}: {batch['images_taken']} counted, {taken} taken"


def _limit(evidence: Evidence) -> Problems:
    for pool, most in evidence.ledger["max_running"].items():
        if most > evidence.limit:
            yield Invariant.LIMIT, f"{most} at once in {pool}, allowed {evidence.limit}"


def _files(evidence: Evidence) -> Problems:
    known: set[str] = set()
    for task in evidence.tasks:
        files = json.loads(task["files"] or "[]")
        known.update(file["path"] for file in files)
        if bool(files) != (task["state"] == State.SUCCEEDED):
            yield Invariant.FILES, f"{_told(evidence, task)}: {task['state']} with {len(files)} files"
        for file in files:
            problem = _wrong_with(evidence.images / file["path"], file, evidence.prompts[task["id"]])
            if problem:
                yield Invariant.FILES, f"{_told(evidence, task)}: {file['path']} {problem}"
    for path in sorted(evidence.images.iterdir()):
        if path.name not in known and path.suffix != ".part":
            yield Invariant.FILES, f"{path.name} belongs to no task"


def _wrong_with(path: Path, file: Row, prompt: str) -> str | None:
    try:
        content = path.read_bytes()
        with Image.open(path) as picture:
            picture.load()
            told = picture.info.get("prompt")
            size = picture.size
    except (OSError, SyntaxError, ValueError) as error:
        return f"can't be read: {error}"
    if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
        return "is not what the database says"
    if told != prompt or size != (file["width"], file["height"]):
        return f"shows {told!r} in {size}"
    return None


def _came_out(evidence: Evidence) -> Problems:
    """After every doubt was resolved by somebody who could see the ledger, nothing was paid for in vain."""
    for task in evidence.tasks:
        prompt = evidence.prompts[task["id"]]
        state = evidence.expected.get(prompt)
        charges = sum(job["charged"] for job in evidence.jobs_of.get(prompt, []))
        if task["state"] != state or charges != (state is State.SUCCEEDED):
            yield Invariant.ONE_CHARGE_A_TASK, f"{_told(evidence, task)}: {task['state']}, paid {charges} times"


def _told(evidence: Evidence, task: Row) -> str:
    return f"task {task['id']} ({evidence.prompts[task['id']]})"


def _by_task(rows: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(int(row["task_id"]), []).append(row)
    return found


CHECKS: Final[Sequence[Callable[[Evidence], Problems]]] = (
    _nothing_lost,
    _lawful_history,
    _nobody_holds,
    _one_charge_an_attempt,
    _cause,
    _proof_holds,
    _rule_10,
    _budget,
    _limit,
    _files,
)
