"""Who pays: an account, its keys, and how a key is recognised without being shown."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Key:
    """An access key and its secret. Neither is ever printed."""

    access: str = field(repr=False)
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """Names the key in the database, logs and errors without telling it (96 bits of SHA-256)."""
        return fingerprint_of(self.access)


def fingerprint_of(secret: str) -> str:
    """The first 96 bits of its SHA-256: tells two secrets apart, and neither to anybody."""
    return hashlib.sha256(secret.encode()).hexdigest()[:24]


def foreign_sign(word: str) -> int | None:
    """Place, from 1, of the first sign that stands in no key: a blank, a control character, anything but ASCII."""
    return next((place for place, sign in enumerate(word, start=1) if not "!" <= sign <= "~"), None)


@dataclass(frozen=True, slots=True)
class Account:
    """A paying customer at the vendor. Its keys share one quota; the first is used for new work."""

    name: str
    keys: tuple[Key, ...]
    models: tuple[str, ...] = ()
    """Models that it may use; empty means all."""
    concurrency: str | None = None
    """The account's own limit (`fixed:3`); None means the general setting."""
    daily_images: int | None = None
    """Images that it may bring a day; None: no cap."""

    def serves(self, model: str) -> bool:
        """Whether this account may be asked for `model`."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class Lane:
    """What shares one concurrency limit at the vendor: an endpoint, an account and a product."""

    id: int
    endpoint: str
    account_id: int
    account: str
    req_key: str

    @property
    def name(self) -> str:
        """As shown."""
        return lane_name(self.account, self.req_key)


def lane_name(account: str, req_key: str) -> str:
    """Of a lane, as shown: account/product."""
    return f"{account}/{req_key}"


def shared_keys(accounts: Sequence[Account]) -> list[tuple[str, str]]:
    """Pairs of names that claim one access key: two entries with one key are an error, not two quotas."""
    owner: dict[str, int] = {}
    clashes: list[tuple[str, str]] = []
    for entry, account in enumerate(accounts):  # by place: two entries may have one name, too
        for key in account.keys:
            first = owner.setdefault(key.fingerprint, entry)
            if first != entry:
                clashes.append((accounts[first].name, account.name))
    return clashes
