"""File names that every system takes."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dujiang.domain.names import collision_key, is_reserved, safe_stem

TEXTS = st.text(max_size=150) | st.text(st.sampled_from(" .-_con猫é/:\\\u0301\u200b\ud83d1"), max_size=120)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
@example("con.png")
@example("nul .txt")
@example("é" * 60)
@example("." * 200 + "a")
@example("a" * 99 + " b")
@example("a" * 99 + "\N{CAT FACE}")
def test_a_stem_is_safe_everywhere(text: str) -> None:
    stem = safe_stem(text)

    assert 1 <= len(stem.encode()) <= 100
    assert not set(stem) & set('<>:"/\\|?*')
    assert all(unicodedata.category(sign) not in {"Cc", "Cs"} for sign in stem)
    assert not stem.startswith((".", "-", " "))
    assert not stem.endswith((".", " "))
    assert not is_reserved(stem)
    assert stem == unicodedata.normalize("NFC", stem)
    assert Path(stem).name == stem


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_safe_stem_stays_as_it_is(text: str) -> None:
    assert safe_stem(safe_stem(text)) == safe_stem(text)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("SKU-001", "SKU-001"),
        ("红色 连衣裙", "红色 连衣裙"),
        ("a/b\\c:d", "a_b_c_d"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("ends. .", "ends"),
        ("CON", "_CON"),
        ("com1.backup", "_com1.backup"),
        ("console", "console"),
        ("two\nlines\tof", "two lines of"),
        ("e\u0301", "é"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("", "_"),
        (" .. ", "_"),
    ],
)
def test_examples(text: str, stem: str) -> None:
    assert safe_stem(text) == stem


@pytest.mark.parametrize(("one", "other"), [("Cat", "cAT"), ("é", "e\u0301"), ("STRASSE", "straße"), ("É", "e\u0301")])
def test_names_that_some_system_takes_for_one_collide(one: str, other: str) -> None:
    assert collision_key(one) == collision_key(other)


def test_different_names_do_not_collide() -> None:
    assert collision_key("cat") != collision_key("cats")
