"""Measures a model folder on held-out pictures with `edgevl eval`, and fills in the card.

    python -m edgevl.recipe.evaluate write --output DATA PLACES -n 500
    python -m edgevl.recipe.evaluate run --model MODEL --data DATA --output report.json --against fp32=DIR int4=DIR
    python -m edgevl.recipe.evaluate table report.json --card README.md --summary accuracy.json
    python -m edgevl.recipe.evaluate failures report.json --output failures.png

where PLACES are the trainer's --packs, --fonts, --words and --work. What `run` does for each task is
`edgevl eval MODEL --task jsonl --data DATA/TASK -o report/TASK.ndjson --against DIR`: the same answers are kept in the
same files, and a run that was ended goes on from them. The fp32 figures are those of an fp32 export, which the tests
hold to give PyTorch's own tokens.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from edgevl.eval.figures import Answered, Unit, compare
from edgevl.eval.report import document
from edgevl.eval.results import Results
from edgevl.eval.run import Evaluation, Outcome, Settings, evenly
from edgevl.eval.run import evaluate as ask

from . import card, failures
from .data import Paths
from .datasets import FORMS, TABLE, write_forms, write_task
from .heldout import TASKS

WRONG_KEPT = 12
"""Wrong answers of a task that the report holds, spread evenly over all of them."""

Row = dict[str, Any]
Found = dict[str, Evaluation]
"""What came of a task, by the names of the models it was measured against; under "" of the model alone."""


def write(paths: Paths, output: Path, n: int, workers: int) -> None:
    """Write every held-out task as a data set, `workers` at once, and their other forms."""
    output.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        for task, _ in zip(TASKS, pool.map(partial(write_task, paths, output, n=n), TASKS), strict=True):
            print(task, flush=True)
    write_forms(output, TASKS)


def measure(
    model: Path,
    data: Path,
    output: Path,
    against: Mapping[str, Path],
    threads: int | None = None,
    workers: int = 1,
) -> None:
    """Ask the model, and those it is measured `against`, every task that lies in `data`; write the report.

    `workers` tasks are asked at once, each in a process of its own with `threads` threads. The report has a row a
    task: the figures, those of each other model with the paired difference, and some of the wrong answers. It is
    written when all are asked: a table of some tasks would look like one of all. Raises what `edgevl eval` raises, and
    FileNotFoundError for a folder without tasks.
    """
    tasks = [task for task in (*TASKS, *FORMS) if (data / task / TABLE).exists()]
    if not tasks:
        raise FileNotFoundError(f"{data}: holds no TASK/{TABLE}; let `evaluate write` write them there")
    answers = output.with_suffix("")
    answers.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"data": str(data.absolute()), "models": {}, "tasks": {}}
    units: dict[str, list[Unit]] = {}
    settings = [Settings(model, "jsonl", data / task, answers / f"{task}.ndjson", threads=threads) for task in tasks]
    for task, found in zip(tasks, _all_asked(settings, against, workers), strict=True):
        units[task] = found[""].outcomes[0].units
        report["tasks"][task] = row = _row(found)
        if task in FORMS[1:] and (drop := compare(units[task], units[FORMS[0]])) is not None:
            row["drop"] = asdict(drop)
        report["models"] = {name: asdict(one.outcomes[-1].run) for name, one in found.items()}
        print(f"{task:<20} {row['accuracy']:.3f} of {row['n']} (constant {row['baseline']:.3f})", flush=True)
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _all_asked(settings: Sequence[Settings], against: Mapping[str, Path], workers: int) -> Iterator[Found]:
    """Ask one task after another, or `workers` of them at once; yield what came of each, in order.

    What processes have asked is read from their answers' files, where it is not asked again. They begin with the last
    task: chats, which take longest, would otherwise keep one core busy when all else is done.
    """
    if workers == 1:
        yield from (_asked(one, against) for one in settings)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = [pool.submit(_kept, one, against) for one in reversed(settings)]
        for one, asked in zip(settings, reversed(waiting), strict=True):
            asked.result()
            yield _asked(one, against)


def _kept(settings: Settings, against: Mapping[str, Path]) -> None:
    _asked(settings, against)


def _asked(settings: Settings, against: Mapping[str, Path]) -> Found:
    """Ask one task of the model alone and against each other one, whose answers are then all in one file."""
    found = {"": ask(settings), **{name: ask(replace(settings, against=path)) for name, path in against.items()}}
    with Results(settings.output) as results:
        for one in found.values():
            results.end(document(one))
    return found


def _row(found: Found) -> Row:
    alone = found[""]
    [outcome], constant = alone.outcomes, alone.constants["", ""]
    metrics = {item.metric for item in alone.chosen}
    return {
        "metric": metrics.pop() if len(metrics) == 1 else "",
        **_figures(outcome),
        "baseline": constant.value,
        "baseline_answer": constant.answer,
        "problems": [str(problem) for problem in alone.problems],
        "against": {
            name: {**_figures(one.outcomes[1]), "difference": asdict(one.difference)}
            for name, one in found.items()
            if one.difference is not None
        },
        "wrong": [_wrong(answer) for answer in evenly([one for one in outcome.answers if one.score < 1], WRONG_KEPT)],
    }


def _figures(outcome: Outcome) -> Row:
    [figure] = outcome.figures
    return {"n": figure.n, "accuracy": figure.value, "interval": [figure.low, figure.high]}


def _wrong(answer: Answered) -> Row:
    """Return a wrong answer with its picture's place."""
    item = answer.item
    return {
        "id": item.id,
        "image": str(item.images[0].load()),
        "question": item.question,
        "expected": item.answers[0],
        "given": answer.text or answer.refused,
    }


def main() -> None:
    """Write the data, measure, or fill in the card."""
    options = _parser().parse_args()
    if options.command == "write":
        paths = Paths(options.packs, options.work / "packs", options.fonts, options.words)
        write(paths, options.output, options.n, options.workers)
    elif options.command == "run":
        measure(options.model, options.data, options.output, dict(options.against), options.threads, options.workers)
    else:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        if options.command == "table":
            rows = card.summary(report)
            card.write(options.card, card.tables(rows))
            options.summary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        else:
            failures.sheet(report["tasks"]).quantize(256).save(options.output, optimize=True)


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("write")
    for option in ("--packs", "--work", "--fonts", "--words", "--output"):
        command.add_argument(option, type=Path, required=True)
    command.add_argument("-n", type=int, default=500)
    command.add_argument("--workers", type=int, default=os.cpu_count())
    command = commands.add_parser("run")
    for option in ("--model", "--data", "--output"):
        command.add_argument(option, type=Path, required=True)
    command.add_argument("--against", type=_named, nargs="*", default=[], metavar="NAME=FOLDER")
    command.add_argument("--threads", type=int, help="of each task that is asked")
    command.add_argument("--workers", type=int, default=1, help="tasks asked at once, each in a process")
    command = commands.add_parser("table")
    command.add_argument("report", type=Path)
    command.add_argument("--card", type=Path, required=True)
    command.add_argument("--summary", type=Path, required=True, help="JSON file for the figures without the answers")
    command = commands.add_parser("failures")
    command.add_argument("report", type=Path)
    command.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
