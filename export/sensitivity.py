"""Which MatMuls to keep in float32 so that an int8 vision graph reaches a wanted fidelity.

Each of them is quantized alone, and its damage (1 - mean cosine of the features) is measured. Such damages nearly add
up, so a short head of the ranking is usually enough; the whole graph is then quantized and measured, more is kept
until it is near enough, and then as much less as leaves it so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.helper import make_node

from edgevl.engine.graph import Graph
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import ExportError

from .fidelity import Sample, feature_cosines
from .graphs import matmul_names, quantize_int8

GROWTH = 1.5
"""How much longer the list of kept MatMuls gets when it was too short."""

SMALL_TILE = 256
"""Tiles up to this side (pixels) are cheap: four are measured instead of one."""


def quantize_to(
    wanted: float,
    samples: Sequence[Sample],
    source: Path,
    path: Path,
    progress: Callable[[float], None],
) -> tuple[str, ...]:
    """Quantize `source` to `path` with mean feature cosine of at least `wanted`; return the MatMuls kept in float32.

    Raises ExportError if not even the float32 graph reaches it.
    """
    names = matmul_names(source)
    lost = 1 - _quantized_cosine(source, path, (), samples)
    if lost <= 1 - wanted:
        return ()
    damage = _damages(source, names, samples, progress)
    ranked = sorted(names, key=lambda name: (-damage[name], name))
    too_few, n_kept = 0, _first_guess([damage[name] for name in ranked], lost, 1 - wanted)
    while (reached := _quantized_cosine(source, path, ranked[:n_kept], samples)) < wanted:
        if n_kept == len(names):
            raise ExportError(
                f"fidelity: {wanted} cannot be reached, the float32 graph itself has {reached:.7f}; ask for less"
            )
        too_few, n_kept = n_kept, min(len(names), max(n_kept + 1, round(n_kept * GROWTH)))
    while n_kept - too_few > 1:
        middle = (too_few + n_kept) // 2
        is_enough = _quantized_cosine(source, path, ranked[:middle], samples) >= wanted
        too_few, n_kept = (too_few, middle) if is_enough else (middle, n_kept)
    quantize_int8(source, path, ranked[:n_kept])
    return tuple(ranked[:n_kept])


def encoder(path: Path) -> VisionEncoder:
    """Open a vision graph on the CPU."""
    return VisionEncoder(Graph(path))


def _quantized_cosine(source: Path, path: Path, kept: Sequence[str], samples: Sequence[Sample]) -> float:
    quantize_int8(source, path, kept)
    return float(feature_cosines(samples, encoder(path).encode).mean())


def _first_guess(ranked: Sequence[float], lost: float, allowed: float) -> int:
    """Return how many of the largest damages to remove so that the rest, scaled to what was lost, is allowed."""
    rest = np.array(ranked)[::-1].cumsum()[::-1]  # damage that remains when the first i are kept
    fits = np.flatnonzero(rest * lost / max(rest[0], 1e-30) <= allowed)
    return max(1, int(fits[0]) if len(fits) else len(ranked))


def _damages(
    source: Path, names: Sequence[str], samples: Sequence[Sample], progress: Callable[[float], None]
) -> dict[str, float]:
    """Return 1 - mean feature cosine for each of `names` quantized alone."""
    tile = samples[0].tiles[0].shape[-1]
    chosen = [
        replace(one, tiles=one.tiles[-1:], features=one.features[-1:])
        for one in samples[: 4 if tile <= SMALL_TILE else 1]
    ]
    plain, path = source.with_name("plain.onnx"), source.with_name("alone.onnx")
    weights = source.with_name("alone.data")
    damage = {}
    try:
        onnx.save_model(onnx.load(source), plain, save_as_external_data=True, location=weights.name)
        for index, name in enumerate(names):
            onnx.save_model(_quantized_alone(plain, name), path)
            damage[name] = 1 - float(feature_cosines(chosen, encoder(path).encode).mean())
            progress((index + 1) / len(names))
    finally:
        for file in (plain, path, weights):
            file.unlink(missing_ok=True)
    return damage


def _quantized_alone(path: Path, name: str) -> onnx.ModelProto:
    """Return the graph, whose weights lie beside it, with one MatMul computed as in the int8 graph.

    That is: weights per output channel, activations per tile.
    """
    model = onnx.load(path, load_external_data=False)
    at, node = next((at, node) for at, node in enumerate(model.graph.node) if node.name == name)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    matrix = numpy_helper.to_array(weight, str(path.parent))  # [n_in, n_out]
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    weight.CopyFrom(numpy_helper.from_array(np.rint(matrix / scale) * scale, weight.name))
    rows, rounded = [f"{name}.{part}" for part in ("rows", "scale", "zero")], f"{name}.rounded"
    model.graph.node.insert(at, make_node("DynamicQuantizeLinear", [node.input[0]], rows))
    model.graph.node.insert(at + 1, make_node("DequantizeLinear", rows, [rounded]))
    model.graph.node[at + 2].input[0] = rounded
    return model
