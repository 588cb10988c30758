"""A studio for each test, and vendors to work with."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from dujiang.simulator import RunningSimulator, SimulatorSettings, running

from .studio import ACCESS_KEY, FOREIGN, SCALE, SECRET_KEY, Studio


class MakeVendor(Protocol):
    """Starts a vendor for the rest of the test."""

    def __call__(self, *, wall_clock: Any = None, **settings: Any) -> RunningSimulator: ...


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Studio]:
    for name in [name for name in os.environ if FOREIGN.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    made = Studio(tmp_path, dict(os.environ), capsys, monkeypatch)
    made.set(
        DUJIANG_HOME=made.home,
        DUJIANG_TIME_SCALE=SCALE,
        DUJIANG_LANG="en",
        DUJIANG_CONCURRENCY="fixed:3",  # most tests are not about how a limit finds itself
        DUJIANG_SUPERBED_ENDPOINT="http://127.0.0.1:9",
        DUJIANG_JIMENG_ENDPOINT="http://127.0.0.1:9",  # nobody is there: a test that needs a vendor makes one
        VOLCENGINE_ACCESS_KEY=ACCESS_KEY,
        VOLCENGINE_SECRET_KEY=SECRET_KEY,
    )
    yield made
    for process in made.processes:
        process.close()


@pytest.fixture
def make_vendor(studio: Studio) -> Iterator[MakeVendor]:
    with ExitStack() as stack:

        def make(*, wall_clock: Any = None, **settings: Any) -> RunningSimulator:
            clocks = {"wall_clock": wall_clock} if wall_clock else {}
            wanted = {"time_scale": SCALE, "run_fixed_s": 5.0} | settings
            vendor = stack.enter_context(running(SimulatorSettings(**wanted), **clocks))
            studio.use(vendor)
            return vendor

        yield make


@pytest.fixture
def vendor(make_vendor: MakeVendor) -> RunningSimulator:
    """A vendor whose jobs take 50 ms."""
    return make_vendor()
