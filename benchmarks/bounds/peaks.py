"""What this machine reaches at best: reading memory, and multiplying large square matrices, with all threads.

Of each there are several ways, in libraries that are in use; the one with the highest median is the peak.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bounds import BF16, FLOAT32, INT8, READ

N_CHAINED = 6
"""Products in a row in OpenVINO's graph, whose input and output take time as well."""

Way = Callable[[], object]
Reached = dict[str, dict[str, list[float]]]
"""Bytes or operations a second in each turn, by peak and way."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of the array that is read, far more than caches hold; side of the matrices; turns that count."""

    n_bytes: int = 1 << 30
    side: int = 2048
    n_turns: int = 9


def measure(sizes: Sizes, n_threads: int) -> Reached:
    """Return what was reached in each turn, bytes or operations a second, by peak and way.

    All ways take turns, so that other work on the machine slows all of them down; the first turn does not count.
    """
    ways = {READ: reading(sizes.n_bytes, n_threads), **products(sizes.side, n_threads)}
    amounts = {READ: float(sizes.n_bytes), **dict.fromkeys((INT8, BF16, FLOAT32), 2.0 * sizes.side**3)}
    reached: Reached = {peak: {name: [] for name in of} for peak, of in ways.items()}
    for turn in range(sizes.n_turns + 1):
        for peak, of in ways.items():
            for name, (way, n_times) in of.items():
                started = time.perf_counter()
                way()
                if turn:
                    rate = n_times * amounts[peak] / (time.perf_counter() - started)
                    reached[peak][name].append(rate)
    return reached


def joined(before: Reached, after: Reached) -> Reached:
    """Return the turns of two measurements as one."""
    return {peak: {name: [*turns, *after[peak][name]] for name, turns in ways.items()} for peak, ways in before.items()}


def best(reached: Mapping[str, Sequence[float]]) -> str:
    """Return the way with the highest median."""
    return max(reached, key=lambda name: statistics.median(reached[name]))


def reading(n_bytes: int, n_threads: int) -> dict[str, tuple[Way, int]]:
    """Return ways to read `n_bytes`, a part to a thread."""
    parts = np.array_split(np.ones(n_bytes // 4, np.float32), n_threads)  # written once, so that there are pages
    pool = ThreadPoolExecutor(n_threads)

    def over(reduce: Callable[[Any], object], dtype: Any) -> Way:
        views = [part[: len(part) // 2 * 2].view(dtype) for part in parts]
        return lambda: list(pool.map(reduce, views))

    return {
        "numpy, maximum of float32": (over(np.max, np.float32), 1),
        "numpy, or of int64": (over(np.bitwise_or.reduce, np.int64), 1),
    }


def products(side: int, n_threads: int) -> dict[str, dict[str, tuple[Way, int]]]:
    """Return ways to multiply two matrices [side, side], and how often each does so, by the kind of number."""
    found: dict[str, dict[str, tuple[Way, int]]] = {
        INT8: {"onnxruntime": (_onnxruntime(side, n_threads, np.uint8), 1)},
        BF16: {},
        FLOAT32: {"onnxruntime": (_onnxruntime(side, n_threads, np.float32), 1)},
    }
    if find_spec("torch") is not None:
        for kind, way in _torch(side, n_threads).items():
            found[kind]["PyTorch"] = way, 1
    if find_spec("openvino") is not None:
        for kind in found:
            found[kind]["OpenVINO"] = _openvino(side, n_threads, kind), N_CHAINED
    return {kind: ways for kind, ways in found.items() if ways}


def _onnxruntime(side: int, n_threads: int, dtype: Any) -> Way:
    import onnx
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    is_int8 = dtype == np.uint8
    first, second = (_matrix(side, kind) for kind in (dtype, np.int8 if is_int8 else dtype))
    operator, result = ("MatMulInteger", onnx.TensorProto.INT32) if is_int8 else ("MatMul", onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(first.dtype), first.shape)],
        [helper.make_tensor_value_info("y", result, first.shape)],
        [numpy_helper.from_array(second, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or its threads take the next way's time
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": first})


def _torch(side: int, n_threads: int) -> dict[str, Way]:
    import torch

    torch.set_num_threads(n_threads)
    ints = torch.from_numpy(_matrix(side, np.int8))
    turned = ints.t().contiguous().t()  # as the weights of a linear layer lie
    floats = torch.from_numpy(_matrix(side, np.float32))
    halves = floats.bfloat16()
    return {
        INT8: lambda: torch._int_mm(ints, turned),
        BF16: lambda: halves @ halves,
        FLOAT32: lambda: floats @ floats,
    }


def _openvino(side: int, n_threads: int, kind: str) -> Way:
    """Return a chain of products, in int8 between FakeQuantizes, as edgevl's encoders are laid out for OpenVINO."""
    import openvino

    from edgevl.engine.openvino import core_of

    opset, weights = openvino.opset13, _matrix(side, np.int8)
    scale = np.float32(1 / (74 * side**0.5))  # results are about as large as what is multiplied
    rows = opset.parameter([side, side], np.float32)
    if kind == INT8:
        scales = opset.constant(np.full((side, 1), scale))
        factor = opset.multiply(opset.convert(opset.constant(weights), "f32"), scales)
    else:
        factor = opset.constant(weights * scale)
    low, high = (opset.constant(np.float32(bound)) for bound in (-1, 1))
    product = rows
    for _ in range(N_CHAINED):
        if kind == INT8:
            product = opset.fake_quantize(product, low, high, low, high, 256)
        product = opset.matmul(product, factor, False, True)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": n_threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32" if kind == FLOAT32 else "bf16",
    }
    core = core_of(openvino.Core)
    request = core.compile_model(openvino.Model([product], [rows]), "CPU", settings).create_infer_request()
    filled = _matrix(side, np.float32)
    return lambda: request.infer([filled], share_inputs=True)


def _matrix(side: int, dtype: Any) -> NDArray[Any]:
    """Return a matrix [side, side] of random numbers: from -1 to 1, or over the range of an integer."""
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        return rng.integers(bounds.min, bounds.max, (side, side), dtype)
    return rng.uniform(-1, 1, (side, side)).astype(dtype)
