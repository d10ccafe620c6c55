"""A prompt in steps: what the decoder is fed at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.image.tiling import TilePlan
from edgevl.types import Chunk, ImageChunk, TextChunk

LEAST = 192
"""Tokens with which a step is long enough: whatever its length, one costs some milliseconds more than its tokens."""

Step = tuple[Chunk, ...]


def cut(chunks: Sequence[Chunk], plans: Sequence[TilePlan], joined: bool) -> list[Step]:
    """Cut a prompt into steps: chunk by chunk, or `joined` until one is long enough or an image ends.

    The KV cache is remembered up to the end of an image. Between two texts an earlier turn's prompt ended, and a step
    with it. Where a step ends depends on nothing behind it, so that prompts that begin alike are cut alike.
    """
    steps: list[Step] = []
    is_open = False
    for chunk in chunks:
        is_open = is_open and not (isinstance(chunk, TextChunk) and isinstance(steps[-1][-1], TextChunk))
        steps[-1:] = [(*steps[-1], chunk)] if is_open else [*steps[-1:], (chunk,)]
        is_long = sum(part.n_tokens for part in steps[-1]) >= LEAST
        is_open = joined and not is_long and not ends_image(chunk, plans)
    return steps


def ends_image(chunk: Chunk, plans: Sequence[TilePlan]) -> bool:
    """Return whether a chunk is the last tile of an image."""
    return isinstance(chunk, ImageChunk) and chunk.tile == plans[chunk.image].n_tiles - 1


def chunks_of(steps: Sequence[Step]) -> Iterator[Chunk]:
    """Yield the chunks of steps."""
    return (chunk for step in steps for chunk in step)


def array(decoder: Any, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return a step as one array: token ids [n], features [n, hidden], or both, ids as the decoder embeds them."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([decoder.embed(part) if part.ndim == 1 else part for part in parts])
