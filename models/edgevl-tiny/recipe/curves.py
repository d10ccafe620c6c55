"""Draws a training log: held-out accuracy per task, and the loss, against pictures seen.

python -m edgevl.recipe.curves log.jsonl -o curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PROGRESS = ("stage", "kind", "step", "pictures", "seconds")


def read(log: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of the whole-model stage by kind ("training", "held_out"), each step once, the last count."""
    kinds: dict[str, dict[int, dict[str, Any]]] = {"training": {}, "held_out": {}}
    for text in log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["stage"] == "whole":
            kinds[line["kind"]][line["step"]] = line
    return {kind: [lines[step] for step in sorted(lines)] for kind, lines in kinds.items()}


def draw(log: Path, output: Path) -> None:
    """Write the curves of `log` to `output` as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read(log)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), dpi=90)
    held_out = lines["held_out"]
    tasks = [name for name in (held_out[-1] if held_out else {}) if name not in PROGRESS]
    for number, task in enumerate(tasks):
        points = [(line["pictures"], 100 * line[task]) for line in held_out if task in line]
        style = ("-", "--", ":")[number // 10]
        left.plot(*zip(*points, strict=True), style, marker=".", label=task.replace("_", " "))
    left.set(xlabel="pictures seen", ylabel="held-out answers right (%)", ylim=(0, 100))
    left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    training = [line for line in lines["training"] if "loss" in line]
    right.plot([line["pictures"] for line in training], [line["loss"] for line in training])
    right.set(xlabel="pictures seen", ylabel="loss per answer token (nats)", yscale="log")
    figure.tight_layout()
    figure.savefig(output)
    pyplot.close(figure)


def main() -> None:
    """Draw one log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    draw(options.log, options.output)


if __name__ == "__main__":
    main()
