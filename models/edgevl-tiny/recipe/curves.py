"""Draws training logs: held-out scores, a panel a group of tasks, and the loss, against pictures seen.

    python -m edgevl.recipe.curves --runs tiny=log.jsonl -o curves.png
    python -m edgevl.recipe.curves --runs "6 M"=small.jsonl "25 M"=large.jsonl -o sizes.png

Of one run every task has its line. Runs of another size or with other data are laid over one another; a line is then
the mean over those of a group's tasks that all runs were asked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .goals import GROUP_OF, GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROGRESS = ("stage", "kind", "step", "pictures", "seconds")
OTHERS = "others"
"""The group of what is in no other."""
COLUMNS = 3
STYLES = ("-", "--", ":")

Line = dict[str, Any]
Run = dict[str, list[Line]]
Points = list[tuple[float, float]]
"""Pictures seen, and a value there."""


def read(log: Path) -> Run:
    """Return the lines of the whole-model stage by kind ("training", "held_out"), each step once, the last count."""
    kinds: dict[str, dict[int, Line]] = {"training": {}, "held_out": {}}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["stage"] == "whole":
            kinds[line["kind"]][line["step"]] = line
    return {kind: [lines[step] for step in sorted(lines)] for kind, lines in kinds.items()}


def panels(runs: Mapping[str, Run]) -> dict[str, dict[str, Points]]:
    """Return each group's curves in percent: of one run a curve a task, of several one a run."""
    asked = [_tasks(run["held_out"]) for run in runs.values()]
    shared = [task for task in asked[0] if all(task in tasks for tasks in asked)]
    groups = {group: [task for task in shared if GROUP_OF.get(task, OTHERS) == group] for group in (*GROUPS, OTHERS)}
    found: dict[str, dict[str, Points]] = {}
    for group, tasks in groups.items():
        if not tasks:
            continue
        if len(runs) == 1:
            [run] = runs.values()
            found[group] = {task.replace("_", " "): _mean(run["held_out"], [task]) for task in tasks}
        else:
            found[group] = {name: _mean(run["held_out"], tasks) for name, run in runs.items()}
    return found


def _tasks(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line if name not in PROGRESS))


def _mean(lines: Iterable[Line], tasks: Sequence[str]) -> Points:
    """Return the mean over tasks, wherever all of them were asked."""
    return [
        (line["pictures"], 100 * sum(line[task] for task in tasks) / len(tasks))
        for line in lines
        if all(task in line for task in tasks)
    ]


def draw(runs: Mapping[str, Run]) -> Figure:
    """Draw the panels and the loss; raises ValueError where the runs share no task."""
    from matplotlib.figure import Figure

    groups = panels(runs)
    if not groups:
        raise ValueError("the logs have no held-out task in common; there is nothing to draw")
    n_rows = -(-(len(groups) + 1) // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.4 * n_rows), dpi=90, layout="constrained")
    axes = figure.subplots(n_rows, COLUMNS, squeeze=False).flatten()
    for panel, (group, curves) in zip(axes, groups.items(), strict=False):
        for number, (label, points) in enumerate(curves.items()):
            if points:
                panel.plot(*zip(*points, strict=True), STYLES[number // 10 % len(STYLES)], marker=".", label=label)
        panel.set(title=group, ylabel="held-out score (%)", ylim=(0, 100))
        panel.legend(fontsize=7)
    loss = axes[len(groups)]
    for name, run in runs.items():
        if points := [(line["pictures"], line["loss"]) for line in run["training"] if "loss" in line]:
            loss.plot(*zip(*points, strict=True), label=name)
    loss.set(title="loss per answer token (nats)", yscale="log")
    loss.legend(fontsize=7)
    for panel in axes[: len(groups) + 1]:
        panel.set_xlabel("pictures seen")
    for empty in axes[len(groups) + 1 :]:
        empty.remove()
    return figure


def _named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=LOG")
    return name, Path(path)


def main() -> None:
    """Draw logs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=_named, nargs="+", required=True, metavar="NAME=LOG")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    draw({name: read(log) for name, log in options.runs}).savefig(options.output)


if __name__ == "__main__":
    main()
