"""Graphs as transformers.js has them, which are published for many models: run as they are."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.decoder import OnnxDecoder
from edgevl.engine.graph import Graph
from edgevl.engine.kv import TurningKVCache
from edgevl.engine.vision import VisionGraph
from edgevl.model.manifest import DecoderSpec, TensorSpec

MASK = "pixel_attention_mask"
N_AT_ONCE = 128
"""How many tokens such a decoder takes in one run: it gives scores of each of them."""


def of_tiles(graph: VisionGraph, inputs: Mapping[str, TensorSpec]) -> VisionGraph:
    """Return `graph`, made to take one tile's float32 pixels where its `inputs` are others."""
    pixels = inputs.get("pixel_values")
    if pixels is None or (len(inputs) == 1 and len(pixels.shape) == 4 and pixels.dtype == "float32"):
        return graph
    return MaskedVision(graph, inputs)


def shapes_of_tile(inputs: Mapping[str, TensorSpec], tile: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes in which such a graph is given one tile of `tile` pixels a side, by input."""
    ends = {"pixel_values": (3, tile, tile), MASK: (tile, tile)}
    return {
        name: (*(1 for _ in spec.shape[: -len(ends[name])]), *ends[name])
        for name, spec in inputs.items()
        if name in ends
    }


class MaskedVision:
    """A vision graph as one that takes a tile, though it wants images of several tiles and a mask of their pixels.

    Its `pixel_values` are [n, 3, tile, tile] or [images, tiles, 3, tile, tile], with a bool `pixel_attention_mask`
    [images, tiles, tile, tile] or without. All of the mask is set here, because a tile is always full.
    """

    def __init__(self, graph: VisionGraph, inputs: Mapping[str, TensorSpec]) -> None:
        """Take a graph and what the manifest says of its inputs."""
        self.path, self.backend, self.n_at_once = graph.path, graph.backend, graph.n_at_once
        self._graph = graph
        self._n_dims = len(inputs["pixel_values"].shape)
        self._dtype = np.float16 if inputs["pixel_values"].dtype == "float16" else np.float32
        self._is_masked = MASK in inputs

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        """Raise GraphError unless the graph takes exactly `inputs` and the mask, and gives at least `outputs`."""
        self._graph.require(inputs | {MASK} if self._is_masked else inputs, outputs)

    def open(self, n_at_once: int = 1) -> None:
        """Do now what the first run would have to do; raise GraphError as it would."""
        self._graph.open(n_at_once)

    def run(self, feeds: Mapping[str, NDArray[Any]], n_at_once: int = 1) -> dict[str, NDArray[Any]]:
        """Run the graph on one tile, `pixel_values` [1, 3, tile, tile]."""
        tile = feeds["pixel_values"].astype(self._dtype, copy=False)
        given = {"pixel_values": tile[None] if self._n_dims == 5 else tile}
        if self._is_masked:
            given[MASK] = np.ones((1, 1, *tile.shape[-2:]), np.bool_)
        return self._graph.run(given, n_at_once)


class MergedDecoder(OnnxDecoder):
    """A decoder graph that gives keys and values of past and new tokens anew, and scores of every new token.

    Each run copies the past, so that a token costs more the longer the prompt is. It may want `position_ids`.
    """

    _cache_kind = TurningKVCache
    _optional_inputs = ("position_ids",)

    def __init__(self, graph: Graph, spec: DecoderSpec, embeddings: NDArray[Any]) -> None:
        """Take a loaded graph and its embedding table [vocab, hidden] (may be memory-mapped)."""
        super().__init__(graph, spec, embeddings)
        self._takes_positions = "position_ids" in graph.inputs
        self._scores = np.empty((1, N_AT_ONCE, spec.vocab_size), self._logits.dtype)

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed token ids [n] or features [n, hidden], a few at a time; raise GraphError as an OnnxDecoder does."""
        before = self.n_past
        for start in range(0, len(chunk), N_AT_ONCE):
            if cancelled is not None and cancelled.is_set():
                self.truncate(before)
                return False
            self._extend(chunk[start : start + N_AT_ONCE], positions)
        return True

    def _extend(self, piece: NDArray[Any], positions: NDArray[Any] | None) -> None:
        scores = self._scores[:, : len(piece)]
        binding = self._bound(self._graph)
        binding.bind_output("logits", scores)
        if self._takes_positions:
            position_ids = np.arange(self.n_past, self.n_past + len(piece), dtype=np.int64)
            binding.bind_input("position_ids", position_ids[None])
        super().extend(piece, positions=positions)
        self._logits = scores[:, -1:]
