"""llama.cpp's other file, the mmproj: the PyTorch module of a vision encoder with its projector, to it.

One row per `clip.projector_type`; `mmproj_file` reads such files, and has the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgevl.errors import ExportError
from edgevl.model.manifest import ImageSpec

from .architectures import require
from .checkpoint import Checkpoint
from .ggml import package
from .gguf import File, Written
from .vision import Idefics3Vision, InternVLVision, LlavaVision

CLASS_TOKEN = "v.class_embd"
"""The one weight whose name does not say that it is one."""

Settings = dict[str, int | float | bool]


@dataclass(frozen=True)
class Kind:
    """A kind of mmproj file, and the export's module that it is written from.

    `names` are beginnings of names of the module's weights and what stands for them: in the gguf package's table of
    names, or in the file itself if that begins with "v." or "mm.". `settings` gives a module's metadata, those of
    `clip.vision` without it.
    """

    module: type[nn.Module]
    names: Mapping[str, str]
    settings: Callable[[Any, ImageSpec], Settings]

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
    table = package().get_tensor_name_map(package().MODEL_ARCH.MMPROJ, int(settings["block_count"]))
    file.tensors(
        ((row.name(torch_name, table), torch_name, weight) for torch_name, weight in _weights(vision)), exact=("embd",)
    )
    file.save(path)


def _weights(vision: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a module's weights without dimensions of 1, positions in the order in which a tile's patches come."""
    for name, weight in vision.state_dict().items():
        if isinstance(vision, Idefics3Vision) and name == "encoder.embeddings.position_embedding.weight":
            weight = weight[vision.position_ids[0]]
        yield name, weight.squeeze()


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


def _llava_settings(vision: LlavaVision, image: ImageSpec) -> Settings:
    config = vision.embeddings.config
    require("vision encoder: hidden_act", config.hidden_act, "quick_gelu")
    return {
        **_encoder_settings(config, len(vision.layers), vision.projector.linear_2.out_features),
        "clip.has_llava_projector": True,
        "clip.use_gelu": False,
    }


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


_CLIP = "vision_tower.vision_model."

KINDS: dict[str, Kind] = {
    "idefics3": Kind(
        Idefics3Vision,
        {"encoder.": "model.vision_model.", "projector.": "model.connector."},
        _idefics3_settings,
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
    ),
}
