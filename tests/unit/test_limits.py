"""A fixed limit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain.limits import FixedLimit


@given(st.integers(1, 10_000))
def test_a_limit_is_written_as_it_is_read(slots: int) -> None:
    assert FixedLimit.parse(str(FixedLimit(slots))) == FixedLimit(slots)


@pytest.mark.parametrize("text", ["", "3", "fixed", "fixed:", "fixed:0", "fixed:10001", "fixed:-1", "fixed:²", "auto"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        FixedLimit.parse(text)


@given(st.integers(1, 100), st.integers(0, 200))
def test_what_is_free_and_what_is_in_use_never_exceed_the_limit(slots: int, in_use: int) -> None:
    free = FixedLimit(slots).free(in_use)

    assert free >= 0
    assert free + in_use == max(slots, in_use)
