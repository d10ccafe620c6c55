"""Time the stages of an open model one by one, each alone: none waits for another, and nothing is remembered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.loaded import Loaded
from edgevl.types import Chunk, TextChunk


@dataclass(frozen=True)
class DecoderTimes:
    """Seconds to feed a prompt, and the mean seconds of a token after it (NaN where there was no room for one)."""

    prefill_s: float
    step_s: float


def encode(model: Loaded, rng: np.random.Generator) -> tuple[float, NDArray[np.float32]]:
    """Encode a tile of noise; return the seconds and its features [tokens_per_tile, hidden]."""
    tile = model.manifest.image.tile
    pixel_values = rng.standard_normal((1, 3, tile, tile), np.float32)
    started = time.perf_counter()
    features = model.encoder.encode(pixel_values)
    return time.perf_counter() - started, features


def decode(model: Loaded, chunks: Sequence[Chunk], features: NDArray[np.float32], n_steps: int) -> DecoderTimes:
    """Feed `chunks` to the empty decoder, `features` for every tile, then choose `n_steps` tokens.

    The decoder is empty afterwards. What comes out is of no interest; neither stops it.
    """
    forget(model)
    try:
        started = time.perf_counter()
        for chunk in chunks:
            model.decoder.extend(_array(chunk, features))
        scores = model.decoder.logits()
        fed = time.perf_counter()
        n_steps = min(n_steps, model.manifest.decoder.context_length - model.decoder.n_past)
        for _ in range(n_steps):
            model.decoder.extend(np.array([scores.argmax()], np.int64))
            scores = model.decoder.logits()
        ended = time.perf_counter()
    finally:
        forget(model)
    return DecoderTimes(fed - started, (ended - fed) / n_steps if n_steps > 0 else float("nan"))


def forget(model: Loaded) -> None:
    """Empty the decoder."""
    model.decoder.truncate(0)
    model.held.clear()


def _array(chunk: Chunk, features: NDArray[np.float32]) -> NDArray[Any]:
    return np.array(chunk.token_ids, np.int64) if isinstance(chunk, TextChunk) else features
