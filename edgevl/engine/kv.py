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

    `has_moved` says that the buffers are others than whoever runs on them knows, until that sets it back. Where there
    is no memory for larger ones, or a Ctrl-C comes while they are filled, all stays as it was.
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
        self.has_moved = True
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

    def reserve(self, n_tokens: int, n_used: int) -> None:
        """Make room for `n_tokens`, keeping the first `n_used`."""
        if n_tokens > self.capacity:
            self._fetch()
            self._move(self._grown(n_tokens), n_used)

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

    def _grown(self, n_tokens: int) -> int:
        """Return a capacity of `n_tokens` or more."""
        wanted = max(n_tokens, min(max(2 * self.capacity, self._expected), self._limit))
        return min(-(-wanted // BLOCK) * BLOCK, max(self._limit, n_tokens))

    def _move(self, capacity: int, n_used: int) -> None:
        """Take new buffers of `capacity`, with the first `n_used` tokens of the old ones."""
        arrays = self._filled(self._buffers(capacity), n_used)
        self.has_moved = True
        self.arrays, self.capacity = arrays, capacity

    def _filled(self, buffers: dict[str, NDArray[Any]], n_used: int) -> dict[str, NDArray[Any]]:
        """Return `buffers`, with the first `n_used` tokens that are held."""
        for new, old in zip(buffers.values(), self.arrays.values(), strict=True):
            new[:, :, :n_used] = old[:, :, :n_used]
        return buffers

    def _buffers(self, capacity: int) -> dict[str, NDArray[Any]]:
        return {name: self._empty(capacity) for name in self.arrays}

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
        self._present = self._buffers(0)
        self._used, self._spare = self._buffers(0), self._buffers(0)

    @property
    def present(self) -> dict[str, NDArray[Any]]:
        """Where the graph writes past and new tokens."""
        return self._present

    def reserve(self, n_tokens: int, n_used: int) -> None:
        """Make `arrays` the first `n_used` tokens and `present` a place for `n_tokens`."""
        capacity, arrays, used, spare = self.capacity, self.arrays, self._used, self._spare
        grows, is_cut = n_tokens > capacity, n_used != self._n_held
        if grows:
            capacity = self._grown(n_tokens)
            used, spare = self._buffers(capacity), self._buffers(capacity)
        elif is_cut:
            used, spare = spare, used
        if grows or is_cut:
            self._fetch()
            arrays = self._filled(_fronts(used, n_used), n_used)
        present = _fronts(spare, n_tokens)
        self.has_moved = True
        self.arrays, self._present, self._used, self._spare, self.capacity = arrays, present, used, spare, capacity

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


def _fronts(buffers: dict[str, NDArray[Any]], n_tokens: int) -> dict[str, NDArray[Any]]:
    """Return the beginning of each buffer [1, heads, capacity, dim] as an array [1, heads, n_tokens, dim], no gaps."""
    return {name: _front(buffer, n_tokens) for name, buffer in buffers.items()}


def _front(buffer: NDArray[Any], n_tokens: int) -> NDArray[Any]:
    batch, heads, _, dim = buffer.shape
    return buffer.reshape(-1)[: heads * n_tokens * dim].reshape(batch, heads, n_tokens, dim)
