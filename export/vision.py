"""Vision encoder and projector of a checkpoint as PyTorch modules, and the float32 ONNX graph of one.

`pixel_values` go in, `image_features` come out.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import nn

from edgevl.errors import ExportError

from . import graphs
from .reference import quiet


class Idefics3Vision(nn.Module):
    """SigLIP encoder and pixel-shuffle projector for whole tiles of one size.

    The reference computes position ids from the attention mask of each image; a tile is always full, so they are
    constants, taken from the reference itself.
    Source: transformers 5, models/idefics3/modeling_idefics3.py, Idefics3VisionTransformer and Idefics3Connector.
    """

    position_ids: torch.Tensor

    def __init__(self, encoder: Any, projector: Any, tile: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.register_buffer("position_ids", _position_ids(encoder.embeddings, tile), persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden]."""
        embeddings = self.encoder.embeddings
        hidden = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        hidden = hidden + embeddings.position_embedding(self.position_ids)
        for layer in self.encoder.encoder.layers:
            hidden = layer(hidden, None)
        return cast("torch.Tensor", self.projector(self.encoder.post_layernorm(hidden)))


class LlavaVision(nn.Module):
    """CLIP encoder up to the layer whose output counts, without the class token, and projector.

    `feature_layer` counts hidden states as the reference does: 0 is the encoder's input, -1 its last layer's output.
    Source: transformers 5, models/llava/modeling_llava.py, LlavaModel.get_image_features.
    """

    def __init__(self, encoder: Any, projector: Any, feature_layer: int) -> None:
        super().__init__()
        layers = encoder.encoder.layers
        n_layers = range(len(layers) + 1)[feature_layer]
        self.embeddings = encoder.embeddings
        self.norm = encoder.pre_layrnorm
        self.layers = layers[:n_layers]
        self.projector = projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden]."""
        hidden = self.norm(self.embeddings(pixel_values))
        for layer in self.layers:
            hidden = layer(hidden, None)
        return cast("torch.Tensor", self.projector(hidden[:, 1:]))


class InternVLVision(nn.Module):
    """InternViT encoder without the class token, pixel shuffle, and projector.

    Source: transformers 5, models/internvl/modeling_internvl.py, InternVLModel.get_image_features.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.vision_tower
        self.projector = model.multi_modal_projector
        self._shuffle, self.ratio = model.pixel_shuffle, model.config.downsample_ratio

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden]."""
        hidden = self.encoder.embeddings(pixel_values)
        for layer in self.encoder.encoder.layer:
            hidden = layer(hidden)
        hidden = self.encoder.layernorm(hidden)[:, 1:]
        side = math.isqrt(hidden.shape[1])
        shuffled = self._shuffle(hidden.unflatten(1, (side, side)), scale_factor=self.ratio)
        return cast("torch.Tensor", self.projector(shuffled.flatten(1, 2)))


class EdgeVLTinyVision(nn.Module):
    """The bundled model's encoder and projector. Source: models/edgevl-tiny/recipe/model.py."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.vision
        self.projector = model.projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden]."""
        return cast("torch.Tensor", self.projector(self.encoder(pixel_values)))


@torch.no_grad()
def _position_ids(embeddings: Any, tile: int) -> torch.Tensor:
    """Return the position ids [1, n_patches] that the reference uses for a full tile."""
    seen: list[torch.Tensor] = []
    hook = embeddings.position_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    side = tile // embeddings.patch_size
    try:
        embeddings(torch.zeros(1, 3, tile, tile), torch.ones(1, side, side, dtype=torch.bool))
    finally:
        hook.remove()
    return seen[0].clone()


def export_fp32(model: nn.Module, tile: int, path: Path) -> None:
    """Write the float32 graph of `model` for one tile [1, 3, tile, tile] to `path`."""
    pixels = torch.zeros(1, 3, tile, tile)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (pixels,),
            dynamo=True,
            opset_version=graphs.OPSET,
            input_names=[graphs.INPUT],
            output_names=[graphs.OUTPUT],
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("the vision encoder gave no graph; report this with the checkpoint's name")
    model = program.model_proto
    _name_matmuls(model)
    graphs.save(model, path)


def _name_matmuls(model: onnx.ModelProto) -> None:
    """Call each MatMul with a weight by the PyTorch module that it comes from, such as `layers.0.mlp.fc1`."""
    weights = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
            modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
            node.name = modules[-1] if modules else node.name
