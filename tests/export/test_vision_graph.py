"""The vision graph that is written from an mmproj file's weights is the one that PyTorch exports, node for node."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgevl.errors import ExportError
from edgevl.export import checkpoint, graphs, mmproj, mmproj_file, vision
from edgevl.export.graphs import quiet
from edgevl.model import gguf
from tests.checkpoints import make_internvl, make_llava, make_smolvlm
from tests.gguf_files import rewrite

pytest.importorskip("gguf", reason="gguf is not installed; it comes with the extra gguf")

MATRICES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Family:
    """A checkpoint's vision module, and how its mmproj file is written."""

    module: Any
    tile: int
    write: Callable[[Path, Any], None]


@pytest.fixture(scope="module", params=["smolvlm", "edge", "llava", "internvl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """One of each family, and one whose tiles have an edge of 6 pixels beside their last patch."""
    if request.param == "smolvlm":
        folder = request.getfixturevalue("smolvlm_checkpoint")
    elif request.param == "edge":
        folder = make_smolvlm(tmp_path_factory.mktemp("edge"), tile=62, patch=14, scale_factor=2)
    else:
        maker = make_llava if request.param == "llava" else make_internvl
        folder = maker(tmp_path_factory.mktemp(request.param), layers=1)
    source = checkpoint.read(folder)
    module = source.row.load(folder, source.image.tile).vision
    return Family(module, source.image.tile, lambda path, kind: mmproj.write(source, module, path, kind))


def written(family: Family, folder: Path, kind: str) -> Path:
    """Write the mmproj file and then its graph; return the graph's path."""
    family.write(folder / "mmproj.gguf", kind)
    graphs.save(mmproj_file.read(gguf.read(folder / "mmproj.gguf")).graph(), folder / "vision.onnx")
    return folder / "vision.onnx"


def features(path: Path, pixel_values: Any) -> Any:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixel_values": pixel_values})[0]


def rounded(module: Any, dtype: str) -> dict[str, Any]:
    """Return the weights as a file holds them: matrices in `dtype`, embeddings and vectors in float32."""
    import torch

    return {
        name: weight if weight.ndim < 2 or "embed" in name else weight.to(getattr(torch, dtype)).float()
        for name, weight in module.state_dict().items()
    }


@pytest.mark.parametrize("kind", MATRICES)
def test_features_are_the_modules(family: Family, tmp_path: Path, kind: str) -> None:
    import torch

    pixel_values = torch.randn(1, 3, family.tile, family.tile, generator=torch.Generator().manual_seed(0))
    exact = family.module.state_dict()
    with torch.no_grad():
        plain = family.module(pixel_values).numpy()
        try:
            family.module.load_state_dict(rounded(family.module, MATRICES[kind]), assign=True)
            wanted = family.module(pixel_values).numpy()
        finally:
            family.module.load_state_dict(exact, assign=True)
    found = features(written(family, tmp_path, kind), pixel_values.numpy())
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5
    assert wanted.std() > 0.1  # else it would say little
    assert (np.abs(wanted - plain).max() > 1e-4) == (kind != "F32")


def test_layers_as_wide_within_as_without_have_the_names_they_have_today(
    smolvlm_checkpoint: Path, tmp_path: Path
) -> None:
    import torch

    config = json.loads((smolvlm_checkpoint / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = config["vision_config"]["hidden_size"]
    folder = make_smolvlm(tmp_path / "checkpoint", config=config)
    source = checkpoint.read(folder)
    module = source.row.load(folder, source.image.tile).vision
    square = Family(module, source.image.tile, lambda path, kind: mmproj.write(source, module, path, kind))
    pixel_values = torch.randn(1, 3, square.tile, square.tile, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = module(pixel_values).numpy()
    found = features(written(square, tmp_path, "F32"), pixel_values.numpy())
    assert np.abs(found - wanted).max() < 1e-5


def test_nodes_are_those_of_pytorchs_exporter(family: Family, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "smolvlm" in request.node.name:
        exported = request.getfixturevalue("smolvlm_model_dir") / "vision.onnx"
    else:
        exported = tmp_path / "torch.onnx"
        vision.export_fp32(family.module, family.tile, exported)
    path = written(family, tmp_path, "F32")
    onnx.checker.check_model(path, full_check=True)
    theirs, ours = (onnx.load(graph) for graph in (exported, path))
    assert Counter(kinds(ours)) == Counter(kinds(theirs))
    assert (ours.ir_version, ours.opset_import) == (theirs.ir_version, theirs.opset_import)
    assert graphs.graph_io(path) == graphs.graph_io(exported)
    assert len(graphs.matmul_names(path)) == len(graphs.matmul_names(exported))
    assert "v.blk.1.ffn_down" in graphs.matmul_names(path)


def kinds(model: onnx.ModelProto) -> list[str]:
    """Return what each node is, an activation with its variant."""
    return [
        node.op_type + "".join(a.s.decode() for a in node.attribute if a.name == "approximate")
        for node in model.graph.node
    ]


def test_attention_without_biases(tmp_path: Path) -> None:
    source = checkpoint.read(make_internvl(tmp_path / "checkpoint", layers=1))
    module = source.row.load(source.folder, source.image.tile).vision
    mmproj.write(source, module, tmp_path / "all.gguf", "F32")
    biases = {f"v.blk.{layer}.attn_{part}.bias": None for layer in (0, 1) for part in "qkv"}
    some = rewrite(tmp_path / "all.gguf", tmp_path / "some.gguf", names={"v.blk.1.attn_q.bias": None})
    with pytest.raises(ExportError, match=r"some\.gguf: lacks the weight 'v\.blk\.1\.attn_q\.bias'"):
        mmproj_file.read(gguf.read(some)).graph()
    rewrite(tmp_path / "all.gguf", tmp_path / "none.gguf", names=biases)
    made = mmproj_file.read(gguf.read(tmp_path / "none.gguf")).graph()
    whole = mmproj_file.read(gguf.read(tmp_path / "all.gguf")).graph()
    assert len(whole.graph.node) - len(made.graph.node) == len(biases)


def test_logging_is_as_it_was_after_a_library_has_set_it_up() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with quiet():
        logging.basicConfig(level=logging.INFO, force=True)  # as onnxruntime's quantizer does when it is imported
        assert root.level == logging.INFO
    assert (root.handlers[:], root.level) == before
