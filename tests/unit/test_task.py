"""What every event leaves of a task, and what it says about the attempt's charge and slot."""

from dataclasses import replace
from typing import Any

import pytest

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import UnlawfulEvent
from dujiang.domain.lifecycle import TRANSITIONS, Decider, Event, State
from dujiang.domain.task import HELD_UNTIL_TOLD, SETTLED, UNSETTLED, Outcome, Settlement, Task, after, settlement
from tests.builders import EVENTS, a_file, a_request, a_task, an_attempt

URLS = ("https://example.com/1.png",)
FAULTY = {"error_code": "slot", "error_message": "busy"}
CLEAN: dict[str, Any] = {"error_code": None, "error_message": None}


def changes(task: Task, event: Event) -> dict[str, Any]:
    """What `event` changes beside state and version."""
    moved = after(task, event)
    names = set(task.__slots__) - {"state", "version"}
    return {name: getattr(moved, name) for name in names if getattr(moved, name) != getattr(task, name)}


CASES: list[tuple[State, dict[str, Any], Event, dict[str, Any]]] = [
    (State.QUEUED, {}, life.PreparationStarted(), {}),
    (State.PREPARING, {}, life.Prepared(URLS), {"references": URLS}),
    (State.PREPARING, {}, life.PutBack("network", "away"), {"error_code": "network", "error_message": "away"}),
    (State.PREPARING, {}, life.Orphaned("w"), {}),
    (State.PREPARING, {}, life.Failed("link", "404"), {"error_code": "link", "error_message": "404"}),
    (State.READY, {}, life.Claimed(1, 3), {}),
    (State.READY, FAULTY, life.Cancelled(), {}),
    (State.SUBMITTING, {}, life.Postponed("slot", "x"), {"error_code": "slot", "error_message": "x"}),
    (
        State.SUBMITTING,
        {"tries": 1},
        life.Postponed("network", used_try=True),
        {"tries": 2, "error_code": "network", "error_message": ""},
    ),
    (
        State.SUBMITTING,
        {"tries": 3},
        life.Postponed("network", tries_over=True),
        {"tries": 0, "error_code": "network", "error_message": ""},
    ),
    (
        State.SUBMITTING,
        {"fresh_submits": 1},
        life.Postponed("50511", fresh=True),
        {"fresh_submits": 2, "error_code": "50511", "error_message": ""},
    ),
    (
        State.SUBMITTING,
        {},
        life.LinkRefused("404"),
        {"link_checks": 1, "error_code": "link", "error_message": "404"},
    ),
    (State.SUBMITTING, {}, life.Unanswered("t", "x", 9.0), {"error_code": "t", "error_message": "x"}),
    (State.SUBMITTING, {}, life.Orphaned("w", 9.0), {"error_code": "worker_gone", "error_message": "w"}),
    (State.SUBMITTING, {}, life.Blocked("50411", "x"), {"error_code": "50411", "error_message": "x"}),
    (State.SUBMITTING, {}, life.CancelRequested(), {"cancel_requested": True}),
    (State.GENERATING, FAULTY, life.Orphaned("w", 9.0), {}),
    (
        State.GENERATING,
        {},
        life.OutputRefused("50511"),
        {"fresh_submits": 1, "error_code": "50511", "error_message": ""},
    ),
    (State.GENERATING, {}, life.Vanished("gone"), {"error_code": "gone", "error_message": ""}),
    (State.COLLECTING, {"image_urls": URLS}, life.UrlsGone(), {"image_urls": ()}),
    (State.COLLECTING, {}, life.Vanished("gone"), {"error_code": "gone", "error_message": ""}),
    (State.COLLECTING, {}, life.Orphaned("w"), {}),
    (
        State.COLLECTING,
        {"image_urls": URLS, **FAULTY},
        life.Saved((a_file(),)),
        {"image_urls": (), "files": (a_file(),), **CLEAN},
    ),
    (State.IN_DOUBT, {"cancel_requested": True}, life.ResubmitDecided(), {"cancel_requested": False}),
    (State.IN_DOUBT, {}, life.ResubmitDecided(Decider.POLICY), {"policy_resubmits": 1}),
    (State.IN_DOUBT, FAULTY, life.GivenUp(), {"error_code": "given_up"}),
]


@pytest.mark.parametrize(("state", "known", "event", "expected"), CASES)
def test_what_an_event_leaves(state: State, known: dict[str, Any], event: Event, expected: dict[str, Any]) -> None:
    assert changes(a_task(state, **known), event) == expected


@pytest.mark.parametrize(
    ("state", "event"),
    [(State.SUBMITTING, life.Accepted("job-7", "r")), (State.IN_DOUBT, life.JobFound("job-7"))],
)
def test_a_job_belongs_to_the_attempt_and_starts_the_tries_anew(state: State, event: Event) -> None:
    task = a_task(state, tries=2, **FAULTY)

    assert changes(task, event) == {"attempt": an_attempt(job_id="job-7"), "tries": 0, **CLEAN}


def test_what_is_rendered_is_delivered() -> None:
    left = changes(a_task(State.GENERATING, **FAULTY), life.Rendered(URLS, 20.0))

    assert left == {"attempt": an_attempt(delivered=True), "image_urls": URLS, **CLEAN}


def test_every_lawful_event_moves_the_state_and_the_version() -> None:
    of_type = {type(event): event for event in EVENTS}
    for (state, event_type), end in TRANSITIONS.items():
        moved = after(a_task(state, version=4), of_type[event_type])

        assert (moved.state, moved.version) == (end, 5)


def test_what_was_delivered_is_never_submitted_again_by_itself() -> None:
    task = a_task(State.GENERATING, attempt=an_attempt(delivered=True))

    with pytest.raises(UnlawfulEvent):
        after(task, life.OutputRefused("50511"))


# -- Money ------------------------------------------------------------------------------------------------------------

SETTLEMENTS: list[tuple[State, Event, Settlement | None]] = [
    (State.QUEUED, life.PreparationStarted(), None),
    (State.QUEUED, life.Cancelled(), None),
    (State.PREPARING, life.Prepared(), None),
    (State.PREPARING, life.PutBack("network"), None),
    (State.PREPARING, life.Orphaned("w", 9.0), None),
    (State.PREPARING, life.Failed("link"), None),
    (State.PREPARING, life.Cancelled(), None),
    (State.READY, life.Claimed(1, 3), None),
    (State.READY, life.Cancelled(), None),
    (State.SUBMITTING, life.Accepted("job"), Settlement(Outcome.RUNNING, HELD_UNTIL_TOLD)),
    (State.SUBMITTING, life.Postponed("slot"), Settlement(Outcome.REFUSED, 0.0)),
    (State.SUBMITTING, life.LinkRefused(), Settlement(Outcome.REFUSED, 0.0)),
    (State.SUBMITTING, life.Blocked("50411"), Settlement(Outcome.REFUSED, 0.0)),
    (State.SUBMITTING, life.Failed("50207"), Settlement(Outcome.REFUSED, 0.0)),
    (State.SUBMITTING, life.Cancelled(), Settlement(Outcome.REFUSED, 0.0)),
    (State.SUBMITTING, life.CancelRequested(), None),
    (State.SUBMITTING, life.Unanswered("timeout", slot_for_s=120.0), Settlement(Outcome.IN_DOUBT, 120.0)),
    (State.SUBMITTING, life.Orphaned("w", 180.0), Settlement(Outcome.IN_DOUBT, 180.0)),
    (State.GENERATING, life.Rendered(URLS), Settlement(Outcome.DONE, 0.0)),
    (State.GENERATING, life.OutputRefused("50511"), Settlement(Outcome.UNCHARGED, 0.0)),
    (State.GENERATING, life.Blocked("50411"), Settlement(Outcome.UNCHARGED, 0.0)),
    (State.GENERATING, life.Failed("50500"), Settlement(Outcome.UNCHARGED, 0.0)),
    (State.GENERATING, life.Failed("empty", charged=True), Settlement(Outcome.CHARGED, 0.0)),
    (State.GENERATING, life.Vanished("gone"), Settlement(Outcome.LOST, 0.0)),
    (State.GENERATING, life.Cancelled(), Settlement(Outcome.CANCELLED, 0.0)),
    (State.GENERATING, life.CancelRequested(), None),
    (State.GENERATING, life.Orphaned("w", 9.0), None),
    (State.COLLECTING, life.Saved(), None),
    (State.COLLECTING, life.UrlsGone(), None),
    (State.COLLECTING, life.Orphaned("w", 9.0), None),
    (State.COLLECTING, life.Vanished("gone"), Settlement(Outcome.LOST, 0.0)),
    (State.IN_DOUBT, life.JobFound("job"), Settlement(Outcome.RUNNING, HELD_UNTIL_TOLD)),
    (State.IN_DOUBT, life.ResubmitDecided(), None),
    (State.IN_DOUBT, life.GivenUp(), None),
]


@pytest.mark.parametrize(("state", "event", "expected"), SETTLEMENTS)
def test_what_an_event_says_about_the_charge(state: State, event: Event, expected: Settlement | None) -> None:
    assert settlement(a_task(state), event) == expected


def test_every_way_of_the_table_has_a_word_about_money() -> None:
    assert {(state, type(event)) for state, event, _ in SETTLEMENTS} == set(TRANSITIONS)


def test_rule_4_a_decision_about_a_task_never_ends_its_attempts_slot() -> None:
    for event in (life.ResubmitDecided(), life.ResubmitDecided(Decider.POLICY), life.GivenUp()):
        assert settlement(a_task(State.IN_DOUBT), event) is None


@pytest.mark.parametrize(
    "event", [life.OutputRefused("50511"), life.Blocked("50411"), life.Failed("50500"), life.Cancelled()]
)
def test_rule_10_what_was_delivered_stays_charged_whatever_is_said_later(event: Event) -> None:
    task = a_task(State.GENERATING, attempt=an_attempt(delivered=True))

    assert settlement(task, event) == Settlement(Outcome.LOST, 0.0)


def test_rule_10_settled_and_unsettled_are_different_things() -> None:
    assert SETTLED.isdisjoint(UNSETTLED)
    assert set(Outcome) - SETTLED - UNSETTLED == {Outcome.REFUSED, Outcome.UNCHARGED, Outcome.CANCELLED}


# -- What a task says of itself ---------------------------------------------------------------------------------------


def test_final_waiting_and_doubtful_tasks_leave_the_loop() -> None:
    going_on = {state for state in State if a_task(state).can_go_on}

    assert going_on == {State.PREPARING, State.SUBMITTING, State.GENERATING, State.COLLECTING}
    assert going_on == {state for state in State if a_task(state).is_held}


def test_a_task_is_frozen() -> None:
    with pytest.raises(AttributeError):
        a_task().state = State.FAILED  # type: ignore[misc]


def test_a_request_that_says_the_same_is_the_same() -> None:
    assert replace(a_task(), request=a_request("x")) == replace(a_task(), request=a_request("x"))
