"""Which lanes may take work of a batch, with which limit and key. The engine does the rest in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dujiang.domain.accounts import Account, Key, Lane
from dujiang.domain.errors import AccountRefused
from dujiang.domain.limits import FixedLimit
from dujiang.domain.requests import ModelSpec
from dujiang.domain.task import Attempt, Task
from dujiang.ports import Ahead, Engine, Offer, Turn, Worker
from dujiang.runner.lane_times import LaneTimes


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limit of a lane that nobody set one for: the account's own, or the general one."""

    general: FixedLimit

    def of(self, account: Account) -> FixedLimit:
        """What the settings say for this account's lanes."""
        return FixedLimit.parse(account.concurrency) if account.concurrency else self.general


class Admission:
    """Makes lanes for the models that a batch needs, and claims work for them."""

    def __init__(
        self,
        engine: Engine,
        endpoint: str,
        models: Mapping[str, ModelSpec],
        accounts: Sequence[Account],
        limits: LimitSettings,
        times: LaneTimes,
        *,
        prepare_ahead: int = 32,
        uploads_at_once: int = 3,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._models = models
        self._accounts = accounts
        self._limits = limits
        self._times = times
        self._prepare_ahead = prepare_ahead
        self._uploads_at_once = uploads_at_once
        self.lanes: dict[int, tuple[Lane, Account, FixedLimit]] = {}

    async def open_lanes(self, set_limit: FixedLimit | None = None) -> None:
        """Every lane of every configured account, before the first turn. `set_limit` sets them for everybody."""
        known = {(use.lane.id): use.limit for use in await self._engine.lanes()}
        for account in self._accounts:
            for model in self._models.values():
                if not account.serves(model.name):
                    continue
                lane = await self._engine.lane(self._endpoint, account, model.req_key)
                if set_limit is not None:
                    await self._engine.set_limit(lane, set_limit)
                limit = set_limit or known.get(lane.id) or self._limits.of(account)
                self.lanes[lane.id] = (lane, account, limit)
                await self._times.load(lane.id)

    async def reread_limits(self) -> None:
        """Somebody may have set a lane's limit for everybody, and that means us too."""
        for use in await self._engine.lanes():
            if use.limit is not None and use.lane.id in self.lanes:
                lane, account, _ = self.lanes[use.lane.id]
                self.lanes[use.lane.id] = (lane, account, use.limit)

    async def turn(self, worker: Worker, batch_id: str) -> Turn:
        """Fill every lane that has room with the batch's next tasks."""
        offers = [
            Offer(lane, limit, account.keys[0].fingerprint, at_most=limit.slots)
            for lane, account, limit in self.lanes.values()
        ]
        return await self._engine.claim(worker, offers, batch_id)

    def limit_of(self, req_keys: Collection[str]) -> int:
        """Jobs at once of these products, of all accounts together."""
        return sum(limit.slots for lane, _, limit in self.lanes.values() if lane.req_key in req_keys)

    def possible_a_minute(self, req_keys: Collection[str]) -> float | None:
        """Tasks a minute that their lanes could do: limit ÷ mean run time; None while no run time is known."""
        lanes = [
            (self._times.mean_s(lane.id), limit) for lane, _, limit in self.lanes.values() if lane.req_key in req_keys
        ]
        known = [limit.slots / mean_s * 60 for mean_s, limit in lanes if mean_s]
        return sum(known) if known else None

    def ahead(self, host: str) -> Ahead:
        """How far references may be published ahead of the slots: always enough to fill every lane once more."""
        req_keys = sorted({lane.req_key for lane, _, _ in self.lanes.values()})
        widest = max((limit.slots for _, _, limit in self.lanes.values()), default=0)
        return Ahead(max(self._prepare_ahead, widest), self._uploads_at_once, req_keys, host)

    def reaches(self, attempt: Attempt) -> bool:
        """Whether its job can be looked at from here: only where, and with the account that, it was submitted."""
        accounts = {lane.account_id for lane, _, _ in self.lanes.values()}
        return attempt.endpoint == self._endpoint and attempt.account_id in accounts

    def key(self, task: Task) -> Key:
        """The key to sign with: the one that submitted, or after a rotation its account's current one.

        Raises `AccountRefused` if its account or endpoint is no longer configured.
        """
        assert task.attempt is not None
        if not self.reaches(task.attempt):
            where = f"account {task.attempt.account!r} at {task.attempt.endpoint}"
            raise AccountRefused(f"{where} is not configured", why="auth")
        account = next(a for lane, a, _ in self.lanes.values() if lane.account_id == task.attempt.account_id)
        same = (key for key in account.keys if key.fingerprint == task.attempt.key_fingerprint)
        return next(same, account.keys[0])
