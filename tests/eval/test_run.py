"""The bundled model asked for real: figures, what is kept, and where a second run goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgevl
from edgevl.engine.native import decoder as native
from edgevl.errors import ChecksumMismatch, InputError
from edgevl.eval import page, run, tasks
from edgevl.eval.results import Results
from edgevl.eval.run import Evaluation, Settings
from edgevl.eval.stats import mcnemar, wilson
from edgevl.machine import describe, version
from edgevl.model import hub, manifest
from edgevl.placement import Placement, installed
from edgevl.store import kept as store
from tests.eval import datasets
from tests.eval.conftest import ASKED
from tests.natively import MISSING

Answers = Mapping[tuple[str, str], str]
N = len(ASKED)


def questions(folder: Path, answers: Answers, n_right: int = N) -> Path:
    """Write what was asked; of the first `n_right` the right answer is the model's own."""
    rows = [
        {
            "image": f"{name}.png",
            "question": asked,
            "answers": answers[name, asked] if number < n_right else "something else",
            "category": ASKED[name, asked],
            "id": f"{name}: {asked}",
        }
        for number, (name, asked) in enumerate(ASKED)
    ]
    return datasets.jsonl(folder, rows)


def settings(data: Path, tmp_path: Path, **changes: Any) -> Settings:
    return replace(Settings(hub.find(None), "jsonl", data, tmp_path / "out.ndjson", detail="low"), **changes)


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def given(found: Evaluation) -> list[str]:
    return [answer.text for answer in found.outcomes[0].answers]


def test_answers_are_those_of_ask_and_the_figures_count_them(answers: Answers, tmp_path: Path) -> None:
    found = run.evaluate(settings(questions(tmp_path, answers, 3), tmp_path))
    assert given(found) == list(answers.values())
    [outcome] = found.outcomes
    [figure] = outcome.figures
    assert (figure.title, figure.value, figure.n) == ("score", 3 / 5, N)
    assert [(one.title, one.value, one.n) for one in outcome.categories["category"]] == [
        ("description", 0.5, 2),
        ("shape", 1.0, 1),
        ("counting", 0.5, 2),
    ]
    assert [answer.score for answer in outcome.answers] == [1, 1, 1, 0, 0]
    assert found.constants["", ""].answer == "something else"
    assert found.constants["", ""].value == 2 / 5
    assert found.difference is None


def test_questions_about_one_picture_are_a_cluster(answers: Answers, tmp_path: Path) -> None:
    found = run.evaluate(settings(questions(tmp_path, answers, 2), tmp_path))
    [figure] = found.outcomes[0].figures
    assert (figure.low, figure.high) != pytest.approx(wilson(2, 5)), "both right answers are about the same picture"
    first, second, *_ = found.outcomes[0].units
    assert first.cluster == second.cluster


def test_a_conversation_is_graded_by_its_last_answer(tmp_path: Path) -> None:
    before, question = ["what shape is blue?", "how many objects are there?"], "what colour is the circle?"
    with edgevl.load(store=False) as vlm:
        chat = vlm.chat(detail="low")
        first = chat.ask(before[0], datasets.SHAPES)
        texts = [first.text, *(chat.ask(text).text for text in (before[1], question))]
    row = {"image": "shapes.png", "question": question, "answers": texts[-1]}
    rows = [{**row, "before": before}, row, {**row, "before": before, "answers": "something else"}]
    asked = settings(datasets.jsonl(tmp_path, rows), tmp_path)
    found = run.evaluate(asked)
    together, alone, wrong = found.outcomes[0].answers
    assert (together.text, together.score) == (texts[-1], 1)
    _, line, other, again = kept(asked.output)
    assert (line["before"], line["images"]) == (texts[:-1], other["images"])
    assert again == {**line, "id": wrong.item.id, "right": ["something else"], "score": 0.0}
    assert "before" not in other
    assert together.item.digest == wrong.item.digest != alone.item.digest
    assert escape("\n".join((*before, question))) in page.page(found)
    assert run.evaluate(asked).outcomes[0].answers[0] == together, "what is kept is not asked again"


def test_the_file_says_what_answered(answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path, threads=1)
    run.evaluate(asked)
    begin, *lines = kept(asked.output)
    spec = manifest.read(hub.find(None))
    assert (begin["edgevl_eval"], begin["model"], begin["model_id"]) == (2, spec.name, spec.content_id)
    assert begin["machine"]["cpu"] == describe().cpu
    assert begin["settings"] == {"detail": "low", "threads": 1}
    assert begin["task"] == "jsonl"
    assert [line["answer"] for line in lines] == list(answers.values())
    assert {line["run"] for line in lines} == {begin["run"]}
    assert all(line["score"] == 1 and line["total_s"] > 0 and len(line["images"]) == 1 for line in lines)


def test_ctrl_c_loses_nothing(answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path)

    def interrupt(done: int, total: int, what: str) -> None:
        assert (total, what.split(":")[0]) == (N, manifest.read(hub.find(None)).name)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.evaluate(asked, interrupt)
    before = kept(asked.output)
    assert len(before) == 1 + 2
    with asked.output.open("ab") as file:
        file.write(b'{"run": "cut off he')
    found = run.evaluate(asked)
    assert given(found) == list(answers.values())
    assert kept(asked.output)[:3] == before, "what was there is kept, and nothing is asked twice"
    assert len(kept(asked.output)) == 1 + N


def test_what_is_known_needs_no_model(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path)
    first = run.evaluate(asked)
    content = asked.output.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(run, "VLM", refuse)
    assert run.evaluate(asked) == first
    assert asked.output.read_bytes() == content


def test_other_right_answers_are_kept_beside_the_same_answer(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path)
    before = run.evaluate(asked)
    first = kept(asked.output)
    monkeypatch.setattr(run, "VLM", None)
    questions(tmp_path, answers, 4)
    after = run.evaluate(asked)
    assert after.data_id != before.data_id
    *lines, last = kept(asked.output)
    assert lines == first
    assert last == {**first[-1], "right": ["something else"], "score": 0.0}
    run.evaluate(asked)
    assert kept(asked.output) == [*lines, last], "it is written once"
    assert run.evaluate(replace(asked, limit=2)).data_id != after.data_id


def test_every_item_has_its_line(answers: Answers, tmp_path: Path) -> None:
    row = {"image": "shapes.png", "question": "what's here?", "answers": answers["shapes", "what's here?"]}
    rows = [{**row, "id": "a"}, {**row, "id": "b"}, {**row, "id": "c", "answers": "something else"}]
    asked = settings(datasets.jsonl(tmp_path, rows), tmp_path)
    for _ in range(2):
        found = run.evaluate(asked)
        assert [one.score for one in found.outcomes[0].answers] == [1, 1, 0]
        _, *lines = kept(asked.output)
        assert [(line["id"], line["score"]) for line in lines] == [("a", 1), ("b", 1), ("c", 0)]
        assert len({line["asked"] for line in lines}) == len({line["total_s"] for line in lines}) == 1, "asked once"


def test_a_data_set_that_moved_is_not_asked_again(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions(tmp_path / "a", answers)
    asked = settings(tmp_path / "a", tmp_path)
    before = run.evaluate(asked)
    content = asked.output.read_bytes()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setattr(run, "VLM", None)
    after = run.evaluate(replace(asked, data=tmp_path / "b"))
    assert given(after) == given(before)
    assert after.data_id == before.data_id
    assert asked.output.read_bytes() == content


def test_nothing_that_can_be_asked_is_an_error(answers: Answers, tmp_path: Path) -> None:
    table = questions(tmp_path, answers)
    for picture in tmp_path.glob("*.png"):
        picture.write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        run.evaluate(settings(table, tmp_path))
    assert str(caught.value).startswith(
        f"{table}: holds nothing that can be asked (5 problems, the first: shapes: what's here?: "
    )
    assert str(caught.value).endswith("; check --data")


def test_other_settings_are_asked_anew(answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path, limit=1)
    run.evaluate(asked)
    run.evaluate(replace(asked, detail="2"))
    assert [line.get("settings", {}).get("detail") for line in kept(asked.output)] == ["low", None, "2", None]


@pytest.mark.skipif(native.backend() is None, reason=MISSING)
def test_another_engine_is_asked_anew(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))
    asked = settings(questions(tmp_path, answers), tmp_path, limit=1)
    placed = Placement(asked.model, manifest.read(asked.model), device="auto", threads=None)
    graphs, openvino = f"onnxruntime {version('onnxruntime')} cpu", f"openvino {installed('openvino')} cpu"
    wanted = [{"vision": graphs, "decoder": native.backend()}, {"vision": graphs, "decoder": graphs}]
    for seconds in ({"cpu": 1.0}, {"cpu": 1.0}, {"cpu": 2.0, "openvino": 1.0}):
        store.write(placed.key("vision"), seconds)
        for _ in range(2):  # the second time it is known
            run.evaluate(asked)
        monkeypatch.setenv("EDGEVL_NATIVE", "off")
    if installed("openvino"):
        wanted.append({"vision": openvino, "decoder": graphs})
    begins, lines = kept(asked.output)[::2], kept(asked.output)[1::2]
    assert [begin["engines"] for begin in begins] == wanted
    assert [line["run"] for line in lines] == [begin["run"] for begin in begins]
    assert len({begin["run"] for begin in begins}) == len(wanted)


def test_a_limit_is_spread_evenly(answers: Answers, tmp_path: Path) -> None:
    dataset = tasks.load("jsonl", questions(tmp_path, answers))
    names = [item.id for item in dataset.items]
    assert [item.id for item in run.choose(dataset, 2)] == [names[0], names[2]]
    assert [item.id for item in run.choose(dataset, 4)] == [names[0], names[1], names[2], names[3]]
    assert run.choose(dataset, 9) == run.choose(dataset, None) == dataset.items


def test_two_models_on_the_same_questions(answers: Answers, damaged_model: Path, tmp_path: Path) -> None:
    found = run.evaluate(settings(questions(tmp_path, answers), tmp_path, against=damaged_model))
    first, second = found.outcomes
    assert first.figures[0].value == 1
    wrong = sum(answer.score < 1 for answer in second.answers)
    assert wrong > 0
    difference = found.difference
    assert difference is not None
    assert (difference.n, difference.n_first, difference.n_second) == (N, wrong, 0)
    assert difference.value == pytest.approx(wrong / N)
    assert mcnemar([1] * wrong) <= difference.p <= 1, "two questions are about the same picture"
    assert [line["model_id"] for line in kept(tmp_path / "out.ndjson") if "edgevl_eval" in line] == [
        first.run.model_id,
        second.run.model_id,
    ]


def test_a_model_is_not_compared_with_itself(answers: Answers, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is the same model as .*; give another with --against"):
        run.evaluate(settings(questions(tmp_path, answers), tmp_path, against=hub.find(None)))


def test_a_model_that_is_not_what_it_says_is_not_asked(answers: Answers, damaged_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(damaged_model, model)
    content = bytearray((model / "embeddings.npy").read_bytes())
    content[-1] ^= 1
    (model / "embeddings.npy").write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=r"embeddings\.npy: content differs"):
        run.evaluate(settings(questions(tmp_path, answers), tmp_path, model=model))
    (model / "vision.onnx").write_bytes(b"cut off")
    with pytest.raises(ChecksumMismatch, match=r"vision\.onnx: has 7 bytes, "):
        run.evaluate(settings(questions(tmp_path, answers), tmp_path, model=model))


def test_damaged_pictures_are_named_and_left_out(answers: Answers, tmp_path: Path) -> None:
    table = questions(tmp_path, answers)
    (tmp_path / "shapes.png").write_bytes(datasets.SHAPES.read_bytes()[:2000])
    (tmp_path / "relation.png").unlink()
    found = run.evaluate(settings(table, tmp_path))
    assert found.outcomes[0].figures[0].n == N - 3
    missing, *damaged = map(str, found.problems)
    assert missing.startswith("questions.jsonl, line 3: its picture ")
    assert [text.partition("?: ")[0] for text in damaged] == ["shapes: what's here", "shapes: what shape is blue"]
    assert all("is cut off" in text for text in damaged)
    shapes = datasets.SHAPES.read_bytes()
    (tmp_path / "shapes.png").write_bytes(shapes)
    assert run.evaluate(settings(table, tmp_path)).outcomes[0].figures[0].n == N - 1, "mended ones are asked"


def test_what_does_not_fit_counts_as_wrong(answers: Answers, tmp_path: Path) -> None:
    row = {"image": "wide.png", "question": "what's here? " * 3000, "answers": "a red circle", "id": "long"}
    table = questions(tmp_path, answers)
    datasets.lines(table, [row, table.read_text("utf-8").splitlines()[0]])
    for _ in range(2):  # and the second time it is known
        found = run.evaluate(settings(table, tmp_path))
        [outcome] = found.outcomes
        [refused] = outcome.refused
        assert (refused.item.id, refused.score, refused.text) == ("long", 0, "")
        assert "tokens" in refused.refused
        assert outcome.figures[0].n == 2
        assert found.problems == []


def test_cut_answers_are_counted(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "jsonl", replace(tasks.TASKS["jsonl"], max_tokens=2))
    found = run.evaluate(settings(questions(tmp_path, answers), tmp_path))
    assert found.outcomes[0].n_cut == sum(answer.finish_reason == "length" for answer in found.outcomes[0].answers) > 0


def test_choices_that_are_not_named_are_counted(tmp_path: Path) -> None:
    found = run.evaluate(settings(datasets.mmbench(tmp_path), tmp_path, task="mmbench"))
    outcome = found.outcomes[0]
    assert [figure.title for figure in outcome.figures] == ["right in every order of the choices", "as first asked"]
    assert [figure.n for figure in outcome.figures] == [2, 2]
    texts = {"7": "B", "1000007": "a square, I think."}
    said = [replace(answer, text=texts.get(answer.item.id, "nothing of it")) for answer in outcome.answers]
    assert replace(outcome, answers=said).n_unnamed == 4


def test_groups_count_when_they_are_whole_and_all_right(tmp_path: Path) -> None:
    dataset = tasks.load("mmbench", datasets.mmbench(tmp_path))
    assert [item.id for item in run.choose(dataset, 1)] == ["7", "1000007"], "a limit counts questions"
    outcome = run.evaluate(settings(dataset.tables[0], tmp_path, task="mmbench"))
    made = [replace(answer, score=float(answer.item.id != "1000007")) for answer in outcome.outcomes[0].answers]
    found = run._outcome(dataset, outcome.outcomes[0].run, made)
    assert [figure.value for figure in found.figures] == [0.5, 1.0]
    damaged = replace(dataset, problems=[run.Problem("row 9", "is damaged", "8")])
    assert run._outcome(damaged, outcome.outcomes[0].run, made).figures[0].n == 1


def test_a_group_without_its_last_order_is_not_counted(tmp_path: Path) -> None:
    table = datasets.mmbench(tmp_path)
    table.write_text("".join(table.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    [outcome] = run.evaluate(settings(table, tmp_path, task="mmbench")).outcomes
    assert [unit.id for unit in outcome.units] == ["7"]
    assert [figure.n for figure in outcome.figures] == [1, 2]


@pytest.mark.parametrize("task", ["blindtest", "chartqa", "docvqa", "mmmu", "nlvr", "ocrbench", "video-mme"])
def test_every_task_can_be_asked(task: str, tmp_path: Path) -> None:
    data = getattr(datasets, task.replace("-", "_"))(tmp_path)
    found = run.evaluate(settings(data, tmp_path, task=task, limit=3))
    assert len(found.outcomes[0].answers) == len(found.chosen) > 0
    assert found.outcomes[0].figures[0].title == tasks.TASKS[task].figures[0][0]
    assert (found.outcomes[0].macro is not None) == (task == "blindtest")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n", "out.ndjson, line 1: is no line of a results file (Expecting value"),
        ('{"image": "a.png"}\n', "out.ndjson, line 1: is no line of a results file (lacks 'answer'); choose another"),
        (
            '{"edgevl_eval": 1, "run": "a"}\n',
            "out.ndjson, line 1: is of format 1, this edgevl goes on with 2 only; choose another --output",
        ),
        (
            '{"edgevl_eval": 3, "run": "a"}\n',
            "is of format 3, this edgevl goes on with 2 only; choose another --output",
        ),
        ('{"run": "a", "asked": "b", "answer": 5}\n', "('answer' is no text)"),
        *(
            (f'{{"run": "a", "asked": "b", "id": "c", "answer": "", "{name}": {value}}}\n', f"({name!r} is {what})")
            for name, value, what in (
                ("refused", 5, "no text"),
                ("refused", "null", "no text"),
                ("finish_reason", [], "no text"),
                ("images", 5, "no list of texts"),
                ("images", [5], "no list of texts"),
                ("images", '"abc"', "no list of texts"),
            )
        ),
        ("no line end", "out.ndjson: is no results file; choose another --output"),
        ('{"edgevl_eval": 1, "ru', "out.ndjson: is no results file; choose another --output"),
        ('{"summary": {}}\n{"edgevl_eval": 2', "out.ndjson: is no results file; choose another --output"),
    ],
)
def test_other_files_are_not_written_to(content: str, words: str, answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path)
    asked.output.write_text(content)
    with pytest.raises(InputError) as caught:
        run.evaluate(asked)
    assert words in str(caught.value)
    assert asked.output.read_text() == content


def test_a_first_line_that_was_cut_off_is_written_anew(answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path, limit=1)
    run.evaluate(asked)
    first = asked.output.read_bytes().splitlines(keepends=True)[0]
    for n_bytes in (0, 1, 10, 18, 19, 40, len(first) - 1):
        asked.output.write_bytes(first[:n_bytes])
        assert given(run.evaluate(asked)) == list(answers.values())[:1]
        assert len(kept(asked.output)) == 1 + 1


def test_a_place_that_cannot_be_written(answers: Answers, tmp_path: Path) -> None:
    asked = settings(questions(tmp_path, answers), tmp_path, output=tmp_path)
    with pytest.raises(InputError, match=r"is no file but a folder, a pipe or a device; choose another --output$"):
        run.evaluate(asked)
    why = "No such file or directory" if os.name == "nt" else "Not a directory"
    with pytest.raises(InputError, match=rf"cannot be written \({why}\); choose another --output$"):
        run.evaluate(replace(asked, output=asked.data / "out.ndjson"))


def test_a_full_disk_is_said(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked = settings(questions(tmp_path, answers), tmp_path)
    with Results(asked.output) as results:
        results.close()
        monkeypatch.setattr(results, "_file", SimpleNamespace(write=full, close=lambda: None))
        with pytest.raises(InputError, match=r"out\.ndjson: cannot be written \(No space left on device\); make room"):
            results.end({})


def test_a_full_disk_is_said_by_what_met_it_and_not_at_the_end(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked = settings(questions(tmp_path, answers), tmp_path)
    results = Results(asked.output)
    results.close()
    monkeypatch.setattr(results, "_file", SimpleNamespace(write=full, close=full))  # which flushes again
    with pytest.raises(InputError, match=r"out\.ndjson: cannot be written \(No space left"), results:
        results.end({})
