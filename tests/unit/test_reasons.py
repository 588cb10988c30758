"""Why a task waits: each reason with what makes it, and which of two obstacles is told."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

import pytest

from dujiang.domain.accounts import Lane
from dujiang.domain.lifecycle import State
from dujiang.domain.reasons import BatchView, LaneView, Surroundings, Waiting, disk_reason, reason
from dujiang.domain.rests import Rest, Subject
from tests.builders import ENDPOINT, NOON


def a_view(
    account: str = "a", number: int = 1, *, req_key: str = "k", endpoint: str = ENDPOINT, **more: Any
) -> LaneView:
    """A full lane of product k; lane and account have the same number."""
    lane = Lane(number, endpoint, number, account, req_key)
    return LaneView(lane, **({"in_use": 3, "limit": 3} | more))


def a_rest(subject: Subject, key: str = "1", code: str = "slot", detail: str = "50430", **more: Any) -> Rest:
    known: dict[str, Any] = {"until": NOON + 4.2, "length_s": 60.0, "in_a_row": 1}
    return Rest(subject, key, code, detail, **(known | more))


def around(*lanes: LaneView, rests: tuple[Rest, ...] = (), **more: Any) -> Surroundings:
    known: dict[str, Any] = {"worker_runs": True, "now": NOON, "clock_time": lambda at: f"12:00:{at - NOON:02.0f}"}
    return Surroundings(lanes, rests, **(known | more))


def why(here: Surroundings, state: State = State.READY, **more: Any) -> str | None:
    return reason(Waiting(state, "k", **more), here)


ENDPOINT_AWAY: Final = a_rest(Subject.ENDPOINT, ENDPOINT, "network", "ConnectError", in_a_row=3)
ACCOUNT_REFUSED: Final = a_rest(Subject.ACCOUNT, code="account", detail="auth: SignatureDoesNotMatch")
NOT_BOUGHT: Final = a_rest(Subject.LANE, code="account", detail="model: 50204")
LANE_REFUSED: Final = a_rest(Subject.LANE)
DISK_FULL: Final = a_rest(Subject.DISK, "*", "disk", "full: no space left")
HOST_AWAY: Final = a_rest(Subject.HOST, "superbed", "host", "503")


# -- Each reason ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lane", "rest", "told"),
    [
        ({}, None, "slot(a/k, 3/3)"),
        ({"in_use": 0, "limit": 1}, None, "slot(a/k, 0/1)"),
        ({"limit": None}, None, "slot(a/k, 3/?)"),
        ({"in_use": 1, "limit": 1, "former": 3}, None, "slot(a/k, 1/1, was 3)"),
        ({"gate_s": 2.6}, None, "cooldown(50430, 3s)"),
        ({"gate_s": 2.6, "in_use": 0}, None, "cooldown(50430, 3s, others)"),
        ({"pace_s": 0.4}, None, "qps(50429)"),
        ({"stopped": "paused"}, None, "paused(account)"),
        ({"stopped": "draining"}, None, "paused(account)"),
        ({"day": (200, 200)}, None, "budget(200/200)"),
        ({}, LANE_REFUSED, "cooldown(50430, 4s)"),
        ({}, NOT_BOUGHT, "account(model)"),
        ({}, ACCOUNT_REFUSED, "account(auth)"),
        ({}, ENDPOINT_AWAY, "network(ConnectError, next 12:00:04)"),
        ({}, DISK_FULL, "disk(full)"),
    ],
)
def test_a_lane_says_what_keeps_it_from_the_task(lane: Mapping[str, Any], rest: Rest | None, told: str) -> None:
    assert why(around(a_view(**lane), rests=(rest,) if rest else ())) == told


@pytest.mark.parametrize(
    ("in_a_row", "told"),
    [
        (0, "backoff(try 1/3, 12:00:04)"),
        (2, "backoff(try 3/3, 12:00:04)"),
        (3, "network(ConnectError, next 12:00:04)"),
    ],
)
def test_the_first_rests_of_an_endpoint_are_tries(in_a_row: int, told: str) -> None:
    rest = a_rest(Subject.ENDPOINT, ENDPOINT, "network", "ConnectError", in_a_row=in_a_row)

    assert why(around(a_view(), rests=(rest,))) == told


@pytest.mark.parametrize(
    "rest",
    [ENDPOINT_AWAY, ACCOUNT_REFUSED, NOT_BOUGHT, LANE_REFUSED, DISK_FULL],
    ids=lambda rest: f"{rest.subject}-{rest.code}",
)
def test_a_rest_that_is_over_or_is_anothers_says_nothing(rest: Rest) -> None:
    over = a_rest(rest.subject, rest.key, rest.code, rest.detail, until=NOON)
    anothers = a_rest(rest.subject, "another", rest.code, rest.detail)

    assert why(around(a_view(), rests=(over,))) == "slot(a/k, 3/3)"
    assert rest is DISK_FULL or why(around(a_view(), rests=(anothers,))) == "slot(a/k, 3/3)"


def test_a_rest_after_a_clock_that_went_back_is_no_longer_than_it_was_meant() -> None:
    assert why(around(a_view(), rests=(a_rest(Subject.LANE, until=NOON + 9e9),))) == "cooldown(50430, 60s)"


@pytest.mark.parametrize(
    ("state", "more", "told"),
    [
        (State.IN_DOUBT, {}, "doubt"),
        (State.PREPARING, {}, "upload"),
        (State.PREPARING, {"published": (1, 3)}, "upload(1/3)"),
        (State.SUBMITTING, {}, None),
        (State.GENERATING, {"lane": "a/k"}, None),
        (State.COLLECTING, {}, None),
        (State.SUCCEEDED, {}, None),
        (State.FAILED, {}, None),
    ],
)
def test_a_task_that_is_not_in_line_has_its_own_reason_or_none(
    state: State, more: Mapping[str, Any], told: str | None
) -> None:
    assert why(around(a_view(), paused=True), state, **more) == told


def test_a_running_job_says_that_nobody_may_look_at_it() -> None:
    here = around(a_view(), a_view("b", 2), rests=(ACCOUNT_REFUSED,))

    assert why(here, State.GENERATING, lane="a/k") == "account(auth)"
    assert why(here, State.GENERATING, lane="b/k") is None
    assert why(here, State.GENERATING, lane="gone/k") is None


def test_without_a_lane_for_its_product_no_account_may_make_it() -> None:
    assert why(around(a_view(req_key="another"))) == "slot(none)"


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        (HOST_AWAY, "host(superbed, 503, next 12:00:04)"),
        (
            a_rest(Subject.HOST, "superbed", "host_account", "401 bad token"),
            "host(superbed, account, next 12:00:04)",
        ),
    ],
)
def test_only_a_task_whose_references_are_not_published_waits_for_the_host(rest: Rest, told: str) -> None:
    here = around(a_view(), rests=(rest,))

    assert why(here, State.QUEUED) == told
    assert why(here, State.READY) == "slot(a/k, 3/3)"


@pytest.mark.parametrize(
    ("lane", "told"),
    [
        ({"in_use": 2}, "upload(0/1)"),
        ({"in_use": 2, "limit": None}, "upload(0/1)"),
        ({"in_use": 3}, "slot(a/k, 3/3)"),
        ({"in_use": 2, "stopped": "paused"}, "paused(account)"),
        ({"in_use": 2, "day": (200, 200)}, "budget(200/200)"),
    ],
)
def test_a_queued_task_waits_for_its_upload_where_a_slot_would_be_there(lane: Mapping[str, Any], told: str) -> None:
    assert why(around(a_view(**lane)), State.QUEUED, published=(0, 1)) == told


def test_a_disk_that_refuses_keeps_paid_pictures_waiting_too() -> None:
    assert disk_reason(around(rests=(DISK_FULL,))) == "disk(full)"
    assert disk_reason(around(rests=(a_rest(Subject.DISK, "*", "disk", "full", until=NOON),))) is None
    assert disk_reason(around(a_view())) is None


# -- Budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "most", "images", "waits"),
    [(0, 2, 1, False), (1, 2, 1, False), (2, 2, 1, True), (3, 2, 1, True), (1, 2, 2, True), (0, 14, 15, True)],
)
def test_a_budget_stands_in_the_way_of_whoever_costs_more_than_is_left(
    taken: int, most: int, images: int, waits: bool
) -> None:
    told = f"budget({taken}/{most})" if waits else "slot(a/k, 3/3)"

    assert why(around(a_view()), batch=BatchView(budget=(taken, most)), images=images) == told
    assert why(around(a_view(day=(taken, most))), images=images) == told


# -- Which of two -----------------------------------------------------------------------------------------------------

Obstacle = Mapping[str, Any]
ORDER: Final[Mapping[str, Obstacle]] = {
    "paused(all)": {"paused": True},
    "paused(batch)": {"batch_paused": True},
    "budget(2/2)": {"budget": (2, 2)},
    "worker(none running)": {"worker_runs": False},
    "disk(full)": {"disk": DISK_FULL},
    "network(ConnectError, next 12:00:04)": {"endpoint": ENDPOINT_AWAY},
    "paused(account)": {"stopped": "paused"},
    "account(auth)": {"account": ACCOUNT_REFUSED},
    "budget(9/9)": {"day": (9, 9)},
    "account(model)": {"lane": NOT_BOUGHT},
    "qps(50429)": {"pace_s": 0.5},
    "cooldown(50430, 4s)": {"lane": LANE_REFUSED},
    "cooldown(50430, 3s)": {"gate_s": 3.0},
    "slot(a/k, 3/3)": {},
}
"""Obstacles of one lane, the greatest first."""


def told_of(obstacles: Obstacle) -> str | None:
    lane = {name: obstacles[name] for name in ("stopped", "day", "pace_s", "gate_s") if name in obstacles}
    rests = tuple(obstacles[name] for name in ("lane", "account", "endpoint", "disk") if name in obstacles)
    world = {name: obstacles[name] for name in ("paused", "worker_runs") if name in obstacles}
    batch = BatchView(obstacles.get("batch_paused", False), obstacles.get("budget"))
    return why(around(a_view(**lane), rests=rests, **world), batch=batch)


@pytest.mark.parametrize(("greater", "lesser"), list(combinations(ORDER, 2)), ids=lambda words: words.partition("(")[0])
def test_of_two_obstacles_on_the_same_way_the_greater_is_told(greater: str, lesser: str) -> None:
    assert told_of(ORDER[lesser]) == lesser
    assert told_of({**ORDER[lesser], **ORDER[greater]}) == greater


NEAREST_FIRST: Final[Mapping[str, Obstacle]] = {
    "slot": {},
    "cooldown": {"gate_s": 2.0},
    "paused": {"stopped": "paused"},
    "network": {"endpoint": "https://away.example"},
}
"""What may keep two lanes of one product: whoever is nearest to taking the task speaks."""


@pytest.mark.parametrize(("near", "far"), list(combinations(NEAREST_FIRST, 2)))
def test_of_two_lanes_the_one_that_is_nearest_to_taking_it_speaks(near: str, far: str) -> None:
    away = a_rest(Subject.ENDPOINT, "https://away.example", "network", "ConnectError", in_a_row=3)
    one, other = a_view("a", 1, **NEAREST_FIRST[near]), a_view("b", 2, **NEAREST_FIRST[far])

    for here in (around(one, other, rests=(away,)), around(other, one, rests=(away,))):
        assert str(why(here)).startswith(f"{near}(")


def test_a_lane_of_another_product_has_no_say() -> None:
    assert why(around(a_view(stopped="paused"), a_view("b", 2, req_key="another"))) == "paused(account)"
