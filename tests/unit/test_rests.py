"""How long somebody rests (DESIGN rules 9 and 11)."""

from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.rests import Rest, RestRule, Subject
from tests.builders import NOON


def a_rest(until: float = NOON + 8, length_s: float = 8.0) -> Rest:
    return Rest(Subject.LANE, "1", "slot", "50430", until, length_s, 2)


def test_rests_double_up_to_the_longest() -> None:
    assert [RestRule(2, 10).length_s(before) for before in range(6)] == [2, 4, 8, 10, 10, 10]


def test_the_tries_come_first() -> None:
    rule = RestRule(10, 120, (2, 4, 8))

    assert [rule.length_s(before) for before in range(8)] == [2, 4, 8, 10, 20, 40, 80, 120]


@given(st.integers(0, 10**9))
def test_a_rest_is_never_longer_than_its_longest(before: int) -> None:
    assert RestRule(2, 10, (1, 1)).length_s(before) <= 10


def test_a_rest_ends_when_its_time_has_come() -> None:
    rest = a_rest()

    assert rest.remaining_s(NOON) == 8
    assert rest.remaining_s(NOON + 5) == 3
    assert rest.remaining_s(NOON + 8) == 0
    assert rest.remaining_s(NOON + 9999) == 0


def test_rule_11_a_rest_is_never_honoured_longer_than_its_length_from_now() -> None:
    assert a_rest().remaining_s(NOON - 3600) == 8


@given(st.floats(0, 1e10), st.floats(0, 1e10), st.floats(0, 1e4))
def test_rule_11_whatever_the_clock_says(now: float, until: float, length_s: float) -> None:
    assert 0 <= a_rest(until, length_s).remaining_s(now) <= length_s
