"""`dujiang.toml`, changed by a program: what a person wrote there stays as it is, comments included."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.items import AoT, Comment, Item, Whitespace

from dujiang.storage.folders import disk_errors, replacing

OWNER_ALONE: Final = 0o600
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # Windows would change line ends
OF_ANOTHER_KEY: Final = ("session_token", "keys")
"""What an account may have that belongs to the key it had before."""


def read(path: Path) -> str:
    """The file; nothing if there is none. Raises `StoreError`, or `UnicodeDecodeError` if it isn't UTF-8."""
    with disk_errors(path):
        return path.read_bytes().decode("utf-8") if path.is_file() else ""


def changed(source: str, account: str, key: Mapping[str, str], token: str) -> str:
    """`source` in which the account has this key, whatever it had; an empty `token` leaves that as it is.

    A new account comes last. Raises `TOMLKitError` if `source` is no TOML.
    """
    document = tomlkit.parse(source if source.endswith("\n") or not source else f"{source}\n")
    accounts: Any = document.get("accounts")
    if accounts is None or isinstance(accounts, str):  # JSON, as in the environment
        accounts = document["accounts"] = _tables(json.loads(accounts or "[]"))
    entry = next((entry for entry in accounts if entry.get("name") == account), None)
    if entry is None:
        accounts.append(_new(accounts, {"name": account, **key}, first=not source))
    else:
        _change(entry, key)
    if token and "superbed_token" in document:
        document["superbed_token"] = token
    elif token:  # on top, where it parts no comment from what it speaks of
        return tomlkit.dumps({"superbed_token": token}) + "\n" + tomlkit.dumps(document)
    return tomlkit.dumps(document)


def _tables(entries: list[dict[str, Any]]) -> AoT:
    tables = tomlkit.aot()
    for entry in entries:
        tables.append(_new(tables, entry, first=False))
    return tables


def _new(accounts: Any, entry: Mapping[str, object], *, first: bool) -> Item:
    if not isinstance(accounts, AoT):
        made = tomlkit.inline_table()
        made.update(entry)
        return made
    table = tomlkit.table()
    table.update(entry)
    table.trivia.indent = "" if first else "\n"
    return table


def _change(entry: Any, key: Mapping[str, str]) -> None:
    """Comments after the last of several keys speak of what comes next, so they outlive it."""
    stale = [entry.pop(name, None) for name in OF_ANOTHER_KEY]
    entry.update(key)
    for tables in stale:
        if isinstance(tables, AoT):
            for item in _tail(tables):
                entry.add(item)


def _tail(tables: AoT) -> list[Item]:
    body = [item for _, item in tables.body[-1].value.body]
    end = len(body)
    while end and isinstance(body[end - 1], Comment | Whitespace):
        end -= 1
    return body[end:]


def write(path: Path, words: str) -> None:
    """Put the file in its place, whole or not at all, and at no moment readable by others. Raises `StoreError`."""
    final = path.resolve()  # a link stays one
    with disk_errors(path):
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(final) as part:
            descriptor = os.open(part, NEW, OWNER_ALONE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(words.encode("utf-8"))
