"""A database that crashes every few seconds while a fleet works on it."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from dujiang.domain.lifecycle import State
from tests.postgres import OwnServer

from .fleet import VENDOR, Fleet, fleet_of
from .invariants import require, tables_of
from .processes import vendor_process

OUTAGES_S = (0.0, 2.0)


@dataclass(slots=True)
class RestartFigures:
    """What happened."""

    seed: int
    tasks: int = 0
    charges: int = 0
    resolved: int = 0
    """Tasks that were in doubt."""
    stalls_s: list[float] = field(default_factory=list)
    """From each "back" to the next recorded event."""
    longest_silence_s: float = 0.0
    """Between two events, with the database there or not."""
    duration_s: float = 0.0

    def told(self) -> str:
        """For a person."""
        stalls = ", ".join(f"{stall:.2f}" for stall in self.stalls_s)
        return (
            f"seed {self.seed}: {self.tasks} tasks, {len(self.stalls_s)} restarts in {self.duration_s:.1f} s\n"
            f"  {self.charges} charges, {self.resolved} doubts\n"
            f"  from back to the next event: {stalls} s; longest silence {self.longest_silence_s:.2f} s"
        )


def restart_again_and_again(
    seed: int, folder: Path, server: OwnServer, *, tasks: int, every_s: tuple[float, float], machines: int = 4
) -> RestartFigures:
    """`tasks` tasks on a server that is restarted (`immediate`) every few seconds until nothing is left to do."""
    chance = random.Random(seed)
    figures = RestartFigures(seed)
    prompts = {f"江上停电 {seed}，第 {n} 幅": State.SUCCEEDED for n in range(1, tasks + 1)}
    database_url = server.fresh_database()
    began = time.monotonic()
    backs: list[float] = []
    with (
        vendor_process(folder, {**VENDOR, "seed": seed}) as vendor,
        fleet_of(folder, database_url, vendor, limit=8) as fleet,
    ):
        fleet.submit(prompts)
        fleet.start(machines)
        fleet.until(lambda: all(map(fleet.works, fleet.living)), "all at work")
        while not _is_over_within(fleet, chance.uniform(*every_s)):
            server.stop("immediate")
            time.sleep(chance.uniform(*OUTAGES_S))  # how long it is away is what this is about
            server.start()
            backs.append(time.time())
        figures.resolved = fleet.ask("SELECT count(*) FROM tasks WHERE state = 'in_doubt'")
        fleet.settle()
        fleet.end()
        left = fleet.evidence()
    figures.duration_s = time.monotonic() - began
    figures.tasks, figures.charges = len(left.tasks), left.ledger["charged"]
    moments = [event["at"] for event in tables_of(database_url, events="id")["events"]]
    figures.stalls_s = [min((at for at in moments if at > back), default=back) - back for back in backs]
    figures.longest_silence_s = max(later - at for at, later in pairwise(moments))
    require(left, resolved=True)
    assert Counter(task["state"] for task in left.tasks) == {State.SUCCEEDED: tasks}
    return figures


def _is_over_within(fleet: Fleet, seconds: float) -> bool:
    """Whether there is nothing left to do before so long has passed."""
    until = time.monotonic() + seconds
    fleet.until(lambda: not fleet.unfinished() or time.monotonic() >= until, "the next crash")
    return not fleet.unfinished()
