"""Values for tests, in which only what the test is about is said."""

import random
from dataclasses import replace
from typing import Any, Final

from dujiang.domain import lifecycle as life
from dujiang.domain.accounts import Account, Key
from dujiang.domain.batch import Batch
from dujiang.domain.lifecycle import Event, State, StoredFile
from dujiang.domain.requests import Request
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.task import Attempt, Task
from dujiang.ports import NewTask, Worker

NOON: Final = 1_700_000_000.0
ENDPOINT: Final = "https://vendor.example"


class StillClock:
    """A clock that stands until a test moves it, forwards or back."""

    scale = 1.0

    def __init__(self, now: float = NOON) -> None:
        self.random = random.Random(7)
        self.time = now

    def now(self) -> float:
        return self.time

    def elapsed(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    def scaled(self, seconds: float) -> float:
        return seconds


def a_request(prompt: str = "一只猫", **more: Any) -> Request:
    return Request("4.0", prompt, **more)


def an_attempt(number: int = 1, **more: Any) -> Attempt:
    known: dict[str, Any] = {
        "lane_id": 3,
        "account_id": 2,
        "account": "a",
        "endpoint": ENDPOINT,
        "req_key": "k",
        "key_fingerprint": "f" * 24,
        "sent_at": NOON,
    }
    return Attempt(number, **(known | more))


def a_task(state: State = State.READY, **more: Any) -> Task:
    """A task in `state`, with an attempt where that state has one."""
    never_sent = {State.QUEUED, State.PREPARING, State.READY}
    attempt = None if state in never_sent else an_attempt()
    known: dict[str, Any] = {
        "id": 1,
        "batch": "b",
        "position": 0,
        "name": "cat",
        "request": a_request(),
        "version": 0,
        "attempt": attempt,
    }
    return Task(state=state, **(known | more))


def a_file(path: str = "cat.png") -> StoredFile:
    return StoredFile(path, "0" * 64, 12, 4, 3)


# One of every kind of event.
EVENTS: Final[tuple[Event, ...]] = (
    life.PreparationStarted(),
    life.Prepared(("https://example.com/r.png",)),
    life.PutBack("network"),
    life.Claimed(1, 3),
    life.Accepted("job-1", "request-1"),
    life.Postponed("slot"),
    life.LinkRefused("404"),
    life.Unanswered("timeout", "no answer", 120.0),
    life.Orphaned("w", 130.0),
    life.Rendered(("https://example.com/1.png",), 20.0),
    life.OutputRefused("50511"),
    life.UrlsGone(),
    life.Saved((a_file(),)),
    life.Blocked("50411"),
    life.Failed("50207"),
    life.Vanished("record_gone"),
    life.CancelRequested(),
    life.Cancelled(),
    life.ResubmitDecided(),
    life.JobFound("job-2"),
    life.GivenUp(),
)


def a_batch(batch_id: str = "b", **more: Any) -> Batch:
    known: dict[str, Any] = {"name": batch_id, "out": "/out", "source": "/cats.csv"}
    return Batch(batch_id, **(known | more))


def a_row(number: int, *, digest: str = "1", priority: int = 0, req_key: str = "k", **more: Any) -> NewTask:
    """Row `row-NUMBER`; another `digest` is a changed row."""
    return NewTask(
        row=f"row-{number}",
        digest=digest,
        position=number,
        name=f"picture-{number}",
        req_key=req_key,
        request=a_request(f"cat {number}", **more),
        priority=priority,
    )


def an_account(name: str = "a", *access: str, **more: Any) -> Account:
    """An account with these access keys (one of its own if none is said)."""
    return Account(name, tuple(Key(key, f"secret of {key}") for key in access or (f"key-{name}",)), **more)


def a_worker(worker_id: str = "w") -> Worker:
    return Worker(worker_id, "here", 1, NOON)


def an_order(subject: Subject = Subject.LANE, key: str = "1", **more: Any) -> RestOrder:
    """Let something rest 2 → 4 → 8, at most 10 s."""
    return replace(RestOrder(subject, key, "slot", "50430", RestRule(2.0, 10.0)), **more)
