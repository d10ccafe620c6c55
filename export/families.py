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

from .settings import positive, section, square

if TYPE_CHECKING:
    from torch import nn

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class TorchModel:
    """A checkpoint's two halves in float32, in evaluation mode; they share the loaded weights.

    `vision`: pixel_values [n, 3, tile, tile] -> image_features [n, tokens_per_tile, hidden].
    `text`: a causal language model of transformers, called with `inputs_embeds`.
    """

    vision: nn.Module
    text: Any


@dataclass(frozen=True)
class ExportFamily:
    """One row: the runtime's family row, how to load the model, and the tokens that also end an answer.

    `encoder` is the model type of the vision encoder that is needed, where the checkpoint's own leaves it open.
    `sizes(settings, path)` reads (tile, longest_edge) in pixels from the image processor's settings in the file at
    `path`; `tokens_per_tile(config, tile)` says how many image features a tile of `tile` pixels gives.
    """

    family: str
    load: Callable[[Path, int], TorchModel]
    sizes: Callable[[Settings, Path], tuple[int, int]]
    tokens_per_tile: Callable[[Settings, int], int]
    end_tokens: tuple[str, ...] = ()
    encoder: str | None = None


def _split_sizes(settings: Settings, path: Path) -> tuple[int, int]:
    """Of a processor that resizes to a longest edge and splits: the edge, or the tile where it does not split."""
    tile = positive(section(settings, "max_image_size", path), "longest_edge", path)
    splits = settings.get("do_image_splitting", True)
    return tile, positive(section(settings, "size", path), "longest_edge", path) if splits else tile


def _cropped_sizes(settings: Settings, path: Path) -> tuple[int, int]:
    """Of a processor that resizes to a shortest edge and crops the middle: one tile."""
    tile = square(settings, "crop_size", path)
    shortest = positive(section(settings, "size", path), "shortest_edge", path)
    _require(f"{path}: size.shortest_edge", shortest, tile)
    _require(f"{path}: do_center_crop", settings.get("do_center_crop", True), True)
    _require(f"{path}: do_pad", settings.get("do_pad") or False, False)
    return tile, tile


def _patch_sizes(settings: Settings, path: Path) -> tuple[int, int]:
    """Of a processor that cuts up to `max_patches` patches: a row of all of them."""
    tile = square(settings, "size", path)
    _require(f"{path}: min_patches", settings.get("min_patches", 1), 1)
    return tile, tile * positive(settings, "max_patches", path)


def _plain_tokens(config: Settings, tile: int) -> int:
    """Patches per tile."""
    return _cells(config, tile, 1)


def _shuffled_tokens(config: Settings, tile: int) -> int:
    """Patches per tile, divided by the square of the pixel shuffle's factor."""
    try:
        factor = int(config["scale_factor"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ExportError(f"config.json: scale_factor is needed ({error!r})") from error
    return _cells(config, tile, factor, leaves_edge=True)


def _downsampled_tokens(config: Settings, tile: int) -> int:
    """Patches per tile, multiplied by the square of the pixel shuffle's ratio."""
    try:
        factor = round(1 / float(config["downsample_ratio"]))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ExportError(f"config.json: downsample_ratio is needed ({error!r})") from error
    return _cells(config, tile, factor)


def _cells(config: Settings, tile: int, factor: int, *, leaves_edge: bool = False) -> int:
    """Count a tile's cells of `factor` x `factor` patches; raise ExportError unless they fill it.

    An encoder that `leaves_edge` does not look at what is left of a tile beside its last whole patch.
    """
    try:
        patch = config["vision_config"]["patch_size"]
        patch = int(patch[0] if isinstance(patch, list) else patch)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ExportError(f"config.json: vision_config.patch_size is needed ({error!r})") from error
    if min(patch, factor) < 1:
        raise ExportError(f"config.json: patch_size {patch} and its factor {factor} must be 1 or more")
    side = tile // patch // factor
    if side * factor * patch != (tile // patch * patch if leaves_edge else tile):
        raise ExportError(f"config.json: a tile of {tile} pixels is not a whole number of {patch}x{factor} pixel cells")
    return side * side


def _require(where: str, value: object, wanted: object) -> None:
    if value != wanted:
        raise ExportError(f"{where}: is {value!r}; only {wanted!r} can be exported")


def _load_idefics3(folder: Path, tile: int) -> TorchModel:
    from .reference import load_native, text_model
    from .vision import Idefics3Vision

    model = load_native(folder)
    inner = model.model
    return TorchModel(
        vision=Idefics3Vision(inner.vision_model, inner.connector, tile).eval(),
        text=text_model(model.config.text_config, inner.text_model, model.lm_head),
    )


def _load_llava(folder: Path, tile: int) -> TorchModel:
    from .reference import load_native, text_model
    from .vision import LlavaVision

    model = load_native(folder)
    config, inner = model.config, model.model
    where = f"{folder / 'config.json'}: "
    _require(f"{where}vision_config.image_size", config.vision_config.image_size, tile)
    _require(f"{where}vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
    layer, n_layers = config.vision_feature_layer, config.vision_config.num_hidden_layers
    if layer not in range(-n_layers - 1, n_layers + 1):
        raise ExportError(f"{where}vision_feature_layer: is {layer!r}; expected one layer of an encoder of {n_layers}")
    return TorchModel(
        vision=LlavaVision(inner.vision_tower, inner.multi_modal_projector, layer).eval(),
        text=text_model(config.text_config, inner.language_model, model.lm_head),
    )


def _load_internvl(folder: Path, tile: int) -> TorchModel:
    from .reference import load_native, text_model
    from .vision import InternVLVision

    model = load_native(folder)
    config, inner = model.config, model.model
    where = f"{folder / 'config.json'}: "
    _require(f"{where}vision_config.image_size", tuple(config.vision_config.image_size), (tile, tile))
    _require(f"{where}vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
    _require(f"{where}vision_feature_layer", config.vision_feature_layer, -1)
    return TorchModel(
        vision=InternVLVision(inner).eval(),
        text=text_model(config.text_config, inner.language_model, model.lm_head),
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
    sizes=_split_sizes,
    tokens_per_tile=_shuffled_tokens,
    end_tokens=("<end_of_utterance>",),
)

ROWS = {
    "idefics3": _SMOLVLM,
    "smolvlm": _SMOLVLM,
    "llava": ExportFamily(
        family="llava",
        load=_load_llava,
        sizes=_cropped_sizes,
        tokens_per_tile=_plain_tokens,
        encoder="clip_vision_model",
    ),
    "internvl": ExportFamily(
        family="internvl",
        load=_load_internvl,
        sizes=_patch_sizes,
        tokens_per_tile=_downsampled_tokens,
        end_tokens=("<|im_end|>",),
    ),
    "edgevl_tiny": ExportFamily(
        family="edgevl-tiny",
        load=_load_edgevl_tiny,
        sizes=_split_sizes,
        tokens_per_tile=_shuffled_tokens,
    ),
}
