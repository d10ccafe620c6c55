from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from edgevl.errors import ModelError
from edgevl.model.tokenizer import Tokenizer


def byte_level(path: Path) -> Path:
    """Write a tokenizer of bytes with two merges and the special token <end>."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate([*pieces, "th", "the"])}
    backend = Backend(models.BPE(vocab=vocab, merges=[("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    backend.save(str(path))
    return path


def byte_fallback(path: Path) -> Path:
    """Write a tokenizer in the way of SentencePiece: words, and bytes as <0x..> tokens."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁hi": 256, "▁": 257, "<unk>": 258}
    backend = Backend(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(byte_level(tmp_path_factory.mktemp("bytes") / "tokenizer.json"))


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(byte_fallback(tmp_path_factory.mktemp("fallback") / "tokenizer.json"))


def streamed(tokenizer: Tokenizer, token_ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*map(stream.step, token_ids), stream.flush()]


def test_size_counts_added_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.n_tokens == 256 + 2 + 1


def test_ids_and_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the hut<end>")
    assert ids == [257, 220, 71, 84, 83, 258]
    assert tokenizer.decode(ids) == "the hut"


def test_no_token_is_added(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []


def test_what_begins_every_prompt_stands_there_once(tmp_path: Path) -> None:
    path = byte_level(tmp_path / "tokenizer.json")
    backend = Backend.from_file(str(path))
    backend.post_processor = processors.TemplateProcessing(single="<end> $A <end>", special_tokens=[("<end>", 258)])
    backend.save(str(path))
    tokenizer = Tokenizer(path)
    assert tokenizer.encode_prompt("the") == tokenizer.encode_prompt("<end>the") == [258, 257]
    assert tokenizer.encode_prompt("") == [258]
    assert tokenizer.encode("the") == [257]


@given(text=st.text(max_size=20))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(ids=st.lists(st.integers(0, 258), max_size=12))
def test_a_stream_gives_the_same_text_in_pieces(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a€b")
    assert len(ids) == 5
    assert streamed(tokenizer, ids) == ["a", "", "", "€", "b", ""]


def test_an_unfinished_character_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a€")[:-1]
    assert streamed(tokenizer, ids) == ["a", "", "", "\ufffd"]


def test_special_tokens_are_not_text(tokenizer: Tokenizer) -> None:
    assert "".join(streamed(tokenizer, tokenizer.encode("the<end>hut"))) == "thehut"


def test_a_stream_of_words_keeps_their_spaces(fallback: Tokenizer) -> None:
    assert "".join(streamed(fallback, [256, 256, 256])) == "hi hi hi"


@given(ids=st.lists(st.integers(0, 258), max_size=12))
def test_a_stream_takes_bytes_that_are_no_text(fallback: Tokenizer, ids: list[int]) -> None:
    pieces = streamed(fallback, ids)
    assert len(pieces) == len(ids) + 1


def test_the_space_of_a_word_behind_bytes_that_are_no_text_stays(fallback: Tokenizer) -> None:
    emoji = list("😀".encode())
    ids = [256, 257, *emoji, 0xF0, 256, 256]
    assert fallback.decode(ids).endswith(" hi hi")
    assert "".join(streamed(fallback, ids)).endswith(" hi hi")


def test_bytes_that_are_no_text_do_not_swallow_what_follows(fallback: Tokenizer) -> None:
    tilde = ord("~")
    text = "".join(streamed(fallback, [tilde, 0x81, 0xDD, 0x1A, 256, tilde]))
    assert text.startswith("~")
    assert text.endswith("hi~")
    assert "\ufffd" in text


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"version": "1.0"}', "[1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        Tokenizer(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: is not a readable tokenizer (")
    assert message.endswith("); export the model again")
    assert "\n" not in message


def changed(path: Path, **parts: Any) -> Path:
    """Write a tokenizer of bytes with other `parts`."""
    raw = json.loads(byte_level(path).read_text(encoding="utf-8")) | parts
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


WORD: dict[str, Any] = {"pre_tokenizer": None, "decoder": None, "added_tokens": []}
NO_SUCH_TOKEN = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "Q", "type_id": 0}}], "pair": []}


@pytest.mark.parametrize(
    "parts",
    [
        {**WORD, "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "[UNK]"}},
        {
            **WORD,
            "model": {
                "type": "WordPiece",
                "vocab": {"x": 0},
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
            },
        },
        {**WORD, "model": {"type": "Unigram", "vocab": [["x", 0.0]], "unk_id": None}},
        {"post_processor": {**NO_SUCH_TOKEN, "special_tokens": {}}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Prepend", "prepend": ""}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
        {"decoder": {"type": "Strip", "content": "a", "start": 1000, "stop": 1000}},
    ],
)
def test_a_tokenizer_that_fails_when_it_is_used_is_named(tmp_path: Path, parts: dict[str, Any]) -> None:
    path = changed(tmp_path / "tokenizer.json", **parts)

    def use() -> None:
        tokenizer = Tokenizer(path)
        streamed(tokenizer, tokenizer.encode_prompt("aa"))

    with pytest.raises(ModelError) as caught:
        use()
    message = str(caught.value)
    assert message.startswith(f"{path}: is not a ")
    assert message.endswith("); export the model again")
    assert "\n" not in message


@pytest.mark.parametrize(
    "parts",
    [
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": stride}}
        for stride in (0, 5)
    ]
    + [
        {
            "padding": {
                "strategy": {"Fixed": 7},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            }
        }
    ],
)
def test_a_prompt_is_neither_cut_nor_filled_up(tmp_path: Path, parts: dict[str, Any]) -> None:
    tokenizer = Tokenizer(changed(tmp_path / "tokenizer.json", **parts))
    assert tokenizer.encode_prompt("the hut<end>") == [257, 220, 71, 84, 83, 258]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a readable tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["smolvlm-256m", "llava-1.5", "phi-3", "qwen2.5-vl"])
def test_real_tokenizers_stream_real_text(shared_dir: Path, name: str) -> None:
    text = "Two cats, 北京 and a café: €5 — naïve 👩‍🚀!\n\nDone."
    tokenizer = Tokenizer(shared_dir / "tokenizers" / name / "tokenizer.json")
    ids = tokenizer.encode(text)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)
    assert tokenizer.decode(ids).strip() == text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are UTF-8")
def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "na\udcffme"
    folder.mkdir()
    assert Tokenizer(byte_level(tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")).encode("the") == [257]
