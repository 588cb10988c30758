"""One lane for a whole fleet: is its limit kept, what does the vendor refuse, who does how much?"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dujiang.domain.lifecycle import State

from .fleet import TIME_SCALE, VENDOR, fleet_of
from .invariants import require
from .processes import vendor_process


@dataclass(slots=True)
class LaneFigures:
    """What happened."""

    machines: int
    concurrency: str
    tasks: int = 0
    most_at_vendor: int = 0
    refused: int = 0
    """50430."""
    jobs_by_worker: list[int] = field(default_factory=list)
    """Attempts of each worker, the busiest first."""
    duration_s: float = 0.0
    """From the first claim to the last event."""

    @property
    def unevenness(self) -> float:
        """The busiest worker's jobs by those of the least busy one."""
        return self.jobs_by_worker[0] / max(1, self.jobs_by_worker[-1])

    def told(self) -> str:
        """For a person."""
        return (
            f"{self.machines} workers, {self.concurrency}: {self.tasks} tasks in {self.duration_s:.1f} s,"
            f" at most {self.most_at_vendor} at the vendor, {self.refused} refused\n"
            f"  jobs by worker {self.jobs_by_worker}, busiest / least busy {self.unevenness:.2f}"
        )


def share_a_lane(
    folder: Path, database_url: str, vendor: Mapping[str, Any], *, machines: int, tasks: int, concurrency: str
) -> LaneFigures:
    """`tasks` tasks by so many workers, all of which begin before there is anything to do."""
    figures = LaneFigures(machines, concurrency)
    folder.mkdir(exist_ok=True)
    with (
        vendor_process(folder, {**VENDOR, "run_median_s": 5.0, "run_p99_s": 8.0, "seed": 1, **vendor}) as simulator,
        fleet_of(folder, database_url, simulator, limit=3, concurrency=concurrency) as fleet,
    ):
        fleet.submit({"江上第一幅": State.SUCCEEDED})
        fleet.start(machines)
        fleet.until(lambda: all(map(fleet.works, fleet.living)), "all at work")
        fleet.submit({f"江上众手，第 {n} 幅": State.SUCCEEDED for n in range(tasks)})
        fleet.until(fleet.is_quiet, "quiet", within_s=60 + tasks * 20 * TIME_SCALE / 3)
        fleet.end()
        left = fleet.evidence()
    require(left, resolved=True)
    moments = [event["at"] for event in left.events if event["task_id"] != 1]
    workers = Counter({worker["id"]: 0 for worker in left.workers})
    workers.update(attempt["worker"] for attempt in left.attempts if attempt["outcome"] == "done")
    figures.tasks = len(left.tasks)
    figures.most_at_vendor = max(left.ledger["max_running"].values())
    figures.refused = left.ledger["refused"].get("50430", 0)
    figures.jobs_by_worker = sorted(workers.values(), reverse=True)
    figures.duration_s = max(moments) - min(moments)
    return figures
