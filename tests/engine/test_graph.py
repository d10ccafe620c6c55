from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine import graph as graph_module
from edgevl.engine.devices import CPU, CUDA_PROVIDER, DEVICES
from edgevl.engine.graph import Graph, providers
from edgevl.errors import GraphError
from tests.engine import graphs


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.doubling(tmp_path_factory.mktemp("graph") / "double.onnx")


@pytest.fixture(scope="module")
def graph(path: Path) -> Graph:
    return Graph(path, threads=1)


def test_inputs_and_outputs_are_known_by_name(graph: Graph) -> None:
    assert graph.inputs == {"x": (np.float32, [1, "n", 3])}
    assert graph.outputs == {"y": (np.float32, [1, "n", 3])}


def test_run(graph: Graph) -> None:
    out = graph.run({"x": np.ones((1, 2, 3), np.float32)})
    np.testing.assert_array_equal(out["y"], np.full((1, 2, 3), 2, np.float32))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "expected inputs ['x'], got []"),
        ({"z": np.zeros(1)}, "expected inputs ['x'], got ['z']"),
        ({"x": np.zeros((1, 2, 4), np.float32)}, "input x: expected float32 [1, 'n', 3], got float32 [1, 2, 4]"),
        ({"x": np.zeros((2, 3), np.float32)}, "input x: expected float32 [1, 'n', 3], got float32 [2, 3]"),
        ({"x": np.zeros((1, 2, 3))}, "input x: expected float32 [1, 'n', 3], got float64 [1, 2, 3]"),
    ],
)
def test_what_does_not_fit_names_the_input_what_was_expected_and_what_came(
    graph: Graph, path: Path, feeds: dict[str, Any], message: str
) -> None:
    with pytest.raises(GraphError) as caught:
        graph.run(feeds)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 20])
def test_a_file_that_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        Graph(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: onnxruntime cannot load it (")
    assert message.endswith("); export it again")
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="onnxruntime cannot load it"):
        Graph(tmp_path / "missing.onnx")


@pytest.mark.skipif(CUDA_PROVIDER in providers(), reason="this onnxruntime was built with CUDA")
def test_a_provider_that_is_not_here_comes_with_the_command_that_adds_it(path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        Graph(path, device=DEVICES["cuda"])
    assert str(caught.value) == (
        f"{path}: this onnxruntime has no CUDAExecutionProvider; "
        "to add it: pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


@pytest.mark.skipif(CUDA_PROVIDER not in providers(), reason="this onnxruntime was built without CUDA")
def test_a_provider_that_does_not_load_says_why(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = ""
    try:
        graph = Graph(path, device=DEVICES["cuda"])
        assert (graph.run({"x": np.ones((1, 2, 3), np.float32)})["y"] == 2).all()
    except GraphError as error:
        said = str(error)
    if said:
        assert said.startswith(f"{path}: onnxruntime cannot load CUDAExecutionProvider here (")
        assert said.endswith("); use --device cpu")
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_a_device_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(GraphError) as caught:
        Graph(path, device=replace(CPU, name="cuda"))
    assert str(caught.value).startswith(f"{path}: onnxruntime cannot load it on cuda (")
    assert str(caught.value).endswith("); use --device cpu")


def test_require_wants_exactly_the_inputs_and_at_least_the_outputs(graph: Graph, path: Path) -> None:
    graph.require({"x"}, {"y"})
    graph.require({"x"}, set())
    with pytest.raises(GraphError) as caught:
        graph.require({"pixel_values"}, {"y"})
    assert str(caught.value) == f"{path}: expected inputs ['pixel_values'], got ['x']; export it again"
    with pytest.raises(GraphError) as caught:
        graph.require({"x"}, {"y", "z"})
    assert str(caught.value) == f"{path}: lacks the outputs ['z']; export it again"


def test_bound_arrays_are_read_and_written_in_place(graph: Graph) -> None:
    x, y = np.ones((1, 2, 3), np.float32), np.zeros((1, 2, 3), np.float32)
    binding = graph.bind()
    binding.bind_input("x", x)
    binding.bind_output("y", y)
    binding.run()
    assert (y == 2).all()
    x[:] = 5
    binding.run()
    assert (y == 10).all()


def test_one_array_may_be_input_and_output(graph: Graph) -> None:
    x = np.ones((1, 2, 3), np.float32)
    binding = graph.bind()
    binding.bind_input("x", x)
    binding.bind_output("y", x)
    binding.run()
    binding.run()
    assert (x == 4).all()


def test_a_binding_that_fails_names_the_graph(graph: Graph, path: Path) -> None:
    binding = graph.bind()
    binding.bind_input("x", np.ones((1, 2, 3), np.float32))
    binding.bind_output("y", np.zeros((1, 7, 3), np.float32))
    with pytest.raises(GraphError) as caught:
        binding.run()
    assert str(caught.value).startswith(f"{path}: failed while running (")


class TestKept:
    """A small graph is kept as it was optimized, and run from there."""

    @pytest.fixture
    def kept(self) -> dict[str, NDArray[np.uint8]]:
        return {}

    def opened(self, path: Path, kept: dict[str, NDArray[np.uint8]]) -> Graph:
        return Graph(path, threads=1, load=kept.get, keep=kept.__setitem__)

    def test_gives_the_same_bits(self, path: Path, kept: dict[str, NDArray[np.uint8]]) -> None:
        x = np.random.default_rng(0).standard_normal((1, 2, 3)).astype(np.float32)
        wanted = Graph(path, threads=1).run({"x": x})["y"]
        first = self.opened(path, kept)
        [name] = kept
        np.testing.assert_array_equal(first.run({"x": x})["y"], wanted)
        there = path.read_bytes()
        path.write_bytes(b"not read again")
        again = self.opened(path, kept)
        path.write_bytes(there)
        np.testing.assert_array_equal(again.run({"x": x})["y"], wanted)
        assert list(kept) == [name]
        assert (again.inputs, again.outputs) == (first.inputs, first.outputs)

    def test_weights_beside_it_are_found(self, tmp_path: Path, kept: dict[str, NDArray[np.uint8]]) -> None:
        import onnx

        path, weights = tmp_path / "product.onnx", np.arange(9000, dtype=np.float32).reshape(3, 3000)
        shapes = [graphs.value("x", (1, "n", 3))], [graphs.value("y", (1, "n", 3000))]
        whole = graphs.save(tmp_path / "whole.onnx", [graphs.node("MatMul", ("x", "w"), "y")], *shapes, w=weights)
        onnx.save(onnx.load(whole), path, save_as_external_data=True, location="product.onnx.data")
        self.opened(path, kept)
        [form] = kept.values()
        assert form.nbytes < weights.nbytes < (tmp_path / "product.onnx.data").stat().st_size + 1
        path.write_bytes(b"not read again")
        x = np.ones((1, 2, 3), np.float32)
        np.testing.assert_array_equal(self.opened(path, kept).run({"x": x})["y"], x @ weights)

    def test_damaged_it_is_made_again(self, path: Path, kept: dict[str, NDArray[np.uint8]]) -> None:
        self.opened(path, kept)
        [name] = kept
        whole, kept[name] = kept[name], np.zeros(10, np.uint8)
        self.opened(path, kept)
        np.testing.assert_array_equal(kept[name], whole)

    def test_a_graph_that_does_not_load_is_an_error_as_without(
        self, tmp_path: Path, kept: dict[str, NDArray[np.uint8]]
    ) -> None:
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(b"nothing")
        with pytest.raises(GraphError, match=r"bad\.onnx: onnxruntime cannot load it"):
            self.opened(bad, kept)
        assert kept == {}

    def test_without_room_for_it_the_graph_runs_all_the_same(
        self, path: Path, kept: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        x = np.zeros((1, 2, 3), np.float32)
        assert self.opened(path, kept).run({"x": x})["y"].shape == (1, 2, 3)
        assert kept == {}

    def test_a_large_one_is_not_kept(
        self, path: Path, kept: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graph_module, "OPTIMIZED_BYTES", 10)
        self.opened(path, kept)
        assert kept == {}
