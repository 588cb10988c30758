"""The clock of the real world, and waiting for whichever comes first: an event or a time."""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from dujiang.ports import Clock


class SystemClock:
    """Real time. `scale` below 1 shortens every constant of ours, so that a run can be rehearsed fast."""

    def __init__(self, scale: float = 1.0, seed: int | None = None) -> None:
        self.scale = scale
        self.random = random.Random(seed)  # noqa: S311 - spreads waits, guards nothing

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def elapsed(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait so many real seconds."""
        await asyncio.sleep(seconds)

    def scaled(self, seconds: float) -> float:
        """One of our constants, in real seconds of this run."""
        return seconds * self.scale


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment on both clocks: some systems stop the monotonic one while they sleep, and the wall's can be set."""

    wall: float
    elapsed: float

    @classmethod
    def of(cls, clock: Clock) -> Self:
        """This moment."""
        return cls(clock.now(), clock.elapsed())

    def since(self, earlier: Self) -> float:
        """Seconds, by whichever clock saw more of them."""
        return max(self.wall - earlier.wall, self.elapsed - earlier.elapsed)


async def wait_for(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Wait until `event` is set or `seconds` have passed; whether it was the event."""
    if event.is_set():
        return True
    waits = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return event.is_set()


def midnight_before(at: float) -> float:
    """When the day of that moment began, in the machine's own time zone. Calendar time is never scaled."""
    return datetime.fromtimestamp(at).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()  # noqa: DTZ006


def clock_time(at: float) -> str:
    """A moment as a person reads a clock, in the machine's own time zone."""
    return time.strftime("%H:%M:%S", time.localtime(at))
