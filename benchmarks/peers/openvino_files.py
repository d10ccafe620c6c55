"""A checkpoint as the folder that OpenVINO GenAI opens: three graphs, a tokenizer, two configurations.

optimum-intel 2.2, whose exporter usually makes such folders, knows InternVL as `internvl_chat` alone, the model type of
remote code, and not the one of transformers that edgevl reads. The graphs are therefore converted here, by OpenVINO
itself, in the layout of that exporter: names of files, inputs and outputs, and a KV cache that is the graph's state.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import nn

from benchmarks.peers.openvino import quantized

MODEL_TYPES = {"internvl": "internvl_chat"}
"""By the family of edgevl: what OpenVINO GenAI calls it."""
BLOCK = 32
"""Weights of the decoder that share a scale, as in the other peers' files."""
LANGUAGE, EMBEDDINGS, VISION = (
    f"openvino_{name}_model.xml" for name in ("language", "text_embeddings", "vision_embeddings")
)


class _Past:
    """A KV cache that keeps what it hands out; `past` is [key, value] of each layer, [batch, heads, n, width]."""

    def __init__(self, past: Sequence[Sequence[torch.Tensor]]) -> None:
        self._past, self.present = past, list[torch.Tensor]()

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a layer's new keys and values behind its past ones."""
        both = tuple(torch.cat([old, new], 2) for old, new in zip(self._past[layer], (key, value), strict=True))
        self.present += both
        return both[0], both[1]

    def get_seq_length(self, *_: Any) -> int:
        """Return the number of past tokens."""
        return self._past[0][0].shape[2]


class _Decoder(nn.Module):
    """The text model with everything it remembers as inputs and outputs."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: Sequence[Sequence[torch.Tensor]],
    ) -> tuple[torch.Tensor, ...]:
        """Return logits [batch, n, vocab], then key and value of each layer; the mask is [batch, past + n]."""
        n_new, n_all = inputs_embeds.shape[1], attention_mask.shape[1]
        is_before = torch.arange(n_all)[None, :] <= torch.arange(n_all - n_new, n_all)[:, None]
        cache = _Past(past)
        out = self.text(
            inputs_embeds=inputs_embeds,
            attention_mask=is_before[None, None] & attention_mask.bool()[:, None, None, :],
            position_ids=position_ids,
            cache=cache,
            use_cache=True,
        )
        return (out.logits, *cache.present)


def write_vision(source: Any, precision: str, calibration: Sequence[NDArray[np.float32]], folder: Path) -> None:
    """Write the vision graph of a checkpoint (`export.checkpoint.Checkpoint`) alone, for any number of tiles at once.

    `precision` is int8 (weights and activations, by NNCF on `calibration`, tiles [1, 3, tile, tile]) or fp32.
    """
    model = source.row.load(source.folder, source.image.tile)
    folder.mkdir(parents=True)
    with _quiet():
        graph = _vision(model.vision, source.image.tile)
        _save(graph if precision == "fp32" else quantized(graph, calibration), folder / VISION)


def write(source: Any, vision: Path, precision: str, folder: Path) -> None:
    """Write the folder of a checkpoint, with the graph that `write_vision` has written into the folder `vision`.

    `precision` is int4, int8 (the decoder's weights in that, the head too; the embedding table int8) or fp32.
    """
    model = source.row.load(source.folder, source.image.tile)
    folder.mkdir(parents=True)
    with _quiet():
        _save(_compressed(_language(model.text), precision), folder / LANGUAGE)
        _save(_compressed(_embeddings(model.text), "fp32" if precision == "fp32" else "rows"), folder / EMBEDDINGS)
        _write_tokenizer(source.folder, folder)
    for path in vision.iterdir():
        shutil.copyfile(path, folder / path.name)
    _write_settings(source, folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Convert without gradients, and without torch's remarks about tracing."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _vision(module: nn.Module, tile: int) -> openvino.Model:
    pixels = torch.zeros(1, 3, tile, tile)
    graph = openvino.convert_model(module, example_input=pixels, input=[-1, 3, tile, tile])
    _name(graph.inputs, ["pixel_values"])
    _name(graph.outputs, ["last_hidden_state"])
    return graph


def _embeddings(text: Any) -> openvino.Model:
    table = text.get_input_embeddings()
    graph = openvino.convert_model(table, example_input=torch.ones(1, 2, dtype=torch.int64), input=[-1, -1])
    _name(graph.inputs, ["input"])
    _name(graph.outputs, ["inputs_embeds"])
    return graph


def _language(text: Any) -> openvino.Model:
    """Convert the decoder; its KV cache becomes state, which `beam_idx` [batch] reorders."""
    n_layers, hidden = text.config.num_hidden_layers, text.config.hidden_size
    heads, width = text.config.num_key_value_heads, text.config.head_dim
    past = tuple((torch.zeros(2, heads, 3, width), torch.zeros(2, heads, 3, width)) for _ in range(n_layers))
    example = {
        "inputs_embeds": torch.zeros(2, 5, hidden),
        "attention_mask": torch.ones(2, 8, dtype=torch.int64),
        "position_ids": torch.arange(3, 8).repeat(2, 1),
        "past": past,
    }
    graph = openvino.convert_model(_Decoder(text), example_input=example)
    layers = [f"{layer}.{part}" for layer in range(n_layers) for part in ("key", "value")]
    _name(graph.inputs, ["inputs_embeds", "attention_mask", "position_ids", *(f"past.{name}" for name in layers)])
    _name(graph.outputs, ["logits", *(f"present.{name}" for name in layers)])
    graph.inputs[0].get_node().set_partial_shape(openvino.PartialShape([-1, -1, hidden]))
    order = ops.parameter([-1], np.int32, name="beam_idx")
    order.output(0).set_names({"beam_idx"})
    for held in graph.inputs[3:]:
        held.get_node().set_partial_shape(openvino.PartialShape([-1, heads, -1, width]))
        users = held.get_target_inputs()
        chosen = ops.gather(held, order, ops.constant(np.int64(0)))
        for user in users:
            user.replace_source_output(chosen.output(0))
    graph.add_parameters([order])
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, {f"past.{name}": f"present.{name}" for name in layers})
    _begin_empty(graph, heads, width)
    return graph


def _begin_empty(graph: openvino.Model, heads: int, width: int) -> None:
    """Let every state begin without a token, for as many sequences as there are inputs."""
    shape = ops.shape_of(graph.input("inputs_embeds"))
    batch = ops.gather(shape, ops.constant(np.array([0])), ops.constant(np.int64(0)))
    wanted = ops.concat([batch, ops.constant(np.array([heads, 0, width]))], 0)
    empty = ops.broadcast(ops.constant(np.float32(0)), wanted)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty.output(0)])
    graph.validate_nodes_and_infer_types()


def _name(ports: Sequence[Any], names: Sequence[str]) -> None:
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})


def _compressed(graph: openvino.Model, precision: str) -> openvino.Model:
    if precision == "fp32":
        return graph
    import nncf

    modes = nncf.CompressWeightsMode
    if precision == "int4":
        return nncf.compress_weights(graph, mode=modes.INT4_SYM, group_size=BLOCK, all_layers=True)
    return nncf.compress_weights(graph, mode=modes.INT8_ASYM if precision == "rows" else modes.INT8_SYM)


def _save(graph: openvino.Model, path: Path) -> None:
    openvino.save_model(graph, path, compress_to_fp16=False)


def _write_tokenizer(checkpoint: Path, folder: Path) -> None:
    from openvino_tokenizers import convert_tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)  # tokenizer.json as it stands
    for graph, name in zip(convert_tokenizer(tokenizer, with_detokenizer=True), ("", "de"), strict=True):
        openvino.save_model(graph, folder / f"openvino_{name}tokenizer.xml")


def _write_settings(source: Any, folder: Path) -> None:
    spec = source.image
    documents = {
        "config.json": {"model_type": MODEL_TYPES[source.row.family]},
        "preprocessor_config.json": {
            "size": {"shortest_edge": spec.tile},
            "image_mean": list(spec.mean),
            "image_std": list(spec.std),
        },
        "generation_config.json": {},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
