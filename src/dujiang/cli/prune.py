"""`dujiang prune`: forget batches that were over long ago, and keep what they cost."""

import re
import time
from pathlib import Path
from typing import Final

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import change, settings_of
from dujiang.cli.show import moment, print_json, print_table
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.retention import Prunable
from dujiang.messages import text

DAY_S: Final = 86_400.0
SPANS_S: Final = {"d": DAY_S, "w": 7 * DAY_S}


def prune(older_than: str, home: Path | None, *, dry_run: bool, as_json: bool) -> int:
    """Every batch that is over and has not changed for so long."""
    older_than_s = _seconds(older_than)

    async def work(engine: SqlEngine) -> list[Prunable]:
        found = await engine.prunable(older_than_s)
        if dry_run:
            return found
        return [batch for batch in found if await engine.prune(batch.id, older_than_s, day_of) is not None]

    gone = change(settings_of(home), work)
    if as_json:
        for batch in gone:
            print_json({"batch": batch.name, "batch_id": batch.id, "out": batch.out, "tasks": batch.tasks})
    elif gone:
        columns = [text(f"column_{name}") for name in ("batch", "updated_at", "counts", "out")]
        print_table(columns, [[batch.name, moment(batch.changed_at), batch.tasks, batch.out] for batch in gone])
    code = "prune_would" if dry_run else "prune_done"
    say(text(code, batches=len(gone), tasks=sum(batch.tasks for batch in gone)))
    return Exit.OK


def _seconds(words: str) -> float:
    """`30d`, `8w`; a day at least, because today's images count."""
    found = re.fullmatch(r"(\d{1,5})([dw])", words)
    if found is None or not int(found[1]):
        raise Refused("older_than_unknown", value=words)
    return int(found[1]) * SPANS_S[found[2]]


def day_of(at: float) -> str:
    """The day of a moment, in the machine's own time zone."""
    return time.strftime("%Y-%m-%d", time.localtime(at))
