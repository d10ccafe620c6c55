"""Questions whose answer is asked for in a form: a number, a letter or a pair, as it is or in curly brackets."""

from __future__ import annotations

import random

from .drawn import Stock
from .questions import QA, vary

BRACES = (
    " answer with a {kind} in curly brackets, such as {{{example}}}.",
    " put the {kind} into curly brackets, for example {{{example}}}.",
    " write the {kind} in braces, e.g. {{{example}}}.",
)
BRACES_HELD_OUT = (" reply only with the {kind}, in curly brackets as in {{{example}}}.",)


def ask(rng: random.Random, stock: Stock, question: str, answer: str, example: str, kind: str = "number") -> QA:
    """Ask for `answer`, one time in three in curly brackets; the form shows an `example`, which must tell nothing."""
    if rng.random() < 0.65:
        return vary(rng, question), answer
    form = stock.one_of(rng, BRACES, BRACES_HELD_OUT).format(kind=kind, example=example)
    return vary(rng, question + form), f"{{{answer}}}"


def ask_number(rng: random.Random, stock: Stock, question: str, n: int, most: int) -> QA:
    """Ask for a number from 0 to `most`."""
    return ask(rng, stock, question, str(n), str(rng.randint(0, most)))
