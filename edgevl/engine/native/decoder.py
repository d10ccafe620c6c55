"""The decoder that is computed without a graph."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.decoder import PIECE, CachedDecoder
from edgevl.engine.kv import KVCache
from edgevl.engine.native.library import VERSION, Caches, Weights, instructions
from edgevl.engine.native.plan import ModelPlan, data_path, plan_path, read_plan
from edgevl.errors import GraphError, ManifestError
from edgevl.model.manifest import DecoderSpec

N_AT_ONCE = 4
"""The most tokens that are looked ahead: up to there, one pass over the weights does for all of them."""


def backend() -> str | None:
    """Return the name of what computes decoders here; None where only graphs do."""
    found = instructions()
    return f"edgevl {VERSION} {found}" if found else None


def can_run(path: Path) -> bool:
    """Return whether the decoder graph `path` can be run without onnxruntime here."""
    try:
        return backend() is not None and read_plan(path) is not None
    except ManifestError:
        return True  # to be said when it is opened: the folder is damaged


class NativeDecoder(CachedDecoder):
    """A Llama-like decoder of 4- or 8-bit weights, which are read where the file is mapped.

    A token comes out the same to the last bit whether it is fed alone or with up to three others, and with any number
    of threads; keys and values are held in half precision as they come. So looking ahead and reuse change nothing.
    """

    n_at_once = N_AT_ONCE

    def __init__(self, path: Path, spec: DecoderSpec, embeddings: NDArray[Any], *, n_threads: int) -> None:
        """Take the graph whose weights and plan lie beside it, and its embedding table [vocab, hidden].

        Raises ManifestError where the plan is missing, damaged, or another model's; GraphError where it does not run.
        """
        plan = read_plan(path)
        sizes = spec.n_layers, spec.n_kv_heads, spec.head_dim, spec.hidden_size, spec.vocab_size
        if plan is None or _sizes(plan) != sizes or plan.n_positions < spec.context_length:
            raise ManifestError(f"{plan_path(path)}: is not this decoder's; export or download the model again")
        cache = KVCache(spec.n_layers, spec.n_kv_heads, spec.head_dim, np.float16, spec.context_length)
        logits = np.zeros((1, spec.vocab_size), np.float32)
        super().__init__(path, backend() or "", embeddings, cache, np.float16, logits)
        plan = replace(plan, n_positions=spec.context_length)  # there is to be room for no more
        self._weights = Weights(data_path(path), plan, n_threads=n_threads, max_tokens=PIECE)
        self._limit = spec.context_length
        self._is_scored = True
        self._follow_cache()

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed token ids [n] or features [n, hidden]; `cancelled` is seen between the pieces of a long chunk.

        Raises GraphError, and holds nothing of it, where the context has no room for it, where features are of another
        width, and where there are `positions`.
        """
        self._refuse(positions)
        before, total, width = self.n_past, self.n_past + len(chunk), self._embeddings.shape[1]
        if total > self._limit:
            raise GraphError(f"{self._path}: takes {self._limit} tokens, not {total}")
        if chunk.shape[1:] not in ((), (width,)):
            raise GraphError(
                f"{self._path}: takes features of {width} values, not {chunk.shape[-1]}; export the model again"
            )
        if len(chunk) > PIECE:
            self._scores()  # of before: they stay where this one is cancelled
        for piece in np.array_split(chunk, -(-len(chunk) // PIECE)):
            if self.n_past > before and cancelled is not None and cancelled.is_set():
                self.truncate(before)
                return False
            self._feed(piece, 1 if self.n_past + len(piece) == total else 0, later=len(chunk) > N_AT_ONCE)
        return True

    def logits(self) -> NDArray[np.float32]:
        """Return the scores after the last token, [vocab]; of a chunk of a prompt they are computed now."""
        self._scores()
        return super().logits()

    def extend_each(self, token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        """Feed up to `n_at_once` token ids; return the scores after each, [n, vocab], or None if one is no number."""
        if len(token_ids) > self.n_at_once or self.n_past + len(token_ids) > self._limit:
            return None
        before = self.n_past, self._scores()
        self._feed(np.array(token_ids, np.int64), len(token_ids))
        if not np.isfinite(self._logits.max()):  # an error only if it is met one by one
            self.n_past, self._logits = before
            return None
        return self._logits.copy()

    def leave(self, n_threads: int) -> None:
        """Leave `n_threads` of its threads idle from now on, for who else is at work; 0: none.

        It may be called while a chunk is being fed, which goes on with as many.
        """
        self._weights.leave(n_threads)

    def truncate(self, n: int) -> None:
        """Forget everything after the first `n` tokens; within what was fed last, scores are of what is left."""
        n_dropped = self.n_past - n
        super().truncate(n)
        if 0 < n_dropped < len(self._logits):
            self._logits = self._logits[:-n_dropped]

    def _scores(self) -> NDArray[np.float32]:
        if not self._is_scored:
            self._weights.score(self._logits)
            self._is_scored = True
        return self._logits

    def _feed(self, chunk: NDArray[Any], n_scored: int, later: bool = False) -> None:
        embeds = self._embeddings[chunk] if chunk.ndim == 1 else chunk
        embeds = np.ascontiguousarray(embeds, np.float32)  # [n, hidden]
        total = self.n_past + len(embeds)
        self._reserve(total, self.n_past)
        logits = np.empty((n_scored, self._logits.shape[-1]), np.float32)
        self._weights.run(embeds, self.n_past, self._caches, logits, scores_later=later)
        self.n_past = total
        if n_scored:
            self._logits, self._is_scored = logits, not later

    def _bind_cache(self) -> None:
        self._caches = Caches(self._cache.arrays)


def _sizes(plan: ModelPlan) -> tuple[int, ...]:
    return len(plan.layers), plan.n_kv_heads, plan.head_dim, plan.hidden, plan.head.n
