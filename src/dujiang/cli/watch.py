"""Progress on stderr: one living line where there is a terminal, plain lines where there is none."""

import asyncio
import sys
import time
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dujiang.cli.exits import say
from dujiang.domain.lifecycle import FINAL, State
from dujiang.messages import text
from dujiang.runner.progress import Progress, Snapshot

EVERY_S: Final = 0.5
PLAIN_EVERY_S: Final = 10.0  # a log should tell the story, not fill the disk


async def watch(progress: Progress, begun: asyncio.Event) -> None:
    """Show progress until cancelled. `begun` is set once whatever else is said finds its place beside it."""
    if sys.stderr.isatty():
        await _living(progress, begun)
    else:
        begun.set()
        await _plain(progress)


async def _living(progress: Progress, begun: asyncio.Event) -> None:
    console = Console(stderr=True, highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        begun.set()
        while True:
            live.update(Text(line(await progress.snapshot()), overflow="fold"), refresh=True)
            await asyncio.sleep(EVERY_S)


async def _plain(progress: Progress) -> None:
    last, kind, told_at = "", "", -PLAIN_EVERY_S
    while True:
        await asyncio.sleep(EVERY_S)
        seen = await progress.snapshot()
        now, kind_now = line(seen), (seen.why or "").partition("(")[0]
        due = time.monotonic() - told_at >= PLAIN_EVERY_S
        if now != last and (due or kind_now != kind):  # another obstacle is news
            say(now)
            last, kind, told_at = now, kind_now, time.monotonic()


def line(seen: Snapshot) -> str:
    """`done 120/400 · running 3 of 3 · waiting 277: slot(…) · 7.8 images/min · 36 min left`."""
    parts = [text("progress_done", done=seen.done, total=seen.total)]
    parts.append(text("progress_running", running=seen.in_use, limit="?" if seen.limit is None else seen.limit))
    if seen.waiting:
        parts.append(text("progress_waiting", waiting=seen.waiting, why=seen.why))
    if seen.counts.get(State.COLLECTING):
        parts.append(text("progress_collecting", count=seen.counts[State.COLLECTING]))
        parts += [seen.why] if seen.why and not seen.waiting else []  # paid pictures that the disk keeps waiting
    bad = sum(seen.counts.get(state, 0) for state in FINAL - {State.SUCCEEDED, State.CANCELLED})
    if bad:
        parts.append(text("progress_bad", count=bad))
    if doubts := seen.counts.get(State.IN_DOUBT):
        parts.append(text("progress_doubt", count=doubts))
    if seen.images_a_minute:
        parts.append(text("progress_pace", pace=f"{seen.images_a_minute:.1f}"))
    if seen.tasks_a_minute and seen.possible_a_minute:
        rates = (seen.tasks_a_minute, seen.possible_a_minute)
        rate, possible = (f"{value:.1f}" for value in rates)
        parts.append(text("progress_rate", rate=rate, possible=possible, share=f"{100 * rates[0] / rates[1]:.0f}"))
    if seen.left_s is not None and seen.done < seen.total:
        parts.append(text("progress_left", left=duration(seen.left_s)))
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """`42s`, `36m`, `5h 12m`."""
    if seconds < 90:
        return f"{max(1, round(seconds))}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 100 else f"{minutes // 60}h {minutes % 60:02d}m"
