"""A fleet on PostgreSQL: killed, frozen, without its database, and with one lane for all."""

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.postgres import OwnServer, own_server

from .fleet import LEASE_S
from .fleet_lane import LaneFigures, share_a_lane
from .fleet_restarts import restart_again_and_again
from .fleet_storm import LEASES_FROZEN, FleetFigures, FleetWeather, blow

LONGEST_TAKEOVER_S = 1.5 * LEASE_S
LONGEST_STALL_S = 3.0  # whoever waits for a database looks every second


@pytest.fixture
def seed() -> int:
    """Another one each time; STORM_SEED repeats one."""
    seed = int(os.environ.get("STORM_SEED") or random.SystemRandom().randrange(10**6))
    print(f"STORM_SEED={seed}")
    return seed


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with closing(own_server()) as server:
        yield server


def is_kept(figures: FleetFigures) -> None:
    """What was promised of whoever is taken over."""
    print(figures.told())
    assert max(figures.took_over) <= LONGEST_TAKEOVER_S
    assert figures.from_living == []
    assert figures.frozen_s >= LEASES_FROZEN * LEASE_S
    assert figures.refused_writes > 0, "the one that came back did try"
    assert figures.late == []


def test_a_fleet_loses_nothing_and_pays_nothing_twice_in_a_short_storm(
    tmp_path: Path, server: OwnServer, seed: int
) -> None:
    figures = blow(FleetWeather(seed, kills=15, tasks=100), tmp_path, server.fresh_database())

    is_kept(figures)


@pytest.mark.storm
def test_a_fleet_loses_nothing_and_pays_nothing_twice_in_a_long_storm(
    tmp_path: Path, server: OwnServer, seed: int
) -> None:
    figures = blow(FleetWeather(seed, kills=60, tasks=300), tmp_path, server.fresh_database())

    is_kept(figures)
    assert figures.kills >= 60
    assert figures.faults["lost_answer"] > 0


def test_a_database_that_crashes_now_and_then_costs_nothing_but_time(
    tmp_path: Path, server: OwnServer, seed: int
) -> None:
    figures = restart_again_and_again(seed, tmp_path, server, tasks=40, every_s=(1.0, 3.0))

    print(figures.told())
    assert figures.charges == figures.tasks == 40
    assert len(figures.stalls_s) >= 2


@pytest.mark.storm
def test_a_database_that_crashes_every_few_seconds_costs_nothing_but_time(
    tmp_path: Path, server: OwnServer, seed: int
) -> None:
    figures = restart_again_and_again(seed, tmp_path, server, tasks=300, every_s=(5.0, 15.0))

    print(figures.told())
    assert figures.charges == figures.tasks == 300
    assert len(figures.stalls_s) >= 3
    assert max(figures.stalls_s) <= LONGEST_STALL_S


@pytest.mark.storm
def test_eight_workers_never_exceed_a_limit_of_three_and_have_equal_parts(tmp_path: Path, server: OwnServer) -> None:
    figures = share_a_lane(
        tmp_path, server.fresh_database(), {"limit": None}, machines=8, tasks=400, concurrency="fixed:3"
    )

    print(figures.told())
    assert figures.most_at_vendor <= 3
    assert figures.unevenness <= 1.5


@pytest.mark.storm
def test_a_limit_that_finds_itself_costs_a_fleet_no_more_refusals_than_one_worker(
    tmp_path: Path, server: OwnServer
) -> None:
    def found(machines: int) -> LaneFigures:
        folder, database_url = tmp_path / f"{machines}", server.fresh_database()
        figures = share_a_lane(folder, database_url, {"limit": 3}, machines=machines, tasks=200, concurrency="auto")
        print(figures.told())
        return figures

    fleet, alone = found(8), found(1)

    assert fleet.most_at_vendor <= 3
    # The limit is tried again by time, not by tasks; a handful of refusals is a matter of chance.
    assert fleet.refused <= 1.5 * alone.refused * max(1.0, fleet.duration_s / alone.duration_s) + 2
