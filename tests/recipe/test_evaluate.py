"""Measures of the accuracy table, against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevl.recipe import evaluate


def test_wilson_interval() -> None:
    low, high = evaluate.wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert evaluate.wilson(0, 10)[0] == pytest.approx(0.0)
    assert evaluate.wilson(10, 10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("given", "expected", "equal"),
    [
        ("Red", "red", True),
        (" a red circle. ", "a red circle", True),
        ("3", "3.", True),
        ("a red circle", "red", False),
    ],
)
def test_what_counts_as_equal(given: str, expected: str, equal: bool) -> None:
    assert (evaluate.plain(given) == evaluate.plain(expected)) is equal


def test_the_table_goes_between_the_markers(tmp_path: Path) -> None:
    row = {
        "n": 10,
        "accuracy": 0.8,
        "interval": [0.49, 0.943],
        "baseline": 0.1,
        "baseline_answer": "red",
        "answers": [],
    }
    text = evaluate.table({"yes_no": row}, {"yes_no": {**row, "accuracy": 0.9}})
    assert text.splitlines()[-1] == "| yes no | 10 | 80.0% | 49.0% to 94.3% | 90.0% | 10.0% |"
    figures = evaluate.summary({"yes_no": row}, {"yes_no": {**row, "accuracy": 0.9}})["yes_no"]
    assert (figures["accuracy"], figures["fp32"], "answers" in figures) == (0.8, 0.9, False)
    card = tmp_path / "README.md"
    card.write_text(f"before\n{evaluate.BEGIN}\nold\n{evaluate.END}\nafter\n")
    evaluate.write_card(card, text)
    assert card.read_text() == f"before\n{evaluate.BEGIN}\n{text}\n{evaluate.END}\nafter\n"
    card.write_text("nothing here")
    with pytest.raises(ValueError, match="has no lines"):
        evaluate.write_card(card, text)
