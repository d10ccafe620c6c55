"""`edgevl models` and questions to a folder whose decoder is llama.cpp's, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import edgevl.export
from edgevl.cli import run
from edgevl.errors import DownloadError

BUNDLED = Path(__file__).parents[2] / "models" / "edgevl-tiny"
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


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("image", "std", [int("9" * 400)] * 3),
        ("files", "tokenizer.json", {"n_bytes": int("9" * 400), "sha256": "0"}),
        ("vision", "precision", "\ud800"),
    ],
)
def test_a_folder_whose_values_no_model_has_is_listed_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    section: str,
    key: str,
    value: Any,
) -> None:
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path))
    raw = json.loads((BUNDLED / "edgevl.json").read_text(encoding="utf-8"))
    raw[section][key] = value
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "edgevl.json").write_text(json.dumps(raw), encoding="utf-8")
    assert run(["models"]) == 0
    assert f"damaged: {tmp_path / 'odd' / 'edgevl.json'}: {section}.{key}" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(DownloadError("no network"), 1), (KeyboardInterrupt(), 130)])
@pytest.mark.parametrize(
    "command", [["pull", "x"], ["export", "x", "-o", "y"], ["import", "a.gguf", "b.gguf", "-o", "y"]]
)
def test_progress_leaves_no_half_line_before_what_went_wrong(
    command: list[str],
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, progress: Callable[[str, float], None], **settings: Any) -> NoReturn:
        progress("weights", 0.34)
        raise error

    for name in ("pull_model", "export_model", "import_gguf"):
        monkeypatch.setattr(edgevl.export, name, fail)
    for is_terminal, expected in ((True, "\r\033[Kweights 34%\r\033[K"), (False, "weights\n")):
        monkeypatch.setattr("sys.stderr.isatty", lambda is_terminal=is_terminal: is_terminal)
        assert run(command) == code
        said = capsys.readouterr().err
        assert said.startswith(expected)
        note = "note: what has arrived is kept; the same command goes on from there\n" if command[0] == "pull" else ""
        assert said.removeprefix(expected) == ("error: no network\n" if code == 1 else f"{note}\n")
