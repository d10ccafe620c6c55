"""The KV cache of a decoder: one buffer per layer, updated in place by the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 256


class KVCache:
    """Keys and values of `n_layers` layers, each [1, n_kv_heads, capacity, head_dim].

    Pages of the buffers are untouched until used, so unused capacity costs address space, not memory.
    """

    def __init__(self, n_layers: int, n_kv_heads: int, head_dim: int, dtype: Any, limit: int) -> None:
        """Begin empty; `limit` is the most tokens it may ever hold."""
        self._shape = (1, n_kv_heads, head_dim)
        self._dtype = dtype
        self._limit = limit
        self.capacity = 0
        self.arrays: dict[str, NDArray[Any]] = {
            f"{layer}.{kind}": self._empty(0) for layer in range(n_layers) for kind in ("key", "value")
        }

    def reserve(self, n_tokens: int, n_used: int) -> bool:
        """Make room for `n_tokens`, keeping the first `n_used`; return whether the buffers moved."""
        if n_tokens <= self.capacity:
            return False
        wanted = max(n_tokens, min(2 * self.capacity, self._limit))
        self.capacity = min(-(-wanted // BLOCK) * BLOCK, max(self._limit, n_tokens))
        for name, old in self.arrays.items():
            self.arrays[name] = new = self._empty(self.capacity)
            new[:, :, :n_used] = old[:, :, :n_used]
        return True

    def round(self, start: int, end: int, dtype: Any) -> None:
        """Round tokens `start` to `end` to `dtype`, values beyond its range to its largest."""
        if self._dtype == dtype:
            return
        largest = np.finfo(dtype).max
        for array in self.arrays.values():
            part = array[:, :, start:end]
            part[...] = np.clip(part, -largest, largest).astype(dtype)

    def saved_shape(self, n_tokens: int) -> tuple[int, ...]:
        """Return [2 * n_layers, n_kv_heads, n_tokens, head_dim]."""
        _, heads, dim = self._shape
        return len(self.arrays), heads, n_tokens, dim

    def save(self, n_tokens: int, dtype: Any) -> NDArray[Any]:
        """Return the first `n_tokens` of all layers as `dtype`, in the shape of `saved_shape`."""
        saved = np.empty(self.saved_shape(n_tokens), dtype)
        for part, array in zip(saved, self.arrays.values(), strict=True):
            part[...] = array[0, :, :n_tokens]
        return saved

    def load(self, state: NDArray[Any]) -> None:
        """Put what `save` returned at the beginning; there must be room for it."""
        for array, part in zip(self.arrays.values(), state, strict=True):
            array[0, :, : state.shape[2]] = part

    def _empty(self, capacity: int) -> NDArray[Any]:
        batch, heads, dim = self._shape
        return np.empty((batch, heads, capacity, dim), self._dtype)
