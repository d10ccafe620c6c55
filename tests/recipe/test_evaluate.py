"""The accuracy table, measured by `edgevl eval` on data sets that the recipe writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevl.cli import run as run_cli
from edgevl.errors import InputError
from edgevl.eval import run, tasks
from edgevl.eval.item import Item
from edgevl.model import hub, manifest
from edgevl.recipe import card, datasets, evaluate
from edgevl.recipe.data import Paths
from edgevl.recipe.goals import GOALS, GROUPS
from edgevl.recipe.heldout import TASKS, items
from tests import readme
from tests.recipe.conftest import WORDS

ASKED = ("naming", "chart_title")
N = 6


def picture(item: Item) -> Path:
    return Path(item.images[0].load()).resolve()


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Fonts and words without packs."""
    import matplotlib

    folder = tmp_path_factory.mktemp("places")
    (folder / "words").write_text("\n".join(" ".join(WORDS).split()))
    return Paths(folder, folder, Path(matplotlib.get_data_path()) / "fonts" / "ttf", folder / "words")


@pytest.fixture(scope="module")
def data(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six items of two tasks, and their forms. Do not write into it."""
    folder = tmp_path_factory.mktemp("data")
    for task in ASKED:
        datasets.write_task(paths, folder, task, N)
    datasets.write_forms(folder, ASKED)
    return folder


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with another line end in its tokenizer's file: another model that answers the same."""
    folder = Path(shutil.copytree(hub.find(None), tmp_path_factory.mktemp("twin") / "model"))
    path, spec = folder / "tokenizer.json", folder / manifest.FILE_NAME
    path.write_bytes(path.read_bytes() + b"\n")
    raw = read(spec)
    raw["files"][path.name] = {"n_bytes": path.stat().st_size, "sha256": manifest.sha256(path)}
    spec.write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def asked(paths: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six items of one task, and their forms. Do not write into it."""
    folder = tmp_path_factory.mktemp("asked")
    datasets.write_task(paths, folder, "counting", N)
    datasets.write_forms(folder, ["counting"])
    return folder


@pytest.fixture(scope="module")
def answers(asked: Path, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the report of the bundled model, measured against another, and with all answers."""
    folder = tmp_path_factory.mktemp("answers")
    evaluate.measure(hub.find(None), asked, folder / "report.json", {"fp32": twin})
    return folder


def test_a_task_is_written_as_it_is_held_out(paths: Paths, data: Path) -> None:
    for task, metric in zip(ASKED, ("exact", "relaxed"), strict=True):
        found = tasks.load("jsonl", data / task)
        assert (len(found.items), found.problems) == (N, [])
        for item, wanted in zip(found.items, items(paths, task, N), strict=True):
            assert (item.question, item.answers, item.metric) == (wanted.question, (wanted.answer,), metric)
            assert np.array_equal(np.asarray(Image.open(item.images[0].load())), wanted.rgb)


def test_what_is_written_stays_and_so_do_answers_to_it(paths: Paths, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "naming", tmp_path / "naming")
    before = tasks.load("jsonl", tmp_path / "naming").items
    datasets.write_task(paths, tmp_path, "naming", N)
    assert [item.digest for item in tasks.load("jsonl", tmp_path / "naming").items] == [item.digest for item in before]
    datasets.write_task(paths, tmp_path, "naming", N + 1)
    more = tasks.load("jsonl", tmp_path / "naming").items
    assert [item.digest for item in more[:-1]] == [item.digest for item in before]
    assert len(more) == N + 1
    datasets.write_task(paths, tmp_path, "counting", 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "counting" / "0000.png")
    datasets.write_task(paths, tmp_path, "counting", 2)
    first, _ = items(paths, "counting", 2)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "counting" / "0000.png")), first.rgb)


def test_forms_ask_the_same_of_the_same_pictures(data: Path) -> None:
    plain, other, chat = ({item.id: item for item in tasks.load("jsonl", data / form).items} for form in datasets.FORMS)
    assert list(plain) == list(other) == list(chat) == [f"{task} {number:04}" for task in ASKED for number in (0, 5)]
    for name, item in plain.items():
        assert picture(item) == picture(other[name]) == picture(chat[name]) == data / f"{name.replace(' ', '/')}.png"
        assert item.answers == other[name].answers == chat[name].answers
        assert item.question == chat[name].question != other[name].question
        assert len({question.lower().rstrip("?.") for question in (item.question, *chat[name].before)}) == 4
        assert len(chat[name].before) == 3
        assert item.before == other[name].before == ()


def test_what_is_asked_before_fits_the_picture() -> None:
    worded: dict[str, list[datasets.Worded]] = {
        task: [(f"{task} {number % 2}?", None) for number in range(N)] for task in ("colours", "shapes", "subway")
    }
    assert datasets._before(worded, "colours", 5) == ["colours 0?", "shapes 1?", "what's here?"]
    assert datasets._before(worded, "subway", 0)[0] == "subway 1?"
    assert not any("colours" in one or "shapes" in one for one in datasets._before(worded, "subway", 0))


def test_figures_are_those_of_the_command(
    asked: Path, answers: Path, twin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = read(answers / "report.json")
    assert list(report["tasks"]) == ["counting", *datasets.FORMS]
    row, table = report["tasks"]["counting"], str(answers / "report" / "counting.ndjson")
    command = ["eval", str(hub.find(None)), "--task", "jsonl", "--data", str(asked / "counting")]
    assert run_cli([*command, "--against", str(twin), "-o", table, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    first, second = (model["figures"][0] for model in shown["models"])
    assert (row["n"], row["metric"], row["problems"]) == (N, "exact", [])
    assert (row["accuracy"], *row["interval"]) == (first["value"], first["low"], first["high"])
    assert row["against"]["fp32"]["accuracy"] == second["value"] == first["value"] > 0
    assert {**row["against"]["fp32"]["difference"], "is_shown": shown["difference"]["is_shown"]} == shown["difference"]
    assert row["baseline"] == shown["constants"][0]["value"]
    assert report["models"]["fp32"]["model_id"] == shown["models"][1]["model_id"]


def test_what_is_known_is_not_asked_again(
    asked: Path, answers: Path, tmp_path: Path, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(answers / "report", tmp_path / "report")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(run, "VLM", refuse)
    evaluate.measure(hub.find(None), asked, tmp_path / "report.json", {"fp32": twin})
    assert read(tmp_path / "report.json") == read(answers / "report.json")
    evaluate.measure(hub.find(None), asked, tmp_path / "report.json", {})
    assert read(tmp_path / "report.json")["tasks"]["counting"]["against"] == {}


def test_tasks_asked_side_by_side_give_the_same_report(asked: Path, answers: Path, tmp_path: Path) -> None:
    evaluate.measure(hub.find(None), asked, tmp_path / "report.json", {}, threads=1, workers=2)
    found, before = read(tmp_path / "report.json")["tasks"], read(answers / "report.json")["tasks"]
    assert {task: row["accuracy"] for task, row in found.items()} == {t: row["accuracy"] for t, row in before.items()}
    assert list(found) == list(before)


def test_there_is_no_report_of_half_the_tasks(asked: Path, answers: Path, tmp_path: Path) -> None:
    shutil.copytree(asked, tmp_path / "data")
    shutil.copytree(answers / "report", tmp_path / "report")
    (tmp_path / "data" / datasets.FORMS[-1] / datasets.TABLE).write_text("", encoding="utf-8")
    with pytest.raises(InputError):
        evaluate.measure(hub.find(None), tmp_path / "data", tmp_path / "report.json", {})
    assert not (tmp_path / "report.json").exists()


def test_the_change_of_a_form_is_paired(answers: Path) -> None:
    rows = read(answers / "report.json")["tasks"]
    for form in datasets.FORMS[1:]:
        change = rows[form]["drop"]
        assert change["n"] == rows[form]["n"] == rows["plain"]["n"] == 2
        assert change["value"] == pytest.approx(rows[form]["accuracy"] - rows["plain"]["accuracy"])
        assert change["low"] <= change["value"] <= change["high"]
    assert "drop" not in rows["plain"]


def test_a_folder_without_tasks_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no TASK/questions.jsonl; let `evaluate write` write them"):
        evaluate.measure(hub.find(None), tmp_path, tmp_path / "report.json", {})


CHANGE = {"n": 10, "n_first": 0, "n_second": 1, "value": -0.1, "low": -0.284, "high": 0.107, "p": 0.25}
ROW = {"n": 10, "metric": "exact", "accuracy": 0.8, "interval": [0.49, 0.943], "baseline": 0.1,
       "baseline_answer": "red", "against": {}, "wrong": [{"id": "1"}]}  # fmt: skip
MEASURED: Mapping[str, Any] = {
    "yes_no": {**ROW, "against": {"fp32": {"accuracy": 0.9, "difference": CHANGE}, "int4": {"accuracy": 0.7}}},
    "naming": ROW,
    "plain": ROW,
    "chat": {**ROW, "drop": CHANGE},
}


def test_the_table_has_what_was_measured() -> None:
    rows = card.summary({"tasks": MEASURED})
    yes_no = rows["yes_no"]
    assert (yes_no["accuracy"], yes_no["fp32"], yes_no["int4"], yes_no["goal"]) == (0.8, 0.9, 0.7, 0.9)
    assert yes_no["difference"] == CHANGE
    assert "wrong" not in yes_no
    titles, rule, first, second, _, forms, _, chat = card.tables(rows).splitlines()
    assert titles.startswith("| task | metric | examples | shipped | 95 % interval | int4 | fp32 | shipped - fp32")
    assert rule == "|" + "---|" * 10
    assert first == (
        "| yes no | exact | 10 | 80.0% | 49.0% to 94.3% | 70.0% | 90.0% | -10.0 (0.25) | 10.0% | 90%, not reached |"
    )
    assert second == "| naming | exact | 10 | 80.0% | 49.0% to 94.3% |  |  |  | 10.0% |  |"
    assert forms == "| asked | pairs | right | change, points | 95 % interval | goal |"
    assert chat == "| after three other questions | 10 | 80.0% | -10.0 | -28.4 to +10.7 | -3 or better, not reached |"


def test_the_figures_that_are_there_make_a_table() -> None:
    path = Path(__file__).parents[2] / "models" / "edgevl-tiny" / "accuracy.json"
    rows = read(path)
    assert len(card.tables(rows).splitlines()) >= 2 + len(rows) - len(datasets.FORMS)


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n")
    card.write(path, "| new |")
    assert path.read_text() == f"before\n{card.BEGIN}\n| new |\n{card.END}\nafter\n"
    path.write_text("nothing here")
    with pytest.raises(ValueError, match="has no lines"):
        card.write(path, "| new |")


def test_every_task_is_in_one_group() -> None:
    grouped = [task for tasks in GROUPS.values() for task in tasks]
    assert sorted(grouped) == sorted(TASKS)
    assert set(GOALS) <= set(TASKS)


def test_the_readme_leaves_out_the_forms_of_the_recipe() -> None:
    assert readme.FORMS == datasets.FORMS
