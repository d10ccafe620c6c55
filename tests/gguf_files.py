"""GGUF files made from others, with changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def rewrite(
    source: Path,
    target: Path,
    metadata: Mapping[str, Any] | None = None,
    names: Mapping[str, str | None] | None = None,
    tensors: Mapping[str, Any] | None = None,
) -> Path:
    """Copy a GGUF file with metadata changed (None drops a key), tensors renamed (None drops one) or added."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed; it comes with the extra export")
    reader = gguf.GGUFReader(source)
    values = {key: (field.contents(), field.types) for key, field in reader.fields.items()}
    changed = {key: (value, None) for key, value in (metadata or {}).items()}
    writer = gguf.GGUFWriter(None, "unused")
    writer.kv_data[0].clear()
    for key, (value, types) in {**values, **changed}.items():
        if value is None or key.startswith("GGUF."):
            continue
        kind = types[0] if types else values[key][1][0] if key in values else gguf.GGUFValueType.get_type(value)
        inner = types[-1] if types and kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        name = (names or {}).get(tensor.name, tensor.name)
        if name is not None:
            writer.add_tensor(name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file(target)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
