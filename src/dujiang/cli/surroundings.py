"""What stands in the way of waiting tasks, read for showing it."""

import time
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from dujiang.connections import endpoint_name
from dujiang.domain.reasons import Surroundings
from dujiang.engines.sql import lanes
from dujiang.engines.sql.rows import rest_of, worker_of
from dujiang.engines.sql.schema import rests, workers
from dujiang.ports import LaneUse, Worker
from dujiang.runner.admission import slots_of
from dujiang.runner.clock import clock_time, midnight_before
from dujiang.runner.progress import ALIVE_S, lane_view
from dujiang.settings import DEFAULT_ACCOUNT, Settings, parsed_limit


def surroundings(connection: sa.Connection, settings: Settings) -> Surroundings:
    """Lanes, rests and workers as they are now."""
    now = time.time()
    general = parsed_limit(settings.concurrency)
    accounts = {account.id: account for account in lanes.account_uses(connection, midnight_before(now))}
    caps = {account.name: account.daily_images for account in settings.accounts}
    views = [
        lane_view(
            use,
            slots_of(use.limit_in_force(general), use.belief),
            accounts.get(use.lane.account_id),
            caps.get(use.lane.account),
            now,
        )
        for use in _in_reach(lanes.use(connection, now), settings)
    ]
    resting = [rest_of(row) for row in connection.execute(sa.select(rests)).mappings()]
    rows = connection.execute(sa.select(workers).where(workers.c.ended_at.is_(None))).mappings()
    running = [worker for worker in (worker_of(row, now) for row in rows) if worker.silent_s < ALIVE_S]
    return Surroundings(
        views,
        resting,
        _any_alive(settings.home_folder / "workers", running),
        now,
        clock_time,
        settings.jimeng_retries,
        lanes.everything_is_paused(connection),
    )


def _in_reach(uses: Sequence[LaneUse], settings: Settings) -> Sequence[LaneUse]:
    """Lanes that the settings lead to: one of a former endpoint or account has no say in why a task waits.

    All of them where somebody looks without the keys.
    """
    try:
        endpoint = endpoint_name(settings.jimeng_endpoint)
    except ValueError:
        return uses
    names = {account.name for account in settings.accounts} or {DEFAULT_ACCOUNT}
    return [use for use in uses if use.lane.endpoint == endpoint and use.lane.account in names] or uses


def _any_alive(folder: Path, running: Sequence[Worker]) -> bool:
    if not running:
        return False
    from dujiang.runner.presence import looks_alive  # only with it come lock files, which are slow to import

    return any(looks_alive(folder, worker) for worker in running)
