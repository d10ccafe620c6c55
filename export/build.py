"""The export from beginning to end: checkpoint, vision graph, decoder graph, files, fidelity, golden answers."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

from edgevl.errors import ExportError
from edgevl.image.read import Picture
from edgevl.loaded import Loaded
from edgevl.model.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    DecoderSpec,
    EmbeddingsSpec,
    FileSpec,
    Manifest,
    Source,
    TokenizerSpec,
    VisionSpec,
    sha256,
)

from . import checkpoint, decoder, fidelity, gguf, golden, samples, sensitivity, vision
from .checkpoint import Checkpoint
from .families import TorchModel
from .folder import building, check_space

VISION, DECODER, EMBEDDINGS, GGUF = "vision.onnx", "decoder.onnx", "embeddings.npy", "decoder.gguf"
TOKENIZER, CHAT_TEMPLATE = "tokenizer.json", "chat_template.jinja"
_WORK = "work"
_TOOLS = ("edgevl", "onnx", "onnxruntime", "torch", "transformers")
_BUILDERS = {"onnx": ("onnxruntime-genai",), "gguf": ("gguf", "llama-cpp-python")}
_SPACE = 3
"""How many float32 copies of the weights the work needs at most, side by side."""


@dataclass(frozen=True)
class Options:
    """What the caller chose; see `export_model`."""

    vision: str
    decoder: str
    block_size: int
    fidelity: float | None
    name: str | None
    samples: tuple[Path, ...]


def build(
    folder: Path, out: Path, options: Options, progress: Callable[[str, float], None], *, force: bool
) -> Manifest:
    """Export the checkpoint in `folder` to `out`; see `export_model`."""
    progress("checkpoint", 0.0)
    source = checkpoint.read(folder)
    pictures = samples.pictures(options.samples)
    check_space(out.parent, source.n_parameters * 4 * _SPACE)
    name = options.name or out.expanduser().absolute().name
    with building(out, force=force) as target:
        manifest = _Build(source, target, options, progress).run(pictures, name)
        gc.collect()  # sessions hold their files open, which on some systems hinders the rename
    progress("done", 1.0)
    return manifest


class _Build:
    """One export under way; `target` is the folder that is being filled."""

    def __init__(
        self, source: Checkpoint, target: Path, options: Options, progress: Callable[[str, float], None]
    ) -> None:
        self._source, self._target, self._options, self._progress = source, target, options, progress
        self._work = target / _WORK
        self._work.mkdir()

    def run(self, pictures: list[Picture], name: str) -> Manifest:
        """Fill the folder and return its manifest, which is written last."""
        source, target = self._source, self._target
        self._progress("loading weights", 0.02)
        reference = source.row.load(source.folder, source.image.tile)
        cut = []
        for index, picture in enumerate(pictures):
            self._progress("reference features", 0.04 + 0.06 * index / len(pictures))
            cut.append(fidelity.sample(picture, source.image, source.row.family, reference))
        kept = self._vision(reference, cut)
        self._progress("decoder", 0.4)
        written = self._decoder(reference.text)
        shutil.copyfile(source.folder / TOKENIZER, target / TOKENIZER)
        (target / CHAT_TEMPLATE).write_text(source.chat_template, encoding="utf-8", newline="\n")
        shutil.rmtree(self._work)
        self._progress("checksums", 0.65)
        manifest = self._manifest(*written, name)
        self._write(manifest)
        manifest = self._measure(manifest, reference, cut, kept)
        self._write(manifest)
        return manifest

    def _vision(self, reference: TorchModel, cut: list[fidelity.Sample]) -> tuple[str, ...]:
        """Write the vision graph; return the MatMuls that were kept in float32."""
        options, path = self._options, self._target / VISION
        self._progress("vision", 0.1)
        tile = self._source.image.tile
        plain = vision.export_vision(reference.vision, tile, options.vision, path, self._work)
        if options.fidelity is None:
            return ()
        if options.vision == "int8":
            self._progress("vision: fidelity", 0.2)
            return sensitivity.quantize_to(
                options.fidelity, reference.vision, cut, plain, path, self._part("vision: fidelity", 0.2, 0.4)
            )
        reached = float(fidelity.feature_cosines(cut, sensitivity.encoder(path).encode).mean())
        if reached < options.fidelity:
            raise ExportError(
                f"fidelity: {options.fidelity} is not reached by {options.vision}, which has {reached:.7f}"
            )
        return ()

    def _decoder(self, text: Any) -> tuple[DecoderSpec, EmbeddingsSpec | None]:
        """Write the decoder, as a graph with its embedding table or as a GGUF file."""
        source, target, options = self._source, self._target, self._options
        kind, _, precision = options.decoder.rpartition(":")
        spec = DecoderSpec(
            kind="onnx",
            file=DECODER,
            precision=precision,
            n_layers=text.config.num_hidden_layers,
            n_kv_heads=text.config.num_key_value_heads,
            head_dim=text.config.head_dim,
            hidden_size=text.config.hidden_size,
            vocab_size=text.config.vocab_size,
            context_length=source.context_length,
            inputs={},
            outputs={},
        )
        if kind == "gguf":
            gguf.export_decoder(source, text, precision, target / GGUF, self._work)
            return replace(spec, kind="gguf", file=GGUF), None
        decoder.export_decoder(
            text, source.folder, precision, target / DECODER, self._work, block_size=options.block_size
        )
        dtype = decoder.write_embeddings(text, precision, target / EMBEDDINGS)
        inputs, outputs = decoder.graph_io(target / DECODER)
        embeddings = EmbeddingsSpec(EMBEDDINGS, cast("Literal['float32', 'float16']", dtype))
        return replace(spec, inputs=inputs, outputs=outputs), embeddings

    def _measure(
        self, manifest: Manifest, reference: TorchModel, cut: list[fidelity.Sample], kept: tuple[str, ...]
    ) -> Manifest:
        """Measure the finished folder and record its golden answers."""
        self._progress("fidelity", 0.7)
        exported = Loaded(self._target, device="cpu", threads=None)
        measured = fidelity.measure(reference, exported, cut, kept, self._part("fidelity", 0.7, 0.95))
        del exported
        self._progress("golden answers", 0.95)
        recorded = golden.record(self._target)
        files = {**manifest.files, golden.FILE: _file_spec(self._target / golden.FILE)}
        return replace(manifest, files=files, fidelity=measured, golden=recorded)

    def _manifest(self, written: DecoderSpec, embeddings: EmbeddingsSpec | None, name: str) -> Manifest:
        source, target, options = self._source, self._target, self._options
        vision_inputs, vision_outputs = decoder.graph_io(target / VISION)
        return Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            family=source.row.family,
            image=source.image,
            vision=VisionSpec(VISION, options.vision, vision_inputs, vision_outputs),
            decoder=written,
            embeddings=embeddings,
            tokenizer=TokenizerSpec(
                file=TOKENIZER,
                chat_template=CHAT_TEMPLATE,
                bos_token=source.bos_token,
                eos_token=source.eos_token,
                image_token_id=source.image_token_id,
                eos_token_ids=source.eos_token_ids,
            ),
            files={path.name: _file_spec(path) for path in sorted(target.iterdir())},
            source=Source(source.name, source.weights_sha256(), source.licence, _tool_versions(written.kind)),
            fidelity=None,
            golden=None,
        )

    def _write(self, manifest: Manifest) -> None:
        (self._target / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")

    def _part(self, stage: str, start: float, end: float) -> Callable[[float], None]:
        """Return a progress callback for one stage's own share, from 0 to 1."""
        return lambda done: self._progress(stage, start + (end - start) * done)


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.stat().st_size, sha256(path))


def _tool_versions(kind: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in (*_TOOLS, *_BUILDERS[kind])}
