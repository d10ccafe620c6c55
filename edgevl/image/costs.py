"""What an image costs elsewhere, by the formulas that two hosted services have published, in tokens.

The formulas are estimates for comparison: services change them between models.
"""

from __future__ import annotations

import math
from typing import Literal

from edgevl.errors import InputError

Size = tuple[int, int]


def gpt4o_tokens(size: Size, detail: Literal["low", "high"] = "high") -> int:
    """Return GPT-4o's image tokens for a (height, width) in pixels.

    "low" is 85. "high": scale down to fit 2048 x 2048, then scale the shorter side down to 768; 170 for each
    512-pixel square that it takes to cover the result, and 85. Raises InputError for another detail.
    Source: OpenAI, "Images and vision", https://platform.openai.com/docs/guides/images-vision.
    """
    if detail not in ("low", "high"):
        raise InputError(f"detail is {detail!r}; it must be low or high")
    if detail == "low":
        return 85
    height, width = _scaled(size, min(1.0, 2048 / max(size)))
    height, width = _scaled((height, width), min(1.0, 768 / min(height, width)))
    return 85 + 170 * _squares(height) * _squares(width)


def claude_tokens(size: Size) -> int:
    """Return Claude's image tokens for a (height, width) in pixels: about one for 750 pixels.

    An image is first scaled down to at most 1568 pixels on its longer side and about 1600 tokens. Newer models take
    larger images, and their documentation counts patches of 28 x 28 pixels, which comes to about the same.
    Source: Anthropic, "Vision", https://docs.anthropic.com/en/docs/build-with-claude/vision.
    """
    height, width = _scaled(size, min(1.0, 1568 / max(size)))
    return max(1, min(1600, math.ceil(height * width / 750)))


def _scaled(size: tuple[float, float], factor: float) -> tuple[float, float]:
    return size[0] * factor, size[1] * factor


def _squares(side: float) -> int:
    return math.ceil(round(side, 6) / 512)  # rounded, so that 1024.0000001 is two squares and not three
