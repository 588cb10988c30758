"""The cap moves while we work: 4, then 1, then 8; with and without a hint at the rise."""

import argparse
import itertools
from dataclasses import replace
from typing import Any, Final

import ours
from race import Entry, Scene, as_json, only_account, race, show, to_null
from report import Aim
from use import Caps
from vendor import configure

CAPS: Final[Caps] = [(0, 4), (300, 1), (600, 8)]
TASKS: Final = 220
"""Enough for about 500 s of the last cap."""


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> list[Aim]:
    """Ours twice, beside a client that knows the cap at every moment.

    The aim is for the slots used ÷ those that were there, up to the last submit. The jobs are the same, so whoever
    needs longer pays with slots of the highest cap; the quotient of the times would be kinder.
    """
    print(f"C = {' -> '.join(f'{cap} ({at} s)' for at, cap in CAPS)}, N = {TASKS}, unknown to us")
    (account,) = only_account(CAPS[0][1])
    entry = Entry("ours", TASKS, [replace(account, caps=CAPS)], meanwhile=_moves)
    entries = {
        "ours": entry,
        "ours, hint": replace(entry, meanwhile=_moves_and_tells),
        "null": replace(entry, role="null"),
    }
    rounds = {seed: race(entries, seed, {account.name: CAPS}) for seed in options.seeds}
    show(rounds)
    figures["moving"] = as_json(rounds)
    return [
        Aim(
            f"{name}: slots used ÷ null's, while filling (median)",
            to_null(rounds, name, "while_filling"),
            bound,
            at_least=True,
        )
        for name, bound in {"ours": 0.88, "ours, hint": 0.94}.items()
    ]


def _moves(scene: Scene, *, told: bool = False) -> None:
    (account,) = only_account(0)
    for (_, before), (at, cap) in itertools.pairwise(CAPS):
        if not scene.comes(at):
            return
        configure(scene.url, limits={account.name: cap})
        if told and cap > before:
            ours.hint(scene.home)


def _moves_and_tells(scene: Scene) -> None:
    _moves(scene, told=True)
