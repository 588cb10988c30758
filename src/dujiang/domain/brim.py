"""The limit that finds itself. Pure arithmetic: the clock, the counts and the random numbers come in as arguments.

The vendor refuses (50430) whatever is over a cap that moves and that nobody can ask for. So: fill the lane until a task
is refused, hold exactly there, look again now and then. `permit` is asked before every submit, the answers come back as
events, and what is learned is one small value a lane, `Belief`. How many jobs there are is never part of it: that is
counted each time (`Load`), so it can't drift. A refused task goes back to the head of the line and has lost nothing.

- **Climbing**, while no limit is known: the next submit follows the answer to the last, several at once when many are
  held. The first refusal is the *brim*: the limit is what is held then. If that is nothing, the jobs that fill the lane
  aren't ours: wait, and climb on.
- **Holding**: replace every job that has ended. Now and then submit one task more, a *probe*. If it is refused, the
  next one comes 1.6 times later, up to 38·S/√L (S: mean run time). If it is admitted, it may have replaced a job whose
  end isn't seen yet: a moment later it is known whether to climb (`confirm`). In a large lane an end is always unseen:
  it climbs at once, and only a brim clearly above the former limit is news (`slack`).
- **Refused within the limit**: wait, each time twice as long. At the second refusal the limit falls to what is held; at
  the first, too, where a second try has hardly ever helped (`patience`). Until the old limit is reached again, or is
  long gone, the lane probes often (`memory`).
- If the second try is admitted and no other job has ended since, the vendor frees slots late. From now on they stay
  empty for a moment (`settle`).
- Some vendors answer a refusal with more refusals. A `pause` after each is learned.
- At most one probe is refused for every four tasks admitted, whatever goes wrong (`budget`).

An answer to what was sent before the last refusal adds nothing to it, so a burst of refusals counts once. 50429 says
nothing about the cap (see `pace`). `benchmarks/limiter.py` measures what each refinement is worth, and the whole.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from dujiang.domain.belief import CLIMBING, LONG_AGO, NEVER, TOKENS, Belief, Kind, Load, Permit, Sent

MOST: Final = 10_000
"""No lane holds more."""
SAME_TIME_S: Final = 1.0
"""Two workers may tell what happened at the same time in the wrong order; that is no clock that went back."""


@dataclass(frozen=True, slots=True)
class Brim:
    """The parameters and the arithmetic.

    Every event takes what is believed and gives what is believed next. `load` is counted after the event; `chance` is
    uniform from 0 to 1. That a submit stays unanswered is no event: it is counted as `empty` from then on.
    """

    spacing: float = 38.0
    """Longest time between probes of a lane of one slot, in run times: refusals against the time to notice a rise."""
    longest_s: float = 900.0
    """Longest time between probes of any lane."""
    growth: float = 1.6
    """How much later the next probe comes after one that was refused."""
    share: float = 0.1
    """Submits on their way at once while climbing, for each job held."""
    poll_s: float = 0.5
    """Time between two looks at a job that may end."""
    answer_s: float = 0.15
    """Time for an answer; real, so never scaled."""
    low: int = 1
    high: int = MOST
    scale: float = 1.0
    """Length of one of our seconds; measured times are never scaled."""
    confirm: bool = True  # the refinements; only the benchmark turns them off
    slack: bool = True
    memory: bool = True
    settle: bool = True
    pause: bool = True
    budget: bool = True
    patience: bool = True

    @property
    def notice_s(self) -> float:
        """After this an ended job has nearly always been seen to end."""
        return self.poll_s * self.scale + self.answer_s

    def scaled(self, scale: float) -> "Brim":
        """The same, where a second of ours lasts `scale` seconds."""
        return replace(self, scale=self.scale * scale)

    def start(self) -> Belief:
        """About a lane of which nothing is known."""
        return Belief(limit=self.low if self.low > 1 else CLIMBING, run_s=20 * self.scale)

    # -- May one be submitted? ----------------------------------------------------------------------------------------

    def permit(self, belief: Belief, load: Load, backlog: int, now: float) -> tuple[Belief, Permit]:
        """How many of `backlog` tasks may be submitted at once: as many as if asked for one after the other."""
        belief = self._judged(self._in_time(self._within(belief), now), load, now)
        if not backlog:
            return belief, Permit(0, why="idle")
        if not load.slots and self._is_stale(belief, now):
            belief = self.hinted(belief, now)  # nobody has looked for so long: who knows what it is by now
        if now < belief.gate:
            return belief, Permit(0, why="refused", again_s=belief.gate - now)
        kind, limit = (Kind.GROW, self.high) if belief.limit == CLIMBING else (Kind.ORDINARY, int(belief.limit))
        if kind is Kind.GROW and load.empty >= max(2, load.held // 10):
            # Each may be paid for: until their slots are free no more are held than was right before.
            kind, limit = Kind.ORDINARY, belief.former
            if load.slots >= limit:
                return belief, Permit(0, why="unanswered")
        if load.slots < limit:
            count = min(self._window(belief, load) - load.unanswered, limit - load.slots, backlog)
            return belief, Permit(count, kind) if count > 0 else Permit(0, why="unanswered")
        due_at = belief.verdict_at
        if kind is Kind.ORDINARY and load.slots == limit and self._may_probe(belief, load, backlog):
            if belief.probe_at <= now:
                return belief, Permit(1, Kind.PROBE)
            due_at = belief.probe_at
        return belief, Permit(0, why="full", again_s=due_at - now if due_at < NEVER else None)

    def _is_stale(self, belief: Belief, now: float) -> bool:
        """Whether no job has ended for so long that a probe would be due however seldom they are; and none is."""
        long_ago = now - self.longest_s * self.scale
        return LONG_AGO < belief.ended_at < long_ago and not long_ago <= belief.probe_at <= now

    def _window(self, belief: Belief, load: Load) -> int:
        """How many submits may be on their way at once: as many as the answers so far have earned."""
        if belief.refusals or not load.held:
            return 1
        if belief.limit < CLIMBING:
            return belief.admissions + 1
        known = belief.former + self._slack(belief.former, belief)
        return 1 + int(self.share * max(0, load.held - known))

    def _may_probe(self, belief: Belief, load: Load, backlog: int) -> bool:
        return (
            belief.limit < self.high
            and not load.unanswered
            and not belief.refusals
            and belief.verdict_at == NEVER
            and (belief.tokens >= 1 or not self.budget)
            and backlog * 2 >= belief.limit  # with little left to do, more slots are worth little
        )

    def _judged(self, belief: Belief, load: Load, now: float) -> Belief:
        """The verdict on an admitted probe: by now the end of the job that it may have replaced has been seen."""
        if now < belief.verdict_at:
            return belief
        if load.held > belief.limit:
            return self._climbing(belief)
        return replace(belief, verdict_at=NEVER, probe_at=now + 2 * self.notice_s)

    def _within(self, belief: Belief) -> Belief:
        """The bounds may have been set since."""
        if self.low <= belief.limit <= self.high or belief.limit == CLIMBING:
            return belief
        return self._at(belief, int(belief.limit), "bounds")

    def _in_time(self, belief: Belief, now: float) -> Belief:
        """A clock that went back must not lengthen a wait, nor make new refusals old ones (DESIGN rule 11)."""
        belief = self._shortened(belief, now)
        if max(belief.refused_at, belief.expected_at, belief.ended_at) <= now + SAME_TIME_S:
            return belief
        return replace(
            belief,
            refused_at=LONG_AGO,
            expected_at=LONG_AGO,
            ended_at=LONG_AGO,
            dropped_at=LONG_AGO,
            gate=LONG_AGO,
            verdict_at=now if belief.verdict_at < NEVER else NEVER,
            probe_at=min(belief.probe_at, now + belief.probe_every_s),
        )

    def _shortened(self, belief: Belief, now: float) -> Belief:
        """No moment to wait for is farther away than the longest wait that can have set it."""
        gate = min(belief.gate, now + max(1.4 * belief.run_s, belief.pause_s))
        verdict_at = min(belief.verdict_at, now + self.notice_s) if belief.verdict_at < NEVER else NEVER
        probe_at = belief.probe_at
        if probe_at < NEVER:
            probe_at = min(probe_at, now + max(1.15 * belief.probe_every_s, 2 * self.notice_s))
        if (gate, verdict_at, probe_at) == (belief.gate, belief.verdict_at, belief.probe_at):
            return belief
        return replace(belief, gate=gate, verdict_at=verdict_at, probe_at=probe_at)

    # -- Events -------------------------------------------------------------------------------------------------------

    def admitted(self, belief: Belief, sent: Sent, load: Load, now: float) -> Belief:
        """The vendor has taken the task."""
        belief = self._settled(self._aftermath(belief, sent, refused=False), sent)
        belief = replace(
            belief,
            refusals=0,
            admissions=1 if load.held == 1 else belief.admissions + 1,  # a lane that was idle begins with small steps
            tokens=min(belief.tokens + 0.25, TOKENS),
        )
        if sent.kind is Kind.PROBE and belief.limit < CLIMBING:
            if self.confirm and self._is_small(belief.limit, belief):
                return replace(belief, verdict_at=now + self.notice_s)
            return self._climbing(belief)
        if load.held >= self.high:
            return self._at(belief, self.high, "high")
        if load.held > belief.limit and belief.verdict_at == NEVER:
            return self._at(belief, load.held, "admitted")
        return belief

    def refused(self, belief: Belief, sent: Sent, load: Load, now: float, chance: float) -> Belief:
        """50430: the cap is reached. The task goes back to the head of the line and has lost nothing."""
        belief = self._aftermath(belief, sent, refused=True)
        if sent.kind is Kind.PROBE:
            return self._expected(self._rarer(belief, now), now, chance)
        if sent.at < belief.refused_at:
            return belief
        belief = replace(belief, refused_at=now)
        if belief.limit < CLIMBING:
            return self._unexpected(belief, sent, load, now, chance)
        return self._brim(belief, load, now, chance)

    def too_fast(self, belief: Belief) -> Belief:
        """50429 says nothing about the cap, but that bursts are over."""
        return replace(belief, admissions=0)

    def ended(self, belief: Belief, run_s: float | None, now: float) -> Belief:
        """A job was seen to end, `run_s` after it was accepted; None if that isn't known, as for an adopted job."""
        belief = replace(belief, ended_at=now, suspect=False)
        if run_s is None:
            return belief
        weight = max(0.05, 1 / (belief.runs + 2))
        mean_s = belief.run_s + weight * (run_s - belief.run_s)
        return replace(belief, runs=belief.runs + 1, run_s=max(mean_s, self.scale))

    def stays_empty_s(self, belief: Belief) -> float:
        """How long the slot of a job that was seen to end stays in use."""
        return belief.settle_s if belief.settle_s > 0.05 * self.scale else 0.0

    def hinted(self, belief: Belief, now: float) -> Belief:
        """Somebody says that the cap has risen: look now, and soon again."""
        return replace(belief, probe_every_s=self._first_look_s(belief), probe_at=now)

    # -- Where the limit goes -----------------------------------------------------------------------------------------

    def _climbing(self, belief: Belief) -> Belief:
        return replace(belief, limit=CLIMBING, former=int(belief.limit), verdict_at=NEVER, why="probe")

    def _brim(self, belief: Belief, load: Load, now: float, chance: float) -> Belief:
        """The refusal that ends a climb."""
        held = load.held
        if not held:  # what fills the lane isn't ours, so its cap is as unknown as before
            return self._gated(belief, load, now, chance)
        if belief.former and held <= belief.former + self._slack(belief.former, belief):  # nothing new
            unseen = self._unseen(held, belief)
            level = max(min(held, belief.former), round(held - unseen))
            belief = self._rarer(belief, now)
        else:
            level = held
            if level >= belief.dropped_from:
                every_s = max(self._first_look_s(belief), self._longest_s(level, belief, now) / 2)
                belief = replace(belief, probe_every_s=every_s)
        belief = self._expected(self._at(belief, level, "50430"), now, chance)
        return belief if held >= self.low else self._gated(belief, load, now, chance)

    def _unexpected(self, belief: Belief, sent: Sent, load: Load, now: float, chance: float) -> Belief:
        """Within the limit a task was refused: a slot that is still settling, or the cap has fallen."""
        before = belief.limit
        if not belief.refusals:
            belief = replace(belief, suspect=sent.at - belief.ended_at < belief.settle_s + self.scale)
        elif belief.refusals == 1 and self.patience:
            belief = replace(belief, settling=0.8 * belief.settling)
        belief = self._gated(replace(belief, admissions=0), load, now, chance)
        if belief.refusals == 1 and belief.settling > 0.25 and self._is_small(before, belief):
            return belief
        belief = self._at(belief, min(max(load.held, 1), int(before)), "50430")
        if belief.limit < before - self._slack(before, belief) or belief.refusals >= 3:
            next_end_s = belief.run_s / belief.limit
            belief = replace(belief, probe_every_s=max(self._first_look_s(belief), next_end_s))
            if self.memory:
                belief = replace(belief, dropped_from=belief.dropped_from or int(before), dropped_at=now)
        return self._probe_later(belief, now, chance)

    def _at(self, belief: Belief, level: int, why: str) -> Belief:
        limit = min(max(level, self.low), self.high)
        dropped_from = belief.dropped_from if limit < belief.dropped_from else 0
        return replace(belief, limit=limit, why=why, dropped_from=dropped_from)

    # -- Waiting ------------------------------------------------------------------------------------------------------

    def _gated(self, belief: Belief, load: Load, now: float, chance: float) -> Belief:
        """One more unexpected refusal: submit nothing for a while, each time twice as long."""
        level = belief.limit if belief.limit < CLIMBING else max(1, belief.former)
        first_s = min(max(belief.run_s / level, 0.25 * self.scale), self.scale)
        longest_s = 0.6 * belief.run_s * (1 if load.held else 2)
        wait_s = min(first_s * 2.0 ** min(belief.refusals, 30), longest_s) * (0.9 + 0.2 * chance)
        return replace(belief, refusals=belief.refusals + 1, gate=max(belief.gate, now + max(wait_s, belief.pause_s)))

    def _expected(self, belief: Belief, now: float, chance: float) -> Belief:
        """A refusal that was asked for: go on, after the pause if there is one."""
        belief = self._probe_later(replace(belief, expected_at=now), now, chance)
        return replace(belief, gate=max(belief.gate, now + belief.pause_s)) if belief.pause_s else belief

    def _probe_later(self, belief: Belief, now: float, chance: float) -> Belief:
        return replace(belief, probe_at=now + belief.probe_every_s * (0.85 + 0.3 * chance))

    def _rarer(self, belief: Belief, now: float) -> Belief:
        """A look has found nothing new: the next ones come later."""
        level = belief.limit if belief.limit < CLIMBING else max(1, belief.former)
        every_s = self.growth * max(belief.probe_every_s, self._first_look_s(belief))
        every_s = min(every_s, self._longest_s(level, belief, now))
        return replace(belief, probe_every_s=every_s, tokens=max(0.0, belief.tokens - 1))

    def _first_look_s(self, belief: Belief) -> float:
        return max(2 * self.scale, belief.run_s / 3)

    def _longest_s(self, level: float, belief: Belief, now: float) -> float:
        longest_s = min(self.longest_s * self.scale, self.spacing * belief.run_s / math.sqrt(level))
        if now < belief.dropped_at + 30 * belief.run_s:
            longest_s = min(longest_s, 3 * belief.run_s)
        return max(longest_s, 0.4 * belief.run_s)

    # -- Ends that haven't been seen ----------------------------------------------------------------------------------

    def _is_small(self, level: float, belief: Belief) -> bool:
        """Whether the lane is so small that nearly always every end has been seen."""
        return level * self.notice_s < 0.5 * belief.run_s

    def _unseen(self, level: float, belief: Belief) -> float:
        """How many of the jobs held have ended, on average."""
        if not self.slack or self._is_small(level, belief):
            return 0.0
        return 0.55 * self.notice_s * level / belief.run_s

    def _slack(self, level: float, belief: Belief) -> int:
        """How many more than the cap may seem to be held."""
        unseen = self._unseen(level, belief)
        return math.ceil(unseen + 2.5 * math.sqrt(unseen))

    # -- What refusals teach ------------------------------------------------------------------------------------------

    def _settled(self, belief: Belief, sent: Sent) -> Belief:
        """Whether slots are freed late: learned when a suspicion turns out right, slowly forgotten otherwise."""
        found_free = belief.refusals and belief.suspect and sent.at - belief.ended_at < 4 * self.scale
        if self.settle and found_free:
            settling = belief.settling + 0.2 * (1 - belief.settling)
            settle_s = min(belief.settle_s + 0.3 * self.scale, 3 * self.scale)
            return replace(belief, settling=settling, settle_s=settle_s, suspect=False)
        if belief.settle_s and sent.kind is Kind.ORDINARY:
            return replace(belief, settle_s=max(0.0, belief.settle_s - 0.006 * self.scale))
        return belief

    def _aftermath(self, belief: Belief, sent: Sent, *, refused: bool) -> Belief:
        """Whether the vendor punishes refusals: the first answer after an expected one is then worse than others."""
        if not self.pause:
            return belief
        since_s = sent.at - belief.expected_at
        if belief.expected_at == LONG_AGO or since_s < 0:
            if belief.refusals:  # a row of them counts as its first
                return belief
            return replace(belief, unpunished=belief.unpunished + (refused - belief.unpunished) / 20)
        belief = replace(belief, expected_at=LONG_AGO)
        if since_s > max(10 * self.scale, 1.5 * belief.pause_s):
            return belief
        punished = belief.punished + (refused - belief.punished) / 3
        pause_s = belief.pause_s
        if not refused:
            pause_s *= 0.97
        elif punished > 0.65 and punished > belief.unpunished + 0.4:
            pause_s = min(1.5 * max(pause_s, since_s), 20 * self.scale)
        return replace(belief, punished=punished, pause_s=pause_s)
