"""References on their way out: each picture is published once, ahead of the slots, and known to work when it is used.

A task's references are published one after the other; the same bytes are uploaded once, whoever asks for them. A link
that has not been seen to work for a while is looked at before a paid submit uses it, and published again if it is gone.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dujiang.domain.errors import (
    EndpointDown,
    HostDown,
    HostError,
    HostRefused,
    PictureRefused,
    PictureUnfit,
    StoreError,
)
from dujiang.domain.pictures import SUFFIXES, LocalPicture, data_uri
from dujiang.domain.retry import UploadRules, Verdict, after_upload
from dujiang.domain.task import Task
from dujiang.messages import text
from dujiang.ports import Clock, Engine, ImageHost, Log, PictureFiles, ReferenceCheck

READS: Final = 6  # with the host's rests between them, about five minutes
INLINE: Final = "inline:"
"""In a task's prepared references: this picture goes into the request itself."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """How references are published."""

    host: ImageHost | None
    """None: there is none; only what goes inline or is public already can be sent."""
    inline: Callable[[str], bool]
    """Whether this model's references go into the request itself."""
    rules: UploadRules
    at_once: int
    """Uploads of the host's account at once."""
    good_for_s: float
    """How long a link is believed to work without a look, in real seconds (already scaled)."""


class References:
    """Publishes what tasks refer to."""

    def __init__(
        self,
        engine: Engine,
        publishing: Publishing,
        files: PictureFiles,
        links: ReferenceCheck,
        clock: Clock,
        log: Log,
    ) -> None:
        self._engine = engine
        self._publishing = publishing
        self._files = files
        self._links = links
        self._clock = clock
        self._log = log
        self._uploads = asyncio.Semaphore(publishing.at_once)
        self._one_at_a_time: dict[str, asyncio.Lock] = {}  # by content: whoever comes second finds it published
        self._good_until: dict[str, float] = {}  # link -> moment of the wall clock until which it is believed
        self._refused_in_a_row = 0
        self._unreadable: Counter[str] = Counter()  # by path: how often a picture could not be read for a passing fault

    @property
    def host_name(self) -> str:
        """The host's name, as it rests; `links` if there is none, and only links of others are looked at."""
        host = self._publishing.host
        return host.name if host else "links"

    async def prepare(self, task: Task, *, doubted: bool) -> tuple[str, ...] | str:
        """What the submit will send, in order; or the public link of the user's that nobody can fetch.

        `doubted`: the vendor could not fetch one of them (50220), so each is looked at, however fresh it is.
        Raises `HostError`, `PictureUnfit`, `EndpointDown` (the network is away) or `StoreError`.
        """
        links: list[str] = []
        total = len(task.request.references)
        for number, reference in enumerate(task.request.references, start=1):
            if isinstance(reference, str):
                if doubted and await self._links.missing([reference]) is not None:
                    return reference
                links.append(reference)
            elif self._publishing.inline(task.request.model):
                await self._content(reference)
                links.append(f"{INLINE}{reference.sha256}")
            else:
                links.append(await self._published(task, reference, f"{number}/{total}", doubted=doubted))
        return tuple(links)

    async def for_submit(self, task: Task) -> Sequence[str]:
        """What goes into the request: links, and pictures themselves where they go inline. Raises `PictureUnfit`."""
        if not task.references:
            return [one for one in task.request.references if isinstance(one, str)]
        pictures = {f"{INLINE}{one.sha256}": one for one in task.request.local_pictures}
        return [await self._sent(one, pictures) for one in task.references]

    async def _sent(self, prepared: str, pictures: Mapping[str, LocalPicture]) -> str:
        picture = pictures.get(prepared)
        if picture is None:
            return prepared
        return data_uri(await self._content(picture), picture.kind)

    async def _content(self, picture: LocalPicture) -> bytes:
        """The picture's bytes. What stays unreadable is its task's own trouble, and must not hold up the others."""
        try:
            content = await self._files.content(picture)
        except StoreError as error:
            self._unreadable[picture.path] += 1
            if self._unreadable[picture.path] < READS:
                raise
            raise PictureUnfit(error.message) from error
        self._unreadable.pop(picture.path, None)
        return content

    async def are_stale(self, task: Task) -> bool:
        """Whether a link of ours has not been seen to work for a while: it must be looked at before it is paid for."""
        for reference, link in zip(task.request.references, task.references, strict=False):
            if isinstance(reference, str) or link.startswith(INLINE):
                continue
            if not await self._is_believed(reference, link):
                return True
        return False

    def verdict(self, error: HostError | PictureUnfit | EndpointDown) -> Verdict:
        """What follows when a reference could not be published, or a link could not be looked at."""
        if isinstance(error, EndpointDown):
            error = HostDown(error.message, why="network")
        return after_upload(error, self.host_name, self._publishing.rules, self._refused_in_a_row)

    # -- one picture

    async def _published(self, task: Task, picture: LocalPicture, place: str, *, doubted: bool) -> str:
        lock = self._one_at_a_time.setdefault(picture.sha256, asyncio.Lock())
        async with lock:
            known = (await self._engine.published([picture.sha256], self.host_name)).get(picture.sha256)
            if known is not None:
                self._believe(known.url, known.known_good_at)
                believed = await self._is_believed(picture, known.url) and not doubted
                if believed or await self._looked_at(picture, known.url):
                    return known.url
            return await self._uploaded(task, picture, place)

    def _believe(self, link: str, known_good_at: float) -> None:
        self._good_until[link] = known_good_at + self._publishing.good_for_s

    async def _is_believed(self, picture: LocalPicture, link: str) -> bool:
        if link not in self._good_until:
            known = (await self._engine.published([picture.sha256], self.host_name)).get(picture.sha256)
            self._believe(link, known.known_good_at if known is not None and known.url == link else 0.0)
        # Never longer than it lasts: the clock may have gone back.
        return 0 < self._good_until[link] - self._clock.now() <= self._publishing.good_for_s

    async def _looked_at(self, picture: LocalPicture, link: str) -> bool:
        """Whether the link works; from now on it is believed, or forgotten."""
        there = await self._links.missing([link]) is None
        await self._engine.confirm(picture, self.host_name, there=there)
        if there:
            self._believe(link, self._clock.now())
        else:
            self._good_until.pop(link, None)
            self._log.tell("link_gone", label=self._label, picture=picture.sha256[:12])
        return there

    # -- uploading

    async def _uploaded(self, task: Task, picture: LocalPicture, place: str) -> str:
        host = self._publishing.host
        if host is None:
            raise HostRefused(text("no_host"))
        content = await self._content(picture)
        name = f"{picture.sha256[:24]}{SUFFIXES[picture.kind]}"  # what the user calls it is nobody's business
        link = await self._asked(host, task, content, name, place)
        await self._engine.publish(picture, host.name, link)
        self._believe(link, self._clock.now())
        return link

    async def _asked(self, host: ImageHost, task: Task, content: bytes, name: str, place: str) -> str:
        """Ask the host, and again after the waits of its rules if it may be there in a moment."""
        waits = self._publishing.rules.waits
        told = {"label": host.label, "task": task.id, "picture": name[:12], "place": place}
        for tries in range(len(waits) + 1):
            try:
                async with self._uploads:
                    self._log.tell("upload_sent", **told, bytes=len(content))
                    link = await host.publish(content, name)
            except HostDown as error:
                if not error.soon or tries == len(waits):
                    self._log.tell("upload_given_up", **told, reason=error.message, tries=tries, most=len(waits))
                    raise
                wait_s = waits[tries]
                again = {"reason": error.message, "tries": tries + 1, "most": len(waits), "wait_s": wait_s}
                self._log.tell("upload_again", **told, **again)
                await self._clock.sleep(wait_s)
            except PictureRefused as error:
                self._refused_in_a_row += 1
                self._log.tell("upload_refused", **told, reason=error.message, in_a_row=self._refused_in_a_row)
                raise
            except HostError as error:
                self._log.tell("upload_account", **told, reason=error.message)
                raise
            else:
                self._refused_in_a_row = 0
                self._log.tell("upload_done", **told)
                return link
        raise AssertionError("the last try returns or raises")

    @property
    def _label(self) -> str:
        host = self._publishing.host
        return host.label if host else ""
