"""The bundled model in PyTorch: the reference that the exported graphs are compared with.

Three networks: a ViT with a convolutional stem, a projector (pixel shuffle and an MLP) and a small
Llama. `EdgeVLTiny.encode` turns tiles into image features; `EdgeVLTiny.forward` puts them in the
places of the `<image>` tokens and returns logits.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from .plan import LONGEST_EDGE, TILE

MODEL_TYPE = "edgevl_tiny"


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the vision encoder; `image_size` and `patch_size` in pixels."""

    image_size: int = TILE
    patch_size: int = 8
    hidden_size: int = 192
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    intermediate_size: int = 768
    stem_channels: tuple[int, ...] = (32, 64, 128)
    stem_blocks: int = 2
    layer_norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TinyConfig:
    """The whole model; `text_config` holds the fields of a `LlamaConfig`."""

    image_token_id: int = 5
    scale_factor: int = 2
    vision: VisionConfig = field(default_factory=VisionConfig)
    projector_hidden_size: int = 384
    text_config: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens that one tile becomes."""
        return (self.vision.grid // self.scale_factor) ** 2


def sized(width: int, text: dict[str, Any], **fields: Any) -> TinyConfig:
    """Return the bundled model's proportions at another width (192 is its own), with the decoder `text` of that width.

    Layers and heads stay as many. Raises ValueError for a width that is no multiple of 48: a third of it, which is a
    head, must be a multiple of 16 for onnxruntime's attention.
    """
    if width <= 0 or width % 48:
        raise ValueError(f"width: is {width}; must be a multiple of 48")
    vision = VisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        stem_channels=(width // 6, width // 3, 2 * width // 3),
    )
    return TinyConfig(vision=vision, projector_hidden_size=2 * width, text_config=text, **fields)


def text_config(
    vocab_size: int = 4096, eos_token_id: int = 4, pad_token_id: int = 0, width: int = 192
) -> dict[str, Any]:
    """Return the fields of the decoder's `LlamaConfig`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": 8 * width // 3,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": width // 3,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": eos_token_id,
        "pad_token_id": pad_token_id,
    }


class ConvNorm(nn.Sequential):
    """3x3 convolution and batch norm, which the exporter folds into one convolution.

    Batch norm because it trains convolutions fastest; its statistics are frozen once the encoder stage is over.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after)
        )


class Residual(nn.Module):
    """Two convolutions around which the input is added (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Stem(nn.Sequential):
    """Stride-2 3x3 convolutions, residual blocks and a 1x1, in the place of one large patch projection.

    `[n, 3, image_size, image_size]` to `[n, hidden_size, grid, grid]`. The blocks see past their own patch, which is
    what lets shapes be learned from few pictures.
    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4.
    """

    def __init__(self, config: VisionConfig) -> None:
        layers: list[nn.Module] = []
        previous = 3
        for channels in config.stem_channels:
            layers += [ConvNorm(previous, channels, stride=2), nn.ReLU()]
            previous = channels
        layers += [Residual(previous) for _ in range(config.stem_blocks)]
        super().__init__(*layers, nn.Conv2d(previous, config.hidden_size, kernel_size=1))


class Attention(nn.Module):
    """Full self-attention over the patches of one tile.

    Written as two matrix products: on CPUs with bf16 matrix units they train twice as fast as the fused kernel.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # each [n * heads, length, head_dim]
        scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
        weights = scores.softmax(-1, dtype=scores.dtype)
        mixed = torch.bmm(weights, value).view(n, self.num_heads, length, -1)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    """Pre-norm transformer block (Dosovitskiy et al. 2021)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.relu(self.fc1(self.norm2(x))))


class VisionEncoder(nn.Module):
    """ViT with a convolutional stem and learned positions: `[n, 3, 128, 128]` to `[n, 256, hidden]`."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.position_embedding = nn.Parameter(torch.zeros(1, config.grid**2, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._init_weights(config)

    def _init_weights(self, config: VisionConfig) -> None:
        nn.init.normal_(self.position_embedding, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                depth = (2 * config.num_hidden_layers) ** 0.5 if name.endswith(("out", "fc2")) else 1.0
                nn.init.normal_(module.weight, std=module.in_features**-0.5 / depth)
                nn.init.zeros_(module.bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.stem(pixel_values).flatten(2).transpose(1, 2)  # [n, grid * grid, hidden], rows first
        x = x + self.position_embedding.to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Projector(nn.Module):
    """Pixel shuffle, an MLP, a norm and learned positions: `[n, 256, vision hidden]` to `[n, 64, text hidden]`.

    The norm keeps image tokens at the size of text tokens: without it they grew to a thousand times that, and no layer
    of the decoder could add anything to them. The positions tell the decoder where in the tile a token lies. Before
    it had both, 120,000 pictures did not teach it left from right.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        shuffled = config.vision.hidden_size * config.scale_factor**2
        self.fc1 = nn.Linear(shuffled, config.projector_hidden_size)
        self.fc2 = nn.Linear(config.projector_hidden_size, config.text_config["hidden_size"])
        self.norm = nn.LayerNorm(config.text_config["hidden_size"], eps=config.vision.layer_norm_eps)
        self.position_embedding = nn.Parameter(
            _grid_positions(config.tokens_per_tile, config.text_config["hidden_size"])
        )

    def forward(self, patches: Tensor) -> Tensor:
        tokens = self.norm(self.fc2(F.relu(self.fc1(pixel_shuffle(patches, self.scale_factor)))))
        return tokens + self.position_embedding.to(tokens.dtype)


def _grid_positions(n_tokens: int, width: int) -> Tensor:
    """Begin token positions as row and column, each along a direction of its own: `[n_tokens, width]`."""
    side = int(n_tokens**0.5)
    places = torch.linspace(-1, 1, side)
    grid = torch.cartesian_prod(places, places)  # rows first, as the tokens
    return grid @ torch.randn(2, width)


def pixel_shuffle(patches: Tensor, scale_factor: int) -> Tensor:
    """Stack each square of `scale_factor`^2 patches into one token, in Idefics3's order.

    `[n, side * side, width]` to `[n, (side / s)^2, width * s * s]`, rows first inside and outside.
    Source: transformers `Idefics3Connector.pixel_shuffle`.
    """
    n, length, width = patches.shape
    side = int(length**0.5)
    small = side // scale_factor
    squares = patches.view(n, small, scale_factor, small, scale_factor, width).transpose(2, 3)
    return squares.reshape(n, small * small, width * scale_factor**2)


class EdgeVLTiny(nn.Module):
    """Vision encoder, projector and decoder."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config.vision)
        self.projector = Projector(config)
        self.text = LlamaForCausalLM(LlamaConfig(**config.text_config))

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Turn tiles `[n, 3, 128, 128]`, values in -1..1, into image features `[n, 64, text hidden]`."""
        return self.projector(self.vision(pixel_values))

    def embed(self, input_ids: Tensor, image_features: Tensor) -> Tensor:
        """Embed `input_ids` `[b, length]` and put `image_features`, in order, at the `<image>` tokens.

        Returns `[b, length, text hidden]`. Raises ValueError when places and features differ in number.
        """
        embeds = self.text.get_input_embeddings()(input_ids)
        places = input_ids == self.config.image_token_id
        features = image_features.reshape(-1, image_features.shape[-1]).to(embeds.dtype)
        if int(places.sum()) != len(features):
            raise ValueError(f"{int(places.sum())} image tokens in the prompt, {len(features)} features")
        return embeds.masked_scatter(places.unsqueeze(-1), features)

    def forward(
        self, pixel_values: Tensor | None, input_ids: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits `[b, length, vocab]`, and the mean loss where `labels` (-100 = none) are given.

        `pixel_values` holds the tiles of the whole batch, in the order of the prompts.
        """
        features = self.encode(pixel_values) if pixel_values is not None else torch.empty(0, 16, 1)
        embeds = self.embed(input_ids, features) if pixel_values is not None else None
        logits = self.text(input_ids=None if embeds is not None else input_ids, inputs_embeds=embeds).logits
        if labels is None:
            return logits, None
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return logits, loss

    def save_checkpoint(self, folder: Path) -> None:
        """Write config.json, preprocessor_config.json, generation_config.json and bf16 weights."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._describe().items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
        weights = {
            name: (tensor if "running_" in name or "num_batches" in name else tensor.to(torch.bfloat16)).contiguous()
            for name, tensor in self.state_dict().items()
            if name != "text.lm_head.weight"  # tied to the embedding
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def _describe(self) -> dict[str, dict[str, Any]]:
        eos = self.config.text_config["eos_token_id"]
        config = {
            "model_type": MODEL_TYPE,
            "architectures": ["EdgeVLTiny"],
            "dtype": "bfloat16",
            "image_token_id": self.config.image_token_id,
            "scale_factor": self.config.scale_factor,
            "projector_hidden_size": self.config.projector_hidden_size,
            "vision_config": asdict(self.config.vision),
            "text_config": {"model_type": "llama", **self.config.text_config},
        }
        preprocessor = {
            "do_convert_rgb": True,
            "do_resize": True,
            "do_image_splitting": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_pad": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "rescale_factor": 1 / 255,
            "resample": 1,
            "size": {"longest_edge": LONGEST_EDGE},
            "max_image_size": {"longest_edge": self.config.vision.image_size},
        }
        generation = {"eos_token_id": eos, "pad_token_id": self.config.text_config["pad_token_id"]}
        return {
            "config.json": config,
            "preprocessor_config.json": preprocessor,
            "generation_config.json": generation,
        }


def load_config(folder: Path) -> TinyConfig:
    """Read the config.json of a checkpoint folder."""
    read = json.loads((folder / "config.json").read_text())
    vision = read["vision_config"] | {"stem_channels": tuple(read["vision_config"]["stem_channels"])}
    text = {key: value for key, value in read["text_config"].items() if key != "model_type"}
    return TinyConfig(
        image_token_id=read["image_token_id"],
        scale_factor=read["scale_factor"],
        vision=VisionConfig(**vision),
        projector_hidden_size=read["projector_hidden_size"],
        text_config=text,
    )


def load_checkpoint(folder: Path) -> EdgeVLTiny:
    """Read a checkpoint folder into an fp32 model in evaluation mode. Raises on missing or extra weights."""
    model = EdgeVLTiny(load_config(folder))
    weights = load_file(folder / "model.safetensors")
    weights["text.lm_head.weight"] = weights["text.model.embed_tokens.weight"]
    model.load_state_dict(weights, strict=True)  # into float32 parameters
    return model.eval()
