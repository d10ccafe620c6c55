"""What is compared with what: every variant of every peer, and the stages that each of them runs.

A peer is a module with `build(case, variant)`, which makes its files once, and a class `Peer` with the stages as
methods (see `Stages`). Each variant of a peer runs in a process of its own: `benchmarks.peers.worker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

CONTEXTS = (128, 1024, 4096)
"""Tokens held while decoding is measured."""
AIMED_CONTEXT = 1024
"""How many of them aims look at."""
N_PREFILL_TEXT = 1024
WHOLE = ("answer", "encode", "features", "prefill", "prefill_text", "decode", "greedy")
VISION = ("encode", "features")
UNFED = tuple(stage for stage in WHOLE if stage != "prefill")
"""Of a peer that takes no ready features."""
DECODER = ("prefill_text", "decode", "greedy")


@dataclass(frozen=True)
class Variant:
    """One column of the comparison: a peer in one setting.

    `needs` are the modules it imports; `stages` the methods of its `Peer`; `settings` are its own affair. `families`
    are the checkpoints that it can run, and `because` says why no others.
    """

    name: str
    peer: str
    module: str
    needs: tuple[str, ...]
    stages: tuple[str, ...] = WHOLE
    settings: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ("smolvlm", "internvl")
    because: str = ""

    @property
    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        absent = [module for module in self.needs if find_spec(module) is None]
        return f"{', '.join(absent)} not installed; pip install -e '.[dev,bench]'" if absent else None

    def unfit(self, family: str) -> str | None:
        """Why it cannot run checkpoints of `family`, or None."""
        return None if family in self.families else f"not with {family}: {self.because}"


class Stages(Protocol):
    """The stages. A peer that has no vision or no decoder lacks those methods, and its variant does not name them."""

    def answer(self, image: Path, question: str, n_tokens: int) -> dict[str, Any]:
        """Answer a question about an image file, greedily, up to `n_tokens`.

        Returns seconds `read_s`, `tile_s`, `encode_s` and `prefill_s`, where the peer can tell them apart, and
        `first_token_s` from the beginning of the call; `first_token_at`, the clock time of the first token; and counts.
        """

    def encode(self, n_tiles: int) -> list[float]:
        """Encode the case's first tiles, after a run that does not count; return seconds for each.

        A peer that encodes several tiles side by side gives each its share of the time that all took.
        """

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return the features of the case's first tiles, [n_tiles, tokens_per_tile, hidden]."""

    def prefill(self) -> list[float]:
        """Feed the case's prompt with ready features to an empty decoder; return [tokens per second]."""

    def prefill_text(self) -> list[float]:
        """Feed N_PREFILL_TEXT token ids at once to an empty decoder; return [tokens per second]."""

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Generate greedily with `context` tokens held; return seconds of each step."""

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Return the greedy `token_ids` after a text prompt, and the `logits` [vocab] of the first."""


def _edgevl(decoder: str) -> Variant:
    return Variant(
        name=f"edgevl, int8 vision, {decoder} decoder",
        peer="edgevl",
        module="benchmarks.peers.own",
        needs=("edgevl", "onnxruntime"),
        settings={"vision": "int8", "decoder": decoder},
    )


def _mixed(decoder: str, vision: str) -> Variant:
    """Return edgevl with the very decoder file that llama.cpp has, and a graph of its mmproj."""
    return Variant(
        name=f"edgevl, int8 vision, llama.cpp {decoder} decoder",
        peer="edgevl",
        module="benchmarks.peers.own",
        needs=("edgevl", "onnxruntime", "llama_cpp", "gguf"),
        settings={"vision": "int8", "decoder": f"gguf-{decoder}", "files": _llamacpp(decoder, vision)},
        families=("smolvlm",),
        because="llama.cpp's files are not made of it",
    )


def _llamacpp(decoder: str, vision: str, stages: tuple[str, ...] = WHOLE) -> Variant:
    return Variant(
        name=f"llama.cpp, {vision.lower()} mmproj, {decoder} decoder",
        peer="llama.cpp",
        module="benchmarks.peers.llamacpp",
        needs=("llama_cpp", "gguf"),
        stages=stages,
        settings={"vision": vision, "decoder": decoder},
        families=("smolvlm",),
        because="it puts the class token behind the patches (its issue 25814), which is another model",
    )


def _openvino(vision: str) -> Variant:
    return Variant(
        name=f"OpenVINO, {vision} vision",
        peer="openvino",
        module="benchmarks.peers.openvino",
        needs=("openvino", "nncf") if vision == "int8" else ("openvino",),
        stages=VISION,
        settings={"vision": vision},
    )


def _openvino_genai(decoder: str) -> Variant:
    return Variant(
        name=f"OpenVINO GenAI, int8 vision, {decoder} decoder",
        peer="openvino-genai",
        module="benchmarks.peers.openvino_genai",
        needs=("openvino_genai", "openvino_tokenizers", "nncf"),
        stages=UNFED,
        settings={"vision": "int8", "decoder": decoder},
        families=("internvl",),
        because="its VLMPipeline does not know that family",
    )


def _genai(decoder: str) -> Variant:
    return Variant(
        name=f"onnxruntime-genai, {decoder} decoder",
        peer="genai",
        module="benchmarks.peers.genai",
        needs=("onnxruntime_genai",),
        stages=DECODER,
        settings={"decoder": decoder},
    )


def _pytorch(dtype: str) -> Variant:
    return Variant(
        name=f"PyTorch, {dtype}",
        peer="pytorch",
        module="benchmarks.peers.pytorch",
        needs=("torch", "transformers"),
        settings={"dtype": dtype},
    )


VARIANTS = (
    _edgevl("int4"),
    _edgevl("int8"),
    _mixed("Q4_0", "BF16"),
    _llamacpp("Q4_0", "BF16"),
    # the decoder is the one above: what differs is the encoder, and with it the whole
    _llamacpp("Q4_0", "Q8_0", ("answer", "encode", "features")),
    _llamacpp("Q8_0", "BF16"),
    _openvino("bf16"),
    _openvino("int8"),
    _openvino_genai("int4"),
    _openvino_genai("int8"),
    _genai("int4"),
    _genai("int8"),
    _pytorch("float32"),
    _pytorch("bfloat16"),
)
PEERS = tuple(dict.fromkeys(variant.peer for variant in VARIANTS))
WITNESS = _llamacpp("F16", "BF16", ("greedy", "features"))
"""Not timed: llama.cpp with unquantized weights, which shows that its files hold the checkpoint."""


def by_name(name: str) -> Variant:
    """Return the variant called `name`."""
    return next(variant for variant in (*VARIANTS, WITNESS) if variant.name == name)
