"""The image host's whole state: accounts, and the pictures that they put there. No HTTP here.

An upload holds a place of its account while it lasts, by the injected clock; what becomes of the picture is decided at
its end. The picture is kept even if nobody waits for the answer any more.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from .vendor import Vendor

REFUSE_MARKER: Final = "[sim:refuse]"
_MOST_REFUSED: Final = 5  # pictures in a row, then the account is suspended
_MAGIC: Final = {
    "jpg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "bmp": re.compile(rb"BM....\0\0\0\0", re.DOTALL),  # the size, and four bytes that are always 0
}
CONTENT_TYPES: Final = {kind: f"image/{kind}".encode() for kind in _MAGIC} | {"jpg": b"image/jpeg"}

BAD_TOKEN: Final = 1001
SUSPENDED: Final = 1002
TOO_MANY_AT_ONCE: Final = 1003
BAD_FORM: Final = 2001
NO_PICTURE: Final = 2002
SEVERAL_PICTURES: Final = 2003
BAD_SOURCE: Final = 2004
NOT_A_PICTURE: Final = 3001
TOO_LARGE: Final = 3002
REFUSED_BY_REVIEW: Final = 3003
NOTHING_TO_DELETE: Final = 4001
"""The real values of `err` are unknown; these are the simulator's own, and only 0 has a meaning to clients."""

_MESSAGES: Final = {
    BAD_TOKEN: "token 无效，请检查后重试",
    SUSPENDED: "账号因多次上传违规图片已被封禁，请联系客服",
    TOO_MANY_AT_ONCE: "同时上传的图片过多，请稍后再试",
    BAD_FORM: "请求格式错误",
    NO_PICTURE: "请选择要上传的图片",
    SEVERAL_PICTURES: "每次只能上传一张图片",
    BAD_SOURCE: "图片链接无效",
    NOT_A_PICTURE: "不支持的图片格式，或图片已损坏",
    TOO_LARGE: "图片过大，已超出大小限制",
    REFUSED_BY_REVIEW: "图片未通过审核",
    NOTHING_TO_DELETE: "图片不存在或已删除",
}


class HostRefusal(Exception):
    """The image host says no, with HTTP 200."""

    def __init__(self, err: int) -> None:
        super().__init__(f"{err} {_MESSAGES[err]}")
        self.err = err
        self.message = _MESSAGES[err]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client wants to have stored: a file's content, or the URL of a picture elsewhere."""

    file_name: str
    title: str  # the field `filename`, which wins over the file's own name
    content: bytes = b""
    source: str = ""


@dataclass(slots=True, eq=False)
class Account:
    """A customer of the image host."""

    name: str
    uploading: int = 0
    refused_in_a_row: int = 0

    @property
    def is_suspended(self) -> bool:
        """For good; only a reset of the simulator ends it."""
        return self.refused_in_a_row >= _MOST_REFUSED


@dataclass(slots=True, eq=False)
class Item:
    """One picture that was accepted."""

    item_id: str
    kind: str  # jpg, png, …
    name: str
    account: str
    content: bytes
    source: str  # set: nothing is stored, and whoever asks is sent there
    size: int
    sha256: str | None  # None: nothing is stored
    uploaded_at: float
    deleted: bool = False

    @property
    def path(self) -> str:
        """Where it is served."""
        return f"/item/{self.item_id}.{self.kind}"

    def row(self, epoch: float) -> dict[str, Any]:
        """The ledger's line."""
        return {
            "id": self.item_id,
            "sha256": self.sha256,
            "bytes": self.size,
            "name": self.name,
            "account": self.account,
            "uploaded_at": self.uploaded_at + epoch,
            "deleted": self.deleted,
        }


class Host:
    """The simulated image host. Settings, clock and chance are the simulated vendor's."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self.reset()

    def reset(self) -> None:
        """As after the start: no items, and nobody suspended."""
        self.items: dict[str, Item] = {}
        self.most_uploads_at_once = 0
        self._accounts: dict[str, Account] = {}

    def account(self, token: str) -> Account:
        """Whose token this is; tokens of one name are one account."""
        name = self._vendor.settings.host_tokens.get(token)
        if name is None:
            raise HostRefusal(BAD_TOKEN)
        return self._accounts.setdefault(name, Account(name))

    def uploader(self, token: str) -> Account:
        """Whose token this is, if pictures may come from there."""
        account = self.account(token)
        if account.is_suspended:
            raise HostRefusal(SUSPENDED)
        return account

    async def upload(self, account: Account, offer: Offer) -> Item:
        """Take a picture in. It is stored whether or not the answer arrives."""
        with self._place(account):
            await self._until(self._vendor.clock() + self._vendor.settings.seconds(self._vendor.settings.upload_s))
            if account.is_suspended:  # by those that came beside it
                raise HostRefusal(SUSPENDED)
            kind = self._kind(account, offer)
            account.refused_in_a_row = 0
            return self._stored(account, offer, kind)

    @contextmanager
    def _place(self, account: Account) -> Iterator[None]:
        most = self._vendor.settings.host_parallel
        if most is not None and account.uploading >= most:
            raise HostRefusal(TOO_MANY_AT_ONCE)
        account.uploading += 1
        at_once = sum(each.uploading for each in self._accounts.values())
        self.most_uploads_at_once = max(self.most_uploads_at_once, at_once)
        try:
            yield
        finally:
            account.uploading -= 1

    async def _until(self, moment: float) -> None:
        while (left_s := moment - self._vendor.clock()) > 0:  # noqa: ASYNC110 - a clock sets no event
            await asyncio.sleep(left_s)

    def _kind(self, account: Account, offer: Offer) -> str:
        """Which kind of picture it is, if it is accepted."""
        if len(offer.content) > self._vendor.settings.host_max_bytes:
            raise HostRefusal(TOO_LARGE)
        kind = _kind_of_source(offer.source) if offer.source else _kind_of_content(offer.content)
        if kind is None or REFUSE_MARKER in offer.file_name + offer.title:
            account.refused_in_a_row += 1
            raise HostRefusal(NOT_A_PICTURE if kind is None else REFUSED_BY_REVIEW)
        return kind

    def _stored(self, account: Account, offer: Offer, kind: str) -> Item:
        item = Item(
            item_id=secrets.token_hex(12),  # of no seed: ids of an earlier simulator must not come back
            kind=kind,
            name=offer.title or offer.file_name,
            account=account.name,
            content=offer.content,
            source=offer.source,
            size=len(offer.content),
            sha256=None if offer.source else hashlib.sha256(offer.content).hexdigest(),
            uploaded_at=self._vendor.clock(),
        )
        self.items[item.item_id] = item
        return item

    def found(self, path: str) -> Item | None:
        """The item that is served there; None if it was deleted or its time is over."""
        item = self.items.get(_id_in(path))
        if item is None or item.path != path or item.deleted:
            return None
        settings = self._vendor.settings
        lifetime_s = settings.item_lifetime_s
        expired = lifetime_s is not None and self._vendor.clock() >= item.uploaded_at + settings.seconds(lifetime_s)
        return None if expired else item

    def delete(self, account: Account, ids: Iterable[str], urls: Iterable[str]) -> int:
        """How many items of this account were deleted; what isn't there, or another's, is passed over."""
        items = map(self.items.get, {*ids, *map(_id_in, urls)})
        owned = [item for item in items if item and not item.deleted and item.account == account.name]
        for item in owned:
            item.deleted, item.content = True, b""
        if not owned:
            raise HostRefusal(NOTHING_TO_DELETE)
        return len(owned)


def offer_of(source: str, title: str) -> Offer:
    """A picture that lies elsewhere; its name is the last part of its URL."""
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise HostRefusal(BAD_SOURCE) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not source.isprintable():
        raise HostRefusal(BAD_SOURCE)
    return Offer(PurePosixPath(unquote(parts.path)).name, title, source=source)


def _id_in(url: str) -> str:
    return url.rpartition("/item/")[2].partition(".")[0]


def _kind_of_source(source: str) -> str:
    """By its name: what it really is shows only when it is fetched."""
    suffix = PurePosixPath(urlsplit(source).path).suffix.lower().removeprefix(".")
    return suffix if suffix in _MAGIC else "jpg"


def _kind_of_content(content: bytes) -> str | None:
    return next((kind for kind, magic in _MAGIC.items() if magic.match(content)), None)
