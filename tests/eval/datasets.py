"""Data sets of two or three questions in every published layout, with pictures of `models/samples`."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parents[2] / "models" / "samples"
SHAPES, COUNTING, RELATION, WORD = (SAMPLES / f"{name}.png" for name in ("shapes", "counting", "relation", "word"))


def lines(path: Path, rows: Sequence[Any]) -> Path:
    """Write JSON Lines; a row that is text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def jsonl(folder: Path, rows: Sequence[Any]) -> Path:
    """Write questions of one's own, and the samples beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in SAMPLES.glob("*.png"):
        shutil.copyfile(picture, folder / picture.name)
    return lines(folder / "questions.jsonl", rows)


def tsv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """Write a table as pandas does."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([header, *rows])
    return path


MMBENCH = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category", "split")


def mmbench(folder: Path) -> Path:
    """Two questions in every order of their choices: one with two, one with four."""
    shapes, word = (base64.b64encode(path.read_bytes()).decode() for path in (SHAPES, WORD))
    question = 'which "shape"\tis blue?'
    things = ("a word", "a cat", "a dog", "an ant")
    turned = [[f"{n}000008", "what is it?", "", *things[n:], *things[:n], "ADCB"[n]] for n in (1, 2, 3)]
    return tsv(
        folder / "MMBench_DEV_EN.tsv",
        MMBENCH,
        [
            ["7", question, "look\nwell", "circle", "square", "", "", "B", "attribute", shapes, "perception", "dev"],
            ["8", "what is it?", "", "a word", "a cat", "a dog", "an ant", "A", "ocr", word, "perception", "dev"],
            ["1000007", question, "look\nwell", "square", "circle", "", "", "A", "attribute", "7", "perception", "dev"],
            *([*asked, "ocr", "8", "perception", "dev"] for asked in turned),
        ],
    )


def ocrbench(folder: Path) -> Path:
    """A word with one right answer, and a formula with two."""
    (folder / "OCRBench_Images/IIIT5K").mkdir(parents=True)
    shutil.copyfile(WORD, folder / "OCRBench_Images/IIIT5K/1.png")
    rows = [
        ["IIIT5K", 3, "what is written in the image?", "CENTRE", "Regular Text Recognition"],
        ["HME100k", 3, "write it in LaTeX.", ["y _ 2\n", "y"], "Handwritten Mathematical Expression Recognition"],
    ]
    names = ("dataset_name", "id", "question", "answers", "type")
    table = folder / "OCRBench.json"
    found = [{**dict(zip(names, row, strict=True)), "image_path": "IIIT5K/1.png"} for row in rows]
    table.write_text(json.dumps(found))
    return table


def chartqa(folder: Path) -> Path:
    """One question by people and one that was made."""
    (folder / "test/png").mkdir(parents=True)
    shutil.copyfile(SHAPES, folder / "test/png/1.png")
    for part, label in (("human", "14"), ("augmented", "Yes")):
        row = {"imgname": "1.png", "query": f"a {part} question?", "label": label}
        (folder / f"test/test_{part}.json").write_text(json.dumps([row]))
    return folder


def docvqa(folder: Path, pictures: str = "documents") -> Path:
    """A page with two questions."""
    (folder / pictures).mkdir(parents=True)
    shutil.copyfile(WORD, folder / pictures / "xnbl0037_1.png")
    page = {"image": "documents/xnbl0037_1.png", "docId": 279, "data_split": "val"}
    rows = [
        {**page, "questionId": 337, "question": "what?", "answers": ["0.28"], "question_types": ["form", "layout"]},
        {**page, "questionId": 338, "question": "who?", "answers": ["ITC Limited", "itc"]},
    ]
    table = folder / "val_v1.0_withQT.json"
    table.write_text(json.dumps({"dataset_name": "SP-DocVQA", "dataset_split": "val", "data": rows}))
    return table


def nlvr(folder: Path, n_pictures: int = 6) -> Path:
    """Two presentations of one sentence, each with its pictures."""
    rows = [
        {"sentence": "There is a square.", "label": label, "identifier": f"72-{place}", "directory": "2"}
        for place, label in enumerate(("true", "false"))
    ]
    (folder / "images/2").mkdir(parents=True)
    for row in rows:
        for order in range(n_pictures):
            shutil.copyfile(RELATION, folder / f"images/2/dev-{row['identifier']}-{order}.png")
    return lines(folder / "dev.json", rows)


def parquet(path: Path, rows: Sequence[dict[str, Any]], group: int = 2) -> Path:
    """Write Parquet with pictures as the hub has them, `group` rows together."""
    from pyarrow import Table
    from pyarrow import parquet as format_

    path.parent.mkdir(parents=True, exist_ok=True)
    format_.write_table(Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def image(path: Path | None) -> dict[str, Any] | None:
    """Return a picture's cell."""
    return None if path is None else {"bytes": path.read_bytes(), "path": path.name}


def mmmu(folder: Path) -> Path:
    """A choice between two pictures, an open question, one whose answer is not published."""
    rows = [
        ["validation_Math_1", "Which of <image 1> and <image 2>?", "['<image 1>', '$6']", "B", SHAPES, RELATION],
        ["validation_Art_Theory_3", "How much?", "[]", "['$MgS$', 'MgS']", WORD, None],
        ["validation_Art_4", "How much?", "[]", "?", WORD, None],
    ]
    found = [
        {
            "id": name,
            "question": question,
            "options": options,
            "answer": answer,
            "question_type": "multiple-choice" if answer == "B" else "open",
            "image_1": image(first),
            "image_2": image(second),
        }
        for name, question, options, answer, first, second in rows
    ]
    return parquet(folder / "Math/validation-00000-of-00001.parquet", found)


VIDEO = {"video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History"}


def video_question(number: int) -> dict[str, Any]:
    """Return a question about a video."""
    return {
        "question_id": f"001-{number}",
        "task_type": "Counting Problem",
        "question": "How many socks?",
        "options": ["A. 1.", "B. 4.", "C. 2.", "D. 3."],
        "answer": "D",
    }


def frames(folder: Path, video: str, n: int = 2) -> None:
    """Put frames of a video in their place; the tenth comes after the second."""
    (folder / "frames" / video).mkdir(parents=True)
    for number, picture in zip((10, 2, 1)[:n], (RELATION, COUNTING, SHAPES), strict=False):
        shutil.copyfile(picture, folder / "frames" / video / f"frame-{number}.png")


def video_mme(folder: Path) -> Path:
    """One question, as the hub has it."""
    frames(folder, "fFjv93ACGo8")
    row = {**VIDEO, **video_question(1), "videoID": "fFjv93ACGo8", "url": "https://example.org"}
    return parquet(folder / "videomme/test-00000-of-00001.parquet", [row])


def blindtest(folder: Path) -> Path:
    """A question of three tasks."""
    tasks = [
        ("Counting Grid - Blank Grids", "Count the rows and columns.", "5,6"),
        ("Touching Circles", "Are the two circles touching each other? Answer with Yes/No.", "Yes"),
        ("Circled Letter", "Which letter is being circled?", "k"),
    ]
    rows = [
        {"task": task, "image": image(SHAPES), "prompt": prompt, "groundtruth": right, "metadata": "{}"}
        for task, prompt, right in tasks
    ]
    return parquet(folder / "data/valid-00000-of-00001.parquet", rows)
