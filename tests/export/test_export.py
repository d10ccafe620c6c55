"""Whole exports of a small random checkpoint, measured against PyTorch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevl.engine.graph import Graph
from edgevl.engine.openvino import ranges_path
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import BackendMissing, ExportError, ImageError, InputError
from edgevl.export import checkpoint, export_model, sensitivity
from edgevl.export.fidelity import Sample
from edgevl.export.samples import drawn
from edgevl.image.read import save_png
from edgevl.loaded import Loaded
from edgevl.model import manifest
from edgevl.types import ImagePart, Message, TextPart
from edgevl.verify import cosine, verify
from tests.checkpoints import make_smolvlm


@pytest.fixture(scope="module")
def reference(smolvlm_checkpoint: Path) -> Any:
    """The checkpoint in transformers."""
    from transformers import Idefics3ForConditionalGeneration

    return Idefics3ForConditionalGeneration.from_pretrained(smolvlm_checkpoint).eval()


@pytest.fixture(scope="module")
def quantized(smolvlm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 and int4 export, with a fidelity that plain int8 does not reach; measured on one given picture."""
    folder = tmp_path_factory.mktemp("quantized")
    save_png(drawn((64, 128), seed=7), folder / "sample.png")
    out = folder / "model"
    export_model(smolvlm_checkpoint, out, fidelity=0.9999, name="small", samples=[folder / "sample.png"])
    return out


def pixel_values(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)


def features(reference: Any, pixels: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Image features [4, hidden] as transformers computes them, whole model and all."""
    import torch

    with torch.no_grad():
        result = reference.get_image_features(torch.from_numpy(pixels)[None]).pooler_output[0]
    return np.asarray(result).reshape(-1, result.shape[-1])


def logits_of(model_dir: Path, token_ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits after each of `token_ids`, the first two fed together, the others one by one."""
    decoder = Loaded(model_dir, device="cpu", threads=1).decoder
    rows = []
    for chunk in (token_ids[:2], *([token_id] for token_id in token_ids[2:])):
        decoder.extend(np.array(chunk, np.int64))
        rows.append(decoder.logits())
    return np.stack(rows)


def test_fp32_features_equal_the_reference(reference: Any, smolvlm_model_dir: Path) -> None:
    encoder = VisionEncoder(Graph(smolvlm_model_dir / "vision.onnx"))
    for seed in range(3):
        pixels = pixel_values(seed)
        np.testing.assert_allclose(encoder.encode(pixels), features(reference, pixels), atol=1e-4)


def test_fp32_logits_equal_the_reference(reference: Any, smolvlm_model_dir: Path) -> None:
    import torch

    token_ids = np.random.default_rng(0).integers(0, 250, 24).tolist()
    with torch.no_grad():
        wanted = reference(input_ids=torch.tensor([token_ids])).logits[0, 1:].numpy()
    assert wanted.std() > 1  # else the tolerance would say little
    np.testing.assert_allclose(logits_of(smolvlm_model_dir, token_ids), wanted, atol=1e-3)


def test_fp32_manifest(smolvlm_checkpoint: Path, smolvlm_model_dir: Path) -> None:
    spec = manifest.read(smolvlm_model_dir)
    manifest.check_hashes(spec, smolvlm_model_dir)
    assert {path.name for path in smolvlm_model_dir.iterdir()} == {*spec.files, manifest.FILE_NAME}
    assert json.loads(spec.to_json()) == json.loads((smolvlm_model_dir / manifest.FILE_NAME).read_text())
    assert (spec.name, spec.family, spec.vision.precision, spec.decoder.precision) == (
        "smolvlm",
        "idefics3",
        "fp32",
        "fp32",
    )
    assert spec.vision.inputs == {"pixel_values": manifest.TensorSpec("float32", (1, 3, 64, 64))}
    assert spec.vision.outputs == {"image_features": manifest.TensorSpec("float32", (1, 4, 64))}
    assert spec.decoder.inputs["inputs_embeds"].shape[-1] == spec.decoder.hidden_size == 64
    assert set(spec.decoder.outputs) == {"logits"} | {f"present.{i}.{kv}" for i in (0, 1) for kv in ("key", "value")}
    assert (spec.decoder.n_layers, spec.decoder.n_kv_heads, spec.decoder.head_dim) == (2, 2, 16)
    assert spec.embeddings.dtype == "float32"
    assert spec.source.sha256 == manifest.sha256(smolvlm_checkpoint / "model.safetensors")
    assert spec.source.checkpoint == "checkpoint"
    assert {"torch", "transformers", "onnxruntime"} <= set(spec.source.tools)
    assert spec.fidelity is not None
    assert spec.fidelity.feature_cosine > 0.999999
    assert spec.fidelity.logit_kl < 1e-6
    assert spec.fidelity.equal_tokens == 1
    assert spec.fidelity.kept == ()
    assert spec.golden is not None
    assert all(answer.token_ids for answer in spec.golden.answers)


def test_embedding_rows_are_mapped(reference: Any, smolvlm_model_dir: Path) -> None:
    table = np.load(smolvlm_model_dir / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert isinstance(table, np.memmap)
    assert table.flags.c_contiguous
    np.testing.assert_array_equal(table, reference.get_input_embeddings().weight.detach().numpy())


def test_quantized_model(reference: Any, quantized: Path, smolvlm_model_dir: Path) -> None:
    spec = manifest.read(quantized)
    assert (spec.name, spec.vision.precision, spec.decoder.precision) == ("small", "int8", "int4")
    assert spec.embeddings.dtype == "float16"
    encoder = VisionEncoder(Graph(quantized / "vision.onnx"))
    for seed in range(3):
        pixels = pixel_values(seed)
        assert cosine(encoder.encode(pixels), features(reference, pixels)).mean() > 0.999
    for name, share in (("vision.onnx", 0.8), ("decoder.onnx.data", 0.5), ("embeddings.npy", 0.6)):
        assert (quantized / name).stat().st_size < share * (smolvlm_model_dir / name).stat().st_size
    fidelity = spec.fidelity
    assert fidelity is not None
    assert fidelity.n_images == 1
    assert 0 < fidelity.logit_kl < 2
    assert 0.2 < fidelity.equal_tokens <= 1


def test_graphs_name_no_commit(smolvlm_model_dir: Path, quantized: Path) -> None:
    """The builder would add that of the repository it is installed below."""
    import onnx

    for folder in (smolvlm_model_dir, quantized):
        decoder = onnx.load(folder / "decoder.onnx", load_external_data=False)
        assert decoder.producer_version == version("onnxruntime-genai")


def test_kept_matmuls_reach_the_fidelity(quantized: Path) -> None:
    import onnx

    fidelity = manifest.read(quantized).fidelity
    assert fidelity is not None
    assert fidelity.feature_cosine >= 0.9999
    assert 0 < len(fidelity.kept) < 13
    nodes = {node.name: node.op_type for node in onnx.load(quantized / "vision.onnx").graph.node}
    assert {nodes[name] for name in fidelity.kept} == {"MatMul"}
    assert sum(kind == "MatMulInteger" for kind in nodes.values()) == 13 - len(fidelity.kept)
    assert all(re.fullmatch(r"(encoder|projector)\.[\w.]+", name) for name in fidelity.kept)


def test_no_more_matmuls_are_kept_than_the_fidelity_needs(
    smolvlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first guess is far off."""
    wanted, tried = 0.99999, dict[int, float]()
    measure = sensitivity._quantized_cosine

    def noted(source: Path, path: Path, kept: Sequence[str], samples: Sequence[Sample]) -> float:
        tried[len(kept)] = measure(source, path, kept, samples)
        return tried[len(kept)]

    monkeypatch.setattr(sensitivity, "_quantized_cosine", noted)
    found = set()
    for guess in (1, 12):
        monkeypatch.setattr(sensitivity, "_first_guess", lambda *_, guess=guess: guess)
        out = tmp_path / str(guess)
        tried.clear()
        export_model(smolvlm_checkpoint, out, fidelity=wanted, samples=[])
        fidelity = manifest.read(out).fidelity
        assert fidelity is not None
        n_kept = len(fidelity.kept)
        assert tried[n_kept] >= wanted > tried[n_kept - 1]
        assert fidelity.feature_cosine == pytest.approx(tried[n_kept], abs=1e-7)
        found.add(fidelity.kept)
    assert len(found) == 1


def test_an_impossible_fidelity(smolvlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevl.export import sensitivity

    monkeypatch.setattr(sensitivity, "_quantized_cosine", lambda *_: 0.5)
    with pytest.raises(ExportError, match=r"fidelity: 0\.99 cannot be reached, the float32 graph itself has 0\.5"):
        export_model(smolvlm_checkpoint, tmp_path / "model", fidelity=0.99)
    assert list(tmp_path.iterdir()) == []


def test_shards_tied_weights_int8_and_fp16(tmp_path: Path) -> None:
    """One export for all: tied, sharded, fp16 vision, and an int8 decoder whose width blocks do not divide."""
    folder = make_smolvlm(
        tmp_path / "ck", tied=True, max_shard_size="200KB", hidden=48, heads=3, kv_heads=1, vision_layers=1
    )
    assert not (folder / "model.safetensors").exists()
    assert len(checkpoint.read(folder).weights) > 1
    stages: list[tuple[str, float]] = []
    out = tmp_path / "model"
    exported = export_model(
        folder, out, vision="fp16", decoder="int8", progress=lambda stage, done: stages.append((stage, done))
    )
    assert exported == manifest.read(out)
    assert exported.fidelity is not None
    assert exported.fidelity.feature_cosine > 0.99999
    assert exported.fidelity.logit_kl < 0.05
    assert exported.fidelity.equal_tokens > 0.8
    assert stages[0] == ("checkpoint", 0.0)
    assert stages[-1] == ("done", 1.0)
    assert [done for _, done in stages] == sorted(done for _, done in stages)


@pytest.mark.parametrize(("precision", "equal"), [("f16", 1.0), ("q4_k_m", 0.4)])
def test_a_decoder_for_llama_cpp(smolvlm_checkpoint: Path, tmp_path: Path, precision: str, equal: float) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra gguf")
    save_png(drawn((64, 128), seed=7), tmp_path / "sample.png")
    out = tmp_path / "model"
    spec = export_model(
        smolvlm_checkpoint, out, vision="fp32", decoder=f"gguf:{precision}", samples=[tmp_path / "sample.png"]
    )
    assert spec == manifest.read(out)
    manifest.check_hashes(spec, out)
    assert {path.name for path in out.iterdir()} == {*spec.files, manifest.FILE_NAME}
    decoder = spec.decoder
    assert (decoder.kind, decoder.precision, decoder.file) == ("gguf", precision, "decoder.gguf")
    assert (decoder.inputs, decoder.outputs, spec.embeddings) == ({}, {}, None)
    assert (decoder.n_layers, decoder.hidden_size, decoder.context_length) == (2, 64, 2048)
    assert {"gguf", "llama-cpp-python"} < set(spec.source.tools)
    assert spec.golden is not None
    assert spec.fidelity is not None
    assert spec.fidelity.equal_tokens >= equal


def test_graphs_beyond_the_protobuf_limit(reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights go into a file beside the graph, in every precision; the limit is lowered instead of reached."""
    import torch

    from edgevl.export import graphs, vision

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 64)

        def forward(self, pixel_values: Any) -> Any:
            return self.layer(pixel_values[:, 0])

    monkeypatch.setattr(graphs, "MAX_PROTO_BYTES", 1000)
    pixels = pixel_values(0)
    model = Scale().eval()
    wanted = model(torch.from_numpy(pixels))[0].detach().numpy()
    vision.export_fp32(model, 64, tmp_path / "plain.onnx")
    for precision in ("fp32", "fp16", "int8"):
        path = tmp_path / f"{precision}.onnx"
        graphs.write_precision(tmp_path / "plain.onnx", precision, path)
        assert path.with_name(f"{path.name}.data").stat().st_size >= 64 * 64
        assert cosine(VisionEncoder(Graph(path)).encode(pixels), wanted).min() > 0.999


def test_an_interruption_leaves_nothing(smolvlm_checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, _: float) -> None:
        if stage == "decoder":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_model(smolvlm_checkpoint, tmp_path / "model", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_before_any_work(smolvlm_checkpoint: Path, smolvlm_model_dir: Path) -> None:
    stages: list[str] = []
    with pytest.raises(ExportError, match="exists; choose another place, or replace it with --force"):
        export_model(smolvlm_checkpoint, smolvlm_model_dir, progress=lambda stage, _: stages.append(stage))
    assert stages == ["checkpoint"]


def test_weights_that_do_not_fit(smolvlm_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(smolvlm_checkpoint, tmp_path / "ck"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.connector.modality_projection.proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"1 weights do not fit config\.json \(missing_keys, the first is .*proj"):
        export_model(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_context_too_short_for_more_than_the_overview(smolvlm_model_dir: Path, tmp_path: Path) -> None:
    model = Loaded(smolvlm_model_dir, device="cpu", threads=1)
    messages = [Message("user", (ImagePart(None), TextPart("What is in this image?")))]
    few, many = (
        sum(chunk.n_tokens for chunk in model.chunks(messages, [model.plan((64, 128), detail)]))
        for detail in ("low", "auto")
    )
    save_png(drawn((64, 128), seed=7), tmp_path / "sample.png")
    folder = make_smolvlm(tmp_path / "ck", context=many)  # one more would be room for an answer
    spec = export_model(folder, tmp_path / "model", samples=[tmp_path / "sample.png"])
    assert spec.fidelity is not None
    assert spec.fidelity.n_images == 1
    assert spec.golden is not None
    assert [answer.image for answer in spec.golden.answers] == ["small"]
    assert verify(tmp_path / "model").ok
    shorter = make_smolvlm(tmp_path / "shorter", context=few)
    with pytest.raises(ExportError) as caught:
        export_model(shorter, tmp_path / "other")
    assert str(caught.value) == (
        f"a question about one tile of an image takes {few} tokens, but only {few - 1} fit into this model's context; "
        "use a model with a longer one"
    )
    assert not (tmp_path / "other").exists()


def test_heads_that_the_runtime_cannot_run(tmp_path: Path) -> None:
    folder = make_smolvlm(tmp_path / "ck", hidden=96)
    with pytest.raises(
        ExportError, match=r"text_config\.head_dim: is 24; onnxruntime's attention needs a multiple of 16"
    ):
        export_model(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vision": "int4"}, "vision precision is 'int4'; it must be one of fp32, fp16, int8"),
        ({"decoder": "q4"}, "decoder precision is 'q4'; it must be one of fp32, fp16, int8, int4"),
        (
            {"decoder": "fp16", "prefill": True},
            "decoder precision is 'fp16'; a graph for prompts is made for int8 and int4 alone",
        ),
        ({"block_size": 24}, "block size is 24; it must be one of 16, 32, 64, 128"),
        ({"fidelity": 1.0}, "fidelity is 1.0; it must be between 0 and 1"),
        ({"fidelity": float("nan")}, "fidelity is nan"),
    ],
)
def test_wrong_options(smolvlm_checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        export_model(smolvlm_checkpoint, tmp_path / "model", **options)


def test_ranges_hold_what_the_measured_pictures_do_not_show(tmp_path: Path) -> None:
    """A grey picture alone would have black and white dots clipped by engines that want ranges beforehand."""
    import onnx
    import onnxruntime as ort
    from safetensors.numpy import load_file, save_file

    folder = make_smolvlm(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if "patch_embedding.weight" in name or "v_proj.weight" in name:
            weights[name] = 30 * weights[name]  # what is seen counts more than where it is seen
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    save_png(np.full((64, 64, 3), 128, np.uint8), tmp_path / "grey.png")
    export_model(folder, tmp_path / "model", samples=[tmp_path / "grey.png"])
    path = tmp_path / "model" / "vision.onnx"
    model = onnx.load(path)
    names = [node.input[0] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    recorded = json.loads(ranges_path(path).read_text())
    dots = np.sign(pixel_values(seed=5)[:, :1]).repeat(3, axis=1)
    for name, met in zip(names, session.run(names, {"pixel_values": dots}), strict=True):
        low, high = recorded[name]
        assert ((met < low) | (met > high)).mean() < 1e-3, name


def test_a_sample_that_is_no_picture(smolvlm_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    with pytest.raises(ImageError):
        export_model(smolvlm_checkpoint, tmp_path / "model", samples=[tmp_path / "x.png"])


def test_the_extra_for_llama_cpp_is_missing(
    smolvlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgevl.export

    monkeypatch.setattr(edgevl.export, "find_spec", lambda name: None if name == "llama_cpp" else object())
    with pytest.raises(BackendMissing, match=r"export needs llama_cpp: pip install 'edgevl\[export,gguf\]'"):
        export_model(smolvlm_checkpoint, tmp_path / "model", decoder="gguf:f16")


def test_the_extra_is_missing(smolvlm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgevl.export

    monkeypatch.setattr(edgevl.export, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(BackendMissing, match=r"export needs torch: pip install 'edgevl\[export\]'"):
        export_model(smolvlm_checkpoint, tmp_path / "model")


@pytest.fixture
def failing_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the model builder by one that talks and fails."""
    import importlib

    class Builder:
        @staticmethod
        def parse_extra_options(*_: Any) -> dict[str, Any]:
            print("reading the model")
            raise ValueError("no such layer")

    real = importlib.import_module
    monkeypatch.setattr(
        importlib, "import_module", lambda name: Builder if name.startswith("onnxruntime_genai") else real(name)
    )


@pytest.mark.usefixtures("failing_builder")
def test_a_failing_builder(smolvlm_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgevl.export import decoder

    read = checkpoint.read(smolvlm_checkpoint)
    model = read.row.load(smolvlm_checkpoint, read.image.tile)
    with pytest.raises(ExportError, match=r"\(ValueError: no such layer; it said last: reading the model\)"):
        decoder.export_decoder(model.text, smolvlm_checkpoint, "int4", tmp_path / "decoder.onnx", tmp_path)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
