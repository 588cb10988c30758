"""`dujiang limit …`: what each lane's limit is, how it was found, and saying that more was bought."""

import time
from pathlib import Path
from typing import Any, Final

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import change, read_database, settings_of
from dujiang.cli.show import moment, print_json, print_table
from dujiang.domain.limits import Limit
from dujiang.engines.sql import lanes
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.queries import LaneHour, lane_hours
from dujiang.messages import text
from dujiang.ports import LaneUse
from dujiang.runner.admission import slots_of
from dujiang.settings import parsed_limit

EVENTS_SHOWN: Final = 5


def show(home: Path | None, *, as_json: bool) -> int:
    """Every lane that was ever used."""
    settings = settings_of(home)
    now = time.time()
    with read_database(settings) as connection:
        hours = lane_hours(connection, now)
        uses = [use for use in lanes.use(connection, now) if use.lane.id in hours]
    general = parsed_limit(settings.concurrency)
    shown = [_shown(use, hours[use.lane.id], use.limit_in_force(general), now) for use in uses]
    if as_json:
        for lane in shown:
            print_json(lane)
        return Exit.OK
    if not shown:
        say(text("no_lanes"))
        return Exit.OK
    names = ("lane", "limit", "slots", "in_use", "submits", "refusals", "median_run_s", "next_look")
    columns = [text(f"column_{name}") for name in names]
    print_table(columns, [_row(lane) for lane in shown], wide=[0])
    for lane in shown:
        for event in lane["events"]:
            say(f"  {moment(event['at'])}  {lane['lane']}  {event['what']}")
    return Exit.OK


def _shown(use: LaneUse, hour: LaneHour, limit: Limit, now: float) -> dict[str, Any]:
    belief = use.belief
    look_at = belief.next_look_at if belief is not None else None
    return {
        "lane": use.lane.name,
        "endpoint": use.lane.endpoint,
        "limit": str(limit),
        "slots": slots_of(limit, belief),
        "in_use": use.in_use,
        "submits": hour.submits,
        "refusals": hour.refusals,
        "median_run_s": hour.median_run_s,
        "next_look_in_s": None if look_at is None else round(max(0.0, look_at - now), 1),
        "belief": belief.as_json() if belief is not None else None,
        "events": hour.events[-EVENTS_SHOWN:],
    }


def _row(lane: dict[str, Any]) -> list[object]:
    look, run_s = lane["next_look_in_s"], lane["median_run_s"]
    return [
        lane["lane"],
        lane["limit"],
        "?" if lane["slots"] is None else lane["slots"],
        lane["in_use"],
        lane["submits"],
        lane["refusals"],
        "" if run_s is None else f"{run_s:.1f}",
        "" if look is None else f"{look:.0f} s",
    ]


def hint(lane: str | None, home: Path | None) -> int:
    """Look at once, because more was bought: one lane, or all that find their limit."""
    settings = settings_of(home)

    async def tell(engine: SqlEngine) -> list[str]:
        uses = [use for use in await engine.lanes() if lane in (None, use.lane.name)]
        if lane is not None and not uses:
            raise Refused("lane_unknown", lane=lane)
        return [use.lane.name for use in uses if await engine.hint(use.lane)]

    told = change(settings, tell)
    if not told:
        raise Refused("hint_nothing")
    say(text("hint_told", lanes=", ".join(told)))
    return Exit.OK
