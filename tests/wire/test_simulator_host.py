"""The simulated image host is measured against spec/superbed.md, by a client that shares no code with it."""

import hashlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dujiang.simulator import FAULTS, RunningSimulator, SimulatorSettings, host, running
from dujiang.simulator.__main__ import main
from dujiang.simulator.forms import BadForm, form_in
from dujiang.simulator.settings import UPLOAD_FAULTS

from .test_simulator import Client, FakeTime, code_of

TOKEN, ACCOUNT = "superbed-simulator-token", "sim"
OTHER_TOKEN, OTHER_ACCOUNT = "0123456789abcdef", "other"
PICTURES = {
    "jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\r\n",
    "png": b"\x89PNG\r\n\x1a\n\r\n\r\n",
    "bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00\x36\x00",
    "webp": b"RIFF\x0a\x0d\x00\x00WEBPVP8 ",
    "gif": b"GIF89a\x01\x00--",
}
CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "bmp": "image/bmp",
    "webp": "image/webp",
    "gif": "image/gif",
}
PNG = PICTURES["png"]
NOISE = bytes(range(256)) * 4


class Uploader(Client):
    """A customer of the image host, and of the simulated vendor."""

    def upload(
        self, content: bytes = PNG, name: str = "cat.png", *, token: str = TOKEN, **fields: Any
    ) -> httpx2.Response:
        return self.http.post("/upload", data={"token": token, **fields}, files={"file": (name, content)})

    def stored(self, content: bytes = PNG, name: str = "cat.png", *, token: str = TOKEN, **fields: Any) -> str:
        answer = self.upload(content, name, token=token, **fields).json()
        assert answer["err"] == 0, answer
        url = answer["url"]
        assert isinstance(url, str)
        return url

    def err(self, content: bytes = PNG, name: str = "cat.png", *, token: str = TOKEN, **fields: Any) -> int:
        return err_of(self.upload(content, name, token=token, **fields))

    def raw(self, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> httpx2.Response:
        return self.http.post(f"/upload?token={TOKEN}", content=body, headers={"content-type": content_type})

    def ledger(self) -> dict[str, Any]:
        return self.simulator.ledger()

    def is_there(self, url: str) -> bool:
        return self.http.get(url, follow_redirects=False).status_code == 200


def err_of(answer: httpx2.Response) -> int:
    """What `err` is in an answer that has a message, too."""
    body = answer.json()
    assert answer.status_code == 200
    assert body["msg"]
    err = body["err"]
    assert isinstance(err, int)
    return err


def until(fact: Callable[[], bool]) -> None:
    """Look until it is so."""
    give_up_at = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < give_up_at


Start = Callable[..., Uploader]


@pytest.fixture
def start() -> Iterator[Start]:
    """A simulator with fake clocks whose uploads take no time, and a client of it."""
    with ExitStack() as stack:

        def started(**changes: Any) -> Uploader:
            moment = FakeTime()
            tokens = {TOKEN: ACCOUNT, "second-token-of-sim": ACCOUNT, OTHER_TOKEN: OTHER_ACCOUNT}
            settings = SimulatorSettings(**{"host_tokens": tokens, "upload_s": 0.0, "instant": True, **changes})
            simulator = running(settings, clock=lambda: moment.monotonic, wall_clock=lambda: moment.wall)
            client = Uploader(stack.enter_context(simulator), moment)
            stack.callback(client.http.close)
            return client

        yield started


# Upload and item


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_goes_in_and_a_public_url_comes_out(start: Start, kind: str) -> None:
    client = start()
    content = PICTURES[kind] + NOISE

    answer = client.upload(content, "猫.dat")
    body = answer.json()

    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert body.keys() == {"err", "msg", "url", "id", "name", "size"}
    assert (body["err"], body["name"], body["size"]) == (0, "猫.dat", len(content))
    assert re.fullmatch(r"[0-9a-f]{24}", body["id"])
    assert body["url"] == f"{client.simulator.url}/item/{body['id']}.{kind}"
    item = httpx2.get(body["url"], trust_env=False)  # nobody's token
    assert (item.content, item.headers["content-type"]) == (content, CONTENT_TYPES[kind])
    head = client.http.head(body["url"])
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
    assert head.headers["content-type"] == CONTENT_TYPES[kind]


def test_a_large_picture_comes_back_as_it_went_in(start: Start) -> None:
    client = start()
    content = PNG + NOISE * 3000

    assert client.http.get(client.stored(content)).content == content


def test_the_same_picture_twice_makes_two_items(start: Start) -> None:
    client = start()

    assert client.stored() != client.stored()
    assert client.ledger()["stored"] == 2


def test_items_that_were_never_given_lead_nowhere(start: Start) -> None:
    client = start()
    url = client.stored()

    for wrong in (url[:-4], url.replace(".png", ".jpg"), f"{url}/x", f"{client.simulator.url}/item/{'0' * 24}.png"):
        assert client.http.get(wrong).status_code == 404
    assert client.http.post(url).status_code == 405
    assert client.http.get("/upload").status_code == 405
    assert client.http.get("/delete").status_code == 405
    assert client.http.post("/upload/").status_code == 404


def test_an_item_may_have_a_lifetime(start: Start) -> None:
    client = start(item_lifetime_s=600.0, time_scale=0.1)
    url = client.stored()

    client.time.advance(59)
    assert client.is_there(url)
    client.time.advance(1)
    assert not client.is_there(url)
    client.simulator.configure(item_lifetime_s=None)
    assert client.is_there(url)


def test_the_link_to_a_picture_elsewhere_redirects_there(start: Start) -> None:
    client = start()
    source = "https://example.com/a%20b/河.webp?x=1&y=2"

    answer = client.http.post("/upload", data={"token": TOKEN, "src": source}).json()

    assert (answer["err"], answer["name"], answer["size"]) == (0, "河.webp", 0)
    assert answer["url"].endswith(".webp")
    link = client.http.get(answer["url"])
    assert (link.status_code, link.headers["location"]) == (
        302,
        "https://example.com/a%20b/%E6%B2%B3.webp?x=1&y=2",
    )
    (item,) = client.ledger()["items"]
    assert (item["sha256"], item["bytes"]) == (None, 0)


@pytest.mark.parametrize("source", ["cat.png", "ftp://example.com/a.png", "https://", "http://[::1", "http://a/\r\nx"])
def test_a_source_that_is_no_url_is_refused(start: Start, source: str) -> None:
    assert err_of(start().http.post("/upload", data={"token": TOKEN, "src": source})) == host.BAD_SOURCE


# Forms


def test_the_token_may_stand_in_the_form_or_in_the_query(start: Start) -> None:
    client = start()

    def err(query: str, **fields: str) -> int:
        return err_of(client.http.post(f"/upload{query}", data=fields, files={"file": ("a.png", PNG)}))

    assert err("", token=TOKEN) == 0
    assert err(f"?token={TOKEN}") == 0
    assert err("?token=wrong", token=TOKEN) == 0  # the form wins
    assert err(f"?token={TOKEN}", token="wrong") == host.BAD_TOKEN
    assert err("?token=wrong") == host.BAD_TOKEN
    assert err("") == host.BAD_TOKEN
    assert client.ledger()["uploads_refused"] == {str(host.BAD_TOKEN): 3}


def test_a_title_wins_over_the_files_own_name_and_an_album_may_be_named(start: Start) -> None:
    answer = start().upload(filename="猫 1.png", categories="都江,堰").json()

    assert (answer["err"], answer["name"]) == (0, "猫 1.png")


@pytest.mark.parametrize("name", ["图 1.png", "a;b=c.png", "a'b,c.png", "a\\b.png", "[x] (2).png"])
def test_file_names_arrive_whole(start: Start, name: str) -> None:
    assert start().upload(name=name).json()["name"] == name


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="a \\"b\\".png"', 'a "b".png'),
        ("form-data; name=file; filename=a.png", "a.png"),
        ("Form-Data; name=\"file\"; filename*=UTF-8''%E7%8C%AB.png", "猫.png"),
    ],
)
def test_other_clients_write_file_names_in_other_ways(start: Start, disposition: str, name: str) -> None:
    body = f"--b \t\r\ncontent-disposition: {disposition}\r\n\r\n".encode() + PNG + b"\r\n--b--"

    assert start().raw(b"a preamble\r\n" + body + b"\r\nan epilogue").json()["name"] == name


def one_file(content: bytes, boundary: bytes = b"b") -> bytes:
    head = b'\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: image/png\r\n\r\n'
    return b"--" + boundary + head + content + b"\r\n--" + boundary + b"--\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\n--",
        b"\r\n--bc\r\n",
        b"\r\n--b-\r\n",
        b"x--b\r\n",
        b"x--b--\r\n",
        b"\n--b--\r\n",
    ],
)
def test_what_only_looks_like_a_boundary_belongs_to_the_picture(start: Start, content: bytes) -> None:
    client = start()

    answer = client.raw(one_file(PNG + content))

    assert client.http.get(answer.json()["url"]).content == PNG + content


@given(st.binary() | st.text("\r\n-b \t").map(str.encode))
def test_contents_are_the_very_bytes_that_were_sent(content: bytes) -> None:
    boundary = "bb" + "Z" * 14
    form = form_in(f'multipart/form-data; boundary="{boundary}"', one_file(content, boundary.encode()))

    assert [file.content for file in form.files] == [content]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (one_file(PNG), "multipart/form-data"),
        (one_file(PNG), f"multipart/form-data; boundary={'b' * 71}"),
        (one_file(PNG), "multipart/form-data; boundary=other"),
        (one_file(PNG)[:-6], "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\ncontent-disposition: inline; name=x\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\nx: " + b"y" * 9000 + b"\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b"),
        (
            b"--b\r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n" * 101 + b"--b--",
            "multipart/form-data; boundary=b",
        ),
        (b"&".join([b"a=1"] * 101), "application/x-www-form-urlencoded"),
    ],
)
def test_a_form_that_is_none_is_refused(start: Start, body: bytes, content_type: str) -> None:
    client = start()

    assert err_of(client.raw(body, content_type)) == host.BAD_FORM
    with pytest.raises(BadForm):
        form_in(content_type, body)


def test_exactly_one_picture_a_request(start: Start) -> None:
    client = start()

    def err(*files: tuple[str, tuple[str | None, bytes]], **fields: str) -> int:
        return err_of(client.http.post("/upload", data={"token": TOKEN, **fields}, files=files or None))

    assert err(("file", ("a.png", PNG)), ("file", ("b.png", PNG))) == host.SEVERAL_PICTURES
    assert err(("file", ("a.png", PNG)), ("file1", ("b.png", PNG))) == host.SEVERAL_PICTURES
    assert err(("file", ("a.png", PNG)), src="https://example.com/a.png") == host.SEVERAL_PICTURES
    assert err(("picture", ("a.png", PNG))) == host.NO_PICTURE
    assert err(("file", (None, b"a text"))) == host.NO_PICTURE
    assert err() == host.NO_PICTURE
    assert err_of(client.raw(b"{}", "application/json")) == host.NO_PICTURE
    assert client.ledger()["items"] == []


# What is refused


@pytest.mark.parametrize("content", [b"", b"<svg/>", b"\xff\xd8", b"BMW is no bitmap", b"RIFF....WAVE", b"%PDF-1.7"])
def test_what_is_no_picture_is_refused(start: Start, content: bytes) -> None:
    client = start()

    assert client.err(content) == host.NOT_A_PICTURE
    ledger = client.ledger()
    assert (ledger["uploads"], ledger["stored"], ledger["uploads_refused"]) == (1, 0, {str(host.NOT_A_PICTURE): 1})


def test_a_picture_may_be_too_large(start: Start) -> None:
    client = start(host_max_bytes=100_000)

    assert client.err(PNG.ljust(100_000)) == 0
    assert client.err(PNG.ljust(100_001)) == host.TOO_LARGE
    assert client.err(PNG.ljust(5_000_000)) == host.TOO_LARGE  # not even kept while it is read
    assert client.ledger()["stored"] == 1


def test_a_marked_picture_is_refused_by_review(start: Start) -> None:
    client = start()

    assert client.err(name="cat [sim:refuse].png") == host.REFUSED_BY_REVIEW
    assert client.err(filename="[sim:refuse]") == host.REFUSED_BY_REVIEW
    source = {"token": TOKEN, "src": "https://example.com/%5Bsim:refuse%5D.png"}
    assert err_of(client.http.post("/upload", data=source)) == host.REFUSED_BY_REVIEW


def test_five_refused_pictures_in_a_row_suspend_the_account(start: Start) -> None:
    client = start()
    url = client.stored()

    refused = [client.err(b"no picture") for _ in range(4)] + [client.err(name="[sim:refuse].png")]
    after = client.upload()

    assert refused == [host.NOT_A_PICTURE] * 4 + [host.REFUSED_BY_REVIEW]
    assert err_of(after) == host.SUSPENDED
    assert "封禁" in after.json()["msg"]
    assert client.err(b"no picture") == host.SUSPENDED
    assert client.err(token="second-token-of-sim") == host.SUSPENDED
    assert client.err(token=OTHER_TOKEN) == 0
    assert client.is_there(url)
    client.simulator.reset()
    assert client.err() == 0


def test_a_good_picture_in_between_forgives(start: Start) -> None:
    client = start()

    for _ in range(3):
        assert [client.err(b"no picture") for _ in range(4)] == [host.NOT_A_PICTURE] * 4
        assert client.err() == 0


def test_other_refusals_do_not_suspend(start: Start) -> None:
    client = start(host_max_bytes=10)

    assert {client.err(PNG.ljust(11)) for _ in range(6)} == {host.TOO_LARGE}
    assert {client.err(token="wrong") for _ in range(6)} == {host.BAD_TOKEN}
    client.simulator.configure(host_max_bytes=1000)
    assert client.err() == 0


# Places


class Crowd:
    """Uploads beside each other, each over a connection of its own."""

    def __init__(self, client: Uploader, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self.pool = pool

    def send(self, count: int, content: bytes = PNG, token: str = TOKEN) -> list[Future[httpx2.Response]]:
        """Start so many more than ever held a place, and return when all hold one."""
        most = self.client.ledger()["most_uploads_at_once"]
        sent = [self.pool.submit(self.client.upload, content, token=token) for _ in range(count)]
        until(lambda: self.client.ledger()["most_uploads_at_once"] == most + count)
        return sent

    def errs(self, sent: list[Future[httpx2.Response]]) -> list[int]:
        """Let time pass until all are answered."""

        def answered() -> bool:
            self.client.time.advance(0.01)
            return all(each.done() for each in sent)

        until(answered)
        return [err_of(each.result()) for each in sent]


@pytest.fixture
def crowd(start: Start) -> Iterator[Crowd]:
    """A host whose uploads take as long as the test wants: until it moves the clock."""
    client = start(upload_s=0.01)
    with ThreadPoolExecutor(12) as pool:
        yield Crowd(client, pool)
        client.time.advance(10)


def test_an_account_may_send_five_pictures_at_once(crowd: Crowd) -> None:
    client = crowd.client
    first = crowd.send(5)

    assert client.err() == host.TOO_MANY_AT_ONCE
    assert client.err(token="second-token-of-sim") == host.TOO_MANY_AT_ONCE
    assert client.ledger()["stored"] == 0

    assert crowd.errs(first) == [0] * 5
    assert crowd.errs([crowd.pool.submit(client.upload) for _ in range(5)]) == [0] * 5
    ledger = client.ledger()
    assert (ledger["uploads"], ledger["stored"], ledger["most_uploads_at_once"]) == (12, 10, 5)
    assert ledger["uploads_refused"] == {str(host.TOO_MANY_AT_ONCE): 2}


def test_accounts_have_places_of_their_own_and_a_plan_may_have_more(crowd: Crowd) -> None:
    client = crowd.client
    client.simulator.configure(host_parallel=6)

    sent = crowd.send(6) + crowd.send(2, token=OTHER_TOKEN)
    assert client.err() == host.TOO_MANY_AT_ONCE
    client.simulator.configure(host_parallel=None)
    sent += crowd.send(1)

    assert crowd.errs(sent) == [0] * 9


def test_uploads_beside_those_that_suspend_the_account_are_refused(crowd: Crowd) -> None:
    crowd.client.simulator.configure(host_parallel=8)
    sent = crowd.send(8, b"no picture")

    assert Counter(crowd.errs(sent)) == {host.NOT_A_PICTURE: 5, host.SUSPENDED: 3}


def test_a_picture_is_kept_although_nobody_waits_for_the_answer(crowd: Crowd) -> None:
    client = crowd.client
    connection = http.client.HTTPConnection(client.http.base_url.host, client.http.base_url.port, timeout=5)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    connection.request("POST", f"/upload?token={TOKEN}", one_file(PNG), headers)
    until(lambda: client.ledger()["most_uploads_at_once"] == 1)

    connection.close()
    client.time.advance(0.01)

    until(lambda: client.ledger()["stored"] == 1)


def test_an_upload_takes_its_time() -> None:
    settings = SimulatorSettings(upload_s=0.5, time_scale=0.1)
    with running(settings) as simulator:
        client = Uploader(simulator, FakeTime())
        with client.http:
            before = time.monotonic()
            client.stored()

    assert time.monotonic() - before >= 0.05


# Delete


def test_items_are_deleted_by_id_or_url(start: Start) -> None:
    client = start()
    urls = [client.stored() for _ in range(6)]
    ids = [row["id"] for row in client.ledger()["items"]]

    forms: list[dict[str, Any]] = [
        {"json": {"token": TOKEN, "ids": [ids[0]]}},
        {"json": {"token": TOKEN, "urls": [urls[1]]}},
        {"data": {"token": TOKEN, "ids": f"{ids[2]},{ids[3]}"}},
        {"data": {"token": TOKEN, "urls": [urls[4], urls[5]]}},
    ]
    answers = [client.http.post("/delete", **form) for form in forms]

    assert [err_of(answer) for answer in answers] == [0] * 4
    assert [client.is_there(url) for url in urls] == [False] * 6
    ledger = client.ledger()
    assert [row["deleted"] for row in ledger["items"]] == [True] * 6
    assert (ledger["stored"], ledger["items"][0]["bytes"]) == (6, len(PNG))


def test_only_the_owner_deletes_and_only_what_is_there(start: Start) -> None:
    client = start()
    url = client.stored()

    def err(**body: Any) -> int:
        return err_of(client.http.post("/delete", json=body))

    assert err(token=OTHER_TOKEN, urls=[url]) == host.NOTHING_TO_DELETE
    assert err(token="wrong", urls=[url]) == host.BAD_TOKEN
    assert err(urls=[url]) == host.BAD_TOKEN
    assert err(token=TOKEN) == host.NOTHING_TO_DELETE
    assert err(token=TOKEN, ids=["0" * 24], urls=None) == host.NOTHING_TO_DELETE
    assert err(token=TOKEN, ids=[7]) == host.BAD_FORM
    assert err_of(client.http.post("/delete", content=b"[]", headers={"content-type": "application/json"})) == (
        host.BAD_FORM
    )
    assert client.is_there(url)
    assert err(token="second-token-of-sim", ids=["0" * 24], urls=[url]) == 0
    assert err(token=TOKEN, urls=[url]) == host.NOTHING_TO_DELETE


# Faults


@pytest.mark.parametrize(("fault", "stored"), [("upload_reset", 0), ("upload_lost", 1)])
def test_resets_of_an_upload(start: Start, fault: str, stored: int) -> None:
    client = start()
    client.simulator.plan_faults("upload", fault)

    with pytest.raises(httpx2.TransportError):  # which one depends on whether it comes while writing or while reading
        client.upload()

    ledger = client.ledger()
    assert (ledger["uploads"], ledger["stored"], ledger["faults"]) == (1, stored, {fault: 1})


@pytest.mark.parametrize(
    ("fault", "status", "stored"),
    [("upload_503", 503, 0), ("upload_429", 429, 0), ("upload_504", 504, 0), ("upload_garbage", 200, 1)],
)
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_answers_that_say_nothing(start: Start, fault: str, status: int, stored: int, size: int) -> None:
    client = start()
    client.simulator.plan_faults("upload", fault)

    answer = client.upload(PNG.ljust(size))

    assert answer.status_code == status
    with pytest.raises(ValueError, match=r"."):
        answer.json()
    assert client.ledger()["stored"] == stored
    assert client.ledger()["uploads_refused"] == {}
    assert client.err() == 0


def test_an_answer_may_never_come(start: Start) -> None:
    client = start()
    client.simulator.plan_faults("upload", "upload_hang")
    client.http.timeout = httpx2.Timeout(5, read=0.05)

    with pytest.raises(httpx2.ReadTimeout):
        client.upload()

    assert client.ledger()["stored"] == 0


def test_a_refused_picture_is_answered_whatever_fault_it_meets(start: Start) -> None:
    client = start()
    client.simulator.plan_faults("upload", "upload_lost")

    assert client.err(b"no picture") == host.NOT_A_PICTURE


def test_faults_of_uploads_are_planned_or_left_to_chance_like_the_others(start: Start) -> None:
    def story() -> list[int]:
        client = start(seed=3, faults={"upload_503": 0.3, "upload_429": 0.3})
        return [client.upload().status_code for _ in range(30)]

    first = story()
    client = start()
    planned = client.http.post("/_sim/faults/next", json={"upload": [None, "upload_503"]}).json()

    assert first == story()
    assert set(first) == {200, 429, 503}
    assert planned["upload"] == [None, "upload_503"]
    assert [client.upload().status_code for _ in range(3)] == [200, 503, 200]
    assert client.http.post("/_sim/faults/next", json={"upload": ["poll_503"]}).status_code == 400
    assert client.http.post("/_sim/config", json={"faults": {"upload_503": 0.6, "upload_429": 0.6}}).status_code == 400
    assert set(UPLOAD_FAULTS) < set(FAULTS)


def test_a_prompt_cannot_ask_for_a_fault_of_an_upload(start: Start) -> None:
    assert code_of(start().submit("x [sim:upload-503]"))[1] == 50215


def test_a_host_that_is_down_takes_nothing_and_still_serves_what_it_has(start: Start) -> None:
    client = start()
    url = client.stored()
    client.simulator.plan_faults("upload", "upload_429")

    assert client.http.post("/_sim/config", json={"host_down": True}).json()["host_down"] is True
    assert [client.upload(PNG.ljust(1_000_000)).status_code for _ in range(2)] == [503, 503]
    assert client.is_there(url)
    client.simulator.configure(host_down=False)

    assert [client.upload().status_code for _ in range(2)] == [429, 200]
    assert (client.ledger()["uploads"], client.ledger()["stored"]) == (5, 2)


# The ledger, the settings, the vendor beside it


def test_the_ledger_lists_what_was_stored(start: Start) -> None:
    client = start()
    client.stored(PNG + NOISE, "猫.png")
    client.time.advance(5)
    client.stored(PICTURES["jpg"], token=OTHER_TOKEN)

    ledger = client.http.get("/_sim/ledger").json()
    first, second = ledger["items"]

    assert first.keys() == {"id", "sha256", "bytes", "name", "account", "uploaded_at", "deleted"}
    assert (first["sha256"], first["bytes"]) == (hashlib.sha256(PNG + NOISE).hexdigest(), len(PNG + NOISE))
    assert (first["name"], first["account"], first["deleted"]) == ("猫.png", ACCOUNT, False)
    assert (second["account"], second["uploaded_at"]) == (OTHER_ACCOUNT, pytest.approx(client.time.wall, abs=0.01))
    assert second["uploaded_at"] - first["uploaded_at"] == pytest.approx(5)
    assert (ledger["uploads"], ledger["stored"], ledger["downloads"]) == (2, 2, 0)
    assert client.http.get("/_sim/ledger?rows=0").json()["items"] == []


def test_a_reset_forgets_what_was_stored(start: Start) -> None:
    client = start()
    url = client.stored()
    client.err(b"no picture")

    client.http.post("/_sim/reset")

    ledger = client.ledger()
    figures = ("uploads", "stored", "uploads_refused", "most_uploads_at_once", "items")
    assert [ledger[name] for name in figures] == [0, 0, {}, 0, []]
    assert not client.is_there(url)


def test_tokens_are_not_shown(start: Start) -> None:
    client = start()

    shown = client.http.post("/_sim/config", json={"host_tokens": {"new-token": "new"}})

    assert "token" not in json.dumps(list(shown.json().values()))
    assert shown.json()["host_accounts"] == ["new"]
    assert (client.err(), client.err(token="new-token")) == (host.BAD_TOKEN, 0)


@pytest.mark.parametrize(
    "partial",
    [{"host_tokens": {"t": 1}}, {"host_parallel": -1}, {"host_down": 1}, {"upload_s": None}, {"item_lifetime_s": "x"}],
)
def test_settings_that_make_no_sense_change_nothing(start: Start, partial: object) -> None:
    client = start()
    before = client.http.get("/_sim/config").json()

    assert client.http.post("/_sim/config", json=partial).status_code == 400
    assert client.http.get("/_sim/config").json() == before


def test_the_vendor_fetches_references_from_the_host_beside_it(start: Start) -> None:
    client = start()

    def link_to(url: str) -> str:
        return str(client.http.post("/upload", data={"token": TOKEN, "src": url}).json()["url"])

    def code(*urls: str) -> int | str:
        return code_of(client.submit(image_urls=list(urls)))[1]

    png, jpg, webp, gone = (client.stored(content) for content in (PNG, PICTURES["jpg"], PICTURES["webp"], PNG))
    client.http.post("/delete", json={"token": TOKEN, "urls": [gone]})

    assert code(png, jpg, link_to(link_to(png))) == 10000
    assert code(webp) == 50207
    assert code(gone) == 50220
    assert code(link_to(gone)) == 50220
    assert code(link_to("https://example.com/a.png")) == 10000
    assert code(link_to("http://192.168.1.7/a.png")) == 50220
    for _ in range(6):
        png = link_to(png)
    assert code(png) == 50220  # redirected too often


def test_the_command_has_flags_for_the_host(tmp_path: Any) -> None:
    flags = ["--host-token", "first:studio", "--host-token", "second", "--upload-s", "0.1", "--host-down"]
    command = [sys.executable, "-m", "dujiang.simulator", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        shown = httpx2.get(f"{url}/_sim/config", trust_env=False).json()
        process.terminate()
        process.communicate(timeout=10)

    assert (shown["host_accounts"], shown["upload_s"], shown["host_down"]) == (["host-2", "studio"], 0.1, True)


def test_a_host_token_needs_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host-token", ":name"]) == 2
    assert "--host-token" in capsys.readouterr().err


def test_without_settings_there_is_one_token() -> None:
    with running(SimulatorSettings(upload_s=0.0)) as simulator:
        assert isinstance(simulator, RunningSimulator)
        client = Uploader(simulator, FakeTime())
        with client.http:
            client.stored()

        assert simulator.ledger()["items"][0]["account"] == ACCOUNT
