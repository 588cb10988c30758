"""Progress on stderr: a living line in a terminal, plain lines elsewhere, nothing of it on stdout."""

import re
import sys

import pytest
from rich.cells import cell_len

from .conftest import MakeVendor
from .studio import Studio, eventually

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_plain_lines_where_there_is_no_terminal(studio: Studio, make_vendor: MakeVendor) -> None:
    vendor = make_vendor(run_fixed_s=1e6)
    studio.sheet("cats.csv", *"abcde")
    process = studio.start("run", "cats.csv", "--json")

    line = process.until("done 0/5")
    eventually(lambda: len(studio.charged(vendor)) == 3)
    process.interrupt()
    process.until("stopping")
    process.interrupt()
    told = process.end()

    assert "running" in line
    assert "\x1b" not in told.everything
    assert "\r" not in told.err
    assert told.out.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
@pytest.mark.parametrize(("columns", "lang", "words"), [(120, "en", "waiting 197"), (80, "zh", "等待 197")])
def test_a_living_line_in_a_terminal(
    studio: Studio, make_vendor: MakeVendor, columns: int, lang: str, words: str
) -> None:
    vendor = make_vendor(run_fixed_s=1e6)
    studio.sheet("cats.csv", *(f"cat {number}" for number in range(200)))
    process = studio.start("run", "cats.csv", terminal=(columns, 24), DUJIANG_LANG=lang)

    eventually(lambda: len(studio.charged(vendor)) == 3)
    eventually(lambda: words in process.raw.decode("utf-8", "replace"))
    process.interrupt()
    eventually(lambda: re.search("stopping|正在停止", process.raw.decode("utf-8", "replace")))
    process.interrupt()
    told = process.end()

    shown = process.raw.decode("utf-8")
    assert told.code == 7
    assert told.out == ""
    assert "\x1b[2K" in shown  # it rewrites itself
    assert "slot(default/jimeng_t2i_v40, 3/3)" in CONTROL.sub("", shown).replace("\r\n", "").replace("\n", "")
    living = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", shown)) if " · " in line]
    assert living
    assert max(cell_len(line) for line in living) <= columns
