"""Lanes and the accounts they belong to."""

import json
from typing import Final

import sqlalchemy as sa

from dujiang.domain.accounts import Account, Lane
from dujiang.domain.belief import Belief
from dujiang.domain.limits import AutoLimit, Limit, parse_limit
from dujiang.domain.task import HELD_UNTIL_TOLD
from dujiang.engines.sql.budgets import taken_since
from dujiang.engines.sql.paces import pace_of
from dujiang.engines.sql.rows import StoredRow, dumped
from dujiang.engines.sql.schema import accounts, attempts, lanes, lines, rests, switches, waiters
from dujiang.ports import AccountUse, LaneUse

_PAUSED: Final = "paused"
EVERYTHING_PAUSED: Final = sa.exists().where(switches.c.name == _PAUSED)
ORDER_S: Final = 10.0
"""A transaction that waited for others is behind what they wrote by so much, and no clock has gone back."""
LOCK_LANES: Final = (  # where many may write at once: whoever counts a lane's slots has it alone
    sa.select(lanes.c.id)
    .where(lanes.c.id.in_(sa.bindparam("lanes", expanding=True)))
    .order_by(lanes.c.id)
    .with_for_update(key_share=True)
)
FORGOTTEN_S: Final = 86_400.0  # lines of batches that nobody has worked for since


def lane(connection: sa.Connection, endpoint: str, account: Account, req_key: str) -> Lane:
    """The lane of these three, made if it is new."""
    account_id = _account_id(connection, account)
    this = sa.and_(lanes.c.endpoint == endpoint, lanes.c.account_id == account_id, lanes.c.req_key == req_key)
    lane_id = connection.execute(sa.select(lanes.c.id).where(this)).scalar()
    if lane_id is None:
        made = connection.execute(sa.insert(lanes).values(endpoint=endpoint, account_id=account_id, req_key=req_key))
        assert made.inserted_primary_key is not None
        lane_id = int(made.inserted_primary_key[0])
    return Lane(lane_id, endpoint, account_id, account.name, req_key)


def _account_id(connection: sa.Connection, account: Account) -> int:
    """Known by any of its keys, or else by its name: a configured account that shares a key is that one, renamed."""
    mine = {key.fingerprint for key in account.keys}
    stored = connection.execute(sa.select(accounts).order_by(accounts.c.id)).mappings().all()
    by_key = [row for row in stored if mine & set(json.loads(row["fingerprints"]))]
    by_name = [row for row in stored if row["name"] == account.name]
    both = [row for row in by_key if row["name"] == account.name]
    found = next(iter([*both, *by_key, *by_name]), None)
    if found is None:
        made = connection.execute(sa.insert(accounts).values(name=account.name, fingerprints=dumped(sorted(mine))))
        assert made.inserted_primary_key is not None
        return int(made.inserted_primary_key[0])
    known = mine | set(json.loads(found["fingerprints"]))
    taken = any(row["id"] != found["id"] for row in by_name)  # another account has this name: the old one is kept
    name = found["name"] if taken else account.name
    if name != found["name"] or dumped(sorted(known)) != found["fingerprints"]:
        connection.execute(
            sa.update(accounts)
            .where(accounts.c.id == found["id"])
            .values(name=name, fingerprints=dumped(sorted(known)))
        )
    return int(found["id"])


def set_limit(connection: sa.Connection, lane: Lane, limit: Limit) -> None:
    """The lane's limit for everybody, until it is set again."""
    connection.execute(sa.update(lanes).where(lanes.c.id == lane.id).values(limit=str(limit)))


def use(connection: sa.Connection, now: float) -> list[LaneUse]:
    """Every lane with its own limit, slots in use, and the next slot that ends by time."""
    held = attempts.c.slot_until > now
    query = (
        sa.select(
            lanes,
            accounts.c.name.label("account"),
            sa.func.count(attempts.c.task_id).label("in_use"),
            sa.func.min(attempts.c.slot_until).label("next_end"),
        )
        .select_from(lanes)
        .join(accounts, accounts.c.id == lanes.c.account_id)
        .outerjoin(attempts, sa.and_(attempts.c.lane_id == lanes.c.id, held))
        .group_by(lanes.c.id, accounts.c.name)
        .order_by(lanes.c.id)
    )
    return [
        LaneUse(
            lane=Lane(row["id"], row["endpoint"], row["account_id"], row["account"], row["req_key"]),
            limit=parse_limit(row["limit"]) if row["limit"] else None,
            in_use=row["in_use"],
            next_end=row["next_end"] if row["next_end"] not in {None, HELD_UNTIL_TOLD} else None,
            belief=Belief.from_json(json.loads(row["belief"])) if row["belief"] and _finds_itself(row) else None,
            in_force=parse_limit(row["in_force"]) if row["in_force"] else None,
        )
        for row in connection.execute(query).mappings()
    ]


def _finds_itself(row: StoredRow) -> bool:
    """Whether its limit is one that finds itself: as set for everybody, or as the last claim went by."""
    words = row["limit"] or row["in_force"]
    return bool(words) and isinstance(parse_limit(words), AutoLimit)


def shorten_waits(connection: sa.Connection, now: float) -> None:
    """No stored wait is honoured longer than its length from now."""
    connection.execute(
        sa.update(attempts)
        .where(
            attempts.c.lane_id.in_(sa.select(lanes.c.id)),  # the index begins with the lane: no look at old attempts
            attempts.c.slot_until > now,
            attempts.c.slot_until < HELD_UNTIL_TOLD,
            attempts.c.slot_until > now + attempts.c.slot_for_s + ORDER_S,
        )
        .values(slot_until=now + attempts.c.slot_for_s)
    )
    connection.execute(
        sa.update(rests).where(rests.c.until > now + rests.c.length_s).values(until=now + rests.c.length_s)
    )
    connection.execute(sa.delete(lines).where(lines.c.until < now - FORGOTTEN_S))
    connection.execute(sa.delete(waiters).where(waiters.c.until < now - FORGOTTEN_S))


# -- Stopping and capping ---------------------------------------------------------------------------------------------


def pause_everything(connection: sa.Connection, *, paused: bool) -> None:
    """Nothing is uploaded or submitted for anybody while it is paused."""
    is_paused = bool(connection.execute(sa.select(EVERYTHING_PAUSED)).scalar())
    if paused and not is_paused:
        connection.execute(sa.insert(switches).values(name=_PAUSED))
    if not paused:
        connection.execute(sa.delete(switches).where(switches.c.name == _PAUSED))


def everything_is_paused(connection: sa.Connection) -> bool:
    """Whether somebody has paused everything."""
    return bool(connection.execute(sa.select(EVERYTHING_PAUSED)).scalar())


def stop_account(connection: sa.Connection, account_id: int, stopped: str | None) -> None:
    """`paused` or `draining`: nothing is submitted with it; None lets it go on."""
    connection.execute(sa.update(accounts).where(accounts.c.id == account_id).values(stopped=stopped))


def cap_account(connection: sa.Connection, account_id: int, daily_images: int | None) -> None:
    """Its images a day for everybody, until it is set again; 0: no cap, None: as the settings say."""
    connection.execute(sa.update(accounts).where(accounts.c.id == account_id).values(daily_images=daily_images))


def account_uses(connection: sa.Connection, day_began_at: float) -> list[AccountUse]:
    """Every account that was ever used."""
    rows = connection.execute(sa.select(accounts).order_by(accounts.c.id)).all()
    return [
        AccountUse(
            id=row.id,
            name=row.name,
            fingerprints=tuple(json.loads(row.fingerprints)),
            stopped=row.stopped,
            daily_images=row.daily_images,
            images_today=taken_since(connection, row.id, day_began_at),
            pace=pace_of(row.pace) if row.pace else None,
        )
        for row in rows
    ]
