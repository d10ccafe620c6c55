"""Memory that repeats: the same bytes several times in a row, so that a batch of sequences shares one KV cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.kv import KVCache

_FIXED = 0x10  # sys/mman.h, MAP_FIXED: Linux on x86 and on ARM
_FAILED = ctypes.c_void_p(-1).value


class MirroredKVCache(KVCache):
    """A KV cache that lies several times in a row once `mirror` is called: what is written at one place is in all.

    It takes the memory of one, and address space for all of them.
    """

    n_times = 1

    def mirror(self, n_times: int, n_used: int) -> bool:
        """Lie `n_times` in a row from now on, keeping the first `n_used` tokens; return whether the system can do it.

        The buffers move.
        """
        self.n_times = n_times
        try:
            self._move(self.capacity, n_used)
        except BaseException:  # the old buffers stay, which lie there once
            self.n_times = 1
            raise
        return self.n_times == n_times

    def part(self) -> None:
        """Lie once from now on, in other memory, with nothing in it. The buffers move."""
        self.n_times = 1
        self._move(self.capacity, 0)

    def batch(self, n: int) -> dict[str, NDArray[Any]]:
        """Return keys and values of each layer as those of `n` sequences, [n, n_kv_heads, capacity, head_dim].

        `n` is at most `n_times`: what lies behind is other memory.
        """
        return {name: _repeated(array, n) for name, array in self.arrays.items()}

    def _empty(self, capacity: int) -> NDArray[Any]:
        if self.n_times == 1 or capacity == 0:
            return super()._empty(capacity)
        _, heads, dim = self._shape
        try:
            return empty((1, heads, capacity, dim), self._dtype, self.n_times)
        except OSError:  # no address space or file handle left, or a room that ends within a page
            self.n_times = 1
            return super()._empty(capacity)


def empty(shape: tuple[int, ...], dtype: Any, n_times: int) -> NDArray[Any]:
    """Return zeros of `shape` behind which the same memory lies `n_times - 1` times more.

    Raises OSError where the system has no such memory (all but Linux, so far) or the array does not end with a page.
    """
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(_map(n_bytes, n_times), dtype, n_bytes // dtype.itemsize).reshape(shape)


def _repeated(array: NDArray[Any], n: int) -> NDArray[Any]:
    """Return [1, ...] as [n, ...]: the array, and what lies behind it."""
    return np.lib.stride_tricks.as_strided(array, (n, *array.shape[1:]), (array.nbytes, *array.strides[1:]))


def _map(n_bytes: int, n_times: int) -> Any:
    """Return `n_bytes * n_times` bytes that are `n_bytes`, again and again; unmapped when nothing refers to them."""
    if sys.platform != "linux" or n_bytes == 0 or n_bytes % mmap.PAGESIZE:
        raise OSError("this memory cannot be repeated")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    start = libc.mmap(None, n_bytes * n_times, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if start == _FAILED:
        raise OSError(ctypes.get_errno(), "no address space")
    mapped = (ctypes.c_char * (n_bytes * n_times)).from_address(start)
    weakref.finalize(mapped, libc.munmap, start, n_bytes * n_times).atexit = False
    handle = os.memfd_create("edgevl-kv", os.MFD_CLOEXEC)
    try:
        os.ftruncate(handle, n_bytes)
        for place in range(start, start + n_bytes * n_times, n_bytes):
            access = mmap.PROT_READ | mmap.PROT_WRITE
            if libc.mmap(place, n_bytes, access, mmap.MAP_SHARED | _FIXED, handle, 0) != place:
                raise OSError(ctypes.get_errno(), "cannot map")
    finally:
        os.close(handle)
    return mapped
