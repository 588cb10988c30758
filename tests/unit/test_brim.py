"""The limit that finds itself: each rule as a table, and what holds whatever happens."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dujiang.domain.belief import CLIMBING, LONG_AGO, NEVER, TOKENS, Belief, Kind, Load, Permit, Sent
from dujiang.domain.brim import Brim

NOW = 1000.0
BRIM = Brim()
NOTICE_S = 0.65
LOTS = 1000
MIDDLE = 0.5  # the random number with which a wait has its mean length


def holding(limit: int, **told: Any) -> Belief:
    """A lane that has found its limit and runs 24 s on average."""
    usual: dict[str, Any] = {"why": "50430", "run_s": 24.0, "probe_every_s": 100.0, "probe_at": NEVER}
    return Belief(limit=limit, **usual | told)


def climbing(former: int = 0, **told: Any) -> Belief:
    return Belief(limit=CLIMBING, former=former, run_s=24.0, **told)


def asked(belief: Belief, load: Load, backlog: int = LOTS, now: float = NOW, brim: Brim = BRIM) -> Permit:
    return brim.permit(belief, load, backlog, now)[1]


def admitted(belief: Belief, kind: Kind, held: int, now: float = NOW, brim: Brim = BRIM, at: float = NOW) -> Belief:
    return brim.admitted(belief, Sent(kind, at), Load(held), now)


def refused(
    belief: Belief,
    kind: Kind,
    held: int,
    now: float = NOW,
    brim: Brim = BRIM,
    at: float | None = None,
    chance: float = MIDDLE,
) -> Belief:
    return brim.refused(belief, Sent(kind, now - 0.1 if at is None else at), Load(held), now, chance)


# -- Climbing ---------------------------------------------------------------------------------------------------------


def test_nothing_is_known_at_first() -> None:
    belief = BRIM.start()

    assert belief == Belief(limit=math.inf, why="new", run_s=20.0)
    assert belief.level == "climbing"
    assert belief.next_look_at is None


def test_the_first_submit_goes_alone() -> None:
    assert asked(BRIM.start(), Load()) == Permit(1, Kind.GROW)
    assert asked(BRIM.start(), Load(unanswered=1)) == Permit(0, why="unanswered")


@pytest.mark.parametrize(("held", "at_once"), [(0, 1), (1, 1), (9, 1), (10, 2), (19, 2), (20, 3), (100, 11)])
def test_a_first_climb_submits_a_tenth_of_what_is_held_at_once(held: int, at_once: int) -> None:
    assert asked(climbing(), Load(held)) == Permit(at_once, Kind.GROW)
    assert asked(climbing(), Load(held, unanswered=1)).count == at_once - 1
    assert asked(climbing(), Load(held, empty=1)).count == at_once


@pytest.mark.parametrize(("held", "most_empty"), [(0, 2), (1, 2), (20, 2), (29, 2), (30, 3), (100, 10)])
def test_a_climb_stops_while_many_slots_may_hold_jobs_that_nobody_knows(held: int, most_empty: int) -> None:
    """Each of them may be paid for; a vendor that answers nothing must not be sent the whole batch."""
    assert asked(climbing(), Load(held, empty=most_empty - 1)).count > 0
    assert asked(climbing(), Load(held, empty=most_empty)) == Permit(0, why="unanswered")


def test_meanwhile_the_lane_is_held_at_what_was_right_before() -> None:
    """Doubts make room at the vendor, so a probe is admitted: the lane must not run dry until they are over."""
    assert asked(climbing(former=5), Load(held=2, empty=2)) == Permit(1, Kind.ORDINARY)
    assert asked(climbing(former=5), Load(held=3, empty=2)) == Permit(0, why="unanswered")
    assert asked(climbing(former=5), Load(held=3, empty=1)).kind is Kind.GROW


def test_no_wait_is_longer_than_what_set_it_after_the_clock_went_back() -> None:
    waiting = replace(Belief(limit=3, probe_every_s=10.0, run_s=20.0), gate=1000.0, verdict_at=1000.0, probe_at=1000.0)

    belief, _ = BRIM.permit(waiting, Load(3), 9, 100.0)

    assert belief.gate <= 100.0 + 1.4 * 20.0
    assert belief.verdict_at <= 100.0 + BRIM.notice_s
    assert belief.probe_at <= 100.0 + 1.15 * 10.0


def test_after_a_verdict_the_second_look_is_soon_even_if_the_clock_goes_back() -> None:
    brim = Brim(low=4)
    probed = admitted(brim.start(), Kind.PROBE, held=5, brim=brim)
    judged, _ = brim.permit(probed, Load(4), LOTS, NOW + 1)

    assert asked(judged, Load(4), now=NOW + 1, brim=brim).again_s == pytest.approx(2 * NOTICE_S)
    assert asked(judged, Load(4), now=NOW - 60, brim=brim).again_s == pytest.approx(2 * NOTICE_S)


@pytest.mark.parametrize(
    ("former", "held", "at_once"),
    [(10, 10, 1), (10, 19, 1), (10, 20, 2), (100, 100, 1), (100, 114, 1), (100, 115, 2), (200, 217, 1), (200, 218, 2)],
)
def test_a_climb_is_slow_around_the_former_limit(former: int, held: int, at_once: int) -> None:
    # With 100 held, 1.5 ends are unseen, and 5 more than the cap may seem to be held; with 200, 3.0 and 8.
    assert asked(climbing(former), Load(held)).count == at_once


def test_no_more_than_the_backlog_is_permitted() -> None:
    assert asked(climbing(), Load(100), backlog=3).count == 3
    assert asked(climbing(), Load(100), backlog=0) == Permit(0, why="idle")
    assert asked(holding(9), Load(1), backlog=0) == Permit(0, why="idle")


@pytest.mark.parametrize("held", [1, 2, 3, 10, 50])
def test_the_first_refusal_is_the_brim(held: int) -> None:
    belief = refused(climbing(), Kind.GROW, held)

    assert belief.limit == held
    assert belief.why == "50430"
    assert belief.refusals == 0
    assert belief.gate == LONG_AGO
    assert belief.refused_at == NOW
    assert belief.tokens == TOKENS
    assert belief.probe_every_s == pytest.approx(min(900, 38 * 24 / math.sqrt(held)) / 2)
    assert belief.probe_at == NOW + belief.probe_every_s
    assert belief.next_look_at == belief.probe_at


def test_a_refusal_with_nothing_of_ours_in_the_lane_says_nothing_about_its_cap() -> None:
    belief = refused(climbing(), Kind.GROW, held=0)

    assert belief.limit == CLIMBING
    assert belief.refusals == 1
    assert belief.gate == NOW + 1
    assert asked(belief, Load(), now=NOW + 0.5) == Permit(0, why="refused", again_s=0.5)
    assert asked(belief, Load(), now=NOW + 1) == Permit(1, Kind.GROW)


def test_then_the_first_admission_lets_it_climb_on() -> None:
    belief = admitted(refused(climbing(), Kind.GROW, held=0), Kind.GROW, held=1)

    assert belief.limit == CLIMBING
    assert belief.refusals == 0
    assert asked(belief, Load(1), now=NOW + 1).count == 1


def test_later_refusals_of_a_burst_change_nothing() -> None:
    belief = refused(climbing(), Kind.GROW, held=10, at=NOW - 0.1)

    assert refused(belief, Kind.GROW, held=9, now=NOW + 0.05, at=NOW - 0.01).limit == 10
    burst = refused(belief, Kind.GROW, held=9, now=NOW + 0.05, at=NOW - 0.01)
    assert replace(burst, unpunished=belief.unpunished) == belief


def test_what_was_sent_after_a_refusal_is_no_part_of_its_burst() -> None:
    belief = refused(holding(3), Kind.ORDINARY, held=2)

    assert refused(belief, Kind.ORDINARY, held=2, at=NOW).refusals == 2


def test_later_admissions_of_a_burst_raise_the_limit() -> None:
    belief = refused(climbing(), Kind.GROW, held=10)

    raised = admitted(belief, Kind.GROW, held=11)

    assert raised.limit == 11
    assert raised.change_since(belief) == "admitted: 10 -> 11"
    assert admitted(belief, Kind.GROW, held=10).change_since(belief) is None
    assert admitted(belief, Kind.GROW, held=10).why == "50430"  # it still stands where the refusal put it


@pytest.mark.parametrize(
    ("former", "held", "limit"),
    [
        (3, 3, 3),
        (3, 2, 2),  # fewer fit than before
        (100, 100, 100),
        (100, 105, 103),  # 1.56 of the 105 have ended already
        (100, 90, 90),  # 1.34 unseen, but so many are held
    ],
)
def test_a_brim_near_the_former_limit_is_no_news(former: int, held: int, limit: int) -> None:
    belief = refused(climbing(former, probe_every_s=50.0), Kind.GROW, held)

    assert belief.limit == limit
    assert belief.probe_every_s == 80
    assert belief.tokens == TOKENS - 1


@pytest.mark.parametrize(("former", "held"), [(3, 4), (3, 6), (100, 106)])
def test_a_brim_above_the_former_limit_is_news(former: int, held: int) -> None:
    belief = refused(climbing(former, probe_every_s=50.0), Kind.GROW, held)

    assert belief.limit == held
    assert belief.probe_every_s == pytest.approx(min(900, 38 * 24 / math.sqrt(held)) / 2)
    assert belief.tokens == TOKENS


def test_without_slack_every_new_brim_is_news() -> None:
    brim = Brim(slack=False)

    assert refused(climbing(100), Kind.GROW, 101, brim=brim).limit == 101
    assert refused(climbing(100), Kind.GROW, 100, brim=brim).tokens == TOKENS - 1
    assert asked(climbing(100), Load(110), brim=brim).count == 2


# -- Holding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "permit"),
    [
        (Load(2), Permit(1, Kind.ORDINARY)),
        (Load(1), Permit(2, Kind.ORDINARY)),
        (Load(1, unanswered=1), Permit(1, Kind.ORDINARY)),
        (Load(3), Permit(0, why="full")),
        (Load(2, unanswered=1), Permit(0, why="full")),
        (Load(2, empty=1), Permit(0, why="full")),
        (Load(4), Permit(0, why="full")),
    ],
)
def test_a_lane_is_held_exactly_at_its_limit(load: Load, permit: Permit) -> None:
    assert asked(holding(3, admissions=50), load) == permit


@pytest.mark.parametrize(("admissions", "unanswered", "count"), [(0, 0, 1), (0, 1, 0), (4, 0, 5), (4, 3, 2), (4, 5, 0)])
def test_a_lane_fills_by_doubling(admissions: int, unanswered: int, count: int) -> None:
    permit = asked(holding(50, admissions=admissions), Load(10, unanswered))

    assert permit == (Permit(count, Kind.ORDINARY) if count else Permit(0, why="unanswered"))


def test_an_idle_lane_begins_with_one_whatever_it_has_learned() -> None:
    belief = holding(50, admissions=400)

    assert asked(belief, Load()).count == 1
    assert asked(belief, Load(empty=1)).count == 1
    belief = admitted(belief, Kind.ORDINARY, held=1)
    assert belief.admissions == 1
    assert asked(belief, Load(1)).count == 2
    assert admitted(belief, Kind.ORDINARY, held=2).admissions == 2


def test_an_end_is_measured() -> None:
    belief = BRIM.ended(BRIM.start(), 30.0, NOW)

    assert belief.run_s == 25.0
    assert belief.runs == 1
    assert belief.ended_at == NOW
    assert BRIM.ended(belief, 10.0, NOW).run_s == 20.0


def test_after_many_ends_each_counts_a_twentieth() -> None:
    assert BRIM.ended(holding(3, runs=18), 44.0, NOW).run_s == 25.0
    assert BRIM.ended(holding(3, runs=500), 44.0, NOW).run_s == 25.0


def test_an_end_that_nobody_measured_is_an_end() -> None:
    belief = BRIM.ended(holding(3, suspect=True), None, NOW)

    assert belief == holding(3, ended_at=NOW)


def test_jobs_that_end_at_once_dont_make_the_lane_frantic() -> None:
    belief = BRIM.start()
    for _ in range(200):
        belief = BRIM.ended(belief, 0.0, NOW)

    assert belief.run_s == 1.0


# -- Probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "load", "backlog", "permit"),
    [
        ({}, Load(3), LOTS, Permit(1, Kind.PROBE)),
        ({}, Load(2, empty=1), LOTS, Permit(1, Kind.PROBE)),
        ({}, Load(3), 2, Permit(1, Kind.PROBE)),
        ({}, Load(3), 1, Permit(0, why="full")),  # little left to do
        ({"limit": 9}, Load(9), 5, Permit(1, Kind.PROBE)),
        ({"limit": 9}, Load(9), 4, Permit(0, why="full")),
        ({"limit": 8}, Load(8), 4, Permit(1, Kind.PROBE)),
        ({}, Load(2, unanswered=1), LOTS, Permit(0, why="full")),
        ({}, Load(4), LOTS, Permit(0, why="full")),
        ({"refusals": 1}, Load(3), LOTS, Permit(0, why="full")),
        ({"tokens": 1.0}, Load(3), LOTS, Permit(1, Kind.PROBE)),
        ({"tokens": 0.75}, Load(3), LOTS, Permit(0, why="full")),
        ({"probe_at": NOW + 5}, Load(3), LOTS, Permit(0, why="full", again_s=5.0)),
        ({"probe_at": NOW + 5}, Load(2, unanswered=1), LOTS, Permit(0, why="full")),
        ({"verdict_at": NOW + 0.5}, Load(4), LOTS, Permit(0, why="full", again_s=0.5)),
        ({"verdict_at": NOW + 0.5}, Load(3), LOTS, Permit(0, why="full", again_s=0.5)),
        ({"gate": NOW + 2}, Load(3), LOTS, Permit(0, why="refused", again_s=2.0)),
    ],
)
def test_one_task_more_is_submitted_when_a_look_is_due(
    change: dict[str, float], load: Load, backlog: int, permit: Permit
) -> None:
    belief = replace(holding(3, admissions=9, probe_at=NOW), **change)  # type: ignore[arg-type]

    assert asked(belief, load, backlog) == permit


def test_without_a_budget_probes_need_no_token() -> None:
    assert asked(holding(3, probe_at=NOW, tokens=0.0), Load(3), brim=Brim(budget=False)).kind is Kind.PROBE


def test_a_refused_probe_only_makes_the_next_one_rarer() -> None:
    before = holding(3, probe_every_s=100.0, probe_at=NOW, admissions=7)

    belief = refused(before, Kind.PROBE, held=3)

    expected = replace(before, probe_every_s=160.0, probe_at=NOW + 160, tokens=TOKENS - 1, expected_at=NOW)
    assert replace(belief, unpunished=0.0) == expected


@pytest.mark.parametrize(("chance", "after_s"), [(0.0, 136.0), (0.5, 160.0), (1.0, 184.0)])
def test_probes_are_spread_at_random(chance: float, after_s: float) -> None:
    assert refused(holding(3), Kind.PROBE, held=3, chance=chance).probe_at == pytest.approx(NOW + after_s)


@pytest.mark.parametrize(
    ("limit", "run_s", "every_s", "then_s"),
    [
        (4, 24.0, 400.0, 38 * 24 / 2),
        (1, 24.0, 800.0, 900.0),
        (100, 24.0, 80.0, 91.2),
        (10_000, 24.0, 9.0, 9.6),  # 0.4 S at least
        (3, 24.0, 0.0, 1.6 * 8),  # S/3 is the first look
        (3, 25.0, 0.0, 1.6 * 25 / 3),
        (3, 3.0, 0.0, 1.6 * 2),  # 2 s at least
    ],
)
def test_probes_get_rarer_up_to_a_bound(limit: int, run_s: float, every_s: float, then_s: float) -> None:
    belief = refused(holding(limit, run_s=run_s, probe_every_s=every_s), Kind.PROBE, held=limit)

    assert belief.probe_every_s == pytest.approx(then_s)


def test_a_probe_that_is_refused_during_a_climb_is_measured_by_the_former_limit() -> None:
    assert refused(climbing(4, probe_every_s=900.0), Kind.PROBE, held=4).probe_every_s == 38 * 24 / 2
    assert refused(climbing(0, probe_every_s=900.0), Kind.PROBE, held=4).probe_every_s == 900


def test_an_admitted_probe_is_judged_a_moment_later() -> None:
    belief = admitted(holding(3, probe_at=NOW), Kind.PROBE, held=4)

    assert belief.limit == 3
    assert belief.verdict_at == NOW + NOTICE_S
    assert asked(belief, Load(4)).again_s == pytest.approx(NOTICE_S)


def test_one_more_than_the_limit_is_held_so_the_lane_climbs() -> None:
    before = admitted(holding(3, probe_at=NOW), Kind.PROBE, held=4)

    belief, permit = BRIM.permit(before, Load(4), LOTS, NOW + NOTICE_S)

    assert belief.limit == CLIMBING
    assert belief.former == 3
    assert belief.verdict_at == NEVER
    assert belief.change_since(before) == "probe: 3 -> climbing"
    assert permit == Permit(1, Kind.GROW)


def test_it_only_replaced_a_job_that_had_ended_so_it_looks_again_soon() -> None:
    before = admitted(holding(3, probe_at=NOW), Kind.PROBE, held=4)

    belief, permit = BRIM.permit(before, Load(3), LOTS, NOW + 1)

    assert belief.limit == 3
    assert belief.verdict_at == NEVER
    assert belief.probe_at == NOW + 1 + 2 * NOTICE_S
    assert permit.count == 0
    assert permit.again_s == pytest.approx(2 * NOTICE_S)


def test_admissions_before_the_verdict_dont_raise_the_limit() -> None:
    belief = admitted(holding(3, probe_at=NOW), Kind.PROBE, held=4)

    assert admitted(belief, Kind.ORDINARY, held=4).limit == 3


@pytest.mark.parametrize(("limit", "climbs"), [(18, False), (19, True), (200, True)])
def test_a_large_lane_climbs_at_once(limit: int, climbs: bool) -> None:
    belief = admitted(holding(limit), Kind.PROBE, held=limit)

    assert (belief.limit == CLIMBING) is climbs
    assert (belief.verdict_at == NEVER) is climbs
    assert belief.former == (limit if climbs else 0)


def test_without_confirmation_every_lane_climbs_at_once() -> None:
    assert admitted(holding(3), Kind.PROBE, held=3, brim=Brim(confirm=False)).limit == CLIMBING


def test_a_probe_that_is_admitted_during_a_climb_is_one_admission_more() -> None:
    assert admitted(climbing(3), Kind.PROBE, held=5) == replace(climbing(3), admissions=1)


def test_four_admissions_pay_for_a_probe() -> None:
    assert admitted(holding(3, tokens=3.0), Kind.ORDINARY, held=3).tokens == 3.25
    assert admitted(holding(3, tokens=TOKENS), Kind.ORDINARY, held=3).tokens == TOKENS
    assert refused(holding(3, tokens=0.5), Kind.PROBE, held=3).tokens == 0


def test_twenty_probes_may_be_refused_before_any_has_to_be_paid_for() -> None:
    belief, refusals = holding(3), 0
    while refusals < 99 and asked(replace(belief, probe_at=NOW), Load(3)).kind is Kind.PROBE:
        belief, refusals = refused(belief, Kind.PROBE, held=3), refusals + 1

    assert refusals == 20
    for _ in range(4):
        belief = admitted(belief, Kind.ORDINARY, held=3)
    assert asked(replace(belief, probe_at=NOW), Load(3)).kind is Kind.PROBE


def test_a_hint_looks_now_and_soon_again() -> None:
    belief = BRIM.hinted(holding(3, probe_at=NOW + 500), NOW)

    assert belief == holding(3, probe_at=NOW, probe_every_s=8.0)
    assert asked(belief, Load(3)).kind is Kind.PROBE
    assert refused(belief, Kind.PROBE, held=3).probe_at == pytest.approx(NOW + 12.8)


@pytest.mark.parametrize(
    ("idle_s", "held", "looks"), [(899, 0, False), (901, 0, True), (901, 1, False), (math.inf, 0, False)]
)
def test_a_lane_that_was_idle_for_long_looks_soon(idle_s: float, held: int, looks: bool) -> None:
    """Nobody knows what has become of the cap meanwhile; of a lane that never saw an end nothing was known before."""
    belief, _ = BRIM.permit(
        holding(3, probe_at=NOW + 400, probe_every_s=400.0, ended_at=NOW - idle_s), Load(held), 9, NOW
    )

    assert (belief.probe_at, belief.probe_every_s) == ((NOW, 8.0) if looks else (NOW + 400, 400.0))


def test_such_a_lane_is_told_once_however_often_it_is_asked() -> None:
    """Each time it is stored, and others are woken."""
    first, _ = BRIM.permit(holding(3, probe_at=NOW + 400, ended_at=NOW - 2000), Load(), 9, NOW)
    later, _ = BRIM.permit(first, Load(), 9, NOW + 60)

    assert later == first


@pytest.mark.parametrize(
    ("limit", "fell", "after_s", "shown"),
    [(1, 3, 0, 3), (3, 3, 0, 0), (CLIMBING, 3, 0, 0), (1, 0, 0, 0), (1, 3, 599, 3), (1, 3, 600, 0)],
)
def test_what_a_lane_has_fallen_from_is_told_for_thirty_run_times(
    limit: float, fell: int, after_s: float, shown: int
) -> None:
    belief = Belief(limit=limit, dropped_from=fell, dropped_at=NOW, run_s=20.0)

    assert belief.fell_from(NOW + after_s) == shown


# -- Refused within the limit -----------------------------------------------------------------------------------------


def test_the_first_refusal_of_a_small_lane_only_makes_it_wait() -> None:
    belief = refused(holding(3, admissions=40), Kind.ORDINARY, held=2)

    assert belief.limit == 3
    assert belief.refusals == 1
    assert belief.admissions == 0
    assert belief.gate == NOW + 1
    assert belief.probe_at == NEVER
    assert asked(belief, Load(2), now=NOW + 1) == Permit(1, Kind.ORDINARY)
    assert asked(belief, Load(1), now=NOW + 1) == Permit(1, Kind.ORDINARY)  # one at a time, as long as it lasts


def test_at_the_second_the_limit_falls_to_what_is_held() -> None:
    before = refused(holding(5), Kind.ORDINARY, held=4)

    belief = refused(before, Kind.ORDINARY, held=3, now=NOW + 2)

    assert belief.limit == 3
    assert belief.change_since(before) == "50430: 5 -> 3"
    assert belief.refusals == 2
    assert belief.gate == NOW + 4
    assert belief.dropped_from == 5
    assert belief.dropped_at == NOW + 2
    assert belief.probe_every_s == 8.0
    assert belief.probe_at == NOW + 10


def test_it_never_falls_below_one_nor_rises() -> None:
    assert refused(holding(3, refusals=1), Kind.ORDINARY, held=0).limit == 1
    assert refused(holding(3, refusals=1), Kind.ORDINARY, held=5).limit == 3


@pytest.mark.parametrize(("refusals", "wait_s"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 14.4), (99, 14.4)])
def test_each_refusal_doubles_the_wait(refusals: int, wait_s: float) -> None:
    assert refused(holding(3, refusals=refusals), Kind.ORDINARY, held=2).gate == pytest.approx(NOW + wait_s)


def test_with_nothing_held_it_waits_up_to_twice_as_long() -> None:
    assert refused(holding(3, refusals=99), Kind.ORDINARY, held=0).gate == pytest.approx(NOW + 28.8)


@pytest.mark.parametrize(("limit", "wait_s"), [(1, 1.0), (24, 1.0), (48, 0.5), (96, 0.25), (200, 0.25)])
def test_the_first_wait_is_the_time_between_two_ends(limit: int, wait_s: float) -> None:
    assert refused(holding(limit), Kind.ORDINARY, held=max(1, limit - 1)).gate == pytest.approx(NOW + wait_s)


def test_during_a_climb_the_former_limit_says_how_long() -> None:
    assert refused(climbing(48), Kind.GROW, held=0).gate == NOW + 0.5
    assert refused(climbing(0), Kind.GROW, held=0).gate == NOW + 1
    assert refused(replace(climbing(0), run_s=1.2), Kind.GROW, held=0).gate == NOW + 1  # as if it were one slot


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 0.9), (1.0, 1.1)])
def test_waits_are_spread_at_random(chance: float, wait_s: float) -> None:
    assert refused(holding(3), Kind.ORDINARY, held=2, chance=chance).gate == pytest.approx(NOW + wait_s)


def test_a_longer_wait_is_never_cut_short() -> None:
    assert refused(holding(3, gate=NOW + 60), Kind.ORDINARY, held=2).gate == NOW + 60


def test_an_admission_ends_the_row() -> None:
    belief = admitted(refused(holding(3), Kind.ORDINARY, held=2), Kind.ORDINARY, held=3)

    assert belief.refusals == 0
    assert belief.admissions == 1


def test_a_large_lane_falls_at_the_first_refusal() -> None:
    belief = refused(holding(100, probe_every_s=60.0), Kind.ORDINARY, held=96)

    assert belief.limit == 96
    assert belief.dropped_from == 0  # within the slack of 5: no drop
    assert belief.probe_every_s == 60
    assert belief.probe_at == NOW + 60


def test_a_fall_beyond_the_slack_is_a_drop() -> None:
    belief = refused(holding(100, probe_every_s=60.0), Kind.ORDINARY, held=94)

    assert (belief.limit, belief.dropped_from, belief.dropped_at) == (94, 100, NOW)
    assert belief.probe_every_s == 8


def test_three_refusals_in_a_row_are_a_drop_however_small() -> None:
    two = refused(holding(3, refusals=1), Kind.ORDINARY, held=3)
    three = refused(holding(3, refusals=2), Kind.ORDINARY, held=3)

    assert (two.limit, two.dropped_from, two.probe_every_s) == (3, 0, 100)
    four = refused(holding(3, refusals=3), Kind.ORDINARY, held=3)

    assert (three.limit, three.dropped_from, three.probe_every_s) == (3, 3, 8)
    assert (four.limit, four.dropped_from, four.probe_every_s) == (3, 3, 8)


@pytest.mark.parametrize(("held", "every_s"), [(0, 24.0), (1, 24.0), (2, 12.0), (3, 8.0), (4, 8.0)])
def test_after_a_drop_it_looks_at_the_time_of_the_next_end(held: int, every_s: float) -> None:
    assert refused(holding(9, refusals=1), Kind.ORDINARY, held).probe_every_s == every_s


# -- What is remembered of a drop -------------------------------------------------------------------------------------


def test_the_limit_before_the_first_of_several_drops_is_remembered() -> None:
    belief = refused(holding(6, refusals=3, dropped_from=9), Kind.ORDINARY, held=2)

    assert belief.dropped_from == 9


def test_a_lane_that_has_dropped_looks_often_for_thirty_run_times() -> None:
    def next_look_s(dropped_s_ago: float) -> float:
        return refused(holding(3, dropped_at=NOW - dropped_s_ago), Kind.PROBE, held=3).probe_every_s

    assert next_look_s(30 * 24 - 1) == 3 * 24
    assert next_look_s(30 * 24) == 160


def test_a_brim_below_the_former_level_leaves_the_looks_as_they_are() -> None:
    below = refused(climbing(3, dropped_from=9, probe_every_s=20.0), Kind.GROW, held=5)
    reached = refused(climbing(3, dropped_from=9, probe_every_s=20.0), Kind.GROW, held=9)

    assert (below.limit, below.probe_every_s, below.dropped_from) == (5, 20, 9)
    assert (reached.limit, reached.probe_every_s, reached.dropped_from) == (9, 38 * 24 / 3 / 2, 0)


def test_the_former_level_is_reached_by_admissions_too() -> None:
    assert admitted(holding(8, dropped_from=9), Kind.ORDINARY, held=9).dropped_from == 0
    assert admitted(holding(7, dropped_from=9), Kind.ORDINARY, held=8).dropped_from == 9


def test_without_memory_a_drop_is_forgotten() -> None:
    belief = refused(holding(5, refusals=1), Kind.ORDINARY, held=3, brim=Brim(memory=False))

    assert (belief.limit, belief.dropped_from, belief.dropped_at, belief.probe_every_s) == (3, 0, LONG_AGO, 8)


# -- Slots that are freed late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended_s_ago", "settle_s", "suspect"), [(0.2, 0.0, True), (0.9, 0.0, True), (1.1, 0.0, False), (1.4, 0.5, True)]
)
def test_a_refusal_just_after_an_end_may_have_met_a_settling_slot(
    ended_s_ago: float, settle_s: float, suspect: bool
) -> None:
    belief = holding(3, ended_at=NOW - ended_s_ago, settle_s=settle_s)

    assert refused(belief, Kind.ORDINARY, held=2, at=NOW).suspect is suspect


def test_admitted_at_the_second_try_it_was_one() -> None:
    belief = refused(holding(3, ended_at=NOW), Kind.ORDINARY, held=2, now=NOW + 0.1, at=NOW)

    belief = admitted(belief, Kind.ORDINARY, held=3, now=NOW + 1.3, at=NOW + 1.2)

    assert belief.settle_s == 0.3
    assert belief.settling == pytest.approx(0.6 + 0.2 * 0.4)
    assert belief.suspect is False


@pytest.mark.parametrize(
    "change",
    [
        {"suspect": False},
        {"refusals": 0},
        {"ended_at": NOW - 4},  # a slot that is freed so late can't be waited for
    ],
)
def test_otherwise_it_was_none(change: dict[str, Any]) -> None:
    belief = holding(3, **{"refusals": 1, "suspect": True, "ended_at": NOW - 3.9} | change)

    belief = admitted(belief, Kind.ORDINARY, held=3)

    assert belief.settle_s == 0
    assert belief.settling == 0.6


def test_another_end_clears_the_suspicion() -> None:
    belief = holding(3, refusals=1, suspect=True, ended_at=NOW - 1)

    assert not BRIM.ended(belief, 20.0, NOW).suspect


def test_slots_settle_three_seconds_at_most() -> None:
    belief = holding(3, refusals=1, suspect=True, ended_at=NOW - 1, settle_s=2.9)

    assert admitted(belief, Kind.ORDINARY, held=3).settle_s == 3


def test_what_isnt_needed_any_more_is_forgotten() -> None:
    belief = holding(3, settle_s=0.3)

    assert admitted(belief, Kind.ORDINARY, held=3).settle_s == pytest.approx(0.294)
    assert admitted(belief, Kind.PROBE, held=3).settle_s == 0.3
    assert admitted(holding(3, settle_s=0.004), Kind.ORDINARY, held=3).settle_s == 0


def test_a_slot_stays_empty_while_it_settles() -> None:
    assert BRIM.stays_empty_s(holding(3, settle_s=0.06)) == 0.06
    assert BRIM.stays_empty_s(holding(3, settle_s=0.05)) == 0
    assert BRIM.scaled(0.1).stays_empty_s(holding(3, settle_s=0.006)) == 0.006


def test_where_second_tries_dont_help_the_first_refusal_lowers_the_limit() -> None:
    assert refused(holding(3, settling=0.26), Kind.ORDINARY, held=2).limit == 3
    assert refused(holding(3, settling=0.25), Kind.ORDINARY, held=2).limit == 2


def test_a_second_try_that_is_refused_makes_impatient() -> None:
    belief = refused(holding(3), Kind.ORDINARY, held=2)

    assert belief.settling == 0.6
    assert refused(belief, Kind.ORDINARY, held=2, now=NOW + 2).settling == pytest.approx(0.48)
    assert refused(holding(3, refusals=2), Kind.ORDINARY, held=2).settling == 0.6


def test_without_these_refinements_nothing_is_learned() -> None:
    belief = holding(3, refusals=1, suspect=True, ended_at=NOW)

    assert admitted(belief, Kind.ORDINARY, held=3, brim=Brim(settle=False)).settle_s == 0
    assert refused(belief, Kind.ORDINARY, held=2, brim=Brim(patience=False)).settling == 0.6


# -- Vendors that punish ----------------------------------------------------------------------------------------------


def aftermath(belief: Belief, was_refused: bool, since_s: float = 3.0, brim: Brim = BRIM) -> Belief:
    """A probe is refused, and then a task that was sent `since_s` later is refused or admitted."""
    belief = refused(belief, Kind.PROBE, held=10, brim=brim)
    assert brim.pause is False or belief.expected_at == NOW
    event = refused if was_refused else admitted
    return event(replace(belief, refused_at=LONG_AGO), Kind.ORDINARY, 9, now=NOW + since_s, at=NOW + since_s, brim=brim)


def test_a_pause_is_learned_where_refusals_follow_refusals() -> None:
    belief = holding(10, punished=0.5, unpunished=0.2)

    after = aftermath(belief, was_refused=True)

    assert after.punished == pytest.approx(2 / 3)
    assert after.pause_s == 4.5
    assert after.expected_at == LONG_AGO


@pytest.mark.parametrize(
    ("change", "pause_s"),
    [
        ({"punished": 0.4}, 0.0),  # not sure enough
        ({"unpunished": 0.3}, 0.0),  # refusals are common here
        ({"pause_s": 4.0}, 6.0),  # the longer of the two counts
        ({"pause_s": 19.0}, 20.0),
    ],
)
def test_only_where_it_is_clear_and_not_for_long(change: dict[str, Any], pause_s: float) -> None:
    belief = holding(10, **{"punished": 0.5, "unpunished": 0.2} | change)

    assert aftermath(belief, was_refused=True).pause_s == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("since_s", "pause_s", "counts"), [(9.9, 0.0, True), (10.1, 0.0, False), (14.0, 10.0, True), (16.0, 10.0, False)]
)
def test_what_comes_long_after_a_refusal_is_no_aftermath(since_s: float, pause_s: float, counts: bool) -> None:
    after = aftermath(holding(10, punished=0.5, pause_s=pause_s), was_refused=True, since_s=since_s)

    assert after.punished == (pytest.approx(2 / 3) if counts else 0.5)
    assert after.expected_at == LONG_AGO


def test_an_admission_after_a_refusal_shortens_the_pause_a_little() -> None:
    after = aftermath(holding(10, punished=0.9, pause_s=5.0), was_refused=False, since_s=5.0)

    assert after.punished == pytest.approx(0.6)
    assert after.pause_s == pytest.approx(4.85)


def test_the_pause_comes_after_every_refusal() -> None:
    belief = holding(10, pause_s=5.0)

    assert refused(belief, Kind.PROBE, held=10).gate == NOW + 5
    assert refused(belief, Kind.ORDINARY, held=9).gate == NOW + 5
    assert refused(replace(belief, refusals=4), Kind.ORDINARY, held=9).gate > NOW + 5
    assert refused(climbing(pause_s=5.0), Kind.GROW, held=9).gate == NOW + 5
    assert refused(replace(belief, gate=NOW + 9), Kind.PROBE, held=10).gate == NOW + 9


def test_a_pause_longer_than_a_run_is_kept_in_full() -> None:
    belief = refused(holding(10, run_s=2.0, pause_s=5.0), Kind.PROBE, held=10)

    assert asked(belief, Load(9)) == Permit(0, why="refused", again_s=5.0)


@pytest.mark.parametrize(
    ("was_refused", "refusals", "unpunished"), [(True, 0, 0.24), (False, 0, 0.19), (True, 1, 0.2), (False, 1, 0.2)]
)
def test_other_answers_say_how_common_refusals_are(was_refused: bool, refusals: int, unpunished: float) -> None:
    belief = holding(10, unpunished=0.2, refusals=refusals, punished=0.5)

    after = (refused if was_refused else admitted)(belief, Kind.ORDINARY, 9)

    assert after.unpunished == pytest.approx(unpunished)
    assert after.punished == 0.5


def test_what_was_sent_before_the_expected_refusal_is_no_aftermath() -> None:
    belief = admitted(holding(10, expected_at=NOW, punished=0.5), Kind.ORDINARY, 9, at=NOW - 1)

    assert (belief.punished, belief.expected_at) == (0.5, NOW)
    assert admitted(belief, Kind.ORDINARY, 9, at=NOW).punished == pytest.approx(1 / 3)


def test_without_this_refinement_no_pause_is_learned() -> None:
    belief = aftermath(holding(10, punished=0.9), was_refused=True, brim=Brim(pause=False))

    assert (belief.pause_s, belief.punished, belief.unpunished) == (0, 0.9, 0)


# -- Bounds -----------------------------------------------------------------------------------------------------------


def test_a_lower_bound_is_where_it_starts_and_climbs_from() -> None:
    brim = Brim(low=4)
    belief = brim.start()

    assert belief.limit == 4
    assert asked(belief, Load(), brim=brim) == Permit(1, Kind.ORDINARY)
    assert asked(belief, Load(4), brim=brim) == Permit(1, Kind.PROBE)


def test_a_lower_bound_of_one_is_none() -> None:
    assert Brim(low=1).start().limit == CLIMBING
    assert Brim(low=2).start().limit == 2


def test_a_refusal_below_the_lower_bound_only_makes_it_wait() -> None:
    brim = Brim(low=4)

    held = refused(replace(holding(4), refusals=2), Kind.ORDINARY, held=2, brim=brim)
    brimful = refused(climbing(), Kind.GROW, held=2, brim=brim)

    assert (held.limit, held.gate) == (4, NOW + 4)
    assert (brimful.limit, brimful.gate, brimful.refusals) == (4, NOW + 1, 1)
    assert refused(climbing(), Kind.GROW, held=4, brim=brim).gate == LONG_AGO


def test_nothing_is_submitted_above_the_upper_bound() -> None:
    brim = Brim(high=8)

    assert asked(climbing(), Load(7), brim=brim) == Permit(1, Kind.GROW)
    assert asked(climbing(), Load(8), brim=brim) == Permit(0, why="full")
    assert asked(holding(8, probe_at=NOW), Load(8), brim=brim) == Permit(0, why="full")
    assert asked(holding(7, probe_at=NOW), Load(7), brim=brim) == Permit(1, Kind.PROBE)


def test_at_the_upper_bound_the_lane_holds() -> None:
    belief = admitted(climbing(), Kind.GROW, held=8, brim=Brim(high=8))

    assert (belief.limit, belief.why) == (8, "high")
    assert admitted(climbing(), Kind.GROW, held=7, brim=Brim(high=8)).limit == CLIMBING
    assert admitted(holding(5), Kind.ORDINARY, held=9, brim=Brim(high=8)).limit == 8


@pytest.mark.parametrize(("limit", "bounded"), [(2, 3), (3, 3), (5, 5), (8, 8), (20, 8), (CLIMBING, CLIMBING)])
def test_bounds_that_are_set_later_bind_what_is_believed(limit: float, bounded: float) -> None:
    belief, _ = Brim(low=3, high=8).permit(replace(holding(1), limit=limit), Load(1), LOTS, NOW)

    assert belief.limit == bounded
    assert belief.why == ("50430" if limit == bounded else "bounds")


# -- Too fast, another clock, another scale ---------------------------------------------------------------------------


def test_too_fast_says_nothing_about_the_cap() -> None:
    assert BRIM.too_fast(holding(9, admissions=40)) == holding(9, admissions=0)


def test_rule_11_a_clock_that_went_back_lengthens_no_wait() -> None:
    then = NOW + 3600
    belief = holding(
        3,
        gate=then + 10,
        refused_at=then,
        expected_at=then,
        ended_at=then,
        dropped_at=then,
        probe_at=then + 50,
        verdict_at=then + 0.5,
    )

    after, permit = BRIM.permit(belief, Load(2), LOTS, NOW)

    assert permit == Permit(1, Kind.ORDINARY)
    assert after == holding(3, probe_at=NOW + 2 * NOTICE_S)
    assert BRIM.permit(replace(belief, verdict_at=NEVER), Load(2), LOTS, NOW)[0] == holding(3, probe_at=NOW + 100)
    assert refused(after, Kind.ORDINARY, held=2).refusals == 1


@pytest.mark.parametrize("moment", ["refused_at", "expected_at", "ended_at"])
def test_any_moment_in_the_future_shows_it_but_two_workers_may_disagree_a_little(moment: str) -> None:
    far_off, little_off = (holding(3, **{"gate": NOW + 5, moment: NOW + ahead_s}) for ahead_s in (1.5, 0.5))

    assert asked(far_off, Load(2)) == Permit(1, Kind.ORDINARY)
    assert asked(little_off, Load(2)) == Permit(0, why="refused", again_s=5.0)


def test_a_rehearsal_scales_our_seconds() -> None:
    brim = BRIM.scaled(0.1)

    assert brim == Brim(scale=0.1)
    assert brim.scaled(0.1).scale == pytest.approx(0.01)
    assert brim.start().run_s == 2.0
    assert brim.notice_s == pytest.approx(0.05 + 0.15)


def test_what_is_learned_from_refusals_is_scaled_too() -> None:
    brim = BRIM.scaled(0.1)
    suspected = holding(3, refusals=1, suspect=True, ended_at=NOW - 0.39)

    assert admitted(suspected, Kind.ORDINARY, held=3, brim=brim).settle_s == pytest.approx(0.03)
    assert admitted(replace(suspected, settle_s=0.29), Kind.ORDINARY, held=3, brim=brim).settle_s == pytest.approx(0.3)
    assert admitted(replace(suspected, ended_at=NOW - 0.41), Kind.ORDINARY, held=3, brim=brim).settle_s == 0
    assert admitted(holding(3, settle_s=0.1), Kind.ORDINARY, held=3, brim=brim).settle_s == pytest.approx(0.0994)
    assert aftermath(holding(9, punished=0.5), was_refused=True, since_s=0.9, brim=brim).pause_s == pytest.approx(1.35)
    assert aftermath(holding(9, punished=0.5), was_refused=True, since_s=1.1, brim=brim).punished == 0.5
    assert aftermath(holding(9, punished=0.9, pause_s=1.9), was_refused=True, brim=brim, since_s=2.0).pause_s == 2.0


def test_waits_and_looks_are_scaled_too() -> None:
    brim = BRIM.scaled(0.1)

    assert refused(holding(200, run_s=2.4), Kind.ORDINARY, held=199, brim=brim).gate == pytest.approx(NOW + 0.025)
    assert brim.hinted(holding(3, run_s=0.3), NOW).probe_every_s == pytest.approx(0.2)
    assert refused(holding(1, probe_every_s=80.0), Kind.PROBE, held=1, brim=brim).probe_every_s == pytest.approx(90)


# -- JSON -------------------------------------------------------------------------------------------------------------

MOMENTS = st.floats(-1e9, 2e9) | st.sampled_from([LONG_AGO, NEVER])
BELIEFS = st.builds(
    Belief,
    limit=st.integers(1, 10_000) | st.just(CLIMBING),
    why=st.sampled_from(["new", "50430", "probe"]),
    refused_at=MOMENTS,
    gate=MOMENTS,
    run_s=st.floats(0.01, 1e4),
    probe_at=MOMENTS,
    verdict_at=MOMENTS,
    suspect=st.booleans(),
)


@given(BELIEFS)
def test_a_belief_comes_back_from_json(belief: Belief) -> None:
    assert Belief.from_json(json.loads(json.dumps(belief.as_json(), allow_nan=False))) == belief


def test_a_belief_of_another_version_is_read() -> None:
    assert Belief.from_json({}) == Belief()
    assert Belief.from_json({"limit": 3, "run_s": 24.0, "of_later": {"a": [1]}}) == Belief(limit=3, run_s=24.0)
    assert Belief.from_json({"limit": "inf", "gate": "-inf"}) == Belief()


def test_people_are_told_what_changed() -> None:
    assert holding(2).change_since(climbing()) == "50430: climbing -> 2"
    assert replace(holding(2), admissions=4).change_since(holding(2)) is None
    assert holding(12).level == "12"
    assert holding(2, probe_at=NOW).next_look_at == NOW


# -- Whatever happens -------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A client with any vendor: every answer, and every moment between, is drawn."""

    brim: Brim
    belief: Belief
    now: float = NOW
    held: int = 0
    empty: int = 0
    scale: float = 1.0
    """Of what the vendor takes."""

    def __post_init__(self) -> None:
        self.sent: list[Sent] = []

    @property
    def load(self) -> Load:
        return Load(self.held, len(self.sent), self.empty)

    def ask(self, backlog: int = LOTS) -> Permit:
        """Submit whatever is permitted."""
        self.belief, permit = self.brim.permit(self.belief, self.load, backlog, self.now)
        assert_lawful(self, permit, backlog)
        self.sent += [Sent(permit.kind, self.now)] * permit.count
        return permit

    def live(self, step: tuple[str, float, float]) -> None:
        """One thing happens, if it can."""
        what, after_s, chance = step
        self.now += after_s
        pick = int(chance * len(self.sent)) if chance < 1 else -1
        if what == "admitted" and self.sent:
            sent = self.sent.pop(pick)
            self.held += 1
            self.belief = self.brim.admitted(self.belief, sent, self.load, self.now)
        elif what == "refused" and self.sent:
            sent = self.sent.pop(pick)
            self.belief = self.brim.refused(self.belief, sent, self.load, self.now, chance)
        elif what == "too fast" and self.sent:
            self.sent.pop(pick)
            self.belief = self.brim.too_fast(self.belief)
        elif what == "lost" and self.sent:
            self.sent.pop(pick)
            self.empty += 1
        elif what == "ended" and self.held:
            self.held -= 1
            self.belief = self.brim.ended(self.belief, 60 * chance * self.scale, self.now)
        elif what == "settled" and self.empty:
            self.empty -= 1
        elif what == "hinted":
            self.belief = self.brim.hinted(self.belief, self.now)
        elif what == "clock back":
            self.now -= 10_000 * chance
        self.ask(backlog=int(chance * 20))


def assert_lawful(world: World, permit: Permit, backlog: int) -> None:
    belief, load = world.belief, world.load
    believed = min(belief.limit, world.brim.high)
    assert 0 <= permit.count <= backlog
    assert world.brim.low <= belief.limit
    assert belief.limit <= world.brim.high or belief.limit == CLIMBING
    if permit.count:
        assert permit.again_s is None
        assert load.slots + permit.count <= believed + (permit.kind is Kind.PROBE)
        assert load.slots + permit.count <= world.brim.high
    if permit.kind is Kind.PROBE:
        assert permit.count == 1
        assert not load.unanswered
    if permit.again_s is not None:
        assert permit.again_s > 0
    for length_s in (belief.run_s, belief.probe_every_s, belief.pause_s, belief.settle_s, belief.tokens):
        assert 0 <= length_s < math.inf


WHAT = ["admitted"] * 4 + ["refused"] * 4 + ["ended"] * 3 + ["too fast", "lost", "settled", "hinted", "clock back"]
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.floats(0, 60), st.floats(0, 1)), max_size=60)
BRIMS = st.builds(
    lambda low, more, spacing, scale: Brim(low=low, high=low + more, spacing=spacing, scale=scale),
    st.integers(1, 5),
    st.integers(0, 30),
    st.sampled_from([12.0, 38.0, 100.0]),
    st.sampled_from([0.01, 0.1, 1.0]),
)


@settings(deadline=None, max_examples=150)
@given(BRIMS, STEPS)
def test_a_lane_is_never_overfilled_and_never_dead(brim: Brim, steps: list[tuple[str, float, float]]) -> None:
    world = World(brim, brim.start())
    world.ask()
    for step in steps:
        world.live(step)

    # Everything of ours has ended: within a finite time something may be submitted again.
    world.sent, world.held, world.empty = [], 0, 0
    permit = world.ask()
    if not permit.count:
        assert permit.why == "refused"
        assert permit.again_s is not None
        assert permit.again_s <= max(1.32 * 60, 20)  # 2 · 0.6 of the longest run time, or the longest pause
        world.now += permit.again_s * (1 + 1e-9) + 1e-6
        permit = world.ask()
    assert permit.count == 1


@settings(deadline=None, max_examples=50)
@given(BRIMS, STEPS, st.integers(0, 40))
def test_asking_once_is_like_asking_one_by_one(brim: Brim, steps: list[tuple[str, float, float]], backlog: int) -> None:
    world = World(brim, brim.start())
    for step in steps:
        world.live(step)

    at_once = brim.permit(world.belief, world.load, backlog, world.now)[1]
    belief, load, one_by_one = world.belief, world.load, 0
    while one_by_one < backlog:
        belief, permit = brim.permit(belief, load, backlog - one_by_one, world.now)
        if not permit.count:
            break
        assert permit.kind is at_once.kind
        one_by_one += 1
        load = replace(load, unanswered=load.unanswered + 1)

    assert one_by_one == at_once.count


@settings(deadline=None, max_examples=50)
@given(STEPS, st.integers(2, 9))
def test_a_burst_of_refusals_counts_once(steps: list[tuple[str, float, float]], burst: int) -> None:
    world = World(BRIM, BRIM.start())
    for step in steps:
        world.live(step)
    sent = Sent(Kind.ORDINARY, world.now)

    once = BRIM.refused(world.belief, sent, Load(world.held), world.now + 0.1, MIDDLE)
    often = once
    for number in range(1, burst):
        often = BRIM.refused(often, sent, Load(world.held), world.now + 0.1 + number / 100, MIDDLE)

    assert (often.limit, often.refusals, often.gate, often.probe_at) == (
        once.limit,
        once.refusals,
        once.gate,
        once.probe_at,
    )


@settings(deadline=None, max_examples=50)
@given(STEPS)
def test_a_rehearsal_eight_times_as_fast_does_the_same(steps: list[tuple[str, float, float]]) -> None:
    """As long as the vendor is eight times as fast, too."""
    brim = Brim(answer_s=0.0)
    life = World(brim, brim.start(), now=0.0)
    brim = brim.scaled(1 / 8)  # exact in binary, so nothing is rounded
    rehearsal = World(brim, brim.start(), now=0.0, scale=1 / 8)
    for what, after_s, chance in steps:
        if what != "clock back":
            life.live((what, round(after_s), chance))
            rehearsal.live((what, round(after_s) / 8, chance))

        assert rehearsal.load == life.load
        assert rehearsal.belief.limit == life.belief.limit
        assert rehearsal.belief.gate == life.belief.gate / 8


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 2**32))
def test_a_cap_that_stays_is_found_and_held(cap: int, seed: int) -> None:
    """A vendor with a hard cap, answers in turn: after the climb the lane is full, and only probes are refused."""
    world = World(BRIM, BRIM.start())
    refusals: list[Kind] = []
    for turn in range(400):
        world.now += 1
        while world.ask().count or world.sent:
            world.now += 0.1
            for sent in [*world.sent]:
                world.sent.remove(sent)
                chance = ((seed + turn * 7919) % 1000) / 1000
                if world.held < cap:
                    world.held += 1
                    world.belief = BRIM.admitted(world.belief, sent, world.load, world.now)
                else:
                    refusals.append(sent.kind)
                    world.belief = BRIM.refused(world.belief, sent, world.load, world.now, chance)
        assert world.held == cap
        if (seed + turn) % 24 < cap:
            world.held -= 1
            world.belief = BRIM.ended(world.belief, 24.0, world.now)

    assert world.belief.limit == cap
    assert Kind.ORDINARY not in refusals
    assert refusals.count(Kind.PROBE) <= 3
