"""Model folders of mixed kinds: the vision graph of one that is there, and a GGUF decoder of its checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from edgevl.model import manifest
from edgevl.model.manifest import FileSpec

LLAMA_MISSING = "llama-cpp-python is not installed; it comes with the extra gguf"


def with_gguf(folder: Path, checkpoint: Path, out: Path, kind: Literal["F32", "F16"] = "F16") -> Path:
    """Copy a model folder to `out`, its decoder exchanged for a GGUF file, with golden answers of its own.

    Skips the test where llama-cpp-python is not installed.
    """
    pytest.importorskip("llama_cpp", reason=LLAMA_MISSING)
    from edgevl.export import checkpoint as checkpoints
    from edgevl.export import gguf, golden

    spec = manifest.read(folder)
    out.mkdir()
    for name in (spec.vision.file, spec.tokenizer.file, spec.tokenizer.chat_template):
        shutil.copyfile(folder / name, out / name)
    source = checkpoints.read(checkpoint)
    gguf.write_decoder(source, source.row.load(checkpoint, source.image.tile).text, out / "decoder.gguf", kind)
    decoder = replace(spec.decoder, kind="gguf", file="decoder.gguf", precision=kind.lower(), inputs={}, outputs={})
    _write(out, replace(spec, decoder=decoder, embeddings=None, fidelity=None, golden=None))
    _write(out, replace(manifest.read(out), golden=golden.record(out)))
    return out


def _write(folder: Path, spec: Any) -> None:
    files = {
        path.name: FileSpec(path.stat().st_size, manifest.sha256(path))
        for path in sorted(folder.iterdir())
        if path.name != manifest.FILE_NAME
    }
    (folder / manifest.FILE_NAME).write_text(replace(spec, files=files).to_json(), encoding="utf-8")
