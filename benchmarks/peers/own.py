"""edgevl itself: answers as a user gets them, stages through the engine beneath."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers import N_PREFILL_TEXT, Variant, llamacpp
from benchmarks.peers.case import ROOT, Case, digest
from edgevl import steps
from edgevl.engine.vision import run_ahead
from edgevl.types import ImageChunk, TextChunk


def folder(case: Case, variant: Variant) -> Path:
    """Return the model folder of a variant; another export makes another folder."""
    sources = sorted((ROOT / "export").glob("*.py"))
    return case.path(f"edgevl-{variant.settings['vision']}-{variant.settings['decoder']}-{digest(sources)}")


def build(case: Case, variant: Variant) -> None:
    """Export the checkpoint, or import llama.cpp's files of it; measured on one picture."""
    from edgevl.export import export_model, import_gguf

    out, settings = folder(case, variant), variant.settings
    if out.exists():
        return
    vision, sample = settings["vision"], case.photo(0)
    if "files" in settings:
        llamacpp.build(case, settings["files"])
        decoder, mmproj = llamacpp.paths(case, settings["files"])
        import_gguf(decoder, mmproj, out, vision=vision, samples=[sample])
    else:
        export_model(case.checkpoint, out, vision=vision, decoder=settings["decoder"], samples=[sample])


class Peer:
    """One open model."""

    def __init__(self, case: Case, variant: Variant) -> None:
        import edgevl

        self._case = case
        self._vlm = edgevl.load(folder(case, variant), threads=case.n_threads, low_memory=True)  # as `edgevl ask` does
        decoder = self._model.likely_decoder_id.rpartition(":")[2]  # not opened for this
        self.about = {"vision": self._model.encoder.backend, "decoder": decoder}

    @property
    def _model(self) -> Any:
        return self._vlm._open()

    def answer(self, image: str, question: str, n_tokens: int) -> dict[str, Any]:
        """Answer through the public stream; encoder and decoder take turns in it."""
        with self._vlm.stream(Path(image), question, detail="high", max_tokens=n_tokens) as stream:
            next(stream, None)
            first_token_at = time.time()
            for _ in stream:
                pass
        answer, [info] = stream.answer, stream.answer.images
        timings = answer.timings
        return {
            "read_s": timings.read_s,
            "tile_s": timings.tile_s,
            "encode_s": timings.encode_s,
            "prefill_s": timings.prefill_s,
            "first_token_s": timings.first_token_s,
            "first_token_at": first_token_at,
            "n_tokens": answer.usage.prompt_tokens,
            "n_cached": answer.usage.cached_tokens,
            "n_tiles": info.n_tiles,
            "n_encoded": info.n_encoded,
        }

    def differing(self, images: Sequence[str]) -> int:
        """Return how many tiles differ between two pictures of one size."""
        first, second = (self._cut(Path(image)) for image in images)
        return sum(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))

    def _cut(self, image: Path) -> list[NDArray[np.uint8]]:
        from edgevl.image import pixels
        from edgevl.image.read import read

        picture, model = read(image), self._model
        return list(pixels.tiles(picture, model.plan(picture.size, "high"), model.manifest.image.resample))

    def encode(self, n_tiles: int) -> list[float]:
        """Time the encoder alone, as many tiles side by side as it likes."""
        encoder, values = self._model.encoder, np.array(self._case.load("pixel_values")[:n_tiles])
        n_at_once = min(encoder.n_at_once, n_tiles)
        jobs = [partial(encoder.encode, tile[None], n_at_once) for tile in values]
        list(run_ahead(jobs, n_at_once))
        started = time.perf_counter()
        list(run_ahead(jobs, n_at_once))
        return [(time.perf_counter() - started) / n_tiles] * n_tiles

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return the encoder's features."""
        values = np.array(self._case.load("pixel_values")[:n_tiles])
        return np.stack([self._model.encoder.encode(tile[None]) for tile in values])

    def prefill(self) -> list[float]:
        """Feed the prompt step by step, as the runtime does."""
        left = self._case.chunks()
        prompt = [[next(left) for _ in step] for step in self._steps()]
        decoder = self._ready(prompt[0][0])
        started = time.perf_counter()
        for step in prompt:
            decoder.extend(steps.array(decoder, step))
        decoder.logits()
        return [decoder.n_past / (time.perf_counter() - started)]

    def _steps(self) -> list[steps.Step]:
        """Return the case's prompt as the runtime cuts it."""
        with Image.open(self._case.photo(0)) as picture:
            plan = self._model.plan(picture.size[::-1], "high")
        per_tile = self._model.manifest.image.tokens_per_tile
        chunks = [
            TextChunk(tuple(chunk)) if isinstance(chunk, list) else ImageChunk(0, chunk, per_tile)
            for chunk in self._case.prompt["chunks"]
        ]
        return steps.cut(chunks, [plan], self._model.joins_chunks)

    def prefill_text(self) -> list[float]:
        """Feed text in one piece."""
        ids = np.array(self._case.text_ids(N_PREFILL_TEXT))
        decoder = self._ready(ids[:2])
        started = time.perf_counter()
        decoder.extend(ids)
        decoder.logits()
        return [N_PREFILL_TEXT / (time.perf_counter() - started)]

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Feed back the best token."""
        decoder = self._emptied(keep=context)
        if decoder.n_past < context:
            decoder.extend(np.array(self._case.text_ids(context)[decoder.n_past :]))
        seconds = []
        for _ in range(n_tokens + 1):
            started = time.perf_counter()
            decoder.extend(np.array([decoder.logits().argmax()]))
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Choose the best token each time."""
        decoder, chosen = self._emptied(), []
        decoder.extend(np.array(token_ids))
        logits = decoder.logits()
        for _ in range(n_tokens):
            chosen.append(int(decoder.logits().argmax()))
            decoder.extend(np.array(chosen[-1:]))
        return {"token_ids": chosen, "logits": logits}

    def _ready(self, chunk: NDArray[Any]) -> Any:
        """Return the decoder empty, its graph for prompts in memory as every other peer has its model.

        Feeding it a `chunk` opens that graph, which counts as cold start.
        """
        decoder = self._emptied()
        decoder.extend(chunk)
        decoder.truncate(0)
        return decoder

    def _emptied(self, keep: int = 0) -> Any:
        """Return the decoder cut back to `keep` tokens at most; what it held is no longer what the model thinks."""
        model = self._model
        model.decoder.truncate(min(keep, model.decoder.n_past))
        model.held.clear()
        return model.decoder
