"""A checkpoint as llama.cpp's two files, and the same question to edgevl and to llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import edgevl
from edgevl.export import checkpoint, gguf, mmproj
from edgevl.types import ImagePart, Message, TextChunk, TextPart
from tests.mtmd import Mtmd, Told

QUESTION = "What is in this picture?"
N_TOKENS = 32
SIZES = {"square": (1.0, 1.0), "tall": (2.9, 1.1), "wide": (0.8, 3.3), "tiny": (0.08, 0.14), "large": (5.1, 4.7)}
"""(height, width) in tiles."""


@dataclass(frozen=True)
class Files:
    """One checkpoint, and its two GGUF files in float16."""

    checkpoint: Path
    decoder: Path
    mmproj: Path


def written(folder: Path, source: Path, kind: Literal["F32", "F16"] = "F16") -> Files:
    read = checkpoint.read(source)
    model = read.row.load(source, read.image.tile)
    gguf.write_decoder(read, model.text, folder / "model.gguf", kind)
    mmproj.write(read, model.vision, folder / "mmproj.gguf", kind)
    return Files(source, folder / "model.gguf", folder / "mmproj.gguf")


@dataclass(frozen=True)
class Both:
    """One pair of files, in edgevl and in llama.cpp."""

    vlm: edgevl.VLM
    mtmd: Mtmd


@contextmanager
def opened(pair: Files, folder: Path) -> Iterator[Both]:
    """Open a pair of files in llama.cpp, and the model folder that was made of them."""
    mtmd = Mtmd(pair.decoder, pair.mmproj)
    with edgevl.load(folder, store=False) as vlm:
        yield Both(vlm, mtmd)
    mtmd.close()


def picture(size: str, tile: int) -> NDArray[np.uint8]:
    """Draw waves, in one of SIZES."""
    height, width = (max(1, round(side * tile)) for side in SIZES[size])
    return waves(height, width)


def waves(height: int, width: int) -> NDArray[np.uint8]:
    """Draw coloured waves, uint8 [height, width, 3]."""
    rows, cols = np.mgrid[0:height, 0:width]
    colours = [rows * 5 + cols * 3, rows * 2 - cols * 7, (rows // 9 + cols // 13) * 40]
    return np.ascontiguousarray(np.stack([colour % 256 for colour in colours], axis=-1).astype(np.uint8))


def prompt_ids(vlm: edgevl.VLM, messages: list[Message], pictures: list[NDArray[np.uint8]]) -> list[int]:
    """Return the ids of a prompt, -1 for each image feature."""
    chunks = vlm._open().chunks(messages, [vlm.plan((rgb.shape[0], rgb.shape[1]), "high") for rgb in pictures])
    return [i for c in chunks for i in (c.token_ids if isinstance(c, TextChunk) else (-1,) * c.n_tokens)]


def check_ids(both: Both, pictures: list[NDArray[np.uint8]]) -> Told:
    """Compare the ids of a prompt with pictures; return all that llama.cpp made of it."""
    model = both.vlm._open()
    messages = [Message("user", (*(ImagePart(None) for _ in pictures), TextPart(QUESTION)))]
    theirs = both.mtmd.ask(model.template.render(messages), model.family.image_token, pictures, N_TOKENS)
    assert prompt_ids(both.vlm, messages, pictures) == theirs.prompt_ids
    return theirs


def check_parity(both: Both, pictures: list[NDArray[np.uint8]]) -> None:
    """Compare the ids of a prompt with pictures, and the answer's."""
    vlm, theirs = both.vlm, check_ids(both, pictures)
    answer = list(vlm.ask(pictures, QUESTION, detail="high", max_tokens=N_TOKENS).token_ids)
    ends = vlm.manifest.tokenizer.eos_token_ids
    end = next((at for at, token in enumerate(theirs.token_ids) if token in ends), N_TOKENS)
    assert answer == theirs.token_ids[:end]
    assert len(set(answer)) > 3
