"""Checkpoints as folders in the layout of transformers.js: their graphs, written by PyTorch under its names."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"


def write_layout(checkpoint: Path, out: Path, *, beside: bool = False) -> Path:
    """Write a SmolVLM-shaped checkpoint's settings and float32 graphs to `out` and return it.

    `beside` keeps the decoder's weights in a file of their own, as graphs of more than 2 GB must.
    """
    from edgevl.export import checkpoint as checkpoints

    shutil.copytree(checkpoint, out, ignore=shutil.ignore_patterns(WEIGHTS))
    (out / "onnx").mkdir()
    source = checkpoints.read(checkpoint)
    model = source.row.load(checkpoint, source.image.tile)
    _write_vision(model.vision, source.image.tile, out / "onnx" / "vision_encoder.onnx")
    _write_embeddings(model.text.get_input_embeddings(), out / "onnx" / "embed_tokens.onnx")
    _write_decoder(model.text, out / "onnx" / "decoder_model_merged.onnx")
    if beside:
        _move_weights(out / "onnx" / "decoder_model_merged.onnx")
    return out


def _write_vision(vision: Any, side: int, path: Path) -> None:
    import torch

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = vision

        def forward(self, pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor) -> Any:
            return self.vision(pixel_values[pixel_attention_mask.any(-1).any(-1)])

    given = torch.zeros(1, 2, 3, side, side), torch.ones(1, 2, side, side, dtype=torch.bool)
    tiles = {1: "num_images"}
    _export(
        Vision(),
        given,
        path,
        {"pixel_values": tiles, "pixel_attention_mask": tiles},
        {"image_features": {0: "num_images"}},
    )


def _write_embeddings(embeddings: Any, path: Path) -> None:
    import torch

    axes = {0: "batch_size", 1: "sequence_length"}
    given = (torch.zeros(1, 3, dtype=torch.int64),)
    _export(embeddings, given, path, {"input_ids": axes}, {"inputs_embeds": axes})


def _write_decoder(text: Any, path: Path) -> None:
    import torch
    from transformers import DynamicCache

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = text.model, text.lm_head

        def forward(
            self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            cache = DynamicCache([(past[i], past[i + 1]) for i in range(0, len(past), 2)])
            found = self.body(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, cache=cache)
            present = [array for layer in cache.layers for array in (layer.keys, layer.values)]
            return self.head(found.last_hidden_state), *present

    sizes = text.config
    names = [f"{layer}.{kind}" for layer in range(sizes.num_hidden_layers) for kind in ("key", "value")]
    shape = 1, sizes.num_key_value_heads, 5, sizes.head_dim
    past = [torch.zeros(shape) for _ in names]
    given = torch.zeros(1, 3, sizes.hidden_size), torch.ones(1, 8, dtype=torch.int64), torch.arange(5, 8)[None], *past
    new, total = {1: "sequence_length"}, "total_sequence_length"
    inputs = {"inputs_embeds": new, "attention_mask": {1: total}, "position_ids": new}
    inputs |= {f"past_key_values.{name}": {2: "past_sequence_length"} for name in names}
    _export(Decoder(), given, path, inputs, {"logits": new, **{f"present.{name}": {2: total} for name in names}})


def _export(module: Any, given: Any, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing, and that there is a newer exporter, which takes 15 s
        torch.onnx.export(
            module.eval(),
            given,
            path,
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=inputs | outputs,
        )


def _move_weights(path: Path) -> None:
    import onnx

    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=0)
