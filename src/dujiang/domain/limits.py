"""How many jobs a lane may hold. Pure arithmetic; admission enforces it inside the claim transaction."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """Always N slots."""

    slots: int

    @classmethod
    def parse(cls, text: str) -> "FixedLimit":
        """`fixed:N` (N from 1 to 10,000), as settings and `--concurrency` write it; ValueError otherwise."""
        kind, _, slots = text.partition(":")
        if kind != "fixed" or not slots.isdecimal() or not 1 <= int(slots) <= 10_000:
            raise ValueError(text)
        return cls(int(slots))

    def __str__(self) -> str:
        return f"fixed:{self.slots}"

    def free(self, slots_in_use: int) -> int:
        """How many more jobs may be submitted now."""
        return max(0, self.slots - slots_in_use)
