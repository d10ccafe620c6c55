"""Graphs as transformers.js has them: a vision encoder with a mask, a decoder that gives its cache anew."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine.graph import Graph
from edgevl.engine.merged import MASK, N_AT_ONCE, MaskedVision, MergedDecoder, of_tiles, shapes_of_tile
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import GraphError
from edgevl.model.manifest import DecoderSpec, TensorSpec
from tests.engine import graphs

VOCAB = 5
TILE = 4


def spec(precision: str = "fp32") -> DecoderSpec:
    return DecoderSpec("merged", "decoder.onnx", precision, 1, 1, 2, VOCAB, VOCAB, 4000, {}, {})


def table(dtype: Any = np.float32) -> NDArray[Any]:
    return np.arange(VOCAB * VOCAB, dtype=dtype).reshape(VOCAB, VOCAB)


def decoder(folder: Path, precision: str = "fp32", **graph: Any) -> MergedDecoder:
    path = graphs.merged_decoder(folder / "decoder.onnx", hidden=VOCAB, **graph)
    return MergedDecoder(Graph(path, threads=1), spec(precision), table())


def ids(*token_ids: int) -> NDArray[np.int64]:
    return np.array(token_ids, np.int64)


def held(made: MergedDecoder) -> tuple[list[float], list[float]]:
    """Return what the cache holds: the first value of each token's embedding, and each token's place."""
    keys, places = made.save()[:, 0, :, 0]
    return keys.tolist(), places.tolist()


def test_scores_are_of_the_last_token_and_all_before_are_seen(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 3))
    np.testing.assert_array_equal(made.logits(), np.arange(15, 20) + 2)
    made.extend(np.full((1, VOCAB), 40, np.float32))
    np.testing.assert_array_equal(made.logits(), [43] * VOCAB)
    assert held(made) == ([5, 15, 40], [0, 1, 2])


def test_scores_are_the_callers_own(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(0))
    first = made.logits()
    made.extend(ids(1))
    np.testing.assert_array_equal(first, np.arange(5) + 1)


def test_a_long_chunk_goes_in_pieces(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    n = 2 * N_AT_ONCE + 3
    made.extend(np.arange(n, dtype=np.float32)[:, None].repeat(VOCAB, 1))
    assert made.n_past == n
    assert held(made) == (list(range(n)), list(range(n)))
    np.testing.assert_array_equal(made.logits(), [n - 1 + n] * VOCAB)


def test_a_cancelled_chunk_is_not_held(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 2))
    cancelled = threading.Event()
    cancelled.set()
    assert not made.extend(np.zeros((300, VOCAB), np.float32), cancelled)
    assert made.n_past == 2
    assert made.extend(ids(3))
    assert held(made) == ([5, 10, 15], [0, 1, 2])


def test_positions_of_features_are_refused(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 2))
    with pytest.raises(GraphError, match=r"decoder\.onnx: takes no positions in time, height and width"):
        made.extend(np.zeros((3, VOCAB), np.float32), positions=np.zeros((3, 3), np.int64))
    assert made.extend(ids(3))
    assert held(made) == ([5, 10, 15], [0, 1, 2])


def test_truncate_then_go_on(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 2, 3))
    made.truncate(1)
    made.extend(ids(4, 0))
    assert held(made) == ([5, 20, 0], [0, 1, 2])
    made.truncate(0)
    made.extend(ids(2))
    assert held(made) == ([10], [0])


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 2, 3))
    state = made.save()
    made.truncate(0)
    made.extend(ids(4))
    assert made.load(state, 3)
    made.extend(ids(0))
    assert held(made) == ([5, 10, 15, 0], [0, 1, 2, 3])
    assert not made.load(state, 2), "of another length"
    assert not made.load(state.astype(np.float16), 3), "of another precision"


def test_a_quantized_decoder_settles_to_half_precision(tmp_path: Path) -> None:
    made = decoder(tmp_path, "q4")
    made.extend(np.full((1, VOCAB), 1 / 3, np.float32))
    made.settle()
    assert made.save().dtype == np.float16
    made.extend(np.full((1, VOCAB), 1 / 3, np.float32))
    third, _ = made._cache.save(2, np.float32)[:, 0, :, 0]
    assert third.tolist() == [np.float16(1 / 3), np.float32(1 / 3)]


def test_a_graph_without_positions_and_in_half_precision(tmp_path: Path) -> None:
    made = decoder(tmp_path, "fp16", positions=False, dtype="FLOAT16")
    made.extend(ids(4, 2))
    assert made.logits().dtype == np.float32
    np.testing.assert_array_equal(made.logits(), np.arange(10, 15) + 2)
    assert held(made) == ([20, 10], [7, 7])


class TestMaskedVision:
    TILES = TensorSpec("float32", ("images", "tiles", 3, TILE, TILE))
    MASK = TensorSpec("bool", ("images", "tiles", TILE, TILE))

    def pixels(self) -> NDArray[np.float32]:
        return np.full((1, 3, TILE, TILE), 0.5, np.float32)

    @pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16"])
    def test_a_tile_is_one_of_an_image_and_its_mask_is_full(self, tmp_path: Path, dtype: str) -> None:
        graph = Graph(graphs.masked_vision(tmp_path / "v.onnx", tile=TILE, dtype=dtype))
        tiles = TensorSpec({"FLOAT": "float32", "FLOAT16": "float16"}[dtype], self.TILES.shape)
        encoder = VisionEncoder(of_tiles(graph, {"pixel_values": tiles, "pixel_attention_mask": self.MASK}))
        features = encoder.encode(self.pixels())
        assert features.dtype == np.float32
        assert features.tolist() == [[3 * TILE * TILE / 2] * 2]
        assert encoder.backend == graph.backend

    def test_a_graph_that_takes_tiles_stays_itself(self, tmp_path: Path) -> None:
        graph = Graph(graphs.masked_vision(tmp_path / "v.onnx", tile=TILE))
        plain = {"pixel_values": TensorSpec("float32", (1, 3, TILE, TILE))}
        assert of_tiles(graph, plain) is graph
        assert of_tiles(graph, {}) is graph
        assert isinstance(of_tiles(graph, {**plain, "pixel_attention_mask": self.MASK}), MaskedVision)

    def test_a_graph_that_is_not_as_described_is_refused(self, tmp_path: Path) -> None:
        graph = Graph(graphs.masked_vision(tmp_path / "v.onnx", tile=TILE))
        with pytest.raises(GraphError, match="expected inputs"):
            VisionEncoder(of_tiles(graph, {"pixel_values": self.TILES}))


@pytest.mark.parametrize("n_dims", [4, 5])
@pytest.mark.parametrize("is_masked", [False, True])
def test_the_shapes_of_a_tile_are_those_that_the_graph_is_given(n_dims: int, is_masked: bool) -> None:
    class Graph:
        path, backend, n_at_once = Path("vision.onnx"), "none", 1

        def run(self, feeds: Any, n_at_once: int) -> Any:
            return {name: array.shape for name, array in feeds.items()}

    inputs = {"pixel_values": TensorSpec("float32", ("any", "tiles", 3, "height", "width")[-n_dims:])}
    if is_masked:
        inputs[MASK] = TensorSpec("bool", ("any", "tiles", "height", "width"))
    given: Any = MaskedVision(Graph(), inputs).run({"pixel_values": np.zeros((1, 3, TILE, TILE), np.float32)})  # type: ignore[arg-type]
    assert shapes_of_tile(inputs, TILE) == given
