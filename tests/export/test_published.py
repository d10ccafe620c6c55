"""Folders in the layout of transformers.js become model folders as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import edgevl
from edgevl.errors import ExportError, GraphError
from edgevl.export import published
from edgevl.export.published import SUFFIXES, describe, find
from edgevl.model import manifest

STEMS = ("vision_encoder", "embed_tokens", "decoder_model_merged")


def names(*precisions: str) -> list[str]:
    """Return the names of all three graphs in these precisions."""
    return [f"onnx/{stem}{SUFFIXES[precision]}.onnx" for stem in STEMS for precision in precisions]


class TestFind:
    def test_the_best_precision_that_is_there(self) -> None:
        found = find(names(*SUFFIXES))
        assert found is not None
        assert [part.precision for part in (found.vision, found.embeddings, found.decoder)] == ["q4", "fp16", "q4"]
        found = find(names("fp32", "q8"))
        assert found is not None
        assert [part.precision for part in (found.vision, found.embeddings, found.decoder)] == ["q8", "fp32", "q8"]

    def test_a_wanted_precision(self) -> None:
        found = find(names("fp16", "q4", "q8"), vision="q8", decoder="fp16")
        assert found is not None
        assert found.vision.file == "onnx/vision_encoder_quantized.onnx"
        assert found.decoder.file == "onnx/decoder_model_merged_fp16.onnx"

    def test_a_wanted_precision_that_is_not_there(self) -> None:
        with pytest.raises(ExportError) as caught:
            find(names("fp16", "q4"), vision="fp32")
        assert str(caught.value) == ("onnx/vision_encoder: is not there in the precision fp32; choose one of q4, fp16")

    @pytest.mark.parametrize("stem", STEMS)
    def test_without_one_graph_it_is_another_layout(self, stem: str) -> None:
        assert find([name for name in names("fp32") if stem not in name]) is None
        assert find(["model.safetensors", "config.json"], vision="q4") is None

    def test_weights_lie_beside_their_own_graph(self) -> None:
        there = [*names("q4", "q4f16"), *(f"{name}_data" for name in names("q4f16")), f"{names('q4')[2]}_data_1"]
        found = find(there)
        assert found is not None
        assert found.files(there) == [
            "onnx/decoder_model_merged_q4.onnx",
            "onnx/decoder_model_merged_q4.onnx_data_1",
            "onnx/embed_tokens_q4.onnx",
            "onnx/vision_encoder_q4.onnx",
        ]


@pytest.fixture
def layout(smolvlm_layout: Path, tmp_path: Path) -> Path:
    """A layout that may be written to."""
    return Path(shutil.copytree(smolvlm_layout, tmp_path / "model"))


def test_what_is_written(smolvlm_merged_dir: Path, smolvlm_checkpoint: Path) -> None:
    spec = manifest.read(smolvlm_merged_dir)
    manifest.check_hashes(spec, smolvlm_merged_dir)
    assert (spec.name, spec.family, spec.vision.precision) == ("smolvlm", "idefics3", "fp32")
    assert list(spec.vision.inputs) == ["pixel_values", "pixel_attention_mask"]
    assert spec.vision.inputs["pixel_values"].shape == (1, "num_images", 3, 64, 64)
    text = json.loads((smolvlm_checkpoint / "config.json").read_text())["text_config"]
    decoder = spec.decoder
    assert (decoder.kind, decoder.precision, decoder.n_layers) == ("merged", "fp32", text["num_hidden_layers"])
    assert (decoder.n_kv_heads, decoder.head_dim) == (text["num_key_value_heads"], text["head_dim"])
    assert (decoder.hidden_size, decoder.vocab_size) == (text["hidden_size"], text["vocab_size"])
    assert sorted(spec.files) == [
        "chat_template.jinja",
        "embeddings.npy",
        "onnx/decoder_model_merged.onnx",
        "onnx/decoder_model_merged.onnx_data",
        "onnx/vision_encoder.onnx",
        "tokenizer.json",
    ]


def test_the_table_holds_the_checkpoints_rows(smolvlm_merged_dir: Path, smolvlm_checkpoint: Path) -> None:
    weights = load_file(smolvlm_checkpoint / "model.safetensors")
    [rows] = [weights[name] for name in weights if name.endswith("embed_tokens.weight")]
    np.testing.assert_array_equal(np.load(smolvlm_merged_dir / "embeddings.npy"), rows)


def test_half_precision_embeddings_stay_so(layout: Path) -> None:
    path = layout / "onnx" / "embed_tokens.onnx"
    path.rename(path.with_name("embed_tokens_fp16.onnx"))
    spec = describe(layout, name="half", origin="somebody/half")
    assert spec.embeddings is not None
    assert spec.embeddings.dtype == "float16"
    assert np.load(layout / "embeddings.npy").dtype == np.float16
    assert (spec.name, spec.source.checkpoint) == ("half", "somebody/half")


def test_it_answers_without_pytorch(smolvlm_merged_dir: Path) -> None:
    code = (
        "import sys, numpy, edgevl\n"
        "vlm = edgevl.load(sys.argv[1], store=False)\n"
        "print(vlm.ask(numpy.zeros((80, 90, 3), 'uint8'), 'what?', max_tokens=4).token_ids)\n"
        "print({'torch', 'transformers', 'onnx'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(smolvlm_merged_dir)], capture_output=True, text=True)
    assert done.stderr == ""
    with edgevl.load(smolvlm_merged_dir, store=False) as vlm:
        answer = vlm.ask(np.zeros((80, 90, 3), np.uint8), "what?", max_tokens=4)
    assert done.stdout.splitlines() == [str(answer.token_ids), "set()"]


def test_it_is_described_without_pytorch(layout: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from edgevl.export import published\n"
        "published.describe(pathlib.Path(sys.argv[1]))\n"
        "print({'torch', 'transformers', 'onnx'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(layout)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_one_that_is_described_stays_as_it_is(smolvlm_merged_dir: Path) -> None:
    before = (smolvlm_merged_dir / manifest.FILE_NAME).read_bytes()
    with pytest.raises(ExportError, match=r"has an edgevl\.json, so it can be used; remove that and emb"):
        describe(smolvlm_merged_dir)
    assert (smolvlm_merged_dir / manifest.FILE_NAME).read_bytes() == before


def test_another_folder_is_told_what_it_lacks(smolvlm_checkpoint: Path) -> None:
    with pytest.raises(ExportError) as caught:
        describe(smolvlm_checkpoint)
    assert str(caught.value) == (
        f"{smolvlm_checkpoint}: holds no onnx/vision_encoder*.onnx, embed_tokens*.onnx and decoder_model_merged*.onnx; "
        "turn a checkpoint into a model with: edgevl export"
    )


def files(folder: Path) -> dict[str, bytes]:
    """Return what a folder holds, by path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def swap(first: str, second: str) -> Callable[[Path], object]:
    """Return what puts the graph `second` in the place of `first`."""
    return lambda folder: shutil.copyfile(folder / "onnx" / f"{second}.onnx", folder / "onnx" / f"{first}.onnx")


def change_tokens_per_tile(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale_factor": 2}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (swap("vision_encoder", "embed_tokens"), GraphError, "expected inputs"),
        (swap("embed_tokens", "vision_encoder"), GraphError, "expected inputs"),
        (swap("decoder_model_merged", "embed_tokens"), ExportError, "is no decoder with a KV cache"),
        (lambda folder: (folder / "onnx" / "vision_encoder.onnx").write_bytes(b"x" * 99), GraphError, "cannot load it"),
        (change_tokens_per_tile, ExportError, r"gives features \[4, 64\] of a tile, .* want \[16, 64\]; the files are"),
        (lambda folder: (folder / "tokenizer.json").unlink(), ExportError, r"tokenizer\.json: is missing"),
    ],
)
def test_what_does_not_fit_leaves_no_model(
    layout: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    damage(layout)
    before = files(layout)
    with pytest.raises(error, match=message) as caught:
        describe(layout)
    assert "\n" not in str(caught.value)
    assert not (layout / manifest.FILE_NAME).exists()
    assert not (layout / "embeddings.npy").exists()
    assert files(layout) == before


def test_a_chat_template_that_was_there_stays(layout: Path) -> None:
    (layout / "chat_template.jinja").write_text("{{ messages[0].content }}")
    change_tokens_per_tile(layout)
    before = files(layout)
    with pytest.raises(ExportError, match="the files are not of one model"):
        describe(layout)
    assert files(layout) == before


def test_a_table_that_was_there_stays(layout: Path) -> None:
    (layout / "embeddings.npy").write_bytes(b"somebody's work")
    before = files(layout)
    with pytest.raises(ExportError) as caught:
        describe(layout)
    assert str(caught.value) == (
        f"{layout / 'embeddings.npy'}: would be written, but is there, and no edgevl.json says of what model; "
        "move or remove it"
    )
    assert files(layout) == before


def test_what_a_killed_run_left_is_in_nobodys_way(layout: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from edgevl.export import published\n"
        "published._file_spec = lambda path: os._exit(9)\n"  # the table is written by then
        "published.describe(pathlib.Path(sys.argv[1]))\n"
    )
    before = files(layout).keys()
    assert subprocess.run([sys.executable, "-c", code, str(layout)]).returncode == 9
    assert len(files(layout)) > len(before)
    describe(layout)
    assert files(layout).keys() - before == {"chat_template.jinja", "edgevl.json", "embeddings.npy"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_disk_that_fills_up_is_said_and_leaves_nothing(layout: Path) -> None:
    import resource

    before, limits = files(layout), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # half of the table
    try:
        with pytest.raises(ExportError, match=r"cannot be read and written \(File too large\); see to its disk"):
            describe(layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(layout) == before


def test_every_precision_has_a_place_in_the_embeddings_order() -> None:
    assert set(published.EMBEDDINGS_FIRST) == set(SUFFIXES)
