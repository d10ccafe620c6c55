"""Phrasings written as patterns: `[a|b|]` stands for a, for b or for nothing, so that one line is dozens of questions.

A model that meets a question in seven wordings learns seven strings; in two hundred, it has to learn what they share.
"""

from __future__ import annotations

import itertools
import random
import re

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
MOST = 48
"""A pattern of more wordings is drawn from this often, so that none drowns the others."""


def spelled(*patterns: str) -> tuple[str, ...]:
    """Write out patterns: each one's wordings, `MOST` of them at most, each wording once."""
    return tuple(dict.fromkeys(text for pattern in patterns for text in _wordings(pattern)))


def _wordings(pattern: str) -> list[str]:
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
    texts = [re.sub(r" +(?=[ .,:?]|$)|^ +", "", "".join(chosen)) for chosen in itertools.product(*choices)]
    return texts if len(texts) <= MOST else random.Random(pattern).sample(texts, MOST)
