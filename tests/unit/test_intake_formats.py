"""Files as people have them become rows with the numbers that people see; what can't be read is named."""

import csv
import errno
import io
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dujiang.domain.rows import InputError, RawRow
from dujiang.intake_formats import open_rows
from dujiang.intake_formats.decoding import LONGEST_LINE, PORTION, is_misread, readable
from dujiang.messages import text
from dujiang.messages.catalogue import TEXTS


def a_file(folder: Path, content: str | bytes, name: str = "prompts.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(folder: Path, content: str | bytes, name: str = "prompts.csv") -> list[tuple[int, dict[str, object]]]:
    read = list(open_rows(a_file(folder, content, name)))
    assert not any(row.problems for row in read)
    return [(row.number, dict(row.values)) for row in read]


def refusal(path: Path | str, stdin: Any = None) -> InputError:
    with pytest.raises(InputError) as caught:
        list(open_rows(path, stdin))
    assert caught.value.text_code in TEXTS
    assert text(caught.value.text_code, **caught.value.fields)
    return caught.value


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_every_usual_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    content = "提示词,编号\r\n一只猫，在河边,A1\r\n".encode(encoding)

    assert rows(tmp_path, content) == [(2, {"提示词": "一只猫，在河边", "编号": "A1"})]


@pytest.mark.parametrize("words", ["一只猫", "小猫", "一个红苹果"])
def test_an_encoding_is_known_by_the_whole_file(words: str, tmp_path: Path) -> None:
    content = b"prompt\n" + b"a cat\n" * 200_000 + f"{words}\n".encode("gb18030")

    assert rows(tmp_path, content)[-1] == (200_002, {"prompt": words})


@pytest.mark.parametrize("words", ["café à Liège, señor", "Рыжий кот", "γάτα", "a ½ café — 红", "красный 猫"])
def test_utf8_in_other_languages_stays_what_it_is(words: str, tmp_path: Path) -> None:
    assert rows(tmp_path, f"prompt\n{words}\n", "a.txt")[1] == (2, {"prompt": words})


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_the_delimiter_is_seen_in_the_header(delimiter: str, tmp_path: Path) -> None:
    content = f'prompt{delimiter}"a,b;c\td"{delimiter}id\n一只猫{delimiter}x{delimiter}A1\n'

    assert rows(tmp_path, content) == [(2, {"prompt": "一只猫", "a,b;c\td": "x", "id": "A1"})]


def test_a_tsv_is_a_table_too(tmp_path: Path) -> None:
    assert rows(tmp_path, "prompt\tid\na, b\tA1\n", "a.TSV") == [(2, {"prompt": "a, b", "id": "A1"})]


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert rows(tmp_path, "prompt\n一只猫\n") == [(2, {"prompt": "一只猫"})]


def test_rows_are_numbered_as_excel_shows_them(tmp_path: Path) -> None:
    content = 'prompt,id\n"two\nlines",A1\n\n,\n"say ""hi""",A2\n'

    assert rows(tmp_path, content) == [
        (2, {"prompt": "two\nlines", "id": "A1"}),
        (5, {"prompt": 'say "hi"', "id": "A2"}),
    ]


def test_short_rows_lack_nothing_but_empty_cells(tmp_path: Path) -> None:
    assert rows(tmp_path, "prompt,id,,\na cat\na dog,A2,,,,\n") == [
        (2, {"prompt": "a cat", "id": ""}),
        (3, {"prompt": "a dog", "id": "A2"}),
    ]


@pytest.mark.parametrize("content", ["prompt,id\na cat,A1,more\n", "prompt,,id\na cat,more,A1\n"])
def test_a_cell_under_no_header_is_a_problem_of_its_row(content: str, tmp_path: Path) -> None:
    (row,) = open_rows(a_file(tmp_path, content))

    (problem,) = row.problems
    assert (problem.code, problem.value, problem.row) == ("cell_without_header", "more", 2)


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    assert rows(tmp_path, "") == []
    assert rows(tmp_path, "prompt,id\n\n") == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2), max_size=5
    ),
    st.sampled_from(["utf-8-sig", "utf-8"]),
)
def test_what_a_spreadsheet_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], encoding: str
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["prompt", "id"], *table])
    # Without a mark, words that mix alphabets are taken for GB18030: nothing that people write looks like that.
    assume(encoding == "utf-8-sig" or not is_misread(file.getvalue()))
    path = a_file(tmp_path_factory.mktemp("csv"), file.getvalue().encode(encoding))

    read = list(open_rows(path))

    assert [list(row.values.values()) for row in read] == [cells for cells in table if any(cells)]


# -- one object, one prompt a line ------------------------------------------------------------------------------------


def test_json_lines_keep_their_types(tmp_path: Path) -> None:
    content = (
        '\ufeff{"prompt": "一只猫", "width": 1024, "refs": ["x"], "id": 12345678901234567890}\n\n{"prompt": "b"}\n'
    )

    assert rows(tmp_path, content, "a.jsonl") == [
        (1, {"prompt": "一只猫", "width": 1024, "refs": ["x"], "id": "12345678901234567890"}),
        (3, {"prompt": "b"}),
    ]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{prompt: cat}", "json_broken"),
        ('{"prompt": "cat"', "json_broken"),
        ('{"prompt": "a", "prompt": "b"}', "json_broken"),
        ("[" * 100_000, "json_broken"),
        ('["cat"]', "json_no_object"),
        ("42", "json_no_object"),
        (r'{"prompt": "\ud83d"}', "json_character"),
        (r'{"prompt": "\u0000"}', "json_character"),
    ],
)
def test_a_bad_line_is_a_problem_of_its_own(line: str, code: str, tmp_path: Path) -> None:
    bad, good = open_rows(a_file(tmp_path, line + '\n{"prompt": "cat \\ud83d\\ude00"}\n', "a.jsonl"))

    (problem,) = bad.problems
    assert (problem.code, problem.row) == (code, 1)
    assert good == RawRow(2, {"prompt": "cat 😀"})


def test_text_is_one_prompt_a_line(tmp_path: Path) -> None:
    assert rows(tmp_path, "# not a comment\r\n\r\n  一只猫, 一只狗 \n", "a.txt") == [
        (1, {"prompt": "# not a comment"}),
        (3, {"prompt": "一只猫, 一只狗"}),
    ]


def test_prompts_may_be_piped_in() -> None:
    stdin = io.BytesIO("\ufeff一只猫\n\na dog\n".encode() + "一只鸟".encode("gb18030"))

    assert [(row.number, row.values["prompt"]) for row in open_rows("-", stdin)] == [
        (1, "一只猫"),
        (3, "a dog"),
        (4, "一只鸟"),
    ]


# -- what can't be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "code", "fields"),
    [
        ("a.csv", b"prompt\nok\nb\xff\xff\xffad\n", "input_encoding", {"line": 3, "byte": 11}),
        ("a.jsonl", b"\xef\xbb\xbf{}\n\xff", "input_encoding", {"line": 2, "byte": 6}),
        ("a.csv", b"prompt\nb\0ad\n", "input_nul", {"line": 2}),
        ("a.txt", "a cat\n".encode("utf-16-le"), "input_nul", {"line": 1}),
        ("a.csv", b'prompt,id\na,1\n"never closed,2\nb,3\n', "input_csv", {"row": 3, "line": 4}),
        ("a.csv", b'prompt,id\n"a" b,1\n', "input_csv", {"row": 2, "line": 2}),
        ("a.csv", b"prompt, id,id \na,1,2\n", "input_column_twice", {"value": "id"}),
        ("a.xls", b"", "input_kind", {"value": ".xls"}),
        ("README", b"", "input_kind", {"value": "README"}),
    ],
)
def test_what_can_not_be_read_is_named(
    name: str, content: bytes, code: str, fields: dict[str, object], tmp_path: Path
) -> None:
    path = a_file(tmp_path, content, name)

    error = refusal(path)

    assert (error.text_code, error.fields["path"]) == (code, path)
    assert fields.items() <= error.fields.items()


def test_a_character_cut_off_at_the_very_end_is_seen(tmp_path: Path) -> None:
    content = b"prompt\n" + b"a" * (PORTION - 9) + b"\n\xe7"
    assert len(content) == PORTION

    assert refusal(a_file(tmp_path, content, "a.txt")).fields["line"] == 3


def test_nothing_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv").text_code == "input_missing"
    assert refusal(tmp_path / "none").text_code == "input_missing"


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()

    assert refusal(tmp_path / "a.csv").text_code == "input_directory"
    assert refusal(tmp_path).text_code == "input_directory"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, "input_denied"), (errno.EPERM, "input_denied"), (errno.EIO, "input_unreadable")]
)
def test_a_file_that_excel_holds_or_a_disk_lost(number: int, code: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, readable(tmp_path / "a.csv"):
        raise OSError(number, os.strerror(number))

    assert caught.value.text_code == code
    assert "a.csv" in text(code, **caught.value.fields)


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"ok\n\xff\xff\xff\n", "input_encoding"), (b"a\0b", "input_nul")],
)
def test_a_pipe_that_can_not_be_read(content: bytes, code: str) -> None:
    assert refusal("-", io.BytesIO(content)).text_code == code


def long_line(path: Path, length: int, before: bytes = b"", after: bytes = b"") -> Path:
    with path.open("wb") as file:
        file.write(before)
        for start in range(0, length, PORTION):
            file.write(b"x" * min(PORTION, length - start))
        file.write(after)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_a_file_without_line_ends_is_refused_and_needs_little_memory(name: str, tmp_path: Path) -> None:
    path = long_line(tmp_path / name, LONGEST_LINE + PORTION, b"prompt\n")

    tracemalloc.start()
    try:
        error = refusal(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (error.text_code, error.fields["line"], error.fields["limit"]) == ("input_line", 2, LONGEST_LINE)
    assert peak < 8 * PORTION


def test_a_pipe_without_line_ends_is_refused(tmp_path: Path) -> None:
    with long_line(tmp_path / "a", LONGEST_LINE + 1, b"ok\n").open("rb") as stdin:
        error = refusal("-", stdin)

    assert (error.text_code, error.fields["line"]) == ("input_line", 2)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_many_lines_of_a_few_megabytes_are_no_long_line(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((b"x" * (PORTION + 7) + end) * 70)

    assert sum(1 for _ in open_rows(path)) == 70


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("a.csv", b'prompt,refs\na cat,"', b'"\n'), ("a.jsonl", b'{"prompt": "a cat", "refs": ["', b'"]}\n')],
)
def test_a_picture_may_stand_in_a_row(name: str, before: bytes, after: bytes, tmp_path: Path) -> None:
    length = 5 * PORTION + 3
    (row,) = open_rows(long_line(tmp_path / name, length, before, after))

    picture = "x" * length
    assert row.values == {"prompt": "a cat", "refs": [picture] if name == "a.jsonl" else picture}


def test_a_quote_that_is_never_closed_is_told_in_a_large_file_too(tmp_path: Path) -> None:
    path = a_file(tmp_path, b'prompt,id\na,1\n"never closed,2\n' + b"b,3\n" * 100_000)

    assert refusal(path).fields.items() >= {"row": 3}.items()


def test_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    line = "一只猫,A1,2048,2048\n"
    path = a_file(tmp_path, "prompt,id,width,height\n" + line * 50_000)

    tracemalloc.start()
    try:
        count = sum(1 for _ in open_rows(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 50_000
    assert peak < 8 * PORTION


def test_problems_of_rows_have_texts() -> None:
    for code in ("cell_without_header", "json_broken", "json_no_object", "json_character"):
        assert text(code, field="", value="v", limit="3") != code
