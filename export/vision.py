"""Vision encoder and projector as one ONNX graph: `pixel_values` in, `image_features` out.

Precisions of the file:

* fp32: as the checkpoint, in float32.
* fp16: weights stored in float16, half the size; onnxruntime widens them once when the graph is loaded and computes
  in float32, because its CPU kernels for these operators are float32 ones. Inputs and outputs are float32.
* int8: weights of all MatMuls as int8 per output channel, activations quantized on the fly; everything else,
  among it the patch embedding's convolution and attention itself, stays float32.
"""

from __future__ import annotations

import ast
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgevl.errors import ExportError

from .reference import quiet

OPSET = 20
INPUT, OUTPUT = "pixel_values", "image_features"
MAX_PROTO_BYTES = 2_000_000_000
"""A protobuf file must stay below 2 GiB; larger graphs keep their weights beside them."""


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
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("the vision encoder gave no graph; report this with the checkpoint's name")
    model = program.model_proto
    _name_matmuls(model)
    _save(model, path)


def _name_matmuls(model: onnx.ModelProto) -> None:
    """Call each MatMul with a weight by the PyTorch module that it comes from, such as `layers.0.mlp.fc1`."""
    weights = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
            modules = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]
            node.name = modules[-1] if modules else node.name


def matmul_names(path: Path) -> list[str]:
    """Return the names of a graph's MatMuls that have a weight: those that int8 quantizes."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def _save(model: onnx.ModelProto, path: Path) -> None:
    """Save a graph without the exporter's debugging notes, as one file where protobuf's limit allows."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    large = _weight_bytes(model) >= MAX_PROTO_BYTES
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # else the weights are appended to it
    onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(weight.raw_data) for weight in model.graph.initializer)


def quantize_int8(source: Path, path: Path, kept: Sequence[str] = ()) -> None:
    """Write `source` (float32) to `path` with int8 MatMul weights, except in the MatMuls called in `kept`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # else the weights are appended to it
    with quiet():
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )


def store_half(source: Path, path: Path) -> None:
    """Write `source` to `path` with its large float32 weights stored in float16 and widened when loaded.

    Values outside float16's range are clipped to it.
    """
    model = onnx.load(source)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 256:
            continue
        limit = np.finfo(np.float16).max
        half = np.clip(numpy_helper.to_array(weight), -limit, limit).astype(np.float16)
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    _save(model, path)


def export_vision(model: nn.Module, tile: int, precision: str, path: Path, work: Path) -> Path:
    """Write the graph in `precision` to `path`, by way of `work`; return the float32 graph's path in `work`."""
    reference = work / "vision_fp32.onnx"
    export_fp32(model, tile, reference)
    if precision == "int8":
        quantize_int8(reference, path)
    elif precision == "fp16":
        store_half(reference, path)
    else:
        _copy_graph(reference, path)
    return reference


def _copy_graph(source: Path, path: Path) -> None:
    if source.with_name(f"{source.name}.data").exists():
        _save(onnx.load(source), path)
    else:
        shutil.copyfile(source, path)
