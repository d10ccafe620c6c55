"""The compiled library: its structures in ctypes, and one decoder opened in it.

It is compiled when edgevl is installed, by whatever C compiler is there. Without one, or on a processor without the
instructions it wants, decoders run as graphs.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.native.plan import ModelPlan, ProductPlan, problems
from edgevl.errors import GraphError

VERSION = 1
"""To be raised when the same weights give other last bits."""
_NAME = "_decoder"


class _Product(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("n", "k", "bits", "block")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("norm", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        *((name, _Product) for name in ("qkv", "out", "gate_up", "down")),
    )


_SIZES = (
    "n_layers",
    "hidden",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "intermediate",
    "vocab",
    "half_rotary",
    "n_positions",
)


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in _SIZES),
        ("epsilon", ctypes.c_float),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "final_norm")),
        ("head", _Product),
        ("layers", ctypes.POINTER(_Layer)),
    )


@cache
def _library() -> Any:
    """Return the library with its functions' types; None where it was not built or does not load."""
    folder = Path(__file__).parent
    found = next(
        (folder / f"{_NAME}{suffix}" for suffix in EXTENSION_SUFFIXES if (folder / f"{_NAME}{suffix}").exists()), None
    )
    if found is None:
        return None
    try:
        library = ctypes.CDLL(str(found))
        library.edgevl_decoder_isa.restype = ctypes.c_char_p
        library.edgevl_decoder_open.restype = ctypes.c_void_p
        library.edgevl_decoder_open.argtypes = (ctypes.POINTER(_Model), ctypes.c_int, ctypes.c_int)
        library.edgevl_decoder_close.restype = None
        library.edgevl_decoder_close.argtypes = (ctypes.c_void_p,)
        library.edgevl_decoder_run.argtypes = (
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int, ctypes.c_void_p),
        )
        library.edgevl_decoder_use.restype = None
        library.edgevl_decoder_use.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.edgevl_decoder_score.restype = None
        library.edgevl_decoder_score.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
    return library


def instructions() -> str:
    """Return the processor's instructions that are used, such as "avx512"; "" where decoders run as graphs.

    EDGEVL_NATIVE=off lets them run as graphs everywhere, EDGEVL_NATIVE=avx2 leaves wider instructions out,
    and EDGEVL_NATIVE=avx512 those that compute attention of many tokens in bf16.
    """
    library = None if is_switched_off() else _library()
    return "" if library is None else library.edgevl_decoder_isa().decode()


def is_switched_off() -> bool:
    """Return whether EDGEVL_NATIVE says that decoders are to run as graphs."""
    return os.environ.get("EDGEVL_NATIVE", "").lower() == "off"


class Weights:
    """A decoder's weights, mapped from their file, and the threads and room that compute with them."""

    def __init__(self, data: Path, plan: ModelPlan, *, n_threads: int, max_tokens: int) -> None:
        """Map the weights; raise GraphError if the file cannot be read or the library cannot run them."""
        try:
            with data.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise GraphError(f"{data}: cannot be read ({error}); export or download the model again") from error
        self._mapped = np.frombuffer(mapped, np.uint8)
        if next(problems(plan, len(self._mapped)), None) is not None:  # it was longer when the plan was read
            raise GraphError(f"{data}: is cut off; export or download the model again")
        self.max_tokens = max_tokens
        library = _library()
        opened = (
            None if library is None else library.edgevl_decoder_open(_model(plan, self._mapped), n_threads, max_tokens)
        )
        if not opened:
            raise GraphError(f"{data}: there is no memory to run it; close other programs")
        self._run, self._score, self._use = (
            library.edgevl_decoder_run,
            library.edgevl_decoder_score,
            library.edgevl_decoder_use,
        )
        self._n_threads = n_threads
        self._opened, self._where = opened, data
        weakref.finalize(self, library.edgevl_decoder_close, opened).atexit = False

    def run(
        self,
        embeds: NDArray[np.float32],
        n_past: int,
        caches: Caches,
        logits: NDArray[np.float32],
        *,
        scores_later: bool = False,
    ) -> None:
        """Feed embeddings [n, hidden] behind `n_past` tokens; scores of the last ones go to `logits` [n_scored, vocab].

        With `scores_later` they are left out, for `score` to give. Raises GraphError where `caches` have no room.
        """
        failed = self._run(
            self._opened, embeds.ctypes.data, len(embeds), n_past, caches.keys, caches.values,
            caches.capacity, len(logits), None if scores_later else logits.ctypes.data,
        )  # fmt: skip
        if failed:
            raise GraphError(
                f"{self._where}: takes {caches.capacity} tokens, {self.max_tokens} at once, "
                f"not {len(embeds)} behind {n_past}"
            )

    def leave(self, n_threads: int) -> None:
        """Do without `n_threads` of the threads from now on, but never all; in a run that goes on too."""
        self._use(self._opened, self._n_threads - n_threads)

    def score(self, logits: NDArray[np.float32]) -> None:
        """Give the scores that the last run left out; `logits` is of the shape that it was called with."""
        self._score(self._opened, logits.ctypes.data)


class Caches:
    """Where keys and values of each layer lie: float32 [1, n_kv_heads, capacity, head_dim] each."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take arrays by name, "<layer>.key" and "<layer>.value" in turn; they are held as long as this is."""
        self._arrays = list(arrays.values())
        kinds = self._arrays[0::2], self._arrays[1::2]
        self.keys, self.values = ((ctypes.c_void_p * len(kind))(*(one.ctypes.data for one in kind)) for kind in kinds)
        self.capacity = self._arrays[0].shape[2]


def _model(plan: ModelPlan, weights: NDArray[np.uint8]) -> _Model:
    """Return a plan as C reads it, with addresses in the place of offsets."""
    start = weights.ctypes.data

    def product(one: ProductPlan) -> _Product:
        bias = None if one.bias is None else start + one.bias
        return _Product(start + one.weights, start + one.scales, bias, one.n, one.k, one.bits, one.block)

    layers = (_Layer * len(plan.layers))(
        *(
            _Layer(
                start + layer.norm, start + layer.post_norm,
                product(layer.qkv), product(layer.out), product(layer.gate_up), product(layer.down),
            )
            for layer in plan.layers
        )
    )  # fmt: skip
    sizes = (
        len(layers), plan.hidden, plan.n_heads, plan.n_kv_heads, plan.head_dim, plan.intermediate,
        plan.head.n, plan.half_rotary, plan.n_positions,
    )  # fmt: skip
    return _Model(
        *sizes, plan.epsilon, plan.scale, start + plan.cos, start + plan.sin, start + plan.final_norm,
        product(plan.head), layers,
    )  # fmt: skip
