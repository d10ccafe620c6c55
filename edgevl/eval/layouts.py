"""How each data set lies on disk: from its tables to items.

A row that lacks something is a `Problem` with its place, and the rest is read. Where the publishers give a wording for
the prompt, it is taken; the others say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edgevl.errors import ImageError
from edgevl.eval.item import Image, Item, Problem, image_file, told
from edgevl.eval.metrics import TEXT_METRICS, list_of
from edgevl.eval.tables import BadRow, Row, rows, whole

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ONE_LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
"""The wordings of MMMU's configs/llava1.5.yaml, taken for other data sets too that give none."""

Parse = Callable[[Row, Path], Iterable[Item | Problem]]


def _each(tables: Sequence[Path], parse: Parse, images: Sequence[str] = ()) -> Iterator[Item | Problem]:
    """Yield the items of every row; `parse` gets the row and its table's path, and raises BadRow for a bad one."""
    for table in tables:
        for row in rows(table, images):
            yield from [row] if isinstance(row, Problem) else _items(row, table, parse)


def _items(row: Row, table: Path, parse: Parse, group: str = "") -> Iterator[Item | Problem]:
    try:
        yield from parse(row, table)
    except BadRow as error:
        yield Problem(row.where, str(error), group)


def _file(*places: Path) -> Image:
    """Return the picture in the first place that there is. Raises BadRow."""
    for place in places:
        try:
            return image_file(place)
        except ImageError as error:
            raise BadRow(f"its picture {str(place)!r} {error}") from error
        except (OSError, ValueError):  # no such file, or no path at all
            continue
    raise BadRow(f"its picture {str(places[0])!r} is missing")


def _categories(**kinds: str) -> dict[str, str]:
    """Return what has a value."""
    return {kind: value for kind, value in kinds.items() if value}


# MMBench


def mmbench(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read MMBench's TSV: index, question, hint, A to D, answer, category, l2-category and image in base64.

    A row of index i + 1000000 k asks row i with its choices shifted; its image may be the index of the row that has
    it. Version 1.1 names the row in g_index. Where any question has several orders, one that lacks orders is named.
    Prompt: hint, question and choices, as VLMEvalKit orders them.
    """
    for table in tables:
        found = list(rows(table, ["image"]))
        images = {_index(row, "index"): row.values.get("image") for row in found if isinstance(row, Row)}

        def parse(row: Row, table: Path, images: Mapping[str, object] = images) -> Iterable[Item]:
            return [_mmbench_item(row, images)]

        asked: list[Item | Problem] = []
        for row in found:
            asked += [row] if isinstance(row, Problem) else _items(row, table, parse, _mmbench_group(row))
        yield from asked
        yield from _mmbench_incomplete(asked, table)


def _mmbench_incomplete(asked: Sequence[Item | Problem], table: Path) -> Iterator[Problem]:
    """Yield each question that is there in fewer orders than it has choices, unless all are there in one order alone.

    Those that a problem names already are left out.
    """
    named = {one.group for one in asked if isinstance(one, Problem)}
    groups: dict[str, dict[str, Item]] = {}
    for item in asked:
        if isinstance(item, Item):
            groups.setdefault(item.group, {})[item.id] = item
    if all(len(orders) == 1 for orders in groups.values()):
        return
    for group, orders in groups.items():
        n_choices = max(len(item.choices) for item in orders.values())
        if len(orders) < n_choices and group not in named:
            what = f"is there in {len(orders)} of the {n_choices} orders of its choices; get the file again"
            yield Problem(f"{told(Path(table.name))}, index {group}", what, group)


def _mmbench_group(row: Row) -> str:
    """Return the index of the row whose question this is, with its choices in another order."""
    index = _index(row, "index")
    shifted = index.isascii() and index.isdigit() and len(index) < 19
    return _index(row, "g_index") or str(int(index) % 1_000_000 if shifted else index)


def _index(row: Row, name: str) -> str:
    """Return the index in a cell, "" for none; pandas writes 1.0 where a column of whole numbers lacks one."""
    index = str(row.values.get(name, ""))
    return index.removesuffix(".0") if re.fullmatch(r"[0-9]+\.0", index) else index


def _mmbench_item(row: Row, images: Mapping[str, object]) -> Item:
    row.text("index")
    index, answer = _index(row, "index"), row.text("answer").strip().upper()
    choices = {letter: row.text(letter) for letter in LETTERS[:8] if row.optional(letter)}
    _check_letter(answer, choices)
    hint = f"Hint: {row.optional('hint')}\n" if row.optional("hint") else ""
    image = row.values.get("image")
    source = _index(row, "image") if isinstance(image, str) else None
    if source is not None and not isinstance(images.get(source), Image):
        raise BadRow(f"its picture is that of row {source!r}, which has none")
    shown = Row(row.where, {"image": images[source]}) if source is not None else row
    text = f"{hint}Question: {row.filled('question')}\nOptions:\n{_options(choices)}\n{ONE_LETTER}"
    return Item(
        id=index,
        prompt=(shown.image("image"), text),
        answers=(answer,),
        metric="choice_of_mmbench",
        choices=choices,
        categories=_categories(
            group=row.optional("l2-category") or row.optional("L2-category"), category=row.optional("category")
        ),
        group=_mmbench_group(row),
    )


def _options(choices: Mapping[str, str]) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in choices.items())


def _check_letter(answer: str, choices: Mapping[str, str]) -> None:
    if len(choices) < 2:
        raise BadRow(f"has {len(choices)} choices, where two or more are expected")
    if answer not in choices:
        raise BadRow(f"its answer {answer!r} is none of its choices {', '.join(choices)}")


# OCRBench


def ocrbench(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read OCRBench.json: dataset_name, id, image_path, question, answers (a text or several), type.

    Pictures lie in OCRBench_Images/ beside the table or its folder. The accuracy times 1000 is the published score.
    Prompt: the question alone, as in the repository's example.py.
    """
    return _each(tables, _ocrbench_items)


def _ocrbench_items(row: Row, table: Path) -> Iterable[Item]:
    name, source = row.text("image_path"), row.text("dataset_name")
    folders = [folder / part for folder in (table.parent, table.parent.parent) for part in ("OCRBench_Images", "")]
    yield Item(
        id=f"{source} {row.text('id')}",  # an id is unique within its source only
        prompt=(_file(*(folder / name for folder in folders)), row.filled("question")),
        answers=row.texts("answers"),
        metric="contains_formula" if source == "HME100k" else "contains",
        categories=_categories(type=row.text("type")),
    )


# ChartQA


def chartqa(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read ChartQA's test_human.json and test_augmented.json: imgname, query, label; pictures in png/ beside them.

    The published tables have no ids: rows are numbered. The paper's models are trained and need no instruction;
    here one asks for a single word or phrase.
    """
    return _each(tables, _chartqa_items)


def _chartqa_items(row: Row, table: Path) -> Iterable[Item]:
    yield Item(
        id=row.where,
        prompt=(_file(table.parent / "png" / row.text("imgname")), f"{row.filled('query')}\n{SHORT}"),
        answers=row.texts("label"),
        metric="relaxed",
        categories=_categories(questions=told(Path(table.stem)).rpartition("_")[2]),
    )


# DocVQA


def docvqa(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read DocVQA's val_v1.0_withQT.json: data, a list of questionId, question, question_types, image and answers.

    `image` is documents/NAME.png; newer downloads have the pictures in spdocvqa_images/ beside spdocvqa_qas/. The
    paper gives no wording for the prompt; a single word or phrase is asked for.
    """
    return _each(tables, _docvqa_items)


def _docvqa_items(row: Row, table: Path) -> Iterable[Item]:
    path = Path(row.text("image"))
    parents = (table.parent, table.parent.parent)
    places = [place for parent in parents for place in (parent / path, parent / "spdocvqa_images" / path.name)]
    kinds = row.texts("question_types") if row.values.get("question_types") else ()
    yield Item(
        id=row.text("questionId"),
        prompt=(_file(*places), f"{row.filled('question')}\n{SHORT}"),
        answers=row.texts("answers"),
        metric="anls",
        categories=_categories(type=", ".join(kinds)),
    )


# MMMU

_SUBJECTS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine"),
        *("Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
_MMMU_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


def mmmu(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read MMMU's Parquet: id, question, options (a list as Python writes it), answer, question_type, image_1 to 7.

    "<image 2>" in question or options is where that picture stands. Prompt: mmmu/configs/llava1.5.yaml. The test
    split's answers are not published: its rows cannot be asked.
    """
    return _each(tables, _mmmu_items, _MMMU_IMAGES)


def _mmmu_items(row: Row, table: Path) -> Iterable[Item]:
    is_choice = row.text("question_type") == "multiple-choice"
    options = _list(row, "options") if is_choice else ()
    choices = dict(zip(LETTERS, options, strict=False))
    if is_choice:
        _check_letter(row.text("answer"), choices)
        text = "".join(f"({letter}) {option}\n" for letter, option in choices.items())
        text = f"{row.filled('question')}\n\n{text}\n\n{ONE_LETTER}"
    else:
        text = f"{row.filled('question')}\n\n{SHORT}"
    subject = row.text("id").partition("_")[2].rpartition("_")[0]
    yield Item(
        id=row.text("id"),
        prompt=_interleaved(text, row),
        answers=(row.text("answer"),) if is_choice else _known(_list(row, "answer")),
        metric="choice_of_mmmu" if is_choice else "mmmu_open",
        choices=choices,
        categories=_categories(
            discipline=next((name for name, subjects in _SUBJECTS.items() if subject in subjects), ""), subject=subject
        ),
    )


def _list(row: Row, name: str) -> tuple[str, ...]:
    """Return a list as Python writes it, with at least one text and none of them empty. Raises BadRow."""
    return Row(row.where, {name: list_of(row.text(name))}).texts(name)


def _known(answers: tuple[str, ...]) -> tuple[str, ...]:
    if answers == ("?",):
        raise BadRow("its answer is not published")
    return answers


def _interleaved(text: str, row: Row) -> tuple[str | Image, ...]:
    """Return the text with the row's pictures in their places; a text that names none begins with the first."""
    if not re.search(r"<image \d+>", text):
        return row.image("image_1"), text
    parts = re.split(r"<image (\d+)>", text)  # text, number, text, number, ..., text
    placed = [row.image(f"image_{part}") if place % 2 else part for place, part in enumerate(parts)]
    return tuple(part for part in placed if part)


# Video-MME


def video_mme(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read Video-MME's questions, with frames that were taken from the videos beforehand.

    Parquet: video_id, duration, domain, sub_category, videoID, question_id, task_type, question, options, answer; or
    JSON as the repository's template for answers, with a list of questions per video. No layout of frames is
    published: they are the pictures in frames/VIDEO/ beside the table or up to two folders above, in the order of the
    numbers in their names, and VIDEO is videoID or video_id. Prompt: the README's, without subtitles.
    """
    return _each(tables, _video_items)


def _video_items(row: Row, table: Path) -> Iterable[Item | Problem]:
    if "questions" not in row.values:
        yield _video_item(row, _frames(row, table))
        return
    questions = row.values["questions"]
    if not isinstance(questions, list) or not questions:
        raise BadRow("'questions' is no list of questions")
    for number, question in enumerate(questions, start=1):
        where = f"{row.where}, question {number}"
        if isinstance(question, dict):
            one = Row(where, {**row.values, **question})
            yield from _items(one, table, lambda one, table: [_video_item(one, _frames(row, table))])
        else:
            yield Problem(where, "is no object")


def _video_item(row: Row, frames: Sequence[Image]) -> Item:
    options = row.texts("options")
    pairs = zip(LETTERS, options, strict=False)
    choices = {letter: option.removeprefix(f"{letter}.").strip() for letter, option in pairs}
    _check_letter(row.text("answer"), choices)
    letters = f"{', '.join(list(choices)[:-1])}, or {list(choices)[-1]}"
    text = (
        "Select the best answer to the following multiple-choice question based on the video. "
        f"Respond with only the letter ({letters}) of the correct option.\n"
        f"{row.filled('question')}\n{_options(choices)}\nThe best answer is:"
    )
    return Item(
        id=row.text("question_id"),
        prompt=(*frames, text),
        answers=(row.text("answer"),),
        metric="choice_of_video_mme",
        choices=choices,
        categories=_categories(
            duration=row.optional("duration"), domain=row.optional("domain"), task=row.optional("task_type")
        ),
        cluster=row.optional("video_id"),
    )


def _frames(row: Row, table: Path) -> list[Image]:
    """Return a video's frames, in order. Raises BadRow where there are none."""
    names = [row.optional(name) for name in ("videoID", "video_id") if row.optional(name)]
    folders = [folder / "frames" / name for folder in list(table.parents)[:3] for name in names]
    for folder in folders:
        if files := _pictures(folder):
            return [_file(path) for path in sorted(files, key=_in_order)]
    raise BadRow(f"its frames are missing: there are no pictures in frames/{names[0] if names else 'VIDEO'}")


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder; none where there is no such folder, nor can be."""
    try:
        files = [path for path in folder.glob("*") if not path.name.startswith(".")]  # macOS adds ._1.jpg to 1.jpg
        return [path for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    except (OSError, ValueError):  # too long a name, or no name at all
        return []


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Return what sorts frame-2 before frame-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", path.name)]


# BlindTest

_BLIND = {
    "circled letter": "letter_in_braces",
    "counting grid - blank grids": "rows_and_columns",
    "counting grid - word grids": "rows_and_columns",
    "line plot intersections": "count_in_braces",
    "nested squares": "count_in_braces",
    "olympic counting - circles": "count_in_braces",
    "olympic counting - pentagons": "count_in_braces",
    "subway connections": "count_in_braces",
    "touching circles": "true_false",
}


def blindtest(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read BlindTest's Parquet: task, image, prompt, groundtruth, metadata. Rows have no ids: they are numbered.

    Both kinds of grid count as one task, as in the paper's table. Prompt: the row's own. Columns are those of the
    dataset card; names of tasks and the form of groundtruth ("5,6" for grids) are taken from two programs that read it.
    """
    return _each(tables, _blindtest_items, ["image"])


def _blindtest_items(row: Row, table: Path) -> Iterable[Item]:
    task = row.text("task").strip().lower()
    if task not in _BLIND:
        raise BadRow(f"its task {task!r} is not known")
    yield Item(
        id=row.where,
        prompt=(row.image("image"), row.filled("prompt")),
        answers=row.texts("groundtruth"),
        metric=_BLIND[task],
        categories=_categories(task="counting grid" if task.startswith("counting grid") else task),
    )


# NLVR


def nlvr(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read NLVR's JSON Lines (dev.json and others): sentence, label, identifier, directory.

    A sentence comes with six pictures, images/DIRECTORY/SPLIT-IDENTIFIER-K.png, that show the same boxes in another
    order; sentences that share the identifier's first part are one group, as in metrics_images.py, whose precision is
    the accuracy and whose consistency is the share of sentences right for all pictures. The prompt's wording is ours.
    """
    return _each(tables, _nlvr_items)


def _nlvr_items(row: Row, table: Path) -> Iterator[Item | Problem]:
    identifier = row.text("identifier")
    for order in range(6):
        picture = Row(f"{row.where}, picture {order}", {**row.values, "order": order})
        yield from _items(picture, table, _nlvr_picture, identifier.partition("-")[0])


def _nlvr_picture(row: Row, table: Path) -> Iterable[Item]:
    identifier, order, label = row.text("identifier"), row.text("order"), row.text("label").strip().lower()
    if label not in ("true", "false"):
        raise BadRow(f"its label {label!r} is neither true nor false")
    folders = (table.parent / "images", table.parent / table.stem / "images")
    name = f"{table.stem}-{identifier}-{order}.png"
    yield Item(
        id=f"{identifier}-{order}",
        prompt=(
            _file(*(folder / row.text("directory") / name for folder in folders)),
            f"Is this statement true or false? {row.filled('sentence')}",
        ),
        answers=(label,),
        metric="true_false",
        group=identifier.partition("-")[0],
        cluster=identifier.partition("-")[0],
    )


# Your own


def jsonl(tables: Sequence[Path]) -> Iterator[Item | Problem]:
    """Read JSON Lines of your own: an object a line, with the keys

    image     path from the table's folder, or several
    question  the prompt, word by word
    answers   a right answer, or several
    metric    a name of `edgevl.eval.metrics.TEXT_METRICS`; without it, exact
    id        a name of its own; without it, the line
    category  what figures are broken down by; or an object of such
    before    a question, or several, asked first in the same conversation and not graded; the first shows the pictures
    """
    return _each(tables, _jsonl_items)


def _jsonl_items(row: Row, table: Path) -> Iterable[Item]:
    metric = row.optional("metric") or "exact"
    if metric not in TEXT_METRICS:
        raise BadRow(f"its metric {metric!r} is not known; it must be one of {', '.join(TEXT_METRICS)}")
    category = row.values.get("category")
    kinds = category if isinstance(category, dict) else {"category": category}
    yield Item(
        id=row.optional("id") or row.where,
        prompt=(*(_file(table.parent / name) for name in row.texts("image")), row.filled("question")),
        answers=row.texts("answers"),
        metric=metric,
        categories=_categories(
            **{whole("category", str(kind)): _category(row, value) for kind, value in kinds.items()}
        ),
        before=row.texts("before") if "before" in row.values else (),
    )


def _category(row: Row, value: object) -> str:
    return str(value) if isinstance(value, bool) else Row(row.where, {"category": value}).optional("category")
