"""What is remembered in memory, backed by the disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

from edgevl.store.disk import Disk


class Store:
    """Arrays of one kind by key: the least recently used up to `max_bytes` in memory, all of them on `disk` if given.

    Safe to share between threads. Keys are digests of content (`edgevl.store.keys`), so that an entry is never out of
    date: what has changed has another key.
    """

    def __init__(self, kind: str, max_bytes: int, disk: Disk | None = None, leaves_to_disk: bool = False) -> None:
        """`kind` is one of `edgevl.store.disk.KINDS`; with `leaves_to_disk` what that keeps takes no memory."""
        self._kind = kind
        self._max_bytes = max_bytes
        self._leaves_to_disk = leaves_to_disk
        self._disk = disk
        self._n_bytes = 0
        self._entries: OrderedDict[str, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> NDArray[Any] | None:
        """Return the array under `key`, read-only, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                return found
        if self._disk is not None and (found := self._disk.get(self._kind, key)) is not None:
            self._remember(key, found)
        return found

    def has(self, key: str) -> bool:
        """Return whether `get` may find something under `key`, without reading it."""
        return key in self._entries or (self._disk is not None and self._disk.has(self._kind, key))

    def put(self, key: str, array: NDArray[Any]) -> None:
        """Keep `array` under `key`; it becomes read-only."""
        array.setflags(write=False)
        if self._remember(key, array) and self._disk is not None:
            self._disk.put(self._kind, key, array)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._entries.clear()
            self._n_bytes = 0

    def _remember(self, key: str, array: NDArray[Any]) -> bool:
        """Keep it in memory, dropping the longest unused over the limit; return whether it is new."""
        with self._lock:
            if key in self._entries:
                return False
            is_left = self._leaves_to_disk and self._disk is not None and self._disk.keeps(array.nbytes)
            if is_left or array.nbytes > self._max_bytes:
                return True
            self._entries[key] = array
            self._n_bytes += array.nbytes
            while self._n_bytes > self._max_bytes:
                self._n_bytes -= self._entries.popitem(last=False)[1].nbytes
        return True
