"""Writes the held-out tasks as data sets of `edgevl eval`: a folder a task, with pictures and `questions.jsonl`.

Three more folders ask every fifth item again: in the words of training (`plain`), in other words (`paraphrased`), and
in the words of training after three other questions in the same conversation (`chat`). An item has one id in all.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevl.eval.metrics import plain as as_compared

from .data import Paths
from .goals import GROUP_OF, GROUPS
from .heldout import items
from .paraphrases import forms
from .questions import DESCRIBE

FORMS = ("plain", "paraphrased", "chat")
FORMED = 5
"""Every so many items of a task are asked in other forms."""
N_BEFORE = 3
TABLE = "questions.jsonl"

APART = ("blind", "nlvr", "photos")
"""Groups in which a task's questions do not fit the pictures of another."""

Line = dict[str, Any]
Worded = tuple[str, str | None]
"""A question in words of training, and in other words."""


def write_task(paths: Paths, folder: Path, task: str, n: int) -> None:
    """Write `n` items of a task into `folder`/TASK; where so many are there, they stay.

    A picture that is there already is not written again, so that answers kept for it stay valid.
    """
    target = folder / task
    if (target / TABLE).exists() and len(read(target / TABLE)) == n:
        return
    target.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, item in enumerate(items(paths, task, n)):
        name = f"{number:04}.png"
        _save(target / name, item.rgb)
        lines.append(
            {
                "id": f"{task} {number:04}",
                "image": name,
                "question": item.question,
                "answers": item.answer,
                "metric": item.metric,
                "category": {"task": task},
            }
        )
    _write(target / TABLE, lines)


def write_forms(folder: Path, tasks: Sequence[str]) -> None:
    """Write the three forms of what `write_task` wrote; what cannot be put in other words is not paraphrased."""
    found: dict[str, list[Line]] = {form: [] for form in FORMS}
    lines = {task: read(folder / task / TABLE) for task in tasks}
    worded = {task: _worded(task, lines[task]) for task in tasks}
    for task in tasks:
        for number in range(0, len(lines[task]), FORMED):
            plain, paraphrase = worded[task][number]
            line = {**lines[task][number], "image": f"../{task}/{lines[task][number]['image']}", "question": plain}
            found["plain"].append(line)
            if paraphrase is not None:
                found["paraphrased"].append({**line, "question": paraphrase})
            found["chat"].append({**line, "before": _before(worded, task, number)})
    for form, formed in found.items():
        (folder / form).mkdir(exist_ok=True)
        _write(folder / form / TABLE, formed)


def read(table: Path) -> list[Line]:
    """Return the lines of a data set."""
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def _worded(task: str, lines: Sequence[Line]) -> list[Worded]:
    """Return a task's questions in words of training (as they are where nothing is phrased so), and in other words."""
    rng = random.Random(f"forms-{task}")
    pairs = [(line["question"], forms(rng, GROUP_OF[task], line["question"])) for line in lines]
    return [(asked, None) if pair is None else pair for asked, pair in pairs]


def _before(worded: Mapping[str, Sequence[Worded]], task: str, number: int) -> list[str]:
    """Return other questions to ask before a task's: of its group's other tasks where those fit its pictures."""
    group = GROUP_OF[task]
    company = [task] if group in APART else [other for other in GROUPS[group] if other in worded]
    first = company.index(task) + 1 + number // FORMED
    found: dict[str, str] = {}
    for step in range(len(worded[task])):
        rows = worded[company[(first + step) % len(company)]]
        question, _ = rows[(number + step + 1) % len(rows)]
        found.setdefault(_key(question), question)
    for question in DESCRIBE:
        found.setdefault(_key(question), question)
    found.pop(_key(worded[task][number][0]), None)
    return list(found.values())[:N_BEFORE]


def _key(question: str) -> str:
    return as_compared(question).rstrip("?")


def _save(path: Path, rgb: NDArray[np.uint8]) -> None:
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "PNG", compress_level=1)
    if not path.exists() or path.read_bytes() != content.getvalue():
        path.write_bytes(content.getvalue())


def _write(path: Path, lines: Sequence[Line]) -> None:
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    part.replace(path)
