"""Random events never reach an unlawful state, and no second submit happens without proof or a decision."""

from collections.abc import Sequence
from dataclasses import fields

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dujiang.domain import lifecycle as life
from dujiang.domain.errors import UnlawfulEvent
from dujiang.domain.lifecycle import (
    AT_VENDOR,
    AWAITING_DECISION,
    FINAL,
    HELD,
    TRANSITIONS,
    Event,
    State,
    heeding_cancel,
    next_state,
)
from dujiang.domain.task import SETTLED, UNSETTLED, Outcome, Settlement, Task, after, settlement
from tests.builders import EVENTS, a_task, an_attempt

# DESIGN §3, once more by hand: from, to, and what leads there.
TABLE: tuple[tuple[str, str, Sequence[type[Event]]], ...] = (
    ("queued", "preparing", [life.PreparationStarted]),
    ("queued", "cancelled", [life.Cancelled]),
    ("preparing", "ready", [life.Prepared]),
    ("preparing", "queued", [life.PutBack, life.Orphaned]),
    ("preparing", "failed", [life.Failed]),
    ("preparing", "cancelled", [life.Cancelled]),
    ("ready", "submitting", [life.Claimed]),
    ("ready", "cancelled", [life.Cancelled]),
    ("submitting", "generating", [life.Accepted]),
    ("submitting", "ready", [life.Postponed]),
    ("submitting", "preparing", [life.LinkRefused]),
    ("submitting", "blocked", [life.Blocked]),
    ("submitting", "failed", [life.Failed]),
    ("submitting", "in_doubt", [life.Unanswered, life.Orphaned]),
    ("submitting", "submitting", [life.CancelRequested]),
    ("submitting", "cancelled", [life.Cancelled]),
    ("generating", "collecting", [life.Rendered]),
    ("generating", "ready", [life.OutputRefused]),
    ("generating", "blocked", [life.Blocked]),
    ("generating", "failed", [life.Failed]),
    ("generating", "lost", [life.Vanished]),
    ("generating", "cancelled", [life.Cancelled]),
    ("generating", "generating", [life.Orphaned, life.CancelRequested]),
    ("collecting", "succeeded", [life.Saved]),
    ("collecting", "generating", [life.UrlsGone]),
    ("collecting", "lost", [life.Vanished]),
    ("collecting", "collecting", [life.Orphaned]),
    ("in_doubt", "ready", [life.ResubmitDecided]),
    ("in_doubt", "generating", [life.JobFound]),
    ("in_doubt", "failed", [life.GivenUp]),
)


def test_the_table_is_that_of_the_design() -> None:
    written = {(State(start), event): State(end) for start, end, events in TABLE for event in events}

    assert dict(TRANSITIONS) == written


def test_final_states_have_no_exits_and_are_those_of_the_design() -> None:
    assert {"succeeded", "failed", "blocked", "lost", "cancelled"} == FINAL
    assert not any(state in FINAL for state, _ in TRANSITIONS)


def test_what_else_is_derived_is_what_the_design_says() -> None:
    assert {"preparing", "submitting", "generating", "collecting"} == HELD
    assert {"in_doubt"} == AWAITING_DECISION
    assert {"submitting", "generating"} == AT_VENDOR
    assert HELD.isdisjoint(FINAL)
    assert AWAITING_DECISION.isdisjoint(FINAL | HELD)


def test_every_state_can_be_reached_and_every_event_is_used() -> None:
    reached = {State.QUEUED, State.READY} | set(TRANSITIONS.values())

    assert reached == set(State)
    assert {event for _, event in TRANSITIONS} == {type(event) for event in EVENTS}


def test_only_a_decision_leads_out_of_doubt() -> None:
    ways = {event for state, event in TRANSITIONS if state is State.IN_DOUBT}

    assert ways == {life.ResubmitDecided, life.JobFound, life.GivenUp}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_the_table_does_not_know_is_refused(state: State, event: Event) -> None:
    if (state, type(event)) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, type(event)]
        return
    with pytest.raises(UnlawfulEvent):
        next_state(state, event)
    with pytest.raises(UnlawfulEvent):
        after(a_task(state), event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_has_happened_can_not_be_changed(event: Event) -> None:
    for told in fields(event):
        with pytest.raises(AttributeError):
            setattr(event, told.name, getattr(event, told.name))


def test_a_refusal_names_the_event_and_the_state() -> None:
    with pytest.raises(UnlawfulEvent, match=r"^Saved .* queued$"):
        next_state(State.QUEUED, life.Saved())


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.SUBMITTING, life.Postponed("slot")),
        (State.SUBMITTING, life.LinkRefused()),
        (State.PREPARING, life.PutBack("network")),
        (State.PREPARING, life.Orphaned("w")),
        (State.PREPARING, life.Prepared()),
        (State.GENERATING, life.OutputRefused("50511")),
    ],
)
def test_a_task_that_would_wait_again_ends_if_its_cancel_was_asked_for(state: State, event: Event) -> None:
    assert heeding_cancel(state, event, cancel_requested=True) == life.Cancelled()
    assert heeding_cancel(state, event, cancel_requested=False) is event


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.SUBMITTING, life.Accepted("job")),
        (State.SUBMITTING, life.Unanswered("timeout")),
        (State.GENERATING, life.Rendered(())),
        (State.IN_DOUBT, life.ResubmitDecided()),
    ],
)
def test_a_wish_to_cancel_changes_nothing_that_is_paid_or_decided(state: State, event: Event) -> None:
    assert heeding_cancel(state, event, cancel_requested=True) is event


class ATasksLife(RuleBasedStateMachine):
    """One task meets events in any order, lawful or not. The vendor's side is played along: what it charged."""

    @initialize(state=st.sampled_from([State.QUEUED, State.READY]))
    def begin(self, state: State) -> None:
        self.task = a_task(state)
        self.outcomes: dict[int, Outcome] = {}
        self.charged: set[int] = set()
        self.proof_or_decision = True
        self.wants_cancel = False

    @rule(event=st.sampled_from(EVENTS))
    def anything_happens(self, event: Event) -> None:
        if isinstance(event, life.Claimed):
            return  # has a rule of its own
        if (self.task.state, type(event)) not in TRANSITIONS or self._delivered_is_refused(event):
            with pytest.raises(UnlawfulEvent):
                after(self.task, event)
            return
        self._record(event)

    def _delivered_is_refused(self, event: Event) -> bool:
        attempt = self.task.attempt
        return isinstance(event, life.OutputRefused) and attempt is not None and attempt.delivered

    @precondition(lambda self: self.task.state is State.READY)
    @rule()
    def claimed(self) -> None:
        number = len(self.outcomes) + 1
        assert self.proof_or_decision, "sent again without proof of no charge and without a decision"
        moved = after(self.task, life.Claimed(number, 3))
        self.task = Task(**{name: getattr(moved, name) for name in moved.__slots__} | {"attempt": an_attempt(number)})
        self.outcomes[number] = Outcome.OPEN
        self.proof_or_decision = False

    @rule()
    def cancel_is_asked(self) -> None:
        self.wants_cancel = self.task.state in {State.SUBMITTING, State.GENERATING}

    def _record(self, event: Event) -> None:
        before = self.task
        heeded = heeding_cancel(before.state, event, cancel_requested=self.wants_cancel)
        self.task = after(before, heeded)
        assert self.task.state is TRANSITIONS[before.state, type(heeded)]
        assert self.task.version == before.version + 1
        settled = settlement(before, event)
        self._charge(before, event)
        if settled is not None:
            self._settle(before, settled)
        if isinstance(event, life.ResubmitDecided):
            self.proof_or_decision = True

    def _charge(self, before: Task, event: Event) -> None:
        """What really happened at the vendor, as far as the event tells."""
        if before.attempt is None:
            return
        number = before.attempt.number
        doubtful = isinstance(event, life.Unanswered | life.Orphaned) and before.state is State.SUBMITTING
        if isinstance(event, life.Accepted | life.JobFound) or doubtful:
            self.charged.add(number)  # for a doubt, the dearer of the two possibilities
        not_billed = isinstance(event, life.OutputRefused | life.Blocked | life.Cancelled) or (
            isinstance(event, life.Failed) and not event.charged
        )
        if not_billed and before.state is State.GENERATING and not before.attempt.delivered:
            self.charged.discard(number)

    def _settle(self, before: Task, settled: Settlement) -> None:
        assert before.attempt is not None
        self.outcomes[before.attempt.number] = settled.outcome
        if settled.outcome in {Outcome.REFUSED, Outcome.UNCHARGED}:
            self.proof_or_decision = True

    @invariant()
    def every_charge_belongs_to_one_attempt(self) -> None:
        if not hasattr(self, "outcomes"):
            return
        settled = {number for number, outcome in self.outcomes.items() if outcome in SETTLED}
        in_doubt = {number for number, outcome in self.outcomes.items() if outcome in UNSETTLED}
        assert settled <= self.charged <= settled | in_doubt

    @invariant()
    def at_most_one_attempt_is_open(self) -> None:
        if not hasattr(self, "outcomes"):
            return
        open_ = [n for n, outcome in self.outcomes.items() if outcome in {Outcome.OPEN, Outcome.RUNNING}]
        assert len(open_) <= 1
        assert bool(open_) is (self.task.state in AT_VENDOR and not self._delivered())

    def _delivered(self) -> bool:
        return self.task.attempt is not None and self.task.attempt.delivered

    @invariant()
    def the_end_is_the_end(self) -> None:
        if not hasattr(self, "task") or not self.task.is_over:
            return
        assert not self.task.can_go_on
        for event in EVENTS:
            with pytest.raises(UnlawfulEvent):
                after(self.task, event)


TestATasksLife = ATasksLife.TestCase
TestATasksLife.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
