"""Which text models llama.cpp computes as transformers does, and what it must be told about each.

One row per `model_type` of a text config. Sources, for the facts: llama.cpp's src/models, src/llama-model.cpp
(`llama_model_rope_type`) and conversion, as of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from edgevl.errors import ExportError

Settings = dict[str, int | float | list[int]]


def _nothing(config: Any) -> Settings:
    return {}


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp computes a text model.

    `name` is its own name for it, `table` the gguf package's list of the names of its weights. With `pairs` rotary
    embedding turns neighbours of a head, else (as in transformers) its two halves; `norm_offset` is what transformers
    adds to the weights of a norm when it runs. `more` gives the metadata that only this architecture has, without the
    prefix, and refuses settings that llama.cpp does not have.
    """

    name: str
    table: str
    activation: str = "silu"
    pairs: bool = False
    norm_offset: float = 0.0
    more: Callable[[Any], Settings] = _nothing


def architecture(config: Any) -> Architecture:
    """Return the row of a text config; raise ExportError without one."""
    if config.model_type not in ARCHITECTURES:
        raise ExportError(
            f"decoder: model_type is {config.model_type!r}; a GGUF file can only have {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[config.model_type]


def metadata(config: Any, context_length: int) -> Settings:
    """Return what llama.cpp must know of a text model, under keys without their prefix.

    Raises ExportError for a setting that llama.cpp would compute otherwise.
    """
    row, head_dim = architecture(config), head_size(config)
    require("decoder: hidden_act", getattr(config, "hidden_activation", None) or config.hidden_act, row.activation)
    found = row.more(config)
    window = getattr(config, "sliding_window", None)
    if window is not None and window < context_length and "attention.sliding_window" not in found:
        raise ExportError(
            f"decoder: sliding_window is {window}; llama.cpp lets this model see all {context_length} tokens"
        )
    return {
        "block_count": config.num_hidden_layers,
        "context_length": context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.dimension_count": head_dim,
        "vocab_size": config.vocab_size,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        **found,
    }


def weights(text: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights as llama.cpp wants them, under the names that they have in transformers.

    A head that is the embedding table is left out: llama.cpp takes the table.
    """
    config = text.config
    row = architecture(config)
    n_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tied = text.lm_head.weight.data_ptr() == text.get_input_embeddings().weight.data_ptr()
    for name, weight in text.state_dict().items():
        module = name.split(".")[-2]
        if tied and name == "lm_head.weight":
            continue
        if row.pairs and module in n_heads:
            yield name, _as_pairs(weight, n_heads[module])
        elif module.endswith("norm"):
            yield name, weight + row.norm_offset
        else:
            yield name, weight


def rope_factors(text: Any) -> torch.Tensor | None:
    """Return by how much each rotary frequency [head_dim / 2] is divided, for models that scale them one by one."""
    rope = text.config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    dim = head_size(text.config)
    plain = rope["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    factors: torch.Tensor = plain / text.model.rotary_emb.inv_freq
    return factors.float()


def head_size(config: Any) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def require(setting: str, got: object, wanted: object) -> None:
    """Raise ExportError for a setting that llama.cpp does not compute."""
    if got != wanted:
        raise ExportError(f"{setting} is {got!r}; a GGUF file can only have {wanted!r}")


def _as_pairs(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Reorder the rows of each head [head_dim, ...] from two halves to pairs."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _rope(config: Any) -> Settings:
    """Of one rotary embedding for all layers, not scaled."""
    rope = config.rope_parameters
    require("decoder: rope_type", rope["rope_type"], "default")
    require("decoder: partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0)
    return {"rope.freq_base": float(rope["rope_theta"])}


def _llama_rope(config: Any) -> Settings:
    """Of one for all layers, scaled as Llama 3 does or not at all; `rope_factors` does the scaling."""
    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return _rope(config)
    return {"rope.freq_base": float(rope["rope_theta"])}


def _qwen2_vl(config: Any) -> Settings:
    """Of one whose frequencies are shared among time, height and width; llama.cpp has a fourth axis, without any."""
    sections = config.rope_parameters.get("mrope_section", _MROPE_SECTION)
    require("decoder: number of mrope_section", len(sections), 3)
    return {**_rope(config), "rope.dimension_sections": [*sections, 0]}


def _gemma2(config: Any) -> Settings:
    _check_layers(config, every=2)
    require("decoder: query_pre_attn_scalar", config.query_pre_attn_scalar, head_size(config))
    return {
        **_rope(config),
        "attention.sliding_window": config.sliding_window,
        "attn_logit_softcapping": float(config.attn_logit_softcapping),
        "final_logit_softcapping": float(config.final_logit_softcapping),
    }


def _gemma3(config: Any) -> Settings:
    _check_layers(config, every=6)
    require("decoder: query_pre_attn_scalar", config.query_pre_attn_scalar, head_size(config))
    require("decoder: final_logit_softcapping", config.final_logit_softcapping, None)
    whole, near = (config.rope_parameters[kind] for kind in ("full_attention", "sliding_attention"))
    require("decoder: sliding rope_type", near["rope_type"], "default")
    found = {
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base": float(whole["rope_theta"]),
        "rope.freq_base_swa": float(near["rope_theta"]),
    }
    if whole["rope_type"] == "linear":
        return {**found, "rope.scaling.factor": float(whole["factor"])}
    require("decoder: rope_type", whole["rope_type"], "default")
    return found


def _check_layers(config: Any, every: int) -> None:
    """Raise ExportError unless every so-manieth layer, and no other, sees all tokens."""
    wanted = ["full_attention" if not (i + 1) % every else "sliding_attention" for i in range(config.num_hidden_layers)]
    require("decoder: layer_types", config.layer_types, wanted)


_GELU = "gelu_pytorch_tanh"
_MROPE_SECTION = [16, 24, 24]  # transformers', where a config has none
_LLAMA = Architecture("llama", "LLAMA", pairs=True, more=_llama_rope)

ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture("qwen2", "QWEN2", more=_rope),
    "qwen2_vl_text": Architecture("qwen2vl", "QWEN2VL", more=_qwen2_vl),
    "qwen3": Architecture("qwen3", "QWEN3", more=_rope),
    "phi3": Architecture("phi3", "PHI3", more=_rope),
    "gemma": Architecture("gemma", "GEMMA", _GELU, norm_offset=1.0, more=_rope),
    "gemma2": Architecture("gemma2", "GEMMA2", _GELU, norm_offset=1.0, more=_gemma2),
    "gemma3_text": Architecture("gemma3", "GEMMA3", _GELU, norm_offset=1.0, more=_gemma3),
}
