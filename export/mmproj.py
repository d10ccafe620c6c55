"""llama.cpp's other file, the mmproj: a vision encoder with its projector, back as the module that the export takes.

One row per `clip.projector_type`. Weights are found by the names that the gguf package has for transformers' own.
Sources, for the facts: llama.cpp's tools/mtmd/clip.cpp and conversion, as of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgevl.errors import ExportError
from edgevl.model.gguf import GGUF
from edgevl.model.manifest import ImageSpec

from .gguf import package
from .vision import Idefics3Vision

MAX_SIZE = 1 << 16
"""No size that an encoder has is larger: layers, widths, pixels of a side."""


@dataclass(frozen=True)
class Vision:
    """A vision encoder with its projector: the runtime's family row, what images become, the module.

    `end_tokens` also end an answer, where the decoder has them.
    """

    family: str
    image: ImageSpec
    module: nn.Module
    end_tokens: tuple[str, ...] = ()


def read(header: GGUF) -> Vision:
    """Build the module of an mmproj file.

    Raises ExportError for an encoder that edgevl does not have, and for weights that are missing, unknown or of another
    shape than the file's own metadata says.
    """
    kind = header.get(str, "clip.projector_type", "")
    if kind not in ROWS:
        raise ExportError(
            f"{header.path}: clip.projector_type: is {kind!r}; only {', '.join(ROWS)} can be imported by this version"
        )
    file = _File(header)
    vision = ROWS[kind](file)
    file.check_all_used()
    return vision


class _File:
    """One mmproj file: sizes from its metadata, weights by transformers' names."""

    def __init__(self, header: GGUF) -> None:
        self.header = header
        self.n_layers = self.integer("block_count")
        found = {name.split(".")[2] for name in header.tensors if name.startswith("v.blk.")}
        if found != {str(layer) for layer in range(self.n_layers)}:
            raise self.wrong(f"clip.vision.block_count: is {self.n_layers}, but there are {len(found)} layers")
        arch = package().MODEL_ARCH.MMPROJ
        self._names = package().get_tensor_name_map(arch, self.n_layers)
        self._used: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a size; raise ExportError unless it is between 1 and MAX_SIZE."""
        value = self.header.get(int, f"clip.vision.{key}", default)
        if not 1 <= value <= MAX_SIZE:
            raise self.wrong(f"clip.vision.{key}: is {value}, which must be between 1 and {MAX_SIZE}")
        return value

    def real(self, key: str) -> float:
        """Return a number."""
        return self.header.get(float, f"clip.vision.{key}")

    @property
    def n_heads(self) -> int:
        """How many attention heads a layer has."""
        n, width = self.integer("attention.head_count"), self.integer("embedding_length")
        if width % n:
            raise self.wrong(f"clip.vision.attention.head_count: {n} heads do not divide a width of {width}")
        return n

    def flag(self, key: str) -> bool:
        """Return a switch, off unless it is there."""
        return self.header.get(bool, f"clip.{key}", False)

    def per_channel(self, key: str) -> tuple[float, ...]:
        """Return three numbers; those of `image_std` must not be 0."""
        values = self.header.get(np.ndarray, f"clip.vision.{key}").astype(float).tolist()
        if len(values) != 3 or not np.isfinite(values).all() or (key == "image_std" and not all(values)):
            raise self.wrong(f"clip.vision.{key}: {values} are no three numbers to scale colours by")
        return tuple(values)

    def image(self, resample: Literal["lanczos", "bicubic"], *, longest_edge: int, factor: int, tile: int) -> ImageSpec:
        """Return what images become: tiles of whole cells of `factor` x `factor` patches, a token each."""
        cell = self.integer("patch_size") * factor
        if tile % cell:
            raise self.wrong(f"clip.vision.image_size: {tile} pixels are no whole number of cells of {cell} pixels")
        return ImageSpec(
            tile=tile,
            longest_edge=longest_edge,
            tokens_per_tile=(tile // cell) ** 2,
            mean=self.per_channel("image_mean"),
            std=self.per_channel("image_std"),
            resample=resample,
        )

    def fill(self, module: nn.Module, prefix: str) -> None:
        """Give a module without weights those that transformers calls `prefix` and their name in the module."""
        weights = {name: self._weight(f"{prefix}{name}", tuple(old.shape)) for name, old in module.state_dict().items()}
        module.load_state_dict(weights, assign=True)

    def check_all_used(self) -> None:
        """Raise ExportError for a weight that no module took: something would be computed without it."""
        if unknown := sorted(self.header.tensors.keys() - self._used):
            raise self.wrong(f"holds {unknown[0]!r}, a weight that this encoder does not have")

    def wrong(self, what: str) -> ExportError:
        """Return the error that says what is wrong with this file."""
        return ExportError(f"{self.header.path}: {what}; use an mmproj file made by llama.cpp's own converter")

    def _weight(self, torch_name: str, shape: tuple[int, ...]) -> torch.Tensor:
        name = self._names.get_name(torch_name, try_suffixes=(".weight", ".bias"))
        if name is not None and self._is_swapped:
            name = _exchange(name, "ffn_up", "ffn_down")
        tensor = self.header.tensors.get(name or "")
        if name is None or tensor is None:
            raise self.wrong(f"lacks the weight {name or torch_name!r}")
        if tensor.shape != shape:
            raise self.wrong(f"weight {name!r} is {list(tensor.shape)}, the metadata say {list(shape)}")
        self._used.add(name)
        data = np.memmap(self.header.path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        return torch.from_numpy(_as_float(data, tensor.kind, shape))

    @property
    def _is_swapped(self) -> bool:
        """Whether the two layers of an MLP have each other's names, as in files of before May 2025."""
        first = self.header.tensors.get("v.blk.0.ffn_down.weight")
        return first is not None and first.shape[-1] == self.integer("embedding_length")


def _exchange(name: str, one: str, other: str) -> str:
    return name.replace(one, "\0").replace(other, one).replace("\0", other)


def _as_float(data: NDArray[np.uint8], kind: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tensor's bytes as float32."""
    rows = data.reshape(*shape[:-1], -1)
    values: NDArray[np.float32] = package().quants.dequantize(rows, package().GGMLQuantizationType[kind])
    return np.array(values, np.float32).reshape(shape)


def _idefics3(file: _File) -> Vision:
    """SigLIP and a pixel-shuffle projector: Idefics3, SmolVLM, SmolVLM2."""
    from transformers import Idefics3Config
    from transformers.models.idefics3 import modeling_idefics3 as reference

    if not file.flag("use_gelu"):
        raise file.wrong("clip.use_gelu: is not set")
    tile, factor = file.integer("image_size"), file.integer("projector.scale_factor")
    image = file.image(
        "lanczos", tile=tile, factor=factor, longest_edge=file.integer("preproc_image_size", 4 * tile)
    )  # files of before 2026 do not say the longest edge, which is four tiles in all published models
    config = Idefics3Config(
        vision_config={
            "hidden_size": file.integer("embedding_length"),
            "intermediate_size": file.integer("feed_forward_length"),
            "num_hidden_layers": file.n_layers,
            "num_attention_heads": file.n_heads,
            "image_size": tile,
            "patch_size": file.integer("patch_size"),
            "layer_norm_eps": file.real("attention.layer_norm_epsilon"),
        },
        text_config={"model_type": "llama", "hidden_size": file.integer("projection_dim")},
        scale_factor=factor,
    )
    config.vision_config._attn_implementation = "sdpa"
    with torch.device("meta"):
        encoder = reference.Idefics3VisionTransformer(config.vision_config)
        projector = reference.Idefics3Connector(config)
    file.fill(encoder, "model.vision_model.")
    file.fill(projector, "model.connector.")
    return Vision("idefics3", image, Idefics3Vision(encoder, projector, tile).eval(), ("<end_of_utterance>",))


ROWS: dict[str, Callable[[_File], Vision]] = {"idefics3": _idefics3}
