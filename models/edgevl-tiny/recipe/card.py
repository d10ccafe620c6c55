"""The accuracy tables of the model's card, and the figures behind them (`accuracy.json`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .datasets import FORMS
from .goals import GOALS, MOST_DROP

BEGIN, END = "<!-- begin generated: accuracy -->", "<!-- end generated: accuracy -->"
OTHERS = ("int4", "fp32")
"""What the shipped model is compared with, as far as it was measured."""
REFERENCE = OTHERS[-1]

Row = Mapping[str, Any]


def summary(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a row a task of an evaluation's report, without single answers.

    A row has n, metric, accuracy, interval, baseline and its answer; the accuracy of each other model by its name;
    `difference`, which is the shipped model's minus the reference's; `goal`, where there is one; and `drop`, what a
    form of questions costs, with its interval.
    """
    return {task: _summed(task, row) for task, row in report["tasks"].items()}


def _summed(task: str, row: Row) -> dict[str, Any]:
    kept = {key: row[key] for key in ("n", "metric", "accuracy", "interval", "baseline", "baseline_answer")}
    found = {**kept, **{name: other["accuracy"] for name, other in row["against"].items()}}
    if REFERENCE in row["against"]:
        found["difference"] = row["against"][REFERENCE]["difference"]
    if task in GOALS:
        found["goal"] = GOALS[task]
    if "drop" in row:
        found["drop"] = row["drop"]
    return found


def tables(rows: Mapping[str, Row]) -> str:
    """Return Markdown: a table with a row a task, and one of what other forms of the same questions cost."""
    tasks = [_task(task, row) for task, row in rows.items() if task not in FORMS]
    titles = ("task", "metric", "examples", "shipped", "95 % interval", *OTHERS, f"shipped - {REFERENCE}, points (p)",
              "one answer to all", "goal")  # fmt: skip
    parts = [_table(titles, tasks)]
    if any("drop" in row for row in rows.values()):
        parts.append(_table(("asked", "pairs", "right", "change, points", "95 % interval", "goal"), _forms(rows)))
    return "\n\n".join(parts)


def _task(task: str, row: Row) -> tuple[str, ...]:
    low, high = row["interval"]
    change = row.get("difference")
    return (
        task.replace("_", " "),
        row.get("metric", "exact"),
        str(row["n"]),
        f"{row['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}",
        *(f"{row[name]:.1%}" if name in row else "" for name in OTHERS),
        f"{100 * change['value']:+.1f} ({change['p']:.2g})" if change else "",
        f"{row['baseline']:.1%}",
        _goal(row),
    )


def _goal(row: Row) -> str:
    """Return the goal, and whether it is reached."""
    if "goal" not in row:
        return ""
    return f"{row['goal']:.0%}, {'reached' if row['accuracy'] >= row['goal'] else 'not reached'}"


def _forms(rows: Mapping[str, Row]) -> list[tuple[str, ...]]:
    said = {"paraphrased": "in other words", "chat": "after three other questions"}
    lines: list[tuple[str, ...]] = []
    for form, words in said.items():
        if change := rows.get(form, {}).get("drop"):
            points = [f"{100 * change[key]:+.1f}" for key in ("value", "low", "high")]
            reached = "reached" if -change["value"] <= MOST_DROP else "not reached"
            right, goal = f"{rows[form]['accuracy']:.1%}", f"-{100 * MOST_DROP:.0f} or better, {reached}"
            lines.append((words, str(change["n"]), right, points[0], f"{points[1]} to {points[2]}", goal))
    return lines


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ("---",) * len(titles), *rows)).replace(
        "| --- ", "|---"
    )


def write(path: Path, text: str) -> None:
    """Replace what stands between the card's markers; raises ValueError if it has none."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: has no lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
