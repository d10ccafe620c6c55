"""llama.cpp as a decoder: a GGUF file behind the four verbs. The only module of the runtime that imports llama_cpp."""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine.devices import CPU, Device
from edgevl.engine.own_thread import OwnThread
from edgevl.engine.positions import Positions
from edgevl.errors import BackendMissing, GraphError
from edgevl.model import gguf
from edgevl.model.manifest import DecoderSpec

N_BATCH = 2048
"""The most tokens handed over at once: llama.cpp takes what it was made for, and ends the process for more."""
N_CAUSAL = 512
"""How many of them it computes side by side, unless an image must be seen whole."""
FIRST_CONTEXT = 1024
"""How many tokens there is room for at first; llama.cpp fills the room with zeros, so it grows as it is needed."""

_PAD = 256  # attention runs over a multiple of this many places, whatever the room
_NO_FLASH, _FLASH = 0, 1
_F32 = 0
_MAP = 1
_ALL_LAYERS = -1
_ERROR = 4
_ABORTED = 2
_SEQUENCE = 0
_NO_TRUNCATION = "llama.cpp cannot forget the end of what this model holds; use another decoder"
_MROPE = (8, 40)  # kinds of rotary embedding: its axes in sections, or interleaved


def backend(version: str, device: Device) -> str:
    """Return the name of what computes a decoder on `device` with llama-cpp-python of `version`."""
    return f"llama.cpp {version} {device.name}"


class GgufDecoder:
    """A GGUF file, memory-mapped, in llama.cpp; only the last token's scores are computed.

    Keys and values are in half precision, unless the weights are float32. Where `whole_images` is set, features of one
    chunk see each other, also those behind them; tokens never do. What is saved is the cache as it lies, so there is
    nothing to settle.
    """

    def __init__(
        self,
        path: Path,
        spec: DecoderSpec,
        *,
        threads: int | None = None,
        whole_images: bool = False,
        device: Device = CPU,
    ) -> None:
        """Load the file; `threads` None is one per physical core. All layers and the cache go to `device`.

        Raises BackendMissing without llama-cpp-python, or where it was not built for the device, ModelError if the
        file's header is damaged, GraphError if llama.cpp cannot run it or it is another model than `spec` says.
        """
        gguf.read(path)  # nothing but this reads the header before it has been checked
        self._llama = llama = library()
        _listen(llama)
        self._path, self._spec, self._whole_images = path, spec, whole_images
        self._n_threads = threads or machine.describe().n_threads
        self._is_offloaded = device is not CPU
        if self._is_offloaded and not offloads():
            raise BackendMissing(device.lacks("gguf"))
        self.backend = backend(llama.__version__, device)
        self.n_past = 0
        self._capacity = 0
        self._stop = threading.Event()
        self._stops = [self._stop]
        self._asked = llama.ggml_abort_callback(partial(_any_is_set, self._stops))
        self._open: dict[str, Any] = {}
        self._thread = OwnThread("edgevl-llama", partial(_free, llama, self._open))
        weakref.finalize(self, self._thread.end).atexit = False  # the thread sees to that itself
        self._load()
        kind = llama.llama_model_rope_type(self._open["model"])
        self._positions = Positions(path, has_axes=kind in _MROPE)
        self._reserve(min(FIRST_CONTEXT, spec.context_length))

    def expect(self, n_tokens: int) -> None:
        """Make room for so many tokens at once."""
        self._reserve(min(n_tokens, self._spec.context_length))

    def extend(
        self, chunk: NDArray[Any], cancelled: threading.Event | None = None, positions: NDArray[Any] | None = None
    ) -> bool:
        """Feed token ids [n] or features [n, hidden]; stops between two operations once `cancelled` is set.

        `positions` [3, n] must come with features where the model has M-RoPE, and else must not. Raises GraphError for
        other ones, and if llama.cpp fails.
        """
        features = chunk.ndim == 2
        if features and chunk.shape[1] != self._spec.hidden_size:
            raise GraphError(f"{self._path}: takes features of {self._spec.hidden_size} values, got {chunk.shape[1]}")
        array = np.ascontiguousarray(chunk, np.float32 if features else np.int32)
        whole = features and self._whole_images
        if whole and len(array) > N_BATCH:
            raise GraphError(f"{self._path}: can see {N_BATCH} features of an image whole, got {len(array)}")
        places = self._positions.number(self.n_past, array, positions)
        self._reserve(self.n_past + len(array))
        with self._asking(cancelled), self._seeing_whole(whole):
            code = self._decode(array, places)
        complaint = said()
        if code == 0:
            if positions is not None:
                self._positions.add(self.n_past, positions)
            self.n_past += len(array)
            return True
        self._forget_after(self.n_past)
        if code == _ABORTED:
            return False
        raise GraphError(f"{self._path}: llama.cpp failed while running ({code}: {complaint})")

    def logits(self) -> NDArray[np.float32]:
        """Return float32 [vocab], a fresh array; raise GraphError if a score is not a number."""
        found = self._llama.llama_get_logits_ith(self._open["context"], -1)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(found, (self._spec.vocab_size,)).copy()
        if not np.isfinite(logits.max()):  # the maximum is NaN wherever any score is
            raise GraphError(f"{self._path}: returned scores that are not numbers; run: edgevl verify")
        return logits

    def truncate(self, n: int) -> None:
        """Forget everything after the first `n` tokens; raise ValueError within features that came with positions."""
        if not 0 <= n <= self.n_past:
            raise ValueError(f"cannot truncate to {n} tokens, {self.n_past} are held")
        if self._capacity:
            self._forget_after(n)  # also where n is all: Ctrl-C may have come before tokens were counted
        self._positions.truncate(n)
        self.n_past = n

    def settle(self) -> None:
        """Do nothing: what is held is what is saved, to the bit."""

    def save(self) -> NDArray[Any]:
        """Return the cache as bytes, uint8 [n]: how many tokens it holds, and where, then what llama.cpp writes."""
        head, n_bytes = self._positions.head(self.n_past), self._call("llama_state_seq_get_size", _SEQUENCE)
        state = np.empty(head.size + n_bytes, np.uint8)
        state[: head.size] = head
        written = self._call("llama_state_seq_get_data", _bytes(state[head.size :]), n_bytes, _SEQUENCE)
        if written != n_bytes:
            raise GraphError(f"{self._path}: llama.cpp cannot save its cache ({said()})")
        return state

    def load(self, state: NDArray[Any], n: int) -> bool:
        """Hold what `save` returned for `n` tokens; return whether it is of that many.

        Nothing is held where that fails or is interrupted. Raises GraphError.
        """
        if state.dtype != np.uint8 or state.ndim != 1:
            return False
        positions = self._positions.read(state, n)
        if positions is None:
            return False
        self.n_past = 0  # of what was held, nothing is to be relied on from here on
        self.truncate(0)
        self._reserve(n)
        self._restore(state[positions.head(n).size :])
        self.n_past, self._positions = n, positions
        return True

    def _load(self) -> None:
        llama, spec = self._llama, self._spec
        settings = llama.llama_model_default_params()
        settings.n_gpu_layers = _ALL_LAYERS if self._is_offloaded else 0
        settings.load_mode = _MAP
        model = llama.llama_model_load_from_file(os.fsencode(self._path), settings)
        if not model:
            raise GraphError(
                f"{self._path}: llama.cpp cannot load it ({said()}); "
                "try: pip install -U llama-cpp-python, or use another file"
            )
        self._open["model"] = model  # freed from now on, whatever follows
        got = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)), llama.llama_model_n_embd_inp(model)
        if got != (spec.vocab_size, spec.hidden_size):
            raise GraphError(
                f"{self._path}: has {got[0]} tokens of width {got[1]}, edgevl.json says {spec.vocab_size} of width "
                f"{spec.hidden_size}; export the model again"
            )
        if llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model):
            raise GraphError(f"{self._path}: {_NO_TRUNCATION}")

    def _reserve(self, n: int) -> None:
        """Make room for `n` tokens, keeping those that are held: llama.cpp cannot grow, so it begins anew with them.

        Where there is no room, or this is interrupted, none are held any more.
        """
        if n <= self._capacity:
            return
        held, n_held = self.save() if self.n_past else None, self.n_past
        wanted = max(n, min(2 * self._capacity, self._spec.context_length))
        settings = self._settings(-(-wanted // _PAD) * _PAD)
        self._positions.truncate(0)
        self.n_past = self._capacity = 0
        self._alone(_begin, self._llama, self._open, settings)
        if "context" not in self._open:
            raise GraphError(
                f"{self._path}: llama.cpp has no room for {settings.n_ctx} tokens ({said()}); "
                "try a smaller model or --detail low"
            )
        self._capacity = settings.n_ctx
        if held is not None:
            self.load(held, n_held)

    def _settings(self, n_tokens: int) -> Any:
        """Return llama.cpp's settings of a context with room for `n_tokens`."""
        settings = self._llama.llama_context_default_params()
        settings.n_ctx = n_tokens
        settings.n_batch = N_BATCH
        settings.n_ubatch = N_BATCH if self._whole_images else N_CAUSAL
        settings.n_outputs_max = 1
        settings.n_threads = settings.n_threads_batch = self._n_threads
        if self._spec.precision == "f32":
            settings.type_k = settings.type_v = _F32
            settings.flash_attn_type = _NO_FLASH  # which computes in half precision
        else:
            settings.flash_attn_type = _FLASH
        settings.swa_full = True  # a sliding window that drops what is behind it could not be truncated
        settings.offload_kqv = settings.op_offload = self._is_offloaded
        settings.no_perf = True
        return settings

    def _restore(self, state: NDArray[Any]) -> None:
        """Have llama.cpp, which holds nothing, take back what it saved; where it does not, it must begin anew."""
        capacity, self._capacity = self._capacity, 0
        read = self._call("llama_state_seq_set_data", _bytes(state), state.size, _SEQUENCE)
        if read != state.size:
            raise GraphError(
                f"{self._path}: llama.cpp does not take back what it saved ({said()}); run: edgevl cache clear"
            )
        self._capacity = capacity

    def _decode(self, array: NDArray[Any], places: NDArray[np.int32] | None) -> int:
        """Compute tokens behind those that are held, batch by batch; return the first code but 0, else 0.

        Without `places`, [1 or 4, n], they follow those that are held.
        """
        for start in range(0, len(array), N_BATCH):
            part = array[start : start + N_BATCH]
            batch = self._llama.llama_batch(n_tokens=len(part))
            if places is not None:
                at = np.ascontiguousarray(places[:, start : start + N_BATCH])
                batch.pos = at.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            if array.ndim == 1:
                batch.token = part.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            else:
                batch.embd = part.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            try:
                code = int(self._call("llama_decode", batch))
            except BaseException:  # Ctrl-C: llama.cpp is still at it
                self._stop.set()
                try:
                    self._forget_after(self.n_past)
                finally:
                    self._stop.clear()
                raise
            if code != 0:
                return code
        return 0

    def _forget_after(self, n: int) -> None:
        memory = self._llama.llama_get_memory(self._open["context"])
        if not self._alone(self._llama.llama_memory_seq_rm, memory, _SEQUENCE, self._positions.behind(n), -1):
            raise GraphError(f"{self._path}: {_NO_TRUNCATION}")

    @contextmanager
    def _asking(self, cancelled: threading.Event | None) -> Iterator[None]:
        """Let llama.cpp ask after each operation whether to go on; it takes a moment, so single tokens do without."""
        if cancelled is None:
            yield
            return
        self._stops[1:] = [cancelled]
        self._call("llama_set_abort_callback", self._asked, None)
        try:
            yield
        finally:
            self._call("llama_set_abort_callback", self._llama.ggml_abort_callback(0), None)

    @contextmanager
    def _seeing_whole(self, whole: bool) -> Iterator[None]:
        """Let every token of a batch see every other one."""
        if whole:
            self._call("llama_set_causal_attn", False)
        try:
            yield
        finally:
            if whole:
                self._call("llama_set_causal_attn", True)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call llama.cpp's function `name` on the context, alone."""
        return self._alone(getattr(self._llama, name), self._open["context"], *arguments)

    def _alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread where nothing but llama.cpp computes, after whatever is still under way there.

        It sets up a processor's matrix unit (AMX) once per thread, as other runtimes do, and its quantized weights give
        nonsense where another one has computed in between.
        """
        return self._thread.call(function, *arguments)


def offloads() -> bool:
    """Return whether llama.cpp is here, was built for a graphics card, and sees one."""
    try:
        return bool(library().llama_supports_gpu_offload())
    except BackendMissing:
        return False


def _any_is_set(events: list[threading.Event], _: Any) -> bool:
    return any(event.is_set() for event in events)


_errors: deque[str] = deque(maxlen=20)
"""What llama.cpp complained of lately."""


def said() -> str:
    """Return the first of llama.cpp's latest complaints, from which the others follow, and forget them all."""
    first = _errors[0] if _errors else "no reason given"
    _errors.clear()
    return first


@lru_cache(maxsize=1)
def library() -> Any:
    """Return llama_cpp, imported and silenced; raise BackendMissing where it is not installed or does not load."""
    try:
        llama = importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # it raises RuntimeError if its libraries do not load
        raise BackendMissing(f"GGUF decoders need llama-cpp-python ({error}): pip install 'edgevl[gguf]'") from error
    _listen(llama)
    llama.llama_backend_init()
    return llama


def _listen(llama: Any) -> None:
    """Have llama.cpp's complaints told here: it knows one listener, and others in this process may set theirs."""
    llama.llama_log_set(_log(llama), ctypes.c_void_p(0))


@lru_cache(maxsize=1)
def _log(llama: Any) -> Any:
    """Return the callback for llama.cpp's log; it is called as long as the process lives."""

    def note(level: int, text: bytes, _: Any) -> None:
        if level == _ERROR and (said := text.decode(errors="replace").strip()):
            _errors.append(said[:300])

    return llama.llama_log_callback(note)


def _bytes(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _begin(llama: Any, handles: dict[str, Any], settings: Any) -> None:
    """Put a new context in the place of the one that is there; none where there is no room.

    It is noted in llama.cpp's own thread, which goes on where Ctrl-C ends the waiting for it.
    """
    if "context" in handles:
        llama.llama_free(handles.pop("context"))
    if context := llama.llama_init_from_model(handles["model"], settings):
        handles["context"] = context


def _free(llama: Any, handles: dict[str, Any]) -> None:
    if "context" in handles:
        llama.llama_free(handles.pop("context"))
    if "model" in handles:
        llama.llama_model_free(handles.pop("model"))
