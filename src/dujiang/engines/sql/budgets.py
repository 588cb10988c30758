"""Budgets, in images: a batch's, and a day's of an account. Reserved in the claim, released or settled by the answer.

A batch's is a running sum, kept by the same transactions that change its attempts and checked against them by tests; a
day's is summed up from the attempts that were sent since midnight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from dujiang.engines.sql.schema import attempts, batches, lanes, tasks
from dujiang.ports import Offer

_TAKEN_TODAY: Final = (
    sa.select(sa.func.coalesce(sa.func.sum(attempts.c.images), 0))
    .join(lanes, lanes.c.id == attempts.c.lane_id)
    .where(lanes.c.account_id == sa.bindparam("account"), attempts.c.sent_at >= sa.bindparam("since"))
)
_TAKE: Final = (
    sa.update(batches)
    .where(batches.c.id == sa.bindparam("batch"), batches.c.images_taken.is_not(None))
    .values(images_taken=batches.c.images_taken + sa.bindparam("more"))
)
_BEFORE: Final = (
    sa.select(attempts.c.images)
    .where(attempts.c.task_id == sa.bindparam("of_task"), attempts.c.number == sa.bindparam("of_number"))
    .scalar_subquery()
)
_LOCK: Final = (
    sa.select(batches.c.id)
    .where(batches.c.id.in_(sa.bindparam("batches", expanding=True)), batches.c.images_taken.is_not(None))
    .order_by(batches.c.id)
    .with_for_update(key_share=True)
)
_SETTLE: Final = (
    sa.update(batches)
    .where(batches.c.id == sa.bindparam("batch"), batches.c.images_taken.is_not(None))
    .values(images_taken=batches.c.images_taken + sa.bindparam("new_images") - _BEFORE)
)


@dataclass(slots=True)
class Budget:
    """Images taken of those allowed; `most` of None: as many as are wanted."""

    taken: int = 0
    most: int | None = None

    def allows(self, images: int) -> bool:
        """Whether so many more may be taken."""
        return self.most is None or self.taken + images <= self.most


def batch_budget(row: sa.Row[Any]) -> Budget:
    """Of a batch's `images_taken` and `max_images`."""
    return Budget(row.images_taken or 0, row.max_images)


def day_budget(connection: sa.Connection, offer: Offer, set_for_all: int | None) -> Budget:
    """What the offer's account has left of its day; `set_for_all` wins over the settings, and 0 is no cap."""
    most = offer.daily_images if set_for_all is None else set_for_all or None
    return (
        Budget() if most is None else Budget(taken_since(connection, offer.lane.account_id, offer.day_began_at), most)
    )


def taken_since(connection: sa.Connection, account_id: int, since: float) -> int:
    """Images of an account's submits since then: charged, or reserved."""
    return int(connection.execute(_TAKEN_TODAY, {"account": account_id, "since": since}).scalar_one())


def take(connection: sa.Connection, batch_id: str, images: int) -> None:
    """So many are reserved, where the batch has a budget."""
    connection.execute(_TAKE, {"batch": batch_id, "more": images})


def lock(connection: sa.Connection, batch_ids: Sequence[str]) -> None:
    """Their budgets are nobody else's until the transaction ends."""
    connection.execute(_LOCK, {"batches": batch_ids})


def settle(connection: sa.Connection, batch_id: str, task_id: int, number: int, images: int) -> None:
    """An attempt brought so many, or none: before they are written into its row."""
    connection.execute(_SETTLE, {"batch": batch_id, "of_task": task_id, "of_number": number, "new_images": images})


def set_budget(connection: sa.Connection, batch_id: str, most: int | None) -> None:
    """The batch's budget from now on; what it has taken so far counts. None: no budget."""
    taken = (
        sa.select(sa.func.coalesce(sa.func.sum(attempts.c.images), 0))
        .join(tasks, tasks.c.id == attempts.c.task_id)
        .where(tasks.c.batch_id == batch_id)
        .scalar_subquery()
    )
    values = {"max_images": most, "images_taken": taken if most is not None else None}
    connection.execute(sa.update(batches).where(batches.c.id == batch_id).values(**values))
