"""`dujiang limit …`: what each lane's limit is, how it was found, and saying that more was bought."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import change, read_database, settings_of
from dujiang.cli.show import moment, print_json, print_lines, print_table
from dujiang.cli.surroundings import surroundings
from dujiang.domain.lifecycle import State
from dujiang.domain.limits import AutoLimit, Limit
from dujiang.domain.pace import Pace
from dujiang.domain.reasons import Surroundings, Waiting, reason
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
    with read_database(settings) as connection:
        around = surroundings(connection, settings)
        hours = lane_hours(connection, around.now)
        uses = [use for use in lanes.use(connection, around.now) if use.lane.id in hours]
        paces = {account.id: account.pace for account in lanes.account_uses(connection, around.now)}
    general = parsed_limit(settings.concurrency)
    shown = [
        _shown(use, hours[use.lane.id], use.limit_in_force(general), paces[use.lane.account_id], around) for use in uses
    ]
    if as_json:
        for lane in shown:
            print_json(lane)
        return Exit.OK
    if not shown:
        say(text("no_lanes"))
        return Exit.OK
    names = ("lane", "limit", "in_use", "refused_of", "run_times", "next_look")
    print_table([text(f"column_{name}") for name in names], [_row(lane) for lane in shown], wrapped=0)
    for lane in shown:
        print_lines(["", lane["lane"], *(f"  {line}" for line in _story(lane))])
    return Exit.OK


def _shown(use: LaneUse, hour: LaneHour, limit: Limit, pace: Pace | None, around: Surroundings) -> dict[str, Any]:
    belief = use.belief
    look_at = belief.next_look_at if belief is not None else None
    if isinstance(limit, AutoLimit) and belief is not None and belief.limit >= limit.high:
        look_at = None  # more is not wanted
    return {
        "lane": use.lane.name,
        "endpoint": use.lane.endpoint,
        "limit": str(limit),
        "slots": slots_of(limit, belief),
        "in_use": use.in_use,
        "reason": _obstacle(use, around),
        "submit_every_s": (pace.spacing_s or None) if pace is not None else None,
        "submits": hour.submits,
        "refusals": hour.refusals,
        "median_run_s": hour.median_run_s,
        "p95_run_s": hour.p95_run_s,
        "next_look_in_s": None if look_at is None else round(max(0.0, look_at - around.now), 1),
        "fell_from": (belief.fell_from(around.now) or None) if belief is not None else None,
        "belief": belief.as_json() if belief is not None else None,
        "events": hour.events[-EVENTS_SHOWN:],
    }


def _obstacle(use: LaneUse, around: Surroundings) -> str | None:
    """What keeps the lane from submitting, whatever its slots; None if nothing does."""
    alone = [view for view in around.lanes if view.lane == use.lane]
    found = reason(Waiting(State.READY, use.lane.req_key), replace(around, lanes=alone, worker_runs=True))
    return None if found is None or found.startswith("slot(") else found


def _row(lane: Mapping[str, Any]) -> list[object]:
    look, median_s, p95_s = lane["next_look_in_s"], lane["median_run_s"], lane["p95_run_s"]
    return [
        lane["lane"],
        lane["limit"],
        f"{lane['in_use']}/{_slots(lane)}",
        text("refused_of", refusals=lane["refusals"], submits=lane["submits"]),
        "" if median_s is None else f"{median_s:.1f} ({p95_s:.1f})",
        "" if look is None else f"{look:.0f} s" if look else text("next_look_due"),
    ]


def _slots(lane: Mapping[str, Any]) -> object:
    return "?" if lane["slots"] is None else lane["slots"]


def _story(lane: Mapping[str, Any]) -> Iterator[str]:
    """What stands in the way, what the lane believes, and how that came about."""
    if lane["reason"] is not None:
        yield text("lane_stands", reason=lane["reason"])
    if lane["submit_every_s"] is not None:
        yield text("lane_slowed", every=f"{lane['submit_every_s']:.2g}")
    yield _believed(lane)
    if lane["fell_from"] is not None:
        yield text("lane_fell", former=lane["fell_from"])
    for event in lane["events"]:
        yield f"{moment(event['at'])}  {event['what']}"


def _believed(lane: Mapping[str, Any]) -> str:
    belief, slots, look = lane["belief"], lane["slots"], lane["next_look_in_s"]
    if belief is None:
        return text("lane_fixed" if slots is not None else "lane_new", slots=slots)
    if slots is None:
        return text("lane_climbing_again" if belief["former"] else "lane_climbing", former=belief["former"])
    why = text(f"lane_because_{belief['why']}")
    if look is None:
        return text("lane_holds", slots=slots, why=why)
    code = "lane_looks_later" if look else "lane_looks_next"
    return text(code, slots=slots, why=why, wait=f"{look:.0f}")


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
