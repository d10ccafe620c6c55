"""Tile features in memory, keyed by content: a repeated or unchanged tile is encoded once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class TileStore:
    """Least-recently-used features [tokens_per_tile, hidden] up to `max_bytes`; safe to share between threads.

    Keys come from the tile's pixels and the vision graph, never from a path: a changed file is another image.
    """

    def __init__(self, model_id: str, max_bytes: int = 64 << 20) -> None:
        self._model_id = model_id
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._entries: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def key(self, tile: NDArray[np.uint8]) -> str:
        """Return the key of a tile's pixels, uint8 [tile, tile, 3]."""
        digest = hashlib.sha256(f"{self._model_id}:{tile.shape}:".encode())
        digest.update(np.ascontiguousarray(tile).data)
        return digest.hexdigest()

    def get(self, key: str) -> NDArray[np.float32] | None:
        """Return the features under `key`, or None."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, features: NDArray[np.float32]) -> None:
        """Keep `features` under `key`, dropping the longest unused ones over the limit."""
        features.setflags(write=False)
        with self._lock:
            if key in self._entries or features.nbytes > self._max_bytes:
                return
            self._entries[key] = features
            self._n_bytes += features.nbytes
            while self._n_bytes > self._max_bytes:
                self._n_bytes -= self._entries.popitem(last=False)[1].nbytes
