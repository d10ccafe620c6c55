"""The export from beginning to end: checkpoint, vision graph, decoder graph, files, fidelity, golden answers."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
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
    ImageSpec,
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
from .ranges import write_ranges

VISION, DECODER, EMBEDDINGS, GGUF = "vision.onnx", "decoder.onnx", "embeddings.npy", "decoder.gguf"
PREFILL = "prefill.onnx"
TOKENIZER, CHAT_TEMPLATE = "tokenizer.json", "chat_template.jinja"
_WORK = "work"
_TOOLS = ("edgevl", "onnx", "onnxruntime", "torch", "transformers")
PREFILL_WEIGHTS = range(32 << 20, 1 << 30)
"""For decoders of so many weights a graph for prompts is written unless it is told otherwise: it has a byte for each,
on the disk and in memory, and prompts of smaller ones are quick as they are."""
_SPACE = 3
"""How many float32 copies of the weights the work needs at most, side by side."""


@dataclass(frozen=True)
class Options:
    """What the caller chose of any model folder; see `export_model` and `import_gguf`."""

    vision: str
    fidelity: float | None
    name: str | None
    samples: tuple[Path, ...]


@dataclass(frozen=True)
class Parts:
    """What a model folder is made from, wherever it comes from.

    `tokenizer` and `chat_template` are the texts of those files. `decoder(target, work)` writes the decoder's files
    into the folder `target`, by way of the folder `work`; `source(files)` says where all of it came from.
    """

    family: str
    image: ImageSpec
    reference: TorchModel
    tokenizer: str
    chat_template: str
    tokens: TokenizerSpec
    decoder: Callable[[Path, Path], tuple[DecoderSpec, EmbeddingsSpec | None]]
    source: Callable[[dict[str, FileSpec]], Source]


def build(
    folder: Path,
    out: Path,
    options: Options,
    progress: Callable[[str, float], None],
    *,
    decoder: str,
    block_size: int,
    prefill: bool | None,
    force: bool,
) -> Manifest:
    """Export the checkpoint in `folder` to `out`; see `export_model`."""
    progress("checkpoint", 0.0)
    source = checkpoint.read(folder)
    pictures = samples.pictures(options.samples)
    check_space(out.parent, source.n_parameters * 4 * _SPACE)
    with building(out, force=force) as target:
        progress("loading weights", 0.02)
        return assemble(_parts(source, decoder, block_size, prefill), target, pictures, options, progress, out)


def assemble(
    parts: Parts,
    target: Path,
    pictures: Sequence[Picture],
    options: Options,
    progress: Callable[[str, float], None],
    out: Path,
) -> Manifest:
    """Make a model folder of `parts` in `target`, which becomes `out`; return its manifest.

    `pictures` are what its fidelity is measured on.
    """
    manifest = _Build(parts, target, options, progress).run(pictures, options.name or out.expanduser().absolute().name)
    gc.collect()  # sessions hold their files open, which on some systems hinders the rename
    progress("done", 1.0)
    return manifest


def tokens(bos_token: str, eos_token: str, image_token_id: int, eos_token_ids: tuple[int, ...]) -> TokenizerSpec:
    """Return what the manifest says of the tokenizer and the template."""
    return TokenizerSpec(TOKENIZER, CHAT_TEMPLATE, bos_token, eos_token, image_token_id, eos_token_ids)


def tool_versions(*more: str) -> dict[str, str]:
    """Return the versions of what made a model folder."""
    return {name: metadata.version(name) for name in (*_TOOLS, *more)}


class _Build:
    """One export under way; `target` is the folder that is being filled."""

    def __init__(self, parts: Parts, target: Path, options: Options, progress: Callable[[str, float], None]) -> None:
        self._parts, self._target, self._options, self._progress = parts, target, options, progress
        self._work = target / _WORK
        self._work.mkdir()

    def run(self, pictures: Sequence[Picture], name: str) -> Manifest:
        """Fill the folder and return its manifest, which is written last."""
        parts, target = self._parts, self._target
        cut = []
        for index, picture in enumerate(pictures):
            self._progress("reference features", 0.04 + 0.06 * index / len(pictures))
            cut.append(fidelity.sample(picture, parts.image, parts.family, parts.reference))
        kept = self._vision(cut)
        write_ranges(target / VISION, (tile for one in cut for tile in one.tiles))
        self._progress("decoder", 0.4)
        written = parts.decoder(target, self._work)
        (target / TOKENIZER).write_text(parts.tokenizer, encoding="utf-8", newline="\n")
        (target / CHAT_TEMPLATE).write_text(parts.chat_template, encoding="utf-8", newline="\n")
        shutil.rmtree(self._work)
        self._progress("checksums", 0.65)
        manifest = self._manifest(*written, name)
        self._write(manifest)
        manifest = self._measure(manifest, cut, kept)
        self._write(manifest)
        return manifest

    def _vision(self, cut: list[fidelity.Sample]) -> tuple[str, ...]:
        """Write the vision graph; return the MatMuls that were kept in float32."""
        options, path, module = self._options, self._target / VISION, self._parts.reference.vision
        self._progress("vision", 0.1)
        plain = vision.export_vision(module, self._parts.image.tile, options.vision, path, self._work)
        if options.fidelity is None:
            return ()
        if options.vision == "int8":
            self._progress("vision: fidelity", 0.2)
            return sensitivity.quantize_to(
                options.fidelity, module, cut, plain, path, self._part("vision: fidelity", 0.2, 0.4)
            )
        reached = float(fidelity.feature_cosines(cut, sensitivity.encoder(path).encode).mean())
        if reached < options.fidelity:
            raise ExportError(
                f"fidelity: {options.fidelity} is not reached by {options.vision}, which has {reached:.7f}"
            )
        return ()

    def _measure(self, manifest: Manifest, cut: list[fidelity.Sample], kept: tuple[str, ...]) -> Manifest:
        """Measure the finished folder and record its golden answers."""
        self._progress("fidelity", 0.7)
        exported = Loaded(self._target, device="cpu", threads=None)
        measured = fidelity.measure(self._parts.reference, exported, cut, kept, self._part("fidelity", 0.7, 0.95))
        del exported
        self._progress("golden answers", 0.95)
        recorded = golden.record(self._target)
        files = {**manifest.files, golden.FILE: _file_spec(self._target / golden.FILE)}
        return replace(manifest, files=files, fidelity=measured, golden=recorded)

    def _manifest(self, written: DecoderSpec, embeddings: EmbeddingsSpec | None, name: str) -> Manifest:
        parts, target = self._parts, self._target
        inputs, outputs = decoder.graph_io(target / VISION)
        files = {path.name: _file_spec(path) for path in sorted(target.iterdir())}
        return Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            family=parts.family,
            image=parts.image,
            vision=VisionSpec(VISION, self._options.vision, inputs, outputs),
            decoder=written,
            embeddings=embeddings,
            tokenizer=parts.tokens,
            files=files,
            source=parts.source(files),
            fidelity=None,
            golden=None,
        )

    def _write(self, manifest: Manifest) -> None:
        (self._target / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")

    def _part(self, stage: str, start: float, end: float) -> Callable[[float], None]:
        """Return a progress callback for one stage's own share, from 0 to 1."""
        return lambda done: self._progress(stage, start + (end - start) * done)


def _parts(source: Checkpoint, precision: str, block_size: int, prefill: bool | None) -> Parts:
    """Load a checkpoint's weights and return what its model folder is made from."""
    reference = source.row.load(source.folder, source.image.tile)
    made_by = ("gguf", "llama-cpp-python") if precision.startswith("gguf:") else ("onnxruntime-genai",)
    return Parts(
        family=source.row.family,
        image=source.image,
        reference=reference,
        tokenizer=(source.folder / TOKENIZER).read_text(encoding="utf-8"),
        chat_template=source.chat_template,
        tokens=tokens(source.bos_token, source.eos_token, source.image_token_id, source.eos_token_ids),
        decoder=lambda target, work: _write_decoder(
            source, reference.text, precision, block_size, prefill, target, work
        ),
        source=lambda files: Source(source.name, source.weights_sha256(), source.licence, tool_versions(*made_by)),
    )


def _write_decoder(
    source: Checkpoint,
    text: Any,
    decoder_precision: str,
    block_size: int,
    prefill: bool | None,
    target: Path,
    work: Path,
) -> tuple[DecoderSpec, EmbeddingsSpec | None]:
    """Write a checkpoint's decoder, as a graph with its embedding table or as a GGUF file."""
    kind, _, precision = decoder_precision.rpartition(":")
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
        gguf.export_decoder(source, text, precision, target / GGUF, work)
        return replace(spec, kind="gguf", file=GGUF), None
    if prefill is None:
        n_weights = sum(weight.numel() for weight in text.model.layers.parameters())
        prefill = precision in ("int8", "int4") and n_weights in PREFILL_WEIGHTS
    spec = replace(spec, prefill=PREFILL if prefill else None)
    decoder.export_decoder(
        text,
        source.folder,
        precision,
        target / DECODER,
        work,
        block_size=block_size,
        for_prompts=target / PREFILL if prefill else None,
    )
    dtype = decoder.write_embeddings(text, precision, target / EMBEDDINGS)
    inputs, outputs = decoder.graph_io(target / DECODER)
    embeddings = EmbeddingsSpec(EMBEDDINGS, cast("Literal['float32', 'float16']", dtype))
    return replace(spec, inputs=inputs, outputs=outputs), embeddings


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.stat().st_size, sha256(path))
