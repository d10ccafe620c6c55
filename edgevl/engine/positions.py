"""Where tokens stand for models that tell an image's features apart in time, height and width (M-RoPE).

Sources: P. Wang et al., "Qwen2-VL" (2024), section 2.1; llama.cpp's llama_batch, as of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import GraphError

N_AXES = 3
_NUMBER = np.dtype("<i8")


class _Image(NamedTuple):
    """Features that were fed with positions: the first token, the one behind the last, and the position of that."""

    start: int
    stop: int
    position: int


class Positions:
    """The positions of the tokens that a decoder holds.

    Text counts on by one, the same on every axis. Features have positions of their own, and text goes on behind the
    greatest of these: less far than there are features, so that tokens and positions part ways. llama.cpp forgets by
    time, which features of an image share, so that an image is held as a whole or not at all.
    """

    def __init__(self, path: Path, *, has_axes: bool) -> None:
        """Begin with nothing held; `path` is for messages, and without `has_axes` (M-RoPE) features count like text."""
        self._path, self._has_axes = path, has_axes
        self._images: list[_Image] = []

    def behind(self, n: int) -> int:
        """Return the position of text behind the first `n` tokens; raise ValueError if that is within an image."""
        for image in reversed(self._images):
            if n >= image.stop:
                return image.position + n - image.stop
            if n > image.start:
                raise ValueError(
                    f"cannot truncate to {n} tokens, tokens {image.start} to {image.stop - 1} are one image"
                )
        return n

    def number(self, n_past: int, chunk: NDArray[Any], given: NDArray[Any] | None) -> NDArray[np.int32] | None:
        """Return the positions of a chunk behind `n_past` tokens as llama.cpp takes them; None if it may count itself.

        Token ids [n] have [1, n]; features [n, hidden] have [4, n], those that are `given`, int [3, n], and zeros.
        Raises GraphError for other ones.
        """
        if not self._has_axes or chunk.ndim == 1:
            if given is not None:
                what = "token ids" if chunk.ndim == 1 else "this model's features"
                raise GraphError(f"{self._path}: {what} have no positions in time, height and width; feed them without")
            first = self.behind(n_past)
            return np.arange(first, first + len(chunk), dtype=np.int32)[None] if self._has_axes else None
        checked = self._checked(self.behind(n_past), len(chunk), given)
        return np.vstack([checked, np.zeros(len(chunk), np.int32)]).astype(np.int32)

    def add(self, n_past: int, given: NDArray[Any]) -> None:
        """Note that features with positions [3, n] are held behind `n_past` tokens."""
        self._images.append(_Image(n_past, n_past + given.shape[1], int(given.max()) + 1))

    def truncate(self, n: int) -> None:
        """Forget the images that are not within the first `n` tokens."""
        self._images = [image for image in self._images if image.stop <= n]

    def head(self, n_past: int) -> NDArray[np.uint8]:
        """Return what goes before the saved cache of `n_past` tokens: how many they are, with axes the images too."""
        images = [len(self._images), *chain.from_iterable(self._images)] if self._has_axes else []
        return np.array([n_past, *images], _NUMBER).view(np.uint8)

    def read(self, state: NDArray[np.uint8], n_past: int) -> Positions | None:
        """Return the positions whose head, for `n_past` tokens, `state` begins with; None if there is none."""
        found = Positions(self._path, has_axes=self._has_axes)
        n_first, n_each = 2 if self._has_axes else 1, len(_Image._fields)
        first = _numbers(state, n_first)
        if len(first) < n_first or first[0] != n_past:
            return None
        if self._has_axes:
            n_images = int(first[1])
            images = _numbers(state, n_first + n_each * max(n_images, 0))[n_first:]
            if len(images) != n_each * n_images:
                return None
            found._images = [_Image(*image) for image in images.reshape(-1, n_each).tolist()]
        return found

    def _checked(self, first: int, n: int, given: NDArray[Any] | None) -> NDArray[Any]:
        """Return the positions of `n` features; raise GraphError for what llama.cpp could not go by, or forget."""
        if given is None or given.shape != (N_AXES, n) or given.dtype.kind not in "iu":
            got = "none" if given is None else f"{given.dtype} {list(given.shape)}"
            raise GraphError(
                f"{self._path}: features need positions in time, height and width, int [{N_AXES}, {n}], got {got}"
            )
        if given[0, 0] < first or not _is_ascending(given):
            raise GraphError(
                f"{self._path}: positions of features must ascend by time, height and width, from time {first} on; "
                "feed each image as one chunk"
            )
        return given


def _numbers(state: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    """Return the first `n` numbers of saved bytes; fewer where there are no more."""
    return state[: min(n, state.size // _NUMBER.itemsize) * _NUMBER.itemsize].copy().view(_NUMBER)


def _is_ascending(positions: NDArray[Any]) -> bool:
    """Return whether each column is greater than the one before it, in the first number that is not the same."""
    steps = np.diff(positions.astype(np.int64))
    first = steps[(steps != 0).argmax(axis=0), np.arange(steps.shape[1])]
    return bool((first > 0).all())
