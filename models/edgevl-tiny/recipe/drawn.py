"""What a generator of pictures is given, and what it returns.

A generator is a function `(rng, stock) -> Drawn`. Everything it draws comes from `rng`, so that one seed gives one
picture on any machine with the same fonts. What is held out from training (fonts, words, palettes, layouts,
phrasings) it takes from `stock`, by `stock.is_held_out`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from .questions import QA

T = TypeVar("T")
TOLD = {
    "crossings": 3,
    "touching": 2,
    "overlapping": 2,
    "circled": 26,
    "shapes": 10,
    "squares": 8,
    "rows": 10,
    "columns": 10,
    "paths": 10,
}
"""What may be told of all of a picture: how many values it has. A value is a number, 0 or 1 for no or yes, or the
place of a letter in the alphabet."""


@dataclass(frozen=True)
class Drawn:
    """A picture (RGB) with questions and answers about it; every pair is asked and graded by itself.

    Of a tile of 128 px, `labels` may tell what each patch shows: int64 [256] by the name of what is told. Of all of a
    picture, `told` may tell what `TOLD` names.
    """

    picture: Image.Image
    pairs: tuple[QA, ...] = ()
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stock:
    """Fonts and words, of the training part or of the held-out part."""

    fonts: tuple[Path, ...]
    words: tuple[str, ...]
    is_held_out: bool

    def one_of(self, rng: random.Random, training: Sequence[T], held_out: Sequence[T]) -> T:
        """Draw from what belongs to this part, such as a phrasing."""
        return rng.choice(held_out if self.is_held_out else training)

    def font(self, rng: random.Random, size: int) -> ImageFont.FreeTypeFont:
        """Draw a font of this part, `size` pixels high."""
        return font(rng.choice(self.fonts), size)


Maker = Callable[[random.Random, Stock], Drawn]


@dataclass(frozen=True)
class Task:
    """A row of a subject's tasks: what draws it, and the metric of `edgevl eval` that grades it."""

    make: Maker
    metric: str


@lru_cache(maxsize=512)
def font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Load a font once for each size."""
    return ImageFont.truetype(str(path), size)
