"""Errors of a provider, a reference or the store, named by what happens next.

Handling one is a lookup, not a guess: `domain.retry` turns each into the event that follows. An adapter translates
every exception of its own world into one of these; nothing else leaves it.

`code` is stable (JSON, logs, exit codes). `vendor_code` is what the vendor called it, for people who ask the vendor.
"""

from typing import ClassVar


class DujiangError(Exception):
    """Something went wrong in a way that this program foresaw; `code` names the text that explains it."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str = "", *, vendor_code: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.vendor_code = vendor_code
        self.request_id = request_id


class ProviderError(DujiangError):
    """The vendor, or the way to it, did not do what was asked."""


# -- Answers to a submit that prove that nothing was charged ----------------------------------------------------------


class ProvenUncharged(ProviderError):
    """Nothing was charged, and that is proved: sending the request again is lawful."""


class LaneFull(ProvenUncharged):
    """Too many jobs at once (50430): the task was never admitted and waits for a slot."""

    code = "slot"


class TooFast(ProvenUncharged):
    """Too many requests a second (50429): the whole account pauses for a moment."""

    code = "qps"


class EndpointDown(ProvenUncharged):
    """No byte of the request reached a connection: name lookup, refused, unreachable, connect time-out, TLS, proxy."""

    code = "network"


class AccountRefused(ProvenUncharged):
    """The key, the account or its access to a model is refused: the account rests, its tasks wait.

    `why` is one of `auth`, `clock`, `overdue`, `model`.
    """

    code = "account"

    def __init__(
        self, message: str, *, why: str = "auth", vendor_code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, vendor_code=vendor_code, request_id=request_id)
        self.why = why


class LinkUnreachable(ProvenUncharged):
    """The vendor could not download a reference (50220): the link is checked and published again, once."""

    code = "link"


class RequestRefused(ProvenUncharged):
    """The request itself can never work (bad parameters, undecodable picture): the task fails."""

    code = "refused"


class ContentBlocked(ProvenUncharged):
    """Moderation refused what was asked for: the task is blocked and never sent again by itself."""

    code = "blocked"


class OutputBlocked(ProvenUncharged):
    """Moderation refused what was made: nothing is billed, and a fresh submit may pass (at most 2)."""

    code = "output_blocked"


# -- Answers that prove nothing ---------------------------------------------------------------------------------------


class Unproven(ProviderError):
    """The answer never came or says nothing about the charge: a submit is in doubt, a poll is repeated."""

    code = "doubt"


# -- What a poll can find ---------------------------------------------------------------------------------------------


class Undecided(ProviderError):
    """An answer that ends the job only if it stays the same for a while (60 s and 5 polls).

    `charged` tells which kind of failure it is then.
    """

    code = "undecided"

    def __init__(
        self,
        message: str,
        *,
        charged: bool = False,
        polls: int = 5,
        for_s: float = 60,
        vendor_code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, vendor_code=vendor_code, request_id=request_id)
        self.charged = charged
        self.polls = polls
        self.for_s = for_s


class RecordGone(ProviderError):
    """The vendor no longer knows the job (not found, expired, older than its record lives): paid, and lost."""

    code = "record_gone"


class JobCancelled(ProviderError):
    """The vendor says that the job was cancelled."""

    code = "cancelled"


# -- Collecting -------------------------------------------------------------------------------------------------------


class DownloadError(DujiangError):
    """A picture could not be brought home this time; it is fetched again, because it is paid for."""

    code = "download"


class UrlGone(DownloadError):
    """The picture's address has expired; the job's record may still have a fresh one."""

    code = "url_gone"


class StoreError(DujiangError):
    """The disk refused: full, read-only, gone. No task's fault; collecting waits and submits stop.

    `why` is one of `full`, `denied`, `gone`.
    """

    code = "disk"

    def __init__(self, message: str, *, why: str = "denied") -> None:
        super().__init__(message)
        self.why = why


# -- References -------------------------------------------------------------------------------------------------------


class HostError(DujiangError):
    """An image host did not publish a picture."""


class HostDown(HostError):
    """The host, or the way to it, does not answer: no picture's fault. It is asked again, then it rests.

    `why` is what it answered (`503`, `timeout`, …). `soon`: worth asking again within seconds.
    """

    code = "host"

    def __init__(self, message: str, *, why: str, soon: bool = False) -> None:
        super().__init__(message)
        self.why = why
        self.soon = soon


class HostRefused(HostError):
    """The host refuses the account (bad token, suspended, used up): no picture's fault, and a person has to act."""

    code = "host_account"


class PictureRefused(HostError):
    """The host refuses this very picture: asking again would not help, and a few in a row suspend the account."""

    code = "picture_refused"


class PictureUnfit(DujiangError):
    """A picture on this machine is not what it was when its row was read, or is no longer there."""

    code = "picture_unfit"


# -- The engine -------------------------------------------------------------------------------------------------------


class StaleTask(DujiangError):
    """Somebody else has changed this task since it was read: whoever holds the old copy changes nothing."""

    code = "stale"


class BatchPruned(DujiangError):
    """The batch's tasks are forgotten, so nobody can tell what of it is paid for: it is not run again."""

    code = "batch_pruned"

    def __init__(self, batch: str) -> None:
        super().__init__(batch)
        self.text_code = self.code
        self.fields = {"batch": batch}


class UnlawfulEvent(DujiangError):
    """An event that the task's state does not allow. In the product this is a bug; from a person it is refused."""

    code = "unlawful"
