"""How near the exported model is to the PyTorch one, measured on pictures through the runtime's own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgevl.engine.decoder import Decoder
from edgevl.image import pixels, tiling
from edgevl.image.read import Picture
from edgevl.image.tiling import TilePlan
from edgevl.loaded import Loaded
from edgevl.model.families import FAMILIES
from edgevl.model.manifest import Fidelity, ImageSpec
from edgevl.types import Chunk, ImagePart, Message, TextChunk, TextPart
from edgevl.verify import cosine

from .families import TorchModel

QUESTION = "What is in this image?"
MAX_TOKENS = 24
MAX_TILES = 6
"""A picture of more tiles is measured by its overview alone, to bound the time of the PyTorch model."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A picture, cut: its plan, its tiles' `pixel_values` [1, 3, tile, tile] and their PyTorch features [n, hidden]."""

    plan: TilePlan
    tiles: tuple[Array, ...]
    features: tuple[Array, ...]


@torch.no_grad()
def sample(picture: Picture, spec: ImageSpec, family: str, reference: TorchModel) -> Sample:
    """Cut a picture as the runtime does by default and run the PyTorch vision encoder on its tiles."""
    tiling_name = FAMILIES[family].tiling
    plan = tiling.plan(picture.size, spec, tiling_name, "auto")
    if plan.n_tiles > MAX_TILES:
        plan = tiling.plan(picture.size, spec, tiling_name, "low")
    cut = pixels.tiles(picture.rgb, plan, spec.resample)
    tiles = tuple(pixels.normalise(rgb, spec.mean, spec.std) for rgb in cut)
    features = tuple(reference.vision(torch.from_numpy(tile))[0].numpy() for tile in tiles)
    return Sample(plan, tiles, features)


def feature_cosines(samples: Sequence[Sample], encode: Callable[[Array], Array]) -> NDArray[np.float64]:
    """Return the cosine of every feature of every tile between PyTorch and `encode`, flat."""
    return np.concatenate(
        [cosine(encode(tile), wanted) for one in samples for tile, wanted in zip(one.tiles, one.features, strict=True)]
    )


def measure(
    reference: TorchModel,
    exported: Loaded,
    samples: Sequence[Sample],
    kept: Sequence[str],
    progress: Callable[[float], None],
) -> Fidelity:
    """Compare features, and next-token distributions along the PyTorch model's own greedy answers.

    The exported decoder is fed the exported features and the reference's tokens (teacher forcing), so that one
    early difference does not count as many. Where the reference has no decoder of its own, it is the exported one with
    the PyTorch features. `progress` hears the share that is done.
    """
    cosines, divergences, equal = [], [], []
    for index, one in enumerate(samples):
        features = [exported.encoder.encode(tile) for tile in one.tiles]
        cosines += [cosine(got, wanted) for got, wanted in zip(features, one.features, strict=True)]
        chunks = exported.chunks([Message("user", (ImagePart(None), TextPart(QUESTION)))], [one.plan])
        answer = _own_answer if reference.text is None else _answer
        token_ids, wanted_logits = answer(reference.text, chunks, one.features, exported)
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


@torch.no_grad()
def _answer(
    text: Any, chunks: Sequence[Chunk], features: Sequence[Array], exported: Loaded
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the PyTorch model's greedy answer and its logits [n, vocab] before each of its tokens."""
    table = text.get_input_embeddings()
    parts = [
        table(torch.tensor(chunk.token_ids)) if isinstance(chunk, TextChunk) else torch.from_numpy(features[chunk.tile])
        for chunk in chunks
    ]
    embeds, past = torch.cat(parts)[None], None
    token_ids: list[int] = []
    logits: list[Array] = []
    ends = exported.manifest.tokenizer.eos_token_ids
    room = exported.manifest.decoder.context_length - embeds.shape[1]
    while len(token_ids) < min(MAX_TOKENS, room) and not (token_ids and token_ids[-1] in ends):
        out = text(inputs_embeds=embeds, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        logits.append(out.logits[0, -1].numpy())
        token_ids.append(int(logits[-1].argmax()))
        embeds = table(torch.tensor([token_ids[-1:]]))
    return token_ids, np.stack(logits)


def _own_answer(
    text: None, chunks: Sequence[Chunk], features: Sequence[Array], exported: Loaded
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the exported decoder's greedy answer and its logits [n, vocab] before each of its tokens."""
    decoder = exported.decoder
    _feed(decoder, chunks, features)
    logits = [decoder.logits()]
    token_ids = [int(logits[-1].argmax())]
    ends = exported.manifest.tokenizer.eos_token_ids
    room = exported.manifest.decoder.context_length - decoder.n_past
    while len(token_ids) < min(MAX_TOKENS, room) and token_ids[-1] not in ends:
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
