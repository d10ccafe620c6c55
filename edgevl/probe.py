"""Measure an open model: each stage alone, and the profile by which first tokens are predicted.

What is measured is noise, and nothing of it is remembered. Whoever calls holds the model's turn.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.vision import run_ahead
from edgevl.image import pixels
from edgevl.image.read import Picture, read, resize
from edgevl.image.tiling import TilePlan
from edgevl.latency import kept
from edgevl.latency.profile import Profile, Work, resized_pixels, work_of
from edgevl.loaded import PREFIXES_BYTES, TILES_BYTES, Loaded
from edgevl.request import Request, TileSource, n_tokens, prefill
from edgevl.steps import Step, array
from edgevl.store.keys import tile_key
from edgevl.store.memory import Store
from edgevl.types import Chunk, ImageChunk, ImagePart, Message, SamplingParams, TextChunk, TextPart

PROBE_S = 0.5
"""How long a probe goes on; a model of which one tile takes longer is still asked twice."""
_ENOUGH = 5
"""Samples of which the median is sound though the machine stalls in one or two: a probe may take twice its time for
them."""
_QUESTION = "what's here?"
_N_FEW = 2  # tokens of a small step, such as the markers between tiles
_SIDE = 1024  # pixels; the size at which resizing is timed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecoderTimes:
    """Seconds to feed a prompt, and the mean seconds of a token after it (NaN where there was no room for one)."""

    prefill_s: float
    step_s: float


def encode(model: Loaded, rng: np.random.Generator) -> tuple[float, NDArray[np.float32]]:
    """Encode a tile of noise; return the seconds and its features [tokens_per_tile, hidden]."""
    pixel_values = _noise(model, rng)
    started = time.perf_counter()
    features = model.encoder.encode(pixel_values)
    return time.perf_counter() - started, features


def encode_at_once(model: Loaded, rng: np.random.Generator) -> float:
    """Encode as many tiles of noise side by side as requests do at most; return the seconds for each."""
    n = model.encoder.n_at_once
    jobs = [partial(model.encoder.encode, _noise(model, rng), n) for _ in range(n)]
    list(run_ahead(jobs, n))  # the first time takes longer
    return _timed(lambda: list(run_ahead(jobs, n))) / n


def _noise(model: Loaded, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return pixel values of a tile."""
    tile = model.manifest.image.tile
    return rng.standard_normal((1, 3, tile, tile), np.float32)


def cut(model: Loaded, picture: Picture, plan: TilePlan) -> float:
    """Resize a picture, cut it into tiles and make them the encoder's input; return the seconds."""
    spec = model.manifest.image
    started = time.perf_counter()
    for tile in pixels.tiles(picture, plan, spec.resample):
        _prepare(model, tile)
    return time.perf_counter() - started


def decode(model: Loaded, prompt: Sequence[Step], features: NDArray[np.float32], n_steps: int) -> DecoderTimes:
    """Feed `prompt` to the empty decoder, `features` for every tile, then choose `n_steps` tokens.

    The decoder is empty afterwards. What comes out is of no interest; neither stops it.
    """
    forget(model)
    try:
        started = time.perf_counter()
        for step in prompt:
            model.decoder.extend(array(model.decoder, [_array(chunk, features) for chunk in step]))
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


def decode_at(
    model: Loaded, contexts: Sequence[int], n_steps: int, held: NDArray[Any] | None = None
) -> tuple[dict[int, float], NDArray[Any]]:
    """Choose the last `n_steps` tokens up to each of `contexts`; return the mean seconds of one, and what was held.

    The longest context is fed, or taken from `held`, what was returned before; the shorter ones are its beginnings.
    What the tokens are is of no interest. The decoder is empty afterwards.
    """
    forget(model)
    decoder, seconds = model.decoder, {}
    n_before = n_steps + 1  # one is not counted: it comes after many at once
    longest = max(contexts) - n_before
    try:
        decoder.expect(max(contexts))
        if held is None or not decoder.load(held, longest):
            decoder.extend(np.arange(longest, dtype=np.int64) % model.manifest.decoder.vocab_size)
            decoder.settle()
            held = decoder.save()
        for context in sorted(contexts, reverse=True):
            decoder.truncate(context - n_before)
            decoder.extend(np.zeros(1, np.int64))
            seconds[context] = _timed(lambda: _choose(model, n_steps)) / n_steps
    finally:
        forget(model)
    return seconds, held


def _choose(model: Loaded, n_steps: int) -> None:
    for _ in range(n_steps):
        model.decoder.extend(np.array([model.decoder.logits().argmax()], np.int64))


def forget(model: Loaded) -> None:
    """Empty the decoder."""
    model.decoder.truncate(0)
    model.held.clear()


def _array(chunk: Chunk, features: NDArray[np.float32]) -> NDArray[Any]:
    return np.array(chunk.token_ids, np.int64) if isinstance(chunk, TextChunk) else features


@dataclass(frozen=True)
class _Asked:
    """One question: what there was to do, seconds to the first token, and those of its stages."""

    work: Work
    first_token_s: float
    encode_s: float


def profile_of(model: Loaded, key: kept.Key) -> Profile:
    """Measure this machine's profile and keep it; a profile that cannot be kept is measured again next time."""
    log.info("measuring this machine once, for about %.1f s", PROBE_S)
    profile = measure(model, PROBE_S)
    if not kept.write(key, profile):
        log.info("the profile of this machine cannot be kept in %s", kept.folder())
    return profile


def measure(model: Loaded, seconds: float) -> Profile:
    """Measure the profile, in about `seconds` on a model that is quick enough and a machine that does not stall.

    Rounds of a question about one tile and of its parts are followed by one about several tiles, if there is time for
    that: it tells what tiles save by going on side by side, and beside the prefill. The decoder is empty afterwards.
    """
    started = time.perf_counter()
    was_warm, quiet = model.is_warm, _without_stores(model)
    rng = np.random.default_rng()
    timers = _parts(quiet, rng)
    first = _ask(quiet, rng, (1, 1))
    rounds: list[_Asked] = []
    parts: dict[str, list[float]] = {name: [] for name in timers}
    while _goes_on(started, seconds / 2, len(rounds)):
        rounds.append(_ask(quiet, rng, (1, 1)))
        for name, seconds_of in timers.items():
            parts[name].append(seconds_of())
    one_s = median(asked.first_token_s for asked in rounds)
    profile = _from_one_tile(model, rounds, {name: median(found) for name, found in parts.items()})
    if not was_warm:
        profile = replace(profile, cold_s=max(first.first_token_s - one_s, 0.0))
    grid = next((grid for grid, n in _grids(quiet) if n * one_s <= 2 * seconds), None)
    several: list[_Asked] = []
    started = time.perf_counter()
    while grid and _goes_on(started, seconds / 2, len(several)):
        several.append(_ask(quiet, rng, grid))
    profile = _with_several(profile, several) if several else profile
    forget(model)
    model.is_warm = True
    return profile


def _grids(model: Loaded) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield the grids of several tiles that a question may have, the largest first, each with how many tiles it takes.

    Not every model cuts pictures, and in a short context few tiles have room.
    """
    tile, n_context = model.manifest.image.tile, model.manifest.decoder.context_length
    for rows, cols in ((2, 2), (1, 2)):
        plan = model.plan((rows * tile, cols * tile), "auto")
        chunks = model.chunks([Message("user", (ImagePart(None), TextPart(_QUESTION)))], [plan])
        if plan.n_tiles > 1 and n_tokens(chunks) < n_context:
            yield (rows, cols), plan.n_tiles


def _goes_on(started: float, seconds: float, n_samples: int) -> bool:
    """Return whether to measure on: for `seconds`, and up to twice that for samples enough; once in any case."""
    spent_s = time.perf_counter() - started
    return n_samples == 0 or spent_s < seconds or (n_samples < _ENOUGH and spent_s < 2 * seconds)


def _ask(model: Loaded, rng: np.random.Generator, grid: tuple[int, int]) -> _Asked:
    """Ask about a picture of noise as large as a grid of tiles; without a memory of earlier ones."""
    forget(model)
    tile = model.manifest.image.tile
    picture = read(rng.integers(0, 256, (grid[0] * tile, grid[1] * tile, 3), np.uint8))
    messages = [Message("user", (ImagePart(picture), TextPart(_QUESTION)))]
    started = time.perf_counter()
    request = Request(model, messages, detail="auto", params=SamplingParams())
    source = TileSource(model, request.images, request.plans)
    prefill(model, request, source, threading.Event(), None)
    model.decoder.logits().argmax()
    first_token_s = time.perf_counter() - started
    n_tiles = [sum(isinstance(chunk, ImageChunk) for chunk in request.chunks)]
    return _Asked(work_of(request.steps, request.plans, n_tiles), first_token_s, source.encode_s)


def _parts(model: Loaded, rng: np.random.Generator) -> dict[str, Callable[[], float]]:
    """Return what times, by name: feeding few tokens and a tile's, resizing a picture, cutting a tile."""
    spec = model.manifest.image
    rgb = rng.integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    tile = np.ascontiguousarray(rgb[: spec.tile, : spec.tile])
    features = rng.standard_normal((spec.tokens_per_tile, model.manifest.decoder.hidden_size), np.float32)

    def feed(array: NDArray[Any]) -> None:
        model.decoder.truncate(0)
        model.decoder.extend(array)
        model.decoder.settle()
        model.decoder.save()

    return {
        "few": lambda: _timed(lambda: feed(np.zeros(_N_FEW, np.int64))),
        "many": lambda: _timed(lambda: feed(features)),
        "resize": lambda: _timed(lambda: resize(rgb, (_SIDE // 2, _SIDE // 2), spec.resample)),
        "cut": lambda: _timed(lambda: _prepare(model, tile)),
    }


def _prepare(model: Loaded, tile: NDArray[np.uint8]) -> None:
    """Do to a tile what is done before it is encoded."""
    tile_key(model.vision_id, tile)
    pixels.normalise(tile, model.manifest.image.mean, model.manifest.image.std)


def _from_one_tile(model: Loaded, rounds: Sequence[_Asked], parts: dict[str, float]) -> Profile:
    """Return the profile by which one tile takes what it took, and each further one the same."""
    n_many = model.manifest.image.tokens_per_tile
    token_s = max(parts["many"] - parts["few"], 0.0) / max(n_many - _N_FEW, 1)
    encode_s = median(asked.encode_s for asked in rounds)
    profile = Profile(
        resize_s=parts["resize"] / (resized_pixels((_SIDE, _SIDE), (_SIDE // 2, _SIDE // 2)) * 1e-6),
        cut_s=parts["cut"],
        encode_s=encode_s,
        encode_more_s=encode_s,
        feed_s=max(parts["few"] - _N_FEW * token_s, 0.0),
        token_s=token_s,
        fixed_s=0.0,
        cold_s=0.0,
        saved_s=0.0,
    )
    over_s = [asked.first_token_s - profile.estimate(asked.work).first_token_s for asked in rounds]
    return replace(profile, fixed_s=max(median(over_s), 0.0))


def _with_several(profile: Profile, several: Sequence[_Asked]) -> Profile:
    """Return the profile by which several tiles take what they took."""
    work = several[0].work
    n_more = work.n_tiles - 1
    encode_more_s = (median(asked.encode_s for asked in several) - profile.encode_s) / n_more
    profile = replace(profile, encode_more_s=max(encode_more_s, 0.0))
    apart_s = profile.estimate(work).first_token_s
    return replace(profile, saved_s=(apart_s - median(asked.first_token_s for asked in several)) / n_more)


def store_nothing(model: Loaded) -> None:
    """Forget what is remembered of images, and keep what comes in memory alone; compiled graphs are still stored."""
    model.tiles, model.prefixes = Store("tiles", TILES_BYTES), Store("prefixes", PREFIXES_BYTES)


def _without_stores(model: Loaded) -> Loaded:
    """Return the same model, of which nothing is kept on disk and nothing has been kept yet."""
    quiet = copy.copy(model)
    store_nothing(quiet)
    return quiet


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
