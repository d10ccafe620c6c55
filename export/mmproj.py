"""llama.cpp's other file, the mmproj: a vision encoder with its projector, to it and from it.

One row per `clip.projector_type`. Sources, for the facts: llama.cpp's tools/mtmd/clip.cpp and conversion, as of
llama-cpp-python 0.3.36. What counts is the reference in transformers: llama.cpp itself, as of that version, puts the
class token behind the patches, which shifts every position of "mlp" and "internvl" files, and leaves out the last layer
of "mlp" files (its issues 25814 and 25817).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgevl.errors import ExportError
from edgevl.model.gguf import GGUF
from edgevl.model.manifest import ImageSpec

from .architectures import require
from .checkpoint import Checkpoint
from .gguf import File, Written, package
from .vision import Idefics3Vision, InternVLVision, LlavaVision

MAX_SIZE = 1 << 16
"""No size that an encoder has is larger: layers, widths, pixels of a side."""
CLASS_TOKEN = "v.class_embd"
"""The one weight whose name does not say that it is one."""

Settings = dict[str, int | float | bool]


@dataclass(frozen=True)
class Vision:
    """A vision encoder with its projector: the runtime's family row, what images become, the module.

    `end_tokens` also end an answer, where the decoder has them.
    """

    family: str
    image: ImageSpec
    module: nn.Module
    end_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of mmproj file, and the export's module that computes the same.

    `names` are beginnings of names of the module's weights and what stands for them: in the gguf package's table of
    names, or in the file itself if that begins with "v." or "mm.". `settings` gives a module's metadata, those of
    `clip.vision` without it; `read` builds a module.
    """

    module: type[nn.Module]
    names: Mapping[str, str]
    settings: Callable[[Any, ImageSpec], Settings]
    read: Callable[[_File], Vision]

    def name(self, torch_name: str, table: Any) -> str | None:
        """Return what a weight of the module is called in a file; None if there is no such weight."""
        begins = next((begin for begin in self.names if torch_name.startswith(begin)), None)
        if begins is None:
            return None
        name = self.names[begins] + torch_name.removeprefix(begins)
        if name.startswith(("v.", "mm.")):
            return name
        found: str | None = table.get_name(name, try_suffixes=(".weight", ".bias"))
        is_bare = not name.endswith((".weight", ".bias")) and found != CLASS_TOKEN
        return f"{found}.weight" if found and is_bare else found


def write(source: Checkpoint, vision: nn.Module, path: Path, kind: Written = "BF16") -> None:
    """Write the checkpoint's vision encoder and projector to `path`.

    Embeddings of patches, positions and the class stay float32, as llama.cpp's own files have them. Raises
    BackendMissing without the gguf package, ExportError for an encoder that llama.cpp does not have.
    """
    name = next((name for name, row in KINDS.items() if type(vision) is row.module), None)
    if name is None:
        raise ExportError(f"{source.name}: llama.cpp has no vision encoder of this kind; only its decoder can be GGUF")
    row, image = KINDS[name], source.image
    settings = row.settings(vision, image)
    file = File("clip", source.name, kind)
    file.writer.add_type("mmproj")
    file.writer.add_string("clip.projector_type", name)
    file.settings({"clip.has_vision_encoder": True, "clip.vision.image_size": image.tile})
    file.settings({key if key.startswith("clip.") else f"clip.vision.{key}": value for key, value in settings.items()})
    file.writer.add_array("clip.vision.image_mean", list(image.mean))
    file.writer.add_array("clip.vision.image_std", list(image.std))
    table = _table(int(settings["block_count"]))
    file.tensors(
        ((row.name(torch_name, table), torch_name, weight) for torch_name, weight in _weights(vision)), exact=("embd",)
    )
    file.save(path)


def read(header: GGUF) -> Vision:
    """Build the module of an mmproj file.

    Raises ExportError for an encoder that edgevl does not have, and for weights that are missing, unknown or of another
    shape than the file's own metadata says.
    """
    older = "mlp" if header.get(bool, "clip.has_llava_projector", False) else ""
    kind = header.get(str, "clip.projector_type", older)
    if kind not in KINDS:
        raise ExportError(
            f"{header.path}: clip.projector_type: is {kind!r}; only {', '.join(KINDS)} can be imported by this version"
        )
    file = _File(header, KINDS[kind])
    vision = KINDS[kind].read(file)
    file.check_all_used()
    return vision


def _table(n_layers: int) -> Any:
    return package().get_tensor_name_map(package().MODEL_ARCH.MMPROJ, n_layers)


def _weights(vision: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a module's weights without dimensions of 1, positions in the order in which a tile's patches come."""
    for name, weight in vision.state_dict().items():
        if isinstance(vision, Idefics3Vision) and name == "encoder.embeddings.position_embedding.weight":
            weight = weight[vision.position_ids[0]]
        yield name, weight.squeeze()


class _File:
    """One mmproj file: sizes from its metadata, weights by the names of the export's module."""

    def __init__(self, header: GGUF, kind: Kind) -> None:
        self.header = header
        self._kind = kind
        self.n_layers = self.integer("block_count")
        found = {name.split(".")[2] for name in header.tensors if name.startswith("v.blk.")}
        if found != {str(layer) for layer in range(self.n_layers)}:
            raise self.wrong(f"clip.vision.block_count: is {self.n_layers}, but there are {len(found)} layers")
        self._table = _table(self.n_layers)
        self._used: set[str] = set()

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a size; raise ExportError unless it is between 1 and MAX_SIZE."""
        value = self.header.get(int, f"clip.vision.{key}", default)
        if not 1 <= value <= MAX_SIZE:
            raise self.wrong(f"clip.vision.{key}: is {value}, which must be between 1 and {MAX_SIZE}")
        return value

    def encoder(self, activation: str) -> dict[str, Any]:
        """Return what every encoder has, under the names of transformers' configurations."""
        n_heads, width = self.integer("attention.head_count"), self.integer("embedding_length")
        if width % n_heads:
            raise self.wrong(f"clip.vision.attention.head_count: {n_heads} heads do not divide a width of {width}")
        return {
            "hidden_size": width,
            "intermediate_size": self.integer("feed_forward_length"),
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": n_heads,
            "layer_norm_eps": self.header.get(float, "clip.vision.attention.layer_norm_epsilon"),
            "hidden_act": activation,
            "attn_implementation": "sdpa",
        }

    def require(self, flag: str, wanted: bool) -> None:
        """Raise ExportError unless a switch, off where it is not there, stands as it must."""
        if self.header.get(bool, f"clip.{flag}", False) != wanted:
            raise self.wrong(f"clip.{flag}: is {'not ' if wanted else ''}set")

    def image(self, resample: Literal["lanczos", "bicubic"], *, longest_edge: int, factor: int = 1) -> ImageSpec:
        """Return what images become: tiles of whole cells of `factor` x `factor` patches, a token each."""
        tile, cell = self.integer("image_size"), self.integer("patch_size") * factor
        if tile % cell:
            raise self.wrong(f"clip.vision.image_size: {tile} pixels are no whole number of cells of {cell} pixels")
        return ImageSpec(
            tile=tile,
            longest_edge=longest_edge,
            tokens_per_tile=(tile // cell) ** 2,
            mean=self._per_channel("image_mean"),
            std=self._per_channel("image_std"),
            resample=resample,
        )

    def fill(self, module: nn.Module, begins: str = "") -> None:
        """Give a module without weights, which the export's one calls `begins`, those of the file."""
        weights = {name: self._weight(begins + name, old.shape) for name, old in module.state_dict().items()}
        module.load_state_dict(weights, assign=True)

    def check_all_used(self) -> None:
        """Raise ExportError for a weight that no module took: something would be computed without it."""
        if unknown := sorted(self.header.tensors.keys() - self._used):
            raise self.wrong(f"holds {unknown[0]!r}, a weight that this encoder does not have")

    def wrong(self, what: str) -> ExportError:
        """Return the error that says what is wrong with this file."""
        return ExportError(f"{self.header.path}: {what}; use an mmproj file made by llama.cpp's own converter")

    def _per_channel(self, key: str) -> tuple[float, ...]:
        values = self.header.get(np.ndarray, f"clip.vision.{key}").astype(float).tolist()
        if len(values) != 3 or not np.isfinite(values).all() or (key == "image_std" and not all(values)):
            raise self.wrong(f"clip.vision.{key}: {values} are no three numbers to scale colours by")
        return tuple(values)

    def _weight(self, torch_name: str, shape: torch.Size) -> torch.Tensor:
        name = self._kind.name(torch_name, self._table)
        if name is not None and self._is_swapped:
            name = _exchange(name, "ffn_up", "ffn_down")
        tensor = self.header.tensors.get(name or "")
        if name is None or tensor is None:
            raise self.wrong(f"lacks the weight {name or torch_name!r}")
        if _plain(tensor.shape) != _plain(shape):
            raise self.wrong(f"weight {name!r} is {list(tensor.shape)}, the metadata say {list(_plain(shape))}")
        self._used.add(name)
        data = np.memmap(self.header.path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
        return torch.from_numpy(_as_float(data, tensor.kind, tensor.shape)).reshape(shape)

    @property
    def _is_swapped(self) -> bool:
        """Whether the two layers of an MLP have each other's names, as in files of before May 2025."""
        first = self.header.tensors.get("v.blk.0.ffn_down.weight")
        return first is not None and first.shape[-1] == self.integer("embedding_length")


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without dimensions of 1, which files leave out."""
    return tuple(side for side in shape if side != 1)


def _exchange(name: str, one: str, other: str) -> str:
    return name.replace(one, "\0").replace(other, one).replace("\0", other)


def _as_float(data: NDArray[np.uint8], kind: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tensor's bytes as float32."""
    rows = data.reshape(*shape[:-1], -1)
    values: NDArray[np.float32] = package().quants.dequantize(rows, package().GGMLQuantizationType[kind])
    return np.array(values, np.float32).reshape(shape)


def _encoder_settings(config: Any, n_layers: int, n_out: int) -> Settings:
    """Return what every kind says of its encoder, and how wide its features are."""
    patch = config.patch_size
    return {
        "patch_size": patch if isinstance(patch, int) else patch[0],
        "block_count": n_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_epsilon": float(config.layer_norm_eps),
        "projection_dim": n_out,
    }


def _idefics3_settings(vision: Idefics3Vision, image: ImageSpec) -> Settings:
    config, projector = vision.encoder.config, vision.projector
    require("vision encoder: hidden_act", config.hidden_act, "gelu_pytorch_tanh")
    return {
        **_encoder_settings(config, config.num_hidden_layers, projector.modality_projection.proj.out_features),
        "clip.use_gelu": True,
        "preproc_image_size": image.longest_edge,
        "projector.scale_factor": projector.scale_factor,
    }


def _read_idefics3(file: _File) -> Vision:
    """SigLIP and a pixel-shuffle projector: Idefics3, SmolVLM, SmolVLM2."""
    from transformers import Idefics3Config
    from transformers.models.idefics3 import modeling_idefics3 as reference

    file.require("use_gelu", True)
    tile, factor = file.integer("image_size"), file.integer("projector.scale_factor")
    # files of before 2026 do not say the longest edge, which is four tiles in all published models
    image = file.image("lanczos", longest_edge=file.integer("preproc_image_size", 4 * tile), factor=factor)
    config = Idefics3Config(
        vision_config={
            **file.encoder("gelu_pytorch_tanh"),
            "image_size": tile,
            "patch_size": file.integer("patch_size"),
        },
        text_config={"model_type": "llama", "hidden_size": file.integer("projection_dim")},
        scale_factor=factor,
    )
    with torch.device("meta"):
        encoder = reference.Idefics3VisionTransformer(config.vision_config)
        projector = reference.Idefics3Connector(config)
    file.fill(encoder, "encoder.")
    file.fill(projector, "projector.")
    return Vision("idefics3", image, Idefics3Vision(encoder, projector, tile).eval(), ("<end_of_utterance>",))


def _llava_settings(vision: LlavaVision, image: ImageSpec) -> Settings:
    config = vision.embeddings.config
    require("vision encoder: hidden_act", config.hidden_act, "quick_gelu")
    return {
        **_encoder_settings(config, len(vision.layers), vision.projector.linear_2.out_features),
        "clip.has_llava_projector": True,
        "clip.use_gelu": False,
    }


def _read_llava(file: _File) -> Vision:
    """CLIP and an MLP: LLaVA-1.5. A file holds the layers up to the one whose output counts."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    file.require("use_gelu", False)
    file.require("use_silu", False)
    tile = file.integer("image_size")
    image = file.image("bicubic", longest_edge=tile)
    vision = CLIPVisionConfig(**file.encoder("quick_gelu"), image_size=tile, patch_size=file.integer("patch_size"))
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config={"model_type": "llama", "hidden_size": file.integer("projection_dim")},
        vision_feature_layer=-1,
    )
    with torch.device("meta"):
        encoder, projector = CLIPVisionModel(vision), LlavaMultiModalProjector(config)
    module = LlavaVision(encoder, projector, feature_layer=-1)
    file.fill(module)
    module.embeddings.position_ids = torch.arange(image.tokens_per_tile + 1)[None]
    return Vision("llava", image, module.eval())


def _internvl_settings(vision: InternVLVision, image: ImageSpec) -> Settings:
    config = vision.encoder.config
    require("vision encoder: hidden_act", config.hidden_act, "gelu")
    require("vision encoder: norm_type", config.norm_type, "layer_norm")
    return {
        **_encoder_settings(config, config.num_hidden_layers, vision.projector.linear_2.out_features),
        "clip.use_gelu": True,
        "projector.scale_factor": round(1 / vision.ratio),
        "preproc_min_tiles": 1,
        "preproc_max_tiles": image.longest_edge // image.tile,
    }


def _read_internvl(file: _File) -> Vision:
    """InternViT, pixel shuffle and an MLP: InternVL 2.5 and 3 with the encoder of 300 million weights."""
    from transformers import InternVLConfig, InternVLModel

    file.require("use_gelu", True)
    tile, factor = file.integer("image_size"), file.integer("projector.scale_factor")
    image = file.image("bicubic", longest_edge=tile * file.integer("preproc_max_tiles", 12), factor=factor)
    patch = file.integer("patch_size")
    config = InternVLConfig(
        vision_config={
            **file.encoder("gelu"),
            "image_size": [tile, tile],
            "patch_size": [patch, patch],
            "attention_bias": "v.blk.0.attn_q.bias" in file.header.tensors,
        },
        text_config={"model_type": "qwen2", "hidden_size": file.integer("projection_dim"), "num_hidden_layers": 1},
        downsample_ratio=1 / factor,
    )
    with torch.device("meta"):
        module = InternVLVision(InternVLModel(config))
    file.fill(module)
    return Vision("internvl", image, module.eval())


_CLIP = "vision_tower.vision_model."

KINDS: dict[str, Kind] = {
    "idefics3": Kind(
        Idefics3Vision,
        {"encoder.": "model.vision_model.", "projector.": "model.connector."},
        _idefics3_settings,
        _read_idefics3,
    ),
    "mlp": Kind(
        LlavaVision,
        {
            "embeddings.": f"{_CLIP}embeddings.",
            "norm.": f"{_CLIP}pre_layrnorm.",
            "layers.": f"{_CLIP}encoder.layers.",
            "projector.linear_1.": "mm.0.",
            "projector.linear_2.": "mm.2.",
        },
        _llava_settings,
        _read_llava,
    ),
    "internvl": Kind(
        InternVLVision,
        {
            "encoder.": "model.vision_tower.",
            "projector.layer_norm.": "mm.model.mlp.0.",
            "projector.linear_1.": "mm.model.mlp.1.",
            "projector.linear_2.": "mm.model.mlp.3.",
        },
        _internvl_settings,
        _read_internvl,
    ),
}
