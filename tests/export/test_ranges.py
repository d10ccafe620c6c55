"""Ranges of queries and keys: written where int8 hardly moves attention."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine.openvino import _read_ranges, ranges_path
from edgevl.export import ranges
from edgevl.export.graphs import quantize_int8
from tests.engine import graphs

HEADS, LENGTH, WIDTH = 2, 64, 4
COLUMNS = HEADS * WIDTH


def attending(folder: Path, sharpness: float) -> Path:
    """Save attention as PyTorch's exporter writes it, on rows that come from an int8 product; return its place."""
    rng, node = np.random.default_rng(0), graphs.node
    weights = {name: rng.normal(0, 1, (COLUMNS, COLUMNS)).astype(np.float32) for name in ("wq", "wk", "wv")}
    nodes = []
    for name in "qkv":
        nodes += [
            node("MatMul", ("pixel_values", f"w{name}"), f"rows_{name}"),
            node("Reshape", (f"rows_{name}", "cut"), f"cut_{name}"),
            node("Transpose", (f"cut_{name}",), f"heads_{name}", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Mul", ("heads_q", "root"), "queries"),
        node("Transpose", ("heads_k",), "turned", perm=[0, 1, 3, 2]),
        node("Mul", ("turned", "root"), "keys"),
        node("MatMul", ("queries", "keys"), "scores"),
        node("Softmax", ("scores",), "weights", axis=-1),
        node("MatMul", ("weights", "heads_v"), "image_features"),
    ]
    plain = graphs.save(
        folder / "plain.onnx",
        nodes,
        [graphs.value("pixel_values", (1, LENGTH, COLUMNS))],
        [graphs.value("image_features", (1, HEADS, LENGTH, WIDTH))],
        **weights,
        cut=np.array([1, LENGTH, HEADS, WIDTH]),
        root=np.float32(sharpness) ** np.float32(0.5),
    )
    quantize_int8(plain, folder / "vision.onnx")
    return folder / "vision.onnx"


def tiles() -> list[NDArray[np.float32]]:
    return list(np.random.default_rng(1).normal(0, 1, (3, 1, LENGTH, COLUMNS)).astype(np.float32))


def test_queries_and_keys_get_a_range_for_each_column(tmp_path: Path) -> None:
    path = attending(tmp_path, sharpness=0.01)
    ranges.write_ranges(path, tiles())
    found = _read_ranges(path)
    assert set(found) == {"pixel_values", "queries", "keys"}
    assert found["pixel_values"][0].shape == ()
    rows = np.concatenate(tiles()) @ np.random.default_rng(0).normal(0, 1, (COLUMNS, COLUMNS))
    met = rows.reshape(-1, COLUMNS) * 0.01**0.5
    low, high = found["queries"]
    assert low.shape == high.shape == (COLUMNS,)
    np.testing.assert_allclose(high - low, 1.1 * (met.max(0) - met.min(0)), rtol=0.05)
    np.testing.assert_allclose(low + high, met.max(0) + met.min(0), atol=0.05)
    assert len(ranges_path(path).read_text().splitlines()) == 5, "a line for each tensor"


def test_attention_that_int8_would_move_gets_none(tmp_path: Path) -> None:
    path = attending(tmp_path, sharpness=10)
    ranges.write_ranges(path, tiles())
    assert set(json.loads(ranges_path(path).read_text())) == {"pixel_values"}


def test_sharper_attention_is_moved_further() -> None:
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((1, 2, 64, 4), (1, 2, 4, 64)))
    found = []
    for sharpness in np.array([0.001, 0.1, 1, 10], np.float32):
        ends = ranges._columns(sharpness * queries, False), ranges._columns(keys, True)
        found.append(ranges.moved(sharpness * queries, keys, *ends))
    assert found == sorted(found)
    assert found[0] < 1e-4
    assert 0.005 < found[-1] < 0.05


def test_what_counts_is_the_head_that_is_moved_most() -> None:
    rng = np.random.default_rng(0)
    queries, keys = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((1, 2, 64, 4), (1, 2, 4, 64)))
    queries[:, 1] *= 1e-3
    ends = ranges._columns(queries, False), ranges._columns(keys, True)
    both = ranges.moved(queries, keys, *ends)
    first, second = (
        ranges.moved(
            queries[:, at : at + 1], keys[:, at : at + 1], *[(x[4 * at :][:4], y[4 * at :][:4]) for x, y in ends]
        )
        for at in (0, 1)
    )
    assert second < first / 10
    assert both == pytest.approx(first, rel=0.1)


def test_attention_of_another_form_gets_none(tmp_path: Path) -> None:
    rng, node = np.random.default_rng(0), graphs.node
    plain = graphs.save(
        tmp_path / "plain.onnx",
        [
            node("MatMul", ("pixel_values", "w"), "queries"),
            node("Transpose", ("queries",), "keys", perm=[0, 2, 1]),
            node("MatMul", ("queries", "keys"), "scores"),
            node("Softmax", ("scores",), "image_features", axis=-1),
        ],
        [graphs.value("pixel_values", (1, LENGTH, COLUMNS))],
        [graphs.value("image_features", (1, LENGTH, LENGTH))],
        w=rng.normal(0, 0.01, (COLUMNS, COLUMNS)).astype(np.float32),
    )
    quantize_int8(plain, tmp_path / "vision.onnx")
    ranges.write_ranges(tmp_path / "vision.onnx", tiles())
    assert set(json.loads(ranges_path(tmp_path / "vision.onnx").read_text())) == {"pixel_values"}
