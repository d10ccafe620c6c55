"""`edgevl import` of what is on the disk in other forms than two files: Ollama's models, and folders of graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgevl.cli import run
from edgevl.export.samples import drawn
from edgevl.image.read import save_png
from edgevl.model import manifest
from tests.mixed import LLAMA_MISSING

SHAPES = str(Path(__file__).parents[2] / "models" / "samples" / "shapes.png")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, and a home where no program has anything."""
    for name in ("LLAMA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def test_a_model_of_ollamas_is_used_in_place(
    models: Path, tmp_path: Path, smolvlm_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llama_cpp", reason=LLAMA_MISSING)
    from tests.pairs import written

    files = written(tmp_path, smolvlm_checkpoint)
    layers = []
    (tmp_path / "ollama" / "blobs").mkdir(parents=True)
    for path, kind in ((files.decoder, "model"), (files.mmproj, "projector")):
        digest = manifest.sha256(path)
        path.rename(tmp_path / "ollama" / "blobs" / f"sha256-{digest}")
        layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    listed = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "small" / "f16"
    listed.parent.mkdir(parents=True)
    listed.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))

    assert run(["models", "--found"]) == 0
    [row] = capsys.readouterr().out.splitlines()
    assert row.split()[0] == "Ollama"
    assert row.endswith("  edgevl import ollama:small:f16")
    save_png(drawn((64, 64), seed=0), tmp_path / "sample.png")
    assert run(["import", "ollama:small:f16", "--vision", "fp32", "--sample", str(tmp_path / "sample.png")]) == 0
    assert capsys.readouterr().out.startswith(f"{models / 'small-f16'}: small-f16, ")
    blob = tmp_path / "ollama" / "blobs" / layers[0]["digest"].replace(":", "-")
    assert (models / "small-f16" / "decoder.gguf").samefile(blob), "without a copy"
    assert run(["ask", SHAPES, "what's here?", "-m", "small-f16", "--max-tokens", "4"]) == 0


def test_a_folder_of_graphs_stays_where_it_is(
    models: Path, tmp_path: Path, smolvlm_layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "graphs"
    shutil.copytree(smolvlm_layout, folder)
    assert run(["import", str(folder), "--name", "mine", "--decoder", "fp32"]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: mine, ")
    assert run(["ask", SHAPES, "what's here?", "-m", str(folder), "--max-tokens", "4"]) == 0
    assert run(["import", str(folder)]) == 1
    assert "has an edgevl.json, so it can be used" in capsys.readouterr().err


def test_nothing_is_found(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--found"]) == 0
    told = "Neither Ollama nor LM Studio nor llama.cpp has a model with an mmproj file here.\n"
    assert capsys.readouterr().out == told
    assert run(["models", "--found", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"found": []}


def test_lm_studios_files_are_listed_with_what_imports_them(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".lmstudio" / "models" / "some one" / "small"
    folder.mkdir(parents=True)
    for name in ("small-Q4_0.gguf", "mmproj-small-f16.gguf"):
        (folder / name).write_bytes(b"x" * 500_000)
    assert run(["models", "--found", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["found"]
    assert (row["program"], row["n_bytes"]) == ("LM Studio", 1_000_000)
    assert row["import"] == (
        f"edgevl import '{folder / 'small-Q4_0.gguf'}' '{folder / 'mmproj-small-f16.gguf'}' -o small-Q4_0"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ollama:none"], 1, "error: ollama:none: Ollama has no model of this name"),
        (["nowhere"], 1, "error: nowhere: holds no onnx/vision_encoder*.onnx"),
        ([], 2, "Missing argument"),
        (["a.gguf"], 2, "give the two files, MODEL.gguf MMPROJ.gguf"),
        (["a.gguf", "b.gguf"], 2, "give the folder to write with -o"),
        (["a.gguf", "b.gguf", "c.gguf", "-o", "x"], 2, "give the two files, MODEL.gguf MMPROJ.gguf"),
        (["nowhere", "-o", "x"], 2, "a FOLDER stays where it is"),
        (["nowhere", "--force"], 2, "a FOLDER stays where it is"),
    ],
)
def test_what_cannot_be_imported(
    models: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(["import", *arguments]) == code
    assert message in capsys.readouterr().err


def test_of_two_files_the_decoder_has_the_precision_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "a.gguf", "b.gguf", "-o", "out", "--decoder", "q4"]) == 2
    assert "--decoder chooses among those of a FOLDER" in capsys.readouterr().err
