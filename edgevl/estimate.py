"""What an image would cost on this machine, from one tile timed here."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from edgevl.image.tiling import TilePlan
from edgevl.pipeline import VLM


@dataclass(frozen=True)
class Estimate:
    """Image tokens, and the seconds to encode and to prefill them."""

    n_tokens: int
    encode_s: float
    prefill_s: float


def estimate(vlm: VLM, plan: TilePlan, rounds: int = 3) -> Estimate:
    """Time one tile `rounds` times and scale the medians to `plan`; nothing of the image itself is encoded."""
    encode_s, prefill_s = [], []
    for round_ in range(rounds):
        blank = np.full((plan.tile, plan.tile, 3), round_, np.uint8)  # each its own shade: none is remembered
        answer = vlm.ask(blank, f"{round_}?", detail="low", max_tokens=1)
        encode_s.append(answer.timings.encode_s)
        prefill_s.append(answer.timings.prefill_s / (answer.usage.prompt_tokens - answer.usage.cached_tokens))
    n_tokens = vlm.image_tokens(plan)
    return Estimate(n_tokens, statistics.median(encode_s) * plan.n_tiles, statistics.median(prefill_s) * n_tokens)
