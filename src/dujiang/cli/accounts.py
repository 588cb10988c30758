"""`dujiang accounts …`: how each account is doing, testing its keys, stopping it, capping a day's images, a month's."""

import asyncio
import time
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import change, read_database, settings_of
from dujiang.cli.show import print_json, print_table
from dujiang.domain.accounts import Account
from dujiang.domain.rests import Rest, Subject
from dujiang.engines.sql import lanes, ledger
from dujiang.engines.sql.engine import SqlEngine
from dujiang.engines.sql.rows import rest_of
from dujiang.engines.sql.schema import rests
from dujiang.messages import text
from dujiang.ports import AccountUse, LaneUse
from dujiang.runner.clock import midnight_before
from dujiang.runner.progress import day_cap
from dujiang.settings import Settings


def list_all(home: Path | None, *, as_json: bool) -> int:
    """Every account that is configured, or was ever used."""
    settings = settings_of(home)
    now = time.time()
    configured = {account.name: account for account in settings.configured_accounts()}
    with read_database(settings) as connection:
        stored = {use.name: use for use in lanes.account_uses(connection, midnight_before(now))}
        uses = lanes.use(connection, now)
        resting = [rest_of(row) for row in connection.execute(sa.select(rests)).mappings()]
    shown = [
        _shown(name, configured.get(name), stored.get(name), uses, resting, now)
        for name in sorted({*configured, *stored})
    ]
    if as_json:
        for account in shown:
            print_json(account)
        return Exit.OK
    if not shown:
        say(text("no_accounts"))
        return Exit.OK
    names = ("account", "state", "why", "in_use", "images_today", "keys", "models")
    print_table([text(f"column_{name}") for name in names], [_row(account) for account in shown], wide=[2, 6])
    return Exit.OK


def _shown(
    name: str,
    configured: Account | None,
    use: AccountUse | None,
    lane_uses: Sequence[LaneUse],
    resting: Sequence[Rest],
    now: float,
) -> dict[str, Any]:
    mine = [lane_use for lane_use in lane_uses if use is not None and lane_use.lane.account_id == use.id]
    in_use = sum(lane_use.in_use for lane_use in mine)
    cap = day_cap(use, configured.daily_images if configured else None)
    rest = _rest_of(use, mine, resting)
    message = ""
    if configured is None:
        state, why = "unconfigured", None
    elif use is not None and use.stopped:
        state = "drained" if use.stopped == "draining" and not in_use else use.stopped
        why = "paused(account)"
    elif rest is not None:
        code, _, message = rest.detail.partition(": ")
        state, why = "resting", f"account({code})"
    elif use is not None and cap is not None and use.images_today >= cap:
        state, why = "capped", f"budget({use.images_today}/{cap})"
    else:
        state, why = "active", None
    fingerprints = [key.fingerprint for key in configured.keys] if configured else list(use.fingerprints if use else ())
    return {
        "account": name,
        "state": state,
        "reason": why,
        "message": message or None,
        "next_look_in_s": round(rest.remaining_s(now), 1) if rest is not None else None,
        "in_use": in_use,
        "images_today": use.images_today if use is not None else 0,
        "daily_images": cap,
        "keys": fingerprints,
        "models": list(configured.models) if configured else [],
        "lanes": {lane_use.lane.req_key: lane_use.in_use for lane_use in mine if lane_use.in_use},
    }


def _rest_of(use: AccountUse | None, mine: Sequence[LaneUse], resting: Sequence[Rest]) -> Rest | None:
    """What the vendor has refused it for; of one product alone, if it refuses no more than that."""
    if use is None:
        return None
    products = {str(lane_use.lane.id) for lane_use in mine}
    found = [
        rest
        for rest in resting
        if (rest.subject is Subject.ACCOUNT and rest.key == str(use.id))
        or (rest.subject is Subject.LANE and rest.code == "account" and rest.key in products)
    ]
    return min(found, key=lambda rest: rest.subject is not Subject.ACCOUNT, default=None)


def _row(account: Mapping[str, Any]) -> list[object]:
    cap = account["daily_images"]
    return [
        account["account"],
        text(f"account_{account['state']}"),
        f"{account['reason'] or ''} {account['message'] or ''}".strip(),
        account["in_use"],
        account["images_today"] if cap is None else f"{account['images_today']}/{cap}",
        len(account["keys"]),
        ", ".join(account["models"]) or text("all_models"),
    ]


def test(name: str | None, home: Path | None, *, as_json: bool) -> int:
    """Ask the vendor for a job that does not exist, with every key: free. Whose key is taken rests no longer."""
    from dujiang import wiring

    settings = settings_of(home)
    wiring.check_address(settings.jimeng_endpoint)
    accounts = _named(wiring.accounts_of(settings), name)
    found = [probe for account in accounts for probe in asyncio.run(wiring.probe(settings, account))]
    good = {account.name for account in accounts} - {probe.account for probe in found if not probe.is_good}
    change(settings, lambda engine: _end_rests(engine, good))
    if as_json:
        for probe in found:
            print_json(
                {
                    "account": probe.account,
                    "key": probe.key,
                    "ok": probe.is_good,
                    "refused": probe.refused,
                    "network": probe.network,
                    "skew_s": probe.skew_s,
                }
            )
    else:
        for probe in found:
            code = "test_refused" if probe.refused else "test_unreachable" if probe.network else "test_accepted"
            reason = probe.refused or probe.network
            say(text(code, account=probe.account, key=probe.key[:8], reason=reason))
    if any(probe.refused for probe in found):
        return Exit.CREDENTIALS
    return Exit.UNREACHABLE if any(probe.network for probe in found) else Exit.OK


def _named(accounts: Sequence[Account], name: str | None) -> Sequence[Account]:
    found = [account for account in accounts if name in (None, account.name)]
    if not found:
        raise _unknown(name, [account.name for account in accounts])
    return found


def _unknown(name: str | None, known: Sequence[str]) -> Refused:
    return Refused("account_unknown", account=name, known=", ".join(sorted(known)))


async def _end_rests(engine: SqlEngine, names: set[str]) -> None:
    """A key that is taken again need not wait for the next look."""
    mine = [use.lane for use in await engine.lanes() if use.lane.account in names]
    over = {(Subject.ACCOUNT, str(lane.account_id)) for lane in mine}
    for rest in await engine.rests():
        if (rest.subject, rest.key) in over:
            await engine.end_rest(rest.subject, rest.key)


def stop(name: str, home: Path | None, stopped: str | None) -> int:
    """Pause, drain or resume."""
    settings = settings_of(home)
    left = change(settings, lambda engine: _stop(settings, engine, name, stopped))
    say(text(f"account_now_{stopped or 'active'}", account=name, count=left))
    return Exit.OK


async def _stop(settings: Settings, engine: SqlEngine, name: str, stopped: str | None) -> int:
    account = await _stored(settings, engine, name)
    await engine.stop_account(account.id, stopped)
    return sum(use.in_use for use in await engine.lanes() if use.lane.account_id == account.id)


def cap(name: str, images: str, home: Path | None) -> int:
    """At most so many images a day, for everybody; `none` lifts it, `default` leaves it to the settings."""
    words = {"none": 0, "default": None}
    if images not in words and not (images.isdecimal() and int(images) > 0):
        raise Refused("cap_unknown", value=images)
    settings = settings_of(home)

    async def set_cap(engine: SqlEngine) -> int | None:
        account = await _stored(settings, engine, name)
        await engine.cap_account(account.id, words[images] if images in words else int(images))
        daily_images = {entry.name: entry.daily_images for entry in settings.configured_accounts()}
        return day_cap(await _stored(settings, engine, name), daily_images.get(name))

    most = change(settings, set_cap)
    say(text("account_cap_none" if most is None else "account_cap_now", account=name, images=most))
    return Exit.OK


async def _stored(settings: Settings, engine: SqlEngine, name: str) -> AccountUse:
    """The account as everybody shares it; one that is configured and was never used is known from now on."""
    from dujiang import wiring

    configured = {account.name: account for account in settings.configured_accounts()}
    accounts = {account.name: account for account in await engine.accounts(midnight_before(time.time()))}
    if name in configured and name not in accounts:
        await wiring.open_lane(settings, engine, configured[name])
        accounts = {account.name: account for account in await engine.accounts(midnight_before(time.time()))}
    if name not in accounts:
        raise _unknown(name, [*{**configured, **accounts}])
    return accounts[name]


def pause_everything(home: Path | None, *, paused: bool) -> int:
    """Nothing is uploaded or submitted for anybody, until it goes on."""
    change(settings_of(home), lambda engine: engine.pause_everything(paused=paused))
    say(text("everything_paused" if paused else "everything_resumed"))
    return Exit.OK


def spent(month: str | None, home: Path | None, *, as_json: bool) -> int:
    """What each account's submits of a month brought, those of pruned batches included."""
    days = _days_of(month or time.strftime("%Y-%m"))
    since, until = (day.timestamp() for day in (days[0], days[-1]))
    with read_database(settings_of(home)) as connection:
        found = ledger.spent(connection, [day.strftime("%Y-%m-%d") for day in days[:-1]], since, until)
    if as_json:
        for one in found:
            print_json({"month": days[0].strftime("%Y-%m"), **asdict(one)})
        return Exit.OK
    if not found:
        say(text("nothing_spent"))
        return Exit.OK
    names = ("account", "product", "attempt", "images", "images_in_doubt")
    rows = [[one.account, one.req_key, one.submits, one.images, one.in_doubt] for one in found]
    print_table([text(f"column_{name}") for name in names], rows)
    return Exit.OK


def _days_of(month: str) -> list[datetime]:
    """Midnights of a month's days and of the day behind it, in the machine's own time zone."""
    try:
        first = datetime.strptime(month, "%Y-%m")  # noqa: DTZ007 - local time, as a day's cap is
    except ValueError:
        raise Refused("month_unknown", value=month) from None
    length = monthrange(first.year, first.month)[1]
    return [first + timedelta(days=number) for number in range(length + 1)]
