"""Rendered pages to be read: receipts, invoices, forms and tables, asked for a field, a cell, a total, or as JSON.

What is printed is answered as it is printed, with its capitals and marks; how many there are is answered in digits.
In JSON what is printed stands as text as printed, and what is a number under the schema as a number with a decimal
point and without currency. Rows are counted without a table's header and its last row of sums. The fonts are those of
`printed`.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from PIL import Image

from .blocks import Style, stacked
from .drawn import Drawn, Stock, Task
from .layouts import LAYOUTS
from .phrasings import (
    ABSENT,
    CELL,
    COUNT,
    FIELD,
    KEYS,
    NTH,
    ORDINALS,
    ROW,
    SCHEMA,
    SPECIAL,
    SUMMED,
    WHICH,
    ask,
)
from .questions import QA, join
from .records import RECORDS, Field, Grid, Record
from .sheet import SMALLEST, Colour, Mark, Sheet, View, legible_font, mixed, palette, turned, worn

LEAST, MOST = (256, 256), (1024, 768)
"""The (height, width) of the smallest and the largest page."""
MOST_PAIRS = 6
LONGEST_LIST = 6

Value = str | Decimal | list["Value"] | dict[str, "Value"]
"""What JSON answers are made of; numbers are decimals, so that 4.50 keeps its nought."""


@dataclass(frozen=True)
class Page:
    """A page before it is worn: what it holds, its layout, what is printed, how it is seen, ground and size of text."""

    record: Record
    layout: str
    sheet: Sheet
    view: View
    ground: Colour
    size: int


def page(rng: random.Random, stock: Stock, kind: str) -> Page:
    """Lay out a record of this kind, with less in it and in smaller letters until it fits on the largest page."""
    amount, size = rng.random() ** 1.3, SMALLEST * 2 ** rng.random()
    name = stock.one_of(rng, *map(tuple, LAYOUTS[kind]))
    layout = LAYOUTS[kind][stock.is_held_out][name]
    inks = palette(rng, stock, n_inks=2, dark=0.06, white=0.3)
    while True:
        record = RECORDS[kind](rng, stock, amount)
        style = Style(
            legible_font(rng, stock, int(size)), legible_font(rng, stock, int(size)), int(size), inks.inks[0],
            rng.choice(inks.inks), inks.paper, rng.uniform(1.0, 1.4), rng.choice((":", ":", "")),
        )  # fmt: skip
        sheet, blocks = Sheet(), layout(rng, record, style)
        width = int(max(block.width() for block in blocks) * rng.choice((1.0, 1.0, rng.uniform(1.0, 1.5))))
        height = stacked(sheet, blocks, 0, 0, width)
        if placed := _placed(rng, sheet, (height, width), inks.paper, inks.inks[0]):
            return Page(record, name, sheet, *placed, style.size)
        amount, size = amount * 0.8, max(SMALLEST, size * 0.9)


def _placed(
    rng: random.Random, sheet: Sheet, size: tuple[int, int], paper: Colour, ink: Colour
) -> tuple[View, Colour] | None:  # fmt: skip
    """Draw how a sheet with content of `size` is seen, sometimes turned or on a desk; None where it is too large."""
    margin = rng.randint(6, 40)
    angle = rng.uniform(-3, 3) if rng.random() < 0.25 else 0.0
    desk = rng.randint(4, 30) if rng.random() < 0.2 else 0
    outer = size[0] + 2 * margin, size[1] + 2 * margin
    wanted = [math.ceil(side) + 2 * desk + (2 if angle else 0) for side in turned(outer, angle)]
    if rng.random() < 0.2:
        wanted[0] = max(wanted[0], int(1.41 * wanted[1]))
    if wanted[0] > MOST[0] or wanted[1] > MOST[1]:
        return None
    height, width = (max(side, least) for side, least in zip(wanted, LEAST, strict=True))
    share = (0.5, 0.5) if angle or desk else (rng.random(), rng.random())
    origin = margin + int(share[0] * (height - outer[0])), margin + int(share[1] * (width - outer[1]))
    if not desk:
        return View((height, width), origin, angle), paper
    sheet.marks.insert(0, Mark((-margin, -margin, size[0] + margin, size[1] + margin), fill=paper))
    return View((height, width), origin, angle), mixed(paper, ink, rng.uniform(0.25, 0.8))


def about(rng: random.Random, stock: Stock, record: Record) -> list[QA]:
    """Ask about a record in words: fields, cells, the total, the n-th row, how many, and what is not there."""
    fields = (*record.fields, *record.sums)
    n_fields = min(3 if record.grid else 5, len(fields))
    pairs = [_field(rng, stock, record, field) for field in rng.sample(fields, n_fields)]
    if record.sums:
        pairs.append(_field(rng, stock, record, next(field for field in record.sums if field.name == "total")))
    if record.grid:
        pairs += _cells(rng, stock, record.grid)
        pairs.append(_nth(rng, stock, record.grid))
        pairs.append(ask(rng, stock, COUNT, str(len(record.grid.rows)), record.grid.nouns))
        pairs += _which(rng, stock, record.grid) + _last(rng, stock, record.grid)
    if record.missing and rng.random() < 0.3:
        missing = rng.choice(record.missing)
        pairs.append(ask(rng, stock, ABSENT, f"there is no {missing}.", missing))
    answers = dict(pairs)
    chosen = list(answers)
    rng.shuffle(chosen)
    return [(question, answers[question]) for question in chosen[:MOST_PAIRS]]


def _field(rng: random.Random, stock: Stock, record: Record, field: Field) -> QA:
    phrasings = SPECIAL[field.name] if field.name in SPECIAL and rng.random() < 0.6 else FIELD
    return ask(rng, stock, phrasings, field.value, field.name, record.kind)


def _cells(rng: random.Random, stock: Stock, grid: Grid) -> list[QA]:
    places = [(row, i) for row in grid.rows for i in range(1, len(grid.columns))]
    return [
        ask(rng, stock, CELL, row[i], grid.columns[i].name, row[0] if rng.random() < 0.5 else row[0].lower())
        for row, i in rng.sample(places, min(3, len(places)))
    ]


def _nth(rng: random.Random, stock: Stock, grid: Grid) -> QA:
    nth = rng.randrange(min(len(grid.rows), len(ORDINALS)))
    if rng.random() < 0.3:
        return ask(rng, stock, NTH, grid.rows[-1][0], "last", grid.columns[0].name)
    return ask(rng, stock, NTH, grid.rows[nth][0], ORDINALS[nth], grid.columns[0].name)


def _which(rng: random.Random, stock: Stock, grid: Grid) -> list[QA]:
    """Ask which row has a value that only one row has."""
    column = rng.randrange(1, len(grid.columns))
    held = Counter(row[column] for row in grid.rows)
    rows = [row for row in grid.rows if held[row[column]] == 1]
    if not rows:
        return []
    row = rng.choice(rows)
    return [ask(rng, stock, WHICH, row[0], grid.columns[0].name, grid.columns[column].name, row[column])]


def _last(rng: random.Random, stock: Stock, grid: Grid) -> list[QA]:
    summed = [i for i, cell in enumerate(grid.last) if i and cell]
    if not summed:
        return []
    column = rng.choice(summed)
    return [ask(rng, stock, SUMMED, grid.last[column], grid.columns[column].name)]


def as_json(rng: random.Random, stock: Stock, record: Record) -> list[QA]:
    """Ask for some of a record as compact JSON, by a list of keys or under a schema."""
    makers = [_fields_as_json] * bool(record.fields) + [_row_as_json] * bool(record.grid)
    makers += [_list_as_json] * bool(record.grid and len(record.grid.rows) <= LONGEST_LIST)
    return [rng.choice(makers)(rng, stock, record) for _ in range(2)]


def _fields_as_json(rng: random.Random, stock: Stock, record: Record) -> QA:
    fields, is_typed = (*record.fields, *record.sums), rng.random() < 0.6
    chosen = sorted(rng.sample(range(len(fields)), min(len(fields), rng.randint(1, 4))))
    return _asked(rng, stock, is_typed, {
        fields[i].name: _typed(fields[i].value, fields[i].count, is_typed) for i in chosen
    })  # fmt: skip


def _row_as_json(rng: random.Random, stock: Stock, record: Record) -> QA:
    """Ask for one row: the question names it, and the columns are the keys."""
    grid, is_typed = record.rows(), rng.random() < 0.6
    number = rng.randrange(len(grid.rows))
    question, answer = _asked(rng, stock, is_typed, _row(grid, number, is_typed))
    return f"{rng.choice(ROW[stock.is_held_out]).format(grid.rows[number][0])} {question}", answer


def _list_as_json(rng: random.Random, stock: Stock, record: Record) -> QA:
    """Ask for the rows' names, or under a schema for a few whole rows; on most pages with a field."""
    grid, is_typed = record.rows(), rng.random() < 0.6
    field = rng.choice((None, *record.fields, *record.sums))
    wanted: dict[str, Value] = {field.name: _typed(field.value, field.count, is_typed)} if field else {}
    if is_typed and len(grid.rows) <= LONGEST_LIST // 2 and rng.random() < 0.6:
        wanted[grid.nouns] = [_row(grid, number, True) for number in range(len(grid.rows))]
    else:
        wanted[grid.nouns] = [row[0] for row in grid.rows]
    return _asked(rng, stock, is_typed, wanted)


def _asked(rng: random.Random, stock: Stock, is_typed: bool, wanted: dict[str, Value]) -> QA:
    """Ask for an object: by its keys, or under a schema as JSON or in short."""
    wanted = {name.replace(" ", "_"): value for name, value in wanted.items()}
    if not is_typed:
        keys = join([f'"{key}"' for key in wanted])
        return ask(rng, stock, KEYS, compact(wanted), keys, "keys" if len(wanted) > 1 else "key")
    schema = _type(wanted)
    return ask(rng, stock, SCHEMA, compact(wanted), _short(schema) if rng.random() < 0.5 else json.dumps(schema))


def _row(grid: Grid, number: int, is_typed: bool) -> dict[str, Value]:
    """Return a row by its columns' names; a column is typed where all of it counts something."""
    is_count = [all(counts[i] is not None for counts in grid.counts) for i in range(len(grid.columns))]
    return {
        column.name: _typed(grid.rows[number][i], grid.counts[number][i], is_typed and is_count[i])
        for i, column in enumerate(grid.columns)
    }


def _typed(value: str, count: Decimal | None, is_typed: bool) -> Value:
    return count if is_typed and count is not None else value


Schema = dict[str, object]


def _type(value: Value) -> Schema:
    """Return the JSON schema of a value."""
    if isinstance(value, list):
        return {"type": "array", "items": _type(value[0])}
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: _type(part) for key, part in value.items()}}
    return {"type": "number" if isinstance(value, Decimal) else "string"}


def _short(schema: Schema) -> str:
    """Write a schema as people do: {"date": string, "items": [string]}."""
    items, properties = schema.get("items"), schema.get("properties")
    if isinstance(items, dict):
        return f"[{_short(items)}]"
    if isinstance(properties, dict):
        return "{" + ", ".join(f'"{key}": {_short(part)}' for key, part in properties.items()) + "}"
    return str(schema["type"])


def compact(value: Value) -> str:
    """Write JSON without white space."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{compact(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


def _made(kind: str, rng: random.Random, stock: Stock) -> Drawn:
    made = page(rng, stock, kind)
    return Drawn(_picture(rng, made), tuple(about(rng, stock, made.record)))


def _made_for_json(rng: random.Random, stock: Stock) -> Drawn:
    made = page(rng, stock, rng.choice(tuple(RECORDS)))
    return Drawn(_picture(rng, made), tuple(as_json(rng, stock, made.record)))


def _picture(rng: random.Random, made: Page) -> Image.Image:
    return worn(rng, made.sheet.painted(made.view, made.ground), made.size)


TASKS: dict[str, Task] = {
    **{f"{kind}s": Task(partial(_made, kind), "exact") for kind in RECORDS},
    "json": Task(_made_for_json, "json"),
}
