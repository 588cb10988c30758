"""How well the vendor's slots are used: the program, a plain script and a null run, on the same jobs at the same time.

The vendor runs C jobs at once and N are to be done; everything runs ten times as fast as in life. The three policies
work at the same moment, each with a vendor of its own, which gives the same run times in the same order to whoever
submits. So whatever else the machine does, it does to all three.

- **ours**: the command `dujiang run --concurrency fixed:C`, its database with `synchronous=FULL`.
- **plain**: what studios write. A semaphore of C, up to 3 retries after 50430 (2, 4, 8 s), a look every 2 s, and the
  slot is held from the submit until the picture is on the disk.
- **null**: a client that the vendor tells of each end at once, and that submits the next job at once.

With `--references 2` each task brings two pictures of its own, which have to be uploaded first: ours publishes them
ahead of the slots, the plain script while it holds one, and the null run has links already.

Utilization = seconds in which a slot was used ÷ (C × seconds from the first submit to the last end), all by the
vendor's ledger. Since the jobs are the same, the quotient of two utilizations is that of the rates at which N jobs were
done. "while filling" counts only up to the last submit: it leaves out the end, where there is nothing left to fill.
"""

import argparse
import asyncio
import csv
import heapq
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from dujiang.simulator.pictures import picture
from report import Aim, conclude, parser, print_table
from vendor import HOST_TOKEN, BareClient, LaneFull, environment, ledger, output_of, vendor

TIME_SCALE: Final = 0.1
SIZES: Final[Mapping[int, int]] = {3: 60, 10: 150}
"""C -> N"""
UNKNOWN_SIZES: Final[Mapping[int, int]] = {1: 30, 3: 90, 20: 400}
"""The same where nobody tells us C."""
FAULTS: Final[Mapping[str, float]] = {
    "reset_before_reading": 0.0,  # leaves doubt, whatever the vendor did: a row of its own would be needed
    "poll_503": 0.01,
    "poll_slow": 0.01,
    "cut_download": 0.01,
}
REFUSED_A_HUNDRED: Final[Mapping[int, float]] = {1: 3, 3: 2, 20: 1}
PICTURE_BYTES: Final = 200_000  # of a reference
PLAIN_WAITS_S: Final = (2.0, 4.0, 8.0)
PLAIN_POLL_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Use:
    """What one policy made of the slots. Seconds are the vendor's."""

    utilization: float
    while_filling: float
    makespan_s: float
    refill_s: float
    """Mean time from the end of a job to the submit that took its slot."""
    polls: float
    """Per task."""
    refused: int
    uploads: int = 0


def main() -> int:
    """Compare; 1 if an aim was missed."""
    options = _options()
    if options.role is not None:
        work = {"plain": _plain, "null": _null}[options.role]
        order = Order(options.url, options.slots, options.tasks, options.folder, options.references)
        asyncio.run(work(order))
        return 0
    aims: list[Aim] = []
    told: dict[str, Any] = {}
    for slots, tasks in (UNKNOWN_SIZES if options.unknown else SIZES).items():
        if slots in (options.slots_compared or [slots]):
            rounds = {seed: asyncio.run(_round(slots, tasks, seed, options)) for seed in options.seeds}
            aims += _shown(slots, tasks, rounds, options)
            told[f"C={slots}"] = [
                {"seed": seed, **{policy: asdict(use) for policy, use in uses.items()}} for seed, uses in rounds.items()
            ]
    figures = {"time_scale": TIME_SCALE, "references": options.references, "unknown": options.unknown, "rounds": told}
    return conclude(aims, figures, options.json)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the jobs' run times")
    options.add_argument("--compare", dest="slots_compared", type=int, nargs="+", metavar="C", help="only these")
    options.add_argument("--unknown", action="store_true", help="nobody tells us C (auto), and 1 %% of answers fail")
    options.add_argument("--references", type=int, default=0, help="pictures of its own that each task brings")
    options.add_argument("--as", dest="role", choices=("plain", "null"), help=argparse.SUPPRESS)
    options.add_argument("--url", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--slots", type=int, help=argparse.SUPPRESS)
    options.add_argument("--tasks", type=int, help=argparse.SUPPRESS)
    return options.parse_args()


@dataclass(frozen=True, slots=True)
class Order:
    """What a policy is to do."""

    url: str
    slots: int
    tasks: int
    folder: Path
    references: int
    unknown: bool = False


def _shown(slots: int, tasks: int, rounds: Mapping[int, Mapping[str, Use]], options: argparse.Namespace) -> list[Aim]:
    """Print one size; its aims."""
    brought = f", {options.references} references a task" if options.references else ""
    brought += ", unknown to us" if options.unknown else ""
    print(f"C = {slots}, N = {tasks}, time scale {TIME_SCALE:g}{brought}")
    head = [
        "",
        "utilization",
        "÷ null",
        "while filling",
        "÷ null",
        "makespan s",
        "refill s",
        "polls/task",
        "refused",
        "uploads",
    ]
    rows = []
    for seed, uses in rounds.items():
        null = uses["null"]
        for policy, use in uses.items():
            whole, filling = use.utilization / null.utilization, use.while_filling / null.while_filling
            row = [f"seed {seed} {policy}", use.utilization, whole, use.while_filling, filling, round(use.makespan_s)]
            rows.append([*row, use.refill_s, round(use.polls, 1), use.refused, use.uploads])
    print_table(head, rows)
    ours, plain = (
        median(uses[policy].utilization / uses["null"].utilization for uses in rounds.values())
        for policy in ("ours", "plain")
    )
    refusals = median(uses["ours"].refused for uses in rounds.values())
    allowed = 3 + REFUSED_A_HUNDRED.get(slots, 0) * tasks / 100
    unknown = [Aim(f"C = {slots}: refusals of ours (median)", refusals, allowed)] if options.unknown else []
    return [
        *unknown,
        Aim(f"C = {slots}: utilization, ours ÷ null (median)", ours, 0.95 if options.unknown else 0.97, at_least=True),
        Aim(f"C = {slots}: utilization, ours ÷ plain (medians)", ours / plain, 1.0, at_least=True),
    ]


# -- one round --------------------------------------------------------------------------------------------------------


async def _round(slots: int, tasks: int, seed: int, options: argparse.Namespace) -> dict[str, Use]:
    """Every policy at the same time, each with a vendor of its own."""
    policies: dict[str, Callable[[Order], Sequence[str]]] = {
        "ours": _our_command,
        "plain": lambda order: _own_command("plain", order),
        "null": lambda order: _own_command("null", order),
    }
    runs = [asyncio.to_thread(_used, command, slots, tasks, seed, options) for command in policies.values()]
    return dict(zip(policies, await asyncio.gather(*runs), strict=True))


def _used(
    command_of: Callable[[Order], Sequence[str]], slots: int, tasks: int, seed: int, options: argparse.Namespace
) -> Use:
    faults = FAULTS if options.unknown and command_of is _our_command else {}
    with (
        tempfile.TemporaryDirectory(prefix="dujiang-utilization-") as place,
        vendor(limit=slots, time_scale=TIME_SCALE, seed=seed, host_parallel=None, faults=faults) as url,
    ):
        folder = Path(place)
        order = Order(url, slots, tasks, folder, options.references, options.unknown)
        for number in range(tasks):
            for n, name in enumerate(_pictures(order, number)):
                (folder / name).write_bytes(b"".join(picture(str(number), n, name, (256, 256), PICTURE_BYTES)))
        variables = environment(folder / "home", url, time_scale=TIME_SCALE, superbed_endpoint=url)
        output_of(command_of(order), folder, variables | {"SUPERBED_TOKEN": HOST_TOKEN})
        return _use(ledger(url), slots, tasks)


def _pictures(order: Order, number: int) -> list[str]:
    """Names of the pictures that a task brings: nobody shares them."""
    return [f"ref-{number}-{n}.png" for n in range(order.references)]


def _our_command(order: Order) -> list[str]:
    sheet = order.folder / "rows.csv"
    with sheet.open("w", encoding="utf-8", newline="") as file:
        rows = [[_prompt(number), "|".join(_pictures(order, number))] for number in range(order.tasks)]
        csv.writer(file).writerows([["prompt", "refs"], *rows])
    program = Path(sys.executable).with_name("dujiang")
    return [
        *(str(program), "run", str(sheet), "--concurrency", "auto" if order.unknown else f"fixed:{order.slots}"),
        *("--out", str(order.folder / "out")),
    ]


def _own_command(role: str, order: Order) -> list[str]:
    words = ["--url", order.url, "--slots", str(order.slots), "--tasks", str(order.tasks)]
    words += ["--folder", str(order.folder), "--references", str(order.references)]
    return [sys.executable, __file__, "--as", role, *words]


def _prompt(number: int) -> str:
    return f"都江堰 {number}"


def _use(seen: Mapping[str, Any], slots: int, tasks: int) -> Use:
    jobs = [(job["submitted_at"], job["ended_at"]) for job in seen["charges"]]
    assert seen["charged"] == tasks <= seen["downloads"], "every task has its picture, and was paid for once"
    assert max(seen["max_running"].values()) == slots, "every slot was used, and never more"
    first, last_submit = min(jobs)[0], max(jobs)[0]
    last_end = max(end for _, end in jobs)
    used = sum(end - begin for begin, end in jobs)
    used_filling = sum(min(end, last_submit) - begin for begin, end in jobs)
    return Use(
        utilization=used / (slots * (last_end - first)),
        while_filling=used_filling / (slots * (last_submit - first)),
        makespan_s=(last_end - first) / TIME_SCALE,
        refill_s=_refill_s(jobs, slots) / TIME_SCALE,
        polls=seen["polls"] / tasks,
        refused=sum(seen["refused"].values()),
        uploads=seen["stored"],
    )


def _refill_s(jobs: Sequence[tuple[float, float]], slots: int) -> float:
    """Each submit takes the slot that has been free for longest: who waits the same in sum, whichever is said."""
    begins, ends = sorted(begin for begin, _ in jobs)[slots:], [end for _, end in jobs]
    heapq.heapify(ends)
    return fmean(begin - heapq.heappop(ends) for begin in begins)


# -- the other two policies -------------------------------------------------------------------------------------------


async def _plain(order: Order) -> None:
    client = BareClient(order.url)
    free = asyncio.Semaphore(order.slots)

    async def one(number: int) -> None:
        async with free:
            links = [await client.upload(order.folder / name) for name in _pictures(order, number)]
            job_id = await _submitted_with_retries(client, _prompt(number), links)
            made = None
            while made is None:
                await asyncio.sleep(PLAIN_POLL_S * TIME_SCALE)
                made = await client.look(job_id)
            await client.download(made, order.folder / f"{number}.png")

    try:
        await asyncio.gather(*(one(number) for number in range(order.tasks)))
    finally:
        await client.aclose()


async def _submitted_with_retries(client: BareClient, prompt: str, links: Sequence[str]) -> str:
    for wait_s in PLAIN_WAITS_S:
        try:
            return await client.submit(prompt, links)
        except LaneFull:
            await asyncio.sleep(wait_s * TIME_SCALE)
    return await client.submit(prompt, links)


async def _null(order: Order) -> None:
    client = BareClient(order.url)
    numbers = iter(range(order.tasks))
    links = {n: [await client.upload(order.folder / name) for name in _pictures(order, n)] for n in range(order.tasks)}
    downloads: list[asyncio.Task[None]] = []

    async def one_slot() -> None:
        for number in numbers:
            made = await client.ended(await client.submit(_prompt(number), links[number]))
            downloads.append(asyncio.create_task(client.download(made, order.folder / f"{number}.png")))

    try:
        await asyncio.gather(*(one_slot() for _ in range(order.slots)))
        await asyncio.gather(*downloads)
    finally:
        await client.aclose()


if __name__ == "__main__":
    raise SystemExit(main())
