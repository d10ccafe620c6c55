"""Measures a model folder's answers on held-out pictures, asked through `edgevl` as a user asks.

    python -m edgevl.recipe.evaluate measure --model models/edgevl-tiny --output int8.json PLACES
    python -m edgevl.recipe.evaluate measure --model FP32_EXPORT --output fp32.json PLACES
    python -m edgevl.recipe.evaluate table int8.json fp32.json --card README.md --summary accuracy.json

where PLACES are the trainer's --packs, --fonts, --words and --work. An answer is right when it equals the expected
one, capitals and the last full stop aside. The fp32 figures are those of an fp32 export, which the tests hold to
give PyTorch's own tokens.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgevl
from edgevl.eval.metrics import exact, plain
from edgevl.eval.stats import wilson

from .data import Paths
from .heldout import TASKS, Item, items

Answerer = Callable[[NDArray[np.uint8], str], str]
MAX_TOKENS = 64
BEGIN, END = "<!-- begin generated: accuracy -->", "<!-- end generated: accuracy -->"


def answerer(folder: Path, threads: int | None) -> Answerer:
    """Return an answerer that asks the model folder through `edgevl`, as a user does."""
    vlm = edgevl.load(folder, threads=threads, store=False)
    return lambda rgb, question: vlm.ask(rgb, question, max_tokens=MAX_TOKENS).text


def measure(answer: Answerer, paths: Paths, n: int, tasks: tuple[str, ...] = TASKS) -> dict[str, Any]:
    """Ask `n` held-out questions a task; return counts, and every question with its answer."""
    report: dict[str, Any] = {}
    for task in tasks:
        asked: list[Item] = list(items(paths, task, n))
        given = [answer(item.rgb, item.question) for item in asked]
        right = [exact(text, [item.answer]) for text, item in zip(given, asked, strict=True)]
        constant, n_constant = Counter(plain(item.answer) for item in asked).most_common(1)[0]
        report[task] = {
            "n": len(asked),
            "accuracy": sum(right) / len(asked),
            "interval": wilson(sum(right), len(asked)),
            "baseline": n_constant / len(asked),
            "baseline_answer": constant,
            "answers": [
                {"question": item.question, "expected": item.answer, "given": text}
                for item, text in zip(asked, given, strict=True)
            ],
        }
        print(
            f"{task:<12} {report[task]['accuracy']:.3f} of {len(asked)} (constant {report[task]['baseline']:.3f})",
            flush=True,
        )
    return report


def table(shipped_report: dict[str, Any], reference_report: dict[str, Any]) -> str:
    """Return a Markdown table of both reports, a row a task."""
    lines = ["| task | examples | shipped | 95 % interval | fp32 | best constant answer |", "|---|---|---|---|---|---|"]
    for task, row in shipped_report.items():
        low, high = row["interval"]
        lines.append(
            f"| {task.replace('_', ' ')} | {row['n']} | {row['accuracy']:.1%} | {low:.1%} to {high:.1%} "
            f"| {reference_report[task]['accuracy']:.1%} | {row['baseline']:.1%} |"
        )
    return "\n".join(lines)


def summary(shipped_report: dict[str, Any], reference_report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of both reports without the single answers."""
    kept = ("n", "accuracy", "interval", "baseline", "baseline_answer")
    return {
        task: {**{key: row[key] for key in kept}, "fp32": reference_report[task]["accuracy"]}
        for task, row in shipped_report.items()
    }


def write_card(card: Path, text: str) -> None:
    """Replace what stands between the card's markers; raises ValueError if it has none."""
    before, begin, rest = card.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{card}: has no lines {BEGIN} and {END}")
    card.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("measure")
    for option in ("--model", "--packs", "--work", "--fonts", "--words", "--output"):
        command.add_argument(option, type=Path, required=True)
    command.add_argument("-n", type=int, default=500)
    command.add_argument("--threads", type=int)
    command.add_argument("--tasks", nargs="*", default=list(TASKS))
    command = commands.add_parser("table")
    command.add_argument("reports", nargs=2, type=Path)
    command.add_argument("--card", type=Path, required=True)
    command.add_argument("--summary", type=Path, required=True, help="JSON file for the figures without the answers")
    options = parser.parse_args()
    if options.command == "table":
        first, second = (json.loads(path.read_text(encoding="utf-8")) for path in options.reports)
        write_card(options.card, table(first, second))
        options.summary.write_text(json.dumps(summary(first, second), indent=1) + "\n", encoding="utf-8")
        return
    answer = answerer(options.model, options.threads)
    paths = Paths(options.packs, options.work / "packs", options.fonts, options.words)
    report = measure(answer, paths, options.n, tuple(options.tasks))
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
