"""The vendor's codes, written out once more as spec/jimeng.md §4 gives them, against the table that is used."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.domain import errors as ours
from dujiang.domain.accounts import Key
from dujiang.providers.jimeng.errors import CODES, NAMES, after_cancel, after_look, after_submit, row_of, shown
from dujiang.providers.jimeng.wire import Answer, read_answer

KEY = Key("AKLTexampleaccesskey", "c2VjcmV0LWV4YW1wbGU=", "STS-token-example")
PROMPT = "一只在月光下弹钢琴的猫，水彩"

# (HTTP status, codes, proof, ends, error of a submit, error of a poll)
SPEC: list[tuple[int, tuple[int, ...], bool, str, type[ours.ProviderError], type[ours.ProviderError]]] = [
    (400, (50411, 50412, 50413, 50513, 50514, 50518), True, "yes", ours.ContentBlocked, ours.ContentBlocked),
    (400, (50511, 50519, 50516, 50517), True, "yes", ours.OutputBlocked, ours.OutputBlocked),
    (400, (50512,), True, "yes", ours.ContentBlocked, ours.ContentBlocked),
    (400, (50520, 50521, 50522), True, "if_it_stays", ours.RequestRefused, ours.Undecided),
    (429, (50429,), True, "no", ours.TooFast, ours.TooFast),
    (429, (50430,), True, "no", ours.LaneFull, ours.LaneFull),
    (500, (50500, 50501), False, "if_it_stays", ours.Unproven, ours.Undecided),
    (401, (50400,), True, "no", ours.AccountRefused, ours.AccountRefused),
    (400, (50215,), True, "yes", ours.RequestRefused, ours.RecordGone),
    (400, (50204, 30403, 30404), True, "no", ours.AccountRefused, ours.AccountRefused),
    (400, (50207, 50218), True, "yes", ours.RequestRefused, ours.RequestRefused),
    (400, (50220,), True, "yes", ours.LinkUnreachable, ours.LinkUnreachable),
]
# (HTTP status, number, name, proof, error of a submit, error of a poll): none of them ends a job
GATEWAY: list[tuple[int, int, str, bool, type[ours.ProviderError], type[ours.ProviderError]]] = [
    (401, 100009, "InvalidAccessKey", True, ours.AccountRefused, ours.AccountRefused),
    (401, 100010, "SignatureDoesNotMatch", True, ours.AccountRefused, ours.AccountRefused),
    (400, 100006, "InvalidTimestamp", True, ours.AccountRefused, ours.AccountRefused),
    (403, 100012, "LackPolicy", True, ours.AccountRefused, ours.AccountRefused),
    (403, 100013, "AccessDenied", True, ours.AccountRefused, ours.AccountRefused),
    (400, 100024, "InvalidAuthorization", True, ours.AccountRefused, ours.AccountRefused),
    (400, 100025, "InvalidCredential", True, ours.AccountRefused, ours.AccountRefused),
    (401, 100026, "InvalidSecretToken", True, ours.AccountRefused, ours.AccountRefused),
    (400, 100002, "MissingParameter", True, ours.RequestRefused, ours.Unproven),
    (404, 100008, "InvalidActionOrVersion", True, ours.RequestRefused, ours.Unproven),
    (429, 100018, "FlowLimitExceeded", True, ours.TooFast, ours.TooFast),
    (500, 100014, "InternalError", False, ours.Unproven, ours.Unproven),
    (502, 100015, "FailToConnect", False, ours.Unproven, ours.Unproven),
    (504, 100016, "InternalServiceTimeout", False, ours.Unproven, ours.Unproven),
    (503, 100019, "ServiceUnavailableTemp", False, ours.Unproven, ours.Unproven),
    (502, 100023, "InternalServiceError", False, ours.Unproven, ours.Unproven),
]
BUSINESS = [(http, code, *rest) for http, codes, *rest in SPEC for code in codes]
JOB_ENDS = (ours.ContentBlocked, ours.OutputBlocked, ours.RequestRefused, ours.LinkUnreachable, ours.RecordGone)


def parsed(http: int, body: object) -> Answer:
    answer = read_answer(http, json.dumps(body).encode())
    assert answer is not None
    return answer


def business(http: int, code: object, message: str = "no") -> Answer:
    return parsed(http, {"code": code, "data": None, "message": message, "request_id": "r-1", "status": code})


def gateway(http: int, code: object, number: object, message: str = "no") -> Answer:
    error = {"Code": code, "CodeN": number, "Message": message}
    return parsed(http, {"ResponseMetadata": {"RequestId": "r-1", "Error": error}})


def of_submit(answer: Answer, **known: float) -> ours.ProviderError:
    return after_submit(answer, key=KEY, prompt=PROMPT, **known)


def of_look(answer: Answer, **known: float) -> ours.ProviderError:
    return after_look(answer, key=KEY, **known)


# -- The table --------------------------------------------------------------------------------------------------------


def test_the_table_has_exactly_the_codes_of_the_spec() -> None:
    assert set(CODES) == {code for _, code, *_ in BUSINESS} | {number for _, number, *_ in GATEWAY}
    assert {name: row.number for name, row in NAMES.items()} == {name: number for _, number, name, *_ in GATEWAY}


@pytest.mark.parametrize(("http", "code", "proof", "ends", "submit", "look"), BUSINESS)
def test_a_business_code_follows_the_spec(
    http: int, code: int, proof: bool, ends: str, submit: type[ours.ProviderError], look: type[ours.ProviderError]
) -> None:
    for answer in (business(http, code), gateway(http, str(code), code), gateway(http, str(code), 0)):
        assert (CODES[code].proof, CODES[code].ends) == (proof, ends)
        assert type(of_submit(answer)) is submit
        assert type(of_look(answer)) is look
        assert of_submit(answer).vendor_code == of_look(answer).vendor_code == str(code)
        assert of_submit(answer).request_id == "r-1"


@pytest.mark.parametrize(("http", "number", "name", "proof", "submit", "look"), GATEWAY)
def test_a_gateway_code_follows_the_spec_by_number_and_by_name(
    http: int, number: int, name: str, proof: bool, submit: type[ours.ProviderError], look: type[ours.ProviderError]
) -> None:
    answers = [gateway(http, name, number), gateway(http, name, None), gateway(http, "Renamed", number)]
    for answer in [*answers, gateway(http, str(number), number), gateway(http, name, str(number))]:
        assert (CODES[number].proof, CODES[number].ends) == (proof, "no")
        assert type(of_submit(answer)) is submit
        assert type(of_look(answer)) is look


@pytest.mark.parametrize("code", sorted(CODES))
def test_proof_is_what_the_errors_say(code: int) -> None:
    row = CODES[code]

    assert issubclass(row.on_submit, ours.ProvenUncharged) == row.proof
    assert (row.on_look in JOB_ENDS) == (row.ends == "yes")
    assert (row.on_look is ours.Undecided) == (row.ends == "if_it_stays")
    assert (row.on_submit is ours.AccountRefused) == bool(row.why)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (business(401, 50400), "auth"),
        (business(400, 50204), "model"),
        (business(400, 30403), "model"),
        (business(400, 30404), "model"),
        (gateway(401, "SignatureDoesNotMatch", 100010), "auth"),
        (gateway(400, "InvalidTimestamp", 100006), "clock"),
    ],
)
def test_a_refused_account_says_why(answer: Answer, why: str) -> None:
    error = of_submit(answer)

    assert isinstance(error, ours.AccountRefused)
    assert error.why == why


@pytest.mark.parametrize("code", [50500, 50501, 50520, 50521, 50522])
def test_an_undecided_code_ends_a_job_only_after_60_s_and_5_polls_and_was_not_charged(code: int) -> None:
    error = of_look(business(500, code))

    assert isinstance(error, ours.Undecided)
    assert (error.polls, error.for_s, error.charged) == (5, 60, False)


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_answer_to_a_cancel_never_ends_a_job(code: int) -> None:
    error = after_cancel(business(400, code), key=KEY)

    assert not isinstance(error, (*JOB_ENDS, ours.Undecided, ours.JobCancelled))


# -- What isn't in the table ------------------------------------------------------------------------------------------


@given(code=st.integers(0, 999_999_999).filter(lambda code: code not in CODES), http=st.integers(100, 599))
def test_an_unknown_code_proves_nothing_and_ends_nothing(code: int, http: int) -> None:
    answer = read_answer(http, json.dumps({"code": code, "message": "no"}).encode())
    if answer is None or http in {401, 402} or (code == 10000):
        return

    assert type(of_submit(answer)) is ours.Unproven
    assert type(of_look(answer)) is ours.Unproven


def test_a_name_and_a_number_that_disagree_prove_nothing() -> None:
    answer = gateway(401, "SignatureDoesNotMatch", 100014)

    assert row_of(answer) is None
    assert type(of_submit(answer)) is ours.Unproven


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (gateway(403, "AccountOverdue", 199001), "overdue"),
        (gateway(400, "AccountArrears", None), "overdue"),
        (gateway(400, "OperationDenied", 199002, "your account is in arrears"), "overdue"),
        (business(402, 59999), "overdue"),
        (business(400, 59999, "账户已欠费，请充值"), "overdue"),
        (business(403, 59999, "Insufficient balance"), "overdue"),
        (business(401, 59999), "auth"),
        (gateway(403, "SomethingNew", 199003), "auth"),
        (gateway(400, "AccountSuspended", 199004), "auth"),
        (gateway(400, "InvalidAccessKeyStatus", 199005), "auth"),
        (business(403, 59999, "Account is frozen"), "auth"),
    ],
)
def test_an_unknown_4xx_of_the_account_kind_rests_the_account_with_its_text(answer: Answer, why: str) -> None:
    error = of_submit(answer)

    assert isinstance(error, ours.AccountRefused)
    assert error.why == why
    assert answer.message in error.message
    assert isinstance(of_look(answer), ours.AccountRefused)


@pytest.mark.parametrize(
    "answer",
    [
        gateway(500, "AccountOverdue", 199001),
        gateway(200, "AccountOverdue", 199001),
        gateway(429, "AccountFlowLimit", 199001),
        gateway(408, "AccessDeniedTimeout", 199001),
        gateway(400, "SomethingNew", 199001, "the account of the picture's owner is not allowed"),
        business(403, 59999, "the picture is too dark"),
        business(400, 59999, "the account was charged"),
        business(400, 59999, f"can't do {PROMPT}, 欠费"),
        business(401, 10000),
    ],
)
def test_other_unknown_refusals_prove_nothing(answer: Answer) -> None:
    assert type(of_submit(answer)) is ours.Unproven


# -- What an answer is ------------------------------------------------------------------------------------------------

NO_ANSWERS: list[tuple[int, bytes]] = [
    (200, b""),
    (200, b"null"),
    (200, b"[]"),
    (200, b'"10000"'),
    (200, b"{}"),
    (200, b'{"code": null}'),
    (200, b'{"code": true, "data": {"task_id": "1"}}'),
    (200, b'{"code": 10000.0, "data": {"task_id": "1"}}'),
    (200, b'{"code": -1}'),
    (200, b'{"code": 99999999999999999999}'),
    (200, b'{"code": 10000, "data": {"task_id": "73923366'),
    (200, b"\x00\x1f\x8b\xff"),
    (200, b"[" * 100_000),
    (200, b'{"code": ' + b"9" * 5000 + b"}"),
    (504, b"<html><body>504 Gateway Time-out</body></html>"),
    (200, b'{"ResponseMetadata": {"RequestId": "x"}, "Result": {"task_id": "1"}}'),
    (200, b'{"ResponseMetadata": {"Error": "AccessDenied"}}'),
    (302, b'{"code": 10000, "data": {"task_id": "1"}}'),
]


@pytest.mark.parametrize(("http", "body"), NO_ANSWERS)
def test_whatever_is_none_of_the_three_shapes_is_no_answer(http: int, body: bytes) -> None:
    assert read_answer(http, body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(code=JSON, data=JSON, message=JSON, number=JSON, http=st.integers(100, 599))
def test_no_type_of_any_field_breaks_the_reader(
    code: object, data: object, message: object, number: object, http: int
) -> None:
    error = {"Code": code, "CodeN": number, "Message": message}
    bodies: list[Mapping[str, object]] = [
        {"code": code, "data": data, "message": message, "request_id": number},
        {"ResponseMetadata": {"RequestId": data, "Error": error}},
        {"ResponseMetadata": data, "code": code},
    ]
    for body in bodies:
        answer = read_answer(http, json.dumps(body).encode())
        if answer is not None and not answer.succeeded:
            assert isinstance(of_submit(answer), ours.ProviderError)
            assert isinstance(of_look(answer), ours.ProviderError)


def test_a_gateway_error_beside_a_success_is_an_error() -> None:
    body = {"ResponseMetadata": {"Error": {"Code": "InternalError"}}, "code": 10000, "data": {"task_id": "1"}}

    answer = parsed(200, body)

    assert not answer.succeeded
    assert type(of_submit(answer)) is ours.Unproven


# -- What is shown ----------------------------------------------------------------------------------------------------


def test_a_wrong_clock_is_told_in_seconds() -> None:
    refused = gateway(400, "InvalidTimestamp", 100006, "outside the window")

    assert "clock is 1000 s ahead of the vendor's" in of_submit(refused, skew_s=1000.2).message
    assert "clock is 950 s behind the vendor's" in of_look(refused, skew_s=-950.0).message
    assert of_submit(refused).message == "InvalidTimestamp: outside the window"


def test_no_secret_and_no_prompt_is_shown() -> None:
    told = f"key {KEY.access} with {KEY.secret} and {KEY.session_token} may not ask for {PROMPT}"

    message = of_submit(business(400, 50412, told)).message

    assert message == "key *** with *** and *** may not ask for …"


@pytest.mark.parametrize("prompt", ["猫", "a cat", PROMPT, PROMPT * 40])
def test_a_cut_echo_of_a_prompt_is_not_shown_either(prompt: str) -> None:
    assert shown(f"refused: {prompt[:60]}", KEY, prompt) == "refused: …"


def test_a_long_message_is_one_line_of_300_characters() -> None:
    line = shown("a\nb\t" + "c" * 10_000, KEY)

    assert line.startswith("a b ccc")
    assert len(line) == 300
    assert line.endswith("…")


def test_a_code_without_a_message_says_what_it_means() -> None:
    assert of_submit(business(429, 50430, "")).message == "too many jobs at once"
