"""The generators that training draws from, each a row: its tasks, and how far its pictures may be reduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import blind, charts, documents, emoji, nlvr, printed, screens
from .drawn import Task


@dataclass(frozen=True)
class Generated:
    """A row: tasks, drawn alike often, and the scale below which their pictures cannot be answered from."""

    tasks: tuple[Task, ...]
    least: float


LEAST = {
    "printed": 0.7,  # 11 px text is then 8 px high
    "documents": 0.7,
    "charts": 0.6,
    "screens": 0.6,
    "emoji": 0.3,
    "blind": 0.3,
    "nlvr": 0.6,
}
"""The least scale by the name of a subject."""
GENERATED = tuple(LEAST)
BY_LETTER = ("text", "printed", "documents", "charts", "screens")
"""Subjects whose answers are read off the picture: they are written letter by letter.

By whole words of the tokenizer, words were right at 4 % of letters where numbers, whose digits are tokens, were at 16.
"""


def tasks(folder: Path) -> dict[str, Mapping[str, Task]]:
    """Return every generator's tasks by subject, then by name; `folder` holds the packs of emoji and of NLVR."""
    return {
        "printed": printed.TASKS,
        "documents": documents.TASKS,
        "charts": charts.TASKS,
        "screens": screens.TASKS,
        "emoji": emoji.tasks(folder / "emoji.zip"),
        "blind": blind.TASKS,
        "nlvr": {**nlvr.TASKS, **nlvr.tasks(folder / "nlvr.zip")},
    }


def task(folder: Path, name: str) -> Task:
    """Return the task called `name` of whichever generator has it."""
    return next(rows[name] for rows in tasks(folder).values() if name in rows)


def generators(folder: Path) -> dict[str, Generated]:
    """Return every subject's row."""
    return {name: Generated(tuple(rows.values()), LEAST[name]) for name, rows in tasks(folder).items()}
