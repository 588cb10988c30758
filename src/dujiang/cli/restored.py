"""`dujiang restored`: go on with a database that came back from a backup."""

import asyncio
from pathlib import Path

from dujiang import wiring
from dujiang.cli.exits import Exit, say
from dujiang.cli.opening import settings_of
from dujiang.messages import text
from dujiang.settings import Settings


def take_over(home: Path | None) -> int:
    """Nothing that is unfinished is submitted before somebody resumes its batch."""
    names = asyncio.run(_take_over(settings_of(home)))
    say(text("restored_paused", batches=", ".join(names)) if names else text("restored_nothing"))
    return Exit.OK


async def _take_over(settings: Settings) -> list[str]:
    async with wiring.open_engine(settings, copies=True) as engine:
        return await engine.take_over()
