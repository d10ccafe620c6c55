"""`edgevl models` and questions to a folder whose decoder is llama.cpp's, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgevl.cli import run

SHAPES = str(Path(__file__).parents[2] / "models" / "samples" / "shapes.png")


@pytest.fixture
def models_dir(bundled_gguf_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, with one whose decoder is a GGUF file."""
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path))
    (tmp_path / "mixed").symlink_to(bundled_gguf_dir, target_is_directory=True)
    return tmp_path


@pytest.mark.usefixtures("models_dir")
def test_models_tells_which_decoder_each_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert "vision int8, decoder gguf f16" in out
    assert "vision int8, decoder int8" in out
    assert run(["models", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["here"]
    assert [entry["precision"] for entry in here] == ["vision int8, decoder gguf f16", "vision int8, decoder int8"]


@pytest.mark.usefixtures("models_dir")
def test_the_same_question_to_both(capfd: pytest.CaptureFixture[str]) -> None:
    answers = []
    for model in ([], ["-m", "mixed"]):
        assert run(["ask", SHAPES, "what's here?", *model]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        answers.append(out)
    assert "red circle" in answers[1]
    assert answers[0].split()[:3] == answers[1].split()[:3]


@pytest.mark.usefixtures("models_dir")
def test_verify(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "mixed"]) == 0
    out, err = capfd.readouterr()
    assert "every checksum right" in out
    assert "100% of the answer's tokens equal" in out
    assert err == ""
