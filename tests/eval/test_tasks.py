"""Every published layout: what is asked, what is right, and that nothing is dropped without a word."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import ImageError, InputError
from edgevl.eval import tasks
from edgevl.eval.item import Image, Item, image_file
from edgevl.eval.tasks import TASKS, Dataset
from edgevl.image.read import read
from tests.eval import datasets
from tests.eval.datasets import COUNTING, MMBENCH, RELATION, SHAPES, WORD


def load(name: str, data: Path) -> Dataset:
    found = tasks.load(name, data)
    for item in found.items:
        assert all(read(image.load()).size[0] > 0 for image in item.images)
        assert item.images
        assert item.answers
    return found


def shown(item: Item) -> list[str]:
    """Return the prompt with a picture's name, by its pixels, in its place."""
    names = {read(path).id: path.stem for path in (SHAPES, COUNTING, RELATION, WORD)}
    return [part if isinstance(part, str) else f"<{names[read(part.load()).id]}>" for part in item.prompt]


def problems(found: Dataset) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_mmbench(tmp_path: Path) -> None:
    datasets.mmbench(tmp_path)
    found = load("mmbench", tmp_path)
    first, second, turned, *others = found.items
    assert shown(first) == [
        "<shapes>",
        'Hint: look\nwell\nQuestion: which "shape"\tis blue?\nOptions:\nA. circle\nB. square\n'
        "Answer with the option's letter from the given choices directly.",
    ]
    assert shown(second)[1].startswith("Question: what is it?\nOptions:\nA. a word\nB. a cat\nC. a dog\nD. an ant\n")
    assert shown(turned)[0] == "<shapes>", "the picture is that of row 7"
    assert [(item.id, item.group, item.answers) for item in found.items] == [
        ("7", "7", ("B",)),
        ("8", "8", ("A",)),
        ("1000007", "7", ("A",)),
        ("1000008", "8", ("D",)),
        ("2000008", "8", ("C",)),
        ("3000008", "8", ("B",)),
    ]
    assert [item.choices[item.answers[0]] for item in others] == ["a word"] * 3
    assert turned.choices == {"A": "square", "B": "circle"}
    assert first.categories == {"group": "perception", "category": "attribute"}
    assert problems(found) == []


def test_mmbench_with_damage(tmp_path: Path) -> None:
    table = datasets.mmbench(tmp_path)
    rows = [["9", "q", "", "a", "b", "", "", answer, "c", "77", "l", "dev"] for answer in ("A", "C", "")]
    header, *good = table.read_text("utf-8").split("\n", 1)
    assert header.split("\t") == list(MMBENCH)
    table.write_text(header + "\n" + good[0] + "".join("\t".join(row) + "\n" for row in rows), "utf-8")
    found = load("mmbench", tmp_path)
    assert len(found.items) == 6
    assert problems(found) == [
        "MMBench_DEV_EN.tsv, row 7: its picture is that of row '77', which has none",
        "MMBench_DEV_EN.tsv, row 8: its answer 'C' is none of its choices A, B",
        "MMBench_DEV_EN.tsv, row 9: lacks 'answer'",
    ]
    assert [problem.group for problem in found.problems] == ["9"] * 3


def test_mmbench_with_orders_that_are_missing(tmp_path: Path) -> None:
    table = datasets.mmbench(tmp_path)
    header, *lines = table.read_text("utf-8").splitlines(keepends=True)
    *whole, third, last = lines
    table.write_text("".join((header, *whole, third)), "utf-8")
    missing = "MMBench_DEV_EN.tsv, index 8: is there in 3 of the 4 orders of its choices; get the file again"
    found = load("mmbench", tmp_path)
    assert ([str(one) for one in found.problems], found.problems[0].group) == ([missing], "8")
    table.write_text("".join((header, *whole, third.rpartition("\t")[0] + "\n", last)), "utf-8")
    assert problems(load("mmbench", tmp_path)) == [
        "MMBench_DEV_EN.tsv, row 5: has 11 cells, the table 12 columns",
        missing,
    ]
    table.write_text("".join((header, *whole, third.replace("\tC\t", "\tE\t"), last)), "utf-8")
    assert problems(load("mmbench", tmp_path)) == [
        "MMBench_DEV_EN.tsv, row 5: its answer 'E' is none of its choices A, B, C, D"
    ], "it is named already"
    table.write_text("".join((header, *whole, third, third)), "utf-8")
    assert problems(load("mmbench", tmp_path)) == ["2000008: is there twice; only the first is asked", missing]


def test_mmbench_with_one_order_a_question(tmp_path: Path) -> None:
    table = datasets.mmbench(tmp_path)
    header, *lines = table.read_text("utf-8").splitlines(keepends=True)
    table.write_text("".join((header, *lines[:3])), "utf-8")  # the first cell with a line end is on two of them
    found = load("mmbench", tmp_path)
    assert [item.id for item in found.items] == ["7", "8"]
    assert problems(found) == []


def test_mmbench_of_version_1_1_names_the_group(tmp_path: Path) -> None:
    row = ["3", "q", "a", "b", "A", datasets.base64.b64encode(WORD.read_bytes()).decode(), "2"]
    header = ["index", "question", "A", "B", "answer", "image", "g_index"]
    [item] = load("mmbench", datasets.tsv(tmp_path / "a.tsv", header, [row])).items
    assert item.group == "2"


def test_mmbench_with_an_index_that_pandas_wrote_as_a_float(tmp_path: Path) -> None:
    word = datasets.base64.b64encode(WORD.read_bytes()).decode()
    lines = [
        [index, "q", "a", "b", "A", image] for index, image in (("1.0", word), ("1000001.0", "1.0"), ("v1.0", word))
    ]
    found = load("mmbench", datasets.tsv(tmp_path / "a.tsv", ["index", "question", "A", "B", "answer", "image"], lines))
    assert [(item.id, item.group) for item in found.items] == [("1", "1"), ("1000001", "1"), ("v1.0", "v1.0")]
    assert [shown(item)[0] for item in found.items] == ["<word>"] * 3


def test_ocrbench(tmp_path: Path) -> None:
    datasets.ocrbench(tmp_path)
    found = load("ocrbench", tmp_path)
    word, formula = found.items
    assert shown(word) == ["<word>", "what is written in the image?"]
    assert (word.answers, word.metric, word.id) == (("CENTRE",), "contains", "IIIT5K 3")
    assert (formula.answers, formula.metric, formula.id) == (("y _ 2\n", "y"), "contains_formula", "HME100k 3")
    assert word.categories == {"type": "Regular Text Recognition"}


def test_ocrbench_as_its_repository_lays_it_out(tmp_path: Path) -> None:
    table = datasets.ocrbench(tmp_path)
    (tmp_path / "OCRBench").mkdir()
    table.rename(tmp_path / "OCRBench/OCRBench.json")
    assert len(load("ocrbench", tmp_path).items) == 2


def test_chartqa(tmp_path: Path) -> None:
    datasets.chartqa(tmp_path)
    for data in (tmp_path, tmp_path / "test"):
        found = load("chartqa", data)
        made, people = found.items
        short = "Answer the question using a single word or phrase."
        assert shown(people) == ["<shapes>", f"a human question?\n{short}"]
        assert (people.id, people.answers, people.metric) == ("test_human.json, row 1", ("14",), "relaxed")
        assert (made.categories, people.categories) == ({"questions": "augmented"}, {"questions": "human"})
    [only] = load("chartqa", tmp_path / "test/test_human.json").items
    assert only.answers == ("14",)


@pytest.mark.parametrize("pictures", ["documents", "spdocvqa_images"])
def test_docvqa(pictures: str, tmp_path: Path) -> None:
    datasets.docvqa(tmp_path, pictures)
    first, second = load("docvqa", tmp_path).items
    assert shown(first) == ["<word>", "what?\nAnswer the question using a single word or phrase."]
    assert (first.id, first.answers, first.metric) == ("337", ("0.28",), "anls")
    assert first.categories == {"type": "form, layout"}
    assert (second.answers, second.categories) == (("ITC Limited", "itc"), {})


def test_docvqa_as_it_is_downloaded(tmp_path: Path) -> None:
    table = datasets.docvqa(tmp_path, "spdocvqa_images")
    (tmp_path / "spdocvqa_qas").mkdir()
    table.rename(tmp_path / "spdocvqa_qas" / table.name)
    assert len(load("docvqa", tmp_path).items) == 2


def test_nlvr(tmp_path: Path) -> None:
    datasets.nlvr(tmp_path / "dev")
    found = load("nlvr", tmp_path)
    assert [item.id for item in found.items] == [f"72-{place}-{order}" for place in range(2) for order in range(6)]
    first, last = found.items[0], found.items[-1]
    assert shown(first) == ["<relation>", "Is this statement true or false? There is a square."]
    assert (first.answers, last.answers) == (("true",), ("false",))
    assert {item.group for item in found.items} == {"72"}
    assert found.problems == []


def test_nlvr_names_each_missing_picture(tmp_path: Path) -> None:
    table = datasets.nlvr(tmp_path, n_pictures=4)
    with table.open("a") as file:
        file.write(
            '{"sentence": "x", "label": "maybe", "identifier": "73-0", "directory": "2"}\n{"identifier": "74-0"}\n'
        )
    found = load("nlvr", tmp_path)
    assert len(found.items) == 8
    missing = tmp_path / "images/2/dev-72-0-4.png"
    assert problems(found)[0] == f"dev.json, line 1, picture 4: its picture {str(missing)!r} is missing"
    assert problems(found)[4] == "dev.json, line 3, picture 0: its label 'maybe' is neither true nor false"
    assert len(problems(found)) == 2 + 2 + 6 + 6
    assert found.problems[0].group == "72"


def test_mmmu(tmp_path: Path) -> None:
    datasets.mmmu(tmp_path)
    found = load("mmmu", tmp_path)
    choice, open_ = found.items
    letter = "Answer with the option's letter from the given choices directly."
    assert shown(choice) == [
        "Which of ",
        "<shapes>",
        " and ",
        "<relation>",
        "?\n\n(A) ",
        "<shapes>",
        f"\n(B) $6\n\n\n{letter}",
    ]
    assert (choice.answers, choice.metric, choice.choices["B"]) == (("B",), "choice_of_mmmu", "$6")
    assert choice.categories == {"discipline": "Science", "subject": "Math"}
    assert shown(open_) == ["<word>", "How much?\n\nAnswer the question using a single word or phrase."]
    assert (open_.answers, open_.metric) == (("$MgS$", "MgS"), "mmmu_open")
    assert open_.categories == {"discipline": "Art and Design", "subject": "Art_Theory"}
    assert problems(found) == ["validation-00000-of-00001.parquet, row 3: its answer is not published"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"answer": "[]"}, "'answer' is empty"),
        ({"answer": ""}, "'answer' is empty"),
        ({"answer": "['', 'y']"}, "'answer' is empty"),
        ({"question_type": "multiple-choice", "options": "[{[]: 1}]"}, "has 1 choices, where two or more are expected"),
        ({"question_type": "multiple-choice", "options": "['a', ' ']"}, "'options' is empty"),
        ({"question_type": "multiple-choice", "options": "[]"}, "'options' is empty"),
    ],
)
def test_mmmu_with_damage(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    asked = {"question": "what?", "options": "[]", "answer": "x", "question_type": "open"}
    rows = [{**asked, "id": f"validation_Math_{number}", "image_1": datasets.image(WORD)} for number in (1, 2)]
    rows[0] |= {"answer": "A", **changes}
    found = load("mmmu", datasets.parquet(tmp_path / "validation-0.parquet", rows))
    assert [item.id for item in found.items] == ["validation_Math_2"]
    assert problems(found) == [f"validation-0.parquet, row 1: {words}"]


def test_every_subject_of_mmmu_has_a_discipline() -> None:
    from edgevl.eval.layouts import _SUBJECTS

    assert sum(map(len, _SUBJECTS.values())) == len({name for names in _SUBJECTS.values() for name in names}) == 30


VIDEO_PROMPT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\nHow many socks?\nA. 1.\nB. 4.\nC. 2.\nD. 3.\nThe best answer is:"
)


def test_video_mme(tmp_path: Path) -> None:
    datasets.video_mme(tmp_path)
    [item] = load("video-mme", tmp_path).items
    assert shown(item) == ["<counting>", "<relation>", VIDEO_PROMPT], "frame 2 is before frame 10"
    assert (item.id, item.answers, item.metric) == ("001-1", ("D",), "choice_of_video_mme")
    assert item.categories == {"duration": "short", "domain": "Knowledge", "task": "Counting Problem"}
    assert item.cluster == "001"


def test_video_mme_as_json_with_damage(tmp_path: Path) -> None:
    datasets.frames(tmp_path, "001", 3)
    (tmp_path / "frames/001/._frame-1.png").write_bytes(b"of macOS")
    bad = {**datasets.video_question(2), "options": ["A. 1."]}
    video = {**datasets.VIDEO, "questions": [bad, datasets.video_question(3)]}
    none = [{**video, "questions": questions} for questions in (5, [])]
    rows = [video, {**video, "video_id": "002"}, *none, {**video, "questions": [5, datasets.video_question(4)]}]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    found = load("video-mme", tmp_path)
    item, last = found.items
    assert shown(item) == ["<shapes>", "<counting>", "<relation>", VIDEO_PROMPT]
    assert last.id == "001-4"
    assert problems(found) == [
        "test.json, row 1, question 1: has 1 choices, where two or more are expected",
        *(
            f"test.json, row 2, question {number}: its frames are missing: there are no pictures in frames/002"
            for number in (1, 2)
        ),
        *(f"test.json, row {row}: 'questions' is no list of questions" for row in (3, 4)),
        "test.json, row 5, question 1: is no object",
    ]


def test_video_mme_with_a_name_that_no_folder_has(tmp_path: Path) -> None:
    datasets.frames(tmp_path, "001")
    rows = [
        {**datasets.VIDEO, **datasets.video_question(number), "video_id": name}
        for number, name in enumerate(("x" * 300, "a\0b", "001"))
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    found = load("video-mme", tmp_path)
    assert [item.id for item in found.items] == ["001-2"]
    assert problems(found) == [
        f"test.json, row {number}: its frames are missing: there are no pictures in frames/{name}"
        for number, name in ((1, "x" * 300), (2, "a\0b"))
    ]


def test_blindtest(tmp_path: Path) -> None:
    datasets.blindtest(tmp_path)
    grid, circles, letter = load("blindtest", tmp_path).items
    assert shown(grid) == ["<shapes>", "Count the rows and columns."]
    assert (grid.answers, grid.metric, grid.categories) == (("5,6",), "rows_and_columns", {"task": "counting grid"})
    assert (circles.answers, circles.metric) == (("Yes",), "true_false")
    assert (letter.id, letter.metric) == ("valid-00000-of-00001.parquet, row 3", "letter_in_braces")


def test_blindtest_with_a_task_that_nobody_knows(tmp_path: Path) -> None:
    row = {"task": "Fishing", "image": datasets.image(WORD), "prompt": "?", "groundtruth": "1"}
    with pytest.raises(InputError, match=r"row 1: its task 'fishing' is not known\); check --data$"):
        load("blindtest", datasets.parquet(tmp_path / "valid-0.parquet", [row]))


def test_questions_of_ones_own(tmp_path: Path) -> None:
    asked = {"image": "word.png", "question": "what does it say?", "answers": "hello"}
    datasets.jsonl(
        tmp_path,
        [
            {**asked, "category": "words", "metric": "characters", "id": "one"},
            {
                **asked,
                "image": ["word.png", "shapes.png"],
                "answers": ["hello", "hallo"],
                "category": {"a": 1, "b": "x", "c": None},
            },
            {**asked, "image": "no.png"},
            {**asked, "metric": "bleu"},
            {**asked, "metric": "choice_of_mmmu"},
            {**asked, "id": "one"},
            {"image": "word.png", "answers": "hello"},
            {**asked, "image": {"path": "word.png"}},
            {**asked, "image": "a\0b.png"},
            {**asked, "id": "last", "before": ["what's here?", "how many?"]},
            {**asked, "before": ["what's here?", " "]},
            {**asked, "before": []},
            {**asked, "question": "x\ud800?"},
            {**asked, "answers": ["hello", "\udc00"]},
            {**asked, "category": "\ud800"},
            {**asked, "category": {"a": "\ud800"}},
            {**asked, "category": {"\ud800": 1}},
            {**asked, "id": "\ud800"},
            {**asked, "image": "\ud800.png"},
            {**asked, "before": ["\ud800"]},
            {**asked, "category": {"a": ["b"]}},
            {**asked, "question": " "},
        ],
    )
    found = load("jsonl", tmp_path)
    first, second, last = found.items
    assert (first.before, last.before, last.question) == ((), ("what's here?", "how many?"), "what does it say?")
    assert first.digest != last.digest
    assert shown(first) == ["<word>", "what does it say?"]
    assert (first.id, first.metric, first.categories) == ("one", "characters", {"category": "words"})
    assert shown(second)[:2] == ["<word>", "<shapes>"]
    assert (second.id, second.metric, second.answers) == ("questions.jsonl, line 2", "exact", ("hello", "hallo"))
    assert second.categories == {"a": "1", "b": "x"}
    told = [re.sub(r"one of .*", "one of ...", text.replace(repr(str(tmp_path))[1:-1], "")) for text in problems(found)]
    assert told == [
        f"questions.jsonl, line 3: its picture {os.sep + 'no.png'!r} is missing",
        "questions.jsonl, line 4: its metric 'bleu' is not known; it must be one of ...",
        "questions.jsonl, line 5: its metric 'choice_of_mmmu' is not known; it must be one of ...",
        "one: is there twice; only the first is asked",
        "questions.jsonl, line 7: lacks 'question'",
        "questions.jsonl, line 8: 'image' is {'path': 'word.png'}, where text is expected",
        "questions.jsonl, line 9: its picture '/a\\x00b.png' is missing",
        "questions.jsonl, line 11: 'before' is empty",
        "questions.jsonl, line 12: 'before' is empty",
        *(
            rf"questions.jsonl, line {line}: {name!r} holds '\{half}', half of a character; write the whole one"
            for line, name, half in (
                (13, "question", "ud800"),
                (14, "answers", "udc00"),
                *((line, "category", "ud800") for line in (15, 16, 17)),
                (18, "id", "ud800"),
                (19, "image", "ud800"),
                (20, "before", "ud800"),
            )
        ),
        "questions.jsonl, line 21: 'category' is ['b'], where text is expected",
        "questions.jsonl, line 22: 'question' is empty",
    ]


def test_a_changed_picture_is_asked_anew(tmp_path: Path) -> None:
    row = {"image": "word.png", "question": "what does it say?", "answers": "hello"}
    table = datasets.jsonl(tmp_path, [row])
    before = load("jsonl", table).items[0].digest
    shutil.copyfile(SHAPES, tmp_path / "word.png")
    assert load("jsonl", table).items[0].digest != before
    shutil.copyfile(WORD, tmp_path / "word.png")
    assert load("jsonl", table).items[0].digest == before, "the date does not count"


def test_a_data_set_may_move(tmp_path: Path) -> None:
    row = {"image": "word.png", "question": "what does it say?", "answers": "hello"}
    datasets.jsonl(tmp_path / "a", [row])
    before = [item.digest for item in load("jsonl", tmp_path / "a").items]
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert [item.digest for item in load("jsonl", tmp_path / "b").items] == before


@pytest.mark.parametrize("task", ["blindtest", "mmbench", "mmmu", "video-mme"])
def test_pictures_are_known_by_their_bytes_wherever_they_lie(task: str, tmp_path: Path) -> None:
    getattr(datasets, task.replace("-", "_"))(tmp_path)
    by_bytes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (SHAPES, COUNTING, RELATION, WORD)}
    digests = {image.digest for item in load(task, tmp_path).items for image in item.images}
    assert digests <= by_bytes


def test_a_picture_is_read_once_to_know_it(tmp_path: Path) -> None:
    n_read = 0

    def load_() -> bytes:
        nonlocal n_read
        n_read += 1
        return b"picture"

    first, second = (Item(name, (Image("a place", load_), name), ("x",), "exact") for name in ("1", "2"))
    assert first.digest == first.digest != second.digest
    assert n_read == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of this kind are POSIX")
def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    datasets.frames(tmp_path, "001", 1)
    os.mkfifo(tmp_path / "frames/001/frame-2.png")
    (tmp_path / "test.json").write_text(json.dumps([{**datasets.VIDEO, **datasets.video_question(1)}]))
    with pytest.raises(InputError, match=r"frame-2\.png' is no file but a folder, a pipe or a device\); check --data"):
        tasks.load("video-mme", tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    asked = {"image": "word.png", "question": "what does it say?", "answers": "hello"}
    datasets.jsonl(tmp_path, [asked, *({**asked, "image": name} for name in ("pipe.png", "frames", "/dev/zero"))])
    found = load("jsonl", tmp_path)
    assert len(found.items) == 1
    assert problems(found) == [
        f"questions.jsonl, line {line}: its picture {name!r} is no file but a folder, a pipe or a device"
        for line, name in ((2, str(tmp_path / "pipe.png")), (3, str(tmp_path / "frames")), (4, "/dev/zero"))
    ]


def test_a_picture_that_is_gone_by_then(tmp_path: Path) -> None:
    datasets.frames(tmp_path, "001", 1)
    (tmp_path / "frames/001/frame-2.png").symlink_to("nowhere.png")
    (tmp_path / "test.json").write_text(json.dumps([{**datasets.VIDEO, **datasets.video_question(1)}]))
    with pytest.raises(InputError, match=r"its picture .*frame-2\.png' is missing"):
        tasks.load("video-mme", tmp_path)
    gone = image_file(datasets.jsonl(tmp_path / "a", []))
    (tmp_path / "a/questions.jsonl").unlink()
    with pytest.raises(ImageError, match=r"questions\.jsonl: cannot be read \(No such file or directory\); check it"):
        gone.digest  # noqa: B018


def test_half_a_character_in_a_list_as_python_writes_it(tmp_path: Path) -> None:
    table = datasets.mmmu(tmp_path)
    rows = [
        {**row, "options": r"['\ud800', 'b']"} if row["question_type"] == "multiple-choice" else row
        for row in pyarrow_rows(table)
    ]
    found = load("mmmu", datasets.parquet(tmp_path / "validation-0.parquet", rows))
    assert problems(found)[0] == (
        r"validation-0.parquet, row 1: 'options' holds '\ud800', half of a character; write the whole one"
    )


def pyarrow_rows(table: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(table).to_pylist()
    return rows


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("x.tsv", "y.tsv"):
        (tmp_path / name).write_text("index\tquestion\n")
    for task, data, words in (
        ("mmbench", tmp_path / "b", "b: no such folder; give the one that holds the data set with --data"),
        ("mmbench", tmp_path, "holds 2 tables (x.tsv, y.tsv); give one of them with --data"),
        ("mmbench", tmp_path / "x.tsv", "x.tsv: holds nothing that can be asked; check --data"),
        ("chartqa", tmp_path / "a", "a: holds no *_human.json and *_augmented.json or test/*_human.json and test/"),
        ("docvqa", tmp_path / "a", "which docvqa is read from; check --data"),
        ("anything", tmp_path, f"task 'anything' is not known; it must be one of {', '.join(TASKS)}"),
    ):
        with pytest.raises(InputError) as caught:
            tasks.load(task, data)
        assert words in str(caught.value)


def test_every_task_has_its_paper_and_its_layout() -> None:
    assert list(TASKS) == sorted(TASKS)
    for task in TASKS.values():
        assert task.read.__doc__
        assert task.name == "jsonl" or re.search(r"\([A-Z]\w+ et al\. 20\d\d\)", task.about)
