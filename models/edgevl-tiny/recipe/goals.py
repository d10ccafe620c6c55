"""The tasks of the accuracy table in groups, and what each is to reach."""

from __future__ import annotations

from pathlib import Path

from . import subjects
from .heldout import PHOTO_TASKS, SCENE_TASKS

GROUPS: dict[str, tuple[str, ...]] = {
    "scenes": SCENE_TASKS,
    **{name: tuple(rows) for name, rows in subjects.tasks(Path()).items()},
    "photos": tuple(PHOTO_TASKS),
}
"""Every task, by what its pictures show."""
GROUP_OF = {task: group for group, tasks in GROUPS.items() for task in tasks}

_OF_GROUPS = {"printed": 0.97, "documents": 0.85, "charts": 0.80, "screens": 0.85, "blind": 0.90, "nlvr": 0.75}
GOALS: dict[str, float] = {
    **{task: goal for group, goal in _OF_GROUPS.items() for task in GROUPS[group]},
    "description": 0.95,
    "emoji": 0.85,
    **dict.fromkeys(("counting", "counting_kinds", "relations", "size", "yes_no"), 0.90),
    **dict.fromkeys(("emoji_count", "emoji_exists"), 0.90),
    **dict.fromkeys(("absent", "absent_things", "emoji_absent"), 0.90),
    "groceries": 0.60,
    "grocery_kinds": 0.75,
    "waste": 0.80,
    "flowers": 0.85,
    "satellite": 0.92,
    "objects": 0.55,
    "cards": 0.80,
    "hand_signs": 0.95,
}
"""The least score a task is to reach, of those that have one."""
MOST_DROP = 0.03
"""How much paraphrases and earlier questions may cost."""
