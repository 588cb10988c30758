"""Accounts and keys: recognised without being shown."""

import pprint
from dataclasses import fields

from dujiang.domain.accounts import Account, Key, shared_keys
from tests.builders import an_account

KEY = Key("AKLT-access", "c2VjcmV0", "session-token")


def test_neither_key_nor_account_shows_a_secret() -> None:
    account = Account("a", (KEY, KEY))

    for shown in (repr(KEY), str(KEY), f"{KEY}", repr(account), f"{[account]}", pprint.pformat({"a": account})):
        for field in fields(KEY):
            assert getattr(KEY, field.name) not in shown


def test_a_fingerprint_names_the_access_key_and_nothing_else() -> None:
    assert len(KEY.fingerprint) == 24
    assert KEY.fingerprint == Key("AKLT-access", "another secret").fingerprint
    assert KEY.fingerprint != Key("AKLT-acces", "c2VjcmV0").fingerprint
    assert KEY.access not in KEY.fingerprint


def test_an_account_without_models_serves_all() -> None:
    assert an_account().serves("4.0")
    assert an_account(models=("4.0",)).serves("4.0")
    assert not an_account(models=("4.0",)).serves("3.0")


def test_two_entries_with_one_key_are_an_error() -> None:
    assert shared_keys([an_account("a", "k1", "k2"), an_account("b", "k3")]) == []
    assert shared_keys([an_account("a", "k1", "k2"), an_account("b", "k3", "k2")]) == [("a", "b")]
    assert shared_keys([an_account("a", "k1"), an_account("a", "k1")]) == [("a", "a")]
    assert shared_keys([an_account("a", "k1", "k1")]) == []
