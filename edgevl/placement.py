"""What runs each part of a model: the device that was asked for, or the one that was measured to be quickest here."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine import aside, graph, openvino
from edgevl.engine.ahead import OnnxAheadDecoder
from edgevl.engine.decoder import Decoder, read_embeddings
from edgevl.engine.devices import (
    CPU,
    DEVICES,
    LLAMA,
    LLAMA_CUDA,
    LLAMA_METAL,
    OPENVINO,
    Device,
    Part,
    asked_for,
    beside_cpu,
)
from edgevl.engine.graph import Graph
from edgevl.engine.merged import MergedDecoder, of_tiles, shapes_of_tile
from edgevl.engine.native import decoder as native
from edgevl.engine.native.plan import data_path
from edgevl.engine.openvino import OpenVINOGraph
from edgevl.engine.vision import VisionEncoder, VisionGraph
from edgevl.errors import EdgeVLError, GraphError
from edgevl.model import manifest
from edgevl.model.manifest import Manifest
from edgevl.store import kept
from edgevl.store.disk import Disk
from edgevl.store.keys import graph_key

SYSTEM: str = sys.platform
QUICK_S = 0.05
"""A trial that the CPU passes in this time is not worth what another device begins with."""
N_TURNS = 3
"""How often a device and the CPU are tried in turn; the best of each counts."""
MIN_COSINE = 0.99
"""What a device computes must be as near as this to what the CPU computes, or it is not used."""
N_PROMPT, N_STEPS = 64, 8
"""A decoder's trial: how many tokens it is fed at once, and how many one by one after them."""

SMALL_BYTES = 8 << 20
"""A native decoder of fewer bytes is computed by one thread: a token takes a tenth of a millisecond, and as long as
that to wake another one for it, where something else is done between two tokens."""

ENGINES: dict[Part, tuple[str, ...]] = {
    "vision": ("onnxruntime", "openvino"),
    "onnx": ("onnxruntime",),
    "gguf": ("llama.cpp",),
}
"""What may run a part; what was measured holds for their versions."""

T = TypeVar("T")

log = logging.getLogger(__name__)
_measuring = threading.Lock()  # the parts of a model are opened side by side


@dataclass(frozen=True)
class _Work(Generic[T]):
    """A part to be placed: how it is opened on a device, and a piece of work on it that gives rows to compare."""

    part: Part
    open_on: Callable[[Device], T]
    trial: Callable[[T], NDArray[np.float32]]


class Placement:
    """The parts of one model, each opened on the device that runs it."""

    def __init__(
        self,
        folder: Path,
        spec: Manifest,
        *,
        device: str,
        threads: int | None,
        disk: Disk | None = None,
        available: Collection[str] | None = None,
        system: str | None = None,
    ) -> None:
        """Place the model in `folder` on `device`; "auto" measures once which is the quickest here, and keeps that.

        What is compiled is kept on `disk`. `available` is what devices need and is here (None: it is looked up),
        `system` a value of `sys.platform` (None: this one). Raises BackendMissing for a device that is not known, or
        not here, or runs nothing of this model, and InputError for a number of threads that makes no sense.
        """
        self._folder, self._spec, self._disk = folder, spec, disk
        self._threads = machine.checked_threads(threads) or machine.capped_threads()
        self._available, self._system = available, system or SYSTEM
        self._may_warn = threading.Lock()
        self.decoder_part = decoder_part(spec)
        self._device = None if device == "auto" else self._asked_for(str(device))

    def encoder(self) -> VisionEncoder:
        """Open the vision graph; raise GraphError if not even the CPU runs it."""
        return self._placed(_Work("vision", self._open_encoder, self._encode_noise))

    def decoder(self, takes_turns: bool = False) -> Decoder:
        """Open the decoder, empty; raise GraphError or BackendMissing if not even the CPU runs it.

        `takes_turns`: where it has a graph for prompts and one for single tokens, one of them is in memory at a time.
        """
        open_on = partial(self._open_decoder, takes_turns=takes_turns)
        return self._placed(_Work(self.decoder_part, open_on, self._decode))

    def likely_encoder(self) -> str | None:
        """Return the `backend` of the vision graph that would be opened, without opening it; see `likely_decoder`."""
        row = self._likely("vision")
        if row is None:
            return None
        return graph.backend(row) if row.openvino is None else openvino.backend(row.openvino)

    def likely_decoder(self) -> str | None:
        """Return the `backend` of the decoder that would be opened, without opening it.

        None where that is to be measured first, or is not installed. It becomes another one where a device fails.
        """
        row = self._likely(self.decoder_part)
        if row is None:
            return None
        if self.decoder_part == "onnx":
            return native.backend() if self._is_native(row) else graph.backend(row)
        from edgevl.engine import gguf

        version = installed("llama.cpp")
        return None if version is None else gguf.backend(version, row)

    def is_native(self) -> bool:
        """Return whether the decoder will be one that is computed without a graph, its weights read where mapped."""
        row = self._likely(self.decoder_part)
        return row is not None and self.decoder_part == "onnx" and self._is_native(row)

    def choices(self, part: Part, anew: bool = False) -> list[Device]:
        """Return the devices that "auto" chooses from for `part`; with `anew` OpenVINO is asked which are here."""
        return [CPU, *beside_cpu(part, self._found(part, anew), self._system)]

    def measured(self, part: Part) -> dict[str, float]:
        """Return the seconds of a trial of `part` on each device, as far as they have been measured here."""
        return _usable(kept.read(self.key(part)) or {})

    def trouble(self, row: Device) -> str | None:
        """Return why a device that is here cannot load the vision graph; None if it can, or does not run such."""
        if row is CPU or "vision" not in row.needs or "vision" in row.missing(self._found("vision")):
            return None
        try:
            self._open_encoder(row).open()  # OpenVINO compiles no sooner than it has to
        except EdgeVLError as error:
            return str(error)
        return None

    def key(self, part: Part, device: str = "auto") -> kept.Key:
        """Return under which key the seconds of a part are kept: on each device, or on the one that was asked for."""
        spec = self._spec
        content = spec.files[spec.vision.file if part == "vision" else spec.decoder.file].sha256
        key = kept.key_of(part, content, device=device, threads=self._threads)
        choices = ",".join(row.name for row in self.choices(part))
        return {**key, **versions(part), "devices": choices}

    def _found(self, part: Part, anew: bool = False) -> Collection[str]:
        if self._available is not None:
            return self._available
        return found(part) | look(part) if anew else found(part)

    def _asked_for(self, name: str) -> Device:
        """Return the device `name`; only what it would run here is looked up, for llama.cpp takes a moment."""
        if name == "cpu":
            return CPU
        parts: tuple[Part, ...] = ("vision", self.decoder_part)
        needs = DEVICES[name].needs if name in DEVICES else {}
        looked_at = [part for part in parts if part in needs]
        available = {need for part in looked_at for need in self._found(part)}
        for part in looked_at:
            if needs[part] not in available:  # it may have been added since
                available.update(self._found(part, anew=True))
        return asked_for(name, parts, available, self._system)

    def _likely(self, part: Part) -> Device | None:
        """Return the device that `part` will be opened on; None where that is to be measured first."""
        if self._device is not None:
            return self._device if part in self._device.needs else CPU
        if len(self.choices(part)) == 1:
            return CPU
        seconds = kept.read(self.key(part))
        return None if seconds is None else DEVICES[quickest(seconds)]

    def _placed(self, work: _Work[T]) -> T:
        if self._device is None:
            return self._quickest(work)
        if self._device is CPU or work.part not in self._device.needs:
            return work.open_on(CPU)
        key = self.key(work.part, self._device.name)
        return self._on(self._device, work, None if kept.read(key) else key)

    def _on(self, row: Device, work: _Work[T], untried: kept.Key | None = None) -> T:
        """Open a part on a device; where that fails, on the CPU, with a warning.

        Where it is `untried`, a trial belongs to it: some fail only when they run. That is kept under the key.
        """
        try:
            opened = work.open_on(row)
            if untried:
                kept.write(untried, {row.name: _seconds(work, opened, n_times=1)})
        except EdgeVLError as error:
            self._warn(f"{error}; the CPU is used")
            return work.open_on(CPU)
        return opened

    def _quickest(self, work: _Work[T]) -> T:
        if len(self.choices(work.part)) == 1:
            return work.open_on(CPU)
        seconds = kept.read(self.key(work.part))
        if seconds is None:
            with _measuring:
                chosen, seconds = self._measure(work)
            kept.write(self.key(work.part), seconds)  # of the devices that there turned out to be
            return chosen
        row = DEVICES[quickest(seconds)]
        return work.open_on(CPU) if row is CPU else self._on(row, work)

    def _measure(self, work: _Work[T]) -> tuple[T, dict[str, float]]:
        """Return the part on the quickest device, and the seconds of a trial on each that computes what it should."""
        best = on_cpu = work.open_on(CPU)
        wanted, seconds = work.trial(best), {"cpu": _seconds(work, best)}
        if seconds["cpu"] < QUICK_S:
            return best, seconds
        for row in self.choices(work.part, anew=True)[1:]:
            log.info("measuring once whether %s is quicker here", row.name)
            try:
                opened = work.open_on(row)
                if (nearness := _cosine(work.trial(opened), wanted)) < MIN_COSINE:
                    raise GraphError(f"device {row.name} computes something else here (cosine {nearness:.4f})")
                for _ in range(N_TURNS):  # in turn, so that other work on this machine slows both down
                    for name, one in ((row.name, opened), ("cpu", on_cpu)):
                        seconds[name] = min(seconds.get(name, math.inf), _seconds(work, one, n_times=1))
            except EdgeVLError as error:
                seconds.pop(row.name, None)
                self._warn(f"{error}; it is not used")
                continue
            if quickest(seconds) == row.name:
                best = opened
        return best, seconds

    def _warn(self, message: str) -> None:
        """Warn once for a model: what fails for one part fails for the other."""
        log.log(logging.WARNING if self._may_warn.acquire(blocking=False) else logging.INFO, message)

    def _open_encoder(self, row: Device) -> VisionEncoder:
        spec = self._spec
        path = self._folder / spec.vision.file
        opened: VisionGraph = (
            Graph(path, threads=self._threads, device=row, **self._memory_of(path))
            if row.openvino is None
            else self._openvino(path, row.openvino)
        )
        encoder = VisionEncoder(of_tiles(opened, spec.vision.inputs), spec.decoder.hidden_size)
        if row.openvino not in (None, "CPU"):
            encoder.open()  # what its driver refuses is to show while the CPU can still take over
        return encoder

    def _openvino(self, path: Path, target: str) -> OpenVINOGraph:
        spec = self._spec
        return OpenVINOGraph(
            path,
            is_quantized=spec.vision.precision == "int8",
            target=target,
            shapes=shapes_of_tile(spec.vision.inputs, spec.image.tile),
            threads=self._threads,
            **self._memory_of(path),
        )

    def _memory_of(self, path: Path) -> dict[str, Any]:
        """Return `load` and `keep` of a graph file in the forms that it is run in, on disk; nothing without one."""
        disk = self._disk
        if disk is None:
            return {}
        content = manifest.content(self._spec, self._folder, path.relative_to(self._folder).as_posix())

        def load(name: str) -> NDArray[np.uint8] | None:
            return disk.get("graphs", graph_key(content, name))

        def keep(name: str, compiled: NDArray[np.uint8]) -> None:
            disk.put("graphs", graph_key(content, name), compiled)

        return {"load": load, "keep": keep}

    def _open_decoder(self, row: Device, takes_turns: bool) -> Decoder:
        """Open the decoder: a graph with its table of embeddings, or a file that llama.cpp runs."""
        spec = self._spec
        path = self._folder / spec.decoder.file
        if spec.embeddings is None:
            from edgevl.engine.gguf import GgufDecoder

            if row is CPU:
                self._try_aside(path)
            return GgufDecoder(path, spec.decoder, threads=self._threads, device=row)
        embeddings = read_embeddings(self._folder / spec.embeddings.file, spec.decoder)
        if spec.decoder.kind == "merged":
            return MergedDecoder(self._decoder_graph(path, row), spec.decoder, embeddings)
        n_threads = self._threads or machine.describe().n_threads
        if self._is_native(row):
            return native.NativeDecoder(path, spec.decoder, embeddings, n_threads=1 if _is_small(path) else n_threads)
        name = spec.decoder.prefill if row is CPU else None  # whose kernels it is made for
        prefill = None if name is None else self._decoder_graph(self._folder / name, row)
        steps = self._decoder_graph(path, row, later=takes_turns and prefill is not None)
        return OnnxAheadDecoder(steps, spec.decoder, embeddings, prefill, n_threads=n_threads)

    def _is_native(self, row: Device) -> bool:
        """Return whether a decoder graph is computed without onnxruntime on a device: quicker by half and more."""
        spec = self._spec.decoder
        return row is CPU and spec.kind == "onnx" and native.can_run(self._folder / spec.file)

    def _decoder_graph(self, path: Path, row: Device, later: bool = False) -> Graph:
        memory = self._memory_of(path)
        return Graph(path, threads=self._threads, spin=True, device=row, later=later, **memory)

    def _try_aside(self, path: Path) -> None:
        """Try llama.cpp once in a process of its own where builds of it are known to end theirs; raise GraphError."""
        if "AMX" not in (machine.describe().features or ()) or not aside.can_try():
            return
        key = {**self.key("gguf", "aside"), "build": aside.build()}
        if kept.read(key) is None:
            aside.run(path)
            kept.write(key, {"runs": True})

    def _encode_noise(self, encoder: VisionEncoder) -> NDArray[np.float32]:
        tile = self._spec.image.tile
        return encoder.encode(np.random.default_rng(0).uniform(-1, 1, (1, 3, tile, tile)).astype(np.float32))

    def _decode(self, decoder: Decoder) -> NDArray[np.float32]:
        """Feed an empty decoder a prompt and some tokens; return the scores [1, vocab], and leave it empty."""
        token_ids = np.arange(N_PROMPT + N_STEPS, dtype=np.int64) % self._spec.decoder.vocab_size
        try:
            decoder.extend(token_ids[:N_PROMPT])
            for token_id in token_ids[N_PROMPT:]:
                decoder.extend(token_id[None])
            return decoder.logits()[None]
        finally:
            decoder.truncate(0)


def decoder_part(spec: Manifest) -> Part:
    """Return what kind of part a model's decoder is: graphs with a table of embeddings, or a file of llama.cpp's."""
    return "onnx" if spec.embeddings else "gguf"


def found(part: Part) -> set[str]:
    """Return what is here of what devices need for `part`; for a GGUF decoder llama.cpp is loaded.

    Of OpenVINO's devices there are those that `look` saw last, for OpenVINO takes long to load.
    """
    if part != "gguf":
        version = installed("openvino")
        return {*_providers(), *(_needs_met(kept.read(_seen(version)) or {}) if version else [])}
    if installed("llama.cpp") is None:
        return set()
    from edgevl.engine import gguf

    # On each system there is one kind of graphics card that builds of it are made for.
    card = LLAMA_METAL if SYSTEM == "darwin" else LLAMA_CUDA
    return {LLAMA, card} if gguf.offloads() else {LLAMA}


def look(part: Part) -> set[str]:
    """Load OpenVINO, if it runs `part`, and ask which of its devices are here; keep that, and return it as `found`."""
    version = installed("openvino") if "openvino" in ENGINES[part] else None
    if version is None:
        return set()
    targets = openvino.devices()
    if targets:
        kept.write(_seen(version), dict.fromkeys(targets, True))
    return _needs_met(targets)


def _providers() -> Collection[str]:
    """Return the execution providers of this onnxruntime as they were seen when it was first asked, which loads it."""
    key = kept.key_of("providers", graph.build(), device="all", threads=None)
    known = kept.read(key)
    if known is None:
        known = dict.fromkeys(graph.providers(), True)
        kept.write(key, known)
    return known.keys()


def _seen(version: str) -> kept.Key:
    """Return under which key the devices are kept that this version of OpenVINO saw on this machine."""
    return kept.key_of("openvino", version, device="all", threads=None)


def _needs_met(targets: Collection[str]) -> set[str]:
    """Return which needs OpenVINO meets where it sees `targets`; on the processor it runs in any case."""
    return {OPENVINO, *(row.needs["vision"] for row in DEVICES.values() if row.openvino in targets)}


def installed(engine: str) -> str | None:
    """Return the version of "onnxruntime", "openvino" or "llama.cpp"; None where it is not installed."""
    if engine == "openvino":
        return openvino.version()  # the same before and after it is loaded
    version = machine.version({"llama.cpp": "llama-cpp-python"}.get(engine, engine))
    return None if version == machine.UNKNOWN else version


def versions(*parts: Part) -> dict[str, str]:
    """Return the version of each engine that may run any of `parts`; "none" for one that is not installed."""
    return {engine: installed(engine) or "none" for part in parts for engine in ENGINES[part]}


def quickest(seconds: dict[str, Any]) -> str:
    """Return the name of the device that took least; "cpu" where nothing usable was measured."""
    usable = _usable(seconds)
    return min(usable, key=lambda name: usable[name], default="cpu")


def _usable(seconds: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of devices among what is kept, whose file may be damaged; they are written as floats."""
    return {
        name: value
        for name, value in seconds.items()
        if name in DEVICES and isinstance(value, float) and 0 < value < math.inf
    }


def _is_small(path: Path) -> bool:
    """Return whether a decoder has weights so few that a second thread is no help; what is missing is said later."""
    try:
        return data_path(path).stat().st_size < SMALL_BYTES
    except OSError:
        return False


def _seconds(work: _Work[T], opened: T, n_times: int = 2) -> float:
    taken = []
    for _ in range(n_times):
        started = time.perf_counter()
        work.trial(opened)
        taken.append(time.perf_counter() - started)
    return min(taken)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the mean cosine of the rows of two arrays."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(norms, 1e-30)).mean())
