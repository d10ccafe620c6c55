"""Batches of training examples: tiles cut as the runtime cuts them, labels, and the text of every picture.

One (seed, index) gives one batch on any machine. A batch is filled with pictures until its tiles are spent, and all
are of one size class, so that long rows of text do not stand beside short ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

from edgevl.image import pixels

from .data import SIZES, Example, Paths, Source
from .drawn import TOLD
from .heads import LABELS
from .plan import IGNORE, N_PATCHES
from .stages import Stage
from .tokenizer import END, PAD

CHAT = 0.25
"""The share of batches whose questions are one conversation."""
Row = tuple[list[int], list[int], list[int]]
"""Token ids of one picture's text, their labels and segments."""


class Batches(IterableDataset[dict[str, NDArray[Any]]]):
    """Endless batches of a stage from (seed, index); worker k of n takes every n-th index.

    Of several ranks that train together, each takes one batch of every step, from step `start` on. Those of a stage
    that asks have text. With `grounded`, basics are left out.
    """

    def __init__(
        self, paths: Paths, writer: Writer, stage: Stage, *, seed: int, start: int = 0,
        grounded: bool = False, rank: int = 0, n_ranks: int = 1,
    ) -> None:  # fmt: skip
        self._paths, self._writer, self._stage = paths, writer if stage.asks else None, stage
        self._seed, self._start, self._n_tiles, self._grounded = seed, start, stage.tiles, grounded
        self._rank, self._n_ranks = rank, n_ranks

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        source = Source(self._paths, self._stage.any_words)
        worker = get_worker_info()
        step, first = (worker.num_workers, worker.id) if worker else (1, 0)
        for number in count(self._start + first, step):
            index = number * self._n_ranks + self._rank
            rng = random.Random(f"{self._seed}-{index}")
            examples = self.examples(rng, source, index)
            yield collate(examples, self._writer, chat=rng.random() < CHAT)

    def examples(self, rng: random.Random, source: Source, index: int) -> list[Example]:
        """Draw the pictures of batch `index`: of one size class, by their shares, until the tiles are spent."""
        mix = self._stage.mix(index * self._n_tiles, self._grounded)
        spent = [n * sum(row.share * row.sizes[k] for row in mix.values()) for k, n in enumerate(SIZES)]
        step = random.Random(f"{self._seed}-step-{index // self._n_ranks}")
        size = step.choices(range(len(SIZES)), spent)[0]  # one for all ranks, so that none waits for another
        weights = [row.share * row.sizes[size] for row in mix.values()]
        found: list[Example] = []
        room = self._n_tiles
        while not found or room >= SIZES[size]:
            subject = rng.choices(tuple(mix), weights)[0]
            own = random.Random(rng.getrandbits(64))  # what is asked of one picture does not change the next
            found.append(source.example(own, subject, SIZES[size]))
            room -= found[-1].plan.n_tiles
        return found


def collate(examples: list[Example], writer: Writer | None, chat: bool = False) -> dict[str, NDArray[Any]]:
    """Put examples into a batch: `tiles` uint8 [n, 3, 128, 128], `overviews` their last tile each, labels, and text."""
    tiles: list[NDArray[np.uint8]] = []
    overviews: list[int] = []
    for example in examples:
        tiles += [tile.transpose(2, 0, 1) for tile in pixels.tiles(example.rgb, example.plan, "lanczos")]
        overviews.append(len(tiles) - 1)
    none = np.full(N_PATCHES, IGNORE, np.int64)
    batch: dict[str, NDArray[Any]] = {
        "tiles": np.stack(tiles),
        "overviews": np.array(overviews, np.int64),
        "pack": np.array([example.pack for example in examples], np.int64),
        "label": np.array([example.label for example in examples], np.int64),
    }
    batch |= {name: np.stack([example.dense.get(name, none) for example in examples]) for name in LABELS}
    batch |= {name: np.array([example.told.get(name, IGNORE) for example in examples], np.int64) for name in TOLD}
    return batch | (writer.text(examples, chat) if writer else {})


class Writer:
    """Writes pictures' questions as token ids; a tile takes `n_image` of them."""

    def __init__(self, tokenizer: Path, n_image: int) -> None:
        self._tokenizer, self._n_image = Tokenizer.from_file(str(tokenizer)), n_image

    def text(self, examples: list[Example], chat: bool) -> dict[str, NDArray[Any]]:
        """Write each picture's questions behind it: `input_ids`, `labels` and `segments` [n, length].

        Answers are labelled. Segment 0 is what every question sees (the picture); each question with its answer is a
        segment of its own, as if it had been asked alone, so that no answer can be read off another. With `chat`
        all is one conversation instead.
        """
        rows = [self._row(example, chat) for example in examples]
        length = -(-max(len(ids) for ids, _, _ in rows) // 16) * 16
        input_ids = np.full((len(rows), length), PAD, np.int64)
        labels = np.full((len(rows), length), IGNORE, np.int64)
        segments = np.zeros((len(rows), length), np.int64)
        for row, (ids, answers, parts) in enumerate(rows):
            input_ids[row, : len(ids)] = ids
            labels[row, : len(ids)] = answers
            segments[row, : len(ids)] = parts
        return {"input_ids": input_ids, "labels": labels, "segments": segments}

    def _row(self, example: Example, chat: bool) -> Row:
        ids = self.encode("<|user|>" + layout(example.plan.grid, self._n_image))
        labels, segments = [IGNORE] * len(ids), [0] * len(ids)
        write = self.encode_letters if example.by_letter else self.encode
        for number, (question, answer) in enumerate(example.pairs):
            turn = "<|user|>" if chat and number else ""
            asked, answered = self.encode(f"{turn}{question}<|end|><|assistant|>"), [*write(answer), END]
            ids += asked + answered
            labels += [IGNORE] * len(asked) + answered
            segments += [0 if chat else 1 + number] * (len(asked) + len(answered))
        return ids, labels, segments

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_letters(self, text: str) -> list[int]:
        """Return a text's token ids, each letter by itself."""
        return [token for letter in text for token in self.encode(letter)]

    def read(self, ids: Iterable[int]) -> str:
        """Return the text of token ids, special ones included."""
        return str(self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False))


def layout(grid: tuple[int, int], n_image: int) -> str:
    """Write an image's tiles as text, the grid in row order and the overview last; no grid is (0, 0)."""
    rows, cols = grid
    image = "<image>" * n_image
    cells = (f"<row_{row}_col_{col}>{image}" for row in range(1, rows + 1) for col in range(1, cols + 1))
    return "".join(cells) + "<global-img>" + image
