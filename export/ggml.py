"""The `gguf` package, which holds the format's names and block types: the one place that imports it."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import BackendMissing


def package() -> Any:
    """Return the gguf package, imported and silenced; raise BackendMissing where it is not installed."""
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it reports every file that it writes
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise BackendMissing(f"GGUF files need the gguf package ({error}): pip install 'edgevl[gguf]'") from error


def as_float(data: NDArray[np.uint8], kind: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tensor's bytes as float32."""
    rows = data.reshape(*shape[:-1], -1)
    values: NDArray[np.float32] = package().quants.dequantize(rows, package().GGMLQuantizationType[kind])
    return np.array(values, np.float32).reshape(shape)
