"""The ledger of charges, read from attempt rows: every charge belongs to exactly one attempt (DESIGN §2, rule 10).

Of batches that were pruned the sums are left, by day, lane and outcome; they count like the rows that they were.

settled ≤ charges ≤ settled + in doubt, where settled = delivered + charged for nothing + lost + running.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dujiang.domain.task import SETTLED, UNSETTLED, Outcome
from dujiang.engines.sql.schema import accounts, attempts, lanes, pruned_attempts


@dataclass(frozen=True, slots=True)
class Ledger:
    """How many attempts ended how, as far as money goes."""

    delivered: int
    charged_for_nothing: int
    lost: int
    running: int
    in_doubt: int
    """Without an answer, or still on their way: each may have been charged, or not."""

    @property
    def settled(self) -> int:
        """Attempts that are charged, or will be."""
        return self.delivered + self.charged_for_nothing + self.lost + self.running

    def explains(self, charges: int) -> bool:
        """Whether a vendor that counts so many charges and this ledger can both be right."""
        return self.settled <= charges <= self.settled + self.in_doubt


def ledger(connection: sa.Connection) -> Ledger:
    """The ledger of everything that was ever submitted from this database."""
    here = sa.select(attempts.c.outcome, sa.func.count()).group_by(attempts.c.outcome)
    pruned = sa.select(pruned_attempts.c.outcome, sa.func.sum(pruned_attempts.c.attempts)).group_by(
        pruned_attempts.c.outcome
    )
    found = Counter[Outcome]()
    for outcome, count in [*connection.execute(here), *connection.execute(pruned)]:
        found[Outcome(outcome)] += int(count)
    told = Ledger(
        delivered=found.get(Outcome.DONE, 0),
        charged_for_nothing=found.get(Outcome.CHARGED, 0),
        lost=found.get(Outcome.LOST, 0),
        running=found.get(Outcome.RUNNING, 0),
        in_doubt=sum(found.get(outcome, 0) for outcome in UNSETTLED),
    )
    assert told.settled == sum(found.get(outcome, 0) for outcome in SETTLED), "every outcome has its place"
    return told


@dataclass(frozen=True, slots=True)
class Spent:
    """What an account spent on a product."""

    account: str
    req_key: str
    submits: int
    images: int
    """Charged, or being made."""
    in_doubt: int
    """Images of submits that may have been charged, or not."""


def spent(connection: sa.Connection, days: Sequence[str], since: float, until: float) -> list[Spent]:
    """By account and product, of these days, which are the time from `since` to `until`."""
    here = (
        sa.select(attempts.c.lane_id, attempts.c.outcome, sa.func.count(), sa.func.sum(attempts.c.images))
        .where(attempts.c.sent_at >= since, attempts.c.sent_at < until)
        .group_by(attempts.c.lane_id, attempts.c.outcome)
    )
    summed = (sa.func.sum(pruned_attempts.c[name]) for name in ("attempts", "images"))
    pruned = (
        sa.select(pruned_attempts.c.lane_id, pruned_attempts.c.outcome, *summed)
        .where(pruned_attempts.c.day.in_(days))
        .group_by(pruned_attempts.c.lane_id, pruned_attempts.c.outcome)
    )
    named = sa.select(lanes.c.id, lanes.c.req_key, accounts.c.name).join(accounts, accounts.c.id == lanes.c.account_id)
    names = {row.id: (row.name, row.req_key) for row in connection.execute(named)}
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for lane_id, outcome, submits, images in [*connection.execute(here), *connection.execute(pruned)]:
        kind = "images" if outcome in SETTLED else "in_doubt" if outcome in UNSETTLED else "none"
        sums[names[lane_id]].update({"submits": int(submits), kind: int(images)})
    return [
        Spent(*name, submits=found["submits"], images=found["images"], in_doubt=found["in_doubt"])
        for name, found in sorted(sums.items())
    ]
