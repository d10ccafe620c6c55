"""Tables of every kind: what is read, and that a damaged row is named and the rest is read."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import BackendMissing, ImageError, InputError
from edgevl.eval import tables
from edgevl.eval.item import Image, Problem
from edgevl.eval.tables import BadRow, Row
from tests.eval import datasets
from tests.eval.datasets import SHAPES, WORD, image, lines, parquet, tsv

LONG = base64.b64encode(SHAPES.read_bytes()).decode()


def read(path: Path, *images: str) -> list[Row | Problem]:
    return list(tables.rows(path, images))


def values(path: Path, *images: str) -> list[dict[str, Any] | str]:
    return [str(row) if isinstance(row, Problem) else row.values for row in read(path, *images)]


def test_tsv_has_quotes_tabs_and_line_ends_in_cells(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", ["index", "question"], [["1", 'a "b"\tc\nd'], ["2", ""], ["3", "é"]])
    assert values(path) == [{"index": "1", "question": 'a "b"\tc\nd'}, {"index": "2"}, {"index": "3", "question": "é"}]
    assert [row.where for row in read(path)] == ["a.tsv, row 1", "a.tsv, row 2", "a.tsv, row 3"]


def test_pictures_of_a_tsv_are_read_one_by_one(tmp_path: Path) -> None:
    word = base64.b64encode(WORD.read_bytes()).decode()
    path = tsv(tmp_path / "a.tsv", ["x", "image"], [["é\n1", LONG], ["2", word], ["3", "1"], ["4", "?" * 80]])
    first, second, third, fourth = (row.values["image"] for row in read(path, "image") if isinstance(row, Row))
    assert (second.load(), first.load()) == (WORD.read_bytes(), SHAPES.read_bytes())
    assert third == "1"
    assert first != second
    with pytest.raises(ImageError, match=r"^this cell is not valid base64 \(.*\); get the file again$"):
        fourth.load()


def test_damaged_rows_of_a_tsv_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"\xef\xbb\xbfindex\tquestion\n1\ta\tb\n\n2\t\xff\n3\tgood\n")
    assert values(path) == [
        "a.tsv, row 1: has 3 cells, the table 2 columns",
        "a.tsv, row 2: is empty",
        "a.tsv, row 3: 'question' is not UTF-8",
        {"index": "3", "question": "good"},
    ]
    path.write_bytes(b'index\tquestion\n1\ta\n2\t"never closed\n3\tb\n')
    never = "a.tsv, row 2: has a quote that is never closed, so nothing behind it can be read; get it again"
    assert values(path) == [{"index": "1", "question": "a"}, never]
    path.write_bytes(b'index\tquestion\n1\ta\n2\t"closed at the end"')
    assert values(path) == [{"index": "1", "question": "a"}, {"index": "2", "question": "closed at the end"}]


def test_a_carriage_return_that_ends_no_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    said = "a carriage return stands outside quotes where no line ends; save the table with line feeds as line ends"
    path.write_bytes(b"index\tquestion\r1\ta\r")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: its first line cannot be read: {said}"
    path.write_bytes(b"index\tquestion\r\n1\ta\r\n2\tb\rc\r\n3\td\r\n")
    assert values(path) == [
        {"index": "1", "question": "a"},
        f"a.tsv, row 2: cannot be read, nor can what follows: {said}",
    ]


def test_json_lines_with_damage(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"a": 1, "b": None}, '{"a": ', "", "[1]", {"a": 2}])
    first, broken, other, last = values(path)
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert str(broken).startswith("a.jsonl, line 2: is not JSON (")
    assert other == "a.jsonl, line 4: is [1], where an object is expected"
    path.write_bytes(b'{"a": "\xff"}\n' + b"[" * 100_000 + b"\n")
    assert [str(value)[:30] for value in values(path)] == [
        "a.jsonl, line 1: is not JSON (",
        "a.jsonl, line 2: is not JSON (",
    ]


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": 2}]', '{"data": [{"a": 1}, {"a": 2}], "n": 2}', '{"a": 1}\n{"a": 2}\n']
)
def test_json_in_its_three_forms(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert values(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "a.json: is not JSON"),
        ("a.json", b"5", "a.json: holds no list of rows"),
        ("a.tsv", b"", "a.tsv: has no first line with the names of its columns"),
        ("a.tsv", b"a\ta\n", "a.tsv: has no first line"),
        ("a.parquet", b"PAR1 no", "a.parquet: is not a readable Parquet file"),
        (
            "a.csv",
            b"a,b",
            "a.csv: is no table that can be read; give a file that ends in .tsv, .json, .jsonl, .parquet",
        ),
    ],
)
def test_tables_that_cannot_be_read(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.tsv: cannot be read \(No such file or directory\); check the path"):
        read(tmp_path / "b.tsv")


def test_half_a_character_is_no_text() -> None:
    row = Row("a, row 1", {"a": "\ud800", "b": ["good", "bad \udfff"], "c": "😀"})
    assert row.text("c") == "😀"
    for call, words in (
        (lambda: row.text("a"), r"'a' holds '\ud800', half of a character; write the whole one"),
        (lambda: row.optional("a"), r"'a' holds '\ud800', half of a character; write the whole one"),
        (lambda: row.texts("b"), r"'b' holds '\udfff', half of a character; write the whole one"),
    ):
        with pytest.raises(BadRow) as caught:
            call()
        assert str(caught.value) == words


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_told_escaped(tmp_path: Path) -> None:
    path = lines(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.jsonl")), [{"a": 1}, "no"])
    assert [row.where for row in read(path)] == [r"\xff\xe9.jsonl, line 1", r"\xff\xe9.jsonl, line 2"]


def test_parquet_keeps_its_pictures(tmp_path: Path) -> None:
    rows = [{"id": n, "image": image(SHAPES if n % 2 else WORD), "more": image(None), "no": None} for n in range(5)]
    found = read(parquet(tmp_path / "a.parquet", rows), "image", "more")
    assert [row.where for row in found] == [f"a.parquet, row {n}" for n in range(1, 6)]
    assert all(isinstance(row, Row) and row.values.keys() == {"id", "image", "more"} for row in found)
    pictures = [row.values["image"] for row in found if isinstance(row, Row)]
    wanted = [WORD.read_bytes(), SHAPES.read_bytes()]
    assert [picture.load() for picture in pictures] == [wanted[n % 2] for n in range(5)]
    assert len({picture.where for picture in pictures}) == 5
    with pytest.raises(ImageError, match=r"^column 'more' holds no picture; get the file again$"):
        found[0].values["more"].load()  # type: ignore[union-attr]


def test_a_damaged_part_of_parquet_is_named(tmp_path: Path) -> None:
    from pyarrow.parquet import ParquetFile

    path = parquet(tmp_path / "a.parquet", [{"id": f"row {n}"} for n in range(6)])
    place = ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:place] + b"\xff" * 20 + content[place + 20 :])
    first, second, third, fourth, *last = values(path)
    assert [first, second, *last] == [{"id": f"row {n}"} for n in (0, 1, 4, 5)]
    assert str(third).startswith("a.parquet, row 3: cannot be read (")
    assert str(fourth).startswith("a.parquet, row 4: cannot be read (")


def test_parquet_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = datasets.blindtest(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(BackendMissing) as caught:
        read(path)
    assert str(caught.value) == "valid-00000-of-00001.parquet: to read Parquet run: pip install 'edgevl[eval]'"


def test_cells_are_what_they_must_be() -> None:
    picture = Image("here", bytes)
    row = Row(
        "a, row 1",
        {
            "n": 5,
            "text": "a",
            "list": ["a", 1],
            "bad": [],
            "blank": ["a", " "],
            "white": " ",
            "yes": True,
            "i": picture,
        },
    )
    assert (row.text("n"), row.text("text"), row.optional("no")) == ("5", "a", "")
    assert (row.texts("list"), row.texts("n")) == (("a", "1"), ("5",))
    assert row.image("i") is picture
    assert row.filled("text") == "a"
    for call, words in (
        (lambda: row.text("no"), "lacks 'no'"),
        (lambda: row.text("yes"), "'yes' is True, where text is expected"),
        (lambda: row.text("list"), "'list' is ['a', 1], where text is expected"),
        (lambda: row.texts("bad"), "'bad' is empty"),
        (lambda: row.texts("blank"), "'blank' is empty"),
        (lambda: row.filled("white"), "'white' is empty"),
        (lambda: row.texts("no"), "lacks 'no'"),
        (lambda: row.image("no"), "lacks 'no'"),
        (lambda: row.image("text"), "'text' is 'a', where a picture is expected"),
    ):
        with pytest.raises(BadRow) as caught:
            call()
        assert str(caught.value) == words
