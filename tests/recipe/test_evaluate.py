"""The accuracy table and where it stands in the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevl.recipe import evaluate


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
