"""Pages: deterministic, inside of the picture, answered by what is printed, sums add up, held-out parts apart."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pytest

from edgevl.eval import metrics
from edgevl.recipe import documents, phrasings, records
from edgevl.recipe.documents import TASKS, Page
from edgevl.recipe.drawn import Stock
from edgevl.recipe.layouts import LAYOUTS
from edgevl.recipe.records import RECORDS, Grid
from edgevl.recipe.sheet import SMALLEST
from tests.recipe.sheets import all_phrasings, assert_well_placed, gaps

N_SEEDS = 200


@pytest.fixture(scope="module")
def pages(training: Stock, held_out: Stock) -> list[tuple[Page, Stock, random.Random]]:
    """Pages of every kind, of both parts, with what goes on drawing."""
    made = []
    for seed in range(N_SEEDS):
        rng, stock = random.Random(f"page-{seed}"), (training, held_out)[seed % 3 == 0]
        made.append((documents.page(rng, stock, tuple(RECORDS)[seed % 4]), stock, rng))
    return made


Pages = list[tuple[Page, Stock, random.Random]]


def printed_on(page: Page) -> set[str]:
    return {text.text for text in page.sheet.texts}


def digits(text: str) -> str:
    return re.sub(r"\D", "", text)


@pytest.mark.parametrize("name", TASKS)
def test_one_seed_one_picture(name: str, training: Stock) -> None:
    first, again, other = (TASKS[name].make(random.Random(f"{name}-{seed}"), training) for seed in (1, 1, 2))
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes() != other.picture.tobytes()
    assert first.picture.mode == "RGB"
    assert TASKS[name].metric in metrics.METRICS


def test_text_lies_inside_and_apart_on_pages_that_grow_with_their_content(pages: Pages) -> None:
    for page, _, _ in pages:
        assert_well_placed(page.sheet, page.view)
        assert 256 <= page.view.size[0] <= 1024
        assert 256 <= page.view.size[1] <= 768
        assert all(text.font.size >= SMALLEST for text in page.sheet.texts)
    by_content = sorted((page for page, _, _ in pages), key=lambda page: len(page.sheet.texts))
    few, many = by_content[: N_SEEDS // 4], by_content[-N_SEEDS // 4 :]
    few_area, many_area = (sum(page.view.size[0] * page.view.size[1] for page in part) for part in (few, many))
    assert many_area > 2 * few_area
    assert len(few[0].sheet.texts) < 10 < 60 < len(many[-1].sheet.texts)


def test_text_stands_out_from_what_lies_below_it(pages: Pages) -> None:
    for page in [page for page, _, _ in pages if not page.view.angle][:30]:
        brightness = np.asarray(page.sheet.painted(page.view, page.ground).convert("L"), np.int16)
        for text in page.sheet.texts:
            (top, left), _, _, (bottom, right) = page.view.corners(text.box)
            assert np.ptp(brightness[round(top) : round(bottom), round(left) : round(right)]) > 45, text.text


def test_everything_that_a_record_holds_is_printed(pages: Pages) -> None:
    for page, _, _ in pages:
        texts, record = printed_on(page), page.record
        assert {field.value for field in (*record.fields, *record.sums)} <= texts
        if record.grid:
            assert {cell for row in (*record.grid.rows, record.grid.last) for cell in row if cell} <= texts


def test_answers_are_printed_or_counted_from_what_is_printed(pages: Pages) -> None:
    for page, stock, rng in pages:
        texts, record = printed_on(page), page.record
        pairs = documents.about(rng, stock, record)
        assert 3 <= len(pairs) <= documents.MOST_PAIRS
        for question, answer in pairs:
            if record.grid and gaps(phrasings.COUNT[stock.is_held_out], question) == [record.grid.nouns]:
                assert answer == str(sum(row[0] in texts for row in record.grid.rows))
            elif answer.startswith("there is no "):
                assert answer[12:-1] not in {field.name for field in (*record.fields, *record.sums)}
            else:
                assert answer in texts


def test_a_cell_is_the_one_of_its_row_and_column(pages: Pages) -> None:
    n = 0
    for page, stock, rng in pages:
        if page.record.grid is None:
            continue
        cells = by_name(page.record.grid)
        for question, answer in documents.about(rng, stock, page.record):
            for first, second in all_orders(gaps(phrasings.CELL[stock.is_held_out], question)):
                if (first.lower(), second.lower()) in cells:
                    assert cells[first.lower(), second.lower()] == answer
                    n += 1
    assert n > N_SEEDS


def by_name(grid: Grid) -> dict[tuple[str, str], str]:
    names = [column.name for column in grid.columns]
    return {(name, row[0].lower()): row[i] for row in grid.rows for i, name in enumerate(names) if i}


def all_orders(parts: list[str] | None) -> Iterator[tuple[str, str]]:
    if parts and len(parts) == 2:
        yield parts[0], parts[1]
        yield parts[1], parts[0]


def test_totals_add_up_and_are_what_is_printed(pages: Pages) -> None:
    n_taxed = 0
    for page, _, _ in pages:
        record = page.record
        if record.grid is None or not record.sums:
            continue
        sums = {field.name: field for field in record.sums}
        count = {name: field.count or Decimal(0) for name, field in sums.items()}
        column = {column.name: i for i, column in enumerate(record.grid.columns)}
        amounts = [row[column["amount"]] or Decimal(0) for row in record.grid.counts]
        assert sum(amounts) == count.get("subtotal", count["total"])
        if "tax" in sums:
            rate = Decimal(digits(sums["tax"].label) or 0)
            assert count["total"] == count["subtotal"] + count["tax"]
            assert not rate or abs(count["tax"] - count["subtotal"] * rate / 100) <= Decimal("0.005")
            n_taxed += bool(rate)
        if "change" in sums:
            assert count["cash"] - count["total"] == count["change"] >= 0
        for field in record.sums:
            assert field.count is None or digits(field.value).zfill(3) == digits(f"{field.count:.2f}").zfill(3)
        for cells, counts in zip(record.grid.rows, record.grid.counts, strict=True):
            assert digits(cells[column["amount"]]) == digits(str(counts[column["amount"]]))
            if "price" in column:
                each, quantity = counts[column["price"]], counts[column["quantity"]]
                assert each is not None
                assert quantity is not None
                assert each * quantity == counts[column["amount"]]
    assert n_taxed > 10


def test_a_tables_last_row_sums_up_its_columns(pages: Pages) -> None:
    grids = [page.record.grid for page, _, _ in pages if page.record.grid and page.record.grid.last]
    assert grids
    for grid in grids:
        for i, cell in enumerate(grid.last[1:], start=1):
            assert not cell or int(cell) == sum(int(row[i]) for row in grid.rows)


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def test_json_answers_are_compact_follow_their_schema_and_hold_what_is_printed(pages: Pages) -> None:
    n_schemas = 0
    for page, stock, rng in pages:
        texts = printed_on(page)
        numbers = {digits(text).lstrip("0") for text in texts}
        for question, answer in documents.as_json(rng, stock, page.record):
            value = json.loads(answer, parse_float=Decimal)
            assert metrics.json_value(json.dumps(json.loads(answer), indent=1), [answer]) == 1
            assert '": ' not in answer
            for leaf in leaves(value):
                number = digits(str(leaf)).lstrip("0")
                assert leaf in texts if isinstance(leaf, str) else number in numbers
            keys = re.findall(r'"(\w+)": ?\{"type"|"(\w+)": [\[{]?(?:string|number|")', question)
            if found := re.search(r'\{"type": "object".*\}', question):
                schema = json.loads(found.group())
                assert follows(value, schema)
                assert list(schema["properties"]) == list(value)
                n_schemas += 1
            else:
                assert keys or all(f'"{key}"' in question for key in value)
    assert n_schemas > 20


def follows(value: object, schema: dict[str, object]) -> bool:
    if schema["type"] == "object":
        properties = schema["properties"]
        assert isinstance(properties, dict)
        return isinstance(value, dict) and all(follows(value[key], part) for key, part in properties.items())
    if schema["type"] == "array":
        items = schema["items"]
        assert isinstance(items, dict)
        return isinstance(value, list) and all(follows(part, items) for part in value)
    return isinstance(value, str if schema["type"] == "string" else int | Decimal)


def test_layouts_phrasings_and_names_held_out_are_apart(pages: Pages) -> None:
    for kind, (known, kept) in LAYOUTS.items():
        assert known
        assert kept
        assert not set(known) & set(kept)
        assert not set(known.values()) & set(kept.values())
        for is_held_out, names in enumerate((known, kept)):
            used = {p.layout for p, stock, _ in pages if p.record.kind == kind and stock.is_held_out == is_held_out}
            assert used == set(names)
    for page, stock, rng in pages:
        for asked, _ in documents.about(rng, stock, page.record):
            assert any(gaps(pair[stock.is_held_out], asked) is not None for pair in all_phrasings())


@pytest.mark.parametrize("kind", RECORDS)
def test_records_hold_as_much_as_they_are_told(kind: str, training: Stock) -> None:
    sizes = []
    for amount in (0.0, 1.0):
        drawn = [RECORDS[kind](random.Random(seed), training, amount) for seed in range(20)]
        sizes.append([len(one.fields) + (len(one.grid.rows) if one.grid else 0) for one in drawn])
    assert max(sizes[0]) <= 9
    assert max(sizes[1]) >= 15
    names = [row[0] for one in drawn if one.grid for row in one.grid.rows[:1]]
    assert len(set(names)) > 5 or kind == "form"


def test_what_is_missing_is_not_there() -> None:
    stock = Stock((), ("word", "other"), False)
    for kind in ("receipt", "invoice", "form"):
        for seed in range(20):
            record = RECORDS[kind](random.Random(seed), stock, 0.5)
            assert not set(record.missing) & {field.name for field in (*record.fields, *record.sums)}
    assert records.RECORDS["form"](random.Random(0), stock, 0.0).missing
