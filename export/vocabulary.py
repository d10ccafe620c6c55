"""A tokenizer as GGUF metadata, and back: tokenizer.json on one side, `tokenizer.ggml.*` on the other.

llama.cpp names the way in which text is cut before BPE instead of describing it; the names and what they stand for are
a table here. Sources, for the facts: llama.cpp's src/llama-vocab.cpp and gguf-py's SpecialVocab, as of llama-cpp-python
0.3.36; for SentencePiece, transformers 5.23, convert_slow_tokenizer.py, `generate_merges`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from edgevl.errors import ExportError
from edgevl.model.gguf import GGUF, Strings

Step = dict[str, Any]

SPACE = "▁"
"""How SentencePiece writes a space."""
MAX_PIECE = 256
"""No SentencePiece token that merges make is longer (characters)."""
NEVER_MERGED = -10_000.0
"""The score of a token that no merge makes; those of others are their rank, negative."""


_NO_STRIP = ("<unk>", "<s>", "<|endoftext|>")
"""The special tokens of Phi-3 behind which white space stays; GGUF cannot say that, llama.cpp goes by the name."""


class TokenType(IntEnum):
    """What a token of a GGUF file is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Split:
    """How text is cut before BPE: llama.cpp's names for it, the first of which is written, and tokenizer.json's steps.

    `whole_words` are taken from the vocabulary without merging.
    """

    names: tuple[str, ...]
    steps: tuple[Step, ...]
    whole_words: bool = False


def _cut(pattern: str) -> Step:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_BYTES: Step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_GPT2_BYTES: Step = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

SPLITS = (
    Split(("gpt-2", "phi-2", "mpt", "olmo", "modern-bert", "granite-docling"), (_GPT2_BYTES,)),
    Split(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        ({"type": "Digits", "individual_digits": True}, _GPT2_BYTES),
    ),
    Split(
        ("qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"),
        (_cut(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"), _BYTES),
    ),
    Split(
        ("qwen35",),
        (
            _cut(
                rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
                r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            _BYTES,
        ),
    ),
    Split(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2", "pixtral"),
        (_cut(rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"), _BYTES),
        whole_words=True,
    ),
)


def add(writer: Any, path: Path, vocab_size: int) -> dict[str, Any]:
    """Add the tokenizer.json at `path` to a GGUFWriter: tokens by id with their types, and merges or scores.

    Returns the parsed file. Raises ExportError for a tokenizer that llama.cpp does not have.
    """
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = document["model"]
    if model["type"] != "BPE":
        raise ExportError(f"{path}: is a {model['type']} tokenizer; a GGUF file can only have BPE")
    tokens, types = tokens_of(document, vocab_size)
    merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_begins_with_space(document, path))
        writer.add_token_scores(_scores(tokens, merges))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(split_of(document, path).names[0])
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_add_bos_token(bool(_begin_of(document)))
    return document


def tokens_of(document: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Return every id's token and its type; ids without a token, which pad the vocabulary, are unused ones."""
    model = document["model"]
    tokens = [f"[unused{token_id}]" for token_id in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    for token, token_id in model["vocab"].items():
        is_byte = model.get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
        tokens[token_id], types[token_id] = token, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in document["added_tokens"]:
        token_id = added["id"]
        tokens[token_id] = added["content"]
        types[token_id] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    if model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = int(TokenType.UNKNOWN)
    return tokens, types


def split_of(document: dict[str, Any], path: Path) -> Split:
    """Return the way in which a byte-level tokenizer cuts text; raise ExportError for one without a name."""
    outer = document.get("pre_tokenizer") or {}
    steps = [_essence(step) for step in outer.get("pretokenizers", [outer])]
    for split in SPLITS:
        if steps == [_essence(step) for step in split.steps] and _normalizes_nothing(document):
            return split
    raise ExportError(f"{path}: pre_tokenizer: llama.cpp is not known to cut text this way; got {outer}")


def rebuild(header: GGUF) -> str:
    """Return the text of the tokenizer.json that gives the ids that llama.cpp gives, special tokens written as text.

    Raises ExportError for a tokenizer of another kind.
    """
    kind = header.get(str, "tokenizer.ggml.model")
    tokens = header.get(Strings, "tokenizer.ggml.tokens").texts()
    types = header.get(np.ndarray, "tokenizer.ggml.token_type", np.full(len(tokens), TokenType.NORMAL)).tolist()
    if len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise ExportError(
            f"{header.path}: tokenizer.ggml.tokens: are not {len(types)} different tokens; use another file"
        )
    if kind == "gpt2":
        parts = _bytes_parts(header, tokens)
    elif kind == "llama":
        parts = _pieces_parts(header, tokens, types)
    else:
        raise ExportError(f"{header.path}: tokenizer.ggml.model: is {kind!r}; only gpt2 and llama can be imported")
    strips = "phi-3" in (name := header.get(str, "general.name", "").lower()) or "phi3" in name
    added = [
        _added(token_id, token, kind, rstrip=strips and token not in _NO_STRIP)
        for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
    ]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [token for token in added if token],
        "post_processor": _begin_with(first_token(header, tokens)),
        **parts,
    }
    return json.dumps(document, ensure_ascii=False)


def first_token(header: GGUF, tokens: Sequence[str]) -> tuple[str, int] | None:
    """Return the token that llama.cpp puts before every text, and its id."""
    adds = header.get(bool, "tokenizer.ggml.add_bos_token", header.get(str, "tokenizer.ggml.model") == "llama")
    token_id = header.get(int, "tokenizer.ggml.bos_token_id", -1)
    return (tokens[token_id], token_id) if adds and 0 <= token_id < len(tokens) else None


def with_token(text: str, token: str) -> tuple[str, int]:
    """Return a tokenizer.json's text that knows the special token `token`, and its id.

    Where it has to be added, its id lies behind the decoder's vocabulary: it only keeps places in a prompt.
    """
    document = json.loads(text)
    vocab = document["model"]["vocab"]
    listed = next((added for added in document["added_tokens"] if added["content"] == token), None)
    if listed is not None:
        return text, int(listed["id"])
    token_id = vocab.setdefault(token, len(vocab))
    document["added_tokens"].append(_added(token_id, token, TokenType.CONTROL, rstrip=False))
    return json.dumps(document, ensure_ascii=False), int(token_id)


def _bytes_parts(header: GGUF, tokens: Sequence[str]) -> dict[str, Any]:
    """Return the parts of a byte-level BPE."""
    name = header.get(str, "tokenizer.ggml.pre", "default")
    split = next((split for split in SPLITS if name in split.names), None)
    if split is None:
        known = ", ".join(name for split in SPLITS for name in split.names)
        raise ExportError(f"{header.path}: tokenizer.ggml.pre: is {name!r}; only {known} can be imported")
    merges = [merge.split(" ", 1) for merge in header.get(Strings, "tokenizer.ggml.merges").texts()]
    known_tokens = set(tokens)
    for pair in merges:
        if len(pair) != 2 or not {*pair, "".join(pair)} <= known_tokens:
            raise ExportError(f"{header.path}: tokenizer.ggml.merges: {pair} is no pair of tokens; download it again")
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_complete(step) for step in split.steps]},
        "decoder": _complete(_GPT2_BYTES),
        "model": _model(tokens, merges, ignore_merges=split.whole_words),
    }


def _pieces_parts(header: GGUF, tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    """Return the parts of a SentencePiece BPE, whose merges follow from the scores of what they make."""
    scores = header.get(np.ndarray, "tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise ExportError(f"{header.path}: tokenizer.ggml.scores: are {len(scores)} for {len(tokens)} tokens")
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.UNKNOWN), None)
    begins = header.get(bool, "tokenizer.ggml.add_space_prefix", True)
    normalizers: list[Step] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    decoders: list[Step] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if begins:
        normalizers.insert(0, {"type": "Prepend", "prepend": SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    merges = list(_merges(tokens, types, scores.tolist()))
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _model(tokens, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown),
    }


def _merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> Iterable[list[str]]:
    """Yield every pair of tokens that makes a token, the best score of what it makes first."""
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    for made in sorted(range(len(tokens)), key=lambda token_id: (-scores[token_id], token_id)):
        if types[made] not in (TokenType.NORMAL, TokenType.USER_DEFINED) or len(tokens[made]) > MAX_PIECE:
            continue
        token = tokens[made]
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        yield from sorted(
            ([left, right] for left, right in pairs if left in ids and right in ids),
            key=lambda pair: (ids[pair[0]], ids[pair[1]]),
        )


def _scores(tokens: Sequence[str], merges: Sequence[Sequence[str]]) -> list[float]:
    """Return each token's score, by which llama.cpp merges: the rank of the first merge that makes it, negative."""
    ranks: dict[str, int] = {}
    for pair in merges:
        ranks.setdefault("".join(pair), len(ranks))
    return [-float(ranks[token]) if token in ranks else NEVER_MERGED for token in tokens]


def _model(tokens: Sequence[str], merges: Sequence[Sequence[str]], **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": {token: token_id for token_id, token in enumerate(tokens)},
        "merges": merges,
    }


def _added(token_id: int, token: str, kind: int, *, rstrip: bool) -> dict[str, Any] | None:
    """Return the entry of a token that is found in text as a whole; `rstrip` takes the white space behind it, too."""
    if kind not in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED) or not token:
        return None
    return {
        "id": token_id,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": rstrip,
        "normalized": False,
        "special": kind != TokenType.USER_DEFINED,
    }


def _begin_with(first: tuple[str, int] | None) -> Step | None:
    """Return the step that puts a token before every text."""
    if first is None:
        return None
    token, token_id = first
    single = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _begin_of(document: dict[str, Any]) -> list[str]:
    """Return the tokens that a tokenizer.json puts before every text."""
    step = document.get("post_processor") or {}
    parts = [part.get("SpecialToken") for part in step.get("single", [])]
    return [part["id"] for part in parts[: parts.index(None)]] if None in parts else []


def _begins_with_space(document: dict[str, Any], path: Path) -> bool:
    """Return whether a SentencePiece tokenizer puts a space before a text; raise ExportError if it does more."""
    normalizer = document.get("normalizer") or {}
    steps = [_essence(step) for step in normalizer.get("normalizers", [normalizer])]
    replace, prepend = (
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        {"type": "Prepend", "prepend": SPACE},
    )
    if document.get("pre_tokenizer") is None and steps in ([replace], [prepend, replace]):
        return len(steps) > 1
    raise ExportError(f"{path}: normalizer: llama.cpp is not known to prepare text this way; got {normalizer}")


def _normalizes_nothing(document: dict[str, Any]) -> bool:
    """Return whether text is taken as it comes; composing characters is left out by llama.cpp's own converter, too."""
    return document.get("normalizer") in (None, {"type": "NFC"})


def _essence(step: Step) -> Step:
    """Return what a step does, without what only concerns the places of tokens in the text."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


def _complete(step: Step) -> Step:
    return {**step, "trim_offsets": True} if step["type"] == "ByteLevel" else step
