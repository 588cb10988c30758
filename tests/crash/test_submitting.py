"""A large batch is submitted though whoever does it is killed on the way: no row is lost, none is there twice."""

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.postgres import MakeDatabase

from .submitting import KILLS, Submitting, killed_again_and_again


@pytest.fixture
def chance() -> random.Random:
    """Another one each time; STORM_SEED repeats one."""
    seed = int(os.environ.get("STORM_SEED") or random.SystemRandom().randrange(10**6))
    print(f"STORM_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'home' / 'dujiang.db'}"
    else:
        make: MakeDatabase = request.getfixturevalue("fresh_database")
        yield make()


def test_submitting_that_is_killed_three_times_loses_no_row_and_doubles_none(
    tmp_path: Path, database_url: str, chance: random.Random
) -> None:
    with closing(Submitting(tmp_path, database_url, 20_000)) as submitting:
        kills = killed_again_and_again(submitting, 20_000, chance)

    print(kills)
    assert len(kills) == KILLS
    assert all(kill.stored < 20_000 for kill in kills)


@pytest.mark.storm
def test_submitting_a_million_rows_that_is_killed_three_times_loses_no_row_and_doubles_none(
    tmp_path: Path, database_url: str, chance: random.Random
) -> None:
    with closing(Submitting(tmp_path, database_url, 1_000_000, patience_s=600)) as submitting:
        kills = killed_again_and_again(submitting, 1_000_000, chance)

    print(kills)
    assert len(kills) == KILLS
    assert all(kill.stored < 1_000_000 for kill in kills)
