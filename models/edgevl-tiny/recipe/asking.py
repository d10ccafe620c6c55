"""Questions as they are asked: in people's spelling, several about a picture, or with a form for the answer."""

from __future__ import annotations

import random
from collections.abc import Iterable

from .drawn import Stock
from .questions import QA, vary
from .wording import spelled

BRACES = (
    " answer with a {kind} in curly brackets, such as {{{example}}}.",
    " put the {kind} into curly brackets, for example {{{example}}}.",
    " write the {kind} in braces, e.g. {{{example}}}.",
)
BRACES_HELD_OUT = (" reply only with the {kind}, in curly brackets as in {{{example}}}.",)
MORE_THAN = spelled(
    "are there [more than|over] {n} {many}?",
    "[do|can] you [see|count] more than {n} {many}?",
    "more than {n} {many}[, yes or no|]?",
)


def ask(rng: random.Random, stock: Stock, question: str, answer: str, example: str, kind: str = "number") -> QA:
    """Ask for `answer`, one time in three in curly brackets; the form shows an `example`, which must tell nothing."""
    if rng.random() < 0.65:
        return vary(rng, question), answer
    form = stock.one_of(rng, BRACES, BRACES_HELD_OUT).format(kind=kind, example=example)
    return vary(rng, question + form), f"{{{answer}}}"


def ask_number(rng: random.Random, stock: Stock, question: str, n: int, most: int) -> QA:
    """Ask for a number from 0 to `most`."""
    return ask(rng, stock, question, str(n), str(rng.randint(0, most)))


def more_than(rng: random.Random, n: int, many: str) -> QA:
    """Ask whether there are more than so many, near the number that there are; in training alone."""
    yes = n > 0 and rng.random() < 0.5
    bound = max(0, n - rng.randint(1, 2)) if yes else n + rng.randint(0, 1)
    return vary(rng, rng.choice(MORE_THAN).format(n=bound, many=many)), "yes" if yes else "no"


def several(rng: random.Random, first: QA, more: Iterable[QA | None]) -> tuple[QA, ...]:
    """Ask `first`, and of `more` what can be asked and is another question; the first answer to a question stays."""
    pairs = dict([first])
    for pair in more:
        if pair is not None:
            pairs.setdefault(*pair)
    return tuple((vary(rng, question), answer) for question, answer in pairs.items())
