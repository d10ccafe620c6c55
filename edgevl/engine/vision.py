"""Tiles to image features: the vision encoder with its projector, and the thread that runs it ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.graph import Graph
from edgevl.errors import GraphError

T = TypeVar("T")


class VisionEncoder:
    """The graph `pixel_values` [1, 3, tile, tile] -> `image_features` [1, tokens_per_tile, hidden], float32."""

    def __init__(self, graph: Graph) -> None:
        graph.require({"pixel_values"}, {"image_features"})
        self._graph = graph
        self.backend = graph.backend

    def encode(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return one tile's features [tokens_per_tile, hidden]; raise GraphError if they are not finite."""
        features = self._graph.run({"pixel_values": pixel_values})["image_features"]
        features = np.asarray(features.reshape(-1, features.shape[-1]), np.float32)
        if not np.isfinite(features).all():
            raise GraphError(f"{self._graph.path}: returned values that are not finite; run: edgevl verify")
        return features


def run_ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield from `items`, which a thread of its own produces ahead: `depth` wait at most, one more is in the making.

    An error in `items` is raised here, at its place in the order. Closing this iterator stops the thread
    after the item it works on, and waits for it.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer
            put((False, error))

    thread = threading.Thread(target=work, name="edgevl-encoder", daemon=True)
    thread.start()
    try:
        while True:
            try:
                more, item = ready.get(timeout=0.1)  # not without end: Ctrl-C must get through on every platform
            except queue.Empty:
                continue
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        thread.join()
