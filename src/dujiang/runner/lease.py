"""The lease: how long a worker may be silent before others take its tasks over, and what it does in time to keep it."""

from dataclasses import dataclass
from typing import Final

HEARTBEAT_AT_MOST_EVERY_S: Final = 10.0
RESCUE_AT_MOST_EVERY_S: Final = 10.0
CLAIM_WITHIN_AT_MOST_S: Final = 15.0
SEND_WITHIN_AT_MOST_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Seconds, before the time scale. All that must be done within a lease follows from how long it is."""

    lasts_s: float
    """Of silence, after which a worker counts as gone, wherever it is."""

    @property
    def heartbeat_every_s(self) -> float:
        """A living worker is never silent for a lease: two heartbeats may be late."""
        return min(HEARTBEAT_AT_MOST_EVERY_S, self.lasts_s / 3)

    @property
    def rescue_every_s(self) -> float:
        """Whoever is silent for a lease is taken over within half a lease more."""
        return min(RESCUE_AT_MOST_EVERY_S, self.lasts_s / 3)

    @property
    def claim_within_s(self) -> float:
        """Of the last heartbeat: so whoever claims counts as living for as long as it may send what it claimed."""
        return min(CLAIM_WITHIN_AT_MOST_S, self.lasts_s / 2)

    @property
    def send_within_s(self) -> float:
        """Of the claim: what was claimed longer ago may have been taken over, and others decide about it."""
        return min(SEND_WITHIN_AT_MOST_S, self.lasts_s / 2)
