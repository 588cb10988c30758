"""What was seen is found again, in memory or not, and a million keys need no more memory than a few."""

import random
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from dujiang.runner.seen import Seen


@pytest.mark.parametrize("kept", [1, 7, 1000])
def test_it_knows_what_a_dict_knows(kept: int) -> None:
    chance = random.Random(kept)
    seen, known = Seen(kept), dict[str, int]()
    for number in range(500):
        key = f"编号 {chance.randrange(200)}"
        assert seen.get(key) == known.get(key)
        seen.set(key, number)
        known[key] = number

    assert {key: seen.get(key) for key in known} == known
    seen.close()
    assert seen.get(next(iter(known))) is None


def test_keys_may_be_bytes() -> None:
    seen = Seen(2)
    for number in range(5):
        seen.set(bytes([0, 255, number]), number)

    assert [seen.get(bytes([0, 255, number])) for number in range(6)] == [0, 1, 2, 3, 4, None]
    seen.close()


def test_many_keys_take_no_more_memory_than_few() -> None:
    seen = Seen(1000)
    sizes = []
    tracemalloc.start()
    for number in range(20_000):
        seen.set(f"SKU-{number:06d}", number)
        if number in {2_500, 19_500}:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    seen.close()

    assert sizes[1] < sizes[0] * 1.5


def test_a_full_folder_of_temporary_files_is_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", refuse)
    seen = Seen(1)

    with pytest.raises(OSError, match="full"):
        seen.set("a", 1)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    seen = Seen(10)
    for number in range(50_000):
        seen.set(f"{number}", number)
    seen.close()

    assert list(tmp_path.iterdir()) == []
