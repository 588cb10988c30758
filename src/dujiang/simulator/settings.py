"""All that can be set about the simulator: defaults, units, and how a JSON object becomes settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Self

SUBMIT_FAULTS: Final = (
    "reset_before_reading",
    "lost_answer",
    "lost_answer_hang",
    "submit_503",
    "submit_504_html",
    "submit_504_accepted",
    "garbage_body",
)
POLL_FAULTS: Final = ("poll_reset", "poll_503", "poll_slow", "poll_garbage", "poll_hang")
DOWNLOAD_FAULTS: Final = ("cut_download", "download_503", "download_reset", "download_stall")
UPLOAD_FAULTS: Final = (
    "upload_reset",
    "upload_503",
    "upload_429",
    "upload_504",
    "upload_hang",
    "upload_lost",
    "upload_garbage",
)
END_FAULTS: Final = ("closed_door",)
PROMPT_FAULTS: Final = (*SUBMIT_FAULTS, *POLL_FAULTS, *DOWNLOAD_FAULTS)
"""The ones that a job can meet, so that its prompt can ask for them."""

FAULTS: Final = (*PROMPT_FAULTS, *UPLOAD_FAULTS, *END_FAULTS)


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """How the simulated vendor and image host behave.

    Every duration is in the vendor's seconds: `time_scale` makes them shorter.
    """

    host: str = "127.0.0.1"
    """Only loopback, unless `any_host`."""

    any_host: bool = False
    """Whoever starts the simulator asked for this very address, in words; never set by a configuration file."""

    port: int = 0
    """0 picks a free one."""

    accounts: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: MappingProxyType({"AKLTsimulator": ("c2ltdWxhdG9y", "sim")})
    )
    """Access key -> (secret key, account). Keys of one account share its pools."""

    limit: int | None = None
    """Jobs at once in a pool, which is one (account, req_key). None: no limit."""

    limits: Mapping[str, int | None] = field(default_factory=lambda: MappingProxyType({}))
    """Account -> its own limit, instead of `limit`."""

    refused_accounts: Mapping[str, tuple[int, str, str]] = field(default_factory=lambda: MappingProxyType({}))
    """Account -> (HTTP status, the gateway's word, its message): what answers all that its keys sign."""

    submit_qps: float | None = None
    """Submits a second and account; None: as many as come."""

    poll_qps: float | None = None
    """Polls a second and account; None: as many as come."""

    run_median_s: float = 22.0
    """Run times are lognormal: half of the jobs are done within this."""

    run_p99_s: float = 60.0
    """99 of 100 jobs are done within this."""

    run_fixed_s: float | None = None
    """Every job takes exactly so long, instead of the two above."""

    queue_s: float = 0.5
    """Spent `in_queue` before `generating`; the run time follows. Only here can a job be cancelled."""

    slow_factor: float = 5.0
    """`[sim:slow]` multiplies the run time by this."""

    instant: bool = False
    """A job is done the moment it is accepted."""

    time_scale: float = 1.0
    """Factor on every duration of the simulator, rates and lifetimes included; never on the signature's window."""

    picture_bytes: int = 0
    """Pictures are padded to about this size; 0 leaves them as small as they are."""

    image_url_lifetime_s: float = 86_400.0
    """From the poll that handed the URL out."""

    record_lifetime_s: float = 43_200.0
    """From the submit; afterwards the job is `not_found`."""

    clock_window_s: float = 900.0
    """How far X-Date may be from the simulator's wall clock."""

    fetch_references: bool = True
    """Fetch references on loopback addresses, as the vendor fetches public ones. False: believe every link."""

    competitor_slots: int = 0
    """Slots of each pool that another program of the same customer holds (at most, if they change)."""

    competitor_change_s: float | None = None
    """None: exactly `competitor_slots`, always. Else every so many seconds a new random number up to it."""

    gateway_shaped_codes: tuple[int, ...] = ()
    """Business codes that come in the gateway's envelope, as `Error.Code` text."""

    poll_slow_s: float = 5.0
    """How late a `poll_slow` answer is."""

    closed_door_s: float = 1.5
    """For so long a `closed_door` refuses connections."""

    host_tokens: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({"superbed-simulator-token": "sim"})
    )
    """Token of the image host -> account there. Tokens of one account share its places."""

    host_parallel: int | None = 5
    """Uploads at once of an account; more are refused. None: as many as come."""

    host_max_bytes: int = 30 * 1024 * 1024
    """The largest picture that the image host takes."""

    host_down: bool = False
    """Every upload is answered with 503; what was stored can still be had."""

    upload_s: float = 0.3
    """How long an upload holds its place, from the last byte of the request."""

    item_lifetime_s: float | None = None
    """From the upload; afterwards the item is gone. None: for ever."""

    seed: int = 0
    """Of run times, numbers of images, faults and the competitor; never of task ids, which must not come back."""

    faults: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Fault -> its probability per request of its kind (see the package's docstring)."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.faults) - set(FAULTS))
        if unknown:
            raise ValueError(f"no such fault: {', '.join(unknown)}; known: {', '.join(FAULTS)}")
        for kind in (SUBMIT_FAULTS, POLL_FAULTS, DOWNLOAD_FAULTS, UPLOAD_FAULTS, END_FAULTS):
            odds = [self.faults.get(name, 0.0) for name in kind]
            if min(odds) < 0 or sum(odds) > 1:
                raise ValueError(f"probabilities of {', '.join(kind)} must be at least 0 and at most 1 together")
        for name in ("time_scale", "run_median_s", "run_p99_s", "slow_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")

    def seconds(self, vendor_s: float) -> float:
        """How long this duration of the vendor's takes here."""
        return vendor_s * self.time_scale

    def limit_of(self, account: str) -> int | None:
        """Jobs at once that this account may have in each of its pools."""
        return self.limits.get(account, self.limit)

    def changed(self, partial: Mapping[str, Any]) -> Self:
        """These settings with some replaced from JSON. ValueError says which one is wrong."""
        values: dict[str, Any] = {name: _from_json(name, value) for name, value in partial.items()}
        return replace(self, **values)

    def as_json(self) -> dict[str, Any]:
        """What `changed` takes, as plain JSON values (secrets left out)."""
        names = [f.name for f in fields(self) if f.name in _KINDS and f.name not in {"accounts", "host_tokens"}]
        plain = {name: getattr(self, name) for name in names}
        return {
            **plain,
            "accounts": {key: account for key, (_, account) in self.accounts.items()},
            "host_accounts": sorted(set(self.host_tokens.values())),
            "limits": dict(self.limits),
            "refused_accounts": {account: list(answer) for account, answer in self.refused_accounts.items()},
            "gateway_shaped_codes": list(self.gateway_shaped_codes),
            "faults": dict(self.faults),
        }


def _from_json(name: str, value: object) -> object:
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"no such setting: {name}")
    try:
        return kind(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name}: {value!r} isn't usable ({error})") from error


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number is needed")
    if value < 0:
        raise ValueError("below 0")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is needed")
    if not 0 <= value < float("inf"):
        raise ValueError("below 0 or without end")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    return value


def _or_none(kind: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else kind(value)


def _mapping(kind: Callable[[object], Any]) -> Callable[[Any], Mapping[str, Any]]:
    return lambda value: MappingProxyType({_text(key): kind(item) for key, item in value.items()})


def _secret_and_account(value: Any) -> tuple[str, str]:
    secret, account = value
    return _text(secret), _text(account)


def _answer(value: Any) -> tuple[int, str, str]:
    status, word, message = value
    if not 400 <= _whole(status) <= 599:
        raise ValueError("a refusal has an HTTP status from 400 to 599")
    return status, _text(word), _text(message)


_KINDS: Final[Mapping[str, Callable[[Any], object]]] = {
    "host": _text,
    "port": _whole,
    "accounts": _mapping(_secret_and_account),
    "limit": _or_none(_whole),
    "limits": _mapping(_or_none(_whole)),
    "refused_accounts": _mapping(_answer),
    "submit_qps": _or_none(_number),
    "poll_qps": _or_none(_number),
    "run_median_s": _number,
    "run_p99_s": _number,
    "run_fixed_s": _or_none(_number),
    "queue_s": _number,
    "slow_factor": _number,
    "instant": _flag,
    "time_scale": _number,
    "picture_bytes": _whole,
    "image_url_lifetime_s": _number,
    "record_lifetime_s": _number,
    "clock_window_s": _number,
    "fetch_references": _flag,
    "competitor_slots": _whole,
    "competitor_change_s": _or_none(_number),
    "gateway_shaped_codes": lambda value: tuple(_whole(number) for number in value),
    "poll_slow_s": _number,
    "closed_door_s": _number,
    "host_tokens": _mapping(_text),
    "host_parallel": _or_none(_whole),
    "host_max_bytes": _whole,
    "host_down": _flag,
    "upload_s": _number,
    "item_lifetime_s": _or_none(_number),
    "seed": _whole,
    "faults": _mapping(_number),
}
