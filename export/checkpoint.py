"""Read a Hugging Face checkpoint folder: what the model folder will need, and everything that can be wrong with it.

Only JSON, the tokenizer and the names of the weight files are read here; nothing in the folder is executed and
no weights are loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgevl.errors import ExportError, UnsupportedFamily
from edgevl.model.families import FAMILIES
from edgevl.model.manifest import MEAN, STD, Between, ImageSpec, sha256

from .families import ROWS, ExportFamily
from .settings import DOWNLOAD_AGAIN, optional_json, positive, read_json, section

Resample = Literal["lanczos", "bicubic", "bilinear", "nearest"]
RESAMPLES: dict[Any, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's resampling numbers, as preprocessor_config.json writes them."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be exported.

    `weights` are its safetensors files; `bos_token` and `eos_token` are for the chat template (may be empty);
    `eos_token_ids` end an answer; `context_length` is in tokens.
    """

    folder: Path
    row: ExportFamily
    config: dict[str, Any]
    weights: tuple[Path, ...]
    image: ImageSpec
    chat_template: str
    bos_token: str
    eos_token: str
    eos_token_ids: tuple[int, ...]
    image_token_id: int
    context_length: int
    licence: str

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def n_parameters(self) -> int:
        """Number of weights in all files."""
        return sum(_n_parameters(path) for path in self.weights)

    def weights_sha256(self) -> str:
        """SHA-256 of the weight file, or of the list of hashes (in order of name) where there are several."""
        hashes = [sha256(path) for path in self.weights]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def read(folder: Path) -> Checkpoint:
    """Read and check the checkpoint in `folder`.

    Raises ExportError, naming the file and the remedy, for a folder that is not a complete safetensors
    checkpoint, and UnsupportedFamily for a model type that has no row in the export's table.
    """
    return replace(read_settings(folder), weights=_weights(folder))


def check_folder(folder: Path) -> None:
    """Raise ExportError where there is no such folder."""
    if not folder.is_dir():
        raise ExportError(f"{folder}: no such folder; give the folder of a downloaded checkpoint")


def read_settings(folder: Path) -> Checkpoint:
    """Read and check all but the weights of the checkpoint in `folder`, like `read`; it lists no weight files."""
    check_folder(folder)
    config = read_json(folder / "config.json")
    row = _row(config, folder)
    text = section(config, "text_config", folder / "config.json")
    tokens = _tokens(folder)
    _check_vocabulary(tokens, text, folder)
    tokenizer_config = optional_json(folder / "tokenizer_config.json")
    eos_token = _token_text(tokenizer_config.get("eos_token"))
    return Checkpoint(
        folder=folder,
        row=row,
        config=config,
        weights=(),
        image=_image(folder, config, row),
        chat_template=_chat_template(folder, tokenizer_config),
        bos_token=_token_text(tokenizer_config.get("bos_token")),
        eos_token=eos_token,
        eos_token_ids=_eos_token_ids(folder, text, tokens, (eos_token, *row.end_tokens)),
        image_token_id=_image_token_id(config, tokens, row, folder),
        context_length=positive(text, "max_position_embeddings", folder / "config.json"),
        licence=_licence(folder),
    )


def _row(config: Mapping[str, Any], folder: Path) -> ExportFamily:
    model_type = config.get("model_type")
    path, known = folder / "config.json", ", ".join(sorted(ROWS))
    if isinstance(model_type, str) and model_type in ROWS:
        _check_encoder(config, ROWS[model_type], path)
        return ROWS[model_type]
    if "auto_map" in config:
        raise ExportError(
            f"{path}: auto_map: model type {model_type!r} needs Python code from the checkpoint, which is never run; "
            f"use a checkpoint of a native type ({known})"
        )
    raise UnsupportedFamily(f"{path}: model_type: {model_type!r} cannot be exported; this version knows {known}")


def _check_encoder(config: Mapping[str, Any], row: ExportFamily, path: Path) -> None:
    found = section(config, "vision_config", path).get("model_type", row.encoder)
    if row.encoder not in (None, found):
        raise UnsupportedFamily(
            f"{path}: vision_config.model_type: {found!r} cannot be exported; of {config['model_type']} this version "
            f"knows {row.encoder}"
        )


def _weights(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if index.is_file():
        names = section(read_json(index), "weight_map", index).values()
        for name in names:
            if not isinstance(name, str):
                raise ExportError(f"{index}: weight_map: expected names of files, got {name!r}; {DOWNLOAD_AGAIN}")
        paths = tuple(folder / name for name in sorted(set(names)))
        for path in paths:
            if path.parent != folder or path.suffix != ".safetensors":
                raise ExportError(f"{index}: names {path.name!r}, which is no safetensors file of this folder")
            if not path.is_file():
                raise ExportError(f"{path}: is missing, but {index.name} names it; {DOWNLOAD_AGAIN}")
        return paths
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ExportError(
            f"{folder}: holds {pickles[0]} but no safetensors; such files can run code when loaded, so they are not "
            "read. Load it where you trust it, with transformers, and save it with save_pretrained(folder)"
        )
    raise ExportError(f"{single}: is missing; {DOWNLOAD_AGAIN}")


def _n_parameters(path: Path) -> int:
    """Count a safetensors file's weights; raise ExportError if it is not whole.

    The file begins with the length of a JSON header (8 bytes, little endian), which gives each tensor's shape and its
    place behind the header. Source: https://huggingface.co/docs/safetensors, "Format".
    """
    n_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if not 2 <= n_header <= min(n_bytes - 8, MAX_HEADER_BYTES):
                raise ValueError("no header")
            header = json.loads(file.read(n_header))
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        end = 8 + n_header + max(tensor["data_offsets"][1] for tensor in tensors)
        n_parameters = int(sum(math.prod(tensor["shape"]) for tensor in tensors))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise ExportError(f"{path}: is not a safetensors file; {DOWNLOAD_AGAIN}") from error
    if end != n_bytes:
        raise ExportError(f"{path}: has {n_bytes} bytes, its header says {end}; {DOWNLOAD_AGAIN}")
    return n_parameters


def _tokens(folder: Path) -> dict[str, int]:
    """Return the vocabulary, special tokens included."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ExportError(
            f"{path}: is missing; make it with transformers: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        return Tokenizer.from_buffer(path.read_bytes()).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises bare Exception for every malformed file
        raise ExportError(f"{path}: is not a tokenizer ({error}); {DOWNLOAD_AGAIN}") from error


def _check_vocabulary(tokens: Mapping[str, int], text: Mapping[str, Any], folder: Path) -> None:
    size = positive(text, "vocab_size", folder / "config.json")
    token, token_id = max(tokens.items(), key=lambda item: item[1], default=("", -1))
    if token_id >= size:
        raise ExportError(
            f"{folder / 'tokenizer.json'}: token {token!r} has the id {token_id}, but config.json gives the model "
            f"{size} tokens (text_config.vocab_size); the two files are not of one checkpoint"
        )


def _image_token_id(config: Mapping[str, Any], tokens: Mapping[str, int], row: ExportFamily, folder: Path) -> int:
    token = FAMILIES[row.family].image_token
    if token not in tokens:
        raise ExportError(f"{folder / 'tokenizer.json'}: has no token {token!r}, which stands for image features")
    for key in ("image_token_id", "image_token_index"):  # the second is the older name
        if config.get(key, tokens[token]) != tokens[token]:
            raise ExportError(
                f"{folder / 'config.json'}: {key}: is {config[key]!r}, but tokenizer.json gives {token!r} "
                f"the id {tokens[token]}; the two files are not of one checkpoint"
            )
    return tokens[token]


def _token_text(value: Any) -> str:
    """Return a special token's text; configs write it plain or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _eos_token_ids(
    folder: Path, text: Mapping[str, Any], tokens: Mapping[str, int], ends: tuple[str, ...]
) -> tuple[int, ...]:
    """Every id that ends an answer: the generation config's (else the text config's) and the given tokens'."""
    generation = optional_json(folder / "generation_config.json")
    named = generation.get("eos_token_id", text.get("eos_token_id"))
    listed = named if isinstance(named, list) else [named]
    ids = {token_id for token_id in listed if isinstance(token_id, int)}
    ids |= {tokens[token] for token in ends if token in tokens}
    if not ids:
        raise ExportError(
            f"{folder / 'generation_config.json'}: eos_token_id: names no token that ends an answer; {DOWNLOAD_AGAIN}"
        )
    return tuple(sorted(ids))


def _chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    """Return the template by the reference's order: processor, .json, .jinja, tokenizer.

    Source: `ProcessorMixin.get_processor_dict` of transformers 5.
    """
    for path in (folder / "processor_config.json", folder / "chat_template.json"):
        template = optional_json(path).get("chat_template")
        if isinstance(template, str):
            return template
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"{jinja}: cannot be read ({error}); {DOWNLOAD_AGAIN}") from error
    template = tokenizer_config.get("chat_template")
    if isinstance(template, str):
        return template
    raise ExportError(
        f"{jinja}: is missing, and neither chat_template.json, processor_config.json nor tokenizer_config.json "
        "holds a chat template; add the template of the instruction-tuned checkpoint"
    )


def _image(folder: Path, config: Mapping[str, Any], row: ExportFamily) -> ImageSpec:
    """Read how images become pixel values, from the file that the reference prefers.

    Source: `ImageProcessingMixin.get_image_processor_dict` of transformers 5.
    """
    path = folder / "processor_config.json"
    settings = optional_json(path).get("image_processor") or {}
    if not settings:
        path = folder / "preprocessor_config.json"
        settings = optional_json(path)
    if not settings:
        raise ExportError(f"{folder / 'preprocessor_config.json'}: is missing; {DOWNLOAD_AGAIN}")
    _check_pixels(settings, path)
    tile, longest_edge = row.sizes(settings, path)
    resample = settings.get("resample")
    if not isinstance(resample, int) or resample not in RESAMPLES:
        raise ExportError(f"{path}: resample: expected one of {sorted(RESAMPLES)}, got {resample!r}")
    return ImageSpec(
        tile=tile,
        longest_edge=longest_edge,
        tokens_per_tile=row.tokens_per_tile(config, tile),
        mean=_per_channel(settings, "image_mean", MEAN, path),
        std=_per_channel(settings, "image_std", STD, path),
        resample=RESAMPLES[resample],
    )


def _check_pixels(settings: Mapping[str, Any], path: Path) -> None:
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if settings.get(key, True) is not True:
            raise ExportError(f"{path}: {key}: is {settings[key]!r}; only checkpoints that do it can be exported")
    factor = settings.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-6:
        raise ExportError(f"{path}: rescale_factor: expected 1/255, got {factor!r}")


def _per_channel(settings: Mapping[str, Any], key: str, allowed: Between, path: Path) -> tuple[float, ...]:
    value = settings.get(key)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, (int, float)) for v in value):
        raise ExportError(f"{path}: {key}: expected three numbers, got {value!r}")
    if any(v not in allowed for v in value):
        raise ExportError(f"{path}: {key}: expected three numbers from {allowed}, got {value!r}")
    return tuple(float(v) for v in value)


def _licence(folder: Path) -> str:
    """Return the licence that the checkpoint's README states in its front matter, else "unknown"."""
    readme = folder / "README.md"
    if not readme.is_file():
        return "unknown"
    lines = readme.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return "unknown"
    for line in lines[1:]:
        key, _, value = line.partition(":")
        if line.strip() == "---":
            break
        if key.strip() in ("license", "licence") and value.strip():
            return value.strip().strip("'\"")
    return "unknown"
