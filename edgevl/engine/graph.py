"""ONNX graphs on a device. The only module that imports onnxruntime.

It does so when it loads a graph: what is computed otherwise needs neither the time nor the 20 MB that this takes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine import forks
from edgevl.engine.devices import COMMANDS, CPU, CPU_PROVIDER, CUDA_PROVIDER, Device
from edgevl.errors import GraphError
from edgevl.machine import describe, version

if TYPE_CHECKING:
    import onnxruntime as ort

OPTIMIZED_BYTES = 64 << 20
"""Of larger graphs the optimized form is not kept: their weights take longer to read than it takes to make."""

Load = Callable[[str], NDArray[np.uint8] | None]
Keep = Callable[[str, NDArray[np.uint8]], None]
"""How a graph is got and put, under a name, in the form in which it runs here."""

Values = tuple[type[np.generic] | None, list[Any]]
"""The dtype of an input or output (None: one that is not used here) and its shape."""

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def providers() -> tuple[str, ...]:
    """Return the names of the execution providers that this onnxruntime was built with; they may still not load."""
    import onnxruntime as ort

    return tuple(ort.get_available_providers())


def build() -> str:
    """Return what tells the onnxruntime that is installed here from others, without loading it: where it lies, when it
    came. Several packages bring one of the same version, each built for other devices.
    """
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return "none"
    return f"{spec.origin}:{Path(spec.origin).stat().st_mtime_ns}"


def backend(device: Device) -> str:
    """Return the name of what computes a graph on `device`."""
    return f"onnxruntime {version('onnxruntime')} {device.name}"


class Graph:
    """One ONNX file, loaded, or to be loaded when it is first asked for anything; its inputs and outputs by name."""

    n_at_once = 1

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        spin: bool = False,
        device: Device = CPU,
        load: Load | None = None,
        keep: Keep | None = None,
        later: bool = False,
    ) -> None:
        """Load it with `threads` threads (None: one per physical core); raise GraphError if it does not load.

        With `later` that comes when it is first used. `spin` lets threads wait actively within a run: quicker for runs
        of a few milliseconds. `device` runs what it knows of the graph, the CPU the rest. `load` and `keep` remember a
        small graph as it was optimized for this processor, which takes longer than reading it.
        """
        self.path = path
        self.backend = backend(device)
        self._memory = device.memory
        self._load: Callable[[ort.SessionOptions], ort.InferenceSession] = partial(_session, path, device)
        if load and keep and device is CPU and _n_bytes(path) <= OPTIMIZED_BYTES:
            name = f"{self.backend}:{describe().processor}"
            self._load = partial(_optimized, path, name, load, keep)
        self._settings = threads, spin
        if not later:
            self._session  # noqa: B018 - is loaded

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return forks.watch(self._load(_options(*self._settings)))

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory."""
        return "_session" in self.__dict__

    def let_go(self) -> None:
        """Free its memory, once its bindings are gone; it is loaded again when it is next used."""
        self.__dict__.pop("_session", None)

    @cached_property
    def inputs(self) -> dict[str, Values]:
        """Dtype and shape of each input; a dimension that is not an int is dynamic."""
        return {i.name: (_DTYPES.get(i.type), list(i.shape)) for i in self._session.get_inputs()}

    @cached_property
    def outputs(self) -> dict[str, Values]:
        """Dtype and shape of each output."""
        return {o.name: (_DTYPES.get(o.type), list(o.shape)) for o in self._session.get_outputs()}

    def open(self, n_at_once: int = 1) -> None:
        """Do nothing more than was done: it is loaded when it is made, or when it is first asked for anything."""

    def run(self, feeds: Mapping[str, NDArray[Any]], n_at_once: int = 1) -> dict[str, NDArray[Any]]:
        """Run the graph on arrays; raise GraphError naming graph, input, expected and got.

        Calls from several threads (`n_at_once`) share this graph's own threads.
        """
        self._check(feeds)
        names = list(self.outputs)
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except Exception as error:
            raise GraphError(f"{self.path}: failed while running ({_first_line(error)})") from error

    def bind(self) -> Binding:
        """Return a binding that keeps inputs and outputs in place between runs."""
        return Binding(self.path, self._session, self._memory)

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        """Raise GraphError unless the graph takes exactly `inputs` and gives at least `outputs`."""
        if set(self.inputs) != inputs:
            raise GraphError(
                f"{self.path}: expected inputs {sorted(inputs)}, got {sorted(self.inputs)}; export it again"
            )
        if missing := outputs - set(self.outputs):
            raise GraphError(f"{self.path}: lacks the outputs {sorted(missing)}; export it again")

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        if set(feeds) != set(self.inputs):
            raise GraphError(f"{self.path}: expected inputs {sorted(self.inputs)}, got {sorted(feeds)}")
        for name, array in feeds.items():
            dtype, shape = self.inputs[name]
            fits = len(shape) == array.ndim and all(
                not isinstance(want, int) or want == got for want, got in zip(shape, array.shape, strict=False)
            )
            if not fits or (dtype is not None and array.dtype != dtype):
                raise GraphError(
                    f"{self.path}: input {name}: expected {_name(dtype)} {shape}, got {array.dtype} {list(array.shape)}"
                )


class Binding:
    """Arrays bound to a graph's inputs and outputs, shared with onnxruntime without a copy.

    The same array may be bound as an input and an output: the graph then updates it in place. Where `memory` names a
    device's own, the arrays of a state (`bind_state`) stay there between runs, and those here only catch up when asked.
    """

    def __init__(self, path: Path, session: ort.InferenceSession, memory: str | None = None) -> None:
        self._path = path
        self._session = session
        self._memory = memory
        self._binding = session.io_binding()
        self._held: dict[str, Any] = {}
        self._twins: dict[str, tuple[NDArray[Any], Any]] = {}  # input: its array, and what the device has of it
        self._coming: dict[str, tuple[str, NDArray[Any]]] = {}  # output: the input that it becomes, and its array
        self._outputs: list[str] = []  # in onnxruntime's order

    def bind_input(self, name: str, array: NDArray[Any]) -> None:
        """Bind a C-contiguous array as input `name`, replacing what was bound; a device gets a copy of it now."""
        import onnxruntime as ort

        self._bind_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def bind_output(self, name: str, array: NDArray[Any]) -> None:
        """Bind a C-contiguous array as output `name`, replacing what was bound."""
        import onnxruntime as ort

        self._bind_output(name, ort.OrtValue.ortvalue_from_numpy(array))

    def bind_state(self, past: str, present: str, before: NDArray[Any], after: NDArray[Any]) -> None:
        """Bind what the graph takes as input `past` and gives as output `present`; one array is updated in place.

        `after` may be bound as `before` of the next run, which then goes on from what the device has.
        """
        if self._memory is None:
            self.bind_input(past, before)
            self.bind_output(present, after)
            return
        value = self._twin(past, before)
        self._bind_input(past, value)
        if after is before:
            self._bind_output(present, value)
        else:
            self._coming[present] = past, after
            self._bind_output(present, None)

    def fetch(self) -> None:
        """Bring the state's arrays to what a device has of them."""
        for array, value in self._twins.values():
            array[...] = value.numpy()

    def send(self) -> None:
        """Bring what a device has of the state to its arrays."""
        for array, value in self._twins.values():
            value.update_inplace(array)

    def run(self) -> None:
        """Run the graph on what is bound; raise GraphError if it fails."""
        try:
            if self._memory is not None:
                self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding)
            if self._memory is not None:
                self._binding.synchronize_outputs()
        except Exception as error:
            raise GraphError(f"{self._path}: failed while running ({_first_line(error)})") from error
        if self._coming:
            values = dict(zip(self._outputs, self._binding.get_outputs(), strict=True))
            self._twins.update({past: (after, values[name]) for name, (past, after) in self._coming.items()})

    def _twin(self, name: str, array: NDArray[Any]) -> Any:
        """Return what the device has of `array`, copying it there if it has nothing yet."""
        if name not in self._twins or self._twins[name][0] is not array:
            import onnxruntime as ort

            value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, self._memory)
            value.update_inplace(array)
            self._twins[name] = array, value
        return self._twins[name][1]

    def _bind_input(self, name: str, value: Any) -> None:
        self._held[name] = value
        self._binding.bind_ortvalue_input(name, value)

    def _bind_output(self, name: str, value: Any) -> None:
        """Bind a value, or (None) what the run is to make in the device's memory."""
        if name not in self._outputs:
            self._outputs.append(name)
        self._held[name] = value
        if value is None:
            self._binding.bind_output(name, self._memory)
        else:
            self._binding.bind_ortvalue_output(name, value)


def _session(path: Path, device: Device, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load a graph; raise GraphError if it, or what runs it on `device`, does not load."""
    import onnxruntime as ort

    _check_name(path)
    first = device.providers[0][0]
    loading = _prepare(first)
    if first not in providers():
        raise GraphError(f"{path}: this onnxruntime has no {first}; to add it: {COMMANDS[first]}")
    try:
        # Without its fallback, which prints.
        session = ort.InferenceSession(str(path), options, providers=list(device.providers), enable_fallback=0)
    except Exception as error:
        on, remedy = ("", "export it again") if device is CPU else (f" on {device.name}", "use --device cpu")
        raise GraphError(f"{path}: onnxruntime cannot load it{on} ({_first_line(error)}); {remedy}") from error
    if first not in session.get_providers():  # it goes on without what it cannot load
        why = loading or "no reason given"
        raise GraphError(f"{path}: onnxruntime cannot load {first} here ({why}); use --device cpu")
    return session


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise GraphError(f"{path}: onnxruntime takes no name that is not UTF-8; rename the folder") from error


def _optimized(path: Path, name: str, load: Load, keep: Keep, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load a graph for the CPU as it was optimized here, or optimize it and keep that; raise GraphError."""
    import onnxruntime as ort

    _check_name(path)
    kept = load(name)
    if kept is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        with contextlib.suppress(Exception):
            return ort.InferenceSession(kept.tobytes(), options, providers=[CPU_PROVIDER])
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    import tempfile

    with contextlib.suppress(Exception), tempfile.TemporaryDirectory(prefix="edgevl-") as folder:
        made = Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(made)
        session = ort.InferenceSession(str(path), options, providers=[CPU_PROVIDER])
        keep(name, np.fromfile(made, np.uint8))
        return session
    options.optimized_model_filepath = ""
    return _session(path, CPU, options)


def _n_bytes(path: Path) -> int:
    """Return the size of a graph with the data beside it; 0 where there is none."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.is_file())


@lru_cache
def _prepare(provider: str) -> str:
    """Load the libraries that a provider needs from where pip puts them; return the first complaint, if any."""
    if provider == CPU_PROVIDER:
        return ""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)  # of what does not load we say it ourselves
    said = io.StringIO()
    if provider == CUDA_PROVIDER:
        with contextlib.redirect_stdout(said):
            ort.preload_dlls()
    return (said.getvalue().strip().splitlines() or [""])[0]


def _options(threads: int | None, spin: bool) -> ort.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions, in our words
    options.intra_op_num_threads = threads or 0
    # Encoder and decoder share the cores: a pool that spins between its runs slows the other down.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _name(dtype: type[np.generic] | None) -> str:
    return np.dtype(dtype).name if dtype is not None else "any"
