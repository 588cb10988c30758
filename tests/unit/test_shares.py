"""Whose turn it is between batches that wait for one lane."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.belief import LONG_AGO
from dujiang.domain.shares import Line, shared_out

NOW = 10_000.0
MINUTES_5 = 300.0


def a_line(
    batch: str,
    *,
    priority: int = 0,
    heads: tuple[int, ...] = (0,) * 20,
    slots: int = 1,
    came_at: float = NOW,
    served_at: float = LONG_AGO,
) -> Line:
    return Line(batch, priority, heads, slots, came_at, served_at)


def shares(*lines: Line, places: int = 1, ageing_s: float = MINUTES_5) -> dict[str, int]:
    return dict(+shared_out(lines, places, NOW, ageing_s))


def test_a_batch_alone_takes_everything() -> None:
    assert shares(a_line("a"), places=7) == {"a": 7}
    assert shares(a_line("a", heads=(0, 0)), places=7) == {"a": 2}
    assert shares(places=7) == {}


def test_the_higher_priority_goes_first_as_long_as_it_has_tasks() -> None:
    low, high = a_line("low", slots=0), a_line("high", priority=1, heads=(0, 0, 0), slots=9)

    assert shares(low, high, places=2) == {"high": 2}
    assert shares(low, high, places=5) == {"high": 3, "low": 2}


def test_a_tasks_own_priority_counts_on_top_of_its_batchs() -> None:
    mixed = a_line("mixed", priority=5, heads=(10, -10))

    assert shares(mixed, a_line("plain", priority=10), places=2) == {"mixed": 1, "plain": 1}


def test_between_equals_the_batch_with_fewer_slots_goes_first_until_both_hold_as_many() -> None:
    many, few = a_line("many", slots=10), a_line("few", slots=0)

    assert shares(many, few, places=10) == {"few": 10}
    assert shares(many, few, places=14) == {"few": 12, "many": 2}


def test_on_a_lane_of_one_slot_batches_take_turns() -> None:
    one = a_line("one", slots=0, served_at=NOW - 20)
    other = a_line("other", slots=0, served_at=NOW - 40)

    assert shares(one, other) == {"other": 1}
    assert shares(one, replace(other, served_at=NOW)) == {"one": 1}


def test_who_was_never_served_goes_before_who_was() -> None:
    served = a_line("a", slots=0, came_at=NOW - 100, served_at=NOW - 100)

    assert shares(served, a_line("new", slots=0)) == {"new": 1}


def test_places_shared_out_in_one_turn_are_taken_in_turns() -> None:
    assert shares(a_line("a"), a_line("b"), a_line("c"), places=6) == {"a": 2, "b": 2, "c": 2}
    assert shares(a_line("a", slots=0), a_line("b", slots=0, heads=(0,)), places=6) == {"a": 5, "b": 1}


def test_a_batch_without_a_slot_gains_a_point_of_priority_every_so_often() -> None:
    high = a_line("high", priority=3, slots=2)
    waits = a_line("low", slots=0, came_at=NOW - 3 * MINUTES_5)

    assert shares(high, replace(waits, came_at=NOW - 3 * MINUTES_5 + 1)) == {"high": 1}
    assert shares(high, waits) == {"low": 1}
    assert shares(high, waits, ageing_s=0) == {"high": 1}
    assert shares(high, replace(waits, slots=1)) == {"high": 1}, "it is being served"
    assert shares(high, replace(waits, served_at=NOW - 1)) == {"high": 1}, "it was served a moment ago"
    assert shares(high, waits, places=3) == {"low": 1, "high": 2}, "one task is served, and it waits anew"


def test_a_clock_that_went_back_ages_nobody() -> None:
    later = a_line("later", slots=0, came_at=NOW + 10_000)

    assert later.aged(NOW, MINUTES_5) == 0
    assert shares(later, a_line("b", priority=1)) == {"b": 1}


lines_of = st.lists(
    st.builds(
        Line,
        batch=st.sampled_from("abcdef"),
        priority=st.integers(-100, 100),
        heads=st.lists(st.integers(-100, 100), max_size=8).map(lambda own: sorted(own, reverse=True)),
        slots=st.integers(0, 12),
        came_at=st.floats(0, NOW),
        served_at=st.just(LONG_AGO) | st.floats(0, NOW),
    ),
    unique_by=lambda line: line.batch,
    max_size=6,
)


@given(lines_of, st.integers(0, 12))
def test_no_place_is_left_while_somebody_waits_and_nobody_gets_more_than_it_has(lines: list[Line], places: int) -> None:
    shares = shared_out(lines, places, NOW, MINUTES_5)

    assert sum(shares.values()) == min(places, sum(len(line.heads) for line in lines))
    assert all(shares[line.batch] <= len(line.heads) for line in lines)


@pytest.mark.parametrize("priorities", [(100, 100, -100), (0, 0, 0)])
def test_nothing_starves_however_long_others_come(priorities: tuple[int, int, int]) -> None:
    """A lane of one slot, a job every 20 s, three batches that never end: each is served now and then."""
    lines = [a_line(name, priority=p, slots=0) for name, p in zip("abc", priorities, strict=True)]
    served: Counter[str] = Counter()
    for turn in range(10_000):
        now = NOW + 20.0 * turn
        (batch,) = +shared_out(lines, 1, now, MINUTES_5)
        served[batch] += 1
        lines = [replace(line, served_at=now) if line.batch == batch else line for line in lines]

    assert min(served.values()) >= 3
    if len(set(priorities)) == 1:
        assert max(served.values()) - min(served.values()) <= 1
