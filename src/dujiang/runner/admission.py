"""Which lanes may take work of a batch, with which limit and key. The engine does the rest in one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dujiang.domain.accounts import Account, Key, Lane
from dujiang.domain.belief import CLIMBING, Belief
from dujiang.domain.errors import AccountRefused
from dujiang.domain.limits import FixedLimit, Limit, parse_limit
from dujiang.domain.requests import ModelSpec
from dujiang.domain.task import Attempt, Task
from dujiang.ports import Ahead, Engine, Offer, Turn, Worker
from dujiang.runner.lane_times import LaneTimes


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limit of a lane that nobody set one for: the account's own, or the general one."""

    general: Limit

    def of(self, account: Account) -> Limit:
        """What the settings say for this account's lanes."""
        return parse_limit(account.concurrency) if account.concurrency else self.general


def slots_of(limit: Limit, belief: Belief | None) -> int | None:
    """How many jobs the lane may hold now, as far as anybody knows; None while it looks for its limit."""
    if isinstance(limit, FixedLimit):
        return limit.slots
    return None if belief is None or belief.limit == CLIMBING else int(belief.limit)


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
        scale: float = 1.0,
        ageing_s: float = 0.0,
        day_began_at: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._models = models
        self._accounts = accounts
        self._limits = limits
        self._times = times
        self._prepare_ahead = prepare_ahead
        self._uploads_at_once = uploads_at_once
        self._scale = scale
        self._ageing_s = ageing_s
        self._day_began_at = day_began_at
        self.lanes: dict[int, tuple[Lane, Account, Limit]] = {}
        self.beliefs: dict[int, Belief] = {}
        """What lanes that find their limit believed in the last turn."""
        self.is_out_of_budget = False
        """Whether nothing but a budget stood in the way in the last turn."""

    async def open_lanes(self, set_limit: Limit | None = None) -> None:
        """Every lane of every configured account, before the first turn. `set_limit` sets them for everybody."""
        uses = await self._engine.lanes()
        known = {use.lane.id: use.limit for use in uses}
        before = {use.lane.id: use.in_force for use in uses}
        self.beliefs = {use.lane.id: use.belief for use in uses if use.belief is not None}
        for account in self._accounts:
            for model in self._models.values():
                if not account.serves(model.name):
                    continue
                lane = await self._engine.lane(self._endpoint, account, model.req_key)
                if set_limit is not None:
                    await self._engine.set_limit(lane, set_limit)
                limit = set_limit or known.get(lane.id) or self._limits.of(account)
                self.lanes[lane.id] = (lane, account, limit)
                if before.get(lane.id) not in {None, limit}:  # whoever sets another limit may have bought more
                    await self._engine.hint(lane, limit)
                await self._times.load(lane.id)

    async def reread_limits(self) -> None:
        """Somebody may have set a lane's limit for everybody, and that means us too."""
        for use in await self._engine.lanes():
            if use.limit is not None and use.lane.id in self.lanes:
                lane, account, _ = self.lanes[use.lane.id]
                self.lanes[use.lane.id] = (lane, account, use.limit)

    async def turn(self, worker: Worker, batch_id: str, jobs_left: int | None = None) -> Turn:
        """Fill every lane that has room with the batch's next tasks; `jobs_left`: with so many at most in all."""
        day_began_at = self._day_began_at()
        offers = [
            Offer(
                lane,
                limit,
                account.keys[0].fingerprint,
                at_most=self._at_once(limit),
                in_all=jobs_left,
                scale=self._scale,
                ageing_s=self._ageing_s,
                daily_images=account.daily_images,
                day_began_at=day_began_at,
            )
            for lane, account, limit in self.lanes.values()
        ]
        turn = await self._engine.claim(worker, offers, batch_id)
        self.is_out_of_budget = turn.is_out_of_budget
        return turn

    def _at_once(self, limit: Limit) -> int:
        return limit.slots if isinstance(limit, FixedLimit) else limit.high

    def slots_of(self, lane_id: int) -> int | None:
        """How many jobs the lane may hold now; None while it looks for its limit."""
        return slots_of(self.lanes[lane_id][2], self.beliefs.get(lane_id))

    def learned(self, turn: Turn) -> list[tuple[Lane, Belief]]:
        """The lanes whose limit is another than in the turn before, and what they believe now."""
        before = self.beliefs
        self.beliefs = before | dict(turn.beliefs)
        return [
            (self.lanes[lane_id][0], belief)
            for lane_id, belief in turn.beliefs.items()
            if lane_id in before and before[lane_id].limit != belief.limit
        ]

    def limit_of(self, req_keys: Collection[str]) -> int | None:
        """Jobs at once of these products, of all accounts together; None while a lane looks for its limit."""
        slots = [self.slots_of(lane.id) for lane, _, _ in self.lanes.values() if lane.req_key in req_keys]
        known = [count for count in slots if count is not None]
        return sum(known) if len(known) == len(slots) else None

    def limit_words(self, req_keys: Collection[str]) -> str:
        """The limit as it is told: a number, or how it is found."""
        limits = {str(limit) for lane, _, limit in self.lanes.values() if lane.req_key in req_keys}
        found = [words for words in sorted(limits) if not words.startswith("fixed")]
        return ", ".join(found) if found else str(self.limit_of(req_keys) or 0)

    def possible_a_minute(self, req_keys: Collection[str]) -> float | None:
        """Tasks a minute that their lanes could do: limit ÷ mean run time; None while that is not known."""
        lanes = [lane for lane, _, _ in self.lanes.values() if lane.req_key in req_keys]
        rates = [(self._times.mean_s(lane.id), self.slots_of(lane.id)) for lane in lanes]
        known = [slots / mean_s * 60 for mean_s, slots in rates if mean_s and slots]
        return sum(known) if known else None

    def ahead(self, host: str) -> Ahead:
        """How far references may be published ahead of the slots: always enough to fill every lane once more."""
        req_keys = sorted({lane.req_key for lane, _, _ in self.lanes.values()})
        widest = max((self.slots_of(lane_id) or 0 for lane_id in self.lanes), default=0)
        accounts = sorted({lane.account_id for lane, _, _ in self.lanes.values()})
        return Ahead(max(self._prepare_ahead, widest), self._uploads_at_once, req_keys, host, accounts)

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
