"""The other side of a benchmark: the simulator in a process of its own, programs that know it, and bare HTTP calls.

The bare calls sign, connect and read as the program does, through the same library, and promise nothing beyond that.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import httpx2

from dujiang.domain.accounts import Key
from dujiang.providers.jimeng import wire
from dujiang.providers.jimeng.auth import VolcengineAuth
from dujiang.runner.clock import SystemClock

KEY: Final = Key("AKLTsimulator", "c2ltdWxhdG9y")
HOST_TOKEN: Final = "superbed-simulator-token"
REQ_KEY: Final = "jimeng_t2i_v40"
LONGEST_S: Final = 1800  # a program that runs for so long hangs
PARAMETERS: Final = {"force_single": True}  # what the program sends for a plain prompt: one picture a task


@contextmanager
def vendor(**settings: object) -> Iterator[str]:
    """A simulator with these settings, for as long as the block lasts; its URL."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(settings), "utf-8")
        command = [sys.executable, "-m", "dujiang.simulator", "--port", "0", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.terminate()


def ledger(url: str) -> dict[str, Any]:
    """What the vendor has seen."""
    with urlopen(f"{url}/_sim/ledger") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def configure(url: str, **settings: object) -> None:
    """Let the vendor go on with other settings."""
    _post(f"{url}/_sim/config", settings)


def plan_faults(url: str, **faults: Sequence[str | None]) -> None:
    """Kind of request -> what its next ones meet."""
    _post(f"{url}/_sim/faults/next", faults)


def _post(url: str, value: object) -> None:
    with urlopen(Request(url, json.dumps(value).encode(), method="POST")):
        pass


def environment(home: Path, url: str, **settings: object) -> dict[str, str]:
    """The environment of a program that knows this vendor and nothing of the user's own settings."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DUJIANG_", "VOLCENGINE_", "SUPERBED_"))
    }
    ours = {"home": home, "jimeng_endpoint": url, "lang": "en", **settings}
    return {
        **plain,
        **{f"DUJIANG_{name.upper()}": str(value) for name, value in ours.items()},
        "VOLCENGINE_ACCESS_KEY": KEY.access,
        "VOLCENGINE_SECRET_KEY": KEY.secret,
    }


def output_of(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str], *, good_end: int = 0) -> str:
    """What a program says on stdout. Without a good end there is nothing to measure: this one ends, too."""
    done = subprocess.run(
        command, check=False, cwd=folder, env=dict(variables), capture_output=True, text=True, timeout=LONGEST_S
    )
    if done.returncode != good_end:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


class Refused(Exception):
    """The vendor takes no job now, from this account."""


class BareClient:
    """Submit, look, download: nothing is checked, repeated or remembered."""

    def __init__(self, url: str, key: Key = KEY) -> None:
        self._url = url
        self._auth = VolcengineAuth(key, SystemClock().now)
        submits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        polls = httpx2.Limits(max_connections=None, max_keepalive_connections=20)  # the library's default
        self._submits = httpx2.AsyncClient(verify=False, trust_env=False, limits=submits, timeout=60)
        self._polls = httpx2.AsyncClient(verify=False, trust_env=False, limits=polls, timeout=None)

    async def upload(self, file: Path) -> str:
        """The public link of a picture."""
        content = await asyncio.to_thread(file.read_bytes)
        answer = await self._polls.post(
            f"{self._url}/upload", data={"token": HOST_TOKEN}, files={"file": (file.name, content)}
        )
        return str(answer.json()["url"])

    async def submit(self, prompt: str, links: Sequence[str] = ()) -> str:
        """A job id, over a fresh connection."""
        body = wire.submit_body(REQ_KEY, prompt, PARAMETERS, links)
        answer = await self._post(self._submits, wire.SUBMIT, body, {"Connection": "close"})
        if answer.get("code") != wire.SUCCESS:
            raise Refused(str(answer))
        return str(answer["data"]["task_id"])

    async def look(self, job_id: str) -> str | None:
        """Where the job's picture is, once it is done."""
        answer = await self._post(self._polls, wire.LOOK, wire.look_body(REQ_KEY, job_id), {})
        data: Mapping[str, Any] = answer["data"]
        return str(data["image_urls"][0]) if data["status"] == "done" else None

    async def ended(self, job_id: str) -> str:
        """Where the picture is, told at the moment the job ends: what no real vendor offers."""
        answer = (await self._polls.get(f"{self._url}/_sim/jobs/{job_id}/end")).json()
        return str(answer["image_urls"][0])

    async def download(self, url: str, file: Path) -> None:
        """The picture, in a file."""
        picture = (await self._polls.get(url)).content
        await asyncio.to_thread(file.write_bytes, picture)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._submits.aclose()
        await self._polls.aclose()

    async def _post(
        self, client: httpx2.AsyncClient, action: str, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", **headers}
        reply = await client.post(f"{self._url}/?{action}", content=body, headers=headers, auth=self._auth)
        answer: dict[str, Any] = reply.json()
        return answer
