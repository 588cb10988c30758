"""How fast an account may submit: as fast as it likes, until the vendor answers 50429 (too many requests a second).

Then a second of silence, and after it single submits, spaced by a little more than what the vendor has just borne. Each
submit shrinks the space: the pace comes near the vendor's again, and is forgotten where it isn't needed. All lanes of
the account share it. It knows nothing of caps: see `brim`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dujiang.domain.belief import LONG_AGO, read_json, to_json

LONGEST_S: Final = 3.0
SLOWLY: Final = 0.9995
SOON: Final = 0.98
CALM_S: Final = 60.0
"""So much of the space is left after a submit: more of it goes once no refusal has come for so long, in our seconds."""
SHORTEST_S: Final = 0.005  # a shorter space is none: nobody submits faster


@dataclass(frozen=True, slots=True)
class Pace:
    """What one account has learned. Moments are on the caller's clock; `scale` is the length of one of our seconds."""

    spacing_s: float = 0.0
    next_at: float = LONG_AGO
    """No submit before this moment."""
    wait_s: float = 0.0
    """How long that was from then: a longer wait is a clock that went back, and isn't honoured (DESIGN rule 11)."""
    slowed_at: float = LONG_AGO

    def permit(self, wanted: int, now: float) -> tuple[int, float | None]:
        """How many of `wanted` submits may leave now; if none, in how many seconds one may."""
        remaining_s = self.next_at - now
        if 0 < remaining_s <= self.wait_s + 0.001:
            return 0, remaining_s
        return (min(wanted, 1) if self.spacing_s else wanted), None

    def sent(self, now: float, scale: float = 1.0) -> "Pace":
        """One has left. That it may have left too early is told by `too_fast`."""
        is_calm = not 0 <= now - self.slowed_at < CALM_S * scale
        spacing_s = self.spacing_s * (SOON if is_calm else SLOWLY)
        if spacing_s < SHORTEST_S * scale:
            return Pace() if self.spacing_s else self
        return replace(self, spacing_s=spacing_s, next_at=now + spacing_s, wait_s=spacing_s)

    def too_fast(self, now: float, admitted_last_s: int, scale: float = 1.0) -> "Pace":
        """50429, after so many admissions within the last second; several refusals within a second count as one."""
        borne_s = 1.05 * scale / max(1, admitted_last_s)
        if 0 <= now - self.slowed_at < scale:  # of the same burst: by now more of it may be known to have been admitted
            return replace(self, spacing_s=min(self.spacing_s, borne_s)) if self.spacing_s else self
        spacing_s = max(1.1 * self.spacing_s, borne_s)
        return Pace(min(spacing_s, LONGEST_S * scale), next_at=now + scale, wait_s=scale, slowed_at=now)

    def remaining_s(self, now: float) -> float:
        """Seconds until one may leave, where the account has been too fast a moment ago."""
        return self.permit(1, now)[1] or 0.0

    def as_json(self) -> dict[str, Any]:
        """For a column of the account."""
        return to_json(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Pace":
        """Of this or another version: what is unknown is left out, what is missing begins anew."""
        return read_json(cls, stored)
