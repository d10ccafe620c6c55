"""What runs a vision graph: onnxruntime, or OpenVINO where it is installed and was measured to be quicker here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine import openvino
from edgevl.engine.graph import Graph
from edgevl.engine.merged import of_tiles
from edgevl.engine.openvino import OpenVINOGraph
from edgevl.engine.vision import VisionEncoder, VisionGraph
from edgevl.errors import BackendMissing, EdgeVLError
from edgevl.model.manifest import Manifest
from edgevl.store import kept
from edgevl.store.disk import Disk
from edgevl.store.keys import graph_key

DEVICES = ("auto", "cpu", "openvino")
QUICK_S = 0.05
"""A graph that onnxruntime runs in this time is not worth the compiling that OpenVINO begins with."""
MIN_COSINE = 0.99
"""OpenVINO's features must be as near as this to onnxruntime's, or it is not used."""

log = logging.getLogger(__name__)


def open_encoder(
    folder: Path, spec: Manifest, *, device: str, threads: int | None, disk: Disk | None = None
) -> VisionEncoder:
    """Open a model's vision graph on `device`; "auto" measures once which is the quickest here, and keeps that.

    What OpenVINO compiles is kept on `disk`. Raises BackendMissing for a device that is not known or not installed,
    GraphError for a graph that cannot be run.
    """
    path = folder / spec.vision.file
    content = f"{spec.files[spec.vision.file].sha256}@{path.stat().st_mtime_ns}"

    def load(name: str) -> NDArray[np.uint8] | None:
        return None if disk is None else disk.get("graphs", graph_key(content, name))

    def keep(name: str, compiled: NDArray[np.uint8]) -> None:
        if disk is not None:
            disk.put("graphs", graph_key(content, name), compiled)

    def on_openvino() -> VisionEncoder:
        is_quantized = spec.vision.precision == "int8"
        return encoder(OpenVINOGraph(path, is_quantized=is_quantized, threads=threads, load=load, keep=keep))

    def encoder(graph: VisionGraph) -> VisionEncoder:
        return VisionEncoder(of_tiles(graph, spec.vision.inputs))

    if device not in DEVICES:
        raise BackendMissing(f"device {device!r} is not supported by this version; use one of {', '.join(DEVICES)}")
    if device == "openvino":
        return on_openvino()
    if device == "cpu" or not openvino.is_present():
        return encoder(Graph(path, threads=threads))
    key = vision_key(spec, threads)
    seconds = kept.read(key)
    if seconds is None:
        plain = encoder(Graph(path, threads=threads))
        chosen, seconds = _measured(plain, on_openvino, spec.image.tile)
        kept.write(key, seconds)
        return chosen
    return on_openvino() if quickest(seconds) == "openvino" else encoder(Graph(path, threads=threads))


def vision_key(spec: Manifest, threads: int | None) -> kept.Key:
    """Return under which key the seconds of a model's vision graph on each engine are kept."""
    content = spec.files[spec.vision.file].sha256
    key = kept.key_of("vision", content, device="auto", threads=threads)
    return {**key, "openvino": openvino.version() or "none"}


def measured(spec: Manifest, threads: int | None) -> dict[str, float]:
    """Return the seconds of a tile on each engine, as far as they have been measured here."""
    return kept.read(vision_key(spec, threads)) or {}


def installed(engine: str) -> str | None:
    """Return the version of "onnxruntime", "openvino" or "llama.cpp"; None where it is not installed."""
    package = {"llama.cpp": "llama-cpp-python"}.get(engine, engine)
    found = machine.version(package)
    return None if found == machine.UNKNOWN else found


def quickest(seconds: dict[str, float]) -> str:
    """Return the name of the engine that took least; onnxruntime where nothing usable was measured."""
    usable = {name: value for name, value in seconds.items() if isinstance(value, int | float) and value > 0}
    return min(usable, key=lambda name: usable[name], default="onnxruntime")


def _measured(
    plain: VisionEncoder, other: Callable[[], VisionEncoder], tile: int
) -> tuple[VisionEncoder, dict[str, float]]:
    """Return the quicker one, and the seconds of a tile on each engine that computes what it should."""
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 3, tile, tile)).astype(np.float32)
    wanted, seconds = plain.encode(noise), {"onnxruntime": _seconds(plain, noise)}
    if seconds["onnxruntime"] < QUICK_S:
        return plain, seconds
    log.info("measuring once whether OpenVINO is quicker here")
    try:
        encoder = other()
        features = encoder.encode(noise)
        nearness = _cosine(features, wanted)
        if nearness >= MIN_COSINE:
            seconds["openvino"] = _seconds(encoder, noise)
        else:
            log.warning("OpenVINO computes other features here (cosine %.4f); onnxruntime is used", nearness)
    except EdgeVLError as error:
        log.warning("%s; onnxruntime is used", error)
    return (encoder if quickest(seconds) == "openvino" else plain), seconds


def _seconds(encoder: VisionEncoder, pixel_values: NDArray[np.float32]) -> float:
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        encoder.encode(pixel_values)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the mean cosine of the rows of two arrays."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(norms, 1e-30)).mean())
