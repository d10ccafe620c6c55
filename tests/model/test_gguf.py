"""GGUF headers: what is written is read, and nothing else than a ModelError comes of what is damaged or hostile."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevl.errors import ModelError
from edgevl.model import gguf
from edgevl.model.gguf import Strings, Tensor

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")
NUMBERS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
F32, F16, Q8_0 = 0, 1, 8


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return U64.pack(len(data)) + data


def number(form: str, value: float) -> bytes:
    return U32.pack(NUMBERS[form]) + struct.pack(f"<{form}", value)


def array(form: str, values: list[Any]) -> bytes:
    return U32.pack(9) + U32.pack(NUMBERS[form]) + U64.pack(len(values)) + struct.pack(f"<{len(values)}{form}", *values)


def strings(values: list[str]) -> bytes:
    return U32.pack(9) + U32.pack(8) + U64.pack(len(values)) + b"".join(map(text, values))


def string(value: str) -> bytes:
    return U32.pack(8) + text(value)


def tensor(name: str, dims: list[int], kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + U32.pack(len(dims)) + b"".join(map(U64.pack, dims)) + U32.pack(kind) + U64.pack(offset)


def header(
    pairs: dict[str, bytes],
    tensors: list[bytes] | None = None,
    *,
    version: int = 3,
    n_pairs: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    tensors = tensors or []
    counts = U64.pack(len(tensors) if n_tensors is None else n_tensors)
    counts += U64.pack(len(pairs) if n_pairs is None else n_pairs)
    return b"".join(
        [b"GGUF", U32.pack(version), counts, *(text(key) + value for key, value in pairs.items()), *tensors]
    )


def plain(value: Any) -> Any:
    if isinstance(value, Strings):
        return list(value.texts())
    return value.tolist() if isinstance(value, np.ndarray) else value


def padded(data: bytes, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment)


def written(folder: Path, data: bytes) -> Path:
    (folder / "x.gguf").write_bytes(data)
    return folder / "x.gguf"


GOOD = padded(
    header(
        {
            "general.architecture": string("llama"),
            "general.alignment": number("I", 64),
            "llama.block_count": number("I", 2),
            "llama.rope.freq_base": number("f", 10000.0),
            "tokenizer.ggml.tokens": strings(["a", "é", "", "Ġb"]),
            "tokenizer.ggml.scores": array("f", [0.5, -1.0]),
            "tokenizer.ggml.add_bos_token": number("?", True),
        },
        [tensor("token_embd.weight", [32, 4], Q8_0), tensor("norm.weight", [3], F32, 192)],
    ),
    64,
) + bytes(192 + 12)


class TestRead:
    def test_metadata_and_tensors(self, tmp_path: Path) -> None:
        path = written(tmp_path, GOOD)
        found = gguf.read(path)
        start = len(GOOD) - 204
        assert found.tensors == {
            "token_embd.weight": Tensor("Q8_0", (4, 32), start, 136),
            "norm.weight": Tensor("F32", (3,), start + 192, 12),
        }
        assert found.metadata["tokenizer.ggml.tokens"].texts() == ("a", "é", "", "Ġb")
        assert found.metadata["tokenizer.ggml.scores"].tolist() == [0.5, -1.0]
        assert found.metadata["tokenizer.ggml.add_bos_token"] is True
        assert found.get(str, "general.architecture") == "llama"
        assert found.get(int, "llama.block_count") == 2
        assert found.get(float, "llama.rope.freq_base") == 10000.0
        assert found.get(float, "llama.block_count") == 2.0
        assert found.get(int, "llama.nothing", 7) == 7

    @pytest.mark.parametrize(
        ("kind", "key", "message"),
        [
            (int, "general.architecture", "general.architecture: expected int, got str; download the file again"),
            (int, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_bos_token: expected int, got bool"),
            (str, "general.name", "general.name: expected str, got nothing; download the file again"),
            (Strings, "tokenizer.ggml.scores", "tokenizer.ggml.scores: expected Strings, got ndarray"),
        ],
    )
    def test_what_is_asked_for_must_be_there(self, tmp_path: Path, kind: Any, key: str, message: str) -> None:
        with pytest.raises(ModelError) as caught:
            gguf.read(written(tmp_path, GOOD)).get(kind, key)
        assert str(caught.value).startswith(f"{tmp_path / 'x.gguf'}: {message}")

    def test_version_2_and_what_follows_the_tensors(self, tmp_path: Path) -> None:
        assert gguf.read(written(tmp_path, header({"a": number("B", 1)}, version=2) + b"more")).metadata == {"a": 1}

    values = st.one_of(
        st.text(max_size=20).map(lambda value: (string(value), value)),
        st.integers(0, 2**64 - 1).map(lambda value: (number("Q", value), value)),
        st.integers(-(2**31), 2**31 - 1).map(lambda value: (number("i", value), value)),
        st.floats(width=32, allow_nan=False).map(lambda value: (number("f", value), value)),
        st.booleans().map(lambda value: (number("?", value), value)),
        st.lists(st.text(max_size=8), max_size=5).map(lambda value: (strings(value), value)),
        st.lists(st.integers(-128, 127), max_size=5).map(lambda value: (array("b", value), value)),
        st.lists(st.booleans(), max_size=5).map(lambda value: (array("?", value), value)),
    )
    shapes = st.lists(st.integers(1, 5), max_size=4)

    @given(
        pairs=st.dictionaries(st.text(min_size=1, max_size=30).filter(lambda key: key != "general.alignment"), values),
        tensors=st.dictionaries(st.text(max_size=15), st.tuples(shapes, st.sampled_from([F32, F16]))),
    )
    def test_what_is_written_is_read(self, tmp_path_factory: pytest.TempPathFactory, pairs: Any, tensors: Any) -> None:
        described, wanted, offset = [], {}, 0
        for name, (dims, kind) in tensors.items():
            described.append(tensor(name, dims, kind, offset))
            n_bytes = int(np.prod(dims)) * (4 if kind == F32 else 2)
            wanted[name] = ("F32" if kind == F32 else "F16", tuple(dims[::-1]), offset, n_bytes)
            offset += n_bytes + -n_bytes % 32
        data = padded(header({key: value for key, (value, _) in pairs.items()}, described))
        found = gguf.read(written(tmp_path_factory.mktemp("g"), data + bytes(offset)))
        assert {key: plain(value) for key, value in found.metadata.items()} == {
            k: value for k, (_, value) in pairs.items()
        }
        assert {name: (t.kind, t.shape, t.offset - len(data), t.n_bytes) for name, t in found.tensors.items()} == wanted

    def test_a_vocabulary_as_the_formats_own_package_reads_it(self, shared_dir: Path) -> None:
        package = pytest.importorskip("gguf", reason="gguf is not installed; it comes with the extra export")
        path = shared_dir / "tokenizers" / "gguf" / "ggml-vocab-phi-3.gguf"
        fields = package.GGUFReader(path).fields
        found = gguf.read(path).metadata
        assert found.keys() == {key for key in fields if not key.startswith("GGUF.")}
        for key, value in found.items():
            assert plain(value) == fields[key].contents(), key


HUGE = 2**62
REFUSED = {
    "is not a readable GGUF file (it does not begin with GGUF); download it again": b"PK\x03\x04" + bytes(40),
    "is not a readable GGUF file (its header ends early); download it again": b"GGUF\x03\x00\x00\x00" + bytes(8),
    "is not a readable GGUF file (version 1 is no longer in use); download it again": header({}, version=1),
    "is of GGUF version 4, this edgevl reads 2 and 3; upgrade with: pip install -U edgevl": header({}, version=4),
    "is not a readable GGUF file (it is big-endian); use a little-endian file": header({}, version=3 << 24),
    f"is not a readable GGUF file (metadata: {HUGE} entries do not fit into 64 bytes); download it again": (
        header({}, n_pairs=HUGE) + bytes(40)
    ),
    f"is not a readable GGUF file (tensors: {HUGE} entries do not fit into 64 bytes); download it again": (
        header({}, n_tensors=HUGE) + bytes(40)
    ),
    f"is not a readable GGUF file ('k': {HUGE} entries do not fit into 49 bytes); download it again": header(
        {"k": U32.pack(9) + U32.pack(6) + U64.pack(HUGE)}
    ),
    f"is not a readable GGUF file ('t': {HUGE} entries do not fit into 49 bytes); download it again": header(
        {"t": U32.pack(9) + U32.pack(8) + U64.pack(HUGE)}
    ),
    "is not a readable GGUF file ('t': its 2 texts end behind the file); download it again": header(
        {"t": U32.pack(9) + U32.pack(8) + U64.pack(2) + U64.pack(HUGE) + U64.pack(HUGE)}
    ),
    f"is not a readable GGUF file (a text at byte 45 has {HUGE} bytes); download it again": header(
        {"k": U32.pack(8) + U64.pack(HUGE)}
    ),
    "is not a readable GGUF file (a text at byte 32 has 65536 bytes); download it again": header(
        {"k" * 65536: number("B", 1)}
    ),
    "is not a readable GGUF file ('k' is of type 99); download it again": header({"k": U32.pack(99) + bytes(9)}),
    "is not a readable GGUF file ('k' is of type 9); download it again": header(
        {"k": U32.pack(9) + U32.pack(9) + U64.pack(1) + bytes(20)}
    ),
    "is not a readable GGUF file (metadata key 'k' is empty or comes twice); download it again": (
        header({"k": number("B", 1)}, n_pairs=2) + text("k") + number("B", 1)
    ),
    "is not a readable GGUF file (metadata key '' is empty or comes twice); download it again": header(
        {"": number("I", 1)}
    ),
    "is not a readable GGUF file (general.alignment is 48, which is no power of two); download it again": header(
        {"general.alignment": number("I", 48)}
    ),
    "is not a readable GGUF file (general.alignment is True, which is no power of two); download it again": header(
        {"general.alignment": number("?", True)}
    ),
    "is not a readable GGUF file (tensor 'a' has 5 dimensions); download it again": header({}, [tensor("a", [1] * 5)]),
    "is not a readable GGUF file (tensor 'a' comes twice); download it again": (
        header({}, [tensor("a", [1]), tensor("a", [1], offset=32)]) + bytes(99)
    ),
    "is not a readable GGUF file (tensor 'a' begins at 64 of the data, not at 0); download it again": (
        header({}, [tensor("a", [1], offset=64)]) + bytes(99)
    ),
    "is not a readable GGUF file (tensor 'a': rows of 31 make no blocks of Q8_0); download it again": header(
        {}, [tensor("a", [31], Q8_0)]
    ),
    "tensor 'a' is of type 77, which this edgevl does not know; upgrade with: pip install -U edgevl": header(
        {}, [tensor("a", [32], 77)]
    ),
    f"is cut off or damaged: tensor 'a' alone takes {2**122} bytes, the file has 65; download it again": header(
        {}, [tensor("a", [2**60, 2**60])]
    ),
    "is cut off or damaged: tensor 'a' alone takes 0 bytes, the file has 57; download it again": header(
        {}, [tensor("a", [0])]
    ),
    "is cut off: it has 71 bytes, its header says 72; download it again": (header({}, [tensor("a", [2])]) + bytes(14)),
}


class TestRefusals:
    @pytest.mark.parametrize("message", REFUSED)
    def test_in_one_line_and_without_allocating(self, tmp_path: Path, message: str) -> None:
        path = written(tmp_path, REFUSED[message])
        tracemalloc.start()
        try:
            with pytest.raises(ModelError) as caught:
                gguf.read(path)
            assert tracemalloc.get_traced_memory()[1] < 300_000
        finally:
            tracemalloc.stop()
        assert str(caught.value) == f"{path}: {message}"

    def test_a_file_that_is_not_there_or_empty(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no\.gguf: cannot be read \(No such file"):
            gguf.read(tmp_path / "no.gguf")
        with pytest.raises(ModelError, match=r"x\.gguf: is not a readable GGUF file"):
            gguf.read(written(tmp_path, b""))
        with pytest.raises(ModelError, match="cannot be read"):
            gguf.read(tmp_path)

    def test_every_truncation(self, tmp_path: Path) -> None:
        for n_bytes in range(len(GOOD)):
            with pytest.raises(ModelError):
                gguf.read(written(tmp_path, GOOD[:n_bytes]))

    @settings(max_examples=400)
    @given(data=st.data())
    def test_whatever_bytes_are_changed(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        changed = bytearray(GOOD)
        n = len(GOOD) - 204  # the header
        for at, value in data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 255)), min_size=1)):
            changed[at] = value
        at, form = data.draw(st.integers(0, n - 8)), data.draw(st.sampled_from(["<I", "<Q"]))
        struct.pack_into(form, changed, at, data.draw(st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1])))
        path = written(tmp_path_factory.mktemp("g"), bytes(changed))
        said = ""
        try:
            found = gguf.read(path)
        except ModelError as error:
            said = str(error)
        assert "\n" not in said
        assert said or all(t.offset + t.n_bytes <= len(changed) for t in found.tensors.values())
