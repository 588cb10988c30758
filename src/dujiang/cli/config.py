"""`dujiang config …`."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from dujiang.cli.exits import Exit, Refused
from dujiang.cli.opening import settings_of
from dujiang.cli.show import print_fields, print_json, print_table
from dujiang.messages import text
from dujiang.settings import Settings, environment_name

__all__ = ["environment_name", "get", "schema"]

HIDDEN = "********"


def schema(*, as_json: bool) -> int:
    """Every setting: its name in the environment, default and meaning."""
    if as_json:
        print_json(Settings.model_json_schema())
        return Exit.OK
    columns = [text(f"column_{name}") for name in ("setting", "default", "meaning")]
    rows = [
        [environment_name(name, info), "" if info.default in (None, ()) else info.default, text(f"setting_is_{name}")]
        for name, info in Settings.model_fields.items()
    ]
    print_table(columns, rows, wide=[2])
    return Exit.OK


def get(setting: str | None, home: Path | None) -> int:
    """The settings in force; secrets are only said to be there."""
    settings = settings_of(home)
    shown = {name: _shown(getattr(settings, name)) for name in Settings.model_fields}
    shown["home"], shown["database_url"] = str(settings.home_folder), settings.shown_database
    shown["accounts"] = [
        f"{account.name} ({', '.join(key.fingerprint for key in account.keys)})"
        for account in settings.configured_accounts()
    ]
    if setting is None:
        shown["accounts"] = ", ".join(shown["accounts"])
        print_fields(shown)
        return Exit.OK
    name = setting.lower().removeprefix("dujiang_")
    if name not in shown:
        raise Refused("setting_unknown", setting=setting)
    print_json(shown[name])
    return Exit.OK


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    return str(value) if isinstance(value, Path) else value
