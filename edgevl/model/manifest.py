"""`edgevl.json`: what a model folder says about itself. Read strictly, written by the export.

Every key is required and typed, and numbers that something is computed with have a range; unknown keys are errors, so
that a folder of a newer version is refused instead of misread. All paths are relative to the folder and stay inside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from math import prod
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from edgevl.errors import ChecksumMismatch, ManifestError, ModelNotFound

FORMAT_VERSION = 3
"""Since 2 a decoder may be a GGUF file, which has no table of embeddings beside it, or a "merged" graph; since 3 there
may be a second graph for prompts."""
FILE_NAME = "edgevl.json"
_AGAIN = "; export or download the model again"
_MOST_TILES = 100
"""Along a side of a grid; more than any model takes."""


@dataclass(frozen=True)
class Between:
    """The range of a number, both ends included; wider by far than any model needs."""

    least: float
    most: float

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


_Side = Annotated[int, Between(1, 10_000)]
_Count = Annotated[int, Between(1, 100_000)]
_Tokens = Annotated[int, Between(1, 20_000_000)]
_Bytes = Annotated[int, Between(0, 10**15)]
MEAN, STD = Between(-1000, 1000), Between(0.001, 1000)
_Mean = Annotated[float, MEAN]
_Std = Annotated[float, STD]


@dataclass(frozen=True)
class ImageSpec:
    """How images become pixel values: lengths in pixels, mean and std per channel of values in [0, 1].

    `longest_edge` bounds the longer side of a grid of tiles; it is `tile` where there is one tile only.
    """

    tile: _Side
    longest_edge: _Count
    tokens_per_tile: _Count
    mean: tuple[_Mean, ...]
    std: tuple[_Std, ...]
    resample: Literal["lanczos", "bicubic", "bilinear", "nearest"]


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output: ONNX element type and shape; a string is a dynamic dimension."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class VisionSpec:
    """The vision encoder with its projector: `pixel_values` in, `image_features` out."""

    file: str
    precision: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


@dataclass(frozen=True)
class DecoderSpec:
    """The text decoder, with a KV cache of `n_layers` pairs.

    An "onnx" graph takes embeddings, updates the cache in place and gives the last token's logits; a "merged" one, as
    transformers.js has it, returns the whole cache and all logits. A "gguf" file, for llama.cpp, has its own table of
    embeddings, and no `inputs` and `outputs`. `prefill` is a graph with the same inputs and outputs as an "onnx" one,
    for several tokens at once.
    """

    kind: Literal["onnx", "merged", "gguf"]
    file: str
    precision: str
    n_layers: _Count
    n_kv_heads: _Count
    head_dim: _Count
    hidden_size: _Count
    vocab_size: _Tokens
    context_length: _Tokens
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    prefill: str | None = None


@dataclass(frozen=True)
class EmbeddingsSpec:
    """The token embedding table, a .npy file [vocab_size, hidden_size]."""

    file: str
    dtype: Literal["float32", "float16"]


@dataclass(frozen=True)
class TokenizerSpec:
    """tokenizer.json, the chat template and the ids that end an answer."""

    file: str
    chat_template: str
    bos_token: str
    eos_token: str
    image_token_id: int
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class FileSpec:
    """Length and SHA-256 of one file of the folder."""

    n_bytes: _Bytes
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where the model came from: checkpoint name, its weights' SHA-256, its licence, and the exporting versions."""

    checkpoint: str
    sha256: str
    licence: str
    tools: dict[str, str]


@dataclass(frozen=True)
class Fidelity:
    """How near the exported graphs are to the PyTorch model, over `n_images` sample images.

    `feature_cosine` and `feature_cosine_min` are the mean and lowest cosine over image features,
    `logit_kl` the mean KL divergence (nats) of the next-token distribution along the reference's greedy answer,
    `equal_tokens` the share of positions where the greedy token agrees. `kept` lists the MatMuls left in
    higher precision.
    """

    n_images: int
    feature_cosine: float
    feature_cosine_min: float
    logit_kl: float
    equal_tokens: float
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Golden:
    """A recorded question about image `image` of the golden file, and the tokens it was answered with."""

    image: str
    question: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class GoldenSpec:
    """Recorded inputs and outputs: a .npz with uint8 pictures and their float16 features, and the answers."""

    file: str
    answers: tuple[Golden, ...]


@dataclass(frozen=True)
class Manifest:
    """All of `edgevl.json`."""

    format_version: int
    name: str
    family: str
    image: ImageSpec
    vision: VisionSpec
    decoder: DecoderSpec
    embeddings: EmbeddingsSpec | None
    tokenizer: TokenizerSpec
    files: dict[str, FileSpec]
    source: Source
    fidelity: Fidelity | None
    golden: GoldenSpec | None

    @property
    def content_id(self) -> str:
        """A digest of the content of all files."""
        text = "\n".join(f"{name} {spec.sha256}" for name, spec in sorted(self.files.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of `edgevl.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """Read and check a folder's manifest.

    Raises ModelNotFound for a folder without one and ManifestError, naming file and key, for one that is
    malformed, of another version, or names files outside the folder.
    """
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise ModelNotFound(f"{folder}: no such model folder; `edgevl models` lists what is here")
    if not path.is_file():
        raise ModelNotFound(
            f"{folder}: holds no {FILE_NAME}, so it is not a model folder; make one with: edgevl export"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: is not valid JSON ({error}){_AGAIN}") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"{path}: must hold a JSON object{_AGAIN}")
    _check_version(raw, path)
    manifest: Manifest = _typed(Manifest, raw, str(path), "")
    _check_graph(manifest, path)
    _check_image(manifest, path)
    if (manifest.embeddings is None) != (manifest.decoder.kind == "gguf"):
        wanted = "null for a gguf decoder" if manifest.embeddings else f"needed by an {manifest.decoder.kind} decoder"
        raise ManifestError(f"{path}: embeddings: {wanted}; export the model again")
    for name in manifest.files:
        _check_inside(name, path)
    for name in _named_files(manifest):
        if name not in manifest.files:
            raise ManifestError(f"{path}: files: {name!r} is used but not listed{_AGAIN}")
    return manifest


def check_sizes(manifest: Manifest, folder: Path) -> None:
    """Check that every file is there with its recorded length (cheap; hashes are for `check_hashes`)."""
    for name, spec in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ChecksumMismatch(f"{path}: is missing{_AGAIN}")
        if path.stat().st_size != spec.n_bytes:
            raise ChecksumMismatch(f"{path}: has {path.stat().st_size} bytes, {FILE_NAME} says {spec.n_bytes}{_AGAIN}")


def content(manifest: Manifest, folder: Path, *names: str) -> str:
    """Name the content of files and of the data beside them, by recorded hash and by date.

    The date, because hashes are not checked at every start: a file exchanged by hand must not be taken for the old one.
    """
    return ":".join(
        f"{name}={spec.sha256}@{(folder / name).stat().st_mtime_ns}"
        for name, spec in sorted(manifest.files.items())
        if name.startswith(names)
    )


def check_hashes(manifest: Manifest, folder: Path) -> None:
    """Check length and SHA-256 of every file; raise ChecksumMismatch for the first that differs."""
    check_sizes(manifest, folder)
    for name, spec in manifest.files.items():
        if sha256(folder / name) != spec.sha256:
            raise ChecksumMismatch(f"{folder / name}: content differs from {FILE_NAME}; export or download it again")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named_files(manifest: Manifest) -> list[str]:
    tokenizer = manifest.tokenizer
    names = [manifest.vision.file, manifest.decoder.file, tokenizer.file, tokenizer.chat_template]
    names += [manifest.decoder.prefill] if manifest.decoder.prefill else []
    return names + [part.file for part in (manifest.embeddings, manifest.golden) if part]


def _check_version(raw: dict[str, Any], path: Path) -> None:
    version = raw.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ManifestError(f"{path}: format_version: expected int, got {version!r}{_AGAIN}")
    if version > FORMAT_VERSION:
        raise ManifestError(
            f"{path}: format_version is {version}, this edgevl reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install -U edgevl"
        )
    if version < 1:
        raise ManifestError(f"{path}: format_version: expected 1 or more, got {version}{_AGAIN}")


def _check_graph(manifest: Manifest, path: Path) -> None:
    """Check that the vision graph takes such tiles and gives such features, where its sizes are recorded."""
    image, vision = manifest.image, manifest.vision
    taken, given = vision.inputs.get("pixel_values"), vision.outputs.get("image_features")
    if taken and any(isinstance(side, int) and side != image.tile for side in taken.shape[-2:]):
        raise ManifestError(
            f"{path}: image.tile: is {image.tile}, but {vision.file} takes pixel_values of {list(taken.shape)}{_AGAIN}"
        )
    n_features = [size for size in given.shape[:-1] if isinstance(size, int)] if given else []
    if given and len(n_features) == len(given.shape) - 1 and prod(n_features) != image.tokens_per_tile:
        raise ManifestError(
            f"{path}: image.tokens_per_tile: is {image.tokens_per_tile}, but {vision.file} gives image_features of "
            f"{list(given.shape)}{_AGAIN}"
        )


def _check_image(manifest: Manifest, path: Path) -> None:
    image = manifest.image
    for key, values in (("mean", image.mean), ("std", image.std)):
        if len(values) != 3:
            raise ManifestError(f"{path}: image.{key}: expected 3 values, got {len(values)}{_AGAIN}")
    if image.longest_edge > _MOST_TILES * image.tile:
        wanted = f"at most {_MOST_TILES} tiles of {image.tile} pixels"
        raise _mismatch(wanted, image.longest_edge, str(path), "image.longest_edge")


def is_inside(name: str) -> bool:
    """Return whether a file's name stays in the folder that it is looked for in, on every system."""
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0][0] != "/" and ".." not in parts and not set(name) & set("\\:\0")


def _check_inside(name: str, path: Path) -> None:
    if not is_inside(name):
        raise ManifestError(f"{path}: files: {name!r} points outside the model folder{_AGAIN}")


def _typed(kind: Any, value: Any, where: str, key: str) -> Any:
    """Check `value` against the annotation `kind` and build it; the only place that knows how."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _build(kind, value, where, key)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number, between = _typed(args[0], value, where, key), args[1]
        if number not in between:
            raise _mismatch(between, value, where, key)
        return number
    if origin in (Union, UnionType):
        options = [option for option in args if option is not type(None)]
        if value is None and len(options) < len(args):
            return None
        if len(options) == 1:
            return _typed(options[0], value, where, key)
        if any(_plain_match(option, value) for option in options):
            return value
        raise _mismatch(kind, value, where, key)
    if origin is Literal:
        if value not in args:
            raise ManifestError(f"{where}: {key}: expected one of {', '.join(map(str, args))}, got {value!r}{_AGAIN}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch("list", value, where, key)
        return tuple(_typed(args[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch("object", value, where, key)
        return {_typed(str, name, where, key): _typed(args[1], value[name], where, f"{key}.{name}") for name in value}
    if not _plain_match(kind, value):
        raise _mismatch(kind.__name__, value, where, key)
    return float(value) if kind is float else value


def _plain_match(kind: Any, value: Any) -> bool:
    if kind is float:  # and no NaN, no infinity, and no whole number beyond it
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if kind is str:  # and no half of a character, which cannot be printed or written
        return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _build(kind: Any, value: Any, where: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch("object", value, where, key or "(top)")
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{key}." if key else ""
    names = {field.name for field in fields(kind)}
    later = {field.name for field in fields(kind) if field.default is not MISSING}  # than the first format
    for unknown in sorted(value.keys() - names):
        raise ManifestError(f"{where}: {prefix}{unknown}: unknown key; upgrade edgevl or remove it")
    for missing in sorted(names - later - value.keys()):
        raise ManifestError(f"{where}: {prefix}{missing}: key is missing; export the model again")
    given = sorted(names & value.keys())
    return kind(**{name: _typed(hints[name], value[name], where, f"{prefix}{name}") for name in given})


def _mismatch(kind: Any, value: Any, where: str, key: str) -> ManifestError:
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return ManifestError(f"{where}: {key}: expected {kind}, got {shown}{_AGAIN}")
