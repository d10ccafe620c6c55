"""llama.cpp's other file, the mmproj: a vision encoder with its projector, as our graph.

One row per `clip.projector_type`. Sources, for the facts: llama.cpp's tools/mtmd/clip.cpp and conversion, as of
llama-cpp-python 0.3.36. What counts is the reference in transformers: llama.cpp itself, as of that version, puts the
class token behind the patches, which shifts every position of "mlp" and "internvl" files, and leaves out the last layer
of "mlp" files (its issues 25814 and 25817).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevl.errors import ExportError
from edgevl.model.gguf import GGUF
from edgevl.model.manifest import MEAN, STD, Between, ImageSpec

from . import vision_graph
from .ggml import as_float
from .vision_graph import Activation, Encoder, Weight

MAX_SIZE = 1 << 16
"""No size that an encoder has is larger: layers, widths, pixels of a side."""


@dataclass(frozen=True)
class Vision:
    """A vision encoder with its projector: the runtime's family row, what images become, what makes the graph.

    `graph` reads the weights; it raises ExportError for those that are missing, unknown or of another shape than the
    file's own metadata say. `end_tokens` also end an answer, where the decoder has them.
    """

    family: str
    image: ImageSpec
    graph: Callable[[], onnx.ModelProto]
    end_tokens: tuple[str, ...] = ()


def read(header: GGUF) -> Vision:
    """Read the metadata of an mmproj file; raise ExportError for an encoder that edgevl does not have."""
    older = "mlp" if header.get(bool, "clip.has_llava_projector", False) else ""
    kind = header.get(str, "clip.projector_type", older)
    if kind not in KINDS:
        raise ExportError(
            f"{header.path}: clip.projector_type: is {kind!r}; only {', '.join(KINDS)} can be imported by this version"
        )
    return KINDS[kind](_File(header))


class _File:
    """One mmproj file: sizes from its metadata, and its weights."""

    def __init__(self, header: GGUF) -> None:
        self.header = header
        self.n_layers = self.integer("block_count")
        found = {name.split(".")[2] for name in header.tensors if name.startswith("v.blk.")}
        if found != {str(layer) for layer in range(self.n_layers)}:
            raise self._wrong(f"clip.vision.block_count: is {self.n_layers}, but there are {len(found)} layers")

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a size; raise ExportError unless it is between 1 and MAX_SIZE."""
        value = self.header.get(int, f"clip.vision.{key}", default)
        if not 1 <= value <= MAX_SIZE:
            raise self._wrong(f"clip.vision.{key}: is {value}, which must be between 1 and {MAX_SIZE}")
        return value

    def encoder(self, activation: Activation, **differences: bool) -> Encoder:
        """Return an encoder of the file's sizes, and with the `differences` of its kind."""
        n_heads, width = self.integer("attention.head_count"), self.integer("embedding_length")
        if width % n_heads:
            raise self._wrong(f"clip.vision.attention.head_count: {n_heads} heads do not divide a width of {width}")
        return Encoder(
            tile=self.integer("image_size"),
            patch=self.integer("patch_size"),
            width=width,
            inner=self.integer("feed_forward_length"),
            n_layers=self.n_layers,
            n_heads=n_heads,
            eps=self.header.get(float, "clip.vision.attention.layer_norm_epsilon"),
            activation=activation,
            **differences,
        )

    def require(self, flag: str, wanted: bool) -> None:
        """Raise ExportError unless a switch, off where it is not there, stands as it must."""
        if self.header.get(bool, f"clip.{flag}", False) != wanted:
            raise self._wrong(f"clip.{flag}: is {'not ' if wanted else ''}set")

    def image(self, resample: Literal["lanczos", "bicubic"], *, longest_edge: int, factor: int = 1) -> ImageSpec:
        """Return what images become: tiles of whole cells of `factor` x `factor` patches, a token each.

        What is left of a tile beside its last whole patch is not looked at.
        """
        tile, patch = self.integer("image_size"), self.integer("patch_size")
        side = tile // patch
        if side % factor or not side:
            raise self._wrong(f"clip.vision.image_size: {side} patches are no whole number of cells of {factor}")
        return ImageSpec(
            tile=tile,
            longest_edge=longest_edge,
            tokens_per_tile=(side // factor) ** 2,
            mean=self._per_channel("image_mean", MEAN),
            std=self._per_channel("image_std", STD),
            resample=resample,
        )

    def graph(self, write: Callable[[Weight], onnx.ModelProto]) -> onnx.ModelProto:
        """Return the graph that `write` makes of this file's weights, all of which must be in it."""
        used: set[str] = set()

        def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
            name = _exchange(name, "ffn_up", "ffn_down") if self._is_swapped else name
            used.add(name)
            return self._weight(name, shape)

        model = write(weight)
        if unknown := sorted(self.header.tensors.keys() - used):  # something would be computed without it
            raise self._wrong(f"holds {unknown[0]!r}, a weight that this encoder does not have")
        return model

    def _wrong(self, what: str) -> ExportError:
        """Return the error that says what is wrong with this file."""
        return ExportError(f"{self.header.path}: {what}; use an mmproj file made by llama.cpp's own converter")

    def _per_channel(self, key: str, allowed: Between) -> tuple[float, ...]:
        values = self.header.get(np.ndarray, f"clip.vision.{key}").astype(float).tolist()
        if len(values) != 3 or any(value not in allowed for value in values):
            raise self._wrong(f"clip.vision.{key}: {values} are no three numbers from {allowed}")
        return tuple(values)

    def _weight(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        tensor = self.header.tensors.get(name)
        if tensor is None:
            raise self._wrong(f"lacks the weight {name!r}")
        if _plain(tensor.shape) != _plain(shape):
            raise self._wrong(f"weight {name!r} is {list(tensor.shape)}, the metadata say {list(_plain(shape))}")
        data = np.memmap(self.header.path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        try:
            return as_float(data, tensor.kind, tensor.shape).reshape(shape)
        except NotImplementedError as error:
            raise self._wrong(f"weight {name!r} is in {tensor.kind}, of which edgevl makes no numbers") from error

    @property
    def _is_swapped(self) -> bool:
        """Whether the two layers of an MLP have each other's names, as in files of before May 2025.

        Where they are as wide as each other nothing tells, and they are taken to have their own.
        """
        first, width = self.header.tensors.get("v.blk.0.ffn_down.weight"), self.integer("embedding_length")
        return first is not None and first.shape[-1] == width != self.integer("feed_forward_length")


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without dimensions of 1, which files leave out."""
    return tuple(side for side in shape if side != 1)


def _exchange(name: str, one: str, other: str) -> str:
    return name.replace(one, "\0").replace(other, one).replace("\0", other)


def _idefics3(file: _File) -> Vision:
    """SigLIP and a pixel-shuffle projector: Idefics3, SmolVLM, SmolVLM2.

    A tile's patches have the positions of the file's own order. The reference finds them by rounding, which comes to
    the same for the sides that published models have: 26, 27 and 32 patches.
    """
    file.require("use_gelu", True)
    encoder, factor = file.encoder("gelu_tanh", post_norm=True), file.integer("projector.scale_factor")
    # files of before 2026 do not say the longest edge, which is four tiles in all published models
    longest = file.integer("preproc_image_size", 4 * encoder.tile)
    write = partial(vision_graph.idefics3, encoder=encoder, factor=factor, n_out=file.integer("projection_dim"))
    return Vision(
        "idefics3",
        file.image("lanczos", longest_edge=longest, factor=factor),
        partial(file.graph, write),
        ("<end_of_utterance>",),
    )


def _llava(file: _File) -> Vision:
    """CLIP and an MLP: LLaVA-1.5. A file holds the layers up to the one whose output counts."""
    file.require("use_gelu", False)
    file.require("use_silu", False)
    encoder = file.encoder("quick_gelu", has_class=True, pre_norm=True, patch_bias=False)
    write = partial(vision_graph.llava, encoder=encoder, n_out=file.integer("projection_dim"))
    return Vision("llava", file.image("bicubic", longest_edge=encoder.tile), partial(file.graph, write))


def _internvl(file: _File) -> Vision:
    """InternViT, pixel shuffle and an MLP: InternVL 2.5 and 3 with the encoder of 300 million weights."""
    file.require("use_gelu", True)
    has_bias = "v.blk.0.attn_q.bias" in file.header.tensors
    encoder = file.encoder("gelu", has_class=True, is_scaled=True, attention_bias=has_bias)
    factor, longest = file.integer("projector.scale_factor"), encoder.tile * file.integer("preproc_max_tiles", 12)
    write = partial(vision_graph.internvl, encoder=encoder, factor=factor, n_out=file.integer("projection_dim"))
    image = file.image("bicubic", longest_edge=longest, factor=factor)
    return Vision("internvl", image, partial(file.graph, write))


KINDS: dict[str, Callable[[_File], Vision]] = {"idefics3": _idefics3, "mlp": _llava, "internvl": _internvl}
