"""Several tokens in one run of a decoder graph, each computed as if it were fed alone."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine.decoder import OnnxDecoder
from edgevl.engine.graph import Binding, Graph
from edgevl.engine.mirrored import MirroredKVCache
from edgevl.errors import GraphError
from edgevl.model.manifest import DecoderSpec

N_AT_ONCE = 4
"""The most tokens of one run."""
N_IN_LITTLE_MEMORY = 2
"""The most where graphs take turns: memory that lies several times is counted as often by the system, if used once."""
VERSIONS = ("1.31.",)
"""The versions of onnxruntime whose attention is known to write before it reads (`ApplyAttentionFlash`)."""


@runtime_checkable
class AheadDecoder(Protocol):
    """A decoder that can be fed several tokens at once, for less than it takes to feed them one by one."""

    @property
    def n_at_once(self) -> int:
        """How many, at most."""

    def extend_each(self, token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        """Feed token ids and return the scores after each, float32 [n, vocab]; None, and nothing is fed, if it cannot.

        Scores and what is held are equal, to the last bit, to what feeding the tokens one by one would give.
        """


def is_known(backend: str) -> bool:
    """Return whether attention on `backend` writes the keys and values of a batch before it reads any."""
    has_flash = os.environ.get("ORT_GQA_DISABLE_FLASH_ATTENTION", "0") == "0"
    return has_flash and backend.endswith(" cpu") and backend.startswith(tuple(f"onnxruntime {v}" for v in VERSIONS))


class OnnxAheadDecoder(OnnxDecoder):
    """A decoder graph that takes n tokens as n sequences of one token each, which all have the same KV cache.

    A pass over n tokens of one sequence is attention by another kernel than for a single token: its last bits differ,
    and in a quantized decoder they grow to differences in the scores that change words. Here sequence i is the prompt
    with i tokens behind it: one token more and a longer past, computed by the kernel for single tokens. The rest of a
    graph is computed row by row.

    What makes this exact: GroupQueryAttention writes the new keys and values of all sequences before it reads any, for
    float32 caches in the versions of onnxruntime named here and unless it was told to leave out flash attention;
    elsewhere tokens are fed one by one. So they are with more threads than heads, among which a single token's past is
    divided, and a batch's is not. That rows do not depend on how many there are is a property of the processor's
    kernels. So each number of tokens is tried, before it is used, on tokens that were fed one by one: scores and every
    key and value must be equal in all bits, or that number is never used in this process.
    """

    _cache_kind = MirroredKVCache
    _cache: MirroredKVCache

    def __init__(
        self,
        graph: Graph,
        spec: DecoderSpec,
        embeddings: NDArray[Any],
        prefill: Graph | None = None,
        *,
        n_threads: int,
    ) -> None:
        """Take what an OnnxDecoder takes, and how many threads the graph runs with."""
        self._batches: dict[int, tuple[Binding, NDArray[Any]]] = {}
        super().__init__(graph, spec, embeddings, prefill)
        self._limit = spec.context_length
        self._behind: list[int] = []  # the tokens at the end that were fed one by one, or as if they were
        self._scores = np.empty((0, spec.vocab_size), np.float32)  # after each token of the last run of several
        self._is_equal: dict[int, bool] = {}
        n_heads = max(spec.n_kv_heads, spec.hidden_size // spec.head_dim)
        is_float = self._cache.arrays[self._layers[0]].dtype == np.float32
        self._may_try = is_known(graph.backend) and is_float and n_threads <= n_heads
        _open.add(self)

    @property
    def n_at_once(self) -> int:
        """How many tokens it may be fed at once."""
        return N_IN_LITTLE_MEMORY if self.takes_turns else N_AT_ONCE

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed token ids [n] or features [n, hidden], always to the end; raise GraphError as an OnnxDecoder does."""
        done = super().extend(chunk, cancelled, positions)
        self._scores = self._scores[:0]
        if chunk.shape == (1,):
            self._behind.append(int(chunk[0]))
        else:
            self._behind = []
        return done

    def extend_each(self, token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        """Feed up to `n_at_once` token ids; None where it was not found to be the same as one by one."""
        n = len(token_ids)
        if n > self.n_at_once or self.n_past + n > self._limit or not self._can(n):
            return None
        scores = self._run(token_ids)
        if scores is not None:
            self._behind += token_ids
            self._scores = scores
        return scores

    def truncate(self, n: int) -> None:
        """Forget everything after the first `n` tokens; within the last run, scores are of what is left."""
        n_dropped = self.n_past - n
        super().truncate(n)
        if 0 < n_dropped < len(self._scores):
            self._scores = self._scores[:-n_dropped]
            self._logits[0, 0] = self._scores[-1]
            del self._behind[-n_dropped:]
        elif n_dropped:  # whose scores are not known any more
            self._behind, self._scores = [], self._scores[:0]

    def settle(self) -> None:
        """Round what is held and not yet settled to half precision, unless the decoder is an fp32 one."""
        super().settle()
        self._behind = []

    def load(self, state: NDArray[Any], n: int) -> bool:
        """Hold what `save` returned for `n` tokens; return whether shape and precision are this decoder's."""
        self._behind, self._scores = [], self._scores[:0]
        return super().load(state, n)

    def _bind_cache(self) -> None:
        super()._bind_cache()
        self._batches = {}

    def _let_go(self) -> None:
        self._batches = {}
        super()._let_go()

    def begin_anew(self) -> None:
        """Hold nothing, in memory of this process alone: what lies several times is the parent's too, after a fork."""
        if self._cache.n_times > 1:
            self._cache.part()
            self.truncate(0)
            self._is_equal = {}

    def _can(self, n: int) -> bool:
        """Return whether `n` tokens at once are known to be the same as one by one; try it once there are so many."""
        if not self._may_try:
            return False
        if n not in self._is_equal and len(self._behind) >= n:
            self._is_equal[n] = self._try(n)
        return self._is_equal.get(n, False)

    def _try(self, n: int) -> bool:
        """Feed the last `n` tokens again, at once; return whether all bits are the same, and leave all as it was."""
        if self._cache.n_times < self.n_at_once:
            can = self._cache.mirror(self.n_at_once, self.n_past)
            self._follow_cache()
            machine.give_back()  # where it was before
            if not can:
                return False
        place = slice(self.n_past - n, self.n_past)
        held = {name: array[:, :, place].copy() for name, array in self._cache.arrays.items()}
        logits = self._logits.copy()
        self.n_past -= n
        try:
            scores = self._run(self._behind[-n:])
            is_equal = scores is not None and np.array_equal(scores[-1], logits[0, 0])
        except GraphError:  # it is made for one sequence
            is_equal = False
        self.n_past, self._logits[...] = place.stop, logits
        for name, array in self._cache.arrays.items():
            is_equal = is_equal and np.array_equal(array[:, :, place], held[name])
            array[:, :, place] = held[name]
        return is_equal

    def _run(self, token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        """Run the graph on a batch: sequence i is what is held and the first i + 1 of `token_ids`.

        Returns None, and holds nothing more, if that needs more room than there is, or a score is not a number.
        """
        n, total = len(token_ids), self.n_past + len(token_ids)
        self._reserve(total, self.n_past)
        if self._cache.n_times < n:  # more room could not be had in this way
            return None
        self._bound(self._graph)
        binding, logits = self._batches.get(n) or self._bind_batch(n)
        embeds = self._embeddings[np.array(token_ids)][:, None]
        lengths = self.n_past + 1 + np.arange(n)[:, None]
        binding.bind_input("inputs_embeds", np.ascontiguousarray(embeds, self._dtype))  # [n, 1, hidden]
        binding.bind_input("attention_mask", (np.arange(total) < lengths).astype(np.int64))  # [n, total]
        binding.run()
        if not np.isfinite(logits.max()):  # an error only if it is met one by one
            return None
        self.n_past, self._logits[0] = total, logits[-1]
        return logits[:, 0].astype(np.float32)

    def _bind_batch(self, n: int) -> tuple[Binding, NDArray[Any]]:
        binding, logits = self._graph.bind(), np.zeros((n, *self._logits.shape[1:]), self._logits.dtype)
        binding.bind_output("logits", logits)
        for name, array in self._cache.batch(n).items():
            binding.bind_input(f"past_key_values.{name}", array)
            binding.bind_output(f"present.{name}", array)
        self._batches[n] = binding, logits
        return self._batches[n]


def _begin_anew() -> None:
    for decoder in list(_open):
        decoder.begin_anew()


_open: weakref.WeakSet[OnnxAheadDecoder] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
