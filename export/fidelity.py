"""How near the exported model is to what it was made from, measured on pictures through the runtime's own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.decoder import Decoder
from edgevl.errors import ExportError
from edgevl.image import pixels, tiling
from edgevl.image.read import Picture
from edgevl.image.tiling import TilePlan
from edgevl.loaded import Loaded
from edgevl.model.families import FAMILIES
from edgevl.model.manifest import Fidelity, ImageSpec
from edgevl.types import Chunk, ImagePart, Message, TextChunk, TextPart
from edgevl.verify import cosine

ASKED = (Message("user", (ImagePart(None), TextPart("What is in this image?"))),)
MAX_TOKENS = 24
MAX_TILES = 6
"""A picture of more tiles is measured by its overview alone, to bound the time of the reference."""

Array = NDArray[np.float32]
Encode = Callable[[Array], Array]
"""From a tile's `pixel_values` [1, 3, tile, tile] to its features [n, hidden]."""
Answer = Callable[[Sequence[Chunk], Sequence[Array], Loaded], tuple[list[int], Array]]
"""From a prompt, its features a tile and the exported model to a greedy answer and its logits [n, vocab] before each
of its tokens."""


@dataclass(frozen=True)
class Sample:
    """A picture, cut: its plan, its tiles' `pixel_values` [1, 3, tile, tile], the reference's features [n, hidden]."""

    plan: TilePlan
    tiles: tuple[Array, ...]
    features: tuple[Array, ...]


def fitting_plan(
    size: tiling.Size, spec: ImageSpec, family: str, count: Callable[[TilePlan], int], context_length: int
) -> TilePlan:
    """Return how a picture of `size` is cut by default; its overview alone where that is much or does not fit.

    `count` returns the tokens of ASKED with a picture so cut. Raises ExportError where not even the overview fits.
    """
    plan, overview = (tiling.plan(size, spec, FAMILIES[family].tiling, detail) for detail in ("auto", "low"))
    if plan.n_tiles <= MAX_TILES and count(plan) < context_length:
        return plan
    if (n_tokens := count(overview)) >= context_length:
        raise ExportError(
            f"a question about one tile of an image takes {n_tokens} tokens, but only {context_length - 1} fit into "
            "this model's context; use a model with a longer one"
        )
    return overview


def sample(picture: Picture, plan: TilePlan, spec: ImageSpec, features: Encode) -> Sample:
    """Cut a picture by a plan and run the reference's vision encoder on its tiles."""
    cut = pixels.tiles(picture.rgb, plan, spec.resample)
    tiles = tuple(pixels.normalise(rgb, spec.mean, spec.std) for rgb in cut)
    return Sample(plan, tiles, tuple(map(features, tiles)))


def feature_cosines(samples: Sequence[Sample], encode: Encode) -> NDArray[np.float64]:
    """Return the cosine of every feature of every tile between the reference and `encode`, flat."""
    return np.concatenate(
        [cosine(encode(tile), wanted) for one in samples for tile, wanted in zip(one.tiles, one.features, strict=True)]
    )


def measure(
    answer: Answer | None,
    exported: Loaded,
    samples: Sequence[Sample],
    kept: Sequence[str],
    progress: Callable[[float], None],
) -> Fidelity:
    """Compare features, and next-token distributions along the reference's own greedy answers.

    The exported decoder is fed the exported features and the reference's tokens (teacher forcing), so that one
    early difference does not count as many. Without an `answer` the reference's decoder is the exported one, with the
    reference's features. `progress` hears the share that is done.
    """
    cosines, divergences, equal = [], [], []
    for index, one in enumerate(samples):
        features = [exported.encoder.encode(tile) for tile in one.tiles]
        cosines += [cosine(got, wanted) for got, wanted in zip(features, one.features, strict=True)]
        chunks = exported.chunks(ASKED, [one.plan])
        token_ids, wanted_logits = (answer or _own_answer)(chunks, one.features, exported)
        got_logits = np.stack(list(_forced(exported, chunks, features, token_ids)))
        divergences.append(_kl(wanted_logits, got_logits))
        equal.append(wanted_logits.argmax(axis=-1) == got_logits.argmax(axis=-1))
        progress((index + 1) / len(samples))
    exported.decoder.truncate(0)
    every = np.concatenate(cosines)
    return Fidelity(
        n_images=len(samples),
        feature_cosine=round(float(every.mean()), 7),
        feature_cosine_min=round(float(every.min()), 7),
        logit_kl=round(float(np.concatenate(divergences).mean()), 7),
        equal_tokens=round(float(np.concatenate(equal).mean()), 4),
        kept=tuple(kept),
    )


def most_tokens(exported: Loaded, n_prompt: int) -> int:
    """Return how long an answer to a prompt of `n_prompt` positions becomes at most."""
    return min(MAX_TOKENS, exported.manifest.decoder.context_length - n_prompt)


def _own_answer(chunks: Sequence[Chunk], features: Sequence[Array], exported: Loaded) -> tuple[list[int], Array]:
    """Return the exported decoder's greedy answer and its logits [n, vocab] before each of its tokens."""
    decoder = exported.decoder
    _feed(decoder, chunks, features)
    logits = [decoder.logits()]
    token_ids = [int(logits[-1].argmax())]
    n_most = most_tokens(exported, decoder.n_past)
    while len(token_ids) < n_most and token_ids[-1] not in exported.manifest.tokenizer.eos_token_ids:
        decoder.extend(np.array(token_ids[-1:], np.int64))
        logits.append(decoder.logits())
        token_ids.append(int(logits[-1].argmax()))
    return token_ids, np.stack(logits)


def _feed(decoder: Decoder, chunks: Sequence[Chunk], features: Sequence[Array]) -> None:
    """Feed a prompt to the emptied decoder."""
    decoder.truncate(0)
    for chunk in chunks:
        decoder.extend(np.array(chunk.token_ids, np.int64) if isinstance(chunk, TextChunk) else features[chunk.tile])


def _forced(
    exported: Loaded, chunks: Sequence[Chunk], features: Sequence[Array], token_ids: Sequence[int]
) -> Iterator[Array]:
    """Yield the exported decoder's logits before each of `token_ids`, whatever it would have said itself."""
    decoder = exported.decoder
    _feed(decoder, chunks, features)
    yield decoder.logits()
    for token_id in token_ids[:-1]:
        decoder.extend(np.array([token_id], np.int64))
        yield decoder.logits()


def _kl(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return KL(wanted || got) in nats of each row of logits [n, vocab]."""
    p, q = _log_softmax(wanted), _log_softmax(got)
    divergence: NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return divergence


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
