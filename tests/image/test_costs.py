"""Tokens of the same image elsewhere, against figures worked out by hand or published."""

from __future__ import annotations

import pytest

from edgevl.errors import InputError
from edgevl.image.costs import claude_tokens, gpt4o_tokens


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((1024, 1024), 765),  # published: 768 x 768, 2 x 2 squares
        ((4096, 2048), 1105),  # published: 2048 x 1024, then 1536 x 768, 3 x 2 squares
        ((512, 512), 255),  # one square
        ((513, 512), 425),  # two squares
        ((1, 1), 255),  # never enlarged
        ((2048, 2048), 765),
        ((768, 1536), 1105),  # 2 x 3 squares
        ((3000, 4000), 765),  # 1536 x 2048, then 768 x 1024, 2 x 2 squares
        ((20_000, 3), 765),  # 2048 x 0.3: 4 x 1 squares
    ],
)
def test_gpt4o_high(size: tuple[int, int], tokens: int) -> None:
    assert gpt4o_tokens(size) == tokens
    assert gpt4o_tokens((size[1], size[0])) == tokens


def test_gpt4o_low_is_flat() -> None:
    assert gpt4o_tokens((1, 1), "low") == gpt4o_tokens((9000, 9000), "low") == 85


def test_gpt4o_knows_no_other_detail() -> None:
    with pytest.raises(InputError, match="must be low or high"):
        gpt4o_tokens((1, 1), "auto")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((200, 200), 54),  # published: about 54
        ((1000, 1000), 1334),  # published: about 1334
        ((1092, 1092), 1590),  # published: about 1590
        ((3000, 4000), 1600),  # 1176 x 1568 is 2459, so it is scaled to about 1600
        ((1568, 400), 837),  # 627200 / 750 = 836.3
        ((3136, 800), 837),  # half of that in each direction
        ((1, 1), 1),
        ((20_000, 3), 1),  # 1568 x 0.2
    ],
)
def test_claude(size: tuple[int, int], tokens: int) -> None:
    assert claude_tokens(size) == tokens
    assert claude_tokens((size[1], size[0])) == tokens
