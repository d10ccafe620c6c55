"""The export's table: which checkpoints can be exported, and where their parts are.

One row per `model_type` of a config.json. A row loads the PyTorch model and gives two modules: the vision
encoder with its projector, and the text decoder. Nothing here imports torch until a row loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevl.errors import ExportError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TorchModel:
    """A checkpoint's two halves in float32, in evaluation mode; they share the loaded weights.

    `vision`: pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden].
    `text`: a transformers LlamaForCausalLM, called with `inputs_embeds`.
    """

    vision: nn.Module
    text: Any


@dataclass(frozen=True)
class ExportFamily:
    """One row: the runtime's family row, how to load the model, and the tokens that also end an answer.

    `tokens_per_tile(config, tile)` says how many image features a tile of `tile` pixels gives.
    """

    family: str
    load: Callable[[Path, int], TorchModel]
    tokens_per_tile: Callable[[Mapping[str, Any], int], int]
    end_tokens: tuple[str, ...] = ()


def _shuffled_tokens(config: Mapping[str, Any], tile: int) -> int:
    """Patches per tile, divided by the square of the pixel shuffle's factor."""
    try:
        patch, factor = int(config["vision_config"]["patch_size"]), int(config["scale_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"config.json: vision_config.patch_size and scale_factor are needed ({error!r})") from error
    if min(patch, factor) < 1:
        raise ExportError(f"config.json: patch_size {patch} and scale_factor {factor} must be 1 or more")
    side = tile // patch // factor
    if side * patch * factor != tile:
        raise ExportError(f"config.json: a tile of {tile} pixels is not a whole number of {patch}x{factor} pixel cells")
    return side * side


def _load_idefics3(folder: Path, tile: int) -> TorchModel:
    from .reference import load_native, text_model
    from .vision import Idefics3Vision

    model = load_native(folder)
    inner = model.model
    return TorchModel(
        vision=Idefics3Vision(inner.vision_model, inner.connector, tile).eval(),
        text=text_model(model.config.text_config, inner.text_model, model.lm_head),
    )


def _load_edgevl_tiny(folder: Path, tile: int) -> TorchModel:
    from edgevl.recipe.model import load_checkpoint

    from .reference import check_heads, loading
    from .vision import EdgeVLTinyVision

    with loading(folder):
        model = load_checkpoint(folder)
    check_heads(model.text.config.head_dim)
    return TorchModel(vision=EdgeVLTinyVision(model).eval(), text=model.text)


_SMOLVLM = ExportFamily(
    family="idefics3",
    load=_load_idefics3,
    tokens_per_tile=_shuffled_tokens,
    end_tokens=("<end_of_utterance>",),
)

ROWS = {
    "idefics3": _SMOLVLM,
    "smolvlm": _SMOLVLM,
    "edgevl_tiny": ExportFamily(family="edgevl-tiny", load=_load_edgevl_tiny, tokens_per_tile=_shuffled_tokens),
}
