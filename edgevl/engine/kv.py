"""The KV cache of a decoder: one buffer per layer that the graph updates in place, or two that take turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 256


class KVCache:
    """Keys and values of `n_layers` layers, each [1, n_kv_heads, capacity, head_dim].

    Pages of the buffers are untouched until used, so unused capacity costs address space, not memory. What a graph
    keeps in a device's memory is brought here by `fetch` before it is read, and taken back by `send` once changed.
    """

    def __init__(
        self,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        dtype: Any,
        limit: int,
        *,
        fetch: Callable[[], None] = lambda: None,
        send: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin empty; `limit` is the most tokens it may ever hold."""
        self._fetch, self._send = fetch, send
        self._shape = (1, n_kv_heads, head_dim)
        self._dtype = dtype
        self._limit = limit
        self._expected = 0
        self.capacity = 0
        self.arrays: dict[str, NDArray[Any]] = {
            f"{layer}.{kind}": self._empty(0) for layer in range(n_layers) for kind in ("key", "value")
        }

    @property
    def present(self) -> dict[str, NDArray[Any]]:
        """Where the graph writes past and new tokens: where the past is."""
        return self.arrays

    def expect(self, n_tokens: int) -> None:
        """Make room for so many at once when there has to be more: growing bit by bit leaves holes in memory."""
        self._expected = n_tokens

    def reserve(self, n_tokens: int, n_used: int) -> bool:
        """Make room for `n_tokens`, keeping the first `n_used`; return whether the buffers moved."""
        if n_tokens <= self.capacity:
            return False
        self._fetch()
        self._grow(n_tokens)
        self._move(n_used)
        return True

    def turn(self) -> None:
        """Go on from what the graph wrote, which is in its place."""

    def round(self, start: int, end: int, dtype: Any) -> None:
        """Round tokens `start` to `end` to `dtype`, values beyond its range to its largest."""
        if self._dtype == dtype:
            return
        self._fetch()
        largest = np.finfo(dtype).max
        for array in self.arrays.values():
            part = array[:, :, start:end]
            part[...] = np.clip(part, -largest, largest).astype(dtype)
        self._send()

    def saved_shape(self, n_tokens: int) -> tuple[int, ...]:
        """Return [2 * n_layers, n_kv_heads, n_tokens, head_dim]."""
        _, heads, dim = self._shape
        return len(self.arrays), heads, n_tokens, dim

    def save(self, n_tokens: int, dtype: Any) -> NDArray[Any]:
        """Return the first `n_tokens` of all layers as `dtype`, in the shape of `saved_shape`."""
        self._fetch()
        saved = np.empty(self.saved_shape(n_tokens), dtype)
        for part, array in zip(saved, self.arrays.values(), strict=True):
            part[...] = array[0, :, :n_tokens]
        return saved

    def load(self, state: NDArray[Any]) -> None:
        """Put what `save` returned at the beginning; there must be room for it."""
        for array, part in zip(self.arrays.values(), state, strict=True):
            array[0, :, : state.shape[2]] = part
        self._send()

    def _grow(self, n_tokens: int) -> None:
        """Set a capacity of `n_tokens` or more."""
        wanted = max(n_tokens, min(max(2 * self.capacity, self._expected), self._limit))
        self.capacity = min(-(-wanted // BLOCK) * BLOCK, max(self._limit, n_tokens))

    def _move(self, n_used: int) -> None:
        """Take new buffers of this capacity, with the first `n_used` tokens of the old ones."""
        for name, old in self.arrays.items():
            self.arrays[name] = new = self._empty(self.capacity)
            new[:, :, :n_used] = old[:, :, :n_used]

    def _empty(self, capacity: int) -> NDArray[Any]:
        batch, heads, dim = self._shape
        return np.empty((batch, heads, capacity, dim), self._dtype)


class TurningKVCache(KVCache):
    """Keys and values for a graph that reads the past in one place and writes past and new tokens in another.

    `arrays` are the past, of exactly its length; `present`, of the length after a run, lies in another set of buffers.
    `turn` makes the one the other.
    """

    def __init__(self, *sizes: Any, **settings: Any) -> None:
        """Begin empty; see `KVCache`."""
        super().__init__(*sizes, **settings)
        self._present = self._buffers()
        self._used, self._spare = self._buffers(), self._buffers()

    @property
    def present(self) -> dict[str, NDArray[Any]]:
        """Where the graph writes past and new tokens."""
        return self._present

    def reserve(self, n_tokens: int, n_used: int) -> bool:
        """Make `arrays` the first `n_used` tokens and `present` a place for `n_tokens`; return that they moved."""
        grows = n_tokens > self.capacity
        if moves := grows or n_used != self._n_held:
            self._fetch()
        if grows:
            self._grow(n_tokens)
            self._used, self._spare = self._buffers(), self._buffers()
        elif n_used != self._n_held:
            self._used, self._spare = self._spare, self._used
        if moves:
            held, self.arrays = self.arrays, _fronts(self._used, n_used)
            for name, array in self.arrays.items():
                array[...] = held[name][:, :, :n_used]
        self._present = _fronts(self._spare, n_tokens)
        return True

    def turn(self) -> None:
        """Go on from what the graph wrote."""
        self.arrays, self._present = self._present, self.arrays
        self._used, self._spare = self._spare, self._used

    def load(self, state: NDArray[Any]) -> None:
        """Hold what `save` returned; there must be room for it."""
        self.turn()
        super().load(state)

    @property
    def _n_held(self) -> int:
        return int(next(iter(self.arrays.values())).shape[2])

    def _buffers(self) -> dict[str, NDArray[Any]]:
        return {name: self._empty(self.capacity) for name in self.arrays}


def _fronts(buffers: dict[str, NDArray[Any]], n_tokens: int) -> dict[str, NDArray[Any]]:
    """Return the beginning of each buffer [1, heads, capacity, dim] as an array [1, heads, n_tokens, dim], no gaps."""
    return {name: _front(buffer, n_tokens) for name, buffer in buffers.items()}


def _front(buffer: NDArray[Any], n_tokens: int) -> NDArray[Any]:
    batch, heads, _, dim = buffer.shape
    return buffer.reshape(-1)[: heads * n_tokens * dim].reshape(batch, heads, n_tokens, dim)
