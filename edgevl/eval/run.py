"""Ask a model, or two, every item of a data set, and say what came of it.

Answers are greedy, and nothing is remembered on disk but the results file. A model is opened only where something is
left to ask, or where what runs it is not known yet, one at a time; pictures are read one item at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from edgevl.errors import ContextOverflow, ImageError, InputError, PromptError
from edgevl.eval import figures, metrics
from edgevl.eval.figures import Answered, Figure, Unit
from edgevl.eval.item import Image, Item, Problem, unreadable
from edgevl.eval.results import Results, Run, precision_of
from edgevl.eval.stats import Difference
from edgevl.eval.tasks import Dataset, Task, load, nothing
from edgevl.machine import describe
from edgevl.model import manifest
from edgevl.pipeline import VLM
from edgevl.placement import Placement
from edgevl.types import Answer, Detail, ImagePart, Message, TextPart

T = TypeVar("T")
OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """What to ask whom: model folders, a task's name, where its data lies, and where answers are kept.

    `limit` is how many items at most (of a task that counts groups: groups), spread evenly over the data set.
    `max_pixels` and `reduce` are for pictures, as `VLM.ask` takes them.
    """

    model: Path
    task: str
    data: Path
    output: Path
    limit: int | None = None
    against: Path | None = None
    detail: Detail = "auto"
    threads: int | None = None
    max_pixels: int | None = None
    reduce: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one model did: its answers, the task's figures in order, and the first one's for every category.

    `units` are what the first figure counts; `macro` is its mean over the categories that the task names for that.
    `character_error_rate` is that of all answers graded by characters, as one text.
    """

    run: Run
    answers: list[Answered]
    figures: list[Figure]
    categories: dict[str, list[Figure]]
    units: list[Unit]
    macro: Figure | None
    character_error_rate: float | None

    @property
    def n_cut(self) -> int:
        """How many answers were cut at the most tokens allowed."""
        return sum(answer.finish_reason == "length" for answer in self.answers)

    @property
    def refused(self) -> list[Answered]:
        """The items that the model could not be asked."""
        return [answer for answer in self.answers if answer.refused]

    @property
    def n_unnamed(self) -> int:
        """How many answers to questions with choices name none of them."""
        return sum(
            metrics.has_choices(answer.item) and metrics.choice(answer.text, answer.item) is None
            for answer in self.answers
        )


@dataclass(frozen=True)
class Constant:
    """What the commonest right answer would score if it were always given."""

    answer: str
    value: float


@dataclass(frozen=True)
class Evaluation:
    """All of it: the data set, the items chosen, what cannot be asked, an outcome per model, and their difference.

    `difference` is of the first figure, `differences` are so for every (kind of category, category) that both models
    have. `constants` are of the first figure too, for all items ("", "") and for every category. `data_id` is a digest
    of all that was asked: the same for the same questions, pictures and right answers, wherever they lie.
    """

    dataset: Dataset
    chosen: list[Item]
    problems: list[Problem]
    outcomes: list[Outcome]
    difference: Difference | None
    differences: dict[tuple[str, str], Difference]
    constants: dict[tuple[str, str], Constant]
    data_id: str


def evaluate(settings: Settings, on_step: OnStep | None = None) -> Evaluation:
    """Ask everything that the results file does not hold yet; return what came of it all.

    `on_step(done, total, what)` is told of every item. Raises InputError for data or results that cannot be used, also
    where no picture can be read, and whatever opening a model raises. Ctrl-C keeps the answers so far.
    """
    folders = [settings.model, *([settings.against] if settings.against is not None else [])]
    runs = [_run(folder, settings) for folder in folders]
    if len({run.model_id for run in runs}) < len(runs):
        raise InputError(f"{settings.against}: is the same model as {settings.model}; give another with --against")
    dataset = load(settings.task, settings.data)
    chosen = choose(dataset, settings.limit)
    problems: list[Problem] = []
    found: list[list[Answered]] = []
    with Results(settings.output) as results:
        for number, (run, folder) in enumerate(zip(runs, folders, strict=True)):
            asker = _Asker(run, folder, dataset.task, settings, results)
            step = _steps(on_step, number * len(chosen), len(runs) * len(chosen), run.model)
            found.append(asker.all(chosen, problems, step))
    every_problem = [*dataset.problems, *dict.fromkeys(problems)]
    if not found[0]:
        raise nothing(settings.data, every_problem)
    outcomes = [_outcome(dataset, run, answers) for run, answers in zip(runs, found, strict=True)]
    units = [outcome.units for outcome in outcomes]
    return Evaluation(
        dataset=dataset,
        chosen=chosen,
        problems=every_problem,
        outcomes=outcomes,
        difference=figures.compare(*units) if len(units) == 2 else None,
        differences=figures.compare_by_category(*units) if len(units) == 2 else {},
        constants=_constants(dataset, found[0]),
        data_id=_data_id(found[0]),
    )


def choose(dataset: Dataset, limit: int | None) -> list[Item]:
    """Return the items to ask: all, or `limit` of them, spread evenly; groups stay whole where the task counts them."""
    groups: dict[str, list[Item]] = {}
    for item in dataset.items:
        groups.setdefault(item.group if dataset.task.by_group else item.id, []).append(item)
    return [item for part in evenly(list(groups.values()), limit) for item in part]


def evenly(values: Sequence[T], limit: int | None) -> list[T]:
    """Return all values, or `limit` of them, spread evenly."""
    n = len(values) if limit is None else min(limit, len(values))
    return [values[number * len(values) // n] for number in range(n)]


def _run(folder: Path, settings: Settings) -> Run:
    spec = manifest.read(folder)
    options: dict[str, Any] = {"detail": settings.detail, "threads": settings.threads}
    if settings.reduce:  # without it, the limit decides which pictures are read, but not what is said to them
        options |= {"reduce": True, "max_pixels": settings.max_pixels}
    manifest.check_sizes(spec, folder)
    engines = _engines(Placement(folder, spec, device="auto", threads=settings.threads))
    return Run(spec.name, spec.content_id, precision_of(spec), describe(), options, engines)


def _engines(placed: Placement) -> dict[str, str]:
    """Return what runs each part; one is opened only where that has not been measured here."""
    return {
        "vision": placed.likely_encoder() or placed.encoder().backend,
        "decoder": placed.likely_decoder() or placed.decoder().backend,
    }


class _Asker:
    """Asks one model, which is opened at the first question that has no answer yet."""

    def __init__(self, run: Run, folder: Path, task: Task, settings: Settings, results: Results) -> None:
        self._run, self._folder, self._task, self._settings, self._results = run, folder, task, settings, results
        self._vlm: VLM | None = None

    def all(
        self, items: Iterable[Item], problems: list[Problem], on_item: Callable[[int, float], None]
    ) -> list[Answered]:
        """Return the answers to `items`; those whose pictures cannot be read join `problems`."""
        found: list[Answered] = []
        total = 0.0
        try:
            for number, item in enumerate(items, start=1):
                try:
                    found.append(self._one(item))
                    total += found[-1].score
                except ImageError as error:
                    problems.append(Problem(item.id, str(error), item.group))
                on_item(number, total / max(len(found), 1))
        finally:
            if self._vlm is not None:
                self._vlm.close()
        return found

    def _one(self, item: Item) -> Answered:
        """Return the answer to an item, asked where the results have none, and kept in a line of its own."""
        key = f"{item.digest}:{self._task.max_tokens}"
        values = self._results.answer(self._run, key) or self._ask(item)
        found = _answered(item, values)
        own = {"id": item.id, "right": list(item.answers), "score": found.score}
        self._results.add(self._run, key, {**own, **values, **own})
        return found

    def _ask(self, item: Item) -> dict[str, Any]:
        """Return what a model says to an item, to be kept."""
        if self._vlm is None:
            manifest.check_hashes(manifest.read(self._folder), self._folder)  # figures are kept under these hashes
            self._vlm = VLM(self._folder, threads=self._settings.threads, store=False)
            self._results.begin(
                self._run, created=datetime.now(UTC).isoformat(timespec="seconds"), task=self._task.name
            )
        try:
            *earlier, answer = self._converse(self._vlm, item)
        except (ContextOverflow, PromptError) as error:
            return {"answer": "", "refused": str(error)}
        values: dict[str, Any] = {
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "images": [image.id for image in answer.images],
            "total_s": round(sum(one.timings.total_s for one in (*earlier, answer)), 4),
        }
        return values | ({"before": [one.text for one in earlier]} if earlier else {})

    def _converse(self, vlm: VLM, item: Item) -> list[Answer]:
        """Ask an item's turns one after the other, each with the answers to those before it."""
        messages: list[Message] = []
        answers: list[Answer] = []
        for turn in item.turns:
            messages.append(_message(turn))
            stream = vlm.stream_messages(
                messages,
                detail=self._settings.detail,
                max_tokens=self._task.max_tokens,
                max_pixels=self._settings.max_pixels,
                reduce=self._settings.reduce,
            )
            answers.append(stream.finish())
            messages.append(Message("assistant", (TextPart(answers[-1].text),)))
        return answers


def _message(turn: Sequence[str | Image]) -> Message:
    """Return what is asked, with its pictures as they lie. Raises ImageError for one that cannot be had."""
    try:
        parts = [ImagePart(part.load()) if isinstance(part, Image) else TextPart(part) for part in turn]
    except OSError as error:
        raise unreadable(error) from error
    return Message("user", tuple(parts))


def _answered(item: Item, kept: dict[str, Any]) -> Answered:
    text, refused = kept["answer"], kept.get("refused", "")
    return Answered(
        item=item,
        text=text,
        score=0.0 if refused else metrics.score(text, item),
        images=tuple(kept.get("images", ())),
        finish_reason=kept.get("finish_reason", "stop"),
        refused=refused,
    )


def _outcome(dataset: Dataset, run: Run, answers: list[Answered]) -> Outcome:
    sizes = figures.group_sizes(dataset.items, dataset.problems)
    counted = [(title, counting(answers, sizes)) for title, counting in dataset.task.figures]
    units = counted[0][1]
    found = [one for title, part in counted if (one := figures.figure(title, part)) is not None]
    categories = figures.by_category(units)
    macro = figures.mean(f"mean over {dataset.task.macro}s", categories.get(dataset.task.macro, []))
    texts = [(one.text, one.item.answers) for one in answers if one.item.metric == "characters"]
    return Outcome(run, answers, found, categories, units, macro, metrics.character_error_rate(texts))


def _constants(dataset: Dataset, answers: list[Answered]) -> dict[tuple[str, str], Constant]:
    parts: dict[tuple[str, str], list[Item]] = {}
    for item in (answer.item for answer in answers):
        for place in (("", ""), *item.categories.items()):
            parts.setdefault(place, []).append(item)
    return {place: found for place, items in parts.items() if (found := _constant(dataset, items)) is not None}


def _constant(dataset: Dataset, items: list[Item]) -> Constant | None:
    text = figures.commonest(items)
    answers = [Answered(item, text, metrics.score(text, item)) for item in items]
    counting = dataset.task.figures[0][1]
    found = figures.figure("", counting(answers, figures.group_sizes(dataset.items, dataset.problems)))
    return Constant(text, found.value) if found is not None else None


def _data_id(answers: Sequence[Answered]) -> str:
    items = (answer.item for answer in answers)
    asked = [[item.id, item.digest, item.answers, item.metric, dict(item.categories)] for item in items]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _steps(on_step: OnStep | None, before: int, total: int, model: str) -> Callable[[int, float], None]:
    def step(done: int, mean: float) -> None:
        if on_step is not None:
            on_step(before + done, total, f"{model}: {mean:.1%}")

    return step
