"""A measurement as one HTML page: it opens offline and loads nothing, in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgevl.bench.compare import Comparison
from edgevl.bench.plots import N_COLOURS, Bar, Series, bars, lines, mark
from edgevl.bench.report import VERDICT_TITLES, about, cell, headline, measured, verdict_cells
from edgevl.bench.result import CONTEXTS, Result, Row, Size, Spread, Stage, context_key, pixels, spread, threads_of

_SPLIT = ("read", "cut into tiles", "encode all tiles", "prefill")

_LIGHT = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c")
_DARK = ("#6bb3ff", "#ff9b61", "#63d68b", "#c79bff", "#e8c14f", "#ff8da1")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --paper: #ffffff; --faint: #d4d9e0; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14181d; --faint: #3a424d; DARK } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: 1rem; margin: 0.5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--faint); } .mark { stroke: var(--ink); stroke-width: 2.5; }
.key svg { width: 1rem; height: 1rem; vertical-align: -0.15rem; } .key span { margin-right: 1.2rem; }
"""


def page(result: Result, comparison: Comparison | None = None) -> str:
    """Return the page's text."""
    parts = [f"<h1>{escape(headline(result))}</h1>"]
    if comparison is not None:
        parts.append(_comparison(comparison))
    parts += [
        "<h2>Figures</h2>",
        _figures(result),
        f"<p>{escape(about(result))}</p>",
        "<h2>Each figure over the size of the picture</h2>",
        "<p>Marks are medians, whiskers the quartiles.</p>",
        _key([threads_of(n) for n in _threads(result)], marks=True),
        f'<div class="plots">{"".join(_plot(stage, result) for stage in measured(_of_pictures(result)))}</div>',
        *_decoding(result),
        "<h2>Where the time to the first token goes</h2>",
        "<p>Parts are medians of each stage alone; the line across is the first token as users wait for it."
        " It lies before the end of the bar where encoding and prefill overlap.</p>",
        _key(_SPLIT, marks=False),
        bars([_bar(row, result) for row in _of_pictures(result)], x_label="milliseconds"),
        "<h2>Machine</h2>",
        table([], result.machine.rows()),
    ]
    return document(f"edgevl bench: {result.model}", parts)


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """Return a whole page of `parts`, which are HTML, one below the other; `style` is added to the common one."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_style()}{style}</style>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts; without `titles`, one without a head."""
    head = f"<thead><tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr></thead>" if titles else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(part)}</td>' for part in row)}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _style() -> str:
    fills = "".join(
        f".f{i} {{ fill: var(--c{i}); }} .l{i} {{ stroke: var(--c{i}); stroke-width: 1.6; fill: none; }}\n"
        for i in range(N_COLOURS)
    )
    light, dark = ("".join(f"--c{i}: {colour}; " for i, colour in enumerate(c)) for c in (_LIGHT, _DARK))
    return _STYLE.replace("LIGHT", light).replace("DARK", dark) + fills


def _threads(result: Result) -> list[int]:
    return sorted({row.threads for row in result.rows})


def _sizes(result: Result) -> list[Size]:
    return sorted({row.size for row in result.rows if row.size is not None})


def _of_pictures(result: Result) -> list[Row]:
    return [row for row in result.rows if row.size is not None]


def _of_any_picture(result: Result) -> list[Row]:
    return [row for row in result.rows if row.size is None]


def _figures(result: Result) -> str:
    groups = _of_pictures(result), _of_any_picture(result)
    return "".join(f'<div class="wide">{_figures_of(rows)}</div>' for rows in groups if rows)


def _figures_of(rows: Sequence[Row]) -> str:
    stages = measured(rows)
    titles = ["picture", "threads", "tiles", *(f"{stage.title}, {stage.unit}" for stage in stages)]
    lines_ = [
        [
            pixels(row.size),
            str(row.threads),
            str(row.n_tiles) if row.size else "any",
            *(cell(s, row.values.get(s.key)) for s in stages),
        ]
        for row in rows
    ]
    return table(titles, lines_)


def _decoding(result: Result) -> list[str]:
    """Plot how decoding slows down as more is held; nothing where that was not measured."""
    rows = _of_any_picture(result)
    found = {stage.key: stage for stage in measured(rows)}
    stages = [found[key] for key in map(context_key, CONTEXTS) if key in found]
    if not stages:
        return []
    series = [Series(threads_of(row.threads), [_spread(stage, row) for stage in stages]) for row in rows]
    names = [f"{n:,}" for n in CONTEXTS if context_key(n) in found]
    plot = lines(names, series, x_label="tokens held", y_label="decode, tokens/s")
    return ["<h2>Decoding over what is held</h2>", f'<div class="plots"><figure>{plot}</figure></div>']


def _plot(stage: Stage, result: Result) -> str:
    sizes = _sizes(result)
    rows = {row.place: row for row in _of_pictures(result)}
    series = [Series(threads_of(n), [_spread(stage, rows.get((size, n))) for size in sizes]) for n in _threads(result)]
    y_label = f"{stage.title}, {stage.unit}"
    plot = lines([pixels(size) for size in sizes], series, x_label="picture, pixels", y_label=y_label)
    return f"<figure><h3>{escape(stage.title)}</h3>{plot}</figure>"


def _spread(stage: Stage, row: Row | None) -> Spread | None:
    values = row.values.get(stage.key) if row is not None else None
    return spread([value * stage.factor for value in values]) if values else None


def _bar(row: Row, result: Result) -> Bar:
    """Show a question's stages; several tiles are encoded side by side, where that was measured."""
    others = next((other.values for other in _of_any_picture(result) if other.threads == row.threads), {})

    def median(key: str) -> float:
        values = row.values.get(key) or others.get(key)
        return spread(values).median if values else 0.0

    speed = median("prefill_tokens_per_s")
    tile_s = (median("encode_at_once_s") if row.n_tiles > 1 else 0.0) or median("encode_s")
    parts = [
        median("read_s"),
        median("tile_s"),
        tile_s * row.n_tiles,
        row.n_tokens / speed if speed else 0.0,
    ]
    name = f"{pixels(row.size)}, {threads_of(row.threads)}"
    return Bar(name, [part * 1e3 for part in parts], median("first_token_s") * 1e3 or None)


def _comparison(comparison: Comparison) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    rows = [verdict_cells(verdict) for verdict in comparison.verdicts]
    verdicts = table(VERDICT_TITLES, rows) if rows else ""
    return f"<h2>Compared with then: {escape(comparison.summary)}</h2><ul>{notes}</ul>{verdicts}"


def _key(names: Sequence[str], *, marks: bool) -> str:
    def sample(index: int) -> str:
        shape = mark(8, 8, index) if marks else f'<rect class="f{index}" x="2" y="2" width="12" height="12"/>'
        return f'<svg viewBox="0 0 16 16">{shape}</svg>'

    return f'<p class="key">{"".join(f"<span>{sample(i)} {escape(name)}</span>" for i, name in enumerate(names))}</p>'
