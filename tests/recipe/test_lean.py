"""The trainer's decoder pass equals transformers', for a whole text and for questions that share a picture."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from edgevl.recipe.lean import decode
from edgevl.recipe.model import text_config

TOLERANCE = 0.05  # bfloat16 products against float32 ones; values are around 1


def test_as_transformers_and_each_segment_as_if_alone() -> None:
    torch.manual_seed(0)
    text = LlamaForCausalLM(LlamaConfig(**text_config())).eval()
    embeds = torch.randn(2, 40, text.config.hidden_size)
    segments = torch.zeros(2, 40, dtype=torch.long)
    segments[:, 10:25], segments[:, 25:] = 1, 2
    with torch.no_grad():
        whole = text.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        second = text.model(inputs_embeds=torch.cat([embeds[:, :10], embeds[:, 25:]], 1), use_cache=False)
        with torch.autocast("cpu", torch.bfloat16):
            plain = decode(text, embeds, torch.zeros_like(segments)).float()
            parts = decode(text, embeds, segments).float()
    assert (plain - whole).abs().max() < TOLERANCE
    assert (parts[:, :25] - whole[:, :25]).abs().max() < TOLERANCE
    assert (parts[:, 25:] - second.last_hidden_state[:, 10:]).abs().max() < TOLERANCE
    assert (parts[:, 25:] - whole[:, 25:]).abs().max() > TOLERANCE
