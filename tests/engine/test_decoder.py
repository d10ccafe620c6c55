from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine.decoder import OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.errors import GraphError, ModelError
from edgevl.model.manifest import DecoderSpec
from tests.engine import graphs

VOCAB = 5


def spec(context_length: int = 1000) -> DecoderSpec:
    return DecoderSpec("onnx", "decoder.onnx", "fp32", 1, 1, 2, VOCAB, VOCAB, context_length, {}, {})


def table(dtype: Any = np.float32) -> NDArray[Any]:
    return np.arange(VOCAB * VOCAB, dtype=dtype).reshape(VOCAB, VOCAB)


def decoder(folder: Path, rows: NDArray[Any] | None = None, **graph: Any) -> OnnxDecoder:
    path = graphs.decoder(folder / "decoder.onnx", hidden=VOCAB, **graph)
    return OnnxDecoder(Graph(path, threads=1), spec(), table() if rows is None else rows)


def ids(*token_ids: int) -> NDArray[np.int64]:
    return np.array(token_ids, np.int64)


def test_scores_are_of_the_last_token(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 3))
    np.testing.assert_array_equal(made.logits(), [15, 16, 17, 18, 19])
    made.extend(ids(2))
    np.testing.assert_array_equal(made.logits(), [10, 11, 12, 13, 14])
    assert made.n_past == 3


def test_features_are_taken_as_they_are(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(np.full((4, VOCAB), 7, np.float32))
    np.testing.assert_array_equal(made.logits(), [7] * VOCAB)
    assert made.n_past == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_ids_are_fed_as_may_be_fed_instead(tmp_path: Path, dtype: Any) -> None:
    made = decoder(tmp_path, table(dtype))
    embedded = made.embed(ids(1, 3))
    assert embedded.dtype == np.float32
    made.extend(np.concatenate([embedded, np.full((1, VOCAB), 9, np.float32)]))
    np.testing.assert_array_equal(made.logits(), [9] * VOCAB)
    made.truncate(0)
    made.extend(embedded)
    np.testing.assert_array_equal(made.logits(), [15, 16, 17, 18, 19])


def test_scores_are_the_callers_own(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(0))
    first = made.logits()
    made.extend(ids(1))
    np.testing.assert_array_equal(first, [0, 1, 2, 3, 4])
    first[:] = 0
    np.testing.assert_array_equal(made.logits(), [5, 6, 7, 8, 9])


def test_half_precision_rows_and_graphs(tmp_path: Path) -> None:
    made = decoder(tmp_path, table(np.float16), dtype="FLOAT16")
    made.extend(ids(4))
    logits = made.logits()
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, [20, 21, 22, 23, 24])


def test_its_memory_is_free_once_nobody_has_it(tmp_path: Path) -> None:
    """A graph's weights are too much to wait for the garbage collector."""
    made = decoder(tmp_path)
    made.extend(ids(1, 3))
    gone = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None
    finally:
        gc.enable()


def test_more_tokens_than_a_block_of_the_cache(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    for _ in range(3):
        made.extend(np.zeros((300, VOCAB), np.float32))
    assert made.n_past == 900


def test_truncate_forgets_the_end_only(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    made.extend(ids(1, 2, 3))
    made.truncate(1)
    assert made.n_past == 1
    made.extend(ids(4))
    assert made.n_past == 2
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"cannot truncate to {wrong} tokens, 2 are held"):
            made.truncate(wrong)


def test_positions_are_refused(tmp_path: Path) -> None:
    made = decoder(tmp_path)
    with pytest.raises(GraphError) as caught:
        made.extend(np.zeros((4, VOCAB), np.float32), positions=np.zeros((3, 4), np.int64))
    assert str(caught.value) == (
        f"{tmp_path / 'decoder.onnx'}: takes no positions in time, height and width; use a GGUF decoder"
    )
    assert made.n_past == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error(tmp_path: Path, bad: float) -> None:
    rows = table()
    rows[1, 2] = bad
    made = decoder(tmp_path, rows)
    made.extend(ids(1))
    with pytest.raises(GraphError) as caught:
        made.logits()
    path = tmp_path / "decoder.onnx"
    assert str(caught.value) == f"{path}: returned scores that are not numbers; run: edgevl verify"


def test_a_graph_with_another_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"expected inputs .*, got .*position_ids.*; export it again"):
        decoder(tmp_path, extra_input=True)


class TestEmbeddings:
    def test_are_memory_mapped(self, tmp_path: Path) -> None:
        np.save(tmp_path / "e.npy", table(np.float16))
        rows = read_embeddings(tmp_path / "e.npy", spec())
        assert isinstance(rows, np.memmap)
        np.testing.assert_array_equal(rows[[1, 4]], table()[[1, 4]])

    @pytest.mark.parametrize("array", [np.zeros((5, 4), np.float32), np.zeros((5, 5)), np.zeros((5, 5), np.int8)])
    def test_of_another_shape_or_type_are_refused(self, tmp_path: Path, array: NDArray[Any]) -> None:
        path = tmp_path / "e.npy"
        np.save(path, array)
        with pytest.raises(ModelError) as caught:
            read_embeddings(path, spec())
        assert str(caught.value) == f"{path}: expected float [5, 5], got {array.dtype} {list(array.shape)}"

    def test_that_are_none_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "e.npy"
        for content in (b"", b"text", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}"):
            path.write_bytes(content)
            with pytest.raises(
                ModelError, match=r"e\.npy: is not a readable \.npy table \(.*\); export the model again"
            ):
                read_embeddings(path, spec())

    def test_that_are_pickled_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "e.npy"
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ModelError, match="is not a readable"):
            read_embeddings(path, spec())
