"""A measurement as plain text: one table per number of threads, and the verdicts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from edgevl.bench.compare import Comparison, Verdict
from edgevl.bench.result import STAGES, Result, Row, Stage, pixels, spread, threads_of

ABOUT = (
    "Medians over the rounds, quartiles in brackets. The first token is asked for as users do; each stage is timed\n"
    "alone, because in a question they overlap. Several tiles are encoded side by side in a question where that is\n"
    "quicker. Memory and cold start are those of a new process that asks one question; graphs are compiled by then."
)


def text(result: Result, comparison: Comparison | None = None) -> str:
    """Return the whole report, ready to be printed."""
    parts = [headline(result), _machine(result)]
    for threads in dict.fromkeys(row.threads for row in result.rows):
        rows = [row for row in result.rows if row.threads == threads]
        tables = [row for row in rows if row.size is not None], [row for row in rows if row.size is None]
        parts += [_table(some) for some in tables if some]
    parts.append(about(result))
    if comparison is not None:
        parts.append(_comparison(comparison))
    return "\n\n".join(parts)


def about(result: Result) -> str:
    """Say how the figures came about, and which contexts are left out."""
    if not result.left_out:
        return ABOUT
    names = " and ".join(f"{n:,}" for n in result.left_out)
    return f"{ABOUT}\nLeft out: decode at {names} tokens, for this model's context holds {result.n_context:,}."


def headline(result: Result) -> str:
    """Say what was measured, in one line."""
    picture = "a made picture" if result.picture == "made" else "a picture of yours"
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds} rounds"
    return f"{result.model}, {picture}, {rounds}, {result.created}"


def number(value: float) -> str:
    """Return a number with three digits that count, and without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def cell(stage: Stage, values: list[float] | None) -> str:
    """Return the median and the quartiles of a stage's values in its unit; a dash where there are none."""
    if not values:
        return "-"
    found = spread([value * stage.factor for value in values])
    if len(values) == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}-{number(found.high)})"


def measured(rows: Sequence[Row]) -> list[Stage]:
    """Return the stages that any of the rows has values of."""
    return [stage for stage in STAGES if any(stage.key in row.values for row in rows)]


def verdict_cells(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Return a verdict as (size, threads, stage, ratio with its interval, change)."""
    ratio = f"{verdict.ratio:.2f}"
    if verdict.interval is not None:
        ratio += f" ({verdict.interval.low:.2f}-{verdict.interval.high:.2f})"
    return pixels(verdict.size), str(verdict.threads), verdict.stage.title, ratio, verdict.change


VERDICT_TITLES = ("size", "threads", "figure", "now / then (95 %)", "verdict")


def _machine(result: Result) -> str:
    rows = result.machine.rows()
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _table(rows: Sequence[Row]) -> str:
    lines = [[threads_of(rows[0].threads), *(pixels(row.size) for row in rows)]]
    if rows[0].size is not None:
        lines.append(["tiles / prompt tokens", *(f"{row.n_tiles} / {row.n_tokens}" for row in rows)])
    for stage in measured(rows):
        lines.append([f"{stage.title}, {stage.unit}", *(cell(stage, row.values.get(stage.key)) for row in rows)])
    return aligned(lines)


def _comparison(comparison: Comparison) -> str:
    lines = [f"note: {note}" for note in comparison.notes]
    if changed := [verdict for verdict in comparison.verdicts if verdict.is_change]:
        lines += ["", aligned([VERDICT_TITLES, *map(verdict_cells, changed)], 3), ""]
    return "\n".join(["Compared with then:", *lines, f"verdict: {comparison.summary}"])


def aligned(lines: Sequence[Sequence[str]], n_left: int = 1) -> str:
    """Lay cells out in columns, the first `n_left` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_padded(line, widths, n_left)).rstrip() for line in lines)


def _padded(line: Sequence[str], widths: Sequence[int], n_left: int) -> list[str]:
    pairs = enumerate(zip(line, widths, strict=True))
    return [part.ljust(width) if i < n_left else part.rjust(width) for i, (part, width) in pairs]
