"""Curves of training logs: what is in which panel, and runs laid over one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgevl.recipe import curves


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def line(step: int, kind: str = "held_out", stage: str = "whole", **values: float) -> dict[str, Any]:
    return {"stage": stage, "kind": kind, "step": step, "pictures": 16 * step, "seconds": 1.0, **values}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with a step that was run twice and one of another stage."""
    lines = [
        line(0, kind="begin", steps=20, seed=1),
        line(10, stage="encoder", colours=0.9),
        line(10, kind="training", loss=3.0),
        line(10, colours=0.2, shapes=0.4, flowers=0.1),
        line(20, colours=0.9, shapes=0.9, flowers=0.9),
        line(20, kind="training", loss=2.0),
        line(20, colours=0.4, shapes=0.8, flowers=0.3, something_else=0.5),
    ]
    return write(tmp_path / "log.jsonl", lines)


def test_one_run_has_a_curve_a_task_in_its_group(log: Path) -> None:
    assert curves.panels({"tiny": curves.read(log)}) == {
        "scenes": {"colours": [(160, 20), (320, 40)], "shapes": [(160, 40), (320, 80)]},
        "photos": {"flowers": [(160, 10), (320, 30)]},
        "others": {"something else": [(320, 50)]},
    }


def test_stages_that_ask_follow_one_another(tmp_path: Path) -> None:
    lines = [
        line(10, stage="decoder", colours=0.2),
        line(20, stage="decoder", kind="training", loss=3.0),
        line(5, stage="whole", colours=0.4),
        line(10, stage="whole", kind="training", loss=2.0),
    ]
    run = curves.read(write(tmp_path / "log.jsonl", lines))
    assert [row["pictures"] for row in run["held_out"]] == [160, 320 + 80]
    assert [row["pictures"] for row in run["training"]] == [320, 480]


def test_several_runs_have_a_curve_each_of_what_they_share(log: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [line(5, colours=0.6, shapes=0.8, counting=0.1)])
    found = curves.panels({"small": curves.read(log), "large": curves.read(other)})
    assert list(found) == ["scenes"]
    [(seen, value)] = found["scenes"]["large"]
    assert (seen, value) == (80, pytest.approx(70))
    assert [value for _, value in found["scenes"]["small"]] == pytest.approx([30, 60])


def test_the_figure_has_a_panel_a_group_and_the_loss(log: Path, tmp_path: Path) -> None:
    run = curves.read(log)
    runs = {"small": run, "large": run}
    figure = curves.draw(runs, curves.panels(runs))
    assert [panel.get_title() for panel in figure.axes] == [
        "scenes",
        "photos",
        "others",
        "loss per answer token (nats)",
    ]
    assert [one.get_label() for one in figure.axes[0].lines] == ["small", "large"]
    assert list(figure.axes[3].lines[0].get_ydata()) == [3.0, 2.0]
    figure.savefig(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1350, 612)


def test_runs_without_a_common_task_are_refused(log: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [line(5, counting=0.6)])
    runs = {"small": curves.read(log), "large": curves.read(other)}
    with pytest.raises(ValueError, match="no measure in common"):
        curves.draw(runs, curves.panels(runs))


def test_encoders_of_two_sizes_are_laid_over_one_another(tmp_path: Path) -> None:
    runs = {}
    for name, share in (("small", 0.2), ("large", 0.6)):
        lines = [
            line(100, kind="training", stage="encoder", shape=share, left_glyph=share / 2, flowers=0.5),
            line(200, kind="training", stage="encoder", shape=share + 0.1, left_glyph=share, flowers=0.5),
            line(300, kind="training", shape=0.9, loss=1.0),
        ]
        runs[name] = curves.read(write(tmp_path / f"{name}.jsonl", lines), ["encoder"])
    found = curves.dense(runs)
    assert list(found) == ["shape", "left glyph"]
    assert found["left glyph"]["large"] == [(1600, 30), (3200, 60)]
    figure = curves.draw(runs, found)
    assert [panel.get_title() for panel in figure.axes] == ["shape", "left glyph"]
    assert [one.get_label() for one in figure.axes[0].lines] == ["small", "large"]
