"""File names that are safe on Linux, macOS and Windows, made from whatever a person wrote.

A *stem* is a file's name without its suffix. Two stems collide if any of these systems takes them for one file.
"""

import re
import unicodedata
from typing import Final

MOST_BYTES: Final = 100  # file systems allow 255: leaves room for counters, suffixes and `.part` names
NAMELESS: Final = "_"

# What Windows forbids, control characters, invisible ones that reorder or hide text, halves of surrogate pairs.
_FORBIDDEN: Final = re.compile(
    '[<>:"/\\\\|?*\\x00-\\x1f\\x7f-\\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff]+'
)
_BLANKS: Final = re.compile(r"\s+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{4,98}")  # what most people write; no reserved name is so long
_RESERVED: Final = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"}
    | {f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"}
)


def safe_stem(text: str) -> str:
    """`text` as a stem: the same text where that is safe, never empty, at most 100 bytes of UTF-8."""
    if _PLAIN.fullmatch(text):
        return text
    stem = unicodedata.normalize("NFC", text)
    stem = _BLANKS.sub(" ", _FORBIDDEN.sub("_", _BLANKS.sub(" ", stem)))
    stem = stem.lstrip(" .-")  # a dot hides the file, a dash makes it an option of every command
    if is_reserved(stem):
        stem = f"_{stem}"
    return _cut(stem).rstrip(" .") or NAMELESS


def collision_key(stem: str) -> str:
    """Equal for stems that some file system takes for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold())


def is_reserved(stem: str) -> bool:
    """Whether Windows takes it for a device: `con`, `nul.tar`, `COM1`."""
    return stem.partition(".")[0].rstrip().casefold() in _RESERVED


def _cut(stem: str) -> str:
    encoded = stem.encode()
    if len(encoded) <= MOST_BYTES:
        return stem
    return encoded[:MOST_BYTES].decode(errors="ignore")  # a character that was cut in two goes
