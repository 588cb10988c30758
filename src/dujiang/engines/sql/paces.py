"""How fast accounts may submit (the arithmetic is `domain.pace`): a column of the account, shared by all its lanes."""

import json
from typing import Final

import sqlalchemy as sa

from dujiang.domain.pace import Pace
from dujiang.engines.sql.rows import dumped
from dujiang.engines.sql.schema import accounts, attempts, lanes

_PACE: Final = (
    sa.select(accounts.c.pace).where(accounts.c.id == sa.bindparam("account")).with_for_update(key_share=True)
)
_STORE: Final = (
    sa.update(accounts).where(accounts.c.id == sa.bindparam("account")).values(pace=sa.bindparam("new_pace"))
)
_ADMITTED: Final = (
    sa.select(sa.func.count())
    .select_from(attempts)
    .join(lanes, lanes.c.id == attempts.c.lane_id)
    .where(
        lanes.c.account_id == sa.bindparam("account"),
        attempts.c.sent_at > sa.bindparam("sent_since"),  # an index knows it
        attempts.c.accepted_at > sa.bindparam("since"),
    )
)
SENT_BEFORE_S: Final = 60.0  # an answer takes no longer


def pace_of(stored: str | None) -> Pace:
    """As stored; nothing is an account that was never too fast."""
    return Pace.from_json(json.loads(stored)) if stored else Pace()


def store_pace(connection: sa.Connection, account_id: int, pace: Pace) -> None:
    """The account's from now on."""
    text = dumped(pace.as_json()) if pace.spacing_s else None
    connection.execute(_STORE, {"account": account_id, "new_pace": text})


def too_fast(connection: sa.Connection, account_id: int, now: float, scale: float) -> None:
    """50429: the account's next submits are spaced."""
    since = {"account": account_id, "since": now - scale, "sent_since": now - scale - SENT_BEFORE_S}
    admitted = connection.execute(_ADMITTED, since).scalar_one()
    before = pace_of(connection.execute(_PACE, {"account": account_id}).scalar_one())
    store_pace(connection, account_id, before.too_fast(now, admitted, scale))
