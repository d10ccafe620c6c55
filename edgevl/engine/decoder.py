"""The decoder: four verbs over any back end, and the one for ONNX graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine.graph import Binding, Graph
from edgevl.engine.kv import KVCache
from edgevl.errors import GraphError, ModelError
from edgevl.model.manifest import DecoderSpec

PIECE = 320
"""The most tokens of a long chunk that the graph for prompts takes at once, in pieces of one size: what it computes of
them stays in a processor's caches. 1,024 at once took 1.6 times as long (SmolVLM-256M shapes, two cores)."""


class Decoder(Protocol):
    """A causal language model that remembers what it was fed."""

    @property
    def n_past(self) -> int:
        """How many tokens it holds."""

    @property
    def backend(self) -> str:
        """What computes it: another name may compute other last bits."""

    def expect(self, n_tokens: int) -> None:
        """Prepare for holding so many tokens."""

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed a chunk: token ids, int64 [n], or image features, float32 [n, hidden]; n at least 1.

        `positions`, int [3, n], are where features stand in time, height and width: they must be there for a model that
        tells these apart (M-RoPE), whose text goes on behind the greatest, and for no other one, else GraphError.
        Returns whether the chunk is held: once `cancelled` is set it may stop, and then holds nothing of it.
        """

    def logits(self) -> NDArray[np.float32]:
        """Return the scores of the next token after the last chunk, float32 [vocab]."""

    def truncate(self, n: int) -> None:
        """Forget everything after the first `n` tokens; only whole chunks of features that came with positions."""

    def settle(self) -> None:
        """Bring what is held to the precision in which `save` gives it, so that going on is the same from either."""

    def save(self) -> NDArray[Any]:
        """Return what is held as one array of the decoder's own layout, for `load`; call `settle` before."""

    def load(self, state: NDArray[Any], n: int) -> bool:
        """Hold what `save` returned for `n` tokens, in the place of everything held; return whether `state` is that.

        If it is not, what is held stays.
        """


class CachedDecoder:
    """What decoders have in common whose keys and values lie in a `KVCache` of ours, and whose embeddings in a table.

    A quantized decoder's cache settles to half precision: its weights are coarser by far.
    """

    def __init__(
        self, path: Path, backend: str, embeddings: NDArray[Any], cache: KVCache, saved_dtype: Any, logits: NDArray[Any]
    ) -> None:
        """Begin empty. `logits` [..., vocab] is what a run writes to, the last token's last."""
        self._path = path
        self.backend = backend
        self._embeddings = embeddings
        self._cache = cache
        self._saved_dtype = saved_dtype
        self._logits = logits
        self._n_settled = 0
        self.n_past = 0

    def expect(self, n_tokens: int) -> None:
        """Let the cache take room for so many tokens at once."""
        self._cache.expect(n_tokens)

    def embed(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what token ids [n] are fed as, float32 [n, hidden]: feeding that is the same, beside features too."""
        rows: NDArray[np.float32] = self._embeddings[token_ids].astype(np.float32)
        return rows

    def logits(self) -> NDArray[np.float32]:
        """Return float32 [vocab], a fresh array; raise GraphError if a score is not a number."""
        logits: NDArray[np.float32] = self._logits.reshape(-1, self._logits.shape[-1])[-1].astype(np.float32)
        if not np.isfinite(logits.max()):  # the maximum is NaN wherever any score is
            raise GraphError(f"{self._path}: returned scores that are not numbers; run: edgevl verify")
        return logits

    def truncate(self, n: int) -> None:
        """Forget everything after the first `n` tokens: what lies behind is overwritten by the next chunk."""
        if not 0 <= n <= self.n_past:
            raise ValueError(f"cannot truncate to {n} tokens, {self.n_past} are held")
        self.n_past = n
        self._n_settled = min(n, self._n_settled)

    def settle(self) -> None:
        """Round what is held and not yet settled to half precision, unless the decoder is an fp32 one."""
        self._cache.round(self._n_settled, self.n_past, self._saved_dtype)
        self._n_settled = self.n_past

    def save(self) -> NDArray[Any]:
        """Return the cache [2 * n_layers, n_kv_heads, n_past, head_dim]: half precision, fp32 of an fp32 decoder."""
        return self._cache.save(self.n_past, self._saved_dtype)

    def load(self, state: NDArray[Any], n: int) -> bool:
        """Hold what `save` returned for `n` tokens; return whether shape and precision are this decoder's."""
        if state.dtype != self._saved_dtype or state.shape != self._cache.saved_shape(n):
            return False
        self.n_past = self._n_settled = 0  # of what was held, nothing is to be relied on from here on
        self._reserve(n, 0)
        self._cache.load(state)
        self.n_past = self._n_settled = n
        return True

    def _reserve(self, n_tokens: int, n_used: int) -> None:
        """Make room in the cache, and tell whatever runs on it where it lies if it moved."""
        self._cache.reserve(n_tokens, n_used)
        self._follow_cache()

    def _follow_cache(self) -> None:
        """Take the cache from where it lies now if it moved, be it that this was once begun and stopped by Ctrl-C."""
        if self._cache.has_moved:
            self._bind_cache()
            self._cache.has_moved = False

    def _bind_cache(self) -> None:
        """Take the cache from where it lies now."""
        raise NotImplementedError

    def _refuse(self, positions: NDArray[Any] | None) -> None:
        """Raise GraphError where there are positions: features are counted like text."""
        if positions is not None:
            raise GraphError(f"{self._path}: takes no positions in time, height and width; use a GGUF decoder")


class OnnxDecoder(CachedDecoder):
    """A decoder graph with GroupQueryAttention: `inputs_embeds` and a KV cache bound in place.

    Past and present of each layer are the same buffer, so that a step copies nothing; only the last
    token's logits are computed. On a device with memory of its own the cache lies there, and only logits come back.
    A second graph may take the chunks of several tokens, on the same cache; the two may take turns in memory.
    """

    _cache_kind: type[KVCache] = KVCache
    _optional_inputs: tuple[str, ...] = ()

    def __init__(self, graph: Graph, spec: DecoderSpec, embeddings: NDArray[Any], prefill: Graph | None = None) -> None:
        """Take a graph, its embedding table [vocab, hidden] (may be memory-mapped), and a graph for prompts.

        A graph that is not loaded yet takes turns with the one for prompts: each is let go when the other is used.
        """
        self._layers = [f"{layer}.{kind}" for layer in range(spec.n_layers) for kind in ("key", "value")]
        self.takes_turns = not graph.is_loaded
        self._graph = graph
        self._prefill = first = prefill or graph
        self._require(first)
        self._dtype = first.inputs["inputs_embeds"][0] or np.float32
        kv_dtype = first.inputs[f"past_key_values.{self._layers[0]}"][0] or np.float32
        self._bindings: dict[Graph, Binding] = {}
        cache = self._cache_kind(
            spec.n_layers,
            spec.n_kv_heads,
            spec.head_dim,
            kv_dtype,
            spec.context_length,
            fetch=partial(_each, self._bindings, Binding.fetch),
            send=partial(_each, self._bindings, Binding.send),
        )
        logits = np.zeros((1, 1, spec.vocab_size), first.outputs["logits"][0] or np.float32)
        saved_dtype = kv_dtype if spec.precision == "fp32" else np.float16
        super().__init__(graph.path, graph.backend, embeddings, cache, saved_dtype, logits)
        self._mask = np.ones((1, spec.context_length), np.int64)
        for one in [first] if self.takes_turns else [graph, first]:
            self._bound(one)

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed token ids [n] or features [n, hidden]; `cancelled` is seen between the pieces of a long chunk.

        Raises GraphError if the graph fails, and where there are `positions`: it counts features like text.
        """
        self._refuse(positions)
        if len(chunk) == 1 or self._prefill is self._graph:
            self._feed(self._graph, chunk)
            return True
        before = self.n_past
        for piece in np.array_split(chunk, -(-len(chunk) // PIECE)):
            if self.n_past > before and cancelled is not None and cancelled.is_set():
                self.truncate(before)
                return False
            self._feed(self._prefill, piece)
        return True

    def _feed(self, graph: Graph, chunk: NDArray[Any]) -> None:
        embeds = self._embeddings[chunk] if chunk.ndim == 1 else chunk
        embeds = np.ascontiguousarray(embeds[None], self._dtype)  # [1, n, hidden]
        total = self.n_past + embeds.shape[1]
        self._reserve(total, self.n_past)
        binding = self._bound(graph)
        binding.bind_input("inputs_embeds", embeds)
        binding.bind_input("attention_mask", self._mask[:, :total])
        binding.run()
        self._cache.turn()
        self.n_past = total

    def _bound(self, graph: Graph) -> Binding:
        """Return the binding of a graph to this cache; where the graphs take turns, let the other one go for it."""
        if graph not in self._bindings:
            if self.takes_turns:
                self._let_go()
            self._require(graph)
            binding = graph.bind()
            binding.bind_output("logits", self._logits)
            self._bind_state(binding)
            self._bindings[graph] = binding
        return self._bindings[graph]

    def _let_go(self) -> None:
        """Free the memory of the graphs that are bound."""
        graphs = list(self._bindings)
        self._bindings.clear()
        for graph in graphs:
            graph.let_go()
        machine.give_back()

    def _require(self, graph: Graph) -> None:
        graph.require(
            {"inputs_embeds", "attention_mask", *(f"past_key_values.{name}" for name in self._layers)}
            | set(graph.inputs).intersection(self._optional_inputs),
            {"logits", *(f"present.{name}" for name in self._layers)},
        )

    def _bind_cache(self) -> None:
        """Bind what is held anew, after it moved."""
        _each(self._bindings, self._bind_state)

    def _bind_state(self, binding: Binding) -> None:
        past, present = self._cache.arrays, self._cache.present
        for name in self._layers:
            binding.bind_state(f"past_key_values.{name}", f"present.{name}", past[name], present[name])


def _each(bindings: Mapping[Graph, Binding], do: Callable[[Binding], None]) -> None:
    """Do something to every binding; a decoder's cache holds this and not the decoder, whose memory it would keep."""
    for binding in bindings.values():
        do(binding)


def read_embeddings(path: Path, spec: DecoderSpec) -> NDArray[Any]:
    """Memory-map the embedding table [vocab, hidden]; raise ModelError if it is not that."""
    try:
        table: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's parser of the head has errors of its own
        raise ModelError(f"{path}: is not a readable .npy table ({error}); export the model again") from error
    if table.shape != (spec.vocab_size, spec.hidden_size) or table.dtype not in (np.float32, np.float16):
        raise ModelError(
            f"{path}: expected float [{spec.vocab_size}, {spec.hidden_size}], got {table.dtype} {list(table.shape)}"
        )
    return table
