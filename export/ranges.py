"""The range of every tensor that an int8 graph quantizes on the fly, measured, for engines that want it beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevl.engine.kernels import LEVELS
from edgevl.engine.openvino import ranges_path

MARGIN = 0.1
"""How much wider than measured a range is made, as a share of itself: other pictures reach further."""


def write_ranges(path: Path, tiles: Iterable[NDArray[np.float32]]) -> None:
    """Run the graph `path` on `tiles` [1, 3, tile, tile] and write the ranges that were met beside it.

    A graph without such tensors gets no file. The ranges are those by which the graph itself quantizes: the
    quantizer's scale and zero point are its outputs.
    """
    import onnxruntime as ort

    model = onnx.load(path)
    quantizers = [node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    if not quantizers:
        return
    names = [name for node in quantizers for name in node.output[1:]]
    del model.graph.output[:]
    for node in quantizers:
        for name, dtype in zip(node.output[1:], (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8), strict=True):
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, []))
    part = path.with_name(f"part-{path.name}")
    try:
        onnx.save_model(model, part, save_as_external_data=True, location=f"{part.name}.data")
        session = ort.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        met = [session.run(names, {"pixel_values": tile}) for tile in tiles]
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.data").unlink(missing_ok=True)
    ranges = {node.input[0]: _widest(met, 2 * index) for index, node in enumerate(quantizers)}
    ranges_path(path).write_text(json.dumps(ranges, indent=0) + "\n", encoding="utf-8", newline="\n")


def _widest(met: Iterable[list[Any]], at: int) -> tuple[float, float]:
    """Return the range that holds those of all runs, which give scale and zero point at `at`, and the margin."""
    ends = [[(level - float(run[at + 1])) * float(run[at]) for level in (0, LEVELS - 1)] for run in met]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    extra = MARGIN / 2 * (high - low)
    return low - extra if low < 0 else low, high + extra if high > 0 else high
