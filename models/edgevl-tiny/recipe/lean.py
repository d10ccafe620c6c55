"""The decoder's forward pass written for training on CPUs: the same function as `LlamaModel`, in fewer operations.

transformers' layers are many small elementwise operations in float32, which cost more than the matrix products at
this size. Here query, key and value are one product, as are gate and up, and attention stays in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def decode(text: Any, embeds: Tensor, segments: Tensor) -> Tensor:
    """Return the last hidden states [b, length, hidden] of `text` (a LlamaForCausalLM) for `embeds`, causally.

    `segments` [b, length]: a token sees those before it of segment 0 and of its own, and its position counts those.
    """
    model = text.model
    n_heads = model.config.num_attention_heads
    before = torch.ones(2 * (embeds.shape[1],), dtype=torch.bool).tril()
    seen = before & ((segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None]))  # [b, to, from]
    mask = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, -3e4).repeat_interleave(n_heads, 0)
    cos, sin = (part.repeat_interleave(n_heads, 0) for part in _rotary(model.config, seen.sum(-1) - 1))
    x = embeds.float()
    for layer in model.layers:
        x = x + _attend(layer.self_attn, _norm(x, layer.input_layernorm), cos, sin, mask)
        x = x + _feed(layer.mlp, _norm(x, layer.post_attention_layernorm))
    return _norm(x, model.norm)


def _norm(x: Tensor, norm: Any) -> Tensor:
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return (x * scale).to(torch.bfloat16) * norm.weight.to(torch.bfloat16)


def _attend(attention: Any, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    n, length, _ = x.shape
    width = attention.head_dim
    weight = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    qkv = F.linear(x, weight.to(torch.bfloat16)).view(n, length, 3, -1, width)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).flatten(1, 2).unbind(0)  # each [n * heads, length, width]
    query, key = _turn(query, cos, sin), _turn(key, cos, sin)
    scores = torch.baddbmm(mask, query * width**-0.5, key.transpose(1, 2))
    mixed = torch.bmm(scores.softmax(-1, dtype=torch.bfloat16), value).view(n, -1, length, width)
    return F.linear(mixed.transpose(1, 2).flatten(2), attention.o_proj.weight.to(torch.bfloat16))


def _feed(mlp: Any, x: Tensor) -> Tensor:
    weight = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).to(torch.bfloat16)
    gate, up = F.linear(x, weight).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, mlp.down_proj.weight.to(torch.bfloat16))


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate halves by position (Su et al. 2021, as transformers lays them out)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rotary(config: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    theta = config.rope_parameters["rope_theta"]
    frequencies = theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
    angles = positions[..., None] * frequencies  # [b, length, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
