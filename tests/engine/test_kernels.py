"""Vision graphs laid out for OpenVINO's kernels: another form, the same features."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine import kernels
from edgevl.engine.graph import Graph
from edgevl.engine.openvino import _read_ranges, core_of
from edgevl.model import manifest

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def path(smolvlm_int4_dir: Path) -> Path:
    """An int8 vision graph as PyTorch's exporter and the quantizer write it."""
    return smolvlm_int4_dir / manifest.read(smolvlm_int4_dir).vision.file


def features(model: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    compiled = core_of(openvino.Core).compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: NDArray[np.float32] = next(iter(compiled(pixels).values()))
    return found


def pixels(path: Path) -> NDArray[np.float32]:
    shape = Graph(path, threads=1).inputs["pixel_values"][1]
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def test_attention_is_computed_from_keys_as_they_are(path: Path) -> None:
    plain, fused = (core_of(openvino.Core).read_model(path) for _ in range(2))
    for model in (plain, fused):
        kernels.replace_dynamic(openvino, model, {})
    kernels.fuse_attention(openvino, fused)
    fused.validate_nodes_and_infer_types()
    scores = [node.input_value(0).get_node() for node in fused.get_ordered_ops() if node.get_type_name() == "Softmax"]
    assert scores
    assert all(product.get_attributes()["transpose_b"] for product in scores)
    n_plain, n_fused = (Counter(node.get_type_name() for node in model.get_ordered_ops()) for model in (plain, fused))
    assert n_fused["Transpose"] == n_plain["Transpose"] - len(scores)
    np.testing.assert_allclose(features(fused, pixels(path)), features(plain, pixels(path)), rtol=0, atol=1e-4)


def test_attention_of_another_form_stays() -> None:
    opset = openvino.opset13
    queries, keys, values = (opset.parameter([1, 2, 5, 4], np.float32, name) for name in "qkv")
    for turned in (
        opset.transpose(keys, [0, 1, 3, 2]),
        opset.reshape(keys, [1, 2, 4, 5], False),  # which is no transpose
        opset.reshape(opset.transpose(opset.reshape(keys, [2, 5, 4], False), [0, 2, 1]), [1, 2, 4, 5], False),
    ):
        scores = opset.matmul(opset.multiply(queries, np.float32(0.5)), turned, False, False)
        model = openvino.Model([opset.matmul(opset.softmax(scores, 3), values, False, False)], [queries, keys, values])
        before = [node.get_friendly_name() for node in model.get_ordered_ops()]
        kernels.fuse_attention(openvino, model)  # the queries were not cut into heads
        assert [node.get_friendly_name() for node in model.get_ordered_ops()] == before


def test_gelu_is_computed_by_the_error_function_and_is_nearly_the_same() -> None:
    opset = openvino.opset13
    x = opset.parameter([2001], np.float32, "x")
    model = openvino.Model([opset.gelu(x, "tanh")], [x])
    points = np.linspace(-10, 10, 2001, dtype=np.float32)
    before = features(model, points)
    kernels.use_erf(openvino, model)
    [gelu] = [node for node in model.get_ordered_ops() if node.get_type_name() == "Gelu"]
    assert gelu.get_attributes()["approximation_mode"].upper() == "ERF"
    difference = np.abs(features(model, points) - before).max()
    assert 0.0003 < difference < 0.0005


def test_a_laid_out_graph_gives_what_onnxruntime_gives(path: Path) -> None:
    ranges = _read_ranges(path)
    assert ranges
    model = core_of(openvino.Core).read_model(path)
    kernels.lay_out(openvino, model, ranges)
    gelus = [node for node in model.get_ordered_ops() if node.get_type_name() == "Gelu"]
    assert {node.get_attributes()["approximation_mode"].upper() for node in gelus} == {"ERF"}
    found = features(model, pixels(path)).ravel()
    wanted = Graph(path, threads=1).run({"pixel_values": pixels(path)})["image_features"].ravel()
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.999
