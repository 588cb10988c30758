"""A job is looked at only where it was submitted: another endpoint knows nothing of it, and must not be believed."""

import signal

from .conftest import MakeVendor
from .studio import Studio, eventually, needs_signals
from .test_stops import FOREVER_S, finish_jobs

pytestmark = needs_signals


def test_a_job_at_another_endpoint_is_left_alone_and_collected_when_that_is_back(
    studio: Studio, make_vendor: MakeVendor
) -> None:
    first = make_vendor(run_fixed_s=FOREVER_S)
    studio.sheet("cats.csv", "a", "b")
    process = studio.start("run", "cats.csv")
    eventually(lambda: len(studio.charged(first)) == 2)
    process.interrupt(signal.SIGKILL)
    process.end()

    other = make_vendor()
    elsewhere = studio.run("run", "cats.csv", "--json")
    finish_jobs(first)
    studio.use(first)
    back = studio.run("run", "cats.csv", "--json")

    assert (elsewhere.code, elsewhere.json["counts"]) == (6, {"generating": 2})
    assert "DUJIANG_JIMENG_ENDPOINT" in elsewhere.err
    assert other.ledger()["polls"] == 0
    assert (back.code, back.json["counts"]) == (0, {"succeeded": 2})
