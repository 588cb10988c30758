"""`dujiang tasks …` and `dujiang resolve`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import batch_named, change, read_database, settings_of
from dujiang.cli.show import moment, one_line, print_fields, print_json, print_table
from dujiang.cli.surroundings import surroundings
from dujiang.domain.errors import StaleTask, UnlawfulEvent
from dujiang.domain.lifecycle import FINAL, Event, GivenUp, JobFound, ResubmitDecided, State
from dujiang.domain.reasons import Surroundings, Waiting, reason
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import TaskFilter, list_tasks, show_task
from dujiang.messages import text
from dujiang.runner.progress import batch_view

INTERNAL = ("req_key", "paused", "max_images", "images_taken", "images", "contents", "published")


def list_page(
    home: Path | None,
    batch: str | None,
    states: Sequence[str],
    code: str | None,
    after: int,
    limit: int,
    *,
    as_json: bool,
) -> int:
    """One page, in the order of ids."""
    wanted = _states(states)
    settings = settings_of(home)
    with read_database(settings) as connection:
        batch_id = batch_named(connection, batch)["id"] if batch else None
        found = list_tasks(connection, TaskFilter(batch_id, wanted, code, after, limit))
        around = surroundings(connection, settings)
    shown = [_with_reason(task, around) for task in found]
    if as_json:
        for task in shown:
            print_json(task)
        return Exit.OK
    columns = [text(f"column_{name}") for name in ("id", "batch", "state", "attempt", "why", "prompt")]
    print_table(columns, [_row(task) for task in shown], wide=[4, 5])
    if len(shown) == limit:
        say(text("more_tasks", after=shown[-1]["id"]))
    return Exit.OK


def _states(words: Sequence[str]) -> list[State]:
    unknown = next((word for word in words if word not in set(State)), None)
    if unknown is not None:
        raise Refused("state_unknown", state=unknown, known=", ".join(State))
    return [State(word) for word in words]


def _with_reason(task: dict[str, Any], around: Surroundings) -> dict[str, Any]:
    batch = batch_view(task["paused"], task["images_taken"], task["max_images"])
    waiting = Waiting(State(task["state"]), task["req_key"], batch, task["images"], task["published"], task["lane"])
    why = reason(waiting, around)
    return {name: value for name, value in (task | {"reason": why}).items() if name not in INTERNAL}


def _row(task: dict[str, Any]) -> list[object]:
    error = task["error"]
    why = task["reason"] or (f"{error['code']} {error['message'] or ''}".strip() if error else "")
    return [task["id"], task["batch"], text(f"state_{task['state']}"), task["attempt"], why, one_line(task["prompt"])]


def show(task_id: int, home: Path | None, *, as_json: bool) -> int:
    """One task, its attempts and its history."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        found = show_task(connection, task_id)
        around = surroundings(connection, settings)
    if found is None:
        raise Refused("task_unknown", task=task_id)
    task = _with_reason(found, around)
    if as_json:
        print_json(task)
        return Exit.OK
    _print_task(task)
    return Exit.OK


def _print_task(task: dict[str, Any]) -> None:
    attempts, events = task.pop("attempts"), task.pop("events")
    shown = dict(task)
    shown["state"] = text(f"state_{task['state']}")
    for name in ("created_at", "updated_at", "sent_at"):
        shown[name] = moment(task[name])
    error = task["error"]
    shown["error"] = f"{error['code']} {error['message'] or ''}" if error else None
    shown["files"] = ", ".join(file["path"] for file in task["files"])
    shown["refs"] = " | ".join(task["refs"])
    shown["parameters"] = " ".join(f"{name}={json.dumps(value)}" for name, value in task["parameters"].items())
    shown["cancel_requested"] = text("yes") if task["cancel_requested"] else None
    print_fields({text(f"column_{name}"): value for name, value in shown.items() if name != "batch_id"})
    for attempt in attempts:
        say("")
        print_fields(
            {
                text("column_number"): attempt["number"],
                text("column_outcome"): text(f"outcome_{attempt['outcome']}"),
                text("column_sent_at"): moment(attempt["sent_at"]),
                text("column_job_id"): attempt["job_id"],
                text("column_slot_until"): moment(attempt["slot_until"]) if attempt["outcome"] == "in_doubt" else None,
            }
        )
    say("")
    columns = [text(f"column_{name}") for name in ("at", "event", "state", "details")]
    rows = [[moment(event["at"]), event["type"], text(f"state_{event['state']}"), _details(event)] for event in events]
    print_table(columns, rows, wide=[3])


def _details(event: dict[str, Any]) -> str:
    known = {"at", "type", "state", "attempt"}
    return " ".join(f"{name}={value}" for name, value in event.items() if name not in known and value)


def cancel(task_ids: Sequence[int], home: Path | None) -> int:
    """Cancel tasks by id."""
    settings = settings_of(home)
    done = change(settings, lambda engine: engine.cancel(task_ids=task_ids))
    unknown = len(task_ids) - sum(done.values())
    say(text("cancel_result", **done))
    if unknown:
        raise Refused("tasks_unknown", count=unknown)
    return Exit.INPUT if done["refused"] else Exit.OK


def priority(points: int, task_ids: Sequence[int], home: Path | None) -> int:
    """Of tasks, beside their batch's; from the next free slot on."""
    changed = change(settings_of(home), lambda engine: engine.set_priority(points, task_ids=task_ids))
    if changed:
        say(text("tasks_priority_now", count=changed, priority=points))
    if changed < len(set(task_ids)):
        raise Refused("tasks_unknown", count=len(set(task_ids)) - changed)
    return Exit.OK


def retry(
    task_ids: Sequence[int],
    home: Path | None,
    batch: str | None,
    states: Sequence[str],
    code: str | None,
    *,
    again: bool,
) -> int:
    """New tasks for ended ones: by id, or all of a batch that failed for a reason."""
    settings = settings_of(home)
    wanted = list(task_ids)
    if batch:
        wanted += _ended(settings_batch=(settings, batch), states=_states(states), code=code)
    if not wanted:
        raise Refused("retry_nothing")
    made = change(settings, lambda engine: engine.retry(wanted, again=again))
    say(text("retry_result", count=len(made), left=len(wanted) - len(made)))
    if made:
        say(text("retry_run"))
    return Exit.OK if made else Exit.INPUT


def _ended(settings_batch: tuple[Any, str], states: Sequence[State], code: str | None) -> list[int]:
    settings, word = settings_batch
    ended = list(states) or sorted(FINAL - {State.SUCCEEDED, State.CANCELLED})
    found: list[int] = []
    with read_database(settings) as connection:
        batch_id = batch_named(connection, word)["id"]
        while True:
            after = found[-1] if found else 0
            page = list_tasks(connection, TaskFilter(batch_id, ended, code, after, 1000))
            found += [task["id"] for task in page]
            if len(page) < 1000:
                return found


def resolve(task_id: int, decision: str, job_id: str | None, home: Path | None) -> int:
    """Decide about a task in doubt."""
    if (decision == "found") != (job_id is not None):
        raise Refused("resolve_job_id", task=task_id)
    events: dict[str, Event] = {
        "resubmit": ResubmitDecided(),
        "found": JobFound((job_id or "").strip()),
        "fail": GivenUp(),
    }

    async def decide(engine: SqlEngine) -> None:
        task = await engine.task(task_id)
        if task is None:
            raise Refused("task_unknown", task=task_id)
        try:
            await engine.record(task, events[decision])
        except (UnlawfulEvent, StaleTask):
            raise Refused("resolve_not_in_doubt", task=task_id, state=text(f"state_{task.state}")) from None

    change(settings_of(home), decide)
    say(text(f"resolved_{decision}", task=task_id))
    return Exit.OK
