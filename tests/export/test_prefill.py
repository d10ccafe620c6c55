"""The decoder graph for prompts: the same products as int8 matrices, on the same KV cache."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import edgevl
from edgevl.engine.decoder import PIECE, OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.export.prefill import write_prefill
from edgevl.model import manifest

K, N, BLOCK = 96, 24, 32


def product(path: Path, bits: int, *, has_zeros: bool) -> Path:
    """Write a graph x [rows, K] -> y [rows, N] of one random MatMulNBits, and a head of the same kind."""
    rng = np.random.default_rng(bits)
    n_blocks = K // BLOCK

    def parts(name: str, n: int, k: int) -> list[onnx.TensorProto]:
        packed = rng.integers(0, 256, (n, k // BLOCK, BLOCK * bits // 8), np.uint8)
        scales = rng.uniform(0.01, 0.02, n * (k // BLOCK)).astype(np.float32)
        made = [numpy_helper.from_array(packed, f"{name}.w"), numpy_helper.from_array(scales, f"{name}.s")]
        if has_zeros:
            zeros = rng.integers(0, 256, (n, -(-n_blocks * bits // 8)), np.uint8)
            made.append(numpy_helper.from_array(zeros, f"{name}.z"))
        return made

    def node(x: str, name: str, y: str, n: int) -> onnx.NodeProto:
        inputs = [x, f"{name}.w", f"{name}.s", *([f"{name}.z"] if has_zeros else [])]
        return helper.make_node(
            "MatMulNBits", inputs, [y], domain="com.microsoft", K=K, N=n, bits=bits, block_size=BLOCK
        )

    graph = helper.make_graph(
        [node("x", "a", "y", N), node("x", "head", "logits", 8)],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", K])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "logits")],
        [*parts("a", N, K), *parts("head", 8, K)],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def run(path: Path, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    found: list[NDArray[np.float32]] = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    return found


@pytest.fixture(params=[(4, False), (8, False), (4, True), (8, True)], ids=str)
def graphs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """One product before and after."""
    bits, has_zeros = request.param
    before, after = product(tmp_path / "before.onnx", bits, has_zeros=has_zeros), tmp_path / "after.onnx"
    write_prefill(before, after)
    return before, after


def test_products_are_those_of_the_same_weights(graphs: tuple[Path, Path]) -> None:
    before, after = graphs
    x = np.random.default_rng(1).standard_normal((40, K)).astype(np.float32)
    (wanted, wanted_head), (found, found_head) = run(before, x), run(after, x)
    np.testing.assert_array_equal(found_head, wanted_head)
    # Each factor is off by half a step of 1/127 of the largest at most, and errors of K products add up by chance.
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()
    assert np.abs(found - wanted).mean() > 0


def test_a_row_is_computed_as_if_it_were_alone(graphs: tuple[Path, Path]) -> None:
    x = np.random.default_rng(2).standard_normal((5, K)).astype(np.float32)
    x[1] *= 1e6
    x[2] = 0
    found = run(graphs[1], x)[0]
    for index in range(5):
        np.testing.assert_array_equal(found[index], run(graphs[1], x[index : index + 1])[0][0])
    assert not found[2].any()


def test_a_product_that_is_split_becomes_one_for_each_part(graphs: tuple[Path, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs[0])
    split = helper.make_node("Split", ["y"], ["left", "right"], axis=-1, num_outputs=2)
    model.graph.node.append(split)
    del model.graph.output[0]
    parts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("left", "right")]
    model.graph.output.extend(parts)
    onnx.save(model, tmp_path / "split.onnx")
    write_prefill(tmp_path / "split.onnx", tmp_path / "parts.onnx")
    assert "Split" not in {node.op_type for node in onnx.load(tmp_path / "parts.onnx").graph.node}
    x = np.random.default_rng(3).standard_normal((7, K)).astype(np.float32)
    _, left, right = run(tmp_path / "parts.onnx", x)
    np.testing.assert_array_equal(np.concatenate([left, right], -1), run(graphs[1], x)[0])


def test_a_sink_changes_nothing_but_how_attention_is_computed(smolvlm_int4_dir: Path, tmp_path: Path) -> None:
    for file in ("prefill.onnx", "prefill.onnx.data"):
        shutil.copy(smolvlm_int4_dir / file, tmp_path)
    model = onnx.load(tmp_path / "prefill.onnx", load_external_data=False)
    heads = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    assert heads
    assert all(node.input[11] for node in heads)
    for node in heads:
        node.input[11] = ""
    onnx.save(model, tmp_path / "without.onnx")
    spec = manifest.read(smolvlm_int4_dir)
    assert spec.embeddings is not None
    table = read_embeddings(smolvlm_int4_dir / spec.embeddings.file, spec.decoder)
    decoders = [
        OnnxDecoder(Graph(tmp_path / name, threads=1), spec.decoder, table) for name in ("prefill.onnx", "without.onnx")
    ]
    for decoder in decoders:
        decoder.extend(np.arange(50) + 3)
        decoder.extend(np.arange(20) + 9)
    whole, in_tiles = (decoder.logits() for decoder in decoders)
    assert whole @ in_tiles / np.linalg.norm(whole) / np.linalg.norm(in_tiles) > 0.9999


def test_its_data_lies_beside_it_for_whoever_may_read_the_graph(graphs: tuple[Path, Path]) -> None:
    data = graphs[1].with_name("after.onnx.data")
    assert data.stat().st_size >= K * N
    assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE(graphs[1].stat().st_mode)
    write_prefill(*graphs)
    assert data.stat().st_size < 2 * K * N + 4096  # written anew, not behind what was there


class TestDecoder:
    def decoder(self, folder: Path, *, with_prefill: bool = True) -> Any:
        spec = manifest.read(folder)
        assert spec.decoder.prefill is not None
        assert spec.embeddings is not None
        return OnnxDecoder(
            Graph(folder / spec.decoder.file, threads=1),
            spec.decoder,
            read_embeddings(folder / spec.embeddings.file, spec.decoder),
            Graph(folder / spec.decoder.prefill, threads=1) if with_prefill else None,
        )

    def test_prompts_go_through_it_and_single_tokens_do_not(self, smolvlm_int4_dir: Path) -> None:
        both, alone = self.decoder(smolvlm_int4_dir), self.decoder(smolvlm_int4_dir, with_prefill=False)
        for decoder in (both, alone):
            for token in (5, 6, 7):
                decoder.extend(np.array([token]))
        np.testing.assert_array_equal(both.logits(), alone.logits())
        prompt = np.arange(40) + 3
        for decoder in (both, alone):
            decoder.truncate(0)
            decoder.extend(prompt)
        a, b = both.logits(), alone.logits()
        assert not np.array_equal(a, b)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98
        for decoder in (both, alone):
            decoder.extend(np.array([9]))
        a, b = both.logits(), alone.logits()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98

    def test_it_is_nearer_to_the_model_than_four_bits_are(
        self, smolvlm_int4_dir: Path, smolvlm_model_dir: Path
    ) -> None:
        """Its weights are the model's in 8 bits, not the 4 bits widened."""
        spec = manifest.read(smolvlm_model_dir)
        assert spec.embeddings is not None
        exact = OnnxDecoder(
            Graph(smolvlm_model_dir / spec.decoder.file, threads=1),
            spec.decoder,
            read_embeddings(smolvlm_model_dir / spec.embeddings.file, spec.decoder),
        )
        decoders = [exact, self.decoder(smolvlm_int4_dir), self.decoder(smolvlm_int4_dir, with_prefill=False)]
        for decoder in decoders:
            decoder.extend(np.arange(60) + 3)
        wanted, near, coarse = (decoder.logits() for decoder in decoders)
        assert np.abs(near - wanted).mean() < 0.5 * np.abs(coarse - wanted).mean()

    def test_growing_and_loading_keep_both_graphs_on_one_cache(self, smolvlm_int4_dir: Path) -> None:
        one, other = self.decoder(smolvlm_int4_dir), self.decoder(smolvlm_int4_dir)
        one.extend(np.arange(300) % 90)  # more than a block of the cache
        one.settle()
        assert other.load(one.save(), 300)
        for decoder in (one, other):
            decoder.extend(np.array([4, 8]))
            decoder.extend(np.array([15]))
        np.testing.assert_array_equal(one.logits(), other.logits())

    def test_a_long_chunk_goes_in_pieces_and_can_be_cancelled_between_them(self, smolvlm_int4_dir: Path) -> None:
        whole, pieces = self.decoder(smolvlm_int4_dir), self.decoder(smolvlm_int4_dir)
        ids = np.arange(2 * PIECE + 1) % 90
        assert whole.extend(ids)
        for start in range(0, len(ids) - 1, PIECE):
            pieces.extend(ids[start : start + PIECE])
        cancelled = threading.Event()
        cancelled.set()
        assert pieces.extend(ids[:PIECE], cancelled)  # one piece is never cut
        assert not pieces.extend(ids, cancelled)
        assert pieces.n_past == 3 * PIECE
        pieces.truncate(2 * PIECE)
        assert whole.n_past == 2 * PIECE + 1
        whole.truncate(2 * PIECE)
        np.testing.assert_array_equal(whole.save(), pieces.save())

    def test_a_model_folder_names_it_and_answers(self, smolvlm_int4_dir: Path, tmp_path: Path) -> None:
        spec = manifest.read(smolvlm_int4_dir)
        assert {"prefill.onnx", "prefill.onnx.data"} <= spec.files.keys()
        assert spec.fidelity is not None
        rgb = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
        with edgevl.load(smolvlm_int4_dir, store=tmp_path) as vlm:
            answer = vlm.ask(rgb, "what?", max_tokens=8)
        with edgevl.load(smolvlm_int4_dir, store=tmp_path) as vlm:
            again = vlm.ask(rgb, "what?", max_tokens=8)
        assert (again.token_ids, again.usage.cached_tokens > 0) == (answer.token_ids, True)
