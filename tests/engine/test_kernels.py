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


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def of_type(model: Any, name: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == name]


def test_attention_is_computed_from_keys_as_they_are(path: Path) -> None:
    plain, fused = (core_of(openvino.Core).read_model(path) for _ in range(2))
    for model in (plain, fused):
        kernels.replace_dynamic(openvino, model, {})
    kernels.fuse_attention(openvino, fused, {})
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
        kernels.fuse_attention(openvino, model, {})  # the queries were not cut into heads
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


def test_int8_tensors_have_no_zero_point(path: Path) -> None:
    model = core_of(openvino.Core).read_model(path)
    kernels.replace_dynamic(openvino, model, _read_ranges(path))
    lows = [node.input_value(3).get_node().data.item() for node in of_type(model, "FakeQuantize")]
    assert lows
    assert set(lows) == {0}


def test_queries_and_keys_with_ranges_are_multiplied_as_int8(path: Path) -> None:
    ranges = _read_ranges(path)
    plain, rounded = (core_of(openvino.Core).read_model(path) for _ in range(2))
    kernels.lay_out(openvino, plain, ranges)
    kernels.lay_out(openvino, rounded, ranges, int8_scores=True)
    n_attentions = len(of_type(plain, "Softmax"))
    assert n_attentions > 0
    assert len(of_type(rounded, "FakeQuantize")) == len(of_type(plain, "FakeQuantize")) + 2 * n_attentions
    found, wanted = (features(model, pixels(path)).ravel() for model in (rounded, plain))
    assert 0.999 < cosine(found, wanted) < 1


def test_one_of_a_pair_with_a_range_is_not_rounded(path: Path) -> None:
    plain, model = (core_of(openvino.Core).read_model(path) for _ in range(2))
    ranges = dict(_read_ranges(path))
    for name in [name for name, (low, _) in ranges.items() if low.ndim == 1][::2]:
        del ranges[name]
    kernels.lay_out(openvino, plain, ranges)
    kernels.lay_out(openvino, model, ranges, int8_scores=True)
    assert len(of_type(model, "FakeQuantize")) == len(of_type(plain, "FakeQuantize"))


def test_balanced_queries_and_keys_reach_equally_far_and_attend_alike() -> None:
    rng = np.random.default_rng(0)
    wide = np.array([0.1, 1, 30, 1], np.float32)
    queries, keys = rng.normal(0, 1, (50, 4)) / wide, rng.normal(0, 1, (50, 4)) * wide + [0, 70, 0, -5]
    ends = [(x.min(0).astype(np.float32), x.max(0).astype(np.float32)) for x in (queries, keys)]
    share, middle, limit = kernels.balance(*ends)
    queries_too, keys_too = queries * share, (keys - middle) / share
    np.testing.assert_allclose(np.abs(queries_too).max(0), np.abs(keys_too).max(0), rtol=1e-5)
    assert max(np.abs(queries_too).max(), np.abs(keys_too).max()) == pytest.approx(limit, rel=1e-5)
    lost = queries @ keys.T - queries_too @ keys_too.T
    np.testing.assert_allclose(lost, np.broadcast_to(lost[:, :1], lost.shape), atol=1e-4)  # the same for all keys


def test_columns_in_which_nothing_varies_divide_nothing_by_zero() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    share, _, limit = kernels.balance((-one, one), (zero, np.array([0, 0, 1], np.float32)))
    assert np.isfinite(share).all()
    assert (share > 0).all()
    assert limit > 0


@pytest.mark.parametrize("int8_scores", [False, True])
def test_a_laid_out_graph_gives_what_onnxruntime_gives(path: Path, int8_scores: bool) -> None:
    ranges = _read_ranges(path)
    assert ranges
    model = core_of(openvino.Core).read_model(path)
    kernels.lay_out(openvino, model, ranges, int8_scores=int8_scores)
    gelus = [node for node in model.get_ordered_ops() if node.get_type_name() == "Gelu"]
    assert {node.get_attributes()["approximation_mode"].upper() for node in gelus} == {"ERF"}
    found = features(model, pixels(path)).ravel()
    wanted = Graph(path, threads=1).run({"pixel_values": pixels(path)})["image_features"].ravel()
    assert cosine(found, wanted) > 0.999
