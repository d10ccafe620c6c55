"""Rows of a data set's tables: TSV with pictures in base64, JSON, JSON Lines and Parquet. The only importer of pyarrow.

A table is read once, row by row, and its pictures stay in it: a row holds an `Image` that reads its cell when it is
asked. A row that cannot be read is a `Problem` with its place, and the rows after it are read.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from edgevl.errors import BackendMissing, ImageError, InputError
from edgevl.eval.item import Image, Problem, stamp, told

_LONGEST_REFERENCE = 64
"""A shorter text in a picture's cell of a TSV is no picture but the index of the row that has it."""

# What pyarrow may raise on a damaged file.
_ARROW_ERRORS = (OSError, ValueError, LookupError, NotImplementedError, RuntimeError, TypeError, MemoryError)


class BadRow(ValueError):
    """A row lacks something or holds something else; the message says what, without the place."""


@dataclass(frozen=True)
class Row:
    """A row and its place. Cells without a value are absent from `values`."""

    where: str
    values: dict[str, Any]

    def text(self, name: str) -> str:
        """Return a cell that must hold text or a number, as text. Raises BadRow."""
        value = self.values.get(name)
        if value is None:
            raise BadRow(f"lacks {name!r}")
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return whole(name, str(value))
        raise BadRow(f"{name!r} is {_shown(value)}, where text is expected")

    def filled(self, name: str) -> str:
        """Return a cell as text, which must not be blank. Raises BadRow."""
        text = self.text(name)
        if not text.strip():
            raise BadRow(f"{name!r} is empty")
        return text

    def optional(self, name: str) -> str:
        """Return a cell as text; empty where it has no value. Raises BadRow."""
        return self.text(name) if self.values.get(name) is not None else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a cell that must hold a text or a list of such, at least one and none of them empty. Raises BadRow."""
        value = self.values.get(name)
        parts = value if isinstance(value, (list, tuple)) else [value]
        texts = tuple(Row(self.where, {name: part}).text(name) for part in parts)
        if not texts or not all(text.strip() for text in texts):
            raise BadRow(f"{name!r} is empty")
        return texts

    def image(self, name: str) -> Image:
        """Return a cell that must hold a picture. Raises BadRow."""
        value = self.values.get(name)
        if isinstance(value, Image):
            return value
        raise BadRow(
            f"lacks {name!r}" if value is None else f"{name!r} is {_shown(value)}, where a picture is expected"
        )


def whole(name: str, text: str) -> str:
    """Return text of a cell. Raises BadRow for half of a character (a lone surrogate), which JSON can hold."""
    half = None if text.isascii() else re.search("[\ud800-\udfff]", text)
    if half is not None:
        raise BadRow(f"{name!r} holds {half.group()!r}, half of a character; write the whole one")
    return text


def rows(path: Path, images: Collection[str] = ()) -> Iterator[Row | Problem]:
    """Yield the rows of a table in order; `images` names the columns that hold pictures.

    Raises InputError for a file that cannot be read at all and BackendMissing for Parquet without pyarrow.
    """
    readers = {".tsv": _tsv, ".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: is no table that can be read; give a file that ends in {', '.join(readers)}")
    try:
        yield from reader(path, images)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


# TSV, as pandas writes it: quoted where a cell holds tabs, quotes or line ends.


def _tsv(path: Path, images: Collection[str]) -> Iterator[Row | Problem]:
    with path.open("rb") as file:
        lines = _Lines(file)
        table = csv.reader(lines, delimiter="\t")
        csv.field_size_limit(max(csv.field_size_limit(), 1 << 30))  # a picture is longer than csv's default
        try:
            header = next(table, [])
        except csv.Error as error:
            raise InputError(f"{path}: its first line cannot be read: {_in_english(error)}") from error
        if len(set(header)) < max(len(header), 2):
            raise InputError(f"{path}: has no first line with the names of its columns; get the file again")
        for number in count(1):
            where, start = f"{_name(path)}, row {number}", lines.offset
            try:
                cells = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                yield Problem(where, f"cannot be read, nor can what follows: {_in_english(error)}")
                return
            if lines.is_at_end:
                yield Problem(where, "has a quote that is never closed, so nothing behind it can be read; get it again")
                return
            yield _tsv_row(path, where, start, header, cells, images) if cells else Problem(where, "is empty")


def _in_english(error: csv.Error) -> str:
    """Return what is wrong and what to do, for what csv says to programmers."""
    if "new-line character" in str(error):
        return "a carriage return stands outside quotes where no line ends; save the table with line feeds as line ends"
    return f"{error}; get the file again"


class _Lines:
    """The decoded lines of a file; `offset` is where the next one begins, in bytes, `is_at_end` that none was left."""

    def __init__(self, file: Any) -> None:
        self._file, self.offset, self.is_at_end = file, 0, False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line: bytes = self._file.readline()
        if not line:
            self.is_at_end = True
            raise StopIteration
        self.offset += len(line)
        return line.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")


def _tsv_row(
    path: Path, where: str, start: int, header: Sequence[str], cells: Sequence[str], images: Collection[str]
) -> Row | Problem:
    if len(cells) != len(header):
        return Problem(where, f"has {len(cells)} cells, the table {len(header)} columns")
    values: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    for name, cell in values.items():
        if not cell.isascii() and any("\ud800" <= letter <= "\udfff" for letter in cell):
            return Problem(where, f"{name!r} is not UTF-8")
    for name in images:
        if len(values.get(name, "")) > _LONGEST_REFERENCE:
            column = header.index(name)
            values[name] = Image(f"{stamp(path)}:{start}:{column}", partial(_tsv_image, path, start, column))
    return Row(where, values)


def _tsv_image(path: Path, start: int, column: int) -> bytes:
    """Read one picture of the row that begins at byte `start`. Raises ImageError for a cell that is not base64."""
    with path.open("rb") as file:
        file.seek(start)
        cell = next(csv.reader(_Lines(file), delimiter="\t"))[column]
    try:
        return base64.b64decode("".join(cell.split()), validate=True)
    except ValueError as error:
        raise ImageError(f"this cell is not valid base64 ({error}); get the file again") from error


# JSON: a list of objects, an object with such a list as "data", or (as some name JSON Lines) an object a line.


def _json(path: Path, images: Collection[str]) -> Iterator[Row | Problem]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        if "Extra data" not in str(error):
            raise InputError(f"{path}: is not JSON ({error}); get the file again") from error
        yield from _json_lines(path, images)
        return
    found = content.get("data", [content]) if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise InputError(f"{path}: holds no list of rows; get the file again")
    for number, values in enumerate(found, start=1):
        yield _json_row(f"{_name(path)}, row {number}", values)


def _json_lines(path: Path, images: Collection[str]) -> Iterator[Row | Problem]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{_name(path)}, line {number}"
            try:
                yield _json_row(where, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Problem(where, f"is not JSON ({error})")


def _json_row(where: str, values: object) -> Row | Problem:
    if not isinstance(values, dict):
        return Problem(where, f"is {_shown(values)}, where an object is expected")
    return Row(where, {name: value for name, value in values.items() if value is not None})


# Parquet, with pictures as the Hugging Face hub has them: {"bytes": ..., "path": ...}.


def _parquet(path: Path, images: Collection[str]) -> Iterator[Row | Problem]:
    table = _open(path)
    names = table.schema_arrow.names
    present, others = [name for name in names if name in images], [name for name in names if name not in images]
    number = 0
    for group in range(table.num_row_groups):
        n_rows, what = table.metadata.row_group(group).num_rows, ""
        try:
            found = table.read_row_group(group, columns=others).to_pylist() if others else [{}] * n_rows
        except _ARROW_ERRORS as error:
            what = f"cannot be read ({_line(error)})"
        for place in range(n_rows):
            number += 1
            where = f"{_name(path)}, row {number}"
            if what:
                yield Problem(where, what)
                continue
            values = {name: value for name, value in found[place].items() if value is not None}
            yield Row(where, values | {name: _parquet_image(path, group, place, name, present) for name in present})


def _parquet_image(path: Path, group: int, place: int, name: str, columns: Sequence[str]) -> Image:
    load = partial(_parquet_bytes, path, group, place, name, tuple(columns))
    return Image(f"{stamp(path)}:{group}:{place}:{name}", load)


def _parquet_bytes(path: Path, group: int, place: int, name: str, columns: tuple[str, ...]) -> bytes:
    """Read one picture. Raises ImageError where the cell holds none."""
    try:
        cell = _row_group(path, group, columns)[name][place].as_py()
    except _ARROW_ERRORS as error:
        raise ImageError(f"column {name!r} cannot be read ({_line(error)}); get the file again") from error
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise ImageError(f"column {name!r} holds no picture; get the file again")
    return content


@lru_cache(maxsize=1)  # items come in the order of the file, so that each group of rows is read once
def _row_group(path: Path, group: int, columns: tuple[str, ...]) -> Any:
    return _open(path).read_row_group(group, columns=list(columns))


def _open(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise BackendMissing(f"{path.name}: to read Parquet run: pip install 'edgevl[eval]'") from error
    try:
        return parquet.ParquetFile(path)
    except _ARROW_ERRORS as error:
        raise InputError(f"{path}: is not a readable Parquet file ({_line(error)}); get the file again") from error


def _name(path: Path) -> str:
    return told(Path(path.name))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
