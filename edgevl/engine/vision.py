"""Tiles to image features: the vision encoder with its projector, and the threads that run it ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.own_thread import Calls, OwnThread, ended
from edgevl.errors import GraphError

T = TypeVar("T")


class VisionGraph(Protocol):
    """What computes features; `run` may be called from `n_at_once` threads."""

    @property
    def path(self) -> Path:
        """The graph's file."""

    @property
    def backend(self) -> str:
        """What computes it: another name may compute other last bits."""

    @property
    def n_at_once(self) -> int:
        """How many tiles side by side it is quickest with when many wait."""

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        """Raise GraphError unless the graph takes exactly `inputs` and gives at least `outputs`."""

    def open(self, n_at_once: int = 1) -> None:
        """Do now what the first of `n_at_once` calls of `run` would have to do; raise GraphError as it would."""

    def run(self, feeds: Mapping[str, NDArray[Any]], n_at_once: int = 1) -> dict[str, NDArray[Any]]:
        """Run the graph on arrays, as one of `n_at_once` such calls."""


class VisionEncoder:
    """The graph `pixel_values` [1, 3, tile, tile] -> `image_features` [1, tokens_per_tile, hidden], float32.

    `hidden` is what the decoder takes; without it, features of any width are given.
    """

    def __init__(self, graph: VisionGraph, hidden: int | None = None) -> None:
        graph.require({"pixel_values"}, {"image_features"})
        self._graph, self._hidden = graph, hidden
        self.backend = graph.backend
        self.n_at_once = graph.n_at_once

    def open(self, n_at_once: int = 1) -> None:
        """Get ready to encode, by `n_at_once` threads; raise GraphError where the graph cannot be run."""
        self._graph.open(n_at_once)

    def encode(self, pixel_values: NDArray[np.float32], n_at_once: int = 1) -> NDArray[np.float32]:
        """Return one tile's features [tokens_per_tile, hidden]; raise GraphError if they are not that, or not finite.

        `n_at_once`, up to the encoder's own, says how many threads call this at once.
        """
        features = self._graph.run({"pixel_values": pixel_values}, n_at_once)["image_features"]
        if features.ndim < 2 or self._hidden not in (None, features.shape[-1]):
            wanted = "" if self._hidden is None else f" of {self._hidden} values each"
            raise GraphError(
                f"{self._graph.path}: gave image_features of {list(features.shape)}, not rows{wanted}; "
                "export the model again"
            )
        features = np.asarray(features.reshape(-1, features.shape[-1]), np.float32)
        if not np.isfinite(features).all():
            raise GraphError(f"{self._graph.path}: returned values that are not finite; run: edgevl verify")
        return features


def run_ahead(
    jobs: Iterable[Callable[[], T]],
    n_workers: int = 1,
    depth: int = 2,
    before: Callable[[], object] = lambda: None,
) -> Generator[T, None, None]:
    """Yield what `jobs` return, in order; `n_workers` threads do them ahead: `depth` results wait at most.

    `before` is what the first of the threads does, while the others begin with the jobs. An error of either is raised
    here, a job's at its place. Closing this iterator lets the threads end what they are at, and waits for that.
    """
    coming, waiting = iter(jobs), deque[Future[T]]()
    calls: Calls = SimpleQueue()
    threads: list[OwnThread] = []

    def refill() -> None:
        while len(waiting) < n_workers + depth and (job := next(coming, None)) is not None:
            waiting.append(threads[0].submit(job))

    with ended(threads):
        try:
            for number in range(n_workers):
                threads.append(OwnThread(f"edgevl-encoder_{number}", calls=calls))
            first = threads[0].submit(before)
            refill()
            _result(first)
            while waiting:
                result = _result(waiting.popleft())
                refill()
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _result(future: Future[T]) -> T:
    while True:
        try:
            return future.result(timeout=0.1)  # not without end: Ctrl-C must get through on every platform
        except NotYet:
            if future.done():  # since then, or this is the job's own error
                return future.result()
