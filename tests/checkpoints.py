"""SmolVLM-shaped checkpoints with random weights, saved as their makers save them.

Weights are wide enough that greedy answers vary and the best token is far above float noise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
    "<end_of_utterance>",
)
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def make_smolvlm(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    vision_hidden: int = 64,
    vision_layers: int = 2,
    tile: int = 64,
    patch: int = 8,
    scale_factor: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    longest_edge: int | None = None,
    context: int = 2048,
    tied: bool = False,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    tokenizer: Path | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Write a SmolVLM-shaped checkpoint with random weights into `folder` and return it.

    `config` (a parsed config.json of the family) replaces the shapes, of which `layers` and `vision_layers`
    still hold; `tokenizer` (a folder with tokenizer.json and tokenizer_config.json) replaces the byte tokenizer
    made on the spot. Lengths are pixels; `longest_edge` is four tiles unless given.
    """
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    vocab = _copy_tokenizer(tokenizer, folder) if tokenizer else _byte_tokenizer(folder)
    if config is None:
        config = {
            "text_config": {
                "model_type": "llama",
                "vocab_size": len(vocab),
                "hidden_size": hidden,
                "intermediate_size": 2 * hidden,
                "num_attention_heads": heads,
                "num_key_value_heads": kv_heads,
                "head_dim": hidden // heads,
                "max_position_embeddings": context,
                "rope_theta": 10000.0,
            },
            "vision_config": {
                "hidden_size": vision_hidden,
                "intermediate_size": 2 * vision_hidden,
                "num_attention_heads": 4,
                "image_size": tile,
                "patch_size": patch,
            },
            "scale_factor": scale_factor,
            "tie_word_embeddings": tied,
        }
    config = json.loads(json.dumps(config))
    config["text_config"]["num_hidden_layers"] = layers
    config["vision_config"]["num_hidden_layers"] = vision_layers
    config["image_token_id"] = vocab["<image>"]
    parsed = Idefics3Config.from_dict(config)
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(parsed)
    _randomise(model, seed)
    model.generation_config.eos_token_id = vocab["<end_of_utterance>"]
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    vision = parsed.vision_config
    n_tokens = (vision.image_size // vision.patch_size // parsed.scale_factor) ** 2
    _write_processor(folder, vision.image_size, longest_edge or 4 * vision.image_size, n_tokens)
    return folder


def _randomise(model: Any, seed: int) -> None:
    """Fill a model with weights that keep activations near one and logits a few units apart."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                weight.copy_(base + 0.1 * noise)
            elif "embed" in name and "patch" not in name:
                weight.copy_(noise * (0.03 if tied and "tokens" in name else 0.5))
            else:
                gain = 3.0 if "lm_head" in name else 1.0
                weight.copy_(gain * noise / weight[0].numel() ** 0.5)


def _byte_tokenizer(folder: Path) -> dict[str, int]:
    """Write a byte-level BPE with a few merges (among them the two newlines) and return its vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n"), ("e", "r"), ("U", "s"), ("Us", "er")]
    pieces = [*letters, *("".join(pair) for pair in merges)]
    bpe = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    made = Tokenizer(bpe)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    made.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|im_start|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 8192,
            "padding_side": "left",
        },
    )
    return dict(made.get_vocab())


def _copy_tokenizer(source: Path, folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    for path in sorted(source.glob("*.json")):
        (folder / path.name).write_bytes(path.read_bytes())
    return dict(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())


def _write_processor(folder: Path, tile: int, longest_edge: int, n_tokens: int) -> None:
    half = [0.5, 0.5, 0.5]
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": half,
            "image_std": half,
            "max_image_size": {"longest_edge": tile},
            "resample": 1,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": longest_edge},
        },
    )
    _write_json(folder / "processor_config.json", {"image_seq_len": n_tokens, "processor_class": "Idefics3Processor"})
    _write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def make_edgevl_tiny(folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint of the bundled model's type with random weights and small shapes into `folder`."""
    import torch

    from edgevl.recipe.model import EdgeVLTiny, TinyConfig, VisionConfig, text_config

    folder.mkdir(parents=True, exist_ok=True)
    vocab = _byte_tokenizer(folder)
    text = text_config(vocab_size=len(vocab), eos_token_id=vocab["<end_of_utterance>"])
    text.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    text.update(num_key_value_heads=4, head_dim=16)
    config = TinyConfig(
        image_token_id=vocab["<image>"],
        vision=VisionConfig(hidden_size=48, num_hidden_layers=2, intermediate_size=96, stem_channels=(8, 16, 24)),
        projector_hidden_size=64,
        text_config=text,
    )
    torch.manual_seed(seed)
    model = EdgeVLTiny(config)
    with torch.no_grad():
        for weight in model.text.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5)
    model.save_checkpoint(folder)
    _write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    return folder
