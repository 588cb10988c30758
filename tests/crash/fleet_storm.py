"""The kill storm on PostgreSQL: workers of a fleet are killed at any moment, one stands still and comes back.

python -m tests.crash.fleet_storm --kills 60 --tasks 600 --seed 7
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dujiang.domain.lifecycle import State
from tests.postgres import own_server

from .fleet import LEASE_S, VENDOR, Fleet, Machine, fleet_of, late_writes, takeovers
from .invariants import require
from .processes import vendor_process
from .storm import FAULTS, some_prompts

LEASES_FROZEN: Final = 3
PAUSE_S: Final = (0.1, 1.3)
"""Between two kills."""
MORE_ROWS: Final = 40


@dataclass(frozen=True, slots=True)
class FleetWeather:
    """What a storm over a fleet is made of."""

    seed: int
    kills: int
    tasks: int
    machines: int = 4
    limit: int = 8
    vendor: Mapping[str, Any] = field(default_factory=lambda: {"faults": FAULTS})


@dataclass(slots=True)
class FleetFigures:
    """What happened."""

    seed: int
    tasks: int = 0
    kills: int = 0
    took_over: list[float] = field(default_factory=list)
    """Seconds from each death to the takeover of each task that was held."""
    from_living: list[str] = field(default_factory=list)
    """What was taken over from one that was neither dead nor standing still."""
    frozen_s: float = 0.0
    refused_writes: int = 0
    """What the one that came back tried to write about tasks that were no longer its own."""
    late: list[str] = field(default_factory=list)
    """What anybody did write about a task of another's."""
    sent_again: int = 0
    found: int = 0
    charges: int = 0
    most_at_vendor: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0

    def told(self) -> str:
        """For a person."""
        took = sorted(self.took_over)
        spread = f"p50 {took[len(took) // 2]:.2f} s, p100 {took[-1]:.2f} s" if took else "none"
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {self.tasks} tasks, {self.kills} kills in {self.duration_s:.1f} s\n"
            f"  {len(took)} takeovers: {spread} of a lease of {LEASE_S:g} s\n"
            f"  one stood still for {self.frozen_s:.1f} s; then {self.refused_writes} late writes refused,"
            f" {len(self.late)} accepted\n"
            f"  {self.charges} charges, at most {self.most_at_vendor} at the vendor;"
            f" decided: {self.found} jobs found, {self.sent_again} sent again\n"
            f"  its faults: {faults or 'none'}"
        )


class FleetStorm:
    """One storm over one fleet."""

    def __init__(self, plan: FleetWeather, fleet: Fleet) -> None:
        self._plan = plan
        self._fleet = fleet
        self._chance = random.Random(plan.seed)
        self._frozen: Machine | None = None
        self._came_back: Machine | None = None
        self.figures = FleetFigures(plan.seed)

    def blow(self) -> FleetFigures:
        """All kills, then the quiet after. Raises `InvariantBroken`."""
        began = time.monotonic()
        fleet, figures = self._fleet, self.figures
        fleet.submit(some_prompts(self._chance, self._plan.seed, self._plan.tasks))
        fleet.note_writes()
        fleet.start(self._plan.machines)
        for number in range(self._plan.kills):
            if number == self._plan.kills // 3:
                self._freeze()
            self._kill()
            self._thaw(at_once=False)
            self._see_to_rows()
        self._thaw(at_once=True)
        fleet.settle()
        fleet.end()
        self._judge()
        figures.duration_s = time.monotonic() - began
        return figures

    def _kill(self) -> None:
        """One of those that work, at a moment of chance; another one is started in its place."""
        machine = self._one_that_works()
        self._pass(self._chance.uniform(*PAUSE_S))
        machine.kill()
        self._fleet.lose(machine)
        self._fleet.start()
        self.figures.kills += 1

    def _one_that_works(self) -> Machine:
        machine = self._chance.choice([machine for machine in self._fleet.living if machine is not self._frozen])
        self._fleet.until(lambda: self._fleet.works(machine), f"{machine.who} at work")
        return machine

    def _pass(self, seconds: float) -> None:
        """The storm's own moments: nothing is waited for. It strikes the workers wherever they have got to by then."""
        time.sleep(seconds)

    # -- the one that stands still

    def _freeze(self) -> None:
        """One with jobs at the vendor stops, for longer than its lease."""
        fleet = self._fleet
        while True:
            self._see_to_rows()
            fleet.until(lambda: any(map(self._has_jobs, fleet.living)), "a worker has jobs")
            machine = self._chance.choice([each for each in fleet.living if self._has_jobs(each)] or fleet.living)
            machine.freeze()
            if self._has_jobs(machine):
                self._frozen = machine
                return
            machine.thaw()

    def _has_jobs(self, machine: Machine) -> bool:
        return self._fleet.holds(machine, State.GENERATING) > 0

    def _thaw(self, *, at_once: bool) -> None:
        """It comes back after so many leases."""
        frozen, fleet = self._frozen, self._fleet
        if frozen is None:
            return
        left_s = frozen.absences[-1].since + LEASES_FROZEN * LEASE_S - time.time()
        if left_s > 0 and not at_once:
            return
        self._pass(max(0.0, left_s))
        fleet.until(lambda: not fleet.holds(frozen), f"{frozen.who} was taken over")
        self.figures.frozen_s = frozen.thaw()
        fleet.until(lambda: frozen.refused_writes() > 0, f"{frozen.who} tries to write")
        self._came_back, self._frozen = frozen, None

    # -- rows

    def _see_to_rows(self) -> None:
        """Somebody adds to the file, so that no kill finds a fleet without work."""
        if self._fleet.unfinished() < MORE_ROWS:
            known = len(self._fleet.prompts)
            rows = range(known + 1, known + MORE_ROWS + 1)
            self._fleet.submit({f"江上风暴 {self._plan.seed}，补第 {n} 幅": State.SUCCEEDED for n in rows})

    # -- the end

    def _judge(self) -> None:
        fleet, figures = self._fleet, self.figures
        left = fleet.evidence()
        events = Counter(event["type"] for event in left.events)
        figures.tasks = len(left.tasks)
        figures.found, figures.sent_again = events["JobFound"], events["ResubmitDecided"]
        figures.charges, figures.faults = left.ledger["charged"], dict(left.ledger["faults"])
        figures.most_at_vendor = max(left.ledger["max_running"].values())
        figures.took_over, figures.from_living = takeovers(fleet.database_url, fleet.gone)
        assert self._came_back is not None, "one is frozen by the first kill, and thawed by the last"
        figures.refused_writes = self._came_back.refused_writes()
        figures.late = late_writes(fleet.database_url)
        require(left, resolved=True)


def blow(plan: FleetWeather, folder: Path, database_url: str) -> FleetFigures:
    """The whole storm in an empty folder, on an empty database. Raises `InvariantBroken`."""
    with (
        vendor_process(folder, {**VENDOR, "seed": plan.seed, **plan.vendor}) as vendor,
        fleet_of(folder, database_url, vendor, limit=plan.limit) as fleet,
    ):
        return FleetStorm(plan, fleet).blow()


def main(arguments: Sequence[str] | None = None) -> int:
    """Blow a storm and tell its figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.fleet_storm", description="Kill, start, compare.")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything that is left, for a look afterwards")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as temporary, closing(own_server()) as server:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = blow(FleetWeather(seed, options.kills, options.tasks), folder, server.fresh_database())
        sys.stdout.write(f"{figures.told()}\n")
        sys.stdout.writelines(f"{line}\n" for line in figures.late)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
