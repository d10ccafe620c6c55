"""What a page is built of: blocks that know the least width they need and write themselves from a place downwards.

Widths and places are in pixels; `draw` returns the y below the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from PIL import ImageFont

from . import drawn
from .records import Column, Field, Grid
from .sheet import Colour, Sheet, mixed, text_height, text_width


@dataclass(frozen=True)
class Style:
    """A page's typefaces (files), the size of its text in pixels, its colours, and how wide its lines stand apart."""

    body: Path
    heading: Path
    size: int
    ink: Colour
    accent: Colour
    paper: Colour
    spacing: float = 1.15
    colon: str = ":"

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        """The font of its text."""
        return drawn.font(self.body, self.size)

    @property
    def title(self) -> ImageFont.FreeTypeFont:
        """The font of its headings."""
        return drawn.font(self.heading, round(1.5 * self.size))

    @property
    def strong(self) -> ImageFont.FreeTypeFont:
        """The font of what is to stand out."""
        return drawn.font(self.heading, self.size)

    @property
    def faint(self) -> Colour:
        """The ink of labels."""
        return mixed(self.ink, self.paper, 0.15)

    @property
    def hair(self) -> Colour:
        """The colour of thin lines."""
        return mixed(self.ink, self.paper, 0.5)

    @property
    def row(self) -> int:
        """The height of a line with the room around it."""
        above, under = (max(both) for both in zip(self.font.getmetrics(), self.strong.getmetrics(), strict=True))
        return round(self.spacing * (above + under))

    @property
    def em(self) -> int:
        """The room between things that stand side by side."""
        return self.size


class Block(Protocol):
    """A part of a page."""

    def width(self) -> int:
        """Return the least width."""

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write it at (y, x), `width` wide."""


@dataclass(frozen=True)
class Line:
    """One line, ranged by `share`: 0 left, 0.5 centred, 1 right."""

    text: str
    font: ImageFont.FreeTypeFont
    ink: Colour
    share: float = 0.0

    def width(self) -> int:
        """Return the text's width."""
        return text_width(self.font, self.text)

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write the line."""
        sheet.write(self.text, y, x + int(self.share * (width - self.width())), self.font, self.ink)
        return y + text_height(self.font)


@dataclass(frozen=True)
class Rule:
    """A line across the page with room around it; none is drawn with a `thickness` of 0, two with one of 2."""

    ink: Colour
    room: int
    thickness: int = 1

    def width(self) -> int:
        """Return 0: it takes what there is."""
        return 0

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Draw the line."""
        for i in range(self.thickness):
            sheet.rule(y + self.room // 2 + 3 * i, x, width, self.ink)
        return y + self.room + 3 * self.thickness


INLINE, SPREAD, ALIGNED, STACKED, BOXED = "inline", "spread", "aligned", "stacked", "boxed"


@dataclass(frozen=True)
class Pairs:
    """Labels with their values: the value behind its label, at the right edge, in a column, or below, also in a box."""

    fields: tuple[Field, ...]
    style: Style
    how: str
    n_columns: int = 1

    def width(self) -> int:
        """Return the width of the widest field, for every column."""
        cell = max((self._width(field) for field in self.fields), default=0)
        return self.n_columns * cell + (self.n_columns - 1) * 2 * self.style.em

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write the fields row by row."""
        cell = (width - (self.n_columns - 1) * 2 * self.style.em) // self.n_columns
        for first in range(0, len(self.fields), self.n_columns):
            for i, field in enumerate(self.fields[first : first + self.n_columns]):
                self._write(sheet, field, y, x + i * (cell + 2 * self.style.em), cell)
            y += self._height()
        return y

    def _label(self, field: Field) -> str:
        return field.label + (self.style.colon if field.label and self.how not in (STACKED, BOXED) else "")

    def _widths(self, field: Field) -> tuple[int, int]:
        return text_width(self.style.font, self._label(field)), text_width(self.style.strong, field.value)

    def _width(self, field: Field) -> int:
        label, value = self._widths(field)
        if self.how in (STACKED, BOXED):
            return max(label, value) + self.style.em
        if self.how == ALIGNED:
            label = max(self._widths(other)[0] for other in self.fields)
        return label + value + (self.style.em if self.how in (SPREAD, ALIGNED) else self.style.em // 2)

    def _height(self) -> int:
        row = self.style.row
        return {STACKED: 2 * row + row // 2, BOXED: 2 * row + row}.get(self.how, row)

    def _write(self, sheet: Sheet, field: Field, y: int, x: int, cell: int) -> None:
        style, (label, value) = self.style, self._widths(field)
        if self.how == BOXED:
            sheet.mark((y, x, y + 2 * style.row + style.row // 2, x + cell), outline=style.hair)
            y, x = y + style.row // 4, x + style.em // 2
        above, value_above = style.font.getmetrics()[0], style.strong.getmetrics()[0]
        if field.label:
            sheet.write(self._label(field), y + max(0, value_above - above), x, style.font, style.faint)
        if self.how in (STACKED, BOXED):
            y += style.row
        else:
            x += self._offset(label, value, cell)
        sheet.write(field.value, y + max(0, above - value_above), x, style.strong, style.ink)

    def _offset(self, label: int, value: int, cell: int) -> int:
        """Return how far right of its label a value stands."""
        if self.how == SPREAD:
            return cell - value
        if self.how == ALIGNED:
            return max(self._widths(other)[0] for other in self.fields) + self.style.em
        return label + self.style.em // 2 if label else 0


PLAIN, RULED, FRAMED, STRIPED, LEADERS = "plain", "ruled", "framed", "striped", "leaders"


@dataclass(frozen=True)
class Cells:
    """A table: plain, with lines between rows, with frames around cells, with striped rows, or with dotted leaders."""

    grid: Grid
    style: Style
    how: str
    has_header: bool = True
    ranged: float = 1.0
    """Where numbers stand in their column: 0 left, 0.5 in the middle, 1 right."""

    def width(self) -> int:
        """Return the sum of the columns' widths."""
        return sum(self._widths()) + self.style.em * len(self.grid.columns)

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write header and rows; the first column takes the room that is left."""
        widths = self._widths()
        widths[0] += width - self.width()
        if self.has_header:
            self._header(sheet, y, x, width)
            header = tuple(column.header for column in self.grid.columns)
            y = self._row(sheet, header, y, x, widths, is_header=True)
        for number, row in enumerate(self.grid.rows):
            if self.how == STRIPED and number % 2:
                sheet.mark((y, x, y + self.style.row - 1, x + width), fill=mixed(self.style.paper, self.style.ink, 0.1))
            y = self._row(sheet, row, y, x, widths)
        if self.grid.last:
            sheet.rule(y, x, width, self.style.ink)
            y = self._row(sheet, self.grid.last, y + 3, x, widths, is_header=True)
        return y + 1

    def _header(self, sheet: Sheet, y: int, x: int, width: int) -> None:
        if self.how == STRIPED:
            sheet.mark((y, x, y + self.style.row - 1, x + width), fill=self.style.accent)
        elif self.how in (RULED, LEADERS):
            sheet.rule(y + self.style.row - 1, x, width, self.style.ink)

    def _widths(self) -> list[int]:
        style, grid = self.style, self.grid
        rows = [row for row in (*grid.rows, grid.last) if row]
        return [
            max(
                text_width(style.strong, column.header) if self.has_header else 0,
                text_width(style.strong, grid.last[i]) if grid.last else 0,
                *(text_width(style.font, row[i]) for row in rows),
            )
            for i, column in enumerate(grid.columns)
        ]

    def _row(
        self, sheet: Sheet, cells: Sequence[str], y: int, x: int, widths: Sequence[int], is_header: bool = False
    ) -> int:
        style = self.style
        font = style.strong if is_header else style.font
        ink = style.paper if is_header and self.how == STRIPED and cells != self.grid.last else style.ink
        top = y + (style.row - text_height(font)) // 2
        for i, (text, width, column) in enumerate(zip(cells, widths, self.grid.columns, strict=True)):
            place = x + style.em // 2 + int(self._share(column, i) * (width - text_width(font, text)))
            if text:
                sheet.write(text, top, place, font, ink)
            if self.how == FRAMED:
                sheet.mark((y, x, y + style.row, x + width + style.em), outline=style.hair)
            x += width + style.em
        if self.how == RULED and not is_header:
            whole = sum(widths) + style.em * len(widths)
            sheet.rule(y + style.row - 1, x - whole, whole, style.hair)
        if self.how == LEADERS and not is_header:
            self._lead(sheet, cells, top, x - sum(widths) - style.em * len(widths), widths)
        return y + style.row

    def _share(self, column: Column, i: int) -> float:
        return self.ranged if column.is_number and i else 0.0

    def _lead(self, sheet: Sheet, cells: Sequence[str], y: int, x: int, widths: Sequence[int]) -> None:
        """Dot the way from the first cell to the second."""
        style = self.style
        start = x + style.em + text_width(style.font, cells[0])
        free = self._share(self.grid.columns[1], 1) * (widths[1] - text_width(style.font, cells[1]))
        end = x + widths[0] + style.em + int(free)
        n_dots = int((end - start) / style.font.getlength("..........") * 10)
        if n_dots > 1:
            sheet.write("." * n_dots, y, start, style.font, style.hair)


@dataclass(frozen=True)
class Bought:
    """Goods in two lines each: the name, and below it how many at which price, with the amount at the right edge."""

    grid: Grid
    style: Style

    def width(self) -> int:
        """Return the width of the widest line."""
        lines = [width for row in self._rows() for width in self._widths(row)]
        return max(lines)

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write the goods."""
        style = self.style
        for name, *parts, amount in self._rows():
            sheet.write(name, y, x, style.font, style.ink)
            place = x + 2 * style.em
            for part in parts:
                sheet.write(part, y + style.row, place, style.font, style.ink)
                place += text_width(style.font, part) + style.em // 2
            end = x + width - text_width(style.font, amount)
            sheet.write(amount, y + style.row, end, style.font, style.ink)
            y += 2 * style.row
        return y

    def _rows(self) -> list[list[str]]:
        """Return each row's name, what stands below it, and its amount."""
        names = [column.name for column in self.grid.columns]
        rows = []
        for row in self.grid.rows:
            cells = dict(zip(names, row, strict=True))
            parts = [part for part in (cells.get("quantity"), "x", cells.get("price")) if part]
            rows.append([cells["item"], *(parts if "quantity" in cells else ()), cells["amount"]])
        return rows

    def _widths(self, row: Sequence[str]) -> tuple[int, int]:
        name, *below = row
        style = self.style
        return text_width(style.font, name), sum(
            text_width(style.font, part) + style.em for part in below
        ) + 3 * style.em


@dataclass(frozen=True)
class Beside:
    """Two stacks of blocks side by side, the right one at the right edge or in the middle."""

    left: tuple[Block, ...]
    right: tuple[Block, ...]
    room: int

    def width(self) -> int:
        """Return the width of both and the room between."""
        return _widest(self.left) + self.room + _widest(self.right)

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Write both stacks from one height downwards."""
        right = _widest(self.right)
        return max(
            stacked(sheet, self.left, y, x, width - right - self.room),
            stacked(sheet, self.right, y, x + width - right, right),
        )


@dataclass(frozen=True)
class Band:
    """Blocks on a coloured band."""

    blocks: tuple[Block, ...]
    fill: Colour
    room: int

    def width(self) -> int:
        """Return the widest block's width and the room around."""
        return _widest(self.blocks) + 2 * self.room

    def draw(self, sheet: Sheet, y: int, x: int, width: int) -> int:
        """Draw the band below its blocks."""
        number = len(sheet.marks)
        bottom = stacked(sheet, self.blocks, y + self.room, x + self.room, width - 2 * self.room) + self.room
        sheet.mark((y, x, bottom - 1, x + width), fill=self.fill)
        sheet.marks.insert(number, sheet.marks.pop())
        return bottom


def _widest(blocks: Sequence[Block]) -> int:
    return max((block.width() for block in blocks), default=0)


def stacked(sheet: Sheet, blocks: Sequence[Block], y: int, x: int, width: int) -> int:
    """Write blocks one below the other."""
    for block in blocks:
        y = block.draw(sheet, y, x, width)
    return y


def on_band(style: Style) -> Style:
    """Return the style for what stands on a band of the accent's colour."""
    return replace(style, ink=style.paper, accent=style.paper, paper=style.accent)
