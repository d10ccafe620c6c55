"""What a question will cost: the pieces of its work, and how long a piece takes here. Arithmetic, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from edgevl.image.tiling import TilePlan
from edgevl.steps import Step, chunks_of

Size = tuple[int, int]
_MOST_S = 1e9
"""No piece of work takes as long; with larger numbers predictions would be infinite, or none."""


@dataclass(frozen=True)
class Work:
    """What a request has still to do up to its first token.

    `resized` counts the pixels that resizing goes over (see `resized_pixels`), `n_tiles` the tiles to encode;
    `n_steps` and `n_tokens` are what the decoder is fed.
    """

    resized: int
    n_tiles: int
    n_steps: int
    n_tokens: int


@dataclass(frozen=True)
class Estimate:
    """Predicted seconds. Encoding and prefill overlap, so that the stages may add up to more than `first_token_s`."""

    first_token_s: float
    read_s: float
    tile_s: float
    encode_s: float
    prefill_s: float


NEVER = Estimate(math.inf, 0, 0, 0, 0)
"""Of what cannot be done at all."""


@dataclass(frozen=True)
class Profile:
    """How long each piece of work takes, in seconds: one machine, one model, one number of threads.

    `resize_s` is for a million pixels gone over; `cut_s` for a tile; `encode_s` for a tile alone, `encode_more_s` for
    each one after it, for several are encoded side by side; `feed_s` for a step fed to the decoder and `token_s` for
    each token in it; `fixed_s` comes once a question, `cold_s` once after opening the model. `saved_s` is what each
    tile but the first saves because tiles are cut and encoded while others are prefilled; below 0, that slows both
    down.
    """

    resize_s: float
    cut_s: float
    encode_s: float
    encode_more_s: float
    feed_s: float
    token_s: float
    fixed_s: float
    cold_s: float
    saved_s: float

    def estimate(self, work: Work, *, read_s: float = 0.0, is_cold: bool = False) -> Estimate:
        """Predict the seconds of `work` after reading has taken `read_s`; `is_cold`: nothing has run yet."""
        tile_s = work.resized * 1e-6 * self.resize_s + work.n_tiles * self.cut_s
        n_first = min(work.n_tiles, 1)
        n_more = work.n_tiles - n_first
        encode_s = n_first * self.encode_s + n_more * self.encode_more_s
        prefill_s = work.n_steps * self.feed_s + work.n_tokens * self.token_s
        saved_s = n_more * min(self.saved_s, self.cut_s + self.encode_more_s)  # a tile more never takes less time
        once_s = self.fixed_s + (self.cold_s if is_cold else 0.0)
        total_s = read_s + once_s + tile_s + encode_s + prefill_s - saved_s
        return Estimate(total_s, read_s, tile_s, encode_s, prefill_s)

    def to_dict(self) -> dict[str, float]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """Take what `to_dict` returned; raise ValueError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(raw, dict) or raw.keys() != names:
            raise ValueError("not the fields of a profile")
        for name, value in raw.items():
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= _MOST_S:
                raise ValueError(f"{name} is not a number")
            if value < 0 and name != "saved_s":
                raise ValueError(f"{name} is out of range")
        return cls(**{name: float(value) for name, value in raw.items()})


def work_of(steps: Sequence[Step], plans: Sequence[TilePlan], n_tiles: Sequence[int]) -> Work:
    """Return the work of feeding `steps`, of whose images image i has `n_tiles[i]` tiles to encode."""
    cut = [plan for plan, n in zip(plans, n_tiles, strict=True) if n]
    return Work(
        resized=sum(resized_pixels(*pair) for plan in cut for pair in plan.resizes),
        n_tiles=sum(n_tiles),
        n_steps=len(steps),
        n_tokens=sum(chunk.n_tokens for chunk in chunks_of(steps)),
    )


def resized_pixels(size: Size, *steps: Size) -> int:
    """Return the pixels that resizing from `size` to each of `steps` goes over, which its time is proportional to.

    Pillow resizes the rows, then the columns, each only where that changes a length; a pass goes over the larger
    of what it reads and what it writes, since its filter widens as an image shrinks.
    """
    total = 0
    for step in steps:
        (height, width), (new_height, new_width) = size, step
        total += height * max(width, new_width) if width != new_width else 0
        total += new_width * max(height, new_height) if height != new_height else 0
        size = step
    return total
