"""A model folder from its parts, wherever they come from: vision graph, decoder, files, fidelity, golden answers.

Nothing here is PyTorch's: parts that are bring it along.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

from edgevl.errors import ExportError
from edgevl.image import pixels
from edgevl.image.read import Picture
from edgevl.image.tiling import TilePlan
from edgevl.loaded import Loaded
from edgevl.machine import expanded
from edgevl.model import prompt
from edgevl.model.families import FAMILIES
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
from edgevl.model.template import ChatTemplate
from edgevl.model.tokenizer import Tokenizer
from edgevl.request import n_tokens

from . import fidelity, golden, graphs, samples, sensitivity
from .fidelity import Answer, Array, Encode
from .ranges import write_ranges

VISION, GGUF = "vision.onnx", "decoder.gguf"
TOKENIZER, CHAT_TEMPLATE = "tokenizer.json", "chat_template.jinja"
_WORK, _PLAIN = "work", "vision_fp32.onnx"
_TOOLS = ("edgevl", "onnx", "onnxruntime")


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

    `vision(path)` writes the float32 vision graph. `tokenizer` and `chat_template` are the texts of those files.
    `context_length` is in tokens. `decoder(target, work)` writes the decoder's files into the folder `target`, by way
    of the folder `work`; `source(files)` says where all of it came from. `features` and `answer` are the reference that
    all is measured against; without them the float32 vision graph and the decoder itself are.
    """

    family: str
    image: ImageSpec
    vision: Callable[[Path], None]
    tokenizer: str
    chat_template: str
    tokens: TokenizerSpec
    context_length: int
    decoder: Callable[[Path, Path], tuple[DecoderSpec, EmbeddingsSpec | None]]
    source: Callable[[dict[str, FileSpec]], Source]
    features: Encode | None = None
    answer: Answer | None = None


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
    manifest = _Build(parts, target, options, progress).run(pictures, options.name or expanded(out).absolute().name)
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
        plain = self._work / _PLAIN
        (target / TOKENIZER).write_text(parts.tokenizer, encoding="utf-8", newline="\n")
        (target / CHAT_TEMPLATE).write_text(parts.chat_template, encoding="utf-8", newline="\n")
        plans = self._plans(pictures)
        self._progress("vision", 0.04)
        parts.vision(plain)
        cut = self._samples(pictures, plans, plain)
        kept = self._vision(plain, cut)
        write_ranges(target / VISION, self._range_tiles(cut))
        self._progress("decoder", 0.4)
        written = parts.decoder(target, self._work)
        shutil.rmtree(self._work)
        self._progress("checksums", 0.65)
        manifest = self._manifest(*written, name)
        self._write(manifest)
        manifest = self._measure(manifest, cut, kept)
        self._write(manifest)
        return manifest

    def _plans(self, pictures: Sequence[Picture]) -> list[TilePlan]:
        """Return how the pictures are cut so that a question about each fits into the context."""
        parts, tokens, template = self._parts, self._parts.tokens, self._target / CHAT_TEMPLATE
        chunks = partial(
            prompt.build,
            fidelity.ASKED,
            family=FAMILIES[parts.family],
            tokenizer=Tokenizer(self._target / TOKENIZER),
            template=ChatTemplate(
                parts.chat_template, where=str(template), bos_token=tokens.bos_token, eos_token=tokens.eos_token
            ),
            image_token_id=tokens.image_token_id,
            tokens_per_tile=parts.image.tokens_per_tile,
            context_length=parts.context_length,
        )
        return [
            fidelity.fitting_plan(
                picture.size,
                parts.image,
                parts.family,
                lambda plan: n_tokens(chunks([plan.grid])),
                parts.context_length,
            )
            for picture in pictures
        ]

    def _samples(self, pictures: Sequence[Picture], plans: Sequence[TilePlan], plain: Path) -> list[fidelity.Sample]:
        """Cut the pictures and run the reference's vision encoder on their tiles."""
        features = self._parts.features or sensitivity.encoder(plain).encode
        cut = []
        for index, (picture, plan) in enumerate(zip(pictures, plans, strict=True)):
            self._progress("reference features", 0.1 + 0.05 * index / len(pictures))
            cut.append(fidelity.sample(picture, plan, self._parts.image, features))
        return cut

    def _vision(self, plain: Path, cut: list[fidelity.Sample]) -> tuple[str, ...]:
        """Write the vision graph in its precision; return the MatMuls that were kept in float32."""
        options, path = self._options, self._target / VISION
        self._progress(f"vision in {options.vision}", 0.15)
        graphs.write_precision(plain, options.vision, path)
        if options.fidelity is None:
            return ()
        if options.vision == "int8":
            self._progress("vision: fidelity", 0.2)
            return sensitivity.quantize_to(options.fidelity, cut, plain, path, self._part("vision: fidelity", 0.2, 0.4))
        reached = float(fidelity.feature_cosines(cut, sensitivity.encoder(path).encode).mean())
        if reached < options.fidelity:
            raise ExportError(
                f"fidelity: {options.fidelity} is not reached by {options.vision}, which has {reached:.7f}"
            )
        return ()

    def _range_tiles(self, cut: Sequence[fidelity.Sample]) -> Iterator[Array]:
        """Yield the tiles whose activations' ranges are recorded: the pictures', and such as go further."""
        spec = self._parts.image
        yield from (tile for one in cut for tile in one.tiles)
        yield from (pixels.normalise(rgb, spec.mean, spec.std) for rgb in samples.textures(spec.tile))

    def _measure(self, manifest: Manifest, cut: list[fidelity.Sample], kept: tuple[str, ...]) -> Manifest:
        """Measure the finished folder and record its golden answers."""
        self._progress("fidelity", 0.7)
        exported = Loaded(self._target, device="cpu", threads=None)
        measured = fidelity.measure(self._parts.answer, exported, cut, kept, self._part("fidelity", 0.7, 0.95))
        del exported
        self._progress("golden answers", 0.95)
        recorded = golden.record(self._target)
        files = {**manifest.files, golden.FILE: _file_spec(self._target / golden.FILE)}
        return replace(manifest, files=files, fidelity=measured, golden=recorded)

    def _manifest(self, written: DecoderSpec, embeddings: EmbeddingsSpec | None, name: str) -> Manifest:
        parts, target = self._parts, self._target
        inputs, outputs = graphs.graph_io(target / VISION)
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


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.stat().st_size, sha256(path))
