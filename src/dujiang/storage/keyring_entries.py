"""Secrets in the system's keyring; a settings file then holds only where: `keyring:SERVICE/NAME`.

The library is an extra and is imported only where somebody wants it. What its backends raise is their own affair, so
everything that goes wrong leaves as a `KeyringRefused`, which holds no secret.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from dujiang.domain.errors import DujiangError

PREFIX: Final = "keyring:"
SERVICE: Final = "dujiang"


class KeyringRefused(DujiangError):
    """The keyring can't give or take a secret; `text_code` says why and what to do."""

    code = "keyring"

    def __init__(self, text_code: str, **fields: object) -> None:
        super().__init__(text_code)
        self.text_code = text_code
        self.fields = fields


def fetch(reference: str) -> str:
    """The secret that `reference` names. Raises `KeyringRefused`."""
    service, _, name = reference.removeprefix(PREFIX).partition("/")
    with _keyring() as keyring:
        found: str | None = keyring.get_password(service, name)
    if found is None:
        raise KeyringRefused("keyring_no_entry", reference=reference)
    return found


def keep(name: str, secret: str) -> str:
    """Put a secret there; its reference. Raises `KeyringRefused`, also where the keyring forgets what it is given."""
    reference = f"{PREFIX}{SERVICE}/{name}"
    with _keyring() as keyring:
        keyring.set_password(SERVICE, name, secret)
        kept = keyring.get_password(SERVICE, name)
    if kept != secret:
        raise KeyringRefused("keyring_forgets")
    return reference


def prove_usable() -> None:
    """Raises `KeyringRefused` if there is no library or no keyring that answers."""
    with _keyring() as keyring:
        keyring.get_password(SERVICE, "none")


@contextmanager
def _keyring() -> Iterator[Any]:
    try:
        import keyring  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise KeyringRefused("keyring_no_library") from None
    try:
        yield keyring
    except Exception as error:  # noqa: BLE001 - each backend raises its own
        raise KeyringRefused("keyring_silent", reason=str(error).partition(". ")[0] or type(error).__name__) from None
