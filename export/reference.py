"""Load a checkpoint in PyTorch, quietly: the reference that the exported graphs are made from and measured against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgevl.errors import ExportError
from edgevl.loaded import Loaded
from edgevl.types import Chunk, TextChunk

from . import graphs
from .fidelity import Array, most_tokens


def load_native(folder: Path) -> Any:
    """Load a checkpoint of a native transformers type in float32; raise ExportError where weights do not fit."""
    from transformers import AutoModelForImageTextToText

    with loading(folder):
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    for key in ("missing_keys", "mismatched_keys"):
        if report[key]:
            first = sorted(map(str, report[key]))[0]
            raise ExportError(
                f"{folder}: {len(report[key])} weights do not fit config.json ({key}, the first is {first}); "
                "download the whole checkpoint folder again"
            )
    return model.eval()


@contextlib.contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load weights quietly; whatever goes wrong becomes an ExportError that names the folder."""
    try:
        with quiet():
            yield
    except Exception as error:  # torch, transformers and safetensors raise many kinds
        detail = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{folder}: cannot be loaded ({type(error).__name__}: {detail}); download it again"
        ) from error


DECODERS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
"""The text backbones that can be exported: their class in transformers by the config's model type."""


def text_model(config: Any, body: nn.Module, lm_head: nn.Linear) -> Any:
    """Put a decoder's body and head together as a plain causal language model that shares their weights."""
    import transformers

    if config.model_type not in DECODERS:
        raise ExportError(
            f"config.json: text_config.model_type: is {config.model_type!r}; only {' and '.join(DECODERS)} decoders "
            "can be exported"
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    check_heads(head_dim)
    settings = config.to_dict()
    settings.update(tie_word_embeddings=False, vocab_size=lm_head.weight.shape[0], head_dim=head_dim)
    settings.pop("architectures", None)
    rope = settings["rope_parameters"]
    if rope["rope_type"] == "dynamic":  # differs only behind max_position_embeddings, where the context ends
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    with torch.device("meta"):
        model = getattr(transformers, DECODERS[config.model_type])(type(config).from_dict(settings))
    model.model = body
    model.lm_head = lm_head
    return model.eval()


def check_heads(head_dim: int) -> None:
    """Raise ExportError for a decoder whose attention GroupQueryAttention cannot run on the CPU."""
    if head_dim % 16:
        raise ExportError(
            f"config.json: text_config.head_dim: is {head_dim}; onnxruntime's attention needs a multiple of 16"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of the libraries that the export runs; errors still raise."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with graphs.quiet():
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@torch.no_grad()
def features(vision: nn.Module, pixel_values: Array) -> Array:
    """Return the features [n, hidden] of one tile [1, 3, tile, tile]."""
    found: Array = vision(torch.from_numpy(pixel_values))[0].numpy()
    return found


@torch.no_grad()
def answer(text: Any, chunks: Sequence[Chunk], features: Sequence[Array], exported: Loaded) -> tuple[list[int], Array]:
    """Return a causal language model's greedy answer and its logits [n, vocab] before each of its tokens."""
    table = text.get_input_embeddings()
    parts = [
        table(torch.tensor(chunk.token_ids)) if isinstance(chunk, TextChunk) else torch.from_numpy(features[chunk.tile])
        for chunk in chunks
    ]
    embeds, past = torch.cat(parts)[None], None
    token_ids: list[int] = []
    logits: list[Array] = []
    ends, n_most = exported.manifest.tokenizer.eos_token_ids, most_tokens(exported, embeds.shape[1])
    while len(token_ids) < n_most and not (token_ids and token_ids[-1] in ends):
        out = text(inputs_embeds=embeds, cache=past, use_cache=True, logits_to_keep=1)
        past = out.cache
        logits.append(out.logits[0, -1].numpy())
        token_ids.append(int(logits[-1].argmax()))
        embeds = table(torch.tensor([token_ids[-1:]]))
    return token_ids, np.stack(logits)
