"""The header of a GGUF file, read strictly before anything else opens the file: metadata, and where each tensor is.

Every count, length and offset is checked against the length of the file before anything is allocated for it, so that
a hostile header costs no more than the file's own size. Tensor data is not touched here.
Source, for the format: ggml's docs/gguf.md, and ggml/src/gguf.cpp as of llama.cpp 0.3.36 of llama-cpp-python.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import ModelError

T = TypeVar("T")

VERSIONS = (2, 3)
"""Version 2 and 3 are laid out alike; 3 allowed big-endian files, which are not read."""
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 63
MAX_DIMS = 4

BLOCKS = {
    # ggml's number of a tensor type: its name, how many weights make a block, and a block's bytes
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MIN_PAIR_BYTES = 8 + 4 + 1  # length of the key, type, the smallest value
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # length of the name, number of dimensions, type, offset


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is: its type's name, its shape in numpy's order, and its bytes from the file's beginning."""

    kind: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Strings:
    """An array of `n` texts, each behind its length in 8 bytes; decoded when asked for, since few readers ask."""

    data: bytes
    n: int

    def __len__(self) -> int:
        return self.n

    def texts(self) -> tuple[str, ...]:
        """Return the texts; what is not UTF-8 becomes U+FFFD."""
        data, at, found = self.data, 0, []
        for _ in range(self.n):
            start = at + 8
            at = start + _U64.unpack_from(data, at)[0]
            found.append(data[start:at].decode("utf-8", "replace"))
        return tuple(found)


@dataclass(frozen=True)
class GGUF:
    """A file's header. Arrays in `metadata` are numpy arrays, or `Strings`."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def get(self, kind: type[T], key: str, default: T | None = None) -> T:
        """Return the metadata under `key`, which must be a `kind`; without it `default`, else raise ModelError."""
        value = self.metadata.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = "nothing" if value is None else type(value).__name__
            raise ModelError(f"{self.path}: {key}: expected {kind.__name__}, got {found}; download the file again")
        return value


def read(path: Path) -> GGUF:
    """Read the header of the GGUF file at `path`.

    Raises ModelError for a file that is missing, no GGUF file, of another version, cut off, or whose header contradicts
    itself or the file's length.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(path, data).read()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except ValueError as error:  # what mmap says of an empty file
        raise ModelError(f"{path}: is not a readable GGUF file ({error}); download it again") from error


class _Header:
    """A reader over the file's bytes; `_at` is where the next value begins."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._at, self._end = 0, len(data)

    def read(self) -> GGUF:
        """Read the whole header."""
        if self._data[:4] != b"GGUF":
            self._refuse("it does not begin with GGUF")
        self._at = 4
        self._check_version(self._u32())
        n_tensors, n_pairs = self._u64(), self._u64()
        self._check_room("metadata", n_pairs, _MIN_PAIR_BYTES)
        metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = self._string(MAX_KEY_BYTES)
            if not key or key in metadata:
                self._refuse(f"metadata key {key[:80]!r} is empty or comes twice")
            metadata[key] = self._value(key)
        self._check_room("tensors", n_tensors, _MIN_TENSOR_BYTES)
        return GGUF(self._path, metadata, self._tensors(n_tensors, self._alignment(metadata)))

    def _check_version(self, version: int) -> None:
        if version and not version & 0xFFFF:
            self._refuse("it is big-endian", "use a little-endian file")
        if version > max(VERSIONS):
            raise ModelError(
                f"{self._path}: is of GGUF version {version}, this edgevl reads {VERSIONS[0]} and {VERSIONS[1]}; "
                "upgrade with: pip install -U edgevl"
            )
        if version not in VERSIONS:
            self._refuse(f"version {version} is no longer in use")

    def _alignment(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            self._refuse(f"general.alignment is {alignment!r}, which is no power of two")
        return alignment

    def _tensors(self, n_tensors: int, alignment: int) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        expected = 0  # tensors lie one behind the other, each at the next multiple of the alignment
        for _ in range(n_tensors):
            name = self._string(MAX_NAME_BYTES)
            if name in tensors:
                self._refuse(f"tensor {name!r} comes twice")
            tensor = self._tensor(name)
            if tensor.offset != expected:
                self._refuse(f"tensor {name!r} begins at {tensor.offset} of the data, not at {expected}")
            tensors[name] = tensor
            expected += _padded(tensor.n_bytes, alignment)
        start = _padded(self._at, alignment)
        end = start + max((tensor.offset + tensor.n_bytes for tensor in tensors.values()), default=0)
        if tensors and end > self._end:
            raise ModelError(
                f"{self._path}: is cut off: it has {self._end} bytes, its header says {end}; download it again"
            )
        return {name: Tensor(t.kind, t.shape, start + t.offset, t.n_bytes) for name, t in tensors.items()}

    def _tensor(self, name: str) -> Tensor:
        n_dims = self._u32()
        if n_dims > MAX_DIMS:
            self._refuse(f"tensor {name!r} has {n_dims} dimensions")
        dims = [self._u64() for _ in range(n_dims)]
        number, offset = self._u32(), self._u64()
        if number not in BLOCKS:
            raise ModelError(
                f"{self._path}: tensor {name!r} is of type {number}, which this edgevl does not know; "
                "upgrade with: pip install -U edgevl"
            )
        kind, n_block, block_bytes = BLOCKS[number]
        if dims and dims[0] % n_block:
            self._refuse(f"tensor {name!r}: rows of {dims[0]} make no blocks of {kind}")
        n_bytes = math.prod(dims) // n_block * block_bytes
        if min(dims, default=1) < 1 or n_bytes > self._end:
            raise ModelError(
                f"{self._path}: is cut off or damaged: tensor {name!r} alone takes {n_bytes} bytes, "
                f"the file has {self._end}; download it again"
            )
        return Tensor(kind, tuple(reversed(dims)), offset, n_bytes)

    def _value(self, key: str) -> Any:
        kind = self._u32()
        if kind == _STRING:
            return self._string(self._end)
        if kind != _ARRAY:
            return self._numbers(key, kind, 1)[0].item()
        kind, n = self._u32(), self._u64()
        return self._strings(key, n) if kind == _STRING else self._numbers(key, kind, n)

    def _numbers(self, key: str, kind: int, n: int) -> NDArray[Any]:
        if kind not in _SCALARS:
            self._refuse(f"{key[:80]!r} is of type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        self._check_room(f"{key[:80]!r}", n, dtype.itemsize)
        values = np.frombuffer(self._data[self._at : self._at + n * dtype.itemsize], dtype)
        self._at += n * dtype.itemsize
        return values != 0 if kind == _BOOL else values

    def _strings(self, key: str, n: int) -> Strings:
        self._check_room(f"{key[:80]!r}", n, _U64.size)
        start = at = self._at
        unpack, data = _U64.unpack_from, self._data
        try:
            for _ in range(n):  # the tokens of a vocabulary: nothing but a walk over their lengths
                at += 8 + unpack(data, at)[0]
        except (struct.error, OverflowError):
            at = self._end + 1
        if at > self._end:
            self._refuse(f"{key[:80]!r}: its {n} texts end behind the file")
        self._at = at
        return Strings(data[start:at], n)

    def _string(self, max_bytes: int) -> str:
        length = self._u64()
        if length > min(max_bytes, self._end - self._at):
            self._refuse(f"a text at byte {self._at} has {length} bytes")
        start, self._at = self._at, self._at + length
        return self._data[start : self._at].decode("utf-8", "replace")

    def _u32(self) -> int:
        return self._number(_U32)

    def _u64(self) -> int:
        return self._number(_U64)

    def _number(self, form: struct.Struct) -> int:
        if self._at + form.size > self._end:
            self._refuse("its header ends early")
        value: int = form.unpack_from(self._data, self._at)[0]
        self._at += form.size
        return value

    def _check_room(self, what: str, n: int, item_bytes: int) -> None:
        if n * item_bytes > self._end - self._at:
            self._refuse(f"{what}: {n} entries do not fit into {self._end} bytes")

    def _refuse(self, why: str, remedy: str = "download it again") -> NoReturn:
        raise ModelError(f"{self._path}: is not a readable GGUF file ({why}); {remedy}")


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment
