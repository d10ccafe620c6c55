"""onnxruntime's kernels, one by one: a graph is run under its profiler, and what that wrote down is sorted."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.bounds import FLOAT32, INT8, Needs
from benchmarks.bounds.kinds import (
    ACTIVATIONS,
    ATTENTION,
    FLOAT_PRODUCTS,
    INT8_PRODUCTS,
    NORMS,
    PRODUCTS,
    QUANTIZING,
    REST,
)
from edgevl.engine.graph import _options

NORM = "LayerNormalization"
"""How the names of their operators end."""
KINDS: Mapping[str, str] = {
    **dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), INT8_PRODUCTS),
    "MatMulNBits": PRODUCTS,
    **dict.fromkeys(("Conv", "Gemm", "MatMul", "FusedMatMul"), FLOAT_PRODUCTS),
    **dict.fromkeys(("GroupQueryAttention", "MultiHeadAttention", "Attention", "Softmax"), ATTENTION),
    **dict.fromkeys(("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Sigmoid", "Tanh", "Erf", "Silu"), ACTIVATIONS),
    **dict.fromkeys(("Abs", "ReduceMax", "Div", "QuantizeLinear", "DynamicQuantizeLinear"), QUANTIZING),
}
"""By operator."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of one run: its operator, seconds, and the shapes of what it took and gave."""

    operator: str
    seconds: float
    inputs: Sequence[Sequence[int]]
    outputs: Sequence[Sequence[int]]

    @property
    def kind(self) -> str:
        """The kind that it is counted under."""
        if self.operator.endswith(NORM):
            return NORMS
        kind = KINDS.get(self.operator, REST)
        by_head = kind == FLOAT_PRODUCTS and self.operator != "Conv" and len(self.outputs[0]) == 4
        return ATTENTION if by_head else kind

    def needs(self, n_pairs: float) -> Needs:
        """Return its operations; `n_pairs` are those of a token and one that it attends to, in GroupQueryAttention.

        Those of MatMulNBits count as int8: with the accuracy level that edgevl exports it multiplies that.
        """
        rows = math.prod(self.outputs[0]) if self.outputs else 0
        if self.operator == "Conv":
            return {FLOAT32: 2.0 * rows * math.prod(self.inputs[1][1:])}
        if self.operator == "GroupQueryAttention":
            return {FLOAT32: 4.0 * self.outputs[0][-1] * n_pairs}
        if self.kind in (INT8_PRODUCTS, PRODUCTS):
            return {INT8: 2.0 * rows * self.inputs[0][-1]}
        if KINDS.get(self.operator) == FLOAT_PRODUCTS:
            return {FLOAT32: 2.0 * rows * self.inputs[0][-1]}
        return {}


class Profiled:
    """A graph under onnxruntime's profiler, with the settings with which edgevl runs it."""

    def __init__(self, path: Path, n_threads: int, *, spin: bool) -> None:
        """Load it; `spin` as in `edgevl.engine.graph.Graph`."""
        self._folder = tempfile.TemporaryDirectory(prefix="edgevl-profile-")
        options = _options(n_threads, spin)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name) / "profile")
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def runs(self) -> list[list[Kernel]]:
        """End profiling; return the kernels of each run so far."""
        path = Path(self.session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        self._folder.cleanup()
        return kernels_of_runs(events)


def kernels_of_runs(events: Iterable[Mapping[str, Any]]) -> list[list[Kernel]]:
    """Return the kernels of each run, from the events that the profiler wrote."""
    ordered = sorted(events, key=lambda event: event["ts"])
    runs = [event for event in ordered if event["cat"] == "Session" and event["name"] == "model_run"]
    nodes = [event for event in ordered if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    return [[_kernel(n) for n in nodes if run["ts"] <= n["ts"] <= run["ts"] + run["dur"]] for run in runs]


def _kernel(event: Mapping[str, Any]) -> Kernel:
    about = event["args"]
    inputs, outputs = (
        [shape for one in about.get(f"{side}_type_shape", []) for shape in one.values()] for side in ("input", "output")
    )
    return Kernel(about["op_name"], event["dur"] * 1e-6, inputs, outputs)
