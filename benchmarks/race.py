"""A race: several policies at the same moment, each with a vendor of its own, which gives the same run times in the
same order to whoever submits. So whatever else the machine does, it does to all of them.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import clients
import ours
from clients import ORDER, TOLD, Account, Order, pictures
from dujiang.simulator.pictures import picture
from report import print_table
from use import TIME_SCALE, Caps, Told, Use, use_of
from vendor import HOST_TOKEN, KEY, environment, ledger, output_of, plan_faults, vendor

PICTURE_BYTES: Final = 200_000  # of a reference
IN_DOUBT: Final = 8
"""Our exit code where a decision is needed."""


class Scene:
    """One policy at work, as seen by whoever changes something meanwhile."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home
        self.over = threading.Event()

    def comes(self, at: float) -> bool:
        """Wait until so many of the vendor's seconds after the first submit; False if all is over before."""
        while not (charges := ledger(self.url)["charges"]):
            if self.over.wait(0.01):
                return False
        return not self.over.wait(max(0.0, charges[0]["submitted_at"] + at * TIME_SCALE - time.time()))


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy that takes part."""

    role: str
    tasks: int
    accounts: Sequence[Account]
    limit: str = "auto"
    """What ours is told."""
    references: int = 0
    vendor: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its vendor."""
    planned: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Faults that are to happen, by kind of request."""
    meanwhile: Callable[[Scene], None] | None = None
    """What somebody else does while it works."""
    lost_answers: Sequence[int] = ()
    """Tasks whose submit is accepted and not answered: they have to end in doubt."""


def only_account(slots: int) -> list[Account]:
    """One account with so many slots."""
    return [Account("sim", KEY.access, KEY.secret, [(0, slots)])]


def race(entries: Mapping[str, Entry], seed: int, caps: Mapping[str, Caps]) -> dict[str, Use]:
    """What each makes of the slots. Ends the program where a task was lost that must not be."""
    with ThreadPoolExecutor() as at_once:
        runs = {name: at_once.submit(_used, entry, seed, caps) for name, entry in entries.items()}
        return {name: run.result() for name, run in runs.items()}


Rounds: TypeAlias = Mapping[int, Mapping[str, Use]]
"""Seed -> policy -> what it made of the slots."""


def show(rounds: Rounds) -> None:
    """A table of every policy beside the null run of its round; columns in which nothing happened are left out."""
    table = []
    for seed, uses in rounds.items():
        null = uses["null"]
        for policy, use in uses.items():
            table.append(
                {
                    "": f"seed {seed} {policy}",
                    "utilization": use.utilization,
                    "÷ null": use.utilization / null.utilization,
                    "while filling": use.while_filling,
                    "÷ null ": use.while_filling / null.while_filling,
                    "makespan s": round(use.makespan_s),
                    "refill s": use.refill_s,
                    "filled s": use.filled_s,
                    "notice s": use.notice_s,
                    "polls/task": round(use.polls, 1),
                    "refused": use.refused,
                    "lost": use.lost,
                    "put off": use.put_off,
                    "in doubt": use.in_doubt,
                    "uploads": use.uploads,
                }
            )
    head = [name for name in table[0] if any(row[name] for row in table)]
    print_table(head, [[row[name] for name in head] for row in table])


def to_null(rounds: Rounds, policy: str, figure: str = "utilization") -> float:
    """A figure of a policy, as a part of the null run's in the same round; the median."""
    quotients = [getattr(uses[policy], figure) / getattr(uses["null"], figure) for uses in rounds.values()]
    return float(median(quotients))


def as_json(rounds: Rounds) -> list[dict[str, Any]]:
    """Every figure."""
    return [{"seed": seed, **{policy: asdict(use) for policy, use in uses.items()}} for seed, uses in rounds.items()]


def _used(entry: Entry, seed: int, caps: Mapping[str, Caps]) -> Use:
    known = {account.access: (account.secret, account.name) for account in entry.accounts}
    limits = {account.name: account.caps[0][1] for account in entry.accounts}
    settings = {"accounts": known, "limits": limits, "host_parallel": None, **entry.vendor}
    with (
        tempfile.TemporaryDirectory(prefix="dujiang-race-") as place,
        vendor(time_scale=TIME_SCALE, seed=seed, **settings) as url,
    ):
        folder = Path(place)
        plan_faults(url, **entry.planned)
        order = Order(entry.role, url, entry.tasks, entry.accounts, entry.references, entry.lost_answers)
        _make_pictures(order, folder)
        told = _worked(entry, order, folder)
        seen = _last_ledger(url)
        assert seen["charged"] == entry.tasks - told.lost, "every task was paid for once, if it was not given up"
        assert seen["downloads"] >= seen["charged"] - len(told.in_doubt), "whoever paid has the picture"
        assert len(told.in_doubt) == len(entry.lost_answers), "in doubt is only what has to be"
        return use_of(seen, told, caps)


def _last_ledger(url: str) -> dict[str, Any]:
    """Once every job has ended: ours leaves without waiting for one that nobody knows of."""
    while (seen := ledger(url))["running"]:
        time.sleep(TIME_SCALE)
    return seen


def _make_pictures(order: Order, folder: Path) -> None:
    for number in range(order.tasks):
        for n, name in enumerate(pictures(order, number)):
            (folder / name).write_bytes(b"".join(picture(str(number), n, name, (256, 256), PICTURE_BYTES)))


def _worked(entry: Entry, order: Order, folder: Path) -> Told:
    """Let the policy work, and whoever has something to do meanwhile."""
    home = folder / "home"
    scene = Scene(order.url, home)
    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(entry.meanwhile or (lambda _: None), scene)
        try:
            told = _ours(entry, order, folder, home) if entry.role == "ours" else _theirs(order, folder, home)
        finally:
            scene.over.set()
        other.result()
    return told


def _ours(entry: Entry, order: Order, folder: Path, home: Path) -> Told:
    variables = environment(
        home, order.url, time_scale=TIME_SCALE, superbed_endpoint=order.url, accounts=ours.accounts(order)
    )
    command = ours.command(order, folder, entry.limit)
    output_of(
        command, folder, variables | {"SUPERBED_TOKEN": HOST_TOKEN}, good_end=IN_DOUBT if entry.lost_answers else 0
    )
    return ours.told(home)


def _theirs(order: Order, folder: Path, home: Path) -> Told:
    (folder / ORDER).write_text(json.dumps(asdict(order)), "utf-8")
    output_of([sys.executable, clients.__file__, str(folder / ORDER)], folder, environment(home, order.url))
    return Told(**json.loads((folder / TOLD).read_text("utf-8")))
