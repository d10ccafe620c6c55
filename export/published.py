"""Folders as transformers.js has them, graphs under `onnx/` beside a checkpoint's settings: run as they are.

What is written is `edgevl.json`, the table of embeddings that a graph holds, and the chat template where only a JSON
file holds it. No torch. Source, for the names: transformers.js 3, src/utils/dtypes.js and src/models.js.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgevl.engine.graph import Graph
from edgevl.errors import ExportError
from edgevl.loaded import Loaded
from edgevl.model.manifest import (
    FILE_NAME,
    FORMAT_VERSION,
    DecoderSpec,
    EmbeddingsSpec,
    FileSpec,
    Manifest,
    Source,
    TensorSpec,
    TokenizerSpec,
    VisionSpec,
    sha256,
)

from . import LAYOUT_PRECISIONS, checkpoint
from .checkpoint import Checkpoint

FOLDER = "onnx"
SUFFIXES = {precision: f"_{precision}" for precision in LAYOUT_PRECISIONS} | {"fp32": "", "q8": "_quantized"}
"""How a file's name ends, by its precision."""
EMBEDDINGS_FIRST = ("fp16", "fp32", "q8", "int8", "uint8", "q4", "q4f16", "bnb4")
"""The order for the embeddings, of which one row at a time is read: exact ones, the smaller file first."""
SETTINGS = (
    "README.md",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What else of a repository is read, where it is there."""
EMBEDDINGS, CHAT_TEMPLATE = "embeddings.npy", "chat_template.jinja"
_PART = f".{EMBEDDINGS}.part"  # until all is known, so that a killed run leaves nothing that looks like another's
_ROWS = 4096  # of the table of embeddings, read at once


@dataclass(frozen=True)
class Part:
    """One graph file of the layout: its path in the folder, with forward slashes, and its precision."""

    file: str
    precision: str


@dataclass(frozen=True)
class Layout:
    """The three graphs that a model is run from."""

    vision: Part
    embeddings: Part
    decoder: Part

    def files(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that the graphs are made of: files, and the weights beside them."""
        graphs = (self.vision.file, self.embeddings.file, self.decoder.file)
        return sorted(name for name in names if name.startswith(graphs))


def find(names: Sequence[str], *, vision: str | None = None, decoder: str | None = None) -> Layout | None:
    """Return the layout that a folder with files of these `names` has; None if it has another.

    `vision` and `decoder` are precisions of SUFFIXES; without, the best one that is there. Raises ExportError where a
    wanted precision is not there.
    """
    vision_part = _part(names, "vision_encoder", LAYOUT_PRECISIONS, vision)
    embeddings = _part(names, "embed_tokens", EMBEDDINGS_FIRST, None)
    decoder_part = _part(names, "decoder_model_merged", LAYOUT_PRECISIONS, decoder)
    if vision_part is None or embeddings is None or decoder_part is None:
        return None
    return Layout(vision_part, embeddings, decoder_part)


def _part(names: Sequence[str], stem: str, order: Sequence[str], wanted: str | None) -> Part | None:
    there = {
        precision: f"{FOLDER}/{stem}{SUFFIXES[precision]}.onnx"
        for precision in order
        if f"{FOLDER}/{stem}{SUFFIXES[precision]}.onnx" in names
    }
    if there and wanted is not None and wanted not in there:
        raise ExportError(f"{FOLDER}/{stem}: is not there in the precision {wanted}; choose one of {', '.join(there)}")
    precision = wanted or next(iter(there), None)
    return Part(there[precision], precision) if precision in there else None


def describe(
    folder: Path,
    *,
    name: str | None = None,
    origin: str | None = None,
    vision: str | None = None,
    decoder: str | None = None,
) -> Manifest:
    """Write what the runtime needs to know into `folder`, try the model out, and return its manifest.

    `name` is the model's (default: the folder's), `origin` says where it came from. For `vision` and `decoder` see
    `find`. Raises ExportError for a folder of another layout, one that is described already, or with settings or graphs
    that cannot be used, GraphError for graphs that do not run; then the folder is left as it was.
    """
    if (folder / FILE_NAME).exists():
        raise ExportError(
            f"{folder}: has an {FILE_NAME}, so it can be used; remove that and {EMBEDDINGS} to have it written anew"
        )
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    layout = find(names, vision=vision, decoder=decoder)
    if layout is None:
        raise ExportError(
            f"{folder}: holds no {FOLDER}/vision_encoder*.onnx, embed_tokens*.onnx and decoder_model_merged*.onnx; "
            "turn a checkpoint into a model with: edgevl export"
        )
    if (folder / EMBEDDINGS).exists():
        raise ExportError(
            f"{folder / EMBEDDINGS}: would be written, but is there, and no {FILE_NAME} says of what model; "
            "move or remove it"
        )
    settings = checkpoint.read_settings(folder)
    written = {FILE_NAME, EMBEDDINGS, CHAT_TEMPLATE}.difference(names) | {_PART}
    try:
        manifest = _Folder(folder, layout, settings).describe(names, name or folder.resolve().name, origin)
        (folder / _PART).rename(folder / EMBEDDINGS)
        (folder / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        _try(folder)
    except BaseException as error:
        for file in written:
            (folder / file).unlink(missing_ok=True)
        if isinstance(error, OSError):
            why = error.strerror or error
            raise ExportError(
                f"{folder}: cannot be read and written ({why}); see to its disk and permissions"
            ) from error
        raise
    return manifest


class _Folder:
    """A folder under description."""

    def __init__(self, folder: Path, layout: Layout, settings: Checkpoint) -> None:
        self._folder, self._layout, self._settings = folder, layout, settings

    def describe(self, names: Sequence[str], name: str, origin: str | None) -> Manifest:
        settings, layout = self._settings, self._layout
        vision, decoder = self._vision(), self._decoder()
        embeddings = self._embeddings(decoder)
        template = self._folder / CHAT_TEMPLATE
        if not template.exists():
            template.write_text(settings.chat_template, encoding="utf-8", newline="\n")
        used = {"tokenizer.json", CHAT_TEMPLATE, *layout.files(names)}
        used -= {file for file in names if file.startswith(layout.embeddings.file)}
        places = {file: self._folder / file for file in used} | {EMBEDDINGS: self._folder / _PART}
        files = {file: _file_spec(places[file]) for file in sorted(places)}
        return Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            family=settings.row.family,
            image=settings.image,
            vision=vision,
            decoder=decoder,
            embeddings=embeddings,
            tokenizer=self._tokens(),
            files=files,
            source=self._source(files, origin),
            fidelity=None,
            golden=None,
        )

    def _vision(self) -> VisionSpec:
        part = self._layout.vision
        return VisionSpec(part.file, part.precision, *_io(Graph(self._folder / part.file)))

    def _decoder(self) -> DecoderSpec:
        part, path = self._layout.decoder, self._folder / self._layout.decoder.file
        inputs, outputs = _io(Graph(path))
        sizes = self._settings.config["text_config"]
        past = sorted(name for name in inputs if name.startswith("past_key_values."))
        if not past or not {"inputs_embeds"} <= inputs.keys() or "logits" not in outputs:
            raise ExportError(f"{path}: takes {sorted(inputs)}, which is no decoder with a KV cache")
        n_heads = sizes.get("num_attention_heads")

        def size(spec: TensorSpec, axis: int, key: str, default: Any = None) -> int:
            value = spec.shape[axis] if len(spec.shape) > axis else None
            value = value if isinstance(value, int) else sizes.get(key, default)
            if not isinstance(value, int) or value < 1:
                raise ExportError(f"{path}: does not say its {key}, and neither does config.json (text_config)")
            return value

        return DecoderSpec(
            kind="merged",
            file=part.file,
            precision=part.precision,
            n_layers=len(past) // 2,
            n_kv_heads=size(inputs[past[0]], 1, "num_key_value_heads", n_heads),
            head_dim=size(inputs[past[0]], 3, "head_dim"),
            hidden_size=size(inputs["inputs_embeds"], 2, "hidden_size"),
            vocab_size=size(outputs["logits"], 2, "vocab_size"),
            context_length=self._settings.context_length,
            inputs=inputs,
            outputs=outputs,
        )

    def _embeddings(self, decoder: DecoderSpec) -> EmbeddingsSpec:
        """Write the table that the graph of embeddings looks up in, so that it need not be run."""
        part, path = self._layout.embeddings, self._folder / self._layout.embeddings.file
        graph = Graph(path)
        graph.require({"input_ids"}, {"inputs_embeds"})
        dtype: Literal["float16", "float32"] = "float16" if part.precision in ("fp16", "q4f16") else "float32"
        shape = decoder.vocab_size, decoder.hidden_size
        with (self._folder / _PART).open("wb") as file:  # not mapped: a full disk would end the process
            head = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            for start in range(0, decoder.vocab_size, _ROWS):
                ids = np.arange(start, min(start + _ROWS, decoder.vocab_size), dtype=np.int64)
                rows = graph.run({"input_ids": ids[None]})["inputs_embeds"]
                if rows.shape != (1, len(ids), decoder.hidden_size):
                    raise ExportError(
                        f"{path}: gives rows {list(rows.shape[1:])}, the decoder takes {decoder.hidden_size} values; "
                        "the files are not of one model"
                    )
                file.write(np.ascontiguousarray(rows[0], dtype).data)
        return EmbeddingsSpec(EMBEDDINGS, dtype)

    def _tokens(self) -> TokenizerSpec:
        found = self._settings
        return TokenizerSpec(
            "tokenizer.json",
            CHAT_TEMPLATE,
            found.bos_token,
            found.eos_token,
            found.image_token_id,
            found.eos_token_ids,
        )

    def _source(self, files: Mapping[str, FileSpec], origin: str | None) -> Source:
        graphs = self._layout.files(files)
        digest = hashlib.sha256("\n".join(files[name].sha256 for name in graphs).encode()).hexdigest()
        tools = {name: metadata.version(name) for name in ("edgevl", "onnxruntime")}
        return Source(origin or self._settings.name, digest, self._settings.licence, tools)


def _io(graph: Graph) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return a graph's inputs and outputs; a string is a dynamic dimension."""
    return _specs(graph.path, graph.inputs), _specs(graph.path, graph.outputs)


def _specs(path: Path, tensors: Mapping[str, tuple[Any, list[Any]]]) -> dict[str, TensorSpec]:
    found = {}
    for name, (dtype, shape) in tensors.items():
        if dtype is None:
            raise ExportError(f"{path}: {name} is of a type that this version does not know; choose another precision")
        dims = tuple(size if isinstance(size, int) else str(size or "any") for size in shape)
        found[name] = TensorSpec(np.dtype(dtype).name, dims)
    return found


def _file_spec(path: Path) -> FileSpec:
    return FileSpec(path.stat().st_size, sha256(path))


def _try(folder: Path) -> None:
    """Run a grey tile and one token through the model, as a request would; raise ExportError where they do not fit."""
    model = Loaded(folder, device="cpu", threads=None)
    spec = model.manifest
    features = model.encoder.encode(np.zeros((1, 3, spec.image.tile, spec.image.tile), np.float32))
    wanted = (spec.image.tokens_per_tile, spec.decoder.hidden_size)
    if features.shape != wanted:
        raise ExportError(
            f"{folder / spec.vision.file}: gives features {list(features.shape)} of a tile, "
            f"config.json and the decoder want {list(wanted)}; the files are not of one model"
        )
    for chunk in (features, np.array([spec.tokenizer.image_token_id])):
        model.decoder.extend(chunk)
        model.decoder.logits()
