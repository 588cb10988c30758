"""What the vendor decides: who is let in, what becomes a job, what a poll is told. No HTTP here.

Everything happens at the moment of the call, by the injected clock; only fetching references takes time of its own.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import references
from .chance import Chance, Rate
from .codes import ENDS_A_JOB, OUTPUT_MODERATION, Refused
from .jobs import CANCELED, DONE, EMPTY, Job, JobBook, Pool
from .markers import CodedAnswer, Markers, markers_in
from .products import Body, Product, product_of
from .settings import SUBMIT_FAULTS, SimulatorSettings

Clock = Callable[[], float]
_TASK_IDS: Final = (10**18, 2**64 - 1)  # 19 or 20 digits; half of them exceed a signed 64-bit integer


class Vendor:
    """The simulated vendor's whole state."""

    def __init__(
        self, settings: SimulatorSettings, clock: Clock = time.monotonic, wall_clock: Clock = time.time
    ) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self.epoch = wall_clock() - clock()
        self._first_settings = settings
        self._task_ids = random.SystemRandom()  # ids of an earlier simulator must not come back
        self.book = JobBook()
        self.reset()

    def reset(self) -> None:
        """As after the start: no jobs, the first settings, the first story of the seed."""
        for job in self.book.jobs.values():
            self.book.release(job)
        self.settings = self._first_settings
        self.book = JobBook()
        self.chance = Chance(self.settings.seed)
        self.refused: Counter[tuple[str, int]] = Counter()
        self.requests: Counter[str] = Counter()
        self._submit_rate = Rate()
        self._poll_rate = Rate()
        self._spent: set[tuple[str, str]] = set()

    def change(self, partial: Mapping[str, Any]) -> None:
        """Go on with other settings; jobs that run keep their course. A seed begins its story anew."""
        self.settings = self.settings.changed(partial)
        if "seed" in partial:
            self.chance = Chance(self.settings.seed)

    def now(self) -> float:
        """The simulator's clock, with every job ended whose time has come."""
        now = self.clock()
        self.book.settle(now)
        return now

    def refused_of(self, kind: str) -> dict[str, int]:
        """How often each code answered requests of this kind."""
        return {str(number): count for (of, number), count in self.refused.items() if of == kind}

    async def ended(self, job: Job) -> None:
        """Return at the moment the job ends, or is forgotten by a reset."""
        loop = asyncio.get_running_loop()
        while not job.ended and self.book.jobs.get(job.task_id) is job:
            woken = asyncio.Event()
            job.waiting = [*(job.waiting or ()), woken.set]
            timer = loop.call_later(max(0.0, job.ends_at - self.clock()), woken.set)
            await woken.wait()
            timer.cancel()
            self.now()

    async def submit(self, account: str, body: Body, client: str) -> Job:
        """Take a job on. It is billed if it ends well, whether or not the answer arrives."""
        self._within_rate(self._submit_rate, account, self.settings.submit_qps)
        product = product_of(body)
        product.check(body)
        prompt = body.get("prompt", "")
        markers = markers_in(prompt)
        self._refuse_as_marked(prompt, markers.submit)
        pool = (account, body["req_key"])
        self._free_slot(pool)
        urls = tuple(body.get("image_urls") or ())
        if urls and self.settings.fetch_references:
            await references.fetch_all(urls)
            self._free_slot(pool)  # others came in the meantime
        job = self._job(pool, product, body, markers, client=client)
        self.book.accept(job)
        return job

    def _within_rate(self, rate: Rate, account: str, qps: float | None) -> None:
        if not rate.admits(account, self.clock(), qps, self.settings.seconds(1.0)):
            raise self._refusal(50429)

    def _refuse_as_marked(self, prompt: str, answer: CodedAnswer | None) -> None:
        if answer and not (answer.once and self._is_spent(prompt, f"submit:{answer.number}")):
            raise self._shaped(answer.refusal())

    def _free_slot(self, pool: Pool) -> None:
        limit = self.settings.limit_of(pool[0])
        if limit is None:
            return
        now = self.now()
        if self.book.running[pool] + self.chance.competitor(self.settings, now) >= limit:
            raise self._refusal(50430)

    def _job(self, pool: Pool, product: Product, body: Body, markers: Markers, *, client: str) -> Job:
        now = self.now()
        prompt = body.get("prompt", "")
        starts_at, ends_at = self._course(now, markers)
        return Job(
            number=len(self.book.jobs),
            task_id=self._new_task_id(),
            pool=pool,
            prompt=prompt,
            images=0 if markers.empty else self.chance.images(product.most_images(body)),
            size=product.size(body),
            references=tuple(body.get("image_urls") or ()),
            client=client,
            submitted_at=now,
            starts_at=starts_at,
            ends_at=ends_at,
            outcome=self._outcome(prompt, markers),
            markers=markers,
            faults=[fault for fault in markers.faults if fault not in SUBMIT_FAULTS],
        )

    def _course(self, now: float, markers: Markers) -> tuple[float, float]:
        settings = self.settings
        run_s = self.chance.run_s(settings) if markers.run_s is None else markers.run_s
        if settings.instant:
            return now, now
        starts_at = now + settings.seconds(settings.queue_s)
        return starts_at, starts_at + settings.seconds(run_s * (settings.slow_factor if markers.slow else 1.0))

    def _outcome(self, prompt: str, markers: Markers) -> str:
        answer = markers.poll
        if answer and answer.number in ENDS_A_JOB:
            if not answer.once:
                return str(answer.number)
            if answer.number in OUTPUT_MODERATION and not self._is_spent(prompt, f"poll:{answer.number}"):
                return str(answer.number)
        return markers.status or (EMPTY if markers.empty else DONE)

    def _new_task_id(self) -> str:
        while (task_id := str(self._task_ids.randint(*_TASK_IDS))) in self.book.jobs:
            pass
        return task_id

    def _is_spent(self, prompt: str, what: str) -> bool:
        """Whether this already happened to the prompt; asking makes it so."""
        if (prompt, what) in self._spent:
            return True
        self._spent.add((prompt, what))
        return False

    def marked_submit_fault(self, body: Body) -> str | None:
        """A fault of submits that the prompt asks for and hasn't met yet."""
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or "[sim:" not in prompt:
            return None
        wanted = (fault for fault in markers_in(prompt).faults if fault in SUBMIT_FAULTS)
        return next((fault for fault in wanted if (prompt, fault) not in self._spent), None)

    def spend_fault(self, prompt: str, fault: str) -> None:
        """The prompt's fault has happened; it won't again."""
        self._spent.add((prompt, fault))

    def poll(self, account: str, body: Body) -> tuple[Job | None, dict[str, Any]]:
        """The job (None: no such record) and the options of the answer; Refused if the job ended with a code."""
        self._within_rate(self._poll_rate, account, self.settings.poll_qps)
        options = _options(body)
        job = self.find(account, body)
        if job is not None:
            job.polls += 1
            self._refuse_poll(job)
        return job, options

    def find(self, account: str, body: Body) -> Job | None:
        """The job whose record still lives, if it is this account's and this product's."""
        now = self.now()
        task_id, req_key = body.get("task_id"), body.get("req_key")
        if not isinstance(task_id, str) or not task_id or not isinstance(req_key, str) or not req_key:
            raise self._refusal(50215, "req_key and task_id are needed")
        job = self.book.jobs.get(task_id)
        if job is None or job.pool != (account, req_key):
            return None
        return job if now < job.submitted_at + self.settings.seconds(self.settings.record_lifetime_s) else None

    def _refuse_poll(self, job: Job) -> None:
        answer = job.markers.poll
        if job.ended and job.outcome.isdigit():
            raise self._shaped(Refused(int(job.outcome), gateway_shaped=bool(answer and answer.gateway)))
        if answer is None or (answer.number in OUTPUT_MODERATION):
            return
        passing = answer.number not in ENDS_A_JOB or answer.once
        if passing and not (answer.once and job.polls > 1):
            raise self._shaped(answer.refusal())

    def cancel(self, account: str, body: Body) -> None:
        """Only what still waits in the vendor's queue can be taken back."""
        job = self.find(account, body)
        if job is None:
            raise self._refusal(50215, "no such task")
        if job.ended or job.state(self.clock()) != "in_queue":
            raise self._refusal(50215, "the task can't be cancelled any more")
        self.book.end_now(job, self.clock(), CANCELED)

    def _refusal(self, number: int, message: str = "") -> Refused:
        return self._shaped(Refused(number, message))

    def _shaped(self, refusal: Refused) -> Refused:
        refusal.gateway_shaped |= refusal.code.number in self.settings.gateway_shaped_codes
        return refusal


_OPTIONS: Final = {"return_url", "logo_info", "aigc_meta"}


def _options(body: Body) -> dict[str, Any]:
    """`req_json` of a poll: a JSON object in a text."""
    if not body.keys() <= {"req_key", "task_id", "req_json"}:
        raise Refused(50215, "a poll has req_key, task_id and req_json")
    text = body.get("req_json")
    if text is None:
        return {}
    try:
        options = json.loads(text)
    except (TypeError, ValueError) as error:
        raise Refused(50215, "req_json is no JSON text") from error
    if not isinstance(options, dict) or not options.keys() <= _OPTIONS:
        raise Refused(50215, f"req_json is no JSON object of {', '.join(sorted(_OPTIONS))}")
    return options
