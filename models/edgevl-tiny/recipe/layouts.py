"""Layouts of documents: which blocks a page is built of, from top to bottom, for each kind of record.

Every layout writes everything that its record holds. Each kind has layouts that only the held-out part uses.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .blocks import (
    ALIGNED,
    BOXED,
    FRAMED,
    INLINE,
    LEADERS,
    PLAIN,
    RULED,
    SPREAD,
    STACKED,
    STRIPED,
    Band,
    Beside,
    Block,
    Bought,
    Cells,
    Line,
    Pairs,
    Rule,
    Style,
    on_band,
)
from .records import Field, Record

Layout = Callable[[random.Random, Record, Style], list[Block]]


def _heading(record: Record, style: Style, share: float, *names: str) -> list[Block]:
    """Write the title, and fields that need no label: the first of them large."""
    blocks: list[Block] = [Line(record.title, style.title, style.accent, share)] if record.title else []
    present = [field for field in record.fields if field.name in names]
    for number, field in enumerate(present):
        font, ink = (
            (style.strong if record.title else style.title, style.ink) if not number else (style.font, style.ink)
        )
        blocks.append(Line(field.value, font, ink, share))
    return blocks


def _foot(record: Record, style: Style, share: float) -> list[Block]:
    return [Rule(style.hair, style.row, 0), Line(record.note, style.font, style.faint, share)] if record.note else []


def _ruler(rng: random.Random, style: Style) -> Rule:
    return Rule(style.hair, style.row // 2 + 2, rng.choice((0, 1, 1, 2)))


def till(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Centre the shop, then goods and amounts, then the sums at the right edge."""
    rule, how = _ruler(rng, style), rng.choice((SPREAD, INLINE, ALIGNED))
    return [
        *_heading(record, style, 0.5, "shop", "address"), rule,
        Pairs(record.others("shop", "address"), style, how), rule,
        Cells(record.rows(), style, PLAIN, has_header=rng.random() < 0.3), rule,
        Pairs(record.sums, style, SPREAD), *_foot(record, style, 0.5),
    ]  # fmt: skip


def slip(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Write goods in two lines each; what else is known stands below the sums."""
    rule = _ruler(rng, style)
    return [
        *_heading(record, style, rng.choice((0.0, 0.5)), "shop", "address"), rule, Bought(record.rows(), style), rule,
        Pairs(record.sums, style, SPREAD), rule,
        Pairs(record.others("shop", "address"), style, rng.choice((SPREAD, INLINE))), *_foot(record, style, 0.5),
    ]  # fmt: skip


def counter(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Range everything left, with a ruled or framed table of goods."""
    rule = _ruler(rng, style)
    return [
        *_heading(record, style, 0.0, "shop", "address"), Pairs(record.others("shop", "address"), style, INLINE), rule,
        Cells(record.rows(), style, rng.choice((RULED, FRAMED)), ranged=rng.choice((0.0, 1.0, 1.0))), rule,
        Pairs(record.sums, style, rng.choice((ALIGNED, INLINE, SPREAD))), *_foot(record, style, 0.0),
    ]  # fmt: skip


def dotted(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Lead from goods to amounts with dots; shop and sums stand on bands."""
    on = on_band(style)
    return [
        Band(tuple(_heading(record, on, 0.5, "shop")), style.accent, style.em // 2), Rule(style.hair, style.em // 2, 0),
        Pairs(record.others("shop"), style, SPREAD), Rule(style.hair, style.em, 0),
        Cells(record.rows(), style, LEADERS, has_header=rng.random() < 0.5), Rule(style.hair, style.em, 0),
        Band((Pairs(record.sums, on, SPREAD),), style.accent, style.em // 2), *_foot(record, style, 1.0),
    ]  # fmt: skip


SELLER = ("seller", "seller address", "email", "phone")
CUSTOMER = ("customer", "customer address")


def _only(record: Record, names: tuple[str, ...]) -> tuple[Field, ...]:
    return tuple(field for field in record.fields if field.name in names)


def office(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Seller at the left and the numbers at the right; the customer; the goods; the sums at the right."""
    gap = Rule(style.hair, style.row, 0)
    return [
        Beside((*_heading(record, style, 0.0), Pairs(_only(record, SELLER), style, INLINE)),
               (Pairs(record.others(*SELLER, *CUSTOMER), style, rng.choice((ALIGNED, SPREAD, INLINE))),), 3 * style.em),
        gap, Pairs(_only(record, CUSTOMER), style, rng.choice((STACKED, INLINE))), gap,
        Cells(record.rows(), style, rng.choice((RULED, FRAMED, PLAIN))), gap,
        Beside((), (Pairs(record.sums, style, rng.choice((SPREAD, ALIGNED))),), style.em), *_foot(record, style, 0.0),
    ]  # fmt: skip


def letter(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Centre the seller; customer and numbers in columns; the sums across the whole page."""
    rule = _ruler(rng, style)
    others = record.others(*SELLER)
    return [
        *_heading(record, style, 0.5, "seller", "seller address"), rule,
        Pairs((*others, *_only(record, ("email", "phone"))), style, rng.choice((STACKED, ALIGNED)),
              rng.choice((1, 2, 2))),
        rule, Cells(record.rows(), style, rng.choice((RULED, PLAIN)), ranged=rng.choice((0.0, 1.0))), rule,
        Pairs(record.sums, style, SPREAD), *_foot(record, style, 0.5),
    ]  # fmt: skip


def columns(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Customer at the left, seller at the right, numbers in a row below; striped goods."""
    gap = Rule(style.hair, style.row, 0)
    return [
        *_heading(record, style, rng.choice((0.0, 1.0))), gap,
        Beside((Pairs(_only(record, CUSTOMER), style, STACKED),), (Pairs(_only(record, SELLER), style, INLINE),),
               2 * style.em),
        gap, Pairs(record.others(*SELLER, *CUSTOMER), style, STACKED, min(3, len(record.others(*SELLER, *CUSTOMER)))),
        Cells(record.rows(), style, STRIPED), gap,
        Beside((), (Pairs(record.sums, style, INLINE),), style.em), *_foot(record, style, 0.0),
    ]  # fmt: skip


def banner(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Title and seller on a band, boxed numbers, and the sums at the left."""
    gap, on = Rule(style.hair, style.row, 0), on_band(style)
    return [
        Band(tuple(_heading(record, on, 0.0, "seller", "seller address")), style.accent, style.em), gap,
        Pairs(record.others("seller", "seller address"), style, BOXED, 2), gap,
        Cells(record.rows(), style, rng.choice((FRAMED, PLAIN)), ranged=0.5), gap,
        Beside((Pairs(record.sums, style, ALIGNED),), (), style.em), *_foot(record, style, 1.0),
    ]  # fmt: skip


def lined(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Write labels with their values behind them, or in a column of their own."""
    return [
        *_heading(record, style, rng.choice((0.0, 0.5))), _ruler(rng, style),
        Pairs(record.fields, style, rng.choice((INLINE, ALIGNED, ALIGNED, SPREAD))), *_foot(record, style, 0.0),
    ]  # fmt: skip


def paired(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Write fields in two columns."""
    return [
        *_heading(record, style, rng.choice((0.0, 0.5))), _ruler(rng, style),
        Pairs(record.fields, style, rng.choice((STACKED, INLINE)), 2), *_foot(record, style, 0.5),
    ]  # fmt: skip


def below(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Write every value below its label."""
    fields = Pairs(record.fields, style, STACKED)
    return [*_heading(record, style, 0.0), _ruler(rng, style), fields, *_foot(record, style, 0.0)]


def boxes(rng: random.Random, record: Record, style: Style) -> list[Block]:
    """Write each field into a box, below a title on a band."""
    title = Band(tuple(_heading(record, on_band(style), rng.choice((0.0, 0.5)))), style.accent, style.em)
    fields = Pairs(record.fields, style, BOXED, rng.choice((1, 2, 3)))
    return [title, Rule(style.hair, style.em, 0), fields, *_foot(record, style, 0.5)]


def _sheet_of(how: str) -> Layout:
    def layout(rng: random.Random, record: Record, style: Style) -> list[Block]:
        title = _heading(record, style, rng.choice((0.0, 0.5)))
        grid = Cells(record.rows(), style, how, ranged=rng.choice((0.0, 0.5, 1.0, 1.0)))
        return [*title, Rule(style.hair, style.em, 0), grid]

    return layout


LAYOUTS: dict[str, tuple[dict[str, Layout], dict[str, Layout]]] = {
    "receipt": ({"till": till, "slip": slip, "counter": counter}, {"dotted": dotted}),
    "invoice": ({"office": office, "letter": letter, "columns": columns}, {"banner": banner}),
    "form": ({"lined": lined, "paired": paired, "below": below}, {"boxes": boxes}),
    "table": (
        {"plain": _sheet_of(PLAIN), "ruled": _sheet_of(RULED), "framed": _sheet_of(FRAMED)},
        {"striped": _sheet_of(STRIPED)},
    ),
}
"""By kind of record: the layouts of training, and those that are held out."""
