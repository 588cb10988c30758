"""Several accounts: caps 1, 2, 3 and 10, unknown to us; one is overdue all along, one loses its key in the middle."""

import argparse
from typing import Any, Final

import ours
from clients import Account
from race import Entry, Scene, as_json, race, show, to_null
from report import Aim
from use import TIME_SCALE, Caps
from vendor import configure

TASKS: Final = 400
TURNS_AT: Final = 350
CAPS: Final[dict[str, Caps]] = {"one": [(0, 1)], "three": [(0, 3), (TURNS_AT, 0)], "ten": [(0, 10)]}
"""Of the good ones, as long as they are good."""
OVERDUE: Final = {"two": (403, "AccountOverdue", "The account is overdue.")}
WITHOUT_KEY: Final = {"three": (401, "InvalidAccessKey", "The access key is missing or unknown.")}
SAID: Final = {"two": "overdue: ", "three": "auth: "}
"""Account -> how the reason begins that we have to give."""


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> list[Aim]:
    """Ours with all four, beside a null run with the good ones. No task may fail, and the bad ones have to say why.

    The key that was lost is found again when nothing is left but the jobs that it ran: those were paid for.
    """
    print(f"C = 1, 2 (overdue), 3 (401 after {TURNS_AT} s) and 10, N = {TASKS}, unknown to us")
    good = [Account(name, f"AKLT{name}", "c2ltdWxhdG9y", caps) for name, caps in CAPS.items()]
    overdue = Account("two", "AKLTtwo", "c2ltdWxhdG9y", [(0, 2)])
    null = Entry("null", TASKS, good)
    entry = Entry("ours", TASKS, [*good, overdue], vendor={"refused_accounts": OVERDUE}, meanwhile=_key_lost_and_found)
    rounds = {seed: race({"ours": entry, "null": null}, seed, CAPS) for seed in options.seeds}
    show(rounds)
    figures["pool"] = as_json(rounds)
    used = to_null(rounds, "ours", "while_filling")
    return [Aim("slots of good accounts used ÷ null's, while filling (median)", used, 0.93, at_least=True)]


def _key_lost_and_found(scene: Scene) -> None:
    if not scene.comes(TURNS_AT):
        raise AssertionError("over before the key was lost")
    configure(scene.url, refused_accounts=OVERDUE | WITHOUT_KEY)
    while not _only_its_jobs_are_left(scene):
        if scene.over.wait(TIME_SCALE):
            raise AssertionError("over without the jobs of the account whose key was lost")
    said = ours.rests(scene.home)
    for account, reason in SAID.items():
        assert said.get(account, "").startswith(reason), f"{account} has to say {reason}: {said}"
    configure(scene.url, refused_accounts=OVERDUE)


def _only_its_jobs_are_left(scene: Scene) -> bool:
    return ours.unfinished(scene.home) == {"three"}
