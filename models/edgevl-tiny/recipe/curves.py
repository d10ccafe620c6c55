"""Draws training logs: held-out scores, a panel a group of tasks, and the loss, against pictures seen.

    python -m edgevl.recipe.curves --runs tiny=log.jsonl -o curves.png
    python -m edgevl.recipe.curves --runs "2 M"=small.jsonl "6 M"=tiny.jsonl -o sizes.png --encoder

Of one run every task has its line. Runs of another size or with other data are laid over one another; a line is then
the mean over those of a group's tasks that all runs were asked. Of the encoder stage the panels are what it tells of
each patch, measured on the very pictures it learns from, before it has learned from them: none is drawn twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .goals import GROUP_OF, GROUPS
from .heads import LABELS
from .stages import STAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASKING = tuple(stage.name for stage in STAGES if stage.asks)
KINDS = ("training", "held_out")
PROGRESS = ("stage", "kind", "step", "pictures", "seconds")
OTHERS = "others"
"""The group of what is in no other."""
COLUMNS = 3
STYLES = ("-", "--", ":")

Line = dict[str, Any]
Run = dict[str, list[Line]]
Points = list[tuple[float, float]]
"""Pictures seen, and a value there."""


def read(log: Path, stages: Collection[str] = ASKING) -> Run:
    """Return the lines of stages by kind ("training", "held_out"), each step once, the last count.

    Pictures are counted from the beginning of the first of these stages.
    """
    found: dict[str, dict[str, dict[int, Line]]] = {}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["stage"] in stages and line["kind"] in KINDS:
            found.setdefault(line["stage"], {kind: {} for kind in KINDS})[line["kind"]][line["step"]] = line
    run: Run = {kind: [] for kind in KINDS}
    before = 0
    for kinds in found.values():
        for kind, lines in kinds.items():
            run[kind] += [{**lines[step], "pictures": before + lines[step]["pictures"]} for step in sorted(lines)]
        before = max((line["pictures"] for lines in run.values() for line in lines), default=before)
    return run


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


def dense(runs: Mapping[str, Run]) -> dict[str, dict[str, Points]]:
    """Return a panel for each of LABELS that all runs of the encoder stage were measured by: a curve a run, percent."""
    shared = [name for name in LABELS if all(name in _tasks(run["training"]) for run in runs.values())]
    return {
        name.replace("_", " "): {label: _mean(run["training"], [name]) for label, run in runs.items()}
        for name in shared
    }


def _tasks(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line if name not in PROGRESS))


def _mean(lines: Iterable[Line], tasks: Sequence[str]) -> Points:
    """Return the mean over tasks, wherever all of them were asked."""
    return [
        (line["pictures"], 100 * sum(line[task] for task in tasks) / len(tasks))
        for line in lines
        if all(task in line for task in tasks)
    ]


def draw(runs: Mapping[str, Run], groups: Mapping[str, Mapping[str, Points]]) -> Figure:
    """Draw `panels` or `dense` of runs, and their loss if they have one; raises ValueError where there is no panel."""
    from matplotlib.figure import Figure

    if not groups:
        raise ValueError("the logs have no measure in common; there is nothing to draw")
    losses = {
        name: [(line["pictures"], line["loss"]) for line in run["training"] if "loss" in line]
        for name, run in runs.items()
    }
    losses = {name: points for name, points in losses.items() if points}
    n_panels = len(groups) + bool(losses)
    n_rows = -(-n_panels // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.4 * n_rows), dpi=90, layout="constrained")
    axes = figure.subplots(n_rows, COLUMNS, squeeze=False).flatten()
    for panel, (group, curves) in zip(axes, groups.items(), strict=False):
        for number, (label, points) in enumerate(curves.items()):
            if points:
                panel.plot(*zip(*points, strict=True), STYLES[number // 10 % len(STYLES)], marker=".", label=label)
        panel.set(title=group, ylabel="right on unseen pictures (%)", ylim=(0, 100))
        panel.legend(fontsize=7)
    if losses:
        _draw_losses(axes[len(groups)], losses)
    for panel in axes[:n_panels]:
        panel.set_xlabel("pictures seen")
    for empty in axes[n_panels:]:
        empty.remove()
    return figure


def _draw_losses(panel: Any, losses: Mapping[str, Points]) -> None:
    for name, points in losses.items():
        panel.plot(*zip(*points, strict=True), label=name)
    panel.set(title="loss per answer token (nats)", yscale="log")
    panel.legend(fontsize=7)


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
    parser.add_argument("--encoder", action="store_true", help="of the encoder's stage, not of those that ask")
    options = parser.parse_args()
    stages = [stage.name for stage in STAGES if stage.asks != options.encoder]
    runs = {name: read(log, stages) for name, log in options.runs}
    draw(runs, dense(runs) if options.encoder else panels(runs)).savefig(options.output)


if __name__ == "__main__":
    main()
