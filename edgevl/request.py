"""One request: messages to checked chunks, tiles to features, chunks into the decoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl import steps
from edgevl.engine.vision import run_ahead
from edgevl.errors import ContextOverflow, GraphError, InputError
from edgevl.image import pixels, tiling
from edgevl.image.read import MAX_PIXELS, Picture, read
from edgevl.image.tiling import TilePlan
from edgevl.latency.choice import choose, levels, read_as
from edgevl.latency.profile import NEVER, Estimate, Profile, Work, work_of
from edgevl.loaded import Held, Loaded
from edgevl.model.prompt import is_conversation, shorter
from edgevl.store.keys import prefix_keys, tile_key, tiles_id
from edgevl.types import (
    Chunk,
    Detail,
    Features,
    Forecast,
    ImageChunk,
    ImageInfo,
    ImagePart,
    Message,
    SamplingParams,
    Seen,
    TextChunk,
    TextPart,
)

OnTile = Callable[[int, int], None]
LIKELY_ANSWER = 256
"""Tokens of an answer that room is made for at once."""


class Request:
    """Messages turned into chunks and checked against the context, before any graph runs.

    An image is cut by its own detail where it has one, else by `detail`.
    With a `profile` of this machine, `forecast` says what it will take; with a budget of `within_s` seconds too, its
    images get the most tiles up to that whose predicted first token keeps it, or the fewest if none does.
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
        profile: Profile | None = None,
        within_s: float | None = None,
    ) -> None:
        self.started = time.perf_counter()
        parts = [part for message in messages for part in message.parts if isinstance(part, ImagePart)]
        details = [detail if part.detail is None else part.detail for part in parts]
        self.images = [open_image(part.image, max_pixels, reduce) for part in parts]
        self.read_s = time.perf_counter() - self.started
        self.params = params
        self.forecast: Forecast | None = None
        n_context = model.manifest.decoder.context_length
        if profile is None:
            self._cut(model, messages, list(map(partial(plan_image, model), self.images, details)))
        else:
            self._choose(model, messages, details, profile, within_s)
        if self.n_tokens >= n_context:
            raise self._overflow(model, messages, n_context)
        self.limit = min(params.max_tokens, n_context - self.n_tokens)
        self.ready = time.perf_counter()

    @property
    def n_image_tokens(self) -> int:
        """How many of the prompt's tokens are image features."""
        return sum(chunk.n_tokens for chunk in self.chunks if isinstance(chunk, ImageChunk))

    def text_ids(self) -> list[int]:
        """Return the ids of all text tokens of the prompt."""
        return [token for chunk in self.chunks if isinstance(chunk, TextChunk) for token in chunk.token_ids]

    def keys(self, decoder_id: str) -> list[str]:
        """Return for each step what the prompt up to its end is: the key of the KV cache that it makes."""
        keys = prefix_keys(decoder_id, map(self._content, self.chunks))
        return [keys[n - 1] for n in accumulate(map(len, self.steps))]

    def ends_image(self, index: int) -> bool:
        """Return whether step `index` ends with the last tile of an image."""
        return steps.ends_image(self.steps[index][-1], self.plans)

    @cached_property
    def _contents(self) -> list[str]:
        return list(map(_content_of, self.images))

    def _content(self, chunk: Chunk) -> str:
        """Say what a chunk is: its token ids, or an image's content, plan and tile."""
        if isinstance(chunk, TextChunk):
            return ",".join(map(str, chunk.token_ids))
        return f"{self._contents[chunk.image]}:{self.plans[chunk.image]!r}:{chunk.tile}"

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

    def _cut(self, model: Loaded, messages: Sequence[Message], plans: Sequence[TilePlan]) -> None:
        self.plans = list(plans)
        self.chunks = model.chunks(messages, self.plans)
        self.steps = steps.cut(self.chunks, self.plans, model.joins_chunks)
        self.n_tokens = n_tokens(self.chunks)

    def _choose(
        self,
        model: Loaded,
        messages: Sequence[Message],
        details: Sequence[Detail],
        profile: Profile,
        within_s: float | None,
    ) -> None:
        """Cut the images by the first plans, from the most tiles to the fewest, that keep the budget.

        Those that do not fit into the context keep none.
        """
        choices = list(map(partial(plans_of_image, model), self.images, details))

        def estimate(plans: Sequence[TilePlan]) -> Estimate:
            self._cut(model, messages, plans)
            if self.n_tokens >= model.manifest.decoder.context_length:
                return NEVER
            return profile.estimate(self._work(model), read_s=self.read_s, is_cold=not model.is_warm)

        chosen = choose(map(estimate, levels(choices)), within_s)  # the last one cut
        fits = within_s is None or chosen.first_token_s <= within_s
        seen = tuple(
            Seen(plan.n_tiles, asked[0].n_tiles, plan.size, read_as(plan))
            for plan, asked in zip(self.plans, choices, strict=True)
        )
        self.forecast = Forecast(within_s=within_s, fits=fits, **vars(chosen), images=seen)

    def _work(self, model: Loaded) -> Work:
        """Return what is to be done behind the prefix that is held or stored.

        Stored tiles count as work: their keys need the pixels of a cut image, and this is asked of many cuts.
        """
        rest = self.steps[_n_reusable(model, self, self.keys(model.decoder_id)) :]
        images = [image for image, _ in _tiles(rest)]
        n_tiles = [images.count(index) if isinstance(image, Picture) else 0 for index, image in enumerate(self.images)]
        return work_of(rest, self.plans, n_tiles)

    def _overflow(self, model: Loaded, messages: Sequence[Message], n_context: int) -> ContextOverflow:
        choices: tuple[Detail, ...] = ("auto", 10, 5, "low")
        fitting = next((choice for choice in choices if self._n_tokens_at(model, choice) < n_context), None)
        if not self.images or is_conversation(messages):
            remedy = shorter(messages)
        elif fitting:
            remedy = f"--detail {fitting} would fit"
        else:
            remedy = "no --detail would fit; give fewer images or a shorter text"
        return ContextOverflow(
            f"the prompt has {self.n_tokens} tokens, {self.n_image_tokens} of them images, "
            f"but only {n_context - 1} fit into this model's context; {remedy}",
            n_tokens=self.n_tokens,
            n_context=n_context,
        )

    def _n_tokens_at(self, model: Loaded, detail: Detail) -> int:
        """Return the prompt's length with other plans; its text, which may be long, is not tokenized again."""
        plans = [plan_image(model, image, detail) for image in self.images]
        return self.n_tokens + _n_places(model, plans) - _n_places(model, self.plans)


class TileSource:
    """Features of a request's tiles: from `Features`, the tile store, or the encoder. Safe to call from its threads.

    Counts seconds for cutting (`tile_s`), seconds in which the encoder was at work (`encode_s`), and tiles encoded
    per image.
    """

    def __init__(self, model: Loaded, images: Sequence[Picture | Features], plans: Sequence[TilePlan]) -> None:
        self.tile_s = 0.0
        self.n_encoded = [0] * len(images)
        self._model = model
        self._images = images
        self._plans = plans
        self._cut: tuple[int, dict[int, NDArray[np.uint8]]] = (-1, {})  # an image, and its tiles not yet taken
        self._cutting = threading.Lock()
        self._encoding = Busy()
        self._locks: dict[str, threading.Lock] = {}

    @property
    def encode_s(self) -> float:
        """Seconds in which at least one tile was being encoded."""
        return self._encoding.seconds

    def ahead(
        self,
        tiles: Sequence[tuple[int, int]],
        on_tile: OnTile | None = None,
        at_end: Callable[[], object] = lambda: None,
    ) -> Generator[NDArray[np.float32], None, None]:
        """Yield the features of `tiles` (image, tile) in order, worked on ahead; `on_tile` is told before each.

        `at_end` is called by the thread that is the last to work on them, as soon as it is done.
        """
        features = self._ahead(tiles, at_end)
        try:
            for n_done, array in enumerate(features, start=1):
                if on_tile is not None:
                    on_tile(n_done, len(tiles))
                yield array
        finally:
            features.close()

    def _ahead(
        self, tiles: Sequence[tuple[int, int]], at_end: Callable[[], object]
    ) -> Generator[NDArray[np.float32], None, None]:
        """Return the features of `tiles` in order, by as many threads as are of use."""
        if all(isinstance(self._images[image], Features) for image, _ in tiles):
            at_end()
            return (self.features(*tile) for tile in tiles)
        n_at_once = min(self._model.encoder.n_at_once, len(tiles))
        ended = count(1)

        def job(tile: tuple[int, int]) -> NDArray[np.float32]:
            try:
                return self.features(*tile, n_at_once)
            finally:
                if next(ended) == len(tiles):
                    at_end()

        jobs = (partial(job, tile) for tile in tiles)
        if n_at_once == 1:  # nothing would be saved, and a tile that is stored needs no encoder
            return run_ahead(jobs)
        # One thread opens the encoder while another one cuts the image: each takes a third of a second.
        return run_ahead(jobs, n_at_once, before=lambda: self._model.encoder.open(n_at_once))

    def features(self, image: int, tile: int, n_at_once: int = 1) -> NDArray[np.float32]:
        """Return [tokens_per_tile, hidden] of tile `tile` of image `image`; raises GraphError."""
        source = self._images[image]
        if isinstance(source, Features):
            return source.tiles[tile]
        with self._cutting:
            started = time.perf_counter()
            rgb = self._tile(image, source, tile)
            key = tile_key(self._model.vision_id, rgb)
            lock = self._locks.setdefault(key, threading.Lock())
            self.tile_s += time.perf_counter() - started
        with lock:  # a tile that comes twice is encoded once
            found = self._model.tiles.get(key)
            return self._encode(image, key, rgb, n_at_once) if found is None else found

    def _encode(self, image: int, key: str, rgb: NDArray[np.uint8], n_at_once: int) -> NDArray[np.float32]:
        spec = self._model.manifest.image
        started = time.perf_counter()
        pixel_values = pixels.normalise(rgb, spec.mean, spec.std)
        cut_s = time.perf_counter() - started
        with self._encoding:
            features = self._model.encoder.encode(pixel_values, n_at_once)
            self._model.tiles.put(key, features)
        with self._cutting:
            self.tile_s += cut_s
            self.n_encoded[image] += 1
        return features

    def _tile(self, image: int, source: Picture, tile: int) -> NDArray[np.uint8]:
        if self._cut[0] != image or tile not in self._cut[1]:
            resample = self._model.manifest.image.resample
            self._cut = (image, dict(enumerate(pixels.tiles(source.rgb, self._plans[image], resample))))
        return self._cut[1].pop(tile)


class Busy:
    """Counts the seconds in which at least one thread is inside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._n_inside = 0
        self._since = 0.0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._since = time.perf_counter()
            self._n_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self.seconds += time.perf_counter() - self._since


@dataclass(frozen=True)
class Prefilled:
    """How a prefill went: tokens found in the cache, seconds in the decoder, and whether it ran to its end."""

    n_cached: int
    prefill_s: float
    complete: bool


NOTHING = Prefilled(0, 0.0, complete=False)
"""What was prefilled of a request that was cancelled before."""


def prefill(
    model: Loaded, request: Request, source: TileSource, cancel: threading.Event, on_tile: OnTile | None
) -> Prefilled:
    """Feed the request's chunks to the decoder, beginning after the longest prefix that is held or stored.

    Tile k is prefilled while threads encode the next ones, unless encoder and decoder take turns. `cancel` is seen
    between chunks, and by some decoders within a step; what has been fed stays usable for the next request. A prefix is
    reused by whole steps, each settled before the next one is fed, so that every step is computed from the same
    bits, with and without reuse.
    """
    model.is_warm = True
    begun = None
    if model.takes_turns:
        begun = _encode_first(model, request, source, cancel, on_tile)
        if begun is None:
            return NOTHING
    decoder = model.decoder  # which may be opened now
    started = time.perf_counter()
    keys = request.keys(model.decoder_id)
    decoder.expect(request.n_tokens + min(request.limit, LIKELY_ANSWER))
    first, last_image = _reuse(model, request, keys), _last_image(request)
    n_cached = decoder.n_past
    rest = request.steps[first:]
    features = _features(source, _tiles(rest), begun, on_tile)
    prefill_s = time.perf_counter() - started
    try:
        for index, step in enumerate(rest, start=first):
            parts = _parts(request, step, features, cancel)
            if cancel.is_set():
                return Prefilled(n_cached, prefill_s, complete=False)
            started = time.perf_counter()
            if not decoder.extend(steps.array(decoder, parts), cancel):
                return Prefilled(n_cached, prefill_s, complete=False)
            decoder.settle()
            if index == last_image:
                model.prefixes.put(keys[index], decoder.save())
            model.held.append(Held(keys[index], decoder.n_past))
            prefill_s += time.perf_counter() - started
    finally:
        features.close()
    return Prefilled(n_cached, prefill_s, complete=True)


def _parts(
    request: Request, step: steps.Step, features: Iterator[NDArray[np.float32]], cancel: threading.Event
) -> list[NDArray[Any]]:
    """Return token ids or features of each of a step's chunks; not all of them once `cancel` is set."""
    parts: list[NDArray[Any]] = []
    for chunk in step:
        if cancel.is_set():
            break
        if isinstance(chunk, TextChunk):
            parts.append(np.array(chunk.token_ids, np.int64))
        else:
            parts.append(next(features))
            check_seam(parts[-1], chunk, request.plans[chunk.image])
    return parts


Begun = tuple[list[tuple[int, int]], Generator[NDArray[np.float32], None, None]]
"""Tiles that are being encoded, and their features."""


def _encode_first(
    model: Loaded, request: Request, source: TileSource, cancel: threading.Event, on_tile: OnTile | None
) -> Begun | None:
    """Encode what the decoder will want of the request, up to where it may be opened; None if it was cancelled.

    The encoder is let go by the thread that is the last to use it.
    """
    keys = request.keys(model.likely_decoder_id)
    tiles = _tiles(request.steps[_n_reusable(model, request, keys) :])
    features = source.ahead(tiles, on_tile, at_end=model.let_encoder_go)
    if not tiles:
        model.let_encoder_go()
        return tiles, features
    n_beside = model.n_beside(len(tiles))
    done: list[NDArray[np.float32]] = []
    try:
        for array in islice(features, len(tiles) - n_beside):
            done.append(array)
            if cancel.is_set():
                features.close()
                return None
        if not model.reads_mapped:
            features.close()  # when the encoder is gone
    except BaseException:
        features.close()
        raise
    if n_beside:
        model.leave_threads(n_beside)
    return tiles, _resumed(model, done, features)


def _resumed(
    model: Loaded, done: list[NDArray[np.float32]], features: Generator[NDArray[np.float32], None, None]
) -> Generator[NDArray[np.float32], None, None]:
    """Yield features that are there, then those that are still coming; the decoder has all threads again then."""
    try:
        yield from done
        for array in features:
            model.use_all_threads()
            yield array
    finally:
        features.close()
        model.use_all_threads()


def _features(
    source: TileSource, tiles: list[tuple[int, int]], begun: Begun | None, on_tile: OnTile | None
) -> Generator[NDArray[np.float32], None, None]:
    """Yield the features of tiles that are left to feed: as a rule those that were begun with.

    Where a stored prefix turned out to be damaged, they are more; then the encoder is opened again for them.
    """
    if begun is None:
        return source.ahead(tiles, on_tile)
    if begun[0] == tiles:
        return begun[1]
    begun[1].close()
    return source.ahead(tiles)  # on_tile was told


def _tiles(some: Sequence[steps.Step]) -> list[tuple[int, int]]:
    """Return the tiles (image, tile) of steps."""
    return [(chunk.image, chunk.tile) for chunk in steps.chunks_of(some) if isinstance(chunk, ImageChunk)]


def check_seam(features: NDArray[np.float32], chunk: ImageChunk, plan: TilePlan) -> None:
    """Raise GraphError unless a tile has as many features as the prompt keeps places for."""
    if features.shape[0] != chunk.n_tokens:
        raise GraphError(
            f"image {chunk.image + 1}, tile {chunk.tile + 1} of {plan.n_tiles}: the prompt keeps {chunk.n_tokens} "
            f"places, the vision graph gave {features.shape[0]} features; export the model again"
        )


def _reuse(model: Loaded, request: Request, keys: Sequence[str]) -> int:
    """Bring the decoder to the longest prefix of the request that it holds or that is stored.

    Returns the steps that are done; at least one is left to feed, so that there are scores to choose from.
    """
    n_same = _n_held(model, keys)
    for index in range(len(keys) - 2, n_same - 1, -1):
        if request.ends_image(index) and _restore(model, request, keys[: index + 1]):
            return index + 1
    del model.held[n_same:]
    model.decoder.truncate(model.held[-1].n_tokens if model.held else 0)
    return n_same


def _n_held(model: Loaded, keys: Sequence[str]) -> int:
    """Return how many steps at the beginning the decoder holds; the last one never counts."""
    n_past = model.decoder.n_past if model.held else 0  # less than is noted where there was no room to grow
    held = [part.key for part in model.held if part.n_tokens <= n_past]
    n_same = next((i for i, pair in enumerate(zip(held, keys[:-1], strict=False)) if pair[0] != pair[1]), None)
    return min(len(held), len(keys) - 1) if n_same is None else n_same


def _n_reusable(model: Loaded, request: Request, keys: Sequence[str]) -> int:
    """Return how many steps at the beginning `_reuse` will most likely find, without touching the decoder."""
    n_held = _n_held(model, keys)
    stored = (i for i in range(len(keys) - 2, n_held - 1, -1) if request.ends_image(i) and model.prefixes.has(keys[i]))
    return next(stored, n_held - 1) + 1


def _restore(model: Loaded, request: Request, keys: Sequence[str]) -> bool:
    """Load the stored KV cache of the steps that `keys` name; return whether there is one."""
    state = model.prefixes.get(keys[-1])
    if state is None:
        return False
    ends = list(accumulate(map(n_tokens, request.steps[: len(keys)])))
    held, model.held[:] = model.held[:], []  # a load that Ctrl-C stops leaves nothing that could be relied on
    if not model.decoder.load(state, ends[-1]):
        model.held[:] = held
        return False
    model.held[:] = [Held(key, end) for key, end in zip(keys, ends, strict=True)]
    return True


def _last_image(request: Request) -> int:
    """Return the index of the step that ends the last image; -1 without an image."""
    return max((i for i in range(len(request.steps)) if request.ends_image(i)), default=-1)


def check_callbacks(**callbacks: object) -> None:
    """Raise InputError for what is to be called and cannot be, by its option's name."""
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise InputError(f"{name} is {repr(callback)[:60]}; it must be a function, or None")


def open_image(source: Any, max_pixels: int | None = None, reduce: bool = False) -> Picture | Features:
    """Read an image unless it has been encoded already; see `read_picture`."""
    return source if isinstance(source, Features) else read_picture(source, max_pixels, reduce)


def read_picture(source: Any, max_pixels: int | None = None, reduce: bool = False) -> Picture:
    """Read an image of up to `max_pixels` (None: the default limit).

    With `reduce`, a JPEG over the limit is reduced while it is decoded instead of refused.
    """
    return read(source, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels, reduce=reduce)


def plan_image(model: Loaded, image: Picture | Features, detail: Detail) -> TilePlan:
    """Return an image's plan; `Features` bring theirs.

    Raises InputError for those of another model or processor, and for those whose tiles do not fit their plan.
    """
    if isinstance(image, Picture):
        return model.plan(image.size, detail)
    if image.model_id != model.vision_id:
        raise InputError(
            "these features were encoded by another model or on another kind of processor; encode the image again here"
        )
    plan, spec = image.plan, model.manifest
    shape = spec.image.tokens_per_tile, spec.decoder.hidden_size
    if not isinstance(plan, TilePlan) or len(image.tiles) != plan.n_tiles or not all(map(_are_of(shape), image.tiles)):
        raise InputError(
            f"these features do not fit their plan: it wants an array of float32 {list(shape)} of finite values for "
            "each tile; encode the image again"
        )
    return plan


def _are_of(shape: tuple[int, int]) -> Callable[[Any], bool]:
    """Return a check that something is features of this shape, such as the encoder gives."""

    def check(tile: Any) -> bool:
        is_array = isinstance(tile, np.ndarray) and tile.dtype == np.float32
        return is_array and tile.shape == shape and bool(np.isfinite(tile).all())

    return check


def _content_of(image: Picture | Features) -> str:
    """Say which image this is: by its pixels, or by its features where they are not those of the pixels any more."""
    if isinstance(image, Picture):
        return image.id
    found = tiles_id(image.tiles)
    return image.image_id if found == image.tiles_id else found


def plans_of_image(model: Loaded, image: Picture | Features, detail: Detail) -> Sequence[TilePlan]:
    """Return the plans that an image may get, from `detail`'s down; `Features` have one. Raises like `plan_image`."""
    if isinstance(image, Picture):
        return tiling.coarser(image.size, model.manifest.image, model.family.tiling, detail)
    return [plan_image(model, image, detail)]


def _n_places(model: Loaded, plans: Sequence[TilePlan]) -> int:
    """Return the length of a short prompt with images so cut."""
    images = map(ImagePart, [None] * len(plans))
    return n_tokens(model.chunks([Message("user", (*images, TextPart("?")))], plans))


def n_tokens(chunks: Sequence[Chunk]) -> int:
    """Return the length of a prompt in tokens."""
    return sum(chunk.n_tokens for chunk in chunks)
