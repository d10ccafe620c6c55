"""The accuracy table that the bundled model's card publishes: what the model must be able to do, and in int8 too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgevl.export import checkpoint
from edgevl.model import manifest
from edgevl.recipe import packs
from edgevl.recipe.datasets import FORMS
from edgevl.recipe.heldout import TASKS

_PATH = Path(__file__).parents[2] / "models" / "edgevl-tiny" / "accuracy.json"
_ROWS: dict[str, dict[str, Any]] = json.loads(_PATH.read_text(encoding="utf-8"))
_LOWEST = {"naming": 0.92, "counting": 0.75, "relations": 0.75, "yes_no": 0.85, "satellite": 0.75, "flowers": 0.50}
_ROUNDING = 1e-9


def test_the_table_has_every_task_and_every_form_of_questions() -> None:
    assert set(_ROWS) == {*TASKS, *FORMS}


@pytest.mark.parametrize("task", _LOWEST)
def test_a_gate_is_met_on_enough_examples(task: str) -> None:
    row = _ROWS[task]
    assert row["n"] >= 500
    assert row["accuracy"] >= _LOWEST[task]


@pytest.mark.parametrize("task", [task for task, row in _ROWS.items() if "fp32" in row])
def test_quantized_is_within_a_point_of_fp32(task: str) -> None:
    assert abs(_ROWS[task]["accuracy"] - _ROWS[task]["fp32"]) <= 0.01 + _ROUNDING


def test_what_is_shipped_is_the_checkpoint_beside_it_under_its_licence() -> None:
    source, exported = manifest.read(_PATH.parent).source, checkpoint.read(_PATH.with_name("checkpoint"))
    assert source.licence == exported.licence == "apache-2.0"
    assert source.sha256 == exported.weights_sha256()


def test_every_pack_that_it_learned_from_is_named_with_its_licence() -> None:
    card = _PATH.with_name("README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in card.split("## Data and attributions")[1].splitlines() if "|" in line]
    named = {name.strip(): [cell.strip() for cell in rest] for name, *rest in rows[2:]}
    assert sorted(named) == sorted((*packs.PACKS, *packs.OTHERS))
    assert all(len(rest) == 3 and all(rest) for rest in named.values())
