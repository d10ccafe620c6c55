"""Checkpoints with random weights in the shapes of each family, saved as their makers save them.

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
SMOLVLM_TOKENIZER = {
    "bos_token": "<|im_start|>",
    "eos_token": "<end_of_utterance>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
}
LLAVA_TOKENS = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
INTERNVL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEAD_DIM = 16
"""Width of a head where a published configuration is made narrow."""


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


def make_llava(
    folder: Path,
    *,
    published: Path | None = None,
    tokenizer: Path | None = None,
    layers: int = 2,
    vision_layers: int = 3,
    tile: int = 56,
    seed: int = 0,
) -> Path:
    """Write a LLaVA-1.5-shaped checkpoint with random weights into `folder` and return it.

    `published` (a folder with the configuration files of a published model) replaces the shapes, of which the depths
    still hold and heads are made narrow; `tokenizer` replaces the byte tokenizer, which begins every text with <s>.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    if published:
        config = json.loads((published / "config.json").read_text())
        _copy_settings(published, folder)
    if tokenizer:
        vocab = _copy_tokenizer(tokenizer, folder)
    else:
        vocab = _byte_tokenizer(folder, LLAVA_TOKENS, {"bos_token": "<s>", "eos_token": "</s>"}, begins="<s>")
    if not published:
        text = _text_config("llama", len(vocab), heads=4, kv_heads=4)
        vision = _vision_config(tile, patch=14) | {"model_type": "clip_vision_model"}
        config = {"text_config": text, "vision_config": vision, "image_token_index": vocab["<image>"]}
        _write_llava_processor(folder, tile)
    model = LlavaForConditionalGeneration(_reduced(LlavaConfig, config, layers, vision_layers, bool(published)))
    model.generation_config.eos_token_id = vocab["</s>"]
    _save(model, folder, seed)
    return folder


def make_internvl(
    folder: Path,
    *,
    published: Path | None = None,
    tokenizer: Path | None = None,
    layers: int = 2,
    vision_layers: int = 2,
    tile: int = 56,
    max_patches: int = 6,
    context: int = 2048,
    is_narrow: bool = True,
    seed: int = 0,
) -> Path:
    """Write an InternVL3-shaped checkpoint with random weights into `folder` and return it; see `make_llava`.

    `tokenizer` is one of Qwen2's family, to which the tokens of INTERNVL_TOKENS that it lacks are added; `is_narrow`
    False leaves a published model's heads as wide as they are.
    """
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    if published:
        config = json.loads((published / "config.json").read_text())
        _copy_settings(published, folder)
    vocab = _write_internvl_texts(tokenizer, folder)
    if not published:
        text = _text_config("qwen2", len(vocab), heads=6, kv_heads=2)
        text["max_position_embeddings"] = context
        text["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
        vision = _vision_config(tile, patch=14) | {"model_type": "internvl_vision", "attention_bias": True}
        config = {"text_config": text, "vision_config": vision, "image_token_id": vocab["<IMG_CONTEXT>"]}
        _write_internvl_processor(folder, tile, max_patches)
    is_narrow = is_narrow and published is not None
    model = InternVLForConditionalGeneration(_reduced(InternVLConfig, config, layers, vision_layers, is_narrow))
    model.generation_config.eos_token_id = vocab["<|im_end|>"]
    _save(model, folder, seed)
    return folder


def make_weightless(folder: Path, published: Path, tokenizer: Path) -> Path:
    """Write a published model's settings and its tokenizer into `folder`, with an empty file for weights; return it.

    Such a checkpoint can be read and asked for its processor, but not loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _copy_settings(published, folder)
    if json.loads((published / "config.json").read_text())["model_type"] == "internvl":
        _write_internvl_texts(tokenizer, folder)
    else:
        _copy_tokenizer(tokenizer, folder)
    (folder / "model.safetensors").touch()
    return folder


def _text_config(model_type: str, n_tokens: int, *, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": n_tokens,
        "hidden_size": heads * HEAD_DIM,
        "intermediate_size": 2 * heads * HEAD_DIM,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    }


def _vision_config(tile: int, patch: int) -> dict[str, Any]:
    return {
        "hidden_size": 4 * HEAD_DIM,
        "intermediate_size": 8 * HEAD_DIM,
        "num_attention_heads": 4,
        "image_size": tile,
        "patch_size": patch,
    }


def _reduced(kind: Any, config: dict[str, Any], layers: int, vision_layers: int, is_narrow: bool) -> Any:
    """Return the configuration with so many layers; `is_narrow`: with all its heads, but each HEAD_DIM wide."""
    full = kind.from_dict(config).to_dict()
    for part, depth in (("text_config", layers), ("vision_config", vision_layers)):
        section = full[part]
        section["num_hidden_layers"] = depth
        section.pop("layer_types", None)
        if is_narrow:
            width = section["num_attention_heads"] * HEAD_DIM
            section["intermediate_size"] = section["intermediate_size"] * width // section["hidden_size"]
            section["hidden_size"] = width
            section.pop("head_dim", None)
    return kind.from_dict(full)


def _save(model: Any, folder: Path, seed: int) -> None:
    _randomise(model, seed)
    model.save_pretrained(folder)


def _copy_settings(published: Path, folder: Path) -> None:
    """Copy a published model's configuration, and its chat template where there is one."""
    for path in (*published.glob("*config.json"), *published.glob("chat_template.*")):
        (folder / path.name).write_bytes(path.read_bytes())


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


def _byte_tokenizer(
    folder: Path,
    special: tuple[str, ...] = SPECIAL_TOKENS,
    settings: dict[str, Any] = SMOLVLM_TOKENIZER,
    *,
    begins: str | None = None,
) -> dict[str, int]:
    """Write a byte-level BPE with a few merges (among them the two newlines) and return its vocabulary.

    `settings` go into tokenizer_config.json; `begins` is the token that the tokenizer puts before every text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "a"), ("i", "n"), ("e", "r"), ("U", "s"), ("Us", "er")]
    pieces = [*letters, *("".join(pair) for pair in merges)]
    bpe = models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    made = Tokenizer(bpe)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single=f"{begins} $A", special_tokens=[(begins, made.token_to_id(begins))]
        )
    made.save(str(folder / "tokenizer.json"))
    common = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
        "padding_side": "left",
    }
    _write_json(folder / "tokenizer_config.json", common | settings)
    return dict(made.get_vocab())


def _write_internvl_texts(source: Path | None, folder: Path) -> dict[str, int]:
    """Write the template, and Qwen2's tokenizer or one of bytes with InternVL's tokens; return its vocabulary."""
    from tokenizers import AddedToken, Tokenizer

    _write_json(folder / "chat_template.json", {"chat_template": INTERNVL_TEMPLATE})
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named["video_token"] = "<video>"
    settings = {"eos_token": "<|im_end|>", "extra_special_tokens": named}
    if source is None:
        return _byte_tokenizer(folder, INTERNVL_TOKENS, settings)
    made = Tokenizer.from_file(str(source / "tokenizer.json"))
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in INTERNVL_TOKENS])
    made.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", **settings})
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


def _write_llava_processor(folder: Path, tile: int) -> None:
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": tile, "width": tile},
            "do_center_crop": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": tile},
        },
    )
    _write_json(
        folder / "processor_config.json",
        {"num_additional_image_tokens": 1, "patch_size": 14, "vision_feature_select_strategy": "default"},
    )
    (folder / "chat_template.jinja").write_text(LLAVA_TEMPLATE)


def _write_internvl_processor(folder: Path, tile: int, max_patches: int) -> None:
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "GotOcr2ImageProcessor",
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "max_patches": max_patches,
            "min_patches": 1,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": tile, "width": tile},
        },
    )
    _write_json(folder / "processor_config.json", {"image_seq_length": (tile // 28) ** 2})


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
