"""What follows when a reference can't be published: only the picture's own fault is the task's."""

import pytest

from dujiang.domain import errors
from dujiang.domain.lifecycle import Event, Failed, PutBack, State, next_state
from dujiang.domain.rests import RestOrder, RestRule, Subject
from dujiang.domain.retry import UploadRules, Verdict, after_upload

RULES = UploadRules.classic()
A_DAY_S = 24 * 3600


def uploaded(error: errors.HostError | errors.PictureUnfit, refused_in_a_row: int = 0) -> Verdict:
    return after_upload(error, "superbed", RULES, refused_in_a_row)


def test_a_host_that_does_not_answer_rests_and_its_answer_is_the_reason() -> None:
    verdict = uploaded(errors.HostDown("no answer", why="503"))

    assert verdict.event == PutBack("host", "no answer")
    assert verdict.rest == RestOrder(Subject.HOST, "superbed", "host", "503", RULES.host)


def test_a_host_that_refuses_the_account_rests_for_longer() -> None:
    verdict = uploaded(errors.HostRefused("bad token"))

    assert verdict.event == PutBack("host_account", "bad token")
    assert verdict.rest == RestOrder(Subject.HOST, "superbed", "host_account", "bad token", RULES.account)


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (errors.PictureRefused("too dark"), Failed("picture_refused", "too dark")),
        (errors.PictureUnfit("no longer there"), Failed("picture_unfit", "no longer there")),
        (errors.HostError("something else"), Failed("error", "something else")),
    ],
)
def test_one_picture_that_cannot_be_published_is_its_own_tasks_fault(
    error: errors.HostError | errors.PictureUnfit, event: Event
) -> None:
    assert uploaded(error, refused_in_a_row=1) == Verdict(event)


@pytest.mark.parametrize(("refused_in_a_row", "rest_s"), [(2, 60), (3, 120), (4, A_DAY_S), (5, A_DAY_S), (99, A_DAY_S)])
def test_pictures_refused_in_a_row_make_the_host_rest_before_the_fifth_suspends_the_account(
    refused_in_a_row: int, rest_s: float
) -> None:
    verdict = uploaded(errors.PictureRefused("too dark"), refused_in_a_row)

    assert verdict.event == Failed("picture_refused", "too dark")
    told = f"{refused_in_a_row} pictures refused in a row"
    assert verdict.rest == RestOrder(Subject.HOST, "superbed", "host_refusals", told, RestRule(rest_s, rest_s))


def test_a_picture_that_is_unfit_says_nothing_about_the_host() -> None:
    assert uploaded(errors.PictureUnfit("no longer there"), refused_in_a_row=4).rest is None


@pytest.mark.parametrize(
    "error",
    [errors.HostDown("x", why="503"), errors.HostRefused("x"), errors.PictureRefused("x"), errors.PictureUnfit("x")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_happens_a_task_in_preparation_has_a_way_on(error: errors.HostError | errors.PictureUnfit) -> None:
    for refused_in_a_row in range(6):
        assert next_state(State.PREPARING, uploaded(error, refused_in_a_row).event) in {State.QUEUED, State.FAILED}


def test_one_upload_is_tried_again_after_1_2_and_4_seconds() -> None:
    assert UploadRules.classic().waits == (1, 2, 4)
    assert UploadRules.classic(tries=5).waits == (1, 2, 4, 5, 5)


def test_then_the_host_rests_10_to_120_seconds_and_30_to_600_for_its_account() -> None:
    rules = UploadRules.classic()

    assert [rules.host.length_s(before) for before in range(6)] == [10, 20, 40, 80, 120, 120]
    assert [rules.account.length_s(before) for before in range(6)] == [30, 60, 120, 240, 480, 600]


def test_the_scale_shortens_every_wait_for_the_host() -> None:
    rules = UploadRules.classic(0.1, tries=4, base_s=0.5, longest_s=3)

    assert rules.waits == pytest.approx((0.05, 0.1, 0.2, 0.3))
    assert [rules.host.length_s(before) for before in (0, 99)] == pytest.approx([1, 12])
    assert [rules.account.length_s(before) for before in (0, 99)] == pytest.approx([3, 60])
    assert rules.refusals == pytest.approx((6, 12, A_DAY_S / 10))
