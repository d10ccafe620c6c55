"""A tile: what the vision graph needs, and where its time goes, on whatever engine edgevl has chosen for it here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bounds import BF16, FLOAT32, INT8, Figure, Kind, Needs, times, total
from benchmarks.bounds.kinds import (
    ACTIVATIONS,
    ATTENTION,
    FLOAT_PRODUCTS,
    INT8_PRODUCTS,
    NORMS,
    REST,
    Ran,
    by_kind,
)
from benchmarks.bounds.onnx_kernels import Profiled
from benchmarks.peers import Variant, own
from benchmarks.peers.case import Case
from edgevl.engine.openvino import OpenVINOGraph
from edgevl.model import manifest


def tile(case: Case, variant: Variant, n_tiles: int, n_turns: int) -> Figure:
    """Measure a tile of several side by side, in turns of `n_tiles`, and then its kernels in as many turns."""
    peer = own.Peer(case, variant)
    encoder, folder = peer._model.encoder, own.folder(case, variant)
    seconds = [peer.encode(n_tiles)[0] for _ in range(n_turns)]
    by, n_at_once = encoder.backend, min(encoder.n_at_once, n_tiles)
    del peer, encoder
    spec, values = manifest.read(folder), np.array(case.load("pixel_values")[:1])
    path = folder / spec.vision.file
    if by.startswith("openvino"):
        kinds = openvino_kinds(path, values, case.n_threads, n_at_once, n_turns, spec.vision.precision == "int8")
    else:
        kinds = onnxruntime_kinds(path, values, case.n_threads, n_turns)
    return Figure("a tile", by, seconds, total([kind.needs for kind in kinds.values()]), kinds, by)


def onnxruntime_kinds(path: Path, values: NDArray[np.float32], n_threads: int, n_turns: int) -> dict[str, Kind]:
    """Return the kernels of a tile [1, 3, tile, tile] by kind, in `n_turns` after one that does not count."""
    profiled = Profiled(path, n_threads, spin=False)
    for _ in range(n_turns + 1):
        profiled.session.run(None, {"pixel_values": values})
    return by_kind([[(k.kind, k.seconds, k.needs(0)) for k in run] for run in profiled.runs()[1:]])


def openvino_kinds(
    path: Path, values: NDArray[np.float32], n_threads: int, n_at_once: int, n_turns: int, is_quantized: bool
) -> dict[str, Kind]:
    """Return the kernels of a tile by kind, in `n_turns` after one that does not count: seconds over tiles at once.

    OpenVINO counts for each stream of a compiled graph and tells only the mean of all runs of one of them. So each of
    `n_at_once` tiles, encoded side by side, has a graph with a single stream here, and its share of the threads.
    """
    graphs = [_Counting(path, is_quantized, max(n_threads // n_at_once, 1)) for _ in range(n_at_once)]
    with ThreadPoolExecutor(n_at_once) as pool:
        turns = [list(pool.map(lambda graph: graph.kernels(values), graphs)) for _ in range(n_turns + 1)]
    kinds = by_kind([[kernel for kernels in turn for kernel in kernels] for turn in turns[1:]])  # of all these tiles
    return {name: _of_one(kind, n_at_once) for name, kind in kinds.items()}


def _of_one(kind: Kind, n_at_once: int) -> Kind:
    """Return a tile's share of a kind: the mean of tiles side by side, of whose time each has its part."""
    return Kind([seconds / n_at_once**2 for seconds in kind.seconds], times(kind.needs, 1 / n_at_once))


class _Counting(OpenVINOGraph):
    """A graph that OpenVINO counts the time of, kernel by kernel, on any cores: several have one stream each."""

    def __init__(self, path: Path, is_quantized: bool, n_threads: int) -> None:
        super().__init__(path, is_quantized=is_quantized, threads=n_threads)
        self.open()
        self._n_runs = 0
        self._before: dict[str, float] = {}

    def _settings(self, core: Any, n_streams: int) -> dict[str, Any]:
        return {**super()._settings(core, n_streams), "PERF_COUNT": True, "ENABLE_CPU_PINNING": False}

    def _compiled(self, openvino: Any, n_streams: int) -> Any:
        compiled = super()._compiled(openvino, n_streams)
        nodes = compiled.get_runtime_model().get_ordered_ops()
        self._sorted: dict[str, tuple[str, Needs]] = {node.get_friendly_name(): sort(node) for node in nodes}
        return compiled

    def kernels(self, values: NDArray[np.float32]) -> list[Ran]:
        """Run the graph; return the kernels of this run, from the means of all runs up to it and up to the last."""
        with self._request(1) as request:
            request.infer({"pixel_values": values}, share_inputs=True)
            means = {one.node_name: one.real_time.total_seconds() for one in request.profiling_info}
        self._n_runs += 1
        sums = {name: mean * self._n_runs for name, mean in means.items()}
        found: list[Ran] = []
        for name, seconds in sums.items():
            kind, needs = self._sorted.get(name, (REST, {}))
            found.append((kind, seconds - self._before.get(name, 0.0), needs))
        self._before = sums
        return found


def sort(node: Any) -> tuple[str, Needs]:
    """Return the kind of a node of OpenVINO's compiled graph, and its operations.

    What is fused into a product, such as GELU, bias and the quantization of the result, is part of it.
    """
    layer, numbers = _about(node, "layerType"), _kind(_about(node, "runtimePrecision"))
    if layer == "FullyConnected":
        amount = 2.0 * math.prod(_shape(node.output(0))) * _shape(node.input_value(0))[-1]
        return (INT8_PRODUCTS if numbers == INT8 else FLOAT_PRODUCTS), {numbers: amount}
    if layer == "Convolution":
        weights = _shape(node.input_value(1))
        return FLOAT_PRODUCTS, {numbers: 2.0 * math.prod(_shape(node.output(0))) * math.prod(weights[1:])}
    is_fused = layer == "Subgraph" and "Softmax" in _about(node, "originalLayersNames")
    if is_fused or layer == "ScaledDotProductAttention":
        found, needs = _shape(node.output(0)), dict[str, float]()  # [1, heads, n, width]
        for factor in (node.input(0), node.inputs()[-1]):  # keys are of the queries' kind, weights of the values'
            kind = _kind(factor.get_element_type().get_type_name())
            needs[kind] = needs.get(kind, 0.0) + 2.0 * math.prod(found) * found[-2]
        return ATTENTION, needs
    if layer == "MatMul":
        return ATTENTION, {numbers: 2.0 * math.prod(_shape(node.output(0))) * _shape(node.input_value(0))[-1]}
    if layer == "Softmax":
        return ATTENTION, {}
    if layer == "MVN" or (node.get_input_size() and _about(node.input_value(0).get_node(), "layerType") == "MVN"):
        return NORMS, {}  # what multiplies and quantizes the normed rows comes right behind
    return (ACTIVATIONS if layer in ("Gelu", "Eltwise") else REST), {}


def _kind(numbers: str) -> str:
    """Return the kind of OpenVINO's name of a type of numbers."""
    return {"i8": INT8, "u8": INT8, "bf16": BF16}.get(numbers, FLOAT32)


def _about(node: Any, key: str) -> str:
    found = node.get_rt_info()
    return str(getattr(found[key], "value", found[key])) if key in found else ""


def _shape(value: Any) -> Sequence[int]:
    return tuple(value.get_partial_shape().to_shape())
