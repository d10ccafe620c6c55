"""One request: messages to checked chunks, tiles to features, chunks into the decoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.vision import run_ahead
from edgevl.errors import ContextOverflow, GraphError, InputError
from edgevl.image import pixels
from edgevl.image.read import MAX_PIXELS, Picture, read
from edgevl.image.tiling import TilePlan
from edgevl.loaded import Loaded
from edgevl.types import (
    Chunk,
    Detail,
    Features,
    ImageChunk,
    ImageInfo,
    ImagePart,
    Message,
    SamplingParams,
    TextChunk,
)

OnTile = Callable[[int, int], None]


class Request:
    """Messages turned into chunks and checked against the context, before any graph runs.

    Raises ImageError, PromptError, InputError or ContextOverflow.
    """

    def __init__(
        self,
        model: Loaded,
        messages: Sequence[Message],
        *,
        detail: Detail,
        params: SamplingParams,
        max_pixels: int | None = None,
        reduce: bool = False,
    ) -> None:
        self.started = time.perf_counter()
        parts = [part.image for message in messages for part in message.parts if isinstance(part, ImagePart)]
        self.images = [open_image(part, max_pixels, reduce) for part in parts]
        self.read_s = time.perf_counter() - self.started
        self.params = params
        self.plans = [plan_image(model, image, detail) for image in self.images]
        self.chunks = model.chunks(messages, self.plans)
        self.n_tokens = n_tokens(self.chunks)
        n_context = model.manifest.decoder.context_length
        if self.n_tokens >= n_context:
            raise self._overflow(model, messages, n_context)
        self.limit = min(params.max_tokens, n_context - self.n_tokens)

    @property
    def n_image_tokens(self) -> int:
        """How many of the prompt's tokens are image features."""
        return sum(chunk.n_tokens for chunk in self.chunks if isinstance(chunk, ImageChunk))

    def text_ids(self) -> list[int]:
        """Return the ids of all text tokens of the prompt."""
        return [token for chunk in self.chunks if isinstance(chunk, TextChunk) for token in chunk.token_ids]

    def keys(self, chunk: Chunk) -> list[Hashable]:
        """Return what each token of `chunk` stands for: a token id, or an image's content, plan, tile and place."""
        if isinstance(chunk, TextChunk):
            return list(chunk.token_ids)
        image = self.images[chunk.image]
        content = image.image_id if isinstance(image, Features) else image.id
        return [(content, self.plans[chunk.image], chunk.tile, place) for place in range(chunk.n_tokens)]

    def infos(self, source: TileSource) -> tuple[ImageInfo, ...]:
        """Return what became of each image."""
        return tuple(
            ImageInfo(
                id=image.image_id if isinstance(image, Features) else image.id,
                size=image.size,
                grid=plan.grid,
                n_tiles=plan.n_tiles,
                n_encoded=source.n_encoded[index],
                n_tokens=sum(c.n_tokens for c in self.chunks if isinstance(c, ImageChunk) and c.image == index),
            )
            for index, (image, plan) in enumerate(zip(self.images, self.plans, strict=True))
        )

    def _overflow(self, model: Loaded, messages: Sequence[Message], n_context: int) -> ContextOverflow:
        choices: tuple[Detail, ...] = ("auto", 10, 5, "low")
        fitting = [choice for choice in choices if self._n_tokens_at(model, messages, choice) < n_context]
        if not self.images:
            remedy = "shorten the text"
        elif fitting:
            remedy = f"--detail {fitting[0]} would fit"
        else:
            remedy = "no --detail would fit; give fewer images or a shorter text"
        return ContextOverflow(
            f"the prompt has {self.n_tokens} tokens, {self.n_image_tokens} of them images, "
            f"but only {n_context - 1} fit into this model's context; {remedy}",
            n_tokens=self.n_tokens,
            n_context=n_context,
        )

    def _n_tokens_at(self, model: Loaded, messages: Sequence[Message], detail: Detail) -> int:
        return n_tokens(model.chunks(messages, [plan_image(model, image, detail) for image in self.images]))


class TileSource:
    """Features of a request's tiles: from `Features`, the tile store, or the encoder.

    Counts seconds for cutting (`tile_s`) and encoding (`encode_s`), and tiles encoded per image.
    """

    def __init__(self, model: Loaded, images: Sequence[Picture | Features], plans: Sequence[TilePlan]) -> None:
        self.tile_s = self.encode_s = 0.0
        self.n_encoded = [0] * len(images)
        self._model = model
        self._images = images
        self._plans = plans
        self._cut: tuple[int, list[NDArray[np.uint8]]] = (-1, [])

    def features(self, image: int, tile: int) -> NDArray[np.float32]:
        """Return [tokens_per_tile, hidden] of tile `tile` of image `image`; raises GraphError."""
        source = self._images[image]
        if isinstance(source, Features):
            return source.tiles[tile]
        started = time.perf_counter()
        rgb = self._tile(image, source, tile)
        key = self._model.tiles.key(rgb)
        found = self._model.tiles.get(key)
        if found is not None:
            self.tile_s += time.perf_counter() - started
            return found
        spec = self._model.manifest.image
        pixel_values = pixels.normalise(rgb, spec.mean, spec.std)
        cut = time.perf_counter()
        features = self._model.encoder.encode(pixel_values)
        self._model.tiles.put(key, features)
        self.tile_s += cut - started
        self.encode_s += time.perf_counter() - cut
        self.n_encoded[image] += 1
        return features

    def _tile(self, image: int, source: Picture, tile: int) -> NDArray[np.uint8]:
        if self._cut[0] != image:
            resample = self._model.manifest.image.resample
            self._cut = (image, list(pixels.tiles(source.rgb, self._plans[image], resample)))
        return self._cut[1][tile]


@dataclass(frozen=True)
class Prefilled:
    """How a prefill went: tokens found in the cache, seconds in the decoder, and whether it ran to its end."""

    n_cached: int
    prefill_s: float
    complete: bool


def prefill(
    model: Loaded, request: Request, source: TileSource, cancel: threading.Event, on_tile: OnTile | None
) -> Prefilled:
    """Feed the request's chunks to the decoder, beginning after the longest prefix that it already holds.

    Tile k is prefilled while a thread encodes tile k+1. `cancel` is seen between chunks; what has been fed stays
    usable for the next request.
    """
    n_cached, rest = _after_held_prefix(model, request)
    tiles = [chunk for chunk in rest if isinstance(chunk, ImageChunk)]
    features = run_ahead(source.features(chunk.image, chunk.tile) for chunk in tiles)
    prefill_s, n_done = 0.0, 0
    try:
        for chunk in rest:
            if cancel.is_set():
                return Prefilled(n_cached, prefill_s, complete=False)
            array: NDArray[Any]
            if isinstance(chunk, TextChunk):
                array = np.array(chunk.token_ids, np.int64)
            else:
                array = next(features)
                check_seam(array, chunk, request.plans[chunk.image])
            started = time.perf_counter()
            model.decoder.extend(array)
            model.held += request.keys(chunk)
            prefill_s += time.perf_counter() - started
            if isinstance(chunk, ImageChunk):
                n_done += 1
                if on_tile is not None:
                    on_tile(n_done, len(tiles))
    finally:
        features.close()
    return Prefilled(n_cached, prefill_s, complete=True)


def check_seam(features: NDArray[np.float32], chunk: ImageChunk, plan: TilePlan) -> None:
    """Raise GraphError unless a tile has as many features as the prompt keeps places for."""
    if features.shape[0] != chunk.n_tokens:
        raise GraphError(
            f"image {chunk.image + 1}, tile {chunk.tile + 1} of {plan.n_tiles}: the prompt keeps {chunk.n_tokens} "
            f"places, the vision graph gave {features.shape[0]} features; export the model again"
        )


def _after_held_prefix(model: Loaded, request: Request) -> tuple[int, list[Chunk]]:
    """Cut the decoder back to the longest prefix it shares with the request; return its length and the rest.

    At least one token is left to feed, and an image's tile is reused whole or not at all.
    """
    n_same, rest = 0, list(request.chunks)
    while rest:
        chunk = rest[0]
        keys = request.keys(chunk)
        held = model.held[n_same : n_same + len(keys)]
        same = next((i for i, (old, new) in enumerate(zip(held, keys, strict=False)) if old != new), len(held))
        if same == len(keys) and len(rest) > 1:
            n_same += same
            rest.pop(0)
            continue
        same = min(same, len(keys) - 1)
        if isinstance(chunk, TextChunk) and same:
            n_same += same
            rest[0] = TextChunk(chunk.token_ids[same:])
        break
    model.decoder.truncate(n_same)
    del model.held[n_same:]
    return n_same, rest


def open_image(source: Any, max_pixels: int | None = None, reduce: bool = False) -> Picture | Features:
    """Read an image unless it has been encoded already; see `read_picture`."""
    return source if isinstance(source, Features) else read_picture(source, max_pixels, reduce)


def read_picture(source: Any, max_pixels: int | None = None, reduce: bool = False) -> Picture:
    """Read an image of up to `max_pixels` (None: the default limit).

    With `reduce`, a JPEG over the limit is reduced while it is decoded instead of refused.
    """
    return read(source, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels, reduce=reduce)


def plan_image(model: Loaded, image: Picture | Features, detail: Detail) -> TilePlan:
    """Return an image's plan; `Features` bring theirs. Raises InputError for features of another model."""
    if isinstance(image, Picture):
        return model.plan(image.size, detail)
    if image.model_id != model.vision_id:
        raise InputError("these features were encoded by another model; encode the image again with this one")
    plan: TilePlan = image.plan
    return plan


def n_tokens(chunks: Sequence[Chunk]) -> int:
    """Return the length of a prompt in tokens."""
    return sum(chunk.n_tokens for chunk in chunks)
