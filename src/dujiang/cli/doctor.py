"""`dujiang doctor`: what could stand in the way, each with what to do."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dujiang import wiring
from dujiang.cli.exits import Exit, describe
from dujiang.cli.opening import settings_of
from dujiang.cli.show import print_json, print_table
from dujiang.domain.errors import DujiangError
from dujiang.engines.sql.schema import REVISION
from dujiang.messages import text
from dujiang.settings import Settings, environment_name
from dujiang.storage.keyring_entries import KeyringRefused

LOW_GB = 1.0
SKEW_MAX_S = 900
NETWORK: Final = "network"
TROUBLESHOOTING: Final = "docs/troubleshooting.md"
"""Its sections have names that programs may rely on; the Chinese one has the same."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    details: str
    exit_code: Exit = Exit.INPUT
    section: str = ""
    """Where docs/troubleshooting.md goes on about it, if not in the section of its name."""

    @property
    def anchor(self) -> str:
        """The section that a person who has this problem reads."""
        return self.section or self.name


def doctor(out: Path, home: Path | None, *, as_json: bool) -> int:
    """Every check, and the exit code of the first that failed."""
    checks = list(_checks(out, home))
    if as_json:
        for check in checks:
            help_ = {} if check.ok else {"help": f"{TROUBLESHOOTING}#{check.anchor}"}
            print_json({"check": check.name, "ok": check.ok, "details": check.details, **help_})
    else:
        columns = [text(f"column_{name}") for name in ("check", "result", "details")]
        rows = [
            [text(f"doctor_{check.name}"), text("doctor_ok" if check.ok else "doctor_bad"), _told(check)]
            for check in checks
        ]
        print_table(columns, rows, wrapped=2)
    return next((check.exit_code for check in checks if not check.ok), Exit.OK)


def _told(check: Check) -> str:
    """Its details, and where to read on if it failed."""
    return check.details if check.ok else f"{check.details}\n{text('doctor_see', anchor=check.anchor)}"


def _checks(out: Path, home: Path | None) -> Iterator[Check]:
    try:
        settings = settings_of(home)
        accounts = settings.configured_accounts()
    except KeyringRefused as error:
        yield Check("keys", False, describe(error), Exit.CREDENTIALS)
        return
    except DujiangError as error:
        yield Check("settings", False, describe(error))
        return
    unknown = _unknown_variables()
    details = text("doctor_settings_unknown", names=", ".join(unknown)) if unknown else ""
    yield Check("settings", not unknown, details)
    if not accounts:
        yield Check("keys", False, text("no_credentials"), Exit.CREDENTIALS)
    yield from _proxies(settings)
    yield from asyncio.run(_vendor(settings))
    yield asyncio.run(_host(settings))
    yield from (_disk(out), asyncio.run(_database(settings)))


def _unknown_variables() -> list[str]:
    """A misspelt variable would be ignored in silence."""
    known = {environment_name(name, info) for name, info in Settings.model_fields.items()} | {"DUJIANG_DEBUG"}
    return sorted(name for name in os.environ if name.startswith("DUJIANG_") and name not in known)


def _proxies(settings: Settings) -> Iterator[Check]:
    """Never at fault: it tells where to look when the endpoint is silent."""
    with suppress(ValueError):  # what is wrong with the endpoint is told by its own check
        way = wiring.way_to_endpoint(settings)
        code = "doctor_proxy_local" if way.on_this_machine else "doctor_proxy" if way.proxy else "doctor_proxy_none"
        yield Check("proxies", True, text(code, proxy=way.proxy))


async def _vendor(settings: Settings) -> list[Check]:
    """Ask for a job that does not exist: it costs nothing, and tells endpoint, keys and clock apart."""
    try:
        wiring.check_address(settings.jimeng_endpoint)
        found = [probe for account in settings.configured_accounts() for probe in await wiring.probe(settings, account)]
    except DujiangError as error:
        return [Check("endpoint", False, describe(error), section=NETWORK)]
    endpoint = settings.jimeng_endpoint
    if not found:
        return []
    silent = next((probe.network for probe in found if probe.network), None)
    if silent:
        told = text("doctor_endpoint_silent", endpoint=endpoint, reason=silent)
        untested = [text("doctor_keys_untested", account=probe.account) for probe in found]
        named = [("endpoint", told), *(("keys", details) for details in untested)]
        return [Check(name, False, details, Exit.UNREACHABLE, NETWORK) for name, details in named]
    checks = [Check("endpoint", True, text("doctor_endpoint_answers", endpoint=endpoint))]
    for probe in found:
        code = "doctor_keys_refused" if probe.refused else "doctor_keys_accepted"
        details = text(code, account=probe.account, reason=probe.refused)
        checks.append(Check("keys", not probe.refused, details, Exit.CREDENTIALS))
    checks.append(_clock([probe.skew_s for probe in found if probe.skew_s is not None]))
    return checks


async def _host(settings: Settings) -> Check:
    """Asks whether somebody is there. Uploads nothing: pictures that are refused suspend an account."""
    try:
        wiring.check_address(settings.superbed_endpoint)
        if settings.image_host == "inline":
            return Check("host", True, text("doctor_host_inline"))
        if not settings.configured_superbed_token():
            return Check("host", True, text("doctor_host_no_token"))
        silence = await wiring.probe_host(settings)
    except KeyringRefused as error:
        return Check("host", False, describe(error), Exit.CREDENTIALS, "keys")
    except DujiangError as error:
        return Check("host", False, describe(error))
    code = "doctor_host_silent" if silence else "doctor_host_answers"
    details = text(code, endpoint=settings.superbed_endpoint, reason=silence)
    return Check("host", not silence, details, Exit.UNREACHABLE)


def _clock(skews: list[float]) -> Check:
    if not skews:
        return Check("clock", True, text("doctor_clock_unknown"))
    skew = max(skews, key=abs)
    wrong = abs(skew) > SKEW_MAX_S
    return Check("clock", not wrong, text("doctor_clock_wrong" if wrong else "doctor_clock_right", skew=f"{skew:+.0f}"))


def _disk(out: Path) -> Check:
    folder = out.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return Check("disk", False, text("disk_denied", path=folder, value=error.strerror or type(error).__name__))
    code = "doctor_disk_low" if free < LOW_GB else "doctor_disk_free"
    return Check("disk", free >= LOW_GB, text(code, path=folder, free=f"{free:.1f}"))


async def _database(settings: Settings) -> Check:
    try:
        async with wiring.open_engine(settings):
            pass
    except DujiangError as error:
        return Check("database", False, describe(error))
    return Check("database", True, text("doctor_database_ok", path=settings.shown_database, schema=REVISION))
