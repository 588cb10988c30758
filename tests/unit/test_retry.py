"""Every error has one consequence, and what is not proved stays in doubt."""

import inspect
from typing import Any

import pytest

from dujiang.domain import errors, retry
from dujiang.domain.belief import Kind
from dujiang.domain.errors import ProvenUncharged, ProviderError
from dujiang.domain.lifecycle import (
    Blocked,
    Cancelled,
    Decider,
    Event,
    Failed,
    LinkRefused,
    OutputRefused,
    Postponed,
    State,
    Unanswered,
    Vanished,
    next_state,
)
from dujiang.domain.rests import RestOrder, Subject
from dujiang.domain.retry import LookHistory, RetryRules, Verdict, after_look, after_submit
from tests.builders import ENDPOINT, a_request, a_task, an_attempt

RULES = RetryRules.classic()
WITH_LINKS = a_request(references=("https://example.com/r.png",))


def submitted(error: ProviderError, **task: Any) -> Verdict:
    return after_submit(error, a_task(State.SUBMITTING, **task), RULES, slot_for_s=120.0)


def looked(error: ProviderError, **task: Any) -> Event | None:
    return after_look(error, a_task(State.GENERATING, **task))


def every(base: type[ProviderError]) -> list[type[ProviderError]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, base)]
    return sorted(found, key=lambda kind: kind.__name__)


SUBMITS: list[tuple[ProviderError, dict[str, Any], Event, tuple[Subject, str, str] | None]] = [
    (errors.LaneFull("x", vendor_code="50430"), {}, Postponed("slot", "x"), (Subject.LANE, "3", "slot")),
    (errors.TooFast("x", vendor_code="50429"), {}, Postponed("qps", "x"), None),
    (errors.AccountRefused("x"), {}, Postponed("account", "x"), (Subject.ACCOUNT, "2", "account")),
    (errors.AccountRefused("x", why="clock"), {}, Postponed("account", "x"), (Subject.ACCOUNT, "2", "account")),
    (errors.AccountRefused("x", why="overdue"), {}, Postponed("account", "x"), (Subject.ACCOUNT, "2", "account")),
    (errors.AccountRefused("x", why="model"), {}, Postponed("account", "x"), (Subject.LANE, "3", "account")),
    (
        errors.EndpointDown("x"),
        {"tries": 2},
        Postponed("network", "x", used_try=True),
        (Subject.ENDPOINT, ENDPOINT, "network"),
    ),
    (
        errors.EndpointDown("x"),
        {"tries": 3},
        Postponed("network", "x", tries_over=True),
        (Subject.ENDPOINT, ENDPOINT, "network"),
    ),
    (errors.LinkUnreachable("x"), {"request": WITH_LINKS}, LinkRefused("x"), None),
    (errors.LinkUnreachable("x"), {"request": WITH_LINKS, "link_checks": 1}, Failed("link", "x"), None),
    (errors.LinkUnreachable("x"), {}, Failed("link", "x"), None),
    (errors.RequestRefused("x", vendor_code="50207"), {}, Failed("50207", "x"), None),
    (errors.ContentBlocked("x", vendor_code="50411"), {}, Blocked("50411", "x"), None),
    (errors.OutputBlocked("x", vendor_code="50511"), {}, Postponed("50511", "x", fresh=True), None),
    (errors.OutputBlocked("x"), {"fresh_submits": 1}, Postponed("output_blocked", "x", fresh=True), None),
    (errors.OutputBlocked("x"), {"fresh_submits": 2}, Blocked("output_blocked", "x"), None),
    (errors.ProvenUncharged("x"), {}, Failed("error", "x"), None),
    (errors.Unproven("x", vendor_code="50500"), {}, Unanswered("50500", "x", 120.0), None),
    (errors.Undecided("x"), {}, Unanswered("undecided", "x", 120.0), None),
    (errors.RecordGone("x"), {}, Unanswered("record_gone", "x", 120.0), None),
    (errors.JobCancelled("x"), {}, Unanswered("cancelled", "x", 120.0), None),
    (ProviderError("x"), {}, Unanswered("error", "x", 120.0), None),
]


@pytest.mark.parametrize(("error", "task", "event", "rest"), SUBMITS, ids=lambda value: type(value).__name__)
def test_what_follows_a_submit(
    error: ProviderError, task: dict[str, Any], event: Event, rest: tuple[Subject, str, str] | None
) -> None:
    verdict = submitted(error, **task)

    assert verdict.event == event
    found = verdict.rest
    assert (found and (found.subject, found.key, found.code)) == rest
    next_state(State.SUBMITTING, verdict.event)  # lawful


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (
            errors.LaneFull("x", vendor_code="50430"),
            RestOrder(Subject.LANE, "3", "slot", "50430", RULES.lane),
        ),
        (errors.LaneFull("x"), RestOrder(Subject.LANE, "3", "slot", "", RULES.lane)),
        (
            errors.AccountRefused("not opened", why="model"),
            RestOrder(Subject.LANE, "3", "account", "model: not opened", RULES.account),
        ),
        (
            errors.AccountRefused("bad key"),
            RestOrder(Subject.ACCOUNT, "2", "account", "auth: bad key", RULES.account),
        ),
        (errors.EndpointDown("no route"), RestOrder(Subject.ENDPOINT, ENDPOINT, "network", "no route", RULES.endpoint)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whoever_rests_is_told_why_and_by_its_own_rule(error: ProviderError, rest: RestOrder) -> None:
    assert submitted(error).rest == rest


@pytest.mark.parametrize("kind", Kind)
def test_a_lane_that_finds_its_limit_itself_needs_no_rest(kind: Kind) -> None:
    verdict = submitted(errors.LaneFull("x", vendor_code="50430"), attempt=an_attempt(kind=kind))

    assert verdict == Verdict(Postponed("slot", "x"))


def test_every_error_of_a_provider_is_in_the_table() -> None:
    assert {type(error) for error, *_ in SUBMITS} == set(every(ProviderError))


@pytest.mark.parametrize("kind", every(ProviderError))
def test_rule_3_only_proof_of_no_charge_leads_back_into_the_line(kind: type[ProviderError]) -> None:
    event = submitted(kind("x"), request=WITH_LINKS).event

    assert isinstance(event, Unanswered) is not issubclass(kind, ProvenUncharged)


@pytest.mark.parametrize("kind", [kind for kind in every(ProviderError) if not issubclass(kind, ProvenUncharged)])
def test_rule_3_what_is_not_proved_is_in_doubt_and_keeps_its_slot(kind: type[ProviderError]) -> None:
    verdict = submitted(kind("x"))

    assert isinstance(verdict.event, Unanswered)
    assert verdict.event.slot_for_s == 120.0
    assert verdict.rest is None


WAITING = [errors.LaneFull, errors.TooFast, errors.AccountRefused]


@pytest.mark.parametrize("kind", WAITING)
@pytest.mark.parametrize("tries", [0, 3, 50])
def test_rule_9_a_refusal_uses_up_no_try(kind: type[ProviderError], tries: int) -> None:
    event = submitted(kind("x"), tries=tries).event

    assert isinstance(event, Postponed)
    assert not event.used_try
    assert not event.tries_over
    assert not event.fresh


@pytest.mark.parametrize("kind", [*WAITING, errors.EndpointDown])
def test_rule_9_being_refused_is_waiting_not_failing_however_often(kind: type[ProviderError]) -> None:
    task = a_task(State.SUBMITTING)
    for _ in range(100):
        event = after_submit(kind("x"), task, RULES, slot_for_s=1.0).event
        assert isinstance(event, Postponed)
        tries = 0 if event.tries_over else task.tries + event.used_try
        assert tries <= 3
        task = a_task(State.SUBMITTING, tries=tries)


def test_rule_9_the_endpoint_rests_as_its_tries_say_and_then_for_longer() -> None:
    rule = submitted(errors.EndpointDown("x")).rest
    assert rule is not None

    lengths = [rule.rule.length_s(before) for before in range(8)]

    assert lengths == [2, 4, 8, 10, 20, 40, 80, 120]


def test_rule_9_a_full_lane_waits_2_4_8_at_most_10_seconds() -> None:
    assert [RetryRules.classic().lane.length_s(before) for before in range(5)] == [2, 4, 8, 10, 10]


def test_what_nobody_has_set_is_what_users_of_this_vendor_know() -> None:
    rules = RetryRules.classic()

    assert [rules.endpoint.length_s(before) for before in range(8)] == [2, 4, 8, 10, 20, 40, 80, 120]
    assert [rules.account.length_s(before) for before in range(6)] == [30, 60, 120, 240, 480, 600]
    assert RetryRules.classic(tries=5).endpoint.tries == (2, 4, 8, 10, 10)


def test_the_scale_shortens_every_rest() -> None:
    rules = RetryRules.classic(0.1, tries=2, base_s=1, longest_s=5)

    assert [rules.endpoint.length_s(before) for before in range(4)] == pytest.approx([0.1, 0.2, 1.0, 2.0])
    assert [rules.lane.length_s(before) for before in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    assert rules.endpoint.length_s(99) == pytest.approx(12)
    assert [rules.account.length_s(before) for before in (0, 99)] == pytest.approx([3, 60])


def test_a_refused_output_is_submitted_afresh_at_most_twice_whoever_refuses() -> None:
    error = errors.OutputBlocked("x", vendor_code="50511")

    events = [looked(error, fresh_submits=fresh) for fresh in range(4)]

    assert events == [OutputRefused("50511", "x")] * 2 + [Blocked("50511", "x")] * 2
    assert submitted(error, fresh_submits=2).event == Blocked("50511", "x")


LOOKS: list[tuple[ProviderError, Event | None]] = [
    (errors.ContentBlocked("x", vendor_code="50411"), Blocked("50411", "x")),
    (errors.OutputBlocked("x", vendor_code="50511"), OutputRefused("50511", "x")),
    (errors.RequestRefused("x", vendor_code="50207"), Failed("50207", "x")),
    (errors.LinkUnreachable("x"), Failed("link", "x")),
    (errors.RecordGone("x"), Vanished("record_gone", "x")),
    (errors.JobCancelled("x"), Cancelled(Decider.VENDOR)),
    (errors.LaneFull("x"), None),
    (errors.TooFast("x"), None),
    (errors.EndpointDown("x"), None),
    (errors.AccountRefused("x"), None),
    (errors.ProvenUncharged("x"), None),
    (errors.Unproven("x"), None),
    (errors.Undecided("x"), None),
    (ProviderError("x"), None),
]


@pytest.mark.parametrize(("error", "event"), LOOKS, ids=lambda value: type(value).__name__)
def test_what_follows_a_look(error: ProviderError, event: Event | None) -> None:
    assert looked(error) == event
    if event is not None:
        next_state(State.GENERATING, event)


def test_rule_6_every_error_of_a_look_is_in_the_table() -> None:
    assert {type(error) for error, _ in LOOKS} == set(every(ProviderError))


def test_a_job_dropped_on_request_was_dropped_by_a_person() -> None:
    assert looked(errors.JobCancelled("x"), cancel_requested=True) == Cancelled(Decider.PERSON)


@pytest.mark.parametrize("error", [error for error, event in LOOKS if event is not None])
def test_rule_10_a_delivered_job_whose_addresses_can_not_be_had_again_is_lost(error: ProviderError) -> None:
    event = looked(error, attempt=an_attempt(delivered=True))

    assert isinstance(event, Vanished)
    assert event == Vanished(error.vendor_code or error.code, "x")  # what the vendor said stays readable


# -- Answers that must stay the same ----------------------------------------------------------------------------------


def gone(code: str | None = "50500", **more: Any) -> errors.Undecided:
    return errors.Undecided("x", vendor_code=code, **more)


@pytest.mark.parametrize("code", ["50500", None])
def test_an_answer_ends_a_job_after_sixty_seconds_and_five_polls(code: str | None) -> None:
    history = LookHistory()

    assert [history.ends(gone(code), 5000.0 + at) for at in (0, 15, 30, 45, 59, 60)] == [False] * 5 + [True]


def test_sixty_seconds_of_few_polls_are_not_enough() -> None:
    history = LookHistory()

    assert [history.ends(gone(), at) for at in (0, 40, 80, 120, 160)] == [False] * 4 + [True]


@pytest.mark.parametrize("code", ["50500", None])
def test_another_answer_between_starts_anew(code: str | None) -> None:
    history = LookHistory()
    for at in (0, 15, 30, 45):
        history.ends(gone(code), at)

    history.clear()

    assert [history.ends(gone(code), at) for at in (60, 75, 90, 105, 119, 120)] == [False] * 5 + [True]


def test_two_answers_in_turn_never_end_a_job() -> None:
    history = LookHistory()

    assert not any(history.ends(gone(str(50500 + number % 2)), number * 20.0) for number in range(100))


def test_an_answer_says_itself_how_long_it_must_stay_and_the_scale_shortens_it() -> None:
    history = LookHistory()

    assert [history.ends(gone(polls=2, for_s=10), at, scale=0.1) for at in (7.0, 7.5, 8.0)] == [False, False, True]


def test_the_limits_are_those_of_the_design() -> None:
    assert retry.FRESH_SUBMITS == 2
    assert retry.LINK_CHECKS == 1
