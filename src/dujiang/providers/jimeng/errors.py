"""What each of the vendor's codes means, and what follows: one table, read by submits, polls and cancels.

`proof`: as the answer to a submit it proves that nothing was charged, so sending again is lawful. `ends`: as the
answer to a poll it ends the job. Both columns are the vendor's facts; the two error columns are what we do about
them. A code that isn't in the table proves nothing and ends nothing: a submit is in doubt, a poll is repeated.

There is one exception (nobody knows what arrears look like here): `unlisted_refusal_of_account`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from dujiang.domain.accounts import Key
from dujiang.domain.errors import (
    AccountRefused,
    ContentBlocked,
    LaneFull,
    LinkUnreachable,
    OutputBlocked,
    ProviderError,
    RecordGone,
    RequestRefused,
    TooFast,
    Undecided,
    Unproven,
)
from dujiang.providers.jimeng.wire import SUCCESS, Answer


class Ends(StrEnum):
    """Whether a code, given as the answer to a poll, ends the job."""

    NO = "no"
    YES = "yes"
    IF_IT_STAYS = "if_it_stays"  # the same answer for 60 s and 5 polls


NO, YES, IF_IT_STAYS = Ends.NO, Ends.YES, Ends.IF_IT_STAYS
PROOF, NO_PROOF = True, False


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table."""

    number: int
    meaning: str
    proof: bool
    ends: Ends
    on_submit: type[ProviderError]
    on_look: type[ProviderError]
    why: str = ""
    """What is refused of the account, where it is (`AccountRefused.why`)."""
    name: str = ""
    """The gateway's word for it; business codes have none."""


_BUSINESS: Final = (
    # refused by moderation before anything was made
    Code(50411, "input image refused", PROOF, YES, ContentBlocked, ContentBlocked),
    Code(50412, "input text refused", PROOF, YES, ContentBlocked, ContentBlocked),
    Code(50413, "sensitive words in the input text", PROOF, YES, ContentBlocked, ContentBlocked),
    Code(50513, "input video refused", PROOF, YES, ContentBlocked, ContentBlocked),
    Code(50514, "input audio refused", PROOF, YES, ContentBlocked, ContentBlocked),
    Code(50518, "input refused for copyright", PROOF, YES, ContentBlocked, ContentBlocked),
    # what was made was refused: another try may pass
    Code(50511, "output image refused", PROOF, YES, OutputBlocked, OutputBlocked),
    Code(50519, "output refused for copyright", PROOF, YES, OutputBlocked, OutputBlocked),
    Code(50516, "output video refused", PROOF, YES, OutputBlocked, OutputBlocked),
    Code(50517, "output audio refused", PROOF, YES, OutputBlocked, OutputBlocked),
    Code(50512, "output text refused", PROOF, YES, ContentBlocked, ContentBlocked),
    # moderation itself failed; the vendor advises against sending again
    Code(50520, "the moderation service failed", PROOF, IF_IT_STAYS, RequestRefused, Undecided),
    Code(50521, "the moderation service failed", PROOF, IF_IT_STAYS, RequestRefused, Undecided),
    Code(50522, "the moderation service failed", PROOF, IF_IT_STAYS, RequestRefused, Undecided),
    # limits
    Code(50429, "too many requests a second", PROOF, NO, TooFast, TooFast),
    Code(50430, "too many jobs at once", PROOF, NO, LaneFull, LaneFull),
    # the vendor's own faults: the job may run all the same
    Code(50500, "internal error", NO_PROOF, IF_IT_STAYS, Unproven, Undecided),
    Code(50501, "internal error", NO_PROOF, IF_IT_STAYS, Unproven, Undecided),
    # the account
    Code(50400, "access denied", PROOF, NO, AccountRefused, AccountRefused, why="auth"),
    Code(50204, "the model is not enabled", PROOF, NO, AccountRefused, AccountRefused, why="model"),
    Code(30403, "the feature was not bought", PROOF, NO, AccountRefused, AccountRefused, why="model"),
    Code(30404, "the feature was not bought", PROOF, NO, AccountRefused, AccountRefused, why="model"),
    # the request
    Code(50215, "bad parameters, or an outdated job id", PROOF, YES, RequestRefused, RecordGone),
    Code(50207, "a reference can't be decoded", PROOF, YES, RequestRefused, RequestRefused),
    Code(50218, "a reference is refused as a risk", PROOF, YES, RequestRefused, RequestRefused),
    Code(50220, "a reference can't be downloaded", PROOF, YES, LinkUnreachable, LinkUnreachable),
)


def _refused(number: int, name: str, meaning: str, why: str = "auth") -> Code:
    return Code(number, meaning, PROOF, NO, AccountRefused, AccountRefused, why, name)


def _our_fault(number: int, name: str, meaning: str) -> Code:
    return Code(number, meaning, PROOF, NO, RequestRefused, Unproven, name=name)


def _their_fault(number: int, name: str, meaning: str) -> Code:
    return Code(number, meaning, NO_PROOF, NO, Unproven, Unproven, name=name)


# The gateway stands in front of the service: whatever it says, a running job goes on.
_GATEWAY: Final = (
    _refused(100009, "InvalidAccessKey", "unknown access key"),
    _refused(100010, "SignatureDoesNotMatch", "the secret does not fit the access key"),
    _refused(100006, "InvalidTimestamp", "the clock is wrong", why="clock"),
    _refused(100012, "LackPolicy", "the key lacks a policy"),
    _refused(100013, "AccessDenied", "access denied"),
    _refused(100024, "InvalidAuthorization", "invalid authorization"),
    _refused(100025, "InvalidCredential", "invalid credential"),
    _refused(100026, "InvalidSecretToken", "invalid session token"),
    _our_fault(100002, "MissingParameter", "a parameter is missing"),
    _our_fault(100008, "InvalidActionOrVersion", "unknown action or version"),
    Code(100018, "too many requests a second", PROOF, NO, TooFast, TooFast, name="FlowLimitExceeded"),
    _their_fault(100014, "InternalError", "internal error"),
    _their_fault(100015, "FailToConnect", "the service can't be reached"),
    _their_fault(100016, "InternalServiceTimeout", "the service did not answer in time"),
    _their_fault(100019, "ServiceUnavailableTemp", "the service is away for a while"),
    _their_fault(100023, "InternalServiceError", "the service failed"),
)

CODES: Final[Mapping[int, Code]] = {row.number: row for row in (*_BUSINESS, *_GATEWAY)}
"""The whole table by number."""

NAMES: Final[Mapping[str, Code]] = {row.name: row for row in _GATEWAY}
"""The gateway's part of it by name."""


def row_of(answer: Answer) -> Code | None:
    """The row that `answer` stands in, or None. If name and number point to two rows, it stands in neither."""
    by_number = CODES.get(answer.code) if answer.code is not None else None
    by_name = NAMES.get(answer.name)
    if by_number and by_name and by_number is not by_name:
        return None
    return by_number or by_name


# -- From an answer to an error ---------------------------------------------------------------------------------------


def after_submit(answer: Answer, *, key: Key, prompt: str, skew_s: float | None = None) -> ProviderError:
    """What follows from a submit that was not accepted. `skew_s`: our clock minus the vendor's, if it is known."""
    answer = replace(answer, message=shown(answer.message, key, prompt))
    row = row_of(answer) or unlisted_refusal_of_account(answer)
    return _error(row.on_submit if row else Unproven, answer, row, skew_s)


def after_look(answer: Answer, *, key: Key, skew_s: float | None = None) -> ProviderError:
    """What follows from a poll that was answered with an error."""
    answer = replace(answer, message=shown(answer.message, key))
    row = row_of(answer) or unlisted_refusal_of_account(answer)
    return _error(row.on_look if row else Unproven, answer, row, skew_s)


def after_cancel(answer: Answer, *, key: Key, skew_s: float | None = None) -> ProviderError:
    """What follows from a cancel that was not accepted: it says nothing about the job, so only `look` can end it."""
    answer = replace(answer, message=shown(answer.message, key))
    row = row_of(answer) or unlisted_refusal_of_account(answer)
    return _error(row.on_look if row and row.ends is NO else Unproven, answer, row, skew_s)


OVERDUE: Final = re.compile(
    r"overdue|arrear|unpaid|insufficient.?(balance|funds)|balance.{0,8}(not.?enough|insufficient)|欠费|余额不足|逾期",
    re.IGNORECASE,
)
OF_ACCOUNT: Final = re.compile(
    r"account|access.?key|credential|signature|unauthori[sz]ed|forbidden|denied|permission", re.IGNORECASE
)


def unlisted_refusal_of_account(answer: Answer) -> Code | None:
    """The one rule by which an answer that isn't in the table still proves that nothing was charged; else None.

    It must be a parsed error (never HTML, never 10000) of which neither name nor number is in the table, with a 4xx
    status other than 408 and 429, and one of
    - `overdue`: the status is 402, or name or message speak of arrears;
    - `auth`: the status is 401; the *name* speaks of account, key, signature or permission; or the status is 403 and
      either the gateway says it or the message speaks of those.
    """
    http, name, message = answer.http, answer.name, answer.message
    if not 400 <= http < 500 or http in {408, 429}:
        return None
    if answer.code == SUCCESS or answer.code in CODES or name in NAMES:
        return None
    if http == 402 or OVERDUE.search(name) or OVERDUE.search(message):
        return _refused(answer.code or 0, name, "the account is overdue", "overdue")
    of_account = http == 401 or OF_ACCOUNT.search(name)
    if of_account or (http == 403 and (answer.from_gateway or OF_ACCOUNT.search(message))):
        return _refused(answer.code or 0, name, "the account is refused")
    return None


def _error(kind: type[ProviderError], answer: Answer, row: Code | None, skew_s: float | None) -> ProviderError:
    message = ": ".join(part for part in (answer.name, answer.message or (row.meaning if row else "")) if part)
    if row is None:
        message = f"HTTP {answer.http}, not in the vendor's table: {message}"
    vendor_code = str(answer.code) if answer.code is not None else answer.name or None
    if not issubclass(kind, AccountRefused):
        return kind(message, vendor_code=vendor_code, request_id=answer.request_id)
    why = row.why if row else "auth"
    if why == "clock" and skew_s is not None:
        side = "ahead of" if skew_s > 0 else "behind"
        message = f"{message} (this machine's clock is {abs(skew_s):.0f} s {side} the vendor's)"
    return kind(message, why=why, vendor_code=vendor_code, request_id=answer.request_id)


LONGEST_MESSAGE: Final = 300
ECHO: Final = 12  # so many first characters of a prompt betray that the message repeats it
TELLING: Final = 3  # bytes; what is shorter is found in any text by chance


def shown(message: str, key: Key, prompt: str = "") -> str:
    """The vendor's words as they may be shown: one line, at most 300 characters, no key, nothing from a prompt on."""
    for secret in (key.secret, key.access, key.session_token or ""):
        if len(secret) >= TELLING:
            message = message.replace(secret, "***")
    start = prompt.strip()[:ECHO]
    if len(start.encode()) >= TELLING and start in message:
        message = message.partition(start)[0] + "…"
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in message[: 4 * LONGEST_MESSAGE]).split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
