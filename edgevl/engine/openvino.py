"""Vision graphs on OpenVINO (extra `openvino`): x86 processors, Intel graphics and NPUs. The only importer of it.

It runs the same file as onnxruntime, laid out anew for its kernels (`edgevl.engine.kernels`). What is not int8 in a
quantized graph runs in floats of half the size where the device has them; a graph that is not quantized stays float32,
except on an NPU, which computes in float16 whatever it is told.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine import forks
from edgevl.engine.kernels import FORM, Ranges, lay_out
from edgevl.errors import BackendMissing, GraphError
from edgevl.machine import UNKNOWN, describe, give_back

MAX_AT_ONCE = 4
"""Tiles encoded side by side at most: each needs memory of its own."""


@dataclass(frozen=True)
class _Target:
    """What a kind of device is told.

    `half` is the hint for floats of half the size, and the capability by which it is known to have them; None: it is
    given no hint about floats. One that `has_threads` shares them out among tiles and takes any shape; another one
    takes a tile at a time, of the shape that it was compiled for.
    """

    half: tuple[str, str] | None
    has_threads: bool = False


_TARGETS: Mapping[str, _Target] = {
    # OpenVINO's names; what each takes is in its documentation, "Inference devices and modes"
    "CPU": _Target(("bf16", "BF16"), has_threads=True),
    "GPU": _Target(("f16", "FP16")),
    "NPU": _Target(None),
}


def is_present() -> bool:
    """Return whether the package is installed."""
    return find_spec("openvino") is not None


def version() -> str | None:
    """Return the package's version without importing it; None where it is not installed."""
    if not is_present():
        return None
    from importlib import metadata  # which takes a while to import

    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def backend(target: str) -> str:
    """Return the name of what computes a graph on `target` (CPU, GPU or NPU)."""
    return f"openvino {version()} {target.lower()}"


def core_of(kind: Callable[[], Any]) -> Any:
    """Return the one Core of a process, which is never let go.

    Each Core gives the thread that makes it a stack for signal handlers. When several go in another order than they
    came, the thread is left with one that is not there any more, and the next signal, such as Ctrl-C, ends the process.
    """
    with _making:
        if kind not in _cores:
            _cores[kind] = forks.watch(kind())
        return _cores[kind]


_cores: dict[Callable[[], Any], Any] = {}
_making = threading.RLock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, which is not in the child
    os.register_at_fork(after_in_child=lambda: globals().update(_making=threading.RLock()))


def _is_lost() -> bool:
    """Return whether OpenVINO was at work before this process was forked: it does not begin anew."""
    return any(map(forks.is_inherited, _cores.values()))


def devices() -> set[str]:
    """Return what OpenVINO finds here, as CPU, GPU and NPU; nothing if it does not load. This loads it.

    Of several graphics cards it takes the first one, which is the processor's own where there is one.
    """
    if _is_lost():
        return set()
    with suppress(Exception):  # why it does not load is said to whoever runs a graph on it
        return {name.partition(".")[0] for name in core_of(library().Core).available_devices}
    return set()


def library() -> Any:
    """Import OpenVINO, without the package by which it would report that to its makers: it has a stub for it."""
    if "openvino" not in sys.modules:
        modules: dict[str, Any] = sys.modules
        hidden = modules.get("openvino_telemetry")
        modules["openvino_telemetry"] = None  # to import it fails
        try:
            import openvino  # noqa: F401
        finally:
            del modules["openvino_telemetry"]
            if hidden is not None:
                modules["openvino_telemetry"] = hidden
    return sys.modules["openvino"]


def ranges_path(path: Path) -> Path:
    """Return where the ranges of the graph `path` lie."""
    return path.with_name(f"{path.name}.ranges.json")


class OpenVINOGraph:
    """One ONNX file on one of OpenVINO's devices. It is read and compiled when it is first run, or opened.

    `load` and `keep` get and put a compiled graph by name, so that another process need not compile it.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_quantized: bool,
        target: str = "CPU",
        shapes: Mapping[str, Sequence[int]] | None = None,
        threads: int | None = None,
        load: Callable[[str], NDArray[np.uint8] | None] | None = None,
        keep: Callable[[str, NDArray[np.uint8]], None] | None = None,
    ) -> None:
        """Take a file, to be run on `target` (CPU, GPU or NPU), on a CPU with `threads` threads (None: one per core).

        `is_quantized` allows floats of half the size for what is not int8. `shapes` are those of the inputs, for a
        graph that leaves some open. Raises BackendMissing where OpenVINO is not installed, GraphError in a fork of a
        process that has used it.
        """
        if not is_present():
            raise BackendMissing("openvino is not installed: pip install 'edgevl[openvino]'")
        if _is_lost():
            raise GraphError(f"{path}: OpenVINO does not run in a fork of a process that has used it; {forks.SPAWN}")
        self.path = path
        self.backend = backend(target)
        self._name, self._target, self._shapes = target, _TARGETS[target], dict(shapes or {})
        self._is_quantized = is_quantized
        self._n_threads = threads or describe().n_threads
        self.n_at_once = min(self._n_threads, MAX_AT_ONCE) if self._target.has_threads else 1
        self._load, self._keep = load, keep
        self._mapped: list[NDArray[np.uint8]] = []
        self._wanted: tuple[set[str], set[str]] | None = None
        self._compiling = threading.Lock()
        self._requests: dict[int, queue.SimpleQueue[Any]] = {}
        forks.watch(self)

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        """Have it checked, when the graph is compiled, that it takes exactly `inputs` and gives at least `outputs`."""
        self._wanted = (inputs, outputs)

    def open(self, n_at_once: int = 1) -> None:
        """Compile the graph for up to `n_at_once` calls at a time, or wait for who does; raise GraphError."""
        with self._compiling:
            self._ready(min(n_at_once, self.n_at_once))

    def run(self, feeds: Mapping[str, NDArray[Any]], n_at_once: int = 1) -> dict[str, NDArray[Any]]:
        """Run the graph on arrays, as one of up to `n_at_once` such calls at a time; raise GraphError."""
        with self._request(min(n_at_once, self.n_at_once)) as request:
            try:
                found = request.infer(dict(feeds), share_inputs=True)
            except Exception as error:
                raise GraphError(f"{self.path}: failed while running ({_first_line(error)})") from error
            return {output.get_any_name(): array for output, array in found.items()}

    @contextmanager
    def _request(self, n_at_once: int) -> Iterator[Any]:
        """Lend one of `n_at_once` requests, each on its share of the threads."""
        if forks.is_inherited(self):  # before the lock, which the parent may have held
            raise GraphError(f"{self.path}: {forks.REMEDY}")
        with self._compiling:
            requests = self._ready(n_at_once)
        request = requests.get()
        try:
            yield request
        finally:
            requests.put(request)

    def _ready(self, n_at_once: int) -> queue.SimpleQueue[Any]:
        if n_at_once not in self._requests:
            self._requests[n_at_once] = self._compile(n_at_once)
        return self._requests[n_at_once]

    def _compile(self, n_streams: int) -> queue.SimpleQueue[Any]:
        try:
            compiled = self._compiled(library(), n_streams)
        except Exception as error:
            why = _first_line(error)
            raise GraphError(f"{self.path}: OpenVINO cannot load it ({why}); use --device cpu") from error
        for array in self._mapped:
            _let_go(array)
        self._check({port.get_any_name() for port in compiled.inputs}, {o.get_any_name() for o in compiled.outputs})
        give_back()
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(n_streams):
            requests.put(compiled.create_infer_request())
        return requests

    def _compiled(self, openvino: Any, n_streams: int) -> Any:
        core = core_of(openvino.Core)
        settings = self._settings(core, n_streams)
        name = f"{self.backend}:{FORM}:{self._hardware(core)}:{sorted(settings.items())}"
        kept = self._load(name) if self._load else None
        if kept is not None:
            with suppress(Exception):  # of a driver that is another one since; then it is compiled again
                return core.import_model(self._shared(openvino, kept), self._name, settings)
        model = core.read_model(self.path)
        if self._shapes and not self._target.has_threads:
            model.reshape(self._shapes)
        lay_out(openvino, model, _read_ranges(self.path), int8_scores=self._multiplies_int8())
        compiled = core.compile_model(model, self._name, settings)
        if self._keep:
            self._keep(name, np.frombuffer(compiled.export_model().getvalue(), np.uint8).copy())
        return compiled

    def _settings(self, core: Any, n_streams: int) -> dict[str, Any]:
        """Return what the device is told: nothing that it does not know, for that is refused."""
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY" if n_streams == 1 else "THROUGHPUT"}
        if self._target.has_threads:
            settings |= {"INFERENCE_NUM_THREADS": self._n_threads, "NUM_STREAMS": n_streams}
            settings["ENABLE_CPU_PINNING"] = False  # a thread that is tied to a core waits for whatever else runs there
        if self._target.half is not None:
            half, capability = self._target.half
            has_half = capability in core.get_property(self._name, "OPTIMIZATION_CAPABILITIES")
            settings["INFERENCE_PRECISION_HINT"] = half if self._is_quantized and has_half else "f32"
        return settings

    def _multiplies_int8(self) -> bool:
        """Return whether attention, which is not made of weights, is quicker where it is int8."""
        return self._target.has_threads and {"AVX512", "VNNI"} <= set(describe().features or ())

    def _hardware(self, core: Any) -> str:
        """Return what a compiled graph depends on beside its settings: the processor, the device and its driver."""
        names = sorted(core.get_property(self._name, "CACHING_PROPERTIES"))
        return f"{describe().processor}:{[str(core.get_property(self._name, name)) for name in names]}"

    def _shared(self, openvino: Any, kept: NDArray[np.uint8]) -> Any:
        """Return a tensor on the memory of `kept`, which stays as long as this graph: weights are read from there."""
        view = kept.view()
        view.flags.writeable = True  # asked for by the tensor, although nobody writes
        self._mapped.append(view)
        return openvino.Tensor(view, shared_memory=True)

    def _check(self, inputs: set[str], outputs: set[str]) -> None:
        if self._wanted is None:
            return
        if inputs != self._wanted[0]:
            raise GraphError(
                f"{self.path}: expected inputs {sorted(self._wanted[0])}, got {sorted(inputs)}; export it again"
            )
        if missing := self._wanted[1] - outputs:
            raise GraphError(f"{self.path}: lacks the outputs {sorted(missing)}; export it again")


def _let_go(array: NDArray[Any]) -> None:
    """Let the system take back the pages of a mapped file; those that are still needed are read again."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    owner = owner.obj if isinstance(owner, memoryview) else owner
    if isinstance(owner, mmap.mmap) and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_DONTNEED)


def _read_ranges(path: Path) -> Ranges:
    """Read the ranges beside a graph; none if there are none. Raises ValueError for what is something else."""
    try:
        raw = json.loads(ranges_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    ranges = {
        str(name): (np.asarray(low, np.float32), np.asarray(high, np.float32)) for name, (low, high) in raw.items()
    }
    if not all(_is_range(*ends) for ends in ranges.values()):
        raise ValueError(f"{ranges_path(path).name} holds a range that is none")
    return ranges


def _is_range(low: NDArray[np.float32], high: NDArray[np.float32]) -> bool:
    return low.shape == high.shape and low.ndim < 2 and bool(np.isfinite([low, high]).all() and (low < high).all())


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = [line for line in str(error).strip().splitlines() if line]
    return (lines[-1] if lines else type(error).__name__)[:300]
