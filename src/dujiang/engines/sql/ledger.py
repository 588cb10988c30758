"""The ledger of charges, read from attempt rows: every charge belongs to exactly one attempt (DESIGN §2, rule 10).

settled ≤ charges ≤ settled + in doubt, where settled = delivered + charged for nothing + lost + running.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from dujiang.domain.task import SETTLED, UNSETTLED, Outcome
from dujiang.engines.sql.schema import attempts


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
    query = sa.select(attempts.c.outcome, sa.func.count()).group_by(attempts.c.outcome)
    found = {Outcome(outcome): count for outcome, count in connection.execute(query)}
    told = Ledger(
        delivered=found.get(Outcome.DONE, 0),
        charged_for_nothing=found.get(Outcome.CHARGED, 0),
        lost=found.get(Outcome.LOST, 0),
        running=found.get(Outcome.RUNNING, 0),
        in_doubt=sum(found.get(outcome, 0) for outcome in UNSETTLED),
    )
    assert told.settled == sum(found.get(outcome, 0) for outcome in SETTLED), "every outcome has its place"
    return told
