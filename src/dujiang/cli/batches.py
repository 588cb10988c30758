"""`dujiang batch …`."""

from pathlib import Path
from typing import Any

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import batch_named, change, living_batch, read_database, settings_of
from dujiang.cli.show import counts_line, moment, print_fields, print_json, print_table
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import figures, list_batches
from dujiang.messages import text


def list_all(home: Path | None, *, as_json: bool) -> int:
    """Every batch, newest first."""
    with read_database(settings_of(home)) as connection:
        found = list_batches(connection)
    if as_json:
        for batch in found:
            print_json(batch)
        return Exit.OK
    if not found:
        say(text("no_batches"))
        return Exit.OK
    columns = [text(f"column_{name}") for name in ("batch", "state", "created_at", "counts", "out")]
    rows = [
        [
            batch["batch"],
            text(f"batch_{batch['state']}"),
            moment(batch["created_at"]),
            counts_line(batch["counts"]),
            batch["out"],
        ]
        for batch in found
    ]
    print_table(columns, rows, wide=[3, 4])
    return Exit.OK


def show(word: str, home: Path | None, *, as_json: bool) -> int:
    """One batch, what it cost, and what waits for a decision."""
    with read_database(settings_of(home)) as connection:
        batch = batch_named(connection, word)
        cost = figures(connection, batch["id"])
    batch |= {"images": cost.images, "refused": cost.refused, "in_doubt": cost.doubts}
    if as_json:
        print_json(batch)
        return Exit.OK
    shown: dict[str, Any] = dict(batch)
    shown["state"] = text(f"batch_{batch['state']}")
    shown["counts"] = counts_line(batch["counts"])
    shown["created_at"] = moment(batch["created_at"])
    shown["pruned_at"] = moment(batch["pruned_at"])
    shown["in_doubt"] = ", ".join(str(task_id) for task_id in cost.doubts)
    shown.pop("paused")
    print_fields({text(f"column_{name}"): value for name, value in shown.items()})
    if batch["pruned_at"] is not None:
        say(text("batch_was_pruned"))
    if cost.doubts:
        say(text("how_to_resolve", task=cost.doubts[0]))
    return Exit.OK


def pause(word: str, home: Path | None, *, paused: bool) -> int:
    """Pause or resume."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        batch = living_batch(connection, word)
    change(settings, lambda engine: engine.pause(batch["id"], paused=paused))
    say(text("batch_paused_now" if paused else "batch_resumed_now", batch=batch["batch"]))
    return Exit.OK


def priority(word: str, points: int, home: Path | None) -> int:
    """Of a batch, from the next free slot on."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        batch = living_batch(connection, word)
    change(settings, lambda engine: engine.set_priority(points, batch_id=batch["id"]))
    say(text("batch_priority_now", batch=batch["batch"], priority=points))
    return Exit.OK


def budget(word: str, images: str, home: Path | None) -> int:
    """So many images in all, or as many as are wanted (`none`)."""
    if images != "none" and not (images.isdecimal() and int(images) > 0):
        raise Refused("images_unknown", value=images)
    most = None if images == "none" else int(images)
    settings = settings_of(home)
    with read_database(settings) as connection:
        batch = living_batch(connection, word)

    async def set_budget(engine: SqlEngine) -> int:
        await engine.set_budget(batch["id"], most)
        changed = await engine.batch(batch["id"])
        return (changed.images_taken or 0) if changed else 0

    taken = change(settings, set_budget)
    say(
        text(
            "batch_budget_none" if most is None else "batch_budget_now", batch=batch["batch"], images=most, taken=taken
        )
    )
    return Exit.OK


def cancel(word: str, home: Path | None) -> int:
    """Cancel what waits, ask for what runs."""
    settings = settings_of(home)
    with read_database(settings) as connection:
        batch = living_batch(connection, word)
    done = change(settings, lambda engine: engine.cancel(batch_id=batch["id"]))
    say(text("cancel_result", **done))
    return Exit.OK
