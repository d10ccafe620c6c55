"""The bundled model's type exports like its big relatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import edgevl
from edgevl.export import export_model
from edgevl.export.samples import drawn
from edgevl.image import pixels
from edgevl.verify import cosine
from tests.checkpoints import make_edgevl_tiny


def test_export_against_the_recipe(tmp_path: Path) -> None:
    import torch

    from edgevl.recipe.model import load_checkpoint
    from edgevl.recipe.plan import LONGEST_EDGE, TILE

    checkpoint = make_edgevl_tiny(tmp_path / "checkpoint")
    spec = export_model(checkpoint, tmp_path / "model", vision="int8", decoder="int8", block_size=16, fidelity=0.999)
    assert spec.family == "edgevl-tiny"
    assert (spec.image.tile, spec.image.longest_edge, spec.image.tokens_per_tile) == (TILE, LONGEST_EDGE, 64)
    assert spec.fidelity is not None
    assert _block_sizes(tmp_path / "model" / "decoder.onnx") == {16}
    assert spec.fidelity.feature_cosine >= 0.999
    assert spec.fidelity.equal_tokens > 0.7
    picture = drawn((128, 128), seed=1)
    with edgevl.load(tmp_path / "model") as vlm, torch.no_grad():
        encoded = vlm.encode(picture)
        values = pixels.normalise(picture, spec.image.mean, spec.image.std)
        wanted = load_checkpoint(checkpoint).encode(torch.from_numpy(values))[0].numpy()
        assert cosine(encoded.tiles[0], wanted).mean() > 0.999
        assert vlm.ask(encoded, "what's here?", max_tokens=4).usage.image_tokens == 64
    assert np.isfinite(wanted).all()


def _block_sizes(path: Path) -> set[int]:
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return {a.i for node in nodes if node.op_type == "MatMulNBits" for a in node.attribute if a.name == "block_size"}
