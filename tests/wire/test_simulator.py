"""The simulator is measured against spec/jimeng.md, by a client that shares no code with it."""

import base64
import hashlib
import hmac
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from PIL import Image
from volcengine.auth.SignerV4 import SignerV4
from volcengine.base.Request import Request as OracleRequest
from volcengine.Credentials import Credentials

from dujiang.simulator import FAULTS, RunningSimulator, SimulatorSettings, running
from dujiang.simulator.__main__ import main
from dujiang.simulator.codes import CODES, Refused
from dujiang.simulator.pictures import picture
from dujiang.simulator.settings import DOWNLOAD_FAULTS, END_FAULTS, POLL_FAULTS, SUBMIT_FAULTS, UPLOAD_FAULTS
from dujiang.simulator.signature import Signed, check

KEY, SECRET, ACCOUNT = "AKLTsimulator", "c2ltdWxhdG9y", "sim"
SUBMIT, POLL, CANCEL = "CVSync2AsyncSubmitTask", "CVSync2AsyncGetResult", "CVCancelTask"
MODEL = "jimeng_t2i_v40"
POOL = f"{ACCOUNT}/{MODEL}"
JOB_S = 20.5  # in the queue and generating, with the settings of `start`


@dataclass
class FakeTime:
    """The simulator's two clocks, which only move by hand."""

    monotonic: float = 1000.0
    wall: float = field(default_factory=lambda: float(int(time.time())))

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


def signed(
    url: str, body: bytes, *, key: str = KEY, secret: str = SECRET, at: float | None = None, token: str = ""
) -> dict[str, str]:
    """Headers with a signature, written once more from the spec."""
    target = httpx2.URL(url)
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    headers = {
        "content-type": "application/json",
        "host": target.netloc.decode(),
        "x-content-sha256": hashlib.sha256(body).hexdigest(),
        "x-date": date,
    } | ({"x-security-token": token} if token else {})
    names = ";".join(sorted(headers))
    lines = ["POST", "/", target.query.decode(), *(f"{name}:{headers[name]}" for name in sorted(headers)), ""]
    canonical = "\n".join([*lines, names, headers["x-content-sha256"]])
    scope = f"{date[:8]}/cn-north-1/cv/request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signing = secret.encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, f"HMAC-SHA256\n{date}\n{scope}\n{digest}".encode(), "sha256").hex()
    headers["authorization"] = f"HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"  #
    return headers


class Client:
    """A customer of the simulated vendor."""

    def __init__(self, simulator: RunningSimulator, moment: FakeTime) -> None:
        self.simulator = simulator
        self.time = moment
        self.http = httpx2.Client(base_url=simulator.url, trust_env=False, verify=False, timeout=5)

    def call(
        self, action: str, body: object, *, version: str = "2022-08-31", key: str = KEY, secret: str = SECRET
    ) -> httpx2.Response:
        url = f"{self.simulator.url}/?Action={action}&Version={version}"
        content = json.dumps(body, ensure_ascii=False).encode()
        return self.http.post(
            url, content=content, headers=signed(url, content, key=key, secret=secret, at=self.time.wall)
        )

    def submit(self, prompt: str = "猫", *, key: str = KEY, secret: str = SECRET, **more: Any) -> httpx2.Response:
        body = {"req_key": MODEL, "prompt": prompt, "force_single": True, **more}
        return self.call(SUBMIT, body, key=key, secret=secret)

    def job(self, prompt: str = "猫", **more: Any) -> str:
        task_id = self.submit(prompt, **more).json()["data"]["task_id"]
        assert isinstance(task_id, str)
        return task_id

    def poll(self, task_id: str, *, req_key: str = MODEL, return_url: bool = True, key: str = KEY) -> httpx2.Response:
        options = json.dumps({"return_url": return_url})
        return self.call(POLL, {"req_key": req_key, "task_id": task_id, "req_json": options}, key=key)

    def urls(self, task_id: str) -> list[str]:
        found = self.poll(task_id).json()["data"]["image_urls"]
        assert isinstance(found, list)
        return found


def code_of(answer: httpx2.Response) -> tuple[int, int | str]:
    """HTTP status and code, whichever of the shapes they come in."""
    body = answer.json()
    return answer.status_code, body["code"] if "code" in body else body["ResponseMetadata"]["Error"]["CodeN"]


Start = Callable[..., Client]


@pytest.fixture
def start() -> Iterator[Start]:
    """A simulator with fake clocks and jobs of 20 s, and a client of it."""
    with ExitStack() as stack:

        def started(**changes: Any) -> Client:
            moment = FakeTime()
            settings = SimulatorSettings(**{"run_fixed_s": 20.0, **changes})
            simulator = running(settings, clock=lambda: moment.monotonic, wall_clock=lambda: moment.wall)
            client = Client(stack.enter_context(simulator), moment)
            stack.callback(client.http.close)
            return client

        yield started


# Signatures


VECTOR = Signed(
    method="POST",
    path="/",
    query=f"Action={SUBMIT}&Version=2022-08-31",
    body='{"req_key":"jimeng_t2i_v40","prompt":"猫 cat","force_single":true}'.encode(),
    headers={
        "content-type": "application/json",
        "host": "visual.volcengineapi.com",
        "x-content-sha256": "6fc14234908087438a13a7b8787cdd1aeccf870b3b61059587e9a3ac51175724",
        "x-date": "20260102T030405Z",
    },
)
VECTOR_SECRETS = {"AKLTexampleaccesskey": ("c2VjcmV0LWV4YW1wbGU=", "example")}
VECTOR_TIME = 1767323045.0


def vector(signature: str, names: str = "content-type;host;x-content-sha256;x-date", **headers: str) -> Signed:
    scope = "AKLTexampleaccesskey/20260102/cn-north-1/cv/request"
    authorization = f"HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    changed = {**VECTOR.headers, **headers, "authorization": authorization}
    return Signed(VECTOR.method, VECTOR.path, VECTOR.query, changed, VECTOR.body)


def test_the_vendors_test_vector_is_accepted() -> None:
    request = vector("ea00be86ec4de4ed2630a87035592f3f35557a2a73eb3c556a402d6736cd2319")

    assert check(request, VECTOR_SECRETS, VECTOR_TIME, 900) == "example"


def test_a_security_token_is_part_of_the_signature() -> None:
    signature = "c7b5da815e7150676e46cf2a3fb8f1888e9d6d9a7ff32602cc1e33abb0e1187e"
    names = "content-type;host;x-content-sha256;x-date;x-security-token"
    token = {"x-security-token": "STS-token-example"}

    assert check(vector(signature, names, **token), VECTOR_SECRETS, VECTOR_TIME, 900) == "example"
    with pytest.raises(Refused, match="100024"):
        check(vector(signature, **token), VECTOR_SECRETS, VECTOR_TIME, 900)


def test_the_vendors_own_signer_is_understood(start: Start) -> None:
    client = start()
    client.time.wall = time.time()  # the oracle reads the real clock
    request = OracleRequest()
    request.set_shema("http")
    request.set_method("POST")
    request.set_path("/")
    request.set_host(client.http.base_url.netloc.decode())
    request.set_query({"Action": SUBMIT, "Version": "2022-08-31"})
    request.set_headers({"Content-Type": "application/json", "Host": request.host})
    request.set_body(json.dumps({"req_key": MODEL, "prompt": "a cat"}))
    SignerV4.sign(request, Credentials(KEY, SECRET, "cv", "cn-north-1"))

    answer = client.http.post("/", params=request.query, content=request.body.encode(), headers=dict(request.headers))

    assert code_of(answer) == (200, 10000)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"authorization": ""}, (401, 100009)),
        ({"authorization": "Bearer x"}, (400, 100024)),
        ({"x-date": "yesterday"}, (400, 100006)),
        ({"x-content-sha256": "0" * 64}, (401, 100010)),
        ({"content-type": "text/plain"}, (401, 100010)),
        ({"x-security-token": "unsigned"}, (400, 100024)),
    ],
)
def test_a_damaged_signature_is_refused_by_the_gateway(
    start: Start, change: dict[str, str], code: tuple[int, int]
) -> None:
    client = start()
    url = f"{client.simulator.url}/?Action={SUBMIT}&Version=2022-08-31"
    headers = signed(url, b"{}", at=client.time.wall)

    answer = client.http.post(url, content=b"{}", headers={**headers, **change})

    assert code_of(answer) == code
    metadata = answer.json()["ResponseMetadata"]
    assert metadata["Error"]["Code"] == CODES[code[1]].name
    assert (metadata["Action"], metadata["Service"], metadata["Region"]) == (SUBMIT, "cv", "cn-north-1")
    assert metadata["RequestId"]


def test_unknown_keys_and_wrong_secrets_are_refused(start: Start) -> None:
    client = start()

    assert code_of(client.submit(key="AKLTother")) == (401, 100009)
    assert code_of(client.submit(secret="other")) == (401, 100010)


@pytest.mark.parametrize(("skew_s", "code"), [(-899, 10000), (899, 10000), (-901, 100006), (901, 100006)])
def test_a_clock_may_be_fifteen_minutes_off(start: Start, skew_s: float, code: int) -> None:
    client = start()
    url = f"{client.simulator.url}/?Action={SUBMIT}&Version=2022-08-31"
    body = json.dumps({"req_key": MODEL, "prompt": "x"}).encode()

    answer = client.http.post(url, content=body, headers=signed(url, body, at=client.time.wall + skew_s))

    assert code_of(answer)[1] == code
    assert answer.headers["date"].endswith(time.strftime("%H:%M:%S GMT", time.gmtime(client.time.wall)))


def test_an_account_can_be_refused_with_words_that_the_table_lacks(start: Start) -> None:
    client = start()
    task_id = client.job()
    client.simulator.configure(refused_accounts={ACCOUNT: [403, "AccountOverdue", "The account is overdue."]})

    for answer in (client.submit(), client.poll(task_id)):
        error = answer.json()["ResponseMetadata"]["Error"]
        assert (answer.status_code, error["Code"], error["Message"]) == (
            403,
            "AccountOverdue",
            "The account is overdue.",
        )
    client.simulator.configure(refused_accounts={})
    assert code_of(client.poll(task_id))[1] == 10000


def test_actions_and_versions_that_do_not_exist(start: Start) -> None:
    client = start()

    assert code_of(client.call("CVProcess", {})) == (404, 100008)
    assert code_of(client.call(SUBMIT, {}, version="2020-01-01")) == (404, 100008)
    assert code_of(client.http.post("/")) == (400, 100002)
    assert code_of(client.http.get(f"/?Action={POLL}&Version=2022-08-31")) == (404, 100008)


# What a submit may say


@pytest.mark.parametrize(
    "body",
    [
        {"req_key": "jimeng_unknown"},
        {"req_key": None},
        {"prompt": ""},
        {"prompt": "长" * 801},
        {"prompt": 7},
        {"req_key": "jimeng_i2i_seed3_tilesr_cvtob", "image_urls": ["https://example.com/a.png"], "resolution": []},
        {"seed": 1},
        {"size": 1},
        {"width": 2048},
        {"width": 100, "height": 100},
        {"scale": 1.5},
        {"force_single": "true"},
        {"min_ratio": 16},
        {"image_urls": ["https://example.com/a.png"] * 11},
        {"image_urls": "https://example.com/a.png"},
        {"prompt": "[sim:nonsense]"},
        {"prompt": "[sim:12345]"},
        {"req_key": "jimeng_i2i_v30"},
        {"req_key": "jimeng_seedream46_cvtob", "scale": 0.5},
    ],
)
def test_bad_parameters_are_refused(start: Start, body: dict[str, Any]) -> None:
    client = start()

    answer = client.submit(**{"prompt": "x", **body})

    assert code_of(answer) == (400, 50215)
    assert answer.json()["data"] is None
    assert client.simulator.ledger()["refused"] == {"50215": 1}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"req_key":"jimeng_t2i_v40","prompt":"\\ud800"}'])
def test_a_body_that_is_no_json_object_of_texts_is_refused(start: Start, body: bytes) -> None:
    client = start()
    url = f"{client.simulator.url}/?Action={SUBMIT}&Version=2022-08-31"

    answer = client.http.post(url, content=body, headers=signed(url, body, at=client.time.wall))

    assert code_of(answer) == (400, 50215)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "长" * 800},
        {"width": 2304, "height": 1728, "scale": 0.0, "min_ratio": 1 / 3, "max_ratio": 3},
        {"size": 4194304},
        {"image_urls": ["https://example.com/a.png"] * 10},
        {"req_key": "jimeng_seedream46_cvtob", "scale": 50},
    ],
)
def test_documented_parameters_are_accepted(start: Start, body: dict[str, Any]) -> None:
    assert code_of(start().submit(**{"prompt": "x", **body})) == (200, 10000)


# A job's course


def test_a_job_waits_runs_and_brings_a_picture(start: Start) -> None:
    client = start()

    accepted = client.submit("都江堰 river", width=2304, height=1728)
    task_id = accepted.json()["data"]["task_id"]
    states = [client.poll(task_id).json()["data"]["status"]]
    client.time.advance(0.5)
    states.append(client.poll(task_id).json()["data"]["status"])
    client.time.advance(20)
    done = client.poll(task_id).json()

    assert accepted.json().keys() == {"code", "data", "message", "request_id", "status", "time_elapsed"}
    assert re.fullmatch(r"\d{19,20}", task_id)
    assert re.fullmatch(r"[\d.]+ms", accepted.json()["time_elapsed"])
    assert states == ["in_queue", "generating"]
    assert (done["code"], done["message"], done["data"]["status"]) == (10000, "Success", "done")
    picture_file = client.http.get(done["data"]["image_urls"][0])
    assert picture_file.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(picture_file.content))
    image.load()
    assert image.size == (256, 192)
    assert image.info == {"prompt": "都江堰 river", "task_id": task_id, "image": "0", "size": "2304x1728"}


def test_some_task_ids_exceed_a_signed_64_bit_integer(start: Start) -> None:
    client = start(instant=True)

    ids = [int(client.job()) for _ in range(24)]

    assert len(set(ids)) == 24
    assert any(task_id >= 2**63 for task_id in ids)
    assert all(10**18 <= task_id < 2**64 for task_id in ids)


def test_without_return_url_the_picture_comes_as_base64(start: Start) -> None:
    client = start(instant=True)

    data = client.poll(client.job(), return_url=False).json()["data"]

    assert data["image_urls"] is None
    assert base64.b64decode(data["binary_data_base64"][0]).startswith(b"\x89PNG")


def test_without_force_single_several_images_are_made_and_billed(start: Start) -> None:
    client = start(instant=True)
    references = ["https://example.com/a.png"] * 9

    counts = [len(client.urls(client.job(force_single=False, image_urls=references))) for _ in range(40)]

    assert set(counts) == set(range(1, 7))  # 15 less 9 references
    assert client.simulator.ledger()["images"] == sum(counts)


def test_a_job_is_known_to_its_account_and_product_only(start: Start) -> None:
    client = start(accounts={KEY: (SECRET, "a"), "AKLTtwin": (SECRET, "a"), "AKLTother": (SECRET, "b")}, instant=True)
    task_id = client.job()

    def status(**who: Any) -> str:
        return str(client.poll(task_id, **who).json()["data"]["status"])

    assert status(key="AKLTtwin") == "done"
    assert status(key="AKLTother") == "not_found"
    assert status(req_key="jimeng_t2i_v30") == "not_found"
    assert client.poll("1" * 19).json()["data"]["status"] == "not_found"


def test_a_record_lives_for_twelve_hours(start: Start) -> None:
    client = start()
    task_id = client.job()

    client.time.advance(43_199)
    assert client.poll(task_id).json()["data"]["status"] == "done"
    client.time.advance(1)
    assert client.poll(task_id).json()["data"]["status"] == "not_found"


def test_a_poll_with_unreadable_options_is_refused(start: Start) -> None:
    client = start(instant=True)
    job = {"req_key": MODEL, "task_id": client.job()}

    for options in ("{", "[]", {"return_url": True}, '{"return_uri":true}'):
        assert code_of(client.call(POLL, {**job, "req_json": options})) == (400, 50215)
    assert code_of(client.call(POLL, {"req_key": MODEL})) == (400, 50215)


def test_only_a_job_in_the_queue_can_be_cancelled(start: Start) -> None:
    client = start(limit=1)
    first = {"req_key": MODEL, "task_id": client.job()}

    assert code_of(client.call(CANCEL, first, version="2024-06-06")) == (200, 10000)
    assert client.poll(first["task_id"]).json()["data"]["status"] == "canceled"
    second = {"req_key": MODEL, "task_id": client.job()}  # the slot is free again
    client.time.advance(1)

    assert code_of(client.call(CANCEL, second, version="2024-06-06")) == (400, 50215)
    assert [row["outcome"] for row in client.simulator.ledger()["charges"]] == ["canceled", None]


def test_run_times_are_lognormal_and_follow_the_seed(start: Start) -> None:
    def durations() -> list[float]:
        client = start(run_fixed_s=None, seed=7)
        for _ in range(60):
            client.job()
        client.time.advance(10_000)
        return [row["ended_at"] - row["started_at"] for row in client.simulator.ledger()["charges"]]

    first = durations()

    assert first == pytest.approx(durations(), abs=0.001)
    assert 17 < sorted(first)[30] < 28
    assert max(first) < 120


def test_the_time_scale_shortens_every_duration(start: Start) -> None:
    client = start(time_scale=0.1, image_url_lifetime_s=100.0)
    task_id = client.job()

    client.time.advance(JOB_S / 10 - 0.01)
    assert client.poll(task_id).json()["data"]["status"] == "generating"
    client.time.advance(0.02)
    (url,) = client.urls(task_id)
    client.time.advance(9.9)
    assert client.http.get(url).status_code == 200
    client.time.advance(0.2)
    assert client.http.get(url).status_code == 403


# Limits


def test_a_pool_is_full_from_accept_to_the_end_of_a_job(start: Start) -> None:
    client = start(limit=2)
    client.job()
    client.time.advance(5)
    client.job()

    assert code_of(client.submit()) == (429, 50430)
    client.time.advance(JOB_S - 5)
    assert code_of(client.submit()) == (200, 10000)
    assert code_of(client.submit()) == (429, 50430)
    ledger = client.simulator.ledger()
    assert ledger["max_running"] == {POOL: 2}
    assert ledger["refused"] == {"50430": 2}


def test_keys_of_one_account_share_its_pool_and_products_do_not(start: Start) -> None:
    client = start(
        limit=1,
        limits={"b": 2},
        accounts={KEY: (SECRET, "a"), "AKLTtwin": (SECRET, "a"), "AKLTother": (SECRET, "b")},
    )
    client.job()

    assert code_of(client.submit(key="AKLTtwin"))[1] == 50430
    assert code_of(client.submit(req_key="jimeng_seedream46_cvtob"))[1] == 10000
    assert [code_of(client.submit(key="AKLTother"))[1] for _ in range(3)] == [10000, 10000, 50430]
    ledger = client.simulator.ledger()
    assert ledger["max_running"] == {"a/" + MODEL: 1, "a/jimeng_seedream46_cvtob": 1, "b/" + MODEL: 2}
    assert ledger["max_running_overall"] == 4


def test_without_a_limit_the_highest_number_of_jobs_is_still_counted(start: Start) -> None:
    client = start()
    for _ in range(5):
        client.job()
    client.time.advance(100)
    client.job()

    assert client.simulator.ledger()["max_running"] == {POOL: 5}
    assert client.simulator.ledger()["running"] == {POOL: 1}


def test_submits_and_polls_have_a_rate_each(start: Start) -> None:
    client = start(submit_qps=2.0, poll_qps=1.0)
    task_id = client.job()

    assert [code_of(client.submit()) for _ in range(2)] == [(200, 10000), (429, 50429)]
    assert [code_of(client.poll(task_id))[1] for _ in range(2)] == [10000, 50429]
    client.time.advance(1)
    assert [code_of(client.submit())[1] for _ in range(3)] == [10000, 10000, 50429]
    assert code_of(client.poll(task_id))[1] == 10000
    assert client.simulator.ledger()["polls_refused"] == {"50429": 1}


def test_a_competitor_takes_slots_that_are_not_counted_as_ours(start: Start) -> None:
    client = start(limit=3, competitor_slots=2)

    assert [code_of(client.submit())[1] for _ in range(2)] == [10000, 50430]
    client.simulator.configure(competitor_slots=0)
    assert [code_of(client.submit())[1] for _ in range(3)] == [10000, 10000, 50430]
    assert client.simulator.ledger()["max_running"] == {POOL: 3}


def test_a_competitor_may_come_and_go(start: Start) -> None:
    client = start(limit=3, competitor_slots=3, competitor_change_s=10.0, instant=False, run_fixed_s=0.0, queue_s=0.0)

    codes: Counter[int | str] = Counter()
    for _ in range(40):
        codes[code_of(client.submit())[1]] += 1
        client.time.advance(10)

    assert set(codes) == {10000, 50430}


# Markers


@pytest.mark.parametrize("code", [50411, 50412, 50413, 50513, 50514, 50518, 50400, 50500, 50220, 100018, 100019])
def test_a_marked_prompt_is_refused_at_the_submit(start: Start, code: int) -> None:
    client = start()

    assert code_of(client.submit(f"cat [sim:{code}]")) == (CODES[code].http, code)
    assert client.simulator.ledger()["accepted"] == 0


@pytest.mark.parametrize("code", [50511, 50512, 50516, 50517, 50519])
def test_a_marked_prompt_ends_badly_after_its_run(start: Start, code: int) -> None:
    client = start(limit=1)
    task_id = client.job(f"cat [sim:{code}]")

    assert client.poll(task_id).json()["data"]["status"] == "in_queue"
    client.time.advance(JOB_S)
    answer = client.poll(task_id)
    assert code_of(answer) == (400, code)
    assert answer.json()["data"] is None
    (row,) = client.simulator.ledger()["charges"]
    assert (row["outcome"], row["charged"], row["images"]) == (str(code), False, 0)


def test_once_is_once_for_a_prompt(start: Start) -> None:
    client = start(instant=True)

    assert code_of(client.poll(client.job("a [sim:50511 once]")))[1] == 50511
    assert client.poll(client.job("a [sim:50511 once]")).json()["data"]["status"] == "done"
    assert code_of(client.poll(client.job("b [sim:50511 once]")))[1] == 50511
    assert [code_of(client.submit("c [sim:50412 once]"))[1] for _ in range(2)] == [50412, 10000]


def test_a_poll_may_fail_in_passing_while_the_job_goes_on(start: Start) -> None:
    client = start()
    once, always = client.job("a [sim:poll:50500 once]"), client.job("b [sim:poll:50429]")
    client.time.advance(JOB_S)

    assert [code_of(client.poll(once)) for _ in range(2)] == [(500, 50500), (200, 10000)]
    assert [code_of(client.poll(always))[1] for _ in range(2)] == [50429, 50429]
    assert client.simulator.ledger()["charged"] == 2


def test_business_codes_can_come_in_the_gateways_envelope(start: Start) -> None:
    client = start(limit=0, gateway_shaped_codes=(50430,))

    over = client.submit().json()["ResponseMetadata"]["Error"]
    marked = client.submit("[sim:50400 gateway]").json()["ResponseMetadata"]["Error"]

    assert (over["Code"], marked["Code"]) == ("50430", "50400")


def test_odd_ends(start: Start) -> None:
    client = start(slow_factor=5.0)
    jobs = {words: client.job(f"x [sim:{words}]") for words in ("empty", "slow", "status:failed", "run:100")}

    def at(seconds: float) -> dict[str, Any]:
        client.time.advance(seconds)
        return {words: client.poll(job).json()["data"] for words, job in jobs.items()}

    early, later = at(JOB_S), at(100)

    assert [data["status"] for data in early.values()] == ["done", "generating", "failed", "generating"]
    assert early["empty"]["image_urls"] is None
    assert [data["status"] for data in later.values()] == ["done", "done", "failed", "done"]
    charges = client.simulator.ledger()["charges"]
    assert [(row["outcome"], row["charged"], row["images"]) for row in charges] == [
        ("empty", True, 0),
        ("done", True, 1),
        ("failed", False, 0),
        ("done", True, 1),
    ]


# Faults


def test_a_lost_answer_is_accepted_and_charged_and_happens_once(start: Start) -> None:
    client = start()

    with pytest.raises(httpx2.ReadError):  # reset: an orderly end would be a RemoteProtocolError
        client.submit("x [sim:lost-answer]")
    again = client.submit("x [sim:lost-answer]")
    client.time.advance(JOB_S)

    assert code_of(again)[1] == 10000
    rows = client.simulator.ledger()["charges"]
    assert [(row["answered"], row["charged"]) for row in rows] == [(False, True), (True, True)]


@pytest.mark.parametrize(("fault", "accepted"), [("reset_before_reading", 0), ("lost_answer", 1)])
def test_resets_of_a_submit(start: Start, fault: str, accepted: int) -> None:
    client = start()
    client.simulator.plan_faults("submit", fault)

    with pytest.raises(httpx2.TransportError):  # which one depends on whether it comes while writing or while reading
        client.submit()

    assert client.simulator.ledger()["accepted"] == accepted
    assert client.simulator.ledger()["faults"] == {fault: 1}


@pytest.mark.parametrize(
    ("fault", "status", "accepted"),
    [("submit_503", 503, 0), ("submit_504_html", 504, 0), ("submit_504_accepted", 504, 1), ("garbage_body", 200, 1)],
)
def test_answers_that_say_nothing(start: Start, fault: str, status: int, accepted: int) -> None:
    client = start()
    client.simulator.plan_faults("submit", fault)

    answer = client.submit()

    assert answer.status_code == status
    with pytest.raises(ValueError, match=r"."):
        answer.json()
    ledger = client.simulator.ledger()
    assert ledger["accepted"] == accepted
    assert [row["answered"] for row in ledger["charges"]] == [False] * accepted


def test_an_answer_may_never_come(start: Start) -> None:
    client = start()
    client.simulator.plan_faults("submit", "lost_answer_hang")
    client.http.timeout = httpx2.Timeout(5, read=0.05)

    with pytest.raises(httpx2.ReadTimeout):
        client.submit()

    assert client.simulator.ledger()["accepted"] == 1


def test_a_refused_submit_is_answered_whatever_fault_it_meets(start: Start) -> None:
    client = start(limit=0)
    client.simulator.plan_faults("submit", "lost_answer")

    assert code_of(client.submit())[1] == 50430


def test_faults_of_polls(start: Start) -> None:
    client = start(instant=True, poll_slow_s=0.0)
    task_id = client.job()
    client.simulator.plan_faults("poll", "poll_reset", "poll_503", "poll_garbage", "poll_slow", None)

    with pytest.raises(httpx2.ReadError):
        client.poll(task_id)
    assert client.poll(task_id).status_code == 503
    with pytest.raises(ValueError, match=r"."):
        client.poll(task_id).json()
    assert [client.poll(task_id).json()["data"]["status"] for _ in range(2)] == ["done", "done"]


def test_faults_of_downloads(start: Start) -> None:
    client = start(instant=True, picture_bytes=1_000_000)
    (url,) = client.urls(client.job("x [sim:download-503]"))
    client.simulator.plan_faults("download", "download_reset", "cut_download")

    with pytest.raises(httpx2.ReadError):
        client.http.get(url)
    with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete"):
        client.http.get(url)
    assert client.http.get(url).status_code == 503  # the prompt's, once
    assert client.http.get(url).status_code == 200


def test_downloads_and_polls_may_stall(start: Start) -> None:
    client = start(instant=True)
    client.http.timeout = httpx2.Timeout(5, read=0.05)
    task_id = client.job()
    client.simulator.plan_faults("poll", "poll_hang")
    client.simulator.plan_faults("download", "download_stall")

    with pytest.raises(httpx2.ReadTimeout):
        client.poll(task_id)
    with pytest.raises(httpx2.ReadTimeout):
        client.http.get(client.urls(task_id)[0])


def test_a_door_closes_when_a_job_is_told_to_have_ended_and_opens_again(start: Start) -> None:
    client = start(instant=True, closed_door_s=0.2)
    task_id = client.job()
    client.simulator.plan_faults("end", "closed_door")

    client.urls(task_id)

    with httpx2.Client(base_url=client.http.base_url, trust_env=False) as newcomer:
        with pytest.raises(httpx2.ConnectError):
            newcomer.get("/healthz")
        assert client.urls(task_id)  # whoever was in stays in, and its end has been told already
        deadline = time.monotonic() + 10
        while not _is_let_in(newcomer):
            assert time.monotonic() < deadline
    assert client.simulator.ledger()["faults"] == {"closed_door": 1}


def _is_let_in(newcomer: httpx2.Client) -> bool:
    try:
        return newcomer.get("/healthz").status_code == 200
    except httpx2.ConnectError:
        return False


def test_faults_by_chance_follow_the_seed(start: Start) -> None:
    def story() -> list[int]:
        client = start(instant=True, seed=3, faults={"submit_503": 0.3, "submit_504_html": 0.3})
        return [client.submit().status_code for _ in range(30)]

    first = story()

    assert first == story()
    assert set(first) == {200, 503, 504}


def test_every_fault_belongs_to_one_kind_of_request() -> None:
    assert sorted(FAULTS) == sorted({*SUBMIT_FAULTS, *POLL_FAULTS, *DOWNLOAD_FAULTS, *UPLOAD_FAULTS, *END_FAULTS})


# References


@pytest.fixture
def pictures_served() -> Iterator[str]:
    """A loopback server with one good picture, one that is none, and redirects to good and bad ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = {"/good.png": b"\x89PNG\r\n\x1a\nx", "/bad.png": b"GIF89a"}.get(self.path)
            location = {"/moved.png": "good.png", "/round.png": "/round.png", "/off.png": "http://[::1"}.get(self.path)
            self.send_response(302 if location else 200 if content else 404)
            self.send_header("Location", location or "")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_references_on_loopback_are_fetched(start: Start, pictures_served: str) -> None:
    client = start()

    def code(url: str) -> int | str:
        return code_of(client.submit(image_urls=[url]))[1]

    assert code(f"{pictures_served}/good.png") == 10000
    assert code(f"{pictures_served}/missing.png") == 50220
    assert code(f"{pictures_served}/bad.png") == 50207
    assert code("http://127.0.0.1:1/nobody.png") == 50220
    assert code(f"{pictures_served}/猫.png") == 50220  # a URL is ASCII
    assert code(f"{pictures_served}/moved.png") == 10000
    assert code(f"{pictures_served}/round.png") == 50220
    assert code(f"{pictures_served}/off.png") == 50220
    assert client.simulator.ledger()["charges"][0]["references"] == [f"{pictures_served}/good.png"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a.png", 10000),
        ("https://192.168.1.7/a.png", 50220),
        ("https://localhost/a.png", 50220),
        ("https://intranet/a.png", 50220),
        ("file:///etc/passwd", 50220),
        ("http://[::1", 50220),
    ],
)
def test_other_references_are_believed_if_the_vendor_could_reach_them(start: Start, url: str, code: int) -> None:
    assert code_of(start().submit(image_urls=[url]))[1] == code


def test_references_may_be_believed_altogether(start: Start) -> None:
    assert code_of(start(fetch_references=False).submit(image_urls=["http://127.0.0.1:1/a.png"]))[1] == 10000


# Pictures


def test_links_end_and_a_new_poll_gives_new_ones(start: Start) -> None:
    client = start(instant=True, image_url_lifetime_s=60.0)
    task_id = client.job()
    (old,) = client.urls(task_id)
    client.time.advance(59)
    assert client.http.head(old).status_code == 200
    client.time.advance(1)

    assert client.http.get(old).status_code == 403
    assert client.http.get(client.urls(task_id)[0]).status_code == 200


def test_links_that_were_never_given_lead_nowhere(start: Start) -> None:
    client = start(instant=True)
    (url,) = client.urls(client.job())

    for wrong in (
        url.replace("0.png", "1.png"),
        url.replace("/images/", "/images/1"),
        f"{client.simulator.url}/images/x",
    ):
        assert client.http.get(wrong).status_code == 404
    assert client.http.post(url).status_code == 405


def test_head_tells_the_size_without_the_picture(start: Start) -> None:
    client = start(instant=True)
    (url,) = client.urls(client.job())

    head = client.http.head(url)

    assert head.content == b""
    assert int(head.headers["content-length"]) == len(client.http.get(url).content)


@pytest.mark.parametrize("size", [65_536, 3_000_000])
def test_pictures_can_be_made_as_large_as_wanted(start: Start, size: int) -> None:
    client = start(instant=True, picture_bytes=size)
    content = client.http.get(client.urls(client.job())[0]).content

    assert size - 100 < len(content) <= size
    with Image.open(io.BytesIO(content)) as image:
        image.verify()  # every chunk's checksum


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [((512, 512), (512, 512)), ((2048, 2048), (256, 256)), ((1000, 1), (256, 64)), ((2, 3), (64, 64))],
)
def test_a_drawing_has_the_shape_that_was_asked_for(asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(b"".join(picture("1" * 19, 0, "水", asked)))) as image:
        image.load()
        assert image.size == drawn
        assert image.info["prompt"] == "水"


def test_pictures_of_different_jobs_and_indices_differ() -> None:
    def pixels(task_id: str, index: int) -> bytes:
        with Image.open(io.BytesIO(b"".join(picture(task_id, index, "", (256, 256))))) as image:
            return image.convert("RGB").tobytes()

    assert len({pixels(task_id, index) for task_id in ("1" * 19, "2" * 19) for index in (0, 1)}) == 4


# The control surface


def test_the_ledger_tells_who_ran_when(start: Start) -> None:
    client = start()
    submitted = client.time.wall
    task_id = client.job("一只猫")
    client.time.advance(JOB_S)
    client.poll(task_id)

    ledger = client.http.get("/_sim/ledger").json()

    (row,) = ledger["charges"]
    assert (row["task_id"], row["account"], row["req_key"], row["prompt"]) == (task_id, ACCOUNT, MODEL, "一只猫")
    assert row["prompt_sha256"] == hashlib.sha256("一只猫".encode()).hexdigest()
    assert row["submitted_at"] == pytest.approx(submitted, abs=0.01)
    assert row["started_at"] == pytest.approx(submitted + 0.5, abs=0.01)
    assert row["ended_at"] == pytest.approx(submitted + JOB_S, abs=0.01)
    assert (row["outcome"], row["charged"], row["answered"], row["images"]) == ("done", True, True, 1)
    assert row["client"].startswith("python-httpx2/")
    assert (ledger["accepted"], ledger["submits"], ledger["polls"]) == (1, 1, 1)
    assert client.http.get("/_sim/ledger?since=1").json()["charges"] == []
    assert client.http.get("/_sim/ledger?rows=0").json()["charged"] == 1


def test_who_waits_for_the_end_is_told_at_once(start: Start) -> None:
    client = start()
    task_id = client.job()

    with ThreadPoolExecutor(1) as pool, httpx2.Client(trust_env=False, verify=False) as other:
        waiting = pool.submit(other.get, f"{client.simulator.url}/_sim/jobs/{task_id}/end")
        assert client.http.get(f"/_sim/jobs/{task_id}").json()["outcome"] is None
        client.http.post(f"/_sim/jobs/{task_id}/finish")
        told = waiting.result(5).json()

    assert (told["outcome"], told["charged"]) == ("done", True)
    assert client.http.get(told["image_urls"][0]).status_code == 200
    assert client.http.get(f"/_sim/jobs/{task_id}/end").json()["outcome"] == "done"
    assert client.http.get("/_sim/jobs/1/end").status_code == 404


def test_the_end_comes_by_itself_on_a_real_clock() -> None:
    settings = SimulatorSettings(run_fixed_s=0.05, queue_s=0.0)
    with running(settings) as simulator:
        client = Client(simulator, FakeTime(wall=time.time()))
        with client.http:
            told = client.http.get(f"/_sim/jobs/{client.job()}/end").json()

    assert told["outcome"] == "done"
    assert told["ended_at"] - told["started_at"] == pytest.approx(0.05, abs=0.001)


def test_settings_change_while_it_runs(start: Start) -> None:
    client = start()
    changed = client.http.post("/_sim/config", json={"limit": 0, "faults": {"poll_503": 1}, "run_fixed_s": 1})

    assert changed.json() == client.http.get("/_sim/config").json()
    assert (changed.json()["limit"], changed.json()["faults"]) == (0, {"poll_503": 1.0})
    assert SECRET not in changed.text
    assert code_of(client.submit())[1] == 50430
    assert client.poll("1" * 19).status_code == 503


@pytest.mark.parametrize(
    "partial",
    [
        {"limits": 3},
        {"limit": -1},
        {"limit": "two"},
        {"nonsense": 1},
        {"faults": {"nonsense": 1}},
        {"faults": {"poll_503": 0.6, "poll_reset": 0.6}},
        {"time_scale": 0},
        {"any_host": True},
        {"accounts": {"AK": "secret"}},
        {"refused_accounts": {"sim": [200, "Fine", ""]}},
        {"refused_accounts": {"sim": "overdue"}},
        {"instant": 1},
        [],
    ],
)
def test_settings_that_make_no_sense_change_nothing(start: Start, partial: object) -> None:
    client = start()
    before = client.http.get("/_sim/config").json()

    answer = client.http.post("/_sim/config", json=partial)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert client.http.get("/_sim/config").json() == before


def test_faults_can_be_planned_over_http(start: Start) -> None:
    client = start()

    assert client.http.post("/_sim/faults/next", json={"submit": ["poll_503"]}).status_code == 400
    planned = client.http.post("/_sim/faults/next", json={"submit": [None, "submit_503"]})

    assert planned.json() == {"submit": [None, "submit_503"], "poll": [], "download": [], "upload": [], "end": []}
    assert [client.submit().status_code for _ in range(3)] == [200, 503, 200]


def test_a_reset_begins_anew(start: Start) -> None:
    client = start(limit=1)
    client.job()
    client.simulator.configure(limit=0)

    assert client.http.post("/_sim/reset").status_code == 200

    assert client.simulator.ledger()["accepted"] == 0
    assert client.http.get("/_sim/config").json()["limit"] == 1
    assert code_of(client.submit())[1] == 10000


def test_it_says_that_it_is_there(start: Start) -> None:
    client = start()

    assert client.http.get("/healthz").text == "ok"
    assert client.http.get("/nonsense").status_code == 404


# Running it


def test_a_stop_waits_for_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        simulator = stack.enter_context(running(SimulatorSettings()))
        client = Client(simulator, FakeTime(wall=time.time()))
        stack.callback(client.http.close)
        task_id = client.job()
        waiting = pool.submit(httpx2.get, f"{simulator.url}/_sim/jobs/{task_id}/end", trust_env=False)
        hanging = pool.submit(client.submit, "x [sim:lost-answer-hang]")
        while not hanging.done() and simulator.ledger()["faults"] == {}:
            pass
        stack.pop_all().close()

        for answer in (waiting, hanging):
            assert isinstance(answer.exception(5), httpx2.TransportError)
    assert capfd.readouterr() == ("", "")


def test_two_simulators_cannot_have_one_port(start: Start) -> None:
    port = start().http.base_url.port

    with pytest.raises(OSError, match=r"."), running(SimulatorSettings(port=port or 0)):
        pass


def test_only_loopback_unless_asked_for_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"host": "0.0.0.0"}')

    assert main(["--config", str(config)]) == 2
    assert main(["--account", "AK"]) == 2
    assert main(["--fault", "nonsense=1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "loopback" in output.err


def test_the_command_says_where_it_listens_and_stops_on_a_signal(tmp_path: Any) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"limit": 5, "accounts": {"AKLTx": ["secret", "x"]}}')
    flags = ["--limit", "2", "--time-scale", "0.5", "--fault", "poll_503=0.5", "--config", str(config)]
    command = [sys.executable, "-m", "dujiang.simulator", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        shown = httpx2.get(f"{url}/_sim/config", trust_env=False).json()
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        rest, errors = process.communicate(timeout=10)

    assert (shown["limit"], shown["time_scale"], shown["faults"]) == (2, 0.5, {"poll_503": 0.5})
    assert shown["accounts"] == {"AKLTx": "x"}
    assert (rest, errors) == ("", "")
    assert process.returncode == 0 or os.name == "nt"
