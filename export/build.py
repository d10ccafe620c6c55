"""The export of a checkpoint from beginning to end: its parts, made with PyTorch, and the folder of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from edgevl.model.manifest import DecoderSpec, EmbeddingsSpec, Manifest, Source

from . import checkpoint, decoder, gguf, graphs, samples, vision
from .assembly import GGUF, TOKENIZER, Options, Parts, assemble, tokens, tool_versions
from .checkpoint import Checkpoint
from .folder import building, check_space
from .reference import answer, features

DECODER, EMBEDDINGS, PREFILL = "decoder.onnx", "embeddings.npy", "prefill.onnx"
PREFILL_WEIGHTS = range(32 << 20, 1 << 30)
"""For decoders of so many weights a graph for prompts is written unless it is told otherwise: it has a byte for each,
on the disk and in memory, and prompts of smaller ones are quick as they are."""
_SPACE = 3
"""How many float32 copies of the weights the work needs at most, side by side."""


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
    with building(out, force=force, sources=[folder]) as target:
        progress("loading weights", 0.02)
        return assemble(_parts(source, decoder, block_size, prefill), target, pictures, options, progress, out)


def _parts(source: Checkpoint, precision: str, block_size: int, prefill: bool | None) -> Parts:
    """Load a checkpoint's weights and return what its model folder is made from."""
    reference = source.row.load(source.folder, source.image.tile)
    made_by = ("gguf", "llama-cpp-python") if precision.startswith("gguf:") else ("onnxruntime-genai",)
    tools = ("torch", "transformers", *made_by)
    return Parts(
        family=source.row.family,
        image=source.image,
        vision=lambda path: vision.export_fp32(reference.vision, source.image.tile, path),
        tokenizer=(source.folder / TOKENIZER).read_text(encoding="utf-8"),
        chat_template=source.chat_template,
        tokens=tokens(source.bos_token, source.eos_token, source.image_token_id, source.eos_token_ids),
        context_length=source.context_length,
        decoder=lambda target, work: _write_decoder(
            source, reference.text, precision, block_size, prefill, target, work
        ),
        features=partial(features, reference.vision),
        answer=partial(answer, reference.text),
        source=lambda files: Source(source.name, source.weights_sha256(), source.licence, tool_versions(*tools)),
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
    inputs, outputs = graphs.graph_io(target / DECODER)
    embeddings = EmbeddingsSpec(EMBEDDINGS, cast("Literal['float32', 'float16']", dtype))
    return replace(spec, inputs=inputs, outputs=outputs), embeddings
