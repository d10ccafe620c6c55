"""An evaluation as plain text and as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgevl.bench.report import aligned
from edgevl.eval.figures import Figure
from edgevl.eval.item import told
from edgevl.eval.run import Evaluation, Outcome
from edgevl.eval.stats import Difference

MAX_NAMED = 10
"""Problems told one by one; all are in the JSON document."""


def text(found: Evaluation) -> str:
    """Return the whole report, ready to be printed."""
    parts = [headline(found), _table(found)]
    if found.difference is not None:
        parts.append(difference_line(found, found.difference))
    parts += notes(found)
    if found.problems:
        parts.append(_problems(found))
    return "\n\n".join(parts)


def headline(found: Evaluation) -> str:
    """Say in one line what was asked, of how much, and how much could not be."""
    n, n_rows, n_left_out = len(found.chosen), _n_rows(found), len(found.problems)
    some = f"{n:,} of {n_rows:,} items, spread evenly"
    items = f"{n_rows:,} items" if n == len(found.dataset.items) else some
    left_out = f"; {n_left_out:,} left out as damaged or missing" if n_left_out else ""
    tables = found.dataset.tables
    where = told(Path(tables[0].name)) if len(tables) == 1 else f"{len(tables)} tables"
    return f"{found.dataset.task.name}, {where}: {items}{left_out}"


def _n_rows(found: Evaluation) -> int:
    """Return how many items the data set has, those included that cannot be asked."""
    return len(found.dataset.items) + len(found.dataset.problems)


def labels(found: Evaluation) -> list[str]:
    """Return what the models are called: their names, and what tells them apart where these are the same."""
    runs = [outcome.run for outcome in found.outcomes]
    for names in (
        [run.model for run in runs],
        [f"{run.model} ({run.precision})" for run in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{run.model} ({run.model_id[:8]})" for run in runs]


def rows(found: Evaluation) -> list[list[str]]:
    """Return the table of all figures: its head, a line per figure and per category, a column per model.

    Where there are two models, a column tells their differences, where they are told.
    """
    heading = ["difference, points"] if len(found.outcomes) == 2 else []
    empty = [""] * (len(heading) + 1)
    lines = [["", "asked", *labels(found), *heading, "one answer to all"]]
    for place, title in enumerate(title for title, _ in found.dataset.task.figures):
        parts = [_named(outcome.figures, title) for outcome in found.outcomes]
        ends = [*_difference(found, found.difference), _constant(found, "", "")] if place == 0 else empty
        lines.append([title, *_cells(parts), *ends])
    if macro := next((outcome.macro for outcome in found.outcomes if outcome.macro is not None), None):
        lines.append([macro.title, *_cells([outcome.macro for outcome in found.outcomes]), *empty])
    rates = [outcome.character_error_rate for outcome in found.outcomes]
    if any(rate is not None for rate in rates):
        n = sum(answer.item.metric == "characters" for answer in found.outcomes[0].answers)
        cells = ["-" if rate is None else f"{rate:.1%}" for rate in rates]
        lines.append(["character error rate of all text", f"{n:,}", *cells, *empty])
    for kind in dict.fromkeys(kind for outcome in found.outcomes for kind in outcome.categories):
        of_kind = [outcome.categories.get(kind, []) for outcome in found.outcomes]
        for title in dict.fromkeys(one.title for part in of_kind for one in part):
            cells = _cells([_named(part, title) for part in of_kind])
            compared = _difference(found, found.differences.get((kind, title)))
            lines.append([f"{kind}: {title}", *cells, *compared, _constant(found, kind, title)])
    return lines


def _difference(found: Evaluation, difference: Difference | None) -> list[str]:
    """Return the cell of a difference; none where one model is told alone."""
    if len(found.outcomes) < 2:
        return []
    return ["-" if difference is None else _points(difference)]


def _points(difference: Difference) -> str:
    value, low, high = (f"{100 * part:+.1f}" for part in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"


def difference_line(found: Evaluation, difference: Difference) -> str:
    """Say what the first model does better or worse than the second, and whether that is more than chance."""
    first, second = labels(found)
    verdict = "a difference" if difference.is_shown else "no difference is shown"
    return (
        f"{first} minus {second}: {100 * difference.value:+.1f} points "
        f"(95 %: {100 * difference.low:+.1f} to {100 * difference.high:+.1f}) on the same {difference.n:,}; "
        f"{difference.n_first:,} better with the first, {difference.n_second:,} with the second, "
        f"McNemar p = {difference.p:.2g}: {verdict}"
    )


def document(found: Evaluation) -> dict[str, Any]:
    """Return plain data for JSON: every figure, what could not be asked, and what answered."""
    return {
        "task": found.dataset.task.name,
        "tables": [told(path) for path in found.dataset.tables],
        "data_id": found.data_id,
        "n_rows": _n_rows(found),
        "n_items": len(found.dataset.items),
        "n_chosen": len(found.chosen),
        "models": [_model(outcome) for outcome in found.outcomes],
        "difference": None if found.difference is None else _compared(found.difference),
        "differences": [
            {"kind": kind, "category": category, **_compared(one)}
            for (kind, category), one in found.differences.items()
        ],
        "constants": [
            {"kind": kind, "category": category, **asdict(one)} for (kind, category), one in found.constants.items()
        ],
        "problems": [{"where": problem.where, "what": problem.what} for problem in found.problems],
    }


def _compared(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference), "is_shown": difference.is_shown}


def _model(outcome: Outcome) -> dict[str, Any]:
    return {
        **asdict(outcome.run),
        "run": outcome.run.key,
        "figures": [asdict(one) for one in outcome.figures],
        "character_error_rate": outcome.character_error_rate,
        "macro": None if outcome.macro is None else asdict(outcome.macro),
        "categories": {kind: [asdict(one) for one in part] for kind, part in outcome.categories.items()},
        "n_answers": len(outcome.answers),
        "n_cut": outcome.n_cut,
        "n_unnamed": outcome.n_unnamed,
        "refused": [{"id": answer.item.id, "why": answer.refused} for answer in outcome.refused],
    }


def _table(found: Evaluation) -> str:
    return aligned(rows(found))


def _cells(figures: Sequence[Figure | None]) -> list[str]:
    """Return how many were asked, and each model's figure with its interval."""
    n = max((one.n for one in figures if one is not None), default=0)
    return [
        f"{n:,}",
        *("-" if one is None else f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%})" for one in figures),
    ]


def _constant(found: Evaluation, kind: str, category: str) -> str:
    one = found.constants.get((kind, category))
    if one is None:
        return ""
    text = " ".join(one.answer.split())
    return f"{one.value:.1%} ({text if len(text) <= 24 else text[:21] + '...'})"


def _named(figures: Sequence[Figure], title: str) -> Figure | None:
    return next((one for one in figures if one.title == title), None)


def notes(found: Evaluation) -> list[str]:
    """Say what a reader of the figures must know, a sentence each."""
    return [line for outcome in found.outcomes for line in _notes(found, outcome)]


def _notes(found: Evaluation, outcome: Outcome) -> list[str]:
    name = labels(found)[found.outcomes.index(outcome)]
    notes = []
    if outcome.n_cut:
        n_tokens = found.dataset.task.max_tokens
        notes.append(f"{name}: {outcome.n_cut:,} answers were cut after {n_tokens} tokens")
    if outcome.n_unnamed:
        notes.append(f"{name}: {outcome.n_unnamed:,} answers name none of the choices")
    if outcome.refused:
        first = outcome.refused[0]
        notes.append(
            f"{name}: {len(outcome.refused):,} items could not be asked of this model and count as wrong; "
            f"the first is {first.item.id}: {first.refused}"
        )
    return notes


def _problems(found: Evaluation) -> str:
    lines = [f"{len(found.problems):,} damaged or missing, left out:"]
    lines += [f"  {problem}" for problem in found.problems[:MAX_NAMED]]
    if len(found.problems) > MAX_NAMED:
        lines.append(f"  and {len(found.problems) - MAX_NAMED:,} more, which --json names")
    return "\n".join(lines)
