"""Our side of a race: the command `dujiang run`, and what its database says afterwards."""

import asyncio
import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from clients import Order, pictures, prompt
from dujiang import wiring
from dujiang.settings import Settings
from use import TIME_SCALE, Told


def command(order: Order, folder: Path, limit: str) -> list[str]:
    """Write the sheet; the command that works on it."""
    sheet = folder / "rows.csv"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        rows = [[prompt(order, number), "|".join(pictures(order, number))] for number in range(order.tasks)]
        csv.writer(file).writerows([["prompt", "refs"], *rows])
    program = Path(sys.executable).with_name("dujiang")
    return [str(program), "run", str(sheet), "--concurrency", limit, "--out", str(folder / "out")]


def accounts(order: Order) -> str:
    """As `DUJIANG_ACCOUNTS` has them."""
    return json.dumps([{"name": a.name, "access_key": a.access, "secret_key": a.secret} for a in order.accounts])


def rows(home: Path, query: str, *values: object) -> list[sqlite3.Row]:
    """What our database answers, also while the program works with it."""
    with closing(sqlite3.connect(f"{(home / 'dujiang.db').as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query, values).fetchall()


def told(home: Path) -> Told:
    """What the program has written down."""
    ended = rows(home, "SELECT job_id, ended_at FROM attempts WHERE job_id IS NOT NULL AND ended_at IS NOT NULL")
    doubts = rows(
        home,
        "SELECT request, slot_until FROM tasks JOIN attempts ON task_id = id AND number = attempt"
        " WHERE state = 'in_doubt'",
    )
    postponed = "SELECT count(*) FROM events WHERE type = 'Postponed' AND json_extract(data, '$.code') = 'network'"
    return Told(
        noticed={row["job_id"]: row["ended_at"] for row in ended},
        put_off=rows(home, postponed)[0][0],
        in_doubt={json.loads(row["request"])["prompt"]: row["slot_until"] for row in doubts},
    )


def hint(home: Path) -> None:
    """What `dujiang limit hint` does, without the second that Python takes to start: ten of the vendor's."""

    async def tell() -> None:
        settings = Settings(home=home, time_scale=TIME_SCALE)
        async with wiring.open_engine(settings) as engine:
            for use in await engine.lanes():
                await engine.hint(use.lane)

    asyncio.run(tell())


def rests(home: Path) -> dict[str, str]:
    """Account -> why it rests, in the words of our database."""
    found = rows(
        home, "SELECT name, detail FROM rests JOIN accounts ON accounts.id = rests.key WHERE rests.subject = 'account'"
    )
    return {row["name"]: row["detail"] for row in found}


def unfinished(home: Path) -> set[str]:
    """Accounts whose jobs run; and nobody (``) for tasks that wait for one."""
    found = rows(
        home,
        "SELECT CASE state WHEN 'generating' THEN accounts.name ELSE '' END AS name FROM tasks"
        " LEFT JOIN attempts ON attempts.task_id = tasks.id AND attempts.number = tasks.attempt"
        " LEFT JOIN lanes ON lanes.id = attempts.lane_id LEFT JOIN accounts ON accounts.id = lanes.account_id"
        " WHERE state != 'succeeded'",
    )
    return {row["name"] for row in found}
