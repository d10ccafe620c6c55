"""The data sets: each is a row that names its tables, how they are read, and what is counted.

Layouts are those in which the data sets are published; where none is, the reader's docstring says so. Names of
columns were checked against the publishers' repositories and dataset cards in 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevl.errors import InputError
from edgevl.eval import layouts
from edgevl.eval.figures import Counting, every_answer, first_of_groups, whole_groups
from edgevl.eval.item import Item, Problem

Reader = Callable[[Sequence[Path]], Iterator[Item | Problem]]


@dataclass(frozen=True)
class Task:
    """A data set. `tables` are patterns below the folder given; the first that any file matches is taken.

    With `is_split` the tables are parts of one whole, otherwise more than one is an error. `figures` are what is
    counted, under its title; the first is the one that models are compared by. `macro` is a kind of category of which
    the mean over categories is told too. With `by_group`, a limit takes whole groups.
    """

    name: str
    about: str
    tables: tuple[str, ...]
    read: Reader
    figures: tuple[tuple[str, Counting], ...]
    max_tokens: int
    is_split: bool = False
    by_group: bool = False
    macro: str = ""


_ACCURACY = (("accuracy", every_answer),)

TASKS = {
    task.name: task
    for task in (
        Task(
            name="blindtest",
            about="BlindTest (Rahmanzadehgervi et al. 2024): valid-*.parquet of XAI/vlmsareblind",
            tables=("**/valid-*.parquet",),
            read=layouts.blindtest,
            figures=_ACCURACY,
            max_tokens=64,
            is_split=True,
            macro="task",
        ),
        Task(
            name="chartqa",
            about="ChartQA (Masry et al. 2022): test_human.json, test_augmented.json and png/",
            tables=("*_human.json|*_augmented.json", "test/*_human.json|test/*_augmented.json"),
            read=layouts.chartqa,
            figures=(("relaxed accuracy", every_answer),),
            max_tokens=64,
            is_split=True,
        ),
        Task(
            name="docvqa",
            about="DocVQA (Mathew et al. 2021): val_v1.0_withQT.json and documents/ or spdocvqa_images/",
            tables=("val_v*.json", "spdocvqa_qas/val_v*.json"),
            read=layouts.docvqa,
            figures=(("ANLS", every_answer),),
            max_tokens=64,
        ),
        Task(
            name="jsonl",
            about="your own: lines of image, question, answers and metric",
            tables=("*.jsonl",),
            read=layouts.jsonl,
            figures=(("score", every_answer),),
            max_tokens=256,  # a document as JSON was longer than 128
        ),
        Task(
            name="mmbench",
            about="MMBench (Liu et al. 2023): MMBench_DEV_EN.tsv, with pictures in base64",
            tables=("*.tsv",),
            read=layouts.mmbench,
            figures=(("right in every order of the choices", whole_groups), ("as first asked", first_of_groups)),
            max_tokens=64,
            by_group=True,
        ),
        Task(
            name="mmmu",
            about="MMMU (Yue et al. 2024): validation-*.parquet of MMMU/MMMU",
            tables=("**/validation-*.parquet",),
            read=layouts.mmmu,
            figures=_ACCURACY,
            max_tokens=128,
            is_split=True,
        ),
        Task(
            name="nlvr",
            about="NLVR (Suhr et al. 2017): dev.json and images/",
            tables=("*.json", "*/*.json"),
            read=layouts.nlvr,
            figures=(("accuracy", every_answer), ("sentences right for all pictures", whole_groups)),
            max_tokens=16,
        ),
        Task(
            name="ocrbench",
            about="OCRBench (Liu et al. 2023): OCRBench.json and OCRBench_Images/",
            tables=("OCRBench.json", "*/OCRBench.json"),
            read=layouts.ocrbench,
            figures=_ACCURACY,
            max_tokens=100,
        ),
        Task(
            name="video-mme",
            about="Video-MME (Fu et al. 2024): test-*.parquet of lmms-lab/Video-MME, and frames/VIDEO/",
            tables=("**/test-*.parquet", "*.json"),
            read=layouts.video_mme,
            figures=_ACCURACY,
            max_tokens=16,
            is_split=True,
        ),
    )
}


@dataclass(frozen=True)
class Dataset:
    """What a folder holds for a task: the tables read, every item, and what is wrong with the others."""

    task: Task
    tables: tuple[Path, ...]
    items: list[Item]
    problems: list[Problem]


def load(name: str, data: Path) -> Dataset:
    """List what `data`, a folder or one of its tables, holds for a task; no picture is read.

    Raises InputError for an unknown task, no table or too many, a table that cannot be read, or one without items.
    """
    if name not in TASKS:
        raise InputError(f"task {name!r} is not known; it must be one of {', '.join(TASKS)}")
    task = TASKS[name]
    tables = find_tables(task, data)
    items: dict[str, Item] = {}
    problems: list[Problem] = []
    for found in task.read(tables):
        if isinstance(found, Problem):
            problems.append(found)
        elif found.id in items:
            problems.append(Problem(found.id, "is there twice; only the first is asked"))
        else:
            items[found.id] = found
    if not items:
        raise nothing(data, problems)
    return Dataset(task, tables, list(items.values()), problems)


def nothing(data: Path, problems: Sequence[Problem]) -> InputError:
    """Return the error of a data set of which nothing can be asked."""
    first = f" ({len(problems)} problems, the first: {problems[0]})" if problems else ""
    return InputError(f"{data}: holds nothing that can be asked{first}; check --data")


def find_tables(task: Task, data: Path) -> tuple[Path, ...]:
    """Return the tables of a task in a folder, sorted; a table itself is that. Raises InputError, with the remedy."""
    if data.is_file():
        return (data,)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; give the one that holds the data set with --data")
    for pattern in task.tables:
        found = tuple(sorted(path for part in pattern.split("|") for path in data.glob(part) if path.is_file()))
        if len(found) > 1 and not task.is_split:
            names = ", ".join(str(path.relative_to(data)) for path in found[:4])
            raise InputError(f"{data}: holds {len(found)} tables ({names}); give one of them with --data")
        if found:
            return found
    wanted = " or ".join(pattern.replace("|", " and ") for pattern in task.tables)
    raise InputError(f"{data}: holds no {wanted}, which {task.name} is read from; check --data")
