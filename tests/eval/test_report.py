"""The report in words, as JSON and as a page of wrong answers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgevl.errors import InputError
from edgevl.eval import page, report, run
from edgevl.eval.figures import Answered, compare_by_category
from edgevl.eval.item import Image, Item, Problem
from edgevl.eval.run import Evaluation
from edgevl.eval.stats import difference, mean_interval
from tests.eval import datasets
from tests.eval.test_run import questions, settings

Answers = Mapping[tuple[str, str], str]
N = 5


@pytest.fixture(scope="module")
def alone(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The bundled model, right on three of five questions."""
    folder = tmp_path_factory.mktemp("alone")
    return run.evaluate(settings(questions(folder, answers, 3), folder))


@pytest.fixture(scope="module")
def pair(alone: Evaluation) -> Evaluation:
    """The same beside another precision of it that gives one other answer, which is wrong."""
    [first] = alone.outcomes
    worse = [replace(first.answers[0], text="<b>nothing</b>", score=0.0), *first.answers[1:]]
    other = replace(first.run, precision="vision fp32, decoder fp32", model_id="ab" * 32)
    second = run._outcome(alone.dataset, other, worse)
    scores = [[unit.score for unit in outcome.units] for outcome in (first, second)]
    compared = difference(scores[0], scores[1], range(N))
    parts = compare_by_category(first.units, second.units)
    return replace(alone, outcomes=[first, second], difference=compared, differences=parts)


def test_the_text_has_every_figure_with_its_interval(alone: Evaluation) -> None:
    text = report.text(alone)
    assert text.startswith("jsonl, questions.jsonl: 5 items\n\n")
    name = alone.outcomes[0].run.model
    assert re.search(rf"^ +asked +{name} +one answer to all$", text, re.MULTILINE)
    assert re.search(r"^score +5 +60\.0% \(\d+\.\d% to \d+\.\d%\) +40\.0% \(something else\)$", text, re.MULTILINE)
    assert re.search(r"^category: counting +2 +50\.0% \(", text, re.MULTILINE)
    assert "damaged" not in text


def test_two_models_of_one_name_are_told_apart(pair: Evaluation) -> None:
    name = pair.outcomes[0].run.model
    first, second = report.labels(pair)
    assert second == f"{name} (vision fp32, decoder fp32)"
    assert first != second
    same = replace(pair.outcomes[0].run, model_id="cd" * 32)
    twins = replace(pair, outcomes=[pair.outcomes[0], replace(pair.outcomes[0], run=same)])
    assert report.labels(twins)[1] == f"{name} (cdcdcdcd)"


def test_the_difference_is_a_sentence(pair: Evaluation) -> None:
    first, second = report.labels(pair)
    [line] = [line for line in report.text(pair).splitlines() if "minus" in line]
    assert line.startswith(f"{first} minus {second}: +20.0 points (95 %: -")
    assert line.endswith(
        "on the same 5; 1 better with the first, 0 with the second, McNemar p = 1: no difference is shown"
    )


def test_every_category_has_its_difference(pair: Evaluation, alone: Evaluation) -> None:
    first, second = report.labels(pair)
    head, score, description, shape, _ = report.rows(pair)
    assert head == ["", "asked", first, second, "difference, points", "one answer to all"]
    assert re.fullmatch(r"\+20\.0 \(-\d+\.\d to \+\d+\.\d\)", score[4])
    assert (description[0], description[4].partition(" (")[0]) == ("category: description", "+50.0")
    assert (shape[0], shape[4].partition(" (")[0]) == ("category: shape", "+0.0")
    assert "difference, points" not in report.rows(alone)[0]
    found = report.document(pair)["differences"]
    assert [(one["kind"], one["category"], one["n"], one["value"]) for one in found] == [
        ("category", "description", 2, 0.5),
        ("category", "shape", 1, 0.0),
        ("category", "counting", 2, 0.0),
    ]
    assert report.document(alone)["differences"] == []


def test_the_headline_counts_what_is_left_out(alone: Evaluation) -> None:
    problem = Problem("row 7", "is damaged")
    items = alone.dataset.items
    listed = replace(alone, dataset=replace(alone.dataset, problems=[problem]), problems=[problem])
    assert report.headline(listed) == "jsonl, questions.jsonl: 6 items; 1 left out as damaged or missing"
    some = replace(listed, chosen=items[:2], problems=[problem, Problem(items[0].id, "is cut off")])
    assert report.headline(some) == (
        "jsonl, questions.jsonl: 2 of 6 items, spread evenly; 2 left out as damaged or missing"
    )
    assert report.document(some)["n_rows"] == 6
    assert len(report.document(some)["problems"]) == 2


def test_what_must_be_known_is_said(alone: Evaluation) -> None:
    cut = replace(alone.outcomes[0].answers[0], finish_reason="length")
    item = Item("8", ("what?",), ("true",), "true_false")
    answers = [cut, Answered(item, "perhaps", 0.0), Answered(item, "", 0.0, refused="the prompt is too long")]
    outcome = replace(alone.outcomes[0], answers=answers)
    problems = [Problem(f"row {number}", "is damaged") for number in range(12)]
    text = report.text(replace(alone, outcomes=[outcome], problems=problems))
    name = outcome.run.model
    assert f"{name}: 1 answers were cut after 256 tokens" in text
    assert f"{name}: 2 answers name none of the choices" in text
    assert (
        f"{name}: 1 items could not be asked of this model and count as wrong; the first is 8: the prompt is too long"
        in text
    )
    assert text.startswith("jsonl, questions.jsonl: 5 items; 12 left out as damaged or missing\n")
    assert text.endswith("  row 9: is damaged\n  and 2 more, which --json names")
    assert "12 damaged or missing, left out:\n  row 0: is damaged\n" in text


def test_the_document_has_all_of_it(pair: Evaluation) -> None:
    found = json.loads(json.dumps(report.document(replace(pair, problems=[Problem("row 1", "is damaged")]))))
    assert (found["task"], found["n_items"], found["n_chosen"]) == ("jsonl", N, N)
    assert found["data_id"] == pair.data_id
    first, second = found["models"]
    assert first["figures"][0]["value"] == 0.6
    assert second["figures"][0]["value"] == 0.4
    assert first["categories"]["category"][0]["title"] == "description"
    assert (first["model_id"], first["machine"]["cpu"]) == (
        pair.outcomes[0].run.model_id,
        pair.outcomes[0].run.machine.cpu,
    )
    assert found["difference"]["value"] == pytest.approx(0.2)
    assert found["difference"]["is_shown"] is False
    assert found["problems"] == [{"where": "row 1", "what": "is damaged"}]
    assert found["constants"][0] == {"kind": "", "category": "", "answer": "something else", "value": 0.4}


def test_a_mean_over_tasks_has_its_line(tmp_path: Path) -> None:
    found = run.evaluate(settings(datasets.blindtest(tmp_path), tmp_path, task="blindtest"))
    assert re.search(r"^mean over tasks +3 +\d+\.\d% \(\d+\.\d% to \d+\.\d%\)$", report.text(found), re.MULTILINE)
    macro = found.outcomes[0].macro
    assert macro is not None
    assert report.document(found)["models"][0]["macro"] == asdict(macro)
    parts = [(one.value, one.low, one.high) for one in found.outcomes[0].categories["task"]]
    assert (macro.value, macro.low, macro.high) == (sum(value for value, _, _ in parts) / 3, *mean_interval(parts))


def test_the_error_rate_of_all_text_has_its_line(alone: Evaluation) -> None:
    item = Item("1", ("what?",), ("hello",), "characters")
    answers = [Answered(item, "hello, hello, hello", 0.0), Answered(replace(item, id="2"), "hallo", 0.8)]
    outcome = run._outcome(alone.dataset, alone.outcomes[0].run, answers)
    found = replace(alone, outcomes=[outcome])
    assert re.search(r"^character error rate of all text +2 +150\.0%$", report.text(found), re.MULTILINE)
    assert report.document(found)["models"][0]["character_error_rate"] == 1.5
    assert "error rate" not in report.text(alone)


class Checker(HTMLParser):
    """Notes every tag with its attributes, and that tags are closed in their order."""

    VOID = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(found: Evaluation) -> tuple[str, Checker]:
    html, checker = page.page(found), Checker()
    checker.feed(html)
    assert checker.open == []
    assert {tag for tag, _ in checker.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "div", "img"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert all(
        (attrs["src"] or "").startswith("data:image/jpeg;base64,") for tag, attrs in checker.tags if tag == "img"
    )
    assert "url(" not in html
    assert "@import" not in html
    return html, checker


def test_the_page_shows_what_was_wrong_with_its_picture(alone: Evaluation) -> None:
    html, checker = checked(alone)
    assert "<h2>Wrong: 2</h2>" in html
    wrong = [answer for answer in alone.outcomes[0].answers if answer.score < 1]
    assert sum(tag == "img" for tag, _ in checker.tags) == 2
    for answer in wrong:
        assert f"<b>{answer.text}</b>" in html
    assert html.count("right: <b>something else</b>") == 2
    assert "<td>60.0%" in html


def test_the_page_says_what_was_left_out_and_what_answered(alone: Evaluation) -> None:
    problems = [Problem(f"row {number}", "is <damaged>") for number in range(page.MAX_SHOWN + 2)]
    [outcome] = alone.outcomes
    cut = replace(outcome, answers=[replace(outcome.answers[0], finish_reason="length"), *outcome.answers[1:]])
    html, _ = checked(replace(alone, outcomes=[cut], problems=problems))
    assert (
        f"<h2>Damaged or missing, left out: {page.MAX_SHOWN + 2}, {page.MAX_SHOWN} of them, spread evenly</h2>" in html
    )
    assert "<p>row 0: is &lt;damaged&gt;</p>" in html
    assert "1 answers were cut after 256 tokens" in html
    run_ = outcome.run
    for name, value in (
        ("model", run_.model),
        ("its files", run_.model_id),
        ("precision", run_.precision),
        ("settings", "detail low, threads by default"),
        ("data set", alone.data_id),
        ("processor", escape(run_.machine.cpu)),
    ):
        assert f"<tr><td>{name}</td><td>{value}</td></tr>" in html
    plain, _ = checked(alone)
    assert "left out" not in plain


def test_a_page_goes_over_no_other_file(alone: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    page.check(path)
    page.write(path, alone)
    page.check(path)
    path.write_text("")
    page.check(path)
    path.write_text("<!doctype html><title>My own</title>")
    with pytest.raises(InputError) as caught:
        page.check(path)
    assert str(caught.value) == (
        f"{path}: is no page of edgevl eval, and wrong answers would be written over it; "
        "move it, or choose another --output"
    )
    (tmp_path / "b.html").mkdir()
    with pytest.raises(
        InputError, match=r"b\.html: is no file but a folder, a pipe or a device; choose another --output"
    ):
        page.check(tmp_path / "b.html")
    why = "Permission denied" if os.name == "nt" else "Is a directory"
    with pytest.raises(InputError, match=rf"b\.html: cannot be written \({why}\); choose another --output"):
        page.write(tmp_path / "b.html", alone)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match=r"c\.html: cannot be written \(permission denied\); choose another --output"):
        page.check(tmp_path / "c.html")


def test_the_page_of_two_models_begins_with_where_they_differ(pair: Evaluation) -> None:
    html, _ = checked(pair)
    first, second = report.labels(pair)
    heads = re.findall("<h2>(.*?)</h2>", html)
    assert heads == [f"Better with {first}: 1", f"Better with {second}: 0", "Wrong with both: 2", "What answered"]
    assert "&lt;b&gt;nothing&lt;/b&gt;" in html
    assert "points (95 %:" in html


def test_a_page_has_its_limits(alone: Evaluation, tmp_path: Path) -> None:
    def gone() -> Path:
        return tmp_path / "gone.png"

    good = Image("good", lambda: datasets.WORD)
    item = Item("1", (Image("gone", gone), *[good] * 9, "<what>?"), ("a",), "exact")
    answers = [Answered(item, "b", 0.0, refused="too <long>")] + [Answered(item, "b", 0.0)] * page.MAX_SHOWN
    outcome = replace(alone.outcomes[0], answers=answers)
    found = replace(alone, outcomes=[outcome])
    assert f"<h2>Wrong: {page.MAX_SHOWN + 1}, {page.MAX_SHOWN} of them, spread evenly</h2>" in _few(found)
    html, checker = checked(replace(found, outcomes=[replace(outcome, answers=answers[:1])]))
    assert sum(tag == "img" for tag, _ in checker.tags) == page.MAX_PICTURES - 1
    assert "<p>and 2 more</p>" in html
    assert "no such file" in html
    assert "too &lt;long&gt;" in html
    assert "&lt;what&gt;?" in html


def _few(found: Evaluation) -> str:
    """Return the page of as many answers without their pictures."""
    plain = replace(found.outcomes[0].answers[0].item, prompt=("what?",))
    answers = [replace(answer, item=plain) for answer in found.outcomes[0].answers]
    return page.page(replace(found, outcomes=[replace(found.outcomes[0], answers=answers)]))
