"""dujiang.toml after a program changed it: what it says is as wanted, and nothing that a person wrote is gone."""

import json
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tomlkit.exceptions import TOMLKitError

from dujiang.storage.settings_file import changed, write

KEY = {"access_key": "A", "secret_key": "S"}

HEADS = [
    "",
    "# of the studio\n",
    "concurrency = 'fixed:2'",
    "concurrency = 'fixed:2' # why\n\n# tail\n",
    "superbed_token = 'old' # of Mei\n",
    "concurrency = 'fixed:2'\r\n# made on Windows\r\n",
]
ACCOUNTS = [
    "",
    "[[accounts]]\nname='default'\naccess_key='x'\nsecret_key='y'\nsession_token='z'\nmodels=['4.0'] # slow ones\n",
    "[[accounts]]\nname='o'\naccess_key='x'\nsecret_key='y'",
    "  [[accounts]]\n    name='o'\n    access_key='x'\n",
    "accounts=[{name='o',access_key='a'}]\n",
    "accounts=[\n  {name='o',access_key='a'}, # o\n  # d\n  {name='default',access_key='q',session_token='s'},\n]\n",
    "accounts=[]\n",
    'accounts=\'[{"name":"o","access_key":"a"}]\'\n',
    """\
# the first
[[accounts]] # of Li
name='o'

# of all
[[accounts]]
name='default'
concurrency='fixed:1'
# two keys
[[accounts.keys]]
access_key='1'
secret_key='2'
[[accounts.keys]]
access_key='3'
secret_key='4'

# the last
[[accounts]]
name='p'
access_key='r'
""",
]


@pytest.mark.parametrize(("head", "accounts"), list(product(HEADS, ACCOUNTS)))
def test_the_account_has_the_new_key_and_all_else_stands(head: str, accounts: str) -> None:
    source = head + ("\n" if head and accounts and not head.endswith("\n") else "") + accounts

    made = changed(source, "default", KEY, "T")

    assert tomllib.loads(made) == wanted(tomllib.loads(source), token="T")
    comments = [line.partition("#")[2] for line in source.splitlines()]
    assert [comment for comment in comments if comment not in made] == []
    assert changed(made, "default", KEY, "T") == made
    assert tomllib.loads(changed(source, "default", KEY, "")) == wanted(tomllib.loads(source), token="")


def wanted(before: dict[str, Any], token: str) -> dict[str, Any]:
    accounts = before.get("accounts", [])
    accounts = json.loads(accounts) if isinstance(accounts, str) else accounts
    own = next((account for account in accounts if account["name"] == "default"), None)
    if own is None:
        own = {"name": "default"}
        accounts.append(own)
    for stale in ("session_token", "keys"):
        own.pop(stale, None)
    own.update(KEY)
    return before | {"accounts": accounts} | ({"superbed_token": token} if token else {})


def test_a_comment_stays_before_what_it_speaks_of() -> None:
    made = changed(ACCOUNTS[-1], "default", KEY, "T")

    lines = [line for line in made.splitlines() if line]
    assert lines[lines.index("# the first") + 1] == "[[accounts]] # of Li"
    assert lines[lines.index("# the last") + 1 :] == ["[[accounts]]", "name='p'", "access_key='r'"]


def test_a_new_file_reads_well() -> None:
    assert changed("", "default", KEY, "T") == (
        'superbed_token = "T"\n\n[[accounts]]\nname = "default"\naccess_key = "A"\nsecret_key = "S"\n'
    )


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(TOMLKitError):
        changed("accounts = [", "default", KEY, "")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, real = tmp_path / "dujiang.toml", tmp_path / "dotfiles" / "real.toml"
    link.symlink_to(real)

    write(link, "a = 1\n")

    assert link.is_symlink()
    assert real.read_text() == "a = 1\n"
    assert [path.name for path in real.parent.iterdir()] == ["real.toml"]
