"""The policies that aren't ours, each a process of its own: `python benchmarks/clients.py ORDER.json`.

- **plain**: what studios write. A semaphore of C, up to 3 retries after 50430 (2, 4, 8 s), a look every 2 s, and the
  slot is held from the submit until the picture is on the disk.
- **classic**: the same, always 3 at once, whatever C is. A task whose last retry is refused is lost.
- **null**: a client that the vendor tells of each end at once, and that submits the next job at once. It knows the cap
  of each account at every moment; no program can do better.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dujiang.domain.accounts import Key
from use import TIME_SCALE, Caps, Told
from vendor import BareClient, Refused

WAITS_S: Final = (2.0, 4.0, 8.0)
POLL_S: Final = 2.0
CLASSIC_SLOTS: Final = 3
AGAIN_S: Final = 0.01  # a real one
ORDER: Final = "order.json"
TOLD: Final = "told.json"


@dataclass(frozen=True, slots=True)
class Account:
    """Whose key signs, and how many jobs it may have at once."""

    name: str
    access: str
    secret: str
    caps: Caps


@dataclass(frozen=True, slots=True)
class Order:
    """What a policy is to do."""

    role: str
    url: str
    tasks: int
    accounts: Sequence[Account]
    references: int = 0
    lost_answers: Sequence[int] = ()
    """Tasks whose first submit is accepted and not answered."""

    @property
    def slots(self) -> int:
        """Of the first account, at the start."""
        return self.accounts[0].caps[0][1]


def order_of(text: str) -> Order:
    """What `asdict` made JSON of."""
    plain = json.loads(text)
    return Order(**{**plain, "accounts": [Account(**account) for account in plain["accounts"]]})


def prompt(order: Order, number: int) -> str:
    """What a task asks for."""
    return f"都江堰 {number}" + (" [sim:lost-answer]" if number in order.lost_answers else "")


def pictures(order: Order, number: int) -> list[str]:
    """Names of the pictures that a task brings: nobody shares them."""
    return [f"ref-{number}-{n}.png" for n in range(order.references)]


def main() -> int:
    """Carry out the order that stands in a file, and leave what is to be told beside it."""
    path = Path(sys.argv[1])
    order = order_of(path.read_text("utf-8"))
    policy = _Null(order, path.parent) if order.role == "null" else _Script(order, path.parent)
    told = asyncio.run(policy.run())
    (path.parent / TOLD).write_text(json.dumps(asdict(told)), "utf-8")
    return 0


def _client(order: Order, account: Account) -> BareClient:
    return BareClient(order.url, Key(account.access, account.secret))


class _Script:
    """plain and classic."""

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._client = _client(order, order.accounts[0])
        self._free = asyncio.Semaphore(CLASSIC_SLOTS if order.role == "classic" else order.slots)
        self._noticed: dict[str, float] = {}
        self._lost = 0

    async def run(self) -> Told:
        """Every task."""
        try:
            await asyncio.gather(*(self._task(number) for number in range(self._order.tasks)))
        finally:
            await self._client.aclose()
        return Told(self._noticed, self._lost)

    async def _task(self, number: int) -> None:
        async with self._free:
            links = [await self._client.upload(self._folder / name) for name in pictures(self._order, number)]
            job_id = await self._submitted(prompt(self._order, number), links)
            if job_id is None:
                self._lost += 1
                return
            made = None
            while made is None:
                await asyncio.sleep(POLL_S * TIME_SCALE)
                made = await self._client.look(job_id)
            self._noticed[job_id] = time.time()
            await self._client.download(made, self._folder / f"{number}.png")

    async def _submitted(self, words: str, links: Sequence[str]) -> str | None:
        for wait_s in (*WAITS_S, None):
            try:
                return await self._client.submit(words, links)
            except Refused:
                if wait_s is not None:
                    await asyncio.sleep(wait_s * TIME_SCALE)
        return None


class _Null:
    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._left = deque(range(order.tasks))
        self._changed = asyncio.Condition()
        self._running = dict.fromkeys((account.name for account in order.accounts), 0)
        self._caps = dict(self._running)
        self._links: list[Sequence[str]] = []
        self._noticed: dict[str, float] = {}
        self._downloads: list[asyncio.Task[None]] = []

    async def run(self) -> Told:
        """Every task."""
        clients = {account.name: _client(self._order, account) for account in self._order.accounts}
        try:
            first = next(iter(clients.values()))
            for number in self._left:
                self._links.append([await first.upload(self._folder / name) for name in pictures(self._order, number)])
            following = [asyncio.create_task(self._follow(account)) for account in self._order.accounts]
            await asyncio.gather(*(self._slot(account.name, clients[account.name]) for account in self._slots()))
            for task in following:
                task.cancel()
            await asyncio.gather(*self._downloads)
        finally:
            for client in clients.values():
                await client.aclose()
        return Told(self._noticed)

    def _slots(self) -> list[Account]:
        """Each account as often as it will ever have slots."""
        return [account for account in self._order.accounts for _ in range(max(cap for _, cap in account.caps))]

    async def _follow(self, account: Account) -> None:
        """The cap of an account as it moves; the first submit is now."""
        begun = time.monotonic()
        for at, cap in account.caps:
            await asyncio.sleep(begun + at * TIME_SCALE - time.monotonic())
            async with self._changed:
                self._caps[account.name] = cap
                self._changed.notify_all()

    async def _slot(self, account: str, client: BareClient) -> None:
        while (number := await self._next(account)) is not None:
            try:
                job_id = await client.submit(prompt(self._order, number), self._links[number])
            except Refused:  # the cap falls at the vendor, and here a moment later
                await asyncio.sleep(AGAIN_S)
                await self._is_over(account, number)
                continue
            made = await client.ended(job_id)
            self._noticed[job_id] = time.time()
            self._downloads.append(asyncio.create_task(client.download(made, self._folder / f"{number}.png")))
            await self._is_over(account)

    async def _next(self, account: str) -> int | None:
        """A task, once the account has a slot for it; None if none is left."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._left or self._running[account] < self._caps[account])
            if not self._left:
                return None
            self._running[account] += 1
            return self._left.popleft()

    async def _is_over(self, account: str, *not_done: int) -> None:
        async with self._changed:
            self._running[account] -= 1
            self._left.extendleft(not_done)
            self._changed.notify_all()


if __name__ == "__main__":
    raise SystemExit(main())
