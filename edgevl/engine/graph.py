"""ONNX graphs on a device. The only module that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgevl.errors import GraphError

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Graph:
    """One ONNX file, loaded; its inputs and outputs by name.

    `inputs` and `outputs` map a name to its dtype and shape; a dimension that is not an int is dynamic.
    """

    n_at_once = 1

    def __init__(self, path: Path, *, threads: int | None = None, spin: bool = False) -> None:
        """Load it with `threads` threads (None: one per physical core); raise GraphError if it does not load.

        `spin` lets threads wait actively within a run: quicker for runs of a few milliseconds.
        """
        self.path = path
        self.backend = f"onnxruntime {ort.__version__} cpu"
        try:
            self._session = ort.InferenceSession(str(path), _options(threads, spin), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise GraphError(f"{path}: onnxruntime cannot load it ({_first_line(error)}); export it again") from error
        self.inputs = {i.name: (_DTYPES.get(i.type), list(i.shape)) for i in self._session.get_inputs()}
        self.outputs = {o.name: (_DTYPES.get(o.type), list(o.shape)) for o in self._session.get_outputs()}

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
        return Binding(self.path, self._session)

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

    The same array may be bound as an input and an output: the graph then updates it in place.
    """

    def __init__(self, path: Path, session: ort.InferenceSession) -> None:
        self._path = path
        self._session = session
        self._binding = session.io_binding()
        self._held: dict[str, Any] = {}

    def bind_input(self, name: str, array: NDArray[Any]) -> None:
        """Bind a C-contiguous array as input `name`, replacing what was bound."""
        self._held[name] = value = ort.OrtValue.ortvalue_from_numpy(array)
        self._binding.bind_ortvalue_input(name, value)

    def bind_output(self, name: str, array: NDArray[Any]) -> None:
        """Bind a C-contiguous array as output `name`, replacing what was bound."""
        self._held[name] = value = ort.OrtValue.ortvalue_from_numpy(array)
        self._binding.bind_ortvalue_output(name, value)

    def run(self) -> None:
        """Run the graph on what is bound; raise GraphError if it fails."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise GraphError(f"{self._path}: failed while running ({_first_line(error)})") from error


def _options(threads: int | None, spin: bool) -> ort.SessionOptions:
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
