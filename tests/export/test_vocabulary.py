"""Tokenizers to GGUF and back: the same ids as llama.cpp's, on published pairs and on whatever text."""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgevl.engine.gguf import library
from edgevl.errors import ExportError
from edgevl.export import vocabulary
from edgevl.model import gguf
from edgevl.model.gguf import GGUF, Strings
from edgevl.model.tokenizer import Tokenizer as EdgevlTokenizer

PIECES = (
    *"abcdefgh XYZ 0123456789 .,!?'\"-()[]{}<>|\n\t éüñç ß中文字日本кириллица\u0301עברית العربية😀🎉½²▁",
    *("ing", "the", "'s", "'LL", "  ", "\n\n", "\r\n", "<s>", "</s>"),
)


def texts(special: list[str], n: int = 150) -> list[str]:
    """Return random texts of letters of many scripts, white space, and special tokens."""
    random = np.random.default_rng(1)
    pool = [*PIECES, *special]
    return ["".join(random.choice(pool, random.integers(1, 30))) for _ in range(n)]


@lru_cache
def rebuilt(path: Path) -> Any:
    return Tokenizer.from_str(vocabulary.rebuild(gguf.read(path)))


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def pairs(shared_dir: Path, name: str) -> list[tuple[str, list[int]]]:
    golden = json.loads((shared_dir / "tokenizers" / "golden" / "pairs.json").read_text(encoding="utf-8"))
    return [(pair["text"], pair["ids"]) for pair in golden[name]]


def written(tokenizer: Path, path: Path) -> Path:
    """Write a GGUF file of nothing but a tokenizer."""
    package = pytest.importorskip("gguf", reason="gguf is not installed; it comes with the extra export")
    writer = package.GGUFWriter(None, "llama")
    vocabulary.add(writer, tokenizer, 160_000)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.close()
    return path


def llama_cpps(path: Path, text: str) -> list[int]:
    """Return the ids that llama.cpp gives, special tokens in the text as such."""
    llama, vocab = opened(path)
    data, ids = text.encode(), (llama.llama_token * 1000)()
    n = llama.llama_tokenize(vocab, data, len(data), ids, 1000, False, True)
    assert n >= 0
    return list(ids[:n])


@lru_cache
def opened(path: Path) -> tuple[Any, Any]:
    """Return llama_cpp, and the vocabulary of a file that it keeps open."""
    llama = library()
    settings = llama.llama_model_default_params()
    settings.vocab_only = True
    return llama, llama.llama_model_get_vocab(llama.llama_model_load_from_file(str(path).encode(), settings))


class TestPublished:
    @pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "phi-3"])
    def test_vocabularies_give_the_golden_ids(self, shared_dir: Path, name: str) -> None:
        found = rebuilt(shared_dir / "tokenizers" / "gguf" / f"ggml-vocab-{name}.gguf")
        golden = pairs(shared_dir, name)
        assert len(golden) > 40
        assert [text for text, ids in golden if ids_of(found, text) != ids] == []

    def test_qwen_2_written_and_rebuilt_gives_the_golden_ids(self, shared_dir: Path, tmp_path: Path) -> None:
        path = written(shared_dir / "tokenizers" / "qwen2.5-vl" / "tokenizer.json", tmp_path / "x.gguf")
        found = rebuilt(path)
        assert [text for text, ids in pairs(shared_dir, "qwen2") if ids_of(found, text) != ids] == []

    @pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "phi-3"])
    def test_any_text_gives_the_ids_that_llama_cpp_gives(self, shared_dir: Path, name: str) -> None:
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra gguf")
        path = shared_dir / "tokenizers" / "gguf" / f"ggml-vocab-{name}.gguf"
        found = rebuilt(path)
        special = [token["content"] for token in json.loads(found.to_str())["added_tokens"]]
        assert [text for text in texts(special) if ids_of(found, text) != llama_cpps(path, text)] == []

    @pytest.mark.parametrize("name", ["smolvlm-256m", "llava-1.5"])
    def test_there_and_back(self, shared_dir: Path, name: str, tmp_path: Path) -> None:
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra gguf")
        tokenizer = shared_dir / "tokenizers" / name / "tokenizer.json"
        path = written(tokenizer, tmp_path / "x.gguf")
        ours, found = Tokenizer.from_file(str(tokenizer)), rebuilt(path)
        special = [token["content"] for token in json.loads(tokenizer.read_text(encoding="utf-8"))["added_tokens"]]
        for text in texts(special):
            assert ids_of(ours, text) == ids_of(found, text) == llama_cpps(path, text), text

    def test_answers_read_the_same(self, shared_dir: Path) -> None:
        for name in ("gpt-2", "llama-spm"):
            found = rebuilt(shared_dir / "tokenizers" / "gguf" / f"ggml-vocab-{name}.gguf")
            for text in ("Hello, world!", "a  b\n c", "naïve 東京 🎉"):
                assert found.decode(ids_of(found, text)) == text


def header(**changes: Any) -> GGUF:
    """Return the header of a byte-level BPE of a few tokens, with changes."""
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": strings("a", "b", "ab", "<x>"),
        "tokenizer.ggml.token_type": np.array([1, 1, 1, 3]),
        "tokenizer.ggml.merges": strings("a b"),
    }
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return GGUF(Path("x.gguf"), {key: value for key, value in metadata.items() if value is not None}, {})


def strings(*values: str) -> Strings:
    return Strings(b"".join(struct.pack("<Q", len(v.encode())) + v.encode() for v in values), len(values))


def saved(text: str, folder: Path) -> Path:
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder / "tokenizer.json"


class TestSmall:
    def test_a_byte_level_one(self) -> None:
        found = Tokenizer.from_str(vocabulary.rebuild(header()))
        assert ids_of(found, "ab<x>ba") == [2, 3, 1, 0]
        assert found.decode([2, 3, 1]) == "abb"

    def test_of_pieces_the_best_score_merges_first(self) -> None:
        pieces = header(
            model="llama",
            pre=None,
            merges=None,
            tokens=strings("<unk>", "<0x0A>", "▁", "a", "b", "ab", "▁a", "<x>"),
            token_type=np.array([2, 6, 1, 1, 1, 1, 1, 3]),
            scores=np.array([0, 0, -9, -9, -9, -2, -1, 0], np.float32),
        )
        found = Tokenizer.from_str(vocabulary.rebuild(pieces))
        assert ids_of(found, "ab") == [6, 4]
        assert ids_of(found, "bab\n<x>a") == [2, 4, 5, 1, 7, 6]
        assert found.decode([6, 4, 1]) == "ab\n"
        pieces.metadata["tokenizer.ggml.add_space_prefix"] = False
        assert ids_of(Tokenizer.from_str(vocabulary.rebuild(pieces)), "ab") == [5]

    def test_what_stands_before_every_text(self, tmp_path: Path) -> None:
        begun = header(bos_token_id=3, add_bos_token=True)
        tokenizer = EdgevlTokenizer(saved(vocabulary.rebuild(begun), tmp_path))
        assert tokenizer.encode_prompt("ab") == [3, 2]
        assert tokenizer.encode_prompt("<x>ab") == [3, 2]
        found = gguf.read(written(tmp_path / "tokenizer.json", tmp_path / "x.gguf")).metadata
        assert found["tokenizer.ggml.add_bos_token"] is True
        for silent in (header(bos_token_id=3), header(bos_token_id=99, add_bos_token=True)):
            tokenizer = EdgevlTokenizer(saved(vocabulary.rebuild(silent), tmp_path))
            assert tokenizer.encode_prompt("ab") == [2]
        found = gguf.read(written(tmp_path / "tokenizer.json", tmp_path / "x.gguf")).metadata
        assert found["tokenizer.ggml.add_bos_token"] is False

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": "bert"}, "tokenizer.ggml.model: is 'bert'; only gpt2 and llama can be imported"),
            ({"pre": "tekken"}, "tokenizer.ggml.pre: is 'tekken'; only gpt-2, "),
            ({"tokens": strings("a", "b", "a", "c")}, "tokenizer.ggml.tokens: are not 4 different tokens; use another"),
            ({"token_type": np.array([1])}, "tokenizer.ggml.tokens: are not 1 different tokens; use another file"),
            ({"merges": strings("a c")}, "tokenizer.ggml.merges: ['a', 'c'] is no pair of tokens; download it again"),
            ({"merges": strings("ab")}, "tokenizer.ggml.merges: ['ab'] is no pair of tokens; download it again"),
            ({"model": "llama", "scores": np.zeros(3)}, "tokenizer.ggml.scores: are 3 for 4 tokens"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ExportError) as caught:
            vocabulary.rebuild(header(**changes))
        assert str(caught.value).startswith(f"x.gguf: {message}")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model": {"type": "Unigram"}}, "is a Unigram tokenizer; a GGUF file can only have BPE"),
            ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer: llama.cpp is not known to cut text this way"),
            ({"normalizer": {"type": "Lowercase"}}, "pre_tokenizer: llama.cpp is not known to cut text this way"),
            (
                {
                    "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "byte_fallback": True},
                    "normalizer": {"type": "NFC"},
                },
                "normalizer: llama.cpp is not known to prepare text this way; got {'type': 'NFC'}",
            ),
        ],
    )
    def test_what_cannot_be_written(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        document = json.loads(vocabulary.rebuild(header())) | change
        (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(ExportError) as caught:
            written(tmp_path / "tokenizer.json", tmp_path / "x.gguf")
        assert str(caught.value).startswith(f"{tmp_path / 'tokenizer.json'}: {message}")
