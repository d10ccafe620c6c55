"""OpenVINO on the same float32 vision graph: in bfloat16, and with int8 weights and activations by NNCF."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Variant
from benchmarks.peers.case import ROOT, Case, digest, making
from edgevl.engine.openvino import core_of

N_CALIBRATION = 16


def plain_graph(case: Case) -> Path:
    """Return the place of the float32 graph; another exporter makes another file."""
    return case.path(f"vision-{digest([ROOT / 'export' / 'vision.py'])}.onnx")


def int8_graph(case: Case) -> Path:
    """Return the folder of the graph that NNCF makes of it."""
    return plain_graph(case).with_suffix(f".nncf-{version('nncf')}")


def build(case: Case, variant: Variant) -> None:
    """Export the vision graph; for int8 let NNCF calibrate it on tiles of pictures other than the measured one."""
    with making(plain_graph(case)) as target:
        if target is not None:
            from edgevl.export import checkpoint
            from edgevl.export.vision import export_fp32

            source = checkpoint.read(case.checkpoint)
            export_fp32(source.row.load(case.checkpoint, source.image.tile).vision, source.image.tile, target)
    if variant.settings["vision"] == "int8":
        with making(int8_graph(case)) as target:
            if target is not None:
                _quantize(case, target)


def _quantize(case: Case, target: Path) -> None:
    import openvino

    graph = quantized(core_of(openvino.Core).read_model(plain_graph(case)), calibration(case))
    target.mkdir()
    openvino.save_model(graph, target / "vision.xml", compress_to_fp16=False)


def quantized(graph: Any, samples: Sequence[NDArray[np.float32]]) -> Any:
    """Return a vision graph with int8 weights and activations, whose ranges NNCF finds on `samples`."""
    import nncf

    dataset = nncf.Dataset(samples)
    return nncf.quantize(graph, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))


def calibration(case: Case) -> list[NDArray[np.float32]]:
    """Return tiles [1, 3, tile, tile]: crops of the other photographs where they are at hand, else drawn pictures."""
    from edgevl.export import checkpoint
    from edgevl.export.samples import drawn
    from edgevl.image import pixels
    from edgevl.image.read import read, resize

    spec = checkpoint.read(case.checkpoint).image
    names = ("astronaut.png", "coffee.png", "cat_chelsea.png", "rocket.jpg")
    found = [case.shared / "photos" / name for name in names if (case.shared / "photos" / name).is_file()]
    pictures = [read(path).rgb for path in found] or [drawn((300, 400), seed) for seed in range(4)]
    tiles = []
    for index in range(N_CALIBRATION):
        rgb = pictures[index % len(pictures)]
        height, width = rgb.shape[:2]
        row, col = ((index // 4) % 2) * height // 3, (index // 8) * width // 3
        crop = np.ascontiguousarray(rgb[row : row + 2 * height // 3, col : col + 2 * width // 3])
        tiles.append(pixels.normalise(resize(crop, (spec.tile, spec.tile), spec.resample), spec.mean, spec.std))
    return tiles


class Peer:
    """One compiled vision graph; what stays floating point in int8 runs in bfloat16, which is its fastest.

    Tiles are encoded side by side, one to a thread, where there are several: that is quicker than one after another. No
    thread is tied to a core, as in edgevl: that is quicker where anything else runs.
    """

    def __init__(self, case: Case, variant: Variant) -> None:
        import openvino

        self._case = case
        is_int8 = variant.settings["vision"] == "int8"
        graph = int8_graph(case) / "vision.xml" if is_int8 else plain_graph(case)
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": case.n_threads,
            "NUM_STREAMS": case.n_threads,
            "INFERENCE_PRECISION_HINT": "bf16",
            "ENABLE_CPU_PINNING": False,
        }
        core = core_of(openvino.Core)
        compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(case.n_threads)]
        self.about = {
            "precision": str(compiled.get_property("INFERENCE_PRECISION_HINT")),
            "capabilities": list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }

    def encode(self, n_tiles: int) -> list[float]:
        """Time the graph."""
        values = np.array(self._case.load("pixel_values")[:n_tiles])
        self._infer(values)
        started = time.perf_counter()
        self._infer(values)
        return [(time.perf_counter() - started) / n_tiles] * n_tiles

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return the graph's output."""
        return np.concatenate(self._infer(np.array(self._case.load("pixel_values")[:n_tiles])))

    def _infer(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(values), len(self._requests)):
            busy = list(zip(self._requests, values[start:], strict=False))
            for request, tile in busy:
                request.start_async([tile[None]], share_inputs=True)
            for request, _ in busy:
                request.wait()
                found.append(np.array(request.get_output_tensor(0).data))
        return found
