"""Every text a person reads, in Chinese and English, from one catalogue.

`text("code", field=…)` renders an entry of `TEXTS` in the language in force. Codes are stable, texts are not.
"""

import os
from contextvars import ContextVar
from enum import StrEnum
from typing import Final

from dujiang.messages import catalogue
from dujiang.messages.door_texts import DOOR_TEXTS
from dujiang.messages.log_texts import LOG_TEXTS

TEXTS: Final = catalogue.TEXTS | DOOR_TEXTS | LOG_TEXTS


class Language(StrEnum):
    """The languages of the catalogue, in the order of its columns."""

    ZH = "zh"
    EN = "en"


def preferred_language() -> Language:
    """`DUJIANG_LANG`, else the system's language; Chinese for Chinese systems, English for all others."""
    for name in ("DUJIANG_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        wanted = os.environ.get(name, "")
        if wanted:
            return Language.ZH if wanted.lower().startswith("zh") else Language.EN
    import locale  # noqa: PLC0415 - slow to import, and seldom asked

    system = locale.getlocale()[0] or ""
    return Language.ZH if system.lower().startswith(("zh", "chinese")) else Language.EN


_language: ContextVar[Language | None] = ContextVar("language", default=None)


def use_language(language: Language) -> None:
    """Render everything from here on in `language`."""
    _language.set(language)


def language_is_chosen() -> bool:
    """Whether a flag has said which language to use."""
    return _language.get() is not None


def language() -> Language:
    """The language in force."""
    return _language.get() or preferred_language()


def text(code: str, **fields: object) -> str:
    """The entry `code`, filled in. An unknown code is shown as it is: a text that lacks must not hide an error."""
    entry = TEXTS.get(code)
    if entry is None:
        return " ".join([code, *(f"{name}={value}" for name, value in fields.items())])
    zh, en = entry
    return (zh if language() is Language.ZH else en).format(**fields)
