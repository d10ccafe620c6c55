"""`edgevl eval` as users meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from edgevl.cli import run
from edgevl.eval import tasks
from edgevl.model import hub
from tests.eval import datasets
from tests.waiting import heed_ctrl_c

MODEL = str(hub.find(None))
EDGEVL = (sys.executable, "-m", "edgevl")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three questions, one of them without its picture; the working directory is another."""
    asked = {"question": "what's here?", "answers": "nothing", "metric": "contains"}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return datasets.jsonl(tmp_path / "data", [{"image": f"{name}.png", **asked} for name in ("word", "no", "wide")])


def evaluate(table: Path, *options: str) -> int:
    return run(["eval", MODEL, "--task", "jsonl", "--data", str(table.parent), "--detail", "low", *options])


def test_it_says_and_writes_what_was_measured(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(table) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("jsonl, questions.jsonl: 3 items; 1 left out as damaged or missing\n")
    assert "1 damaged or missing, left out:\n  questions.jsonl, line 2: its picture " in out
    assert out.endswith("\n\nanswers: eval-jsonl.ndjson; wrong ones with their pictures: eval-jsonl.html\n")
    *_, last = Path("eval-jsonl.ndjson").read_text("utf-8").splitlines()
    assert json.loads(last)["summary"]["models"][0]["figures"][0]["n"] == 2
    assert Path("eval-jsonl.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_advice_for_a_large_picture_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1200, 800)).save(tmp_path / "photo.jpg")
    asked = {"image": "photo.jpg", "question": "what's here?", "answers": "nothing"}
    table = datasets.jsonl(tmp_path / "data", [asked, {**asked, "image": "word.png"}])
    (tmp_path / "photo.jpg").rename(tmp_path / "data" / "photo.jpg")
    documents = []
    for options in (["500000"], ["960000"], ["500000", "--reduce"], ["100000", "--reduce"]):
        assert evaluate(table, "--json", "--max-pixels", *options) == 0
        documents.append(json.loads(capsys.readouterr().out))
    refused, read, *reduced = documents
    [problem] = refused["problems"]
    assert "shrink it, or use --reduce or --max-pixels" in json.dumps(problem)
    assert [one["problems"] for one in (read, *reduced)] == [[], [], []]
    lines = map(json.loads, Path("eval-jsonl.ndjson").read_text("utf-8").splitlines())
    photos = [line["images"][0] for line in lines if line.get("id", "").endswith("1")]
    assert len(photos) == len(set(photos)) == 3, "as it is, at a half and at a quarter: none stands for another"


def test_as_json_and_again(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "kept.ndjson"
    documents = []
    for _ in range(2):
        assert evaluate(table, "--json", "--limit", "1", "-o", str(target)) == 0
        documents.append(json.loads(capsys.readouterr().out))
    first, second = documents
    assert first == second
    assert (first["output"], first["page"]) == (str(target), str(tmp_path / "kept.html"))
    assert (first["n_items"], first["n_chosen"], len(first["problems"])) == (2, 1, 1)
    assert sum("answer" in json.loads(line) for line in target.read_text("utf-8").splitlines()) == 1


def test_against_another_model(table: Path, damaged_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(table, "--against", str(damaged_model), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len({model["model_id"] for model in document["models"]}) == 2
    assert document["difference"]["n"] == 2


def test_another_page_is_not_written_over(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.html").write_text("<title>mine</title>")
    assert evaluate(table, "-o", "mine.ndjson") == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: mine.html: is no page of edgevl eval, and wrong answers would be written over it; ")
    assert Path("mine.html").read_text() == "<title>mine</title>"
    assert not Path("mine.ndjson").exists(), "nothing was asked"


@pytest.mark.skipif(os.name == "nt", reason="pipes and devices of this kind are POSIX")
def test_what_is_no_file_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.ndjson")
    Path("device.ndjson").symlink_to(os.devnull)
    Path("folder.html").mkdir()
    for name, wrong in (("pipe", "pipe.ndjson"), ("device", "device.ndjson"), ("folder", "folder.html")):
        assert evaluate(table, "-o", f"{name}.ndjson") == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"error: {wrong}: is no file but a folder, a pipe or a device; choose another --output\n"


def test_the_report_is_told_before_the_page_is_written(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevl.eval.page.check", lambda _: Path("full.html").mkdir())
    assert evaluate(table, "-o", "full.ndjson") == 1
    out, err = capsys.readouterr()
    assert out.startswith("jsonl, questions.jsonl: 3 items; 1 left out")
    why = "Permission denied" if os.name == "nt" else "Is a directory"
    assert err == f"error: full.html: cannot be written ({why}); choose another --output\n"
    assert '"summary"' in Path("full.ndjson").read_text("utf-8")


def test_half_a_character_is_a_problem_of_its_item(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = '{"image": "word.png", "question": "x?", "answers": ["\\ud800"]}'
    datasets.lines(table, [bad, bad.replace("x?", "\\udfff"), *table.read_text("utf-8").splitlines()])
    assert evaluate(table) == 0
    out = capsys.readouterr().out
    assert out.startswith("jsonl, questions.jsonl: 5 items; 3 left out as damaged or missing\n")
    assert r"questions.jsonl, line 1: 'answers' holds '\ud800', half of a character; write the whole one" in out
    assert r"questions.jsonl, line 2: 'question' holds '\udfff', half" in out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_folders_may_have_any_name(table: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    table.parent.rename(folder)
    moved = (folder / table.name).rename(folder / os.fsdecode(b"\xfe.jsonl"))
    for options in ([], ["--json"]):
        assert evaluate(moved, "-o", str(folder / "kept.ndjson"), *options) == 0
        out, err = capfdbinary.readouterr()
        assert (err, rb"\xff/kept.html" in out, rb"\xfe.jsonl" in out) == (b"", True, True)
    document = json.loads(out)
    assert document["tables"] == [str(tmp_path / r"\xff" / r"\xfe.jsonl")]
    lines = [json.loads(line) for line in (folder / "kept.ndjson").read_text("utf-8").splitlines()]
    assert lines[1]["id"] == r"\xfe.jsonl, line 1"
    assert (folder / "kept.html").read_text("utf-8").startswith("<!doctype html>")


def test_nothing_to_ask_is_an_error(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for picture in table.parent.glob("*.png"):
        picture.write_bytes(b"")
    assert evaluate(table) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "holds nothing that can be asked (3 problems, the first: questions.jsonl, line 2: its picture " in err
    assert not Path("eval-jsonl.html").exists()


def test_progress_without_a_terminal_is_a_line_now_and_then(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevl.cli.eval._LINE_EVERY_S", 0.0)
    assert evaluate(table) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1/2 edgevl-tiny")
    assert second.startswith("2/2 edgevl-tiny")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--task", "fishing"], 2, "'fishing' must be one of blindtest, chartqa, docvqa"),
        (["--limit", "0"], 2, "--limit"),
        (["-o", "no/such/folder.ndjson"], 2, "no such folder to write to"),
        (["-o", ""], 2, "the name is empty; give a file"),
        (["-o", "a.html"], 2, "a.html: is where wrong answers are shown; give another ending"),
        (["--data", "nowhere"], 1, "error: nowhere: no such folder; give the one that holds the data set with --data"),
        (["--against", MODEL], 1, "is the same model as"),
        (["--against", "no-such-model"], 1, "error: no-such-model: no model of this name"),
        (["--detail", "medium"], 2, "detail is 'medium'; it must be auto, high, low"),
        (["--detail", "0"], 2, "a number of tiles from 1 to 999999999"),
        (["--threads", "0"], 2, "threads is 0; it must be a whole number from 1 to"),
        (["--threads", "9" * 20], 2, "it must be a whole number from 1 to"),
    ],
)
def test_mistakes(options: list[str], code: int, words: str, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(table, *options) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert code == 2 or err.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--detail", "medium"), ("--threads", "9" * 20)])
def test_a_wrong_value_is_found_before_anything_is_opened(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "no-such-model", "--task", "jsonl", "--data", "nowhere", option, value]) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


def test_help_lists_the_data_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for task in tasks.TASKS.values():
        assert f"{task.name} {task.about}" in out


def test_ctrl_c_before_the_first_answer_promises_none(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgevl.eval.run.evaluate", interrupt)
    assert evaluate(table) == 130
    assert capsys.readouterr().err == "\n"


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX")
def test_ctrl_c_says_where_the_answers_are(table: Path) -> None:
    row = json.loads(table.read_text("utf-8").splitlines()[0])
    datasets.lines(table, [{**row, "question": f"what's here? {number}"} for number in range(3000)])
    command = [*EDGEVL, "eval", MODEL, "--task", "jsonl", "--data", str(table), "--detail", "low"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c) as process:
        kept = Path("eval-jsonl.ndjson")
        while not (kept.exists() and kept.read_bytes().count(b"\n") > 3):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert out == b""
    assert err.split(b"\n")[0] == (
        b"note: the answers so far are in eval-jsonl.ndjson; the same command goes on from there"
    )
    assert b"Traceback" not in err
    lines = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert 3 < len(lines) < 3000
