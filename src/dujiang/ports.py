"""Every seam on one page: what the runner needs of its neighbours, no wider.

An adapter turns every failure of its world into one of `domain.errors`; nothing else leaves it. All are safe to use
from many tasks at once.
"""

import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dujiang.domain.accounts import Account, Key, Lane
from dujiang.domain.batch import Batch, Counts, OnDoubt
from dujiang.domain.belief import Belief
from dujiang.domain.lifecycle import Event, State, StoredFile
from dujiang.domain.limits import Limit
from dujiang.domain.pace import Pace
from dujiang.domain.pictures import LocalPicture
from dujiang.domain.requests import ModelSpec, Request
from dujiang.domain.rests import Rest, RestOrder, Subject
from dujiang.domain.task import Attempt, Task

# -- Time and chance --------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time, seen in one place. `scale` shortens every constant of ours, so that a run can be rehearsed fast."""

    scale: float
    random: random.Random

    def now(self) -> float:
        """Seconds since the epoch, for what is stored and shown."""

    def elapsed(self) -> float:
        """Monotonic seconds, for what is measured."""

    async def sleep(self, seconds: float) -> None:
        """Wait so many real seconds (the caller has scaled them)."""

    def scaled(self, seconds: float) -> float:
        """One of our constants, in real seconds of this run."""


# -- What is told -----------------------------------------------------------------------------------------------------


class Log(Protocol):
    """Where it is told what happens, as it happens. Names and fields are stable; texts are made of them."""

    def tell(self, name: str, **fields: object) -> None:
        """Something happened: `name` says what (`messages` has a text for `log_NAME`), `fields` the rest.

        A field `prompt` is shown as a hash, unless the user wants it told. Never blocks for long, never raises.
        """


# -- The vendor -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """The vendor's side of a task."""

    id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a poll saw: still running (`urls` is None), or finished with the pictures' addresses."""

    urls: tuple[str, ...] | None
    queued: bool = False
    """Not begun yet, so it may still be cancelled."""


class Provider(Protocol):
    """An image API, reduced to what the runner needs of it. Every failure leaves as a `ProviderError`."""

    label: str
    """What stands in front of everything that is told about it: `即梦API`."""
    endpoint: str
    models: Mapping[str, ModelSpec]

    async def submit(self, request: Request, references: Sequence[str], key: Key) -> Job:
        """Ask for the images, over a fresh connection, once. When this returns, it is paid for.

        `references`: public links, or `data:` URIs for models that take pictures inline.

        Raises `ProvenUncharged` (nothing was charged) or `Unproven` (nobody knows).
        """

    async def look(self, job_id: str, req_key: str, key: Key) -> Look:
        """How the job is doing. Raises what ends it, `Undecided`, or `Unproven`/`EndpointDown` (a passing fault)."""

    async def cancel(self, job_id: str, req_key: str, key: Key) -> None:
        """Ask the vendor to drop a job that has not begun. Whether it did is seen by `look`."""

    async def aclose(self) -> None:
        """Close every connection."""


class ImageHost(Protocol):
    """An image host: a picture goes in, a public link comes out. Every failure leaves as a `HostError`."""

    name: str
    """As it is stored, shown and rests: `superbed`."""
    label: str
    """What stands in front of everything that is told about it: `Superbed`."""

    async def publish(self, content: bytes, name: str) -> str:
        """The public link of a picture. `name`: a file name with the suffix of what it is. Asks once."""

    async def aclose(self) -> None:
        """Close every connection."""


class PictureFiles(Protocol):
    """Pictures on this machine, read again when they are needed."""

    async def content(self, picture: LocalPicture) -> bytes:
        """Exactly the bytes that `picture` was read from. Raises `PictureUnfit`, or `StoreError` (a passing fault)."""


class ReferenceCheck(Protocol):
    """Looks at published references the way the vendor does."""

    async def missing(self, links: Sequence[str]) -> str | None:
        """The first link that nobody can fetch, or None. Raises `EndpointDown` when the network is away."""


# -- The disk ---------------------------------------------------------------------------------------------------------


class ImageStore(Protocol):
    """Where pictures go. A picture is either complete under its name or not there."""

    async def save(self, url: str, folder: Path, stem: str) -> StoredFile:
        """Bring one picture home: stream, check, fsync, rename; `stem` gets the suffix of what it is.

        `StoredFile.path` is the file's name in `folder`. Repeating it replaces the file by the same one.
        Raises `UrlGone`, `DownloadError` (passing: fetch again), `StoreError` (the disk).
        """

    async def aclose(self) -> None:
        """Close every connection."""


@dataclass(frozen=True, slots=True)
class Published:
    """A picture that a host has: its link, and when that was last known to work (seconds since the epoch)."""

    url: str
    known_good_at: float


# -- The engine -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewTask:
    """A row on its way into a batch."""

    row: str
    """Its id, or the hash of its request with an ordinal among equals."""
    digest: str
    """Hash of everything that makes the row what it is: another digest under the same `row` is a changed row."""
    position: int
    name: str
    req_key: str
    request: Request
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """What an enqueue did: "new 12, changed 3, same 390"."""

    new: int = 0
    changed: int = 0
    same: int = 0

    def __add__(self, other: "Added") -> "Added":
        return Added(self.new + other.new, self.changed + other.changed, self.same + other.same)


@dataclass(frozen=True, slots=True)
class Offer:
    """A lane that may take work in this turn, with its limit and the key that new work is signed with."""

    lane: Lane
    limit: Limit
    key_fingerprint: str
    at_most: int
    in_all: int | None = None
    """Tasks that the whole turn may take, on whichever lanes; None: as many as they have room for."""
    scale: float = 1.0
    """Length of one of our seconds, for a limit that finds itself, a pace and a place in line."""
    ageing_s: float = 0.0
    """Real seconds of waiting without a slot that are worth a point of priority; 0: it never grows."""
    daily_images: int | None = None
    """The account's cap as the settings say; None: no cap."""
    day_began_at: float = 0.0
    """Midnight, where this program runs."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of admission brought."""

    tasks: list[Task]
    due_in_s: float | None
    """When something that stands in the way ends by itself; None if nothing does."""
    waiting: frozenset[State] = field(default=frozenset(), compare=False)
    """Which of queued, preparing and ready some task of the batch is still in."""
    beliefs: Mapping[int, Belief] = field(default_factory=dict, compare=False)
    """What lanes that find their limit believe now, by the lane's id."""
    is_shared: bool = field(default=False, compare=False)
    """Other batches wait for the same lanes: what they do matters here at once."""
    is_out_of_budget: bool = field(default=False, compare=False)
    """Nothing was taken, and it is a budget that keeps whatever is ready or queued from being taken."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far references may be published ahead of the slots."""

    tasks: int
    """Prepared tasks of a product that may wait for a slot."""
    at_once: int
    """Tasks in preparation at once, of all programs together: each uploads one picture at a time."""
    req_keys: Sequence[str]
    """Products that this program has lanes for."""
    host: str = ""
    """The host whose rest stands in the way; empty if nothing is uploaded."""
    account_ids: Collection[int] = ()
    """Accounts that could take what is prepared."""


@dataclass(frozen=True, slots=True)
class LaneUse:
    """A lane now: the limit set for it, if any, its slots in use, and the next end of one that ends by time."""

    lane: Lane
    limit: Limit | None
    in_use: int
    next_end: float | None
    belief: Belief | None = None
    """What it has learned, if its limit in force is one that finds itself."""
    in_force: Limit | None = None
    """The limit that the last claim went by; None before the first by a limit that finds itself."""

    def limit_in_force(self, general: Limit) -> Limit:
        """Set for everybody, or else as the last claim went by; `general` where nobody has claimed yet."""
        return self.limit or self.in_force or general


@dataclass(frozen=True, slots=True)
class AccountUse:
    """An account now, as everybody shares it."""

    id: int
    name: str
    fingerprints: tuple[str, ...]
    stopped: str | None = None
    """`paused` or `draining`, if somebody stopped it."""
    daily_images: int | None = None
    """The cap that was set for everybody; 0: none, None: as the settings say."""
    images_today: int = 0
    """Charged or reserved since midnight."""
    pace: Pace | None = None
    """How fast it may submit, if it was too fast before."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A running program that holds tasks. `machine` says whose lock files it can see."""

    id: str
    machine: str
    pid: int
    started_at: float
    name: str = ""
    """As its owner calls it."""
    version: str = ""
    """Of the program."""
    silent_s: float = 0.0
    """Since it was last heard of, by the database's clock."""


class Engine(Protocol):
    """Where tasks live. Every method is one durable transaction; when it returns, it survives a kill.

    Writers are fenced: an event recorded with an outdated `Task` raises `StaleTask` and changes nothing.
    """

    # batches and rows
    async def open_batch(self, batch: Batch) -> Batch:
        """The batch of (out, name), made if it is new."""

    async def batch(self, batch_id: str) -> Batch | None:
        """One batch."""

    async def enqueue(self, batch_id: str, rows: Sequence[NewTask]) -> Added:
        """Add rows; what is known already is left alone, so a killed enqueue is simply repeated."""

    async def analyze(self) -> None:
        """Many rows have come: let the database look at them, where it plans by what it has seen."""

    async def retry(self, task_ids: Sequence[int], *, again: bool = False) -> list[int]:
        """New tasks for ended ones, in the same batch; ids of the new ones. Repeating it makes nothing new."""

    async def pause(self, batch_id: str, *, paused: bool) -> None:
        """Stop or let go: no upload and no submit starts while paused; what runs is collected."""

    async def pause_everything(self, *, paused: bool) -> None:
        """The same for all batches."""

    async def everything_is_paused(self) -> bool:
        """Whether somebody has done that."""

    async def set_priority(self, priority: int, *, batch_id: str | None = None, task_ids: Sequence[int] = ()) -> int:
        """Of a batch, or of tasks, from the next free slot on; how many there were."""

    async def set_budget(self, batch_id: str, max_images: int | None) -> None:
        """How many images the batch may bring in all, what it has taken included; None: as many as are wanted."""

    async def cancel(self, *, batch_id: str | None = None, task_ids: Sequence[int] = ()) -> Mapping[str, int]:
        """Cancel what waits and ask for what runs: {"cancelled": n, "requested": n, "refused": n}."""

    async def counts(self, batch_id: str) -> Counts:
        """How many of the batch's newest tasks are in each state."""

    async def open_batches(self) -> list[Batch]:
        """Batches with something to do or to decide, in the order in which they came; not the paused ones."""

    async def products(self, batch_id: str) -> frozenset[str]:
        """The products (`req_key`) of its newest tasks."""

    # lanes
    async def lane(self, endpoint: str, account: Account, req_key: str) -> Lane:
        """The lane, made if it is new; its account is recognised by name or by any of its keys."""

    async def set_limit(self, lane: Lane, limit: Limit) -> None:
        """The lane's limit for everybody, until it is set again."""

    async def hint(self, lane: Lane, limit: Limit | None = None) -> bool:
        """Somebody says that the lane's cap has risen: it looks at once. False if its limit is fixed.

        `limit`: that goes for it from now on, if it is another than before.
        """

    async def lanes(self) -> list[LaneUse]:
        """Every lane now."""

    async def accounts(self, day_began_at: float) -> list[AccountUse]:
        """Every account that was ever used, with its images since then."""

    async def stop_account(self, account_id: int, stopped: str | None) -> None:
        """`paused` or `draining`: nothing is submitted with it, what runs is collected; None lets it go on."""

    async def cap_account(self, account_id: int, daily_images: int | None) -> None:
        """Its images a day for everybody until it is set again; 0: no cap, None: as the settings say."""

    async def run_times(self, lane_id: int) -> list[float]:
        """The lane's last 200 measured run times in seconds, oldest first."""

    async def rests(self) -> list[Rest]:
        """Everything that rests, or of which one task may look."""

    async def rest(self, order: RestOrder) -> None:
        """Let something rest, apart from any task's event."""

    async def end_rest(self, subject: Subject, key: str) -> None:
        """It answers again."""

    # work
    async def claim(self, worker: Worker, offers: Sequence[Offer], batch_id: str) -> Turn:
        """Take a slot and a task together, as many as lanes have room: attempts are durable when this returns."""

    async def claim_preparation(self, worker: Worker, batch_id: str, ahead: Ahead) -> Turn:
        """Take queued tasks whose references are to be published, best first, as far ahead as is allowed.

        A task that goes before the worst prepared one of its product is always taken.
        """

    async def published(self, sha256s: Sequence[str], host: str) -> Mapping[str, Published]:
        """What a host is known to have, by content."""

    async def publish(self, picture: LocalPicture, host: str, url: str) -> None:
        """A host took a picture: it answers, and the picture need not be uploaded again."""

    async def confirm(self, picture: LocalPicture, host: str, *, there: bool) -> None:
        """The picture's link was looked at: it works, or it is gone and forgotten."""

    async def record(
        self, task: Task, event: Event, rest: RestOrder | None = None, worker: Worker | None = None
    ) -> Task:
        """Apply `event` and whoever rests for it; the task as it is then. `worker` goes on holding it."""

    async def hold_slot(self, task: Task, for_s: float | None) -> None:
        """End the slot of a job that can't be polled `for_s` from now at the latest; None: it answers again."""

    async def task(self, task_id: int) -> Task | None:
        """One task as it is."""

    # workers
    async def register(self, worker: Worker) -> None:
        """A worker started."""

    async def heartbeat(self, worker: Worker) -> bool:
        """It lives. False if it was taken for dead meanwhile, and its tasks were taken over."""

    async def unregister(self, worker: Worker) -> None:
        """A worker left; what it still held may be taken over."""

    async def workers(self) -> list[Worker]:
        """Every worker that still holds tasks or is registered."""

    async def adopt(
        self,
        worker: Worker,
        gone: Worker | None,
        slot_for_s: Callable[[int], float],
        reaches: Callable[[Attempt], bool] = ...,
    ) -> list[Task]:
        """Take over what a gone worker held (None: what nobody holds): what runs at the vendor goes on, what was
        submitting is in doubt. A running job that the worker can't look at (`reaches` its attempt) is left alone. One
        that was heard of since it was seen to be silent (`gone.silent_s`) keeps everything.

        `slot_for_s`: for a lane's id, how long after `sent_at` such a submit's slot lasts.
        """

    async def shorten_waits(self) -> None:
        """After the clock went back: no stored wait is honoured longer than its length from now."""

    async def generating(self, batch_id: str) -> list[Task]:
        """The batch's tasks whose jobs run at the vendor."""

    async def doubts(self, batch_id: str) -> list[Task]:
        """The batch's tasks in doubt."""

    async def cancel_requests(self, worker: Worker) -> list[int]:
        """Ids of held tasks whose cancel was asked for."""

    async def changed_elsewhere(self) -> bool:
        """Whether another program has changed the database since this was last asked. Cheap."""

    def finished(self, batch_id: str) -> AsyncIterator[Task]:
        """The batch's newest tasks that have ended, in the order of the file, read in pages."""

    async def aclose(self) -> None:
        """Finish what was accepted and close."""


__all__ = [
    "AccountUse",
    "Added",
    "Ahead",
    "Clock",
    "Engine",
    "ImageHost",
    "ImageStore",
    "Job",
    "LaneUse",
    "Log",
    "Look",
    "NewTask",
    "Offer",
    "OnDoubt",
    "PictureFiles",
    "Provider",
    "Published",
    "ReferenceCheck",
    "Turn",
    "Worker",
]
