"""`dujiang init`: asks for keys and writes them into the home folder's dujiang.toml, for its owner alone.

Keys come from the terminal, where they are not shown, or as lines on stdin: never from the command line, which every
program on the machine can read.
"""

import getpass
import os
import string
import sys
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tomlkit.exceptions import TOMLKitError

from dujiang.cli.exits import Exit, Refused, say
from dujiang.cli.opening import settings_of
from dujiang.domain.accounts import fingerprint_of, foreign_sign
from dujiang.messages import text
from dujiang.settings import Settings, SettingsInvalid, files_of, load, set_ahead
from dujiang.storage import keyring_entries, settings_file

PASTED_ALONG: Final = string.whitespace + "\"'`“”‘’\u00a0\u3000\u200b\ufeff"
"""What comes along when a key is copied from a page, a chat or a script."""


@dataclass(frozen=True, slots=True, repr=False)
class Answers:
    """What was typed, or what stands for it in the file."""

    access_key: str
    secret_key: str
    superbed_token: str = ""

    @property
    def key(self) -> dict[str, str]:
        """What belongs to the account."""
        return {"access_key": self.access_key, "secret_key": self.secret_key}


def init(account: str, home: Path | None, arguments: list[str], *, keyring: bool) -> int:
    """Ask, check, write; what is wrong with a file that is there is told before anything is asked."""
    if arguments:
        raise Refused("init_arguments")
    if not account.strip() or not account.isprintable():
        raise Refused("init_account")
    settings = settings_of(home)
    path = files_of(home)[1].absolute()
    if keyring:
        keyring_entries.prove_usable()
    try:
        answers = _asked(account, path)
    except (KeyboardInterrupt, EOFError):
        say("\n" + text("init_interrupted"))
        return Exit.INTERRUPTED
    _prove(_changed(path, account, answers), home)
    written = _kept(account, answers) if keyring else answers
    settings_file.write(path, _changed(path, account, written))
    _tell(path, home, settings, answers)
    return Exit.OK


def _asked(account: str, path: Path) -> Answers:
    if _is_terminal():
        say(text("init_asks", account=account, path=path))
    return Answers(
        _answer(text("init_access_key")),
        _answer(text("init_secret_key")),
        _answer(text("init_superbed_token"), may_be_empty=True),
    )


def _answer(what: str, *, may_be_empty: bool = False) -> str:
    """A key that may be one. In a terminal it is asked for until it is."""
    while True:
        word = _line(what).strip(PASTED_ALONG)
        sign = foreign_sign(word)
        if sign is None and (word or may_be_empty):
            return word
        fault = Refused("init_sign" if word else "init_empty", what=what, place=sign)
        if not _is_terminal():
            raise fault
        say(text(fault.text_code, **fault.fields))


def _line(what: str) -> str:
    if not _is_terminal():
        return sys.stdin.buffer.readline().decode("utf-8", "replace") if sys.stdin else ""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(text("init_prompt", what=what))
        except getpass.GetPassWarning:
            raise Refused("init_shown") from None


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _changed(path: Path, account: str, answers: Answers) -> str:
    """The file as it shall be. Raises `SettingsInvalid` if it can't be read as it is."""
    try:
        return settings_file.changed(settings_file.read(path), account, answers.key, answers.superbed_token)
    except UnicodeDecodeError:
        raise SettingsInvalid([(str(path), text("setting_encoding"))]) from None
    except TOMLKitError as error:
        raise SettingsInvalid([(str(path), text("setting_toml", reason=error))]) from None


def _prove(written: str, home: Path | None) -> None:
    """Raises `SettingsInvalid` if the accounts can't be used together."""
    load(home=home, accounts=tomllib.loads(written)["accounts"]).configured_accounts()


def _kept(account: str, answers: Answers) -> Answers:
    """The same in the keyring. The names there hold fingerprints, so that no other home's keys are overwritten."""
    place, token = f"{account}/{fingerprint_of(answers.access_key)[:12]}", answers.superbed_token
    return Answers(
        keyring_entries.keep(f"{place}/access_key", answers.access_key),
        keyring_entries.keep(f"{place}/secret_key", answers.secret_key),
        keyring_entries.keep(f"superbed_token/{fingerprint_of(token)[:12]}", token) if token else "",
    )


def _tell(path: Path, home: Path | None, settings: Settings, answers: Answers) -> None:
    """Where it went, what does not count, and what to do next."""
    say(text("init_written", path=path))
    if not answers.superbed_token:
        say(text("init_token_stays" if settings.superbed_token else "init_no_token"))
    fields = ["accounts", *(["superbed_token"] if answers.superbed_token else [])]
    if ahead := set_ahead(home, fields):
        say(text("init_ahead", names=", ".join(ahead)))
    if idle := [name for name in ("VOLCENGINE_ACCESS_KEY", "VOLCENGINE_SECRET_KEY") if os.environ.get(name)]:
        say(text("init_idle", names=", ".join(idle)))
    elsewhere = f' --home "{home}"' if files_of()[1].absolute() != path else ""
    say(text("init_next", command=f"dujiang doctor{elsewhere}"))
