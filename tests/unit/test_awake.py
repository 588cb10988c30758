"""A run keeps the machine awake where it would fall asleep, and goes on where that does not work."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dujiang.cli.awake import awake


class Mode:
    """What `wakepy.keep.running` gives."""

    def __init__(self, seen: list[str], on_enter: Exception | None, on_exit: Exception | None) -> None:
        self.seen, self.on_enter, self.on_exit = seen, on_enter, on_exit

    def __enter__(self) -> "Mode":
        if self.on_enter:
            raise self.on_enter
        self.seen.append("awake")
        return self

    def __exit__(self, *error: object) -> None:
        self.seen.append("asleep")
        if self.on_exit:
            raise self.on_exit


Install = Callable[..., list[str]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a library in place; what happens to its mode."""

    def put(on_enter: Exception | None = None, on_exit: Exception | None = None) -> list[str]:
        seen: list[str] = []

        def running(*, on_fail: str) -> Mode:
            assert on_fail == "error"  # it must not write warnings of its own
            return Mode(seen, on_enter, on_exit)

        library: Any = ModuleType("wakepy")
        library.keep = SimpleNamespace(running=running)
        monkeypatch.setitem(sys.modules, "wakepy", library)
        return seen

    return put


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_machine_is_awake_inside_and_free_after(install: Install, platform: str) -> None:
    seen = install()

    with awake(allow_sleep=False, platform=platform):
        seen.append("work")

    assert seen == ["awake", "work", "asleep"]


@pytest.mark.parametrize(("allow_sleep", "platform"), [(True, "win32"), (True, "darwin"), (False, "linux")])
def test_nothing_is_done_where_it_may_sleep(install: Install, allow_sleep: bool, platform: str) -> None:
    seen = install()

    with awake(allow_sleep, platform):
        pass

    assert seen == []


@pytest.mark.parametrize("missing", [True, False])
def test_a_failure_costs_one_line_and_not_the_run(
    install: Install, missing: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUJIANG_LANG", "en")
    seen = install(on_enter=OSError("no caffeinate"))
    if missing:
        monkeypatch.setitem(sys.modules, "wakepy", None)

    with awake(allow_sleep=False, platform="darwin"):
        seen.append("work")

    assert seen == ["work"]
    assert capsys.readouterr().err.count("can't be kept awake") == 1


@pytest.mark.parametrize("on_exit", [None, RuntimeError("gone")])
def test_what_the_run_raises_is_what_leaves(install: Install, on_exit: Exception | None) -> None:
    seen = install(on_exit=on_exit)

    with pytest.raises(KeyboardInterrupt), awake(allow_sleep=False, platform="win32"):
        raise KeyboardInterrupt

    assert seen == ["awake", "asleep"]
