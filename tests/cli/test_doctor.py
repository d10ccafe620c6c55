"""`edgevl doctor` says what is here, what is missing with the command that adds it, and what was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevl import machine, placement
from edgevl.cli import run
from edgevl.engine import openvino
from edgevl.model import hub, manifest
from edgevl.store import kept


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))


def test_it_tells_machine_engines_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["processor"] == machine.describe().cpu
    assert found["engines"]["onnxruntime"] == machine.version("onnxruntime")
    assert found["model"]["name"] == "edgevl-tiny"
    assert found["model"]["vision"].startswith("onnxruntime ")
    if openvino.is_present():
        [(name, seconds)] = found["model"]["seconds_per_tile"].items()
        assert name == "onnxruntime"
        assert 0 < seconds < placement.QUICK_S


def test_what_is_missing_comes_with_the_command_that_adds_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(placement, "installed", lambda name: None if name == "openvino" else "1.2.3")
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "openvino:        not installed; to add it: pip install 'edgevl[openvino]'" in lines
    assert "llama.cpp:       1.2.3" in lines
    assert "decoder:         onnxruntime" in lines


@pytest.mark.skipif(not openvino.is_present(), reason="OpenVINO is not installed")
def test_the_choice_is_shown_with_its_times(capsys: pytest.CaptureFixture[str]) -> None:
    spec = manifest.read(hub.find(None))
    assert kept.write(placement.vision_key(spec, None), {"onnxruntime": 0.5, "openvino": 0.25})
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"openvino {openvino.version()} cpu; a tile on each: onnxruntime 0.500 s, openvino 0.250 s" in out
