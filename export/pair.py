"""The two files of a llama.cpp user, decoder and mmproj, as a model folder: the decoder as it is, vision as a graph.

Tokenizer, template and settings come from the decoder's metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgevl.engine.gguf import GgufDecoder
from edgevl.errors import EdgeVLError, ExportError
from edgevl.model import gguf
from edgevl.model.families import FAMILIES
from edgevl.model.gguf import GGUF, Strings
from edgevl.model.manifest import DecoderSpec, EmbeddingsSpec, FileSpec, Manifest, Source, sha256
from edgevl.model.template import ChatTemplate
from edgevl.types import ImagePart, Message, TextPart

from . import assembly, graphs, mmproj_file, samples, vocabulary
from .assembly import Options, Parts
from .folder import building, check_space, link
from .mmproj_file import Vision

ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>", "<|endoftext|>")
"""Texts of tokens that end an answer whatever the metadata say, as llama.cpp has it; control tokens only."""
FILE_TYPES = {
    # `general.file_type`: what llama.cpp calls such a mix of weights
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    7: "q8_0",
    8: "q5_0",
    9: "q5_1",
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    18: "q6_k",
    25: "iq4_nl",
    30: "iq4_xs",
    32: "bf16",
}
_VISION_SPACE = 16
"""How many times the mmproj file's size the work needs at most: float32 of 8-bit weights, several times over."""
_FLATTENED = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set written = namespace(text='') -%}
{%- for part in message.content -%}
{%- set written.text = written.text + (@image if part.type == 'image' else part.text) -%}
{%- endfor -%}
{%- set flat.messages = flat.messages + [{'role': message.role, 'content': written.text}] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
"""Put before a template that takes each message as one text: images are written into it, a line each."""


def import_pair(
    decoder: Path,
    vision: Path,
    out: Path,
    options: Options,
    template: Path | None,
    progress: Callable[[str, float], None],
    *,
    force: bool,
) -> Manifest:
    """Make the model folder `out` of a decoder file and its mmproj file; see `import_gguf`."""
    progress("reading headers", 0.0)
    text, image = gguf.read(decoder), gguf.read(vision)
    _check_pair(text, image)
    pictures = samples.pictures(options.samples)
    check_space(out.parent, decoder.stat().st_size + vision.stat().st_size * _VISION_SPACE)
    spec = _decoder_spec(text)
    GgufDecoder(decoder, spec)  # whether llama.cpp can run it at all shows before the long work
    with building(out, force=force, sources=[decoder, vision]) as target:
        progress("loading weights", 0.02)
        parts = _parts(text, image, spec, template)
        return assembly.assemble(parts, target, pictures, options, progress, out)


def _check_pair(text: GGUF, image: GGUF) -> None:
    """Raise ExportError unless one file is a decoder, the other an mmproj, and both are of one model."""
    for header, wanted, got in ((image, "an mmproj", "a decoder"), (text, "a decoder", "an mmproj")):
        is_mmproj = header.get(str, "general.architecture") == "clip"
        if is_mmproj != (header is image):
            raise ExportError(f"{header.path}: is {got}, where {wanted} is expected; give MODEL.gguf MMPROJ.gguf")
        if header.get(int, "split.count", 1) > 1:
            raise ExportError(f"{header.path}: is one of several parts; join them with llama-gguf-split --merge")
    width, wanted_width = image.get(int, "clip.vision.projection_dim", 0), _number(text, "embedding_length")
    if width and width != wanted_width:
        raise ExportError(
            f"{image.path}: gives features of {width} values, the decoder takes {wanted_width}; "
            "the two files are not of one model"
        )


def _decoder_spec(header: GGUF) -> DecoderSpec:
    n_heads, width = _number(header, "attention.head_count"), _number(header, "embedding_length")
    return DecoderSpec(
        kind="gguf",
        file=assembly.GGUF,
        precision=_precision(header),
        n_layers=_number(header, "block_count"),
        n_kv_heads=_number(header, "attention.head_count_kv", n_heads),
        head_dim=_number(header, "attention.key_length", width // n_heads),
        hidden_size=width,
        vocab_size=len(header.get(Strings, "tokenizer.ggml.tokens")),
        context_length=_number(header, "context_length"),
        inputs={},
        outputs={},
    )


def _number(header: GGUF, key: str, default: int | None = None) -> int:
    """Return a size of the decoder, its largest where each layer has its own; raise ExportError unless positive."""
    key = f"{header.get(str, 'general.architecture')}.{key}"
    value = header.metadata.get(key)
    size = int(value.max(initial=0)) if isinstance(value, np.ndarray) else header.get(int, key, default)
    if size < 1:
        raise ExportError(f"{header.path}: {key}: is {size}, which must be 1 or more; download the file again")
    return size


def _precision(header: GGUF) -> str:
    """Name the decoder's mix of weights, else the kind that holds most bytes."""
    named = FILE_TYPES.get(header.get(int, "general.file_type", -1))
    if named:
        return named
    n_bytes: dict[str, int] = {}
    for tensor in header.tensors.values():
        n_bytes[tensor.kind] = n_bytes.get(tensor.kind, 0) + tensor.n_bytes
    return max(n_bytes, key=lambda kind: n_bytes[kind], default="unknown").lower()


def _parts(text: GGUF, image: GGUF, spec: DecoderSpec, template: Path | None) -> Parts:
    vision = mmproj_file.read(image)
    document, image_token_id = vocabulary.with_token(vocabulary.rebuild(text), FAMILIES[vision.family].image_token)
    tokens = text.get(Strings, "tokenizer.ggml.tokens").texts()
    bos_token, eos_token = (_special(text, tokens, kind) for kind in ("bos", "eos"))

    def place(target: Path, work: Path) -> tuple[DecoderSpec, EmbeddingsSpec | None]:
        link(text.path, target / assembly.GGUF)
        return spec, None

    def source(files: dict[str, FileSpec]) -> Source:
        hashes = "\n".join((files[assembly.GGUF].sha256, sha256(image.path)))
        return Source(
            text.get(str, "general.name", text.path.stem),
            hashlib.sha256(hashes.encode()).hexdigest(),
            text.get(str, "general.license", "unknown"),
            assembly.tool_versions("gguf", "llama-cpp-python"),
        )

    return Parts(
        family=vision.family,
        image=vision.image,
        vision=lambda path: graphs.save(vision.graph(), path),
        tokenizer=document,
        chat_template=_chat_template(text, template, vision, bos_token, eos_token),
        tokens=assembly.tokens(bos_token, eos_token, image_token_id, _end_ids(text, tokens, vision)),
        context_length=spec.context_length,
        decoder=place,
        source=source,
    )


def _special(header: GGUF, tokens: tuple[str, ...], kind: str) -> str:
    """Return the token that begins ("bos") or ends ("eos") a text, "" where the file names none."""
    token_id = header.get(int, f"tokenizer.ggml.{kind}_token_id", -1)
    return tokens[token_id] if 0 <= token_id < len(tokens) else ""


def _end_ids(header: GGUF, tokens: tuple[str, ...], vision: Vision) -> tuple[int, ...]:
    """Return every id that ends an answer."""
    named = {header.get(int, f"tokenizer.ggml.{kind}_token_id", -1) for kind in ("eos", "eot", "eom")}
    types = header.metadata.get("tokenizer.ggml.token_type", ())
    control = {token_id for token_id, kind in enumerate(types) if kind == vocabulary.TokenType.CONTROL}
    texts = (*ENDS, *vision.end_tokens)
    ends = {token_id for token_id in control if tokens[token_id] in texts}
    ids = tuple(sorted(token_id for token_id in named | ends if 0 <= token_id < len(tokens)))
    if not ids:
        raise ExportError(
            f"{header.path}: tokenizer.ggml.eos_token_id: names no token that ends an answer; use another file"
        )
    return ids


def _chat_template(header: GGUF, path: Path | None, vision: Vision, bos_token: str, eos_token: str) -> str:
    """Return the chat template, made to write images where it does not do so itself."""
    image_token = FAMILIES[vision.family].image_token
    if path is not None:
        source, where = _read(path), str(path)
    else:
        source, where = header.get(str, "tokenizer.chat_template", ""), f"{header.path}: tokenizer.chat_template"
    if not source:
        raise ExportError(f"{where}: is missing; give the model's template with --chat-template FILE")
    flattened = _FLATTENED.replace("@image", repr(f"{image_token}\n")) + source
    for candidate in (source, flattened):
        written = _written(candidate, where, bos_token, eos_token)
        if written.count(image_token) == 1 and written.count(_PROBE) == 1 and "'type'" not in written:
            return candidate
    raise ExportError(f"{where}: does not write an image and a question; give another with --chat-template FILE")


_PROBE = "what is here?"


def _written(source: str, where: str, bos_token: str, eos_token: str) -> str:
    """Return what a template makes of a picture and a question; "" where it refuses them."""
    template = ChatTemplate(source, where=where, bos_token=bos_token, eos_token=eos_token)
    try:
        return template.render([Message("user", (ImagePart(None), TextPart(_PROBE)))])
    except EdgeVLError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: cannot be read ({error}); check the path") from error
