"""Vision graphs on OpenVINO compute what onnxruntime computes from the same file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine import openvino
from edgevl.engine.graph import Graph
from edgevl.engine.openvino import OpenVINOGraph, ranges_path
from edgevl.errors import BackendMissing, GraphError
from edgevl.export.ranges import write_ranges
from edgevl.store.disk import Disk
from edgevl.store.keys import graph_key
from tests import intel
from tests.engine import graphs

pytest.importorskip("openvino", reason="OpenVINO is not installed")

WIDTH = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two linear layers on an input, quantized as vision graphs are, and the ranges of a few inputs."""
    from edgevl.export.graphs import quantize_int8

    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("openvino")
    layers = [("pixel_values", "hidden", 0), ("rectified", "image_features", 1)]
    nodes = [graphs.node("MatMul", (source, f"w{at}"), target) for source, target, at in layers]
    nodes.insert(1, graphs.node("Relu", ("hidden",), "rectified"))
    plain = graphs.save(
        folder / "plain.onnx",
        nodes,
        [graphs.value("pixel_values", (1, 8, WIDTH))],
        [graphs.value("image_features", (1, 8, WIDTH))],
        **{f"w{at}": rng.normal(0, 1 / 8, (WIDTH, WIDTH)).astype(np.float32) for at in (0, 1)},
    )
    quantize_int8(plain, folder / "vision.onnx")
    write_ranges(folder / "vision.onnx", inputs(4, seed=1))
    return folder / "vision.onnx"


def inputs(n: int, seed: int = 0) -> list[NDArray[np.float32]]:
    return list(np.random.default_rng(seed).normal(0, 1, (n, 1, 8, WIDTH)).astype(np.float32))


def open_graph(path: Path, **settings: Any) -> OpenVINOGraph:
    return OpenVINOGraph(path, is_quantized=True, **{"threads": 2, **settings})


def run(graph: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    features: NDArray[np.float32] = graph.run({"pixel_values": x})["image_features"]
    return features


def cosine(a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]]) -> float:
    x, y = np.concatenate(a).ravel(), np.concatenate(b).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_it_computes_what_onnxruntime_computes(path: Path) -> None:
    quick, plain = open_graph(path), Graph(path, threads=1)
    assert ranges_path(path).is_file()
    found, wanted = [run(quick, x) for x in inputs(3)], [run(plain, x) for x in inputs(3)]
    assert found[0].shape == (1, 8, WIDTH)
    assert cosine(found, wanted) > 0.999
    assert not np.array_equal(found[0], found[1])


def test_without_ranges_it_computes_the_same_more_slowly(path: Path, tmp_path: Path) -> None:
    (tmp_path / path.name).write_bytes(path.read_bytes())
    found = [run(open_graph(tmp_path / path.name), x) for x in inputs(3)]
    assert cosine(found, [run(Graph(path, threads=1), x) for x in inputs(3)]) > 0.999


def test_the_ranges_hold_what_was_met(path: Path) -> None:
    ranges = openvino._read_ranges(path)
    assert set(ranges) == {"pixel_values", "rectified"}
    low, high = ranges["pixel_values"]
    values = np.concatenate(inputs(4, seed=1))
    assert values.min() * 1.3 < low < values.min()
    assert values.max() < high < values.max() * 1.3
    assert ranges["rectified"][0] == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"x": 3}', '{"x": [1, 0]}', '{"x": [0, NaN]}', '{"x": ["a", "b"]}'),
        *('{"x": [[0, 0], [1]]}', '{"x": [[0, 0], [1, 0]]}', '{"x": [[[0]], [[1]]]}', '{"x": [0, [1, 1]]}'),
    ],
)
def test_ranges_that_are_none_are_an_error(path: Path, tmp_path: Path, text: str) -> None:
    other = tmp_path / path.name
    other.write_bytes(path.read_bytes())
    ranges_path(other).write_text(text)
    with pytest.raises(GraphError, match=r"OpenVINO cannot load it \(.+\); use --device cpu"):
        run(open_graph(other), inputs(1)[0])


def test_many_threads_get_their_own_answers(path: Path) -> None:
    graph, xs = open_graph(path), inputs(40)
    wanted = [run(graph, x) for x in xs]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: graph.run({"pixel_values": x}, 2)["image_features"], xs))
    np.testing.assert_array_equal(found, wanted)  # to the last bit: a stored tile may have been encoded either way


def test_a_kept_graph_is_run_from_its_file_and_not_from_a_copy(path: Path, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "store")

    def opened() -> OpenVINOGraph:
        return open_graph(
            path,
            load=lambda name: disk.get("graphs", graph_key("content", name)),
            keep=lambda name, compiled: disk.put("graphs", graph_key("content", name), compiled),
        )

    wanted = run(opened(), inputs(1)[0])
    disk.flush()
    again = opened()
    np.testing.assert_array_equal(run(again, inputs(1)[0]), wanted)
    [mapped] = again._mapped
    assert not mapped.flags.owndata


def test_a_compiled_graph_is_kept_and_used_again(path: Path) -> None:
    kept: dict[str, NDArray[np.uint8]] = {}
    wanted = run(open_graph(path, load=kept.get, keep=kept.__setitem__), inputs(1)[0])
    [name] = kept
    path_elsewhere = path.with_name("not-there.onnx")  # so that it cannot be read again
    again = open_graph(path_elsewhere, load=kept.get, keep=kept.__setitem__)
    np.testing.assert_array_equal(run(again, inputs(1)[0]), wanted)
    assert list(kept) == [name]


def test_no_thread_is_tied_to_a_core(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = intel.pretend(monkeypatch)
    open_graph(path).open(2)
    [(device, settings)] = core.told
    assert (device, settings["NUM_STREAMS"], settings["ENABLE_CPU_PINNING"]) == ("CPU", 2, False)


def test_once_opened_it_is_not_compiled_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = open_graph(path)
    graph.open(1)
    monkeypatch.setattr(graph, "_compile", None)
    assert run(graph, inputs(1)[0]).shape == (1, 8, WIDTH)


def test_nothing_is_read_before_it_is_run(tmp_path: Path) -> None:
    graph = open_graph(tmp_path / "missing.onnx")
    graph.require({"pixel_values"}, {"image_features"})
    with pytest.raises(GraphError, match=r"missing\.onnx: OpenVINO cannot load it"):
        run(graph, inputs(1)[0])


def test_require_is_checked_when_it_is_compiled(path: Path) -> None:
    graph = open_graph(path)
    graph.require({"x"}, {"y"})
    with pytest.raises(GraphError, match=r"expected inputs \['x'\], got \['pixel_values'\]; export it again"):
        run(graph, inputs(1)[0])
    graph.require({"pixel_values"}, {"y"})
    with pytest.raises(GraphError, match=r"lacks the outputs \['y'\]; export it again"):
        run(graph, inputs(1)[0])


def test_an_input_of_the_wrong_shape_is_named(path: Path) -> None:
    with pytest.raises(GraphError, match=r"vision\.onnx: failed while running"):
        open_graph(path).run({"pixel_values": np.zeros((1, 8, 3), np.float32)})


@pytest.mark.parametrize(
    ("target", "features", "wanted"),
    [
        ("CPU", ("AVX2", "AVX512", "VNNI"), True),
        ("CPU", ("AVX2", "AVX512"), False),
        ("CPU", ("AVX2", "VNNI"), False),
        ("CPU", None, False),
        ("GPU", ("AVX2", "AVX512", "VNNI"), False),
    ],
)
def test_attention_is_int8_where_that_was_measured_to_be_quicker(
    target: str, features: tuple[str, ...] | None, wanted: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intel.pretend(monkeypatch, "GPU.0")
    machine, told = replace(openvino.describe(), features=features), []
    monkeypatch.setattr(openvino, "describe", lambda: machine)
    monkeypatch.setattr(openvino, "lay_out", lambda *_, int8_scores: told.append(int8_scores))
    open_graph(path, target=target).open()
    assert told == [wanted]


def test_a_missing_package_says_how_to_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    with pytest.raises(BackendMissing) as caught:
        open_graph(path)
    assert str(caught.value) == "openvino is not installed: pip install 'edgevl[openvino]'"
    assert openvino.version() is None


def test_two_first_calls_compile_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, n_compiled = open_graph(path), []
    compiled = graph._compiled
    monkeypatch.setattr(graph, "_compiled", lambda *given: n_compiled.append(1) or compiled(*given))
    both = threading.Barrier(2)

    def first() -> None:
        both.wait()
        run(graph, inputs(1)[0])

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(first)]:
            future.result()
    assert n_compiled == [1]


SIGNALLED = """
import faulthandler, signal, sys
from pathlib import Path
from edgevl.engine.openvino import OpenVINOGraph

faulthandler.enable()  # as test runners do: it asks for a stack of its own too
graphs = [OpenVINOGraph(Path(sys.argv[1]), is_quantized=True, threads=1) for _ in range(3)]
for graph in graphs:
    graph.open()
while graphs:
    graph = graphs.pop(0)
    del graph
signal.signal(signal.SIGINT, lambda number, frame: print("heard", flush=True))
signal.raise_signal(signal.SIGINT)
"""


@pytest.mark.skipif(os.name == "nt", reason="handlers have no stack of their own there")
def test_ctrl_c_is_heard_when_graphs_have_gone(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n")


class TestIntel:
    """Intel graphics and NPUs, of which there are none here: what they are told, and what becomes of refusals."""

    def test_what_there_is_is_asked_of_openvino(self, monkeypatch: pytest.MonkeyPatch) -> None:
        intel.pretend(monkeypatch, "GPU.0", "GPU.1", "NPU")
        assert openvino.devices() == {"CPU", "GPU", "NPU"}

    def test_an_openvino_that_does_not_load_has_no_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("openvino.Core", None)
        assert openvino.devices() == set()

    @pytest.mark.parametrize("target", ["GPU", "NPU"])
    def test_each_computes_what_the_cpu_computes(
        self, target: str, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = intel.pretend(monkeypatch, "GPU.0", "NPU")
        graph = open_graph(path, target=target)
        assert graph.backend == f"openvino {openvino.version()} {target.lower()}"
        assert graph.n_at_once == 1, "it is no core whose threads could be shared out"
        found = [graph.run({"pixel_values": x}, 4)["image_features"] for x in inputs(3)]
        assert cosine(found, [run(Graph(path, threads=1), x) for x in inputs(3)]) > 0.999
        assert [device for device, _ in core.told] == [target]

    @pytest.mark.parametrize(
        ("target", "is_quantized", "settings"),
        [
            ("GPU", True, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f16"}),
            ("GPU", False, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}),
            ("NPU", True, {"PERFORMANCE_HINT": "LATENCY"}),
            ("NPU", False, {"PERFORMANCE_HINT": "LATENCY"}),
        ],
    )
    def test_it_is_told_nothing_that_is_for_the_cpu(
        self, target: str, is_quantized: bool, settings: Any, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core = intel.pretend(monkeypatch, "GPU.0", "NPU")
        OpenVINOGraph(path, is_quantized=is_quantized, threads=2, target=target).open(2)
        assert core.told == [(target, settings)]

    @pytest.mark.parametrize("target", ["GPU", "NPU"])
    def test_shapes_are_those_of_a_tile(self, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        intel.pretend(monkeypatch, "GPU.0", "NPU")
        graph = open_graph(graphs.doubling(tmp_path / "x.onnx"), target=target, shapes={"x": (1, 2, 3)})
        np.testing.assert_array_equal(graph.run({"x": np.ones((1, 2, 3), np.float32)})["y"], np.full((1, 2, 3), 2))
        with pytest.raises(GraphError, match="failed while running"):
            graph.run({"x": np.ones((1, 4, 3), np.float32)})

    def test_the_cpu_takes_any_shape(self, tmp_path: Path) -> None:
        graph = open_graph(graphs.doubling(tmp_path / "x.onnx"), shapes={"x": (1, 2, 3)})
        assert graph.run({"x": np.ones((1, 4, 3), np.float32)})["y"].shape == (1, 4, 3)

    def test_what_a_new_driver_does_not_take_back_is_compiled_again(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        core, kept = intel.pretend(monkeypatch, "GPU.0"), dict[str, NDArray[np.uint8]]()
        settings: Any = {"target": "GPU", "load": kept.get, "keep": kept.__setitem__}
        wanted = run(open_graph(path, **settings), inputs(1)[0])
        np.testing.assert_array_equal(run(open_graph(path, **settings), inputs(1)[0]), wanted)
        assert len(core.told) == len(kept) == 1
        core.forgets = True
        np.testing.assert_array_equal(run(open_graph(path, **settings), inputs(1)[0]), wanted)
        assert len(core.told) == 2

    def test_what_is_compiled_for_one_device_is_kept_for_that_one(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        intel.pretend(monkeypatch, "GPU.0", "NPU")
        kept: dict[str, NDArray[np.uint8]] = {}
        for target in ("CPU", "GPU", "NPU"):
            open_graph(path, target=target, load=kept.get, keep=kept.__setitem__).open()
        assert len(kept) == 3

    def test_a_device_that_is_gone_is_an_error(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        intel.pretend(monkeypatch)
        with pytest.raises(GraphError, match=r"OpenVINO cannot load it \(.*NPU.*\); use --device cpu"):
            open_graph(path, target="NPU").open()
