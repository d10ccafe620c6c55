"""The same question in words of training and in words that training never uses.

Generators have held-out phrasings of their own, beside those of training; scenes and photos have them here. A question
is recognised by its template and written anew with another one of the same meaning.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from types import ModuleType

from . import asking, blind, charts, counted, emoji, nlvr, phrasings, questions, screens, subway
from .phrasings import Phrasings
from .questions import vary
from .scenes import COLOURS, SHAPES
from .widgets import KINDS

SPELLINGS = ("{}", "{}", "please: {}", "{} thank you.")
"""How a paraphrase is written; training asks without such words."""

SCENES: tuple[Phrasings, ...] = (
    (questions.DESCRIBE, ("list everything that is shown.", "tell me what you see.", "what can be found here?")),
    (questions.COUNT_ALL, ("tell me the number of objects.", "how many things does the picture show?")),
    (questions.COUNT_SOME, ("tell me the number of {}.", "how many {} does the picture show?")),
    (questions.COLOUR_OF, ("tell me the colour of the {}.", "in what colour is the {} drawn?")),
    (questions.SHAPE_OF, ("tell me which shape is {}.", "which shape does the {} thing have?")),
    (questions.NAME_ONE, ("tell me what this is.", "which thing is in the picture?")),
    (questions.NAME_AT["left"], ("which object is furthest left?", "tell me the object on the left edge.")),
    (questions.NAME_AT["right"], ("which object is furthest right?", "tell me the object on the right edge.")),
    (questions.NAME_AT["top"], ("which object is highest up?", "tell me the object nearest to the top.")),
    (questions.NAME_AT["bottom"], ("which object is furthest down?", "tell me the object nearest to the bottom.")),
    (questions.EXISTS, ("can a {} be seen here?", "is a {} in this image?")),
    (questions.SIDES, ("does the {a} lie left or right of the {b}?", "the {a}: left or right of the {b}?")),
    (questions.HEIGHTS, ("does the {a} lie above or below the {b}?", "is the {a} placed above or below the {b}?")),
    (questions.IS_SIDE, ("does the {a} lie to the {side} of the {b}?", "is it {side} of the {b} that the {a} is?")),
    (questions.IS_HEIGHT, ("does the {a} lie {side} the {b}?", "is it {side} the {b} that the {a} is?")),
    (questions.IS_COLOUR, ("does the {shape} have the colour {colour}?", "the {shape}: is it {colour}?")),
    (questions.WHERE, ("tell me where the {} is.", "at what place of the picture is the {}?")),
    (questions.LARGER, ("of the {a} and the {b}, which is larger?", "the {a} or the {b}: which is bigger?")),
    (questions.SMALLER, ("of the {a} and the {b}, which is smaller?",)),
    (questions.MORE, ("is the number of {a} larger than that of {b}?",)),
)  # fmt: skip
PHOTOS: dict[str, tuple[str, ...]] = {
    "eurosat": ("tell me the land use.", "which land use does the satellite see?"),
    "flowers": ("tell me the kind of flower.", "which flower do you see?"),
    "objects": ("tell me the object in the photo.", "which object does the photo show?"),
    "grocery": ("tell me the product.", "which product does the photo show?"),
    "trash": ("tell me the material.", "which kind of waste is in the photo?"),
    "signs": ("tell me the digit of the hand.", "which digit is the hand sign?"),
    "cards": ("tell me the playing cards.", "which playing cards are in the photo?"),
}
PHOTO_KINDS: dict[str, tuple[str, ...]] = {
    "grocery": ("tell me the kind of groceries.", "which sort of food does the photo show?"),
}
LEAST_FIXED = 4
"""A template with fewer characters of its own, such as a name and a question mark, fits anything."""
_HOLD: dict[str, dict[str, Sequence[str]]] = {
    "scenes": {"side": ("left", "right", "above", "below"), "colour": tuple(COLOURS), "shape": SHAPES},
    "screens": {"kind": KINDS},
}
"""What gaps of a name hold in a group, where questions could be cut in a wrong place."""
_PRINTED = ("READ_", "LARGEST", "LEAST", "AT", "BELOW", "ABOVE")
"""Beginnings of the names of phrasings about printed text; the others are about documents."""


@dataclass(frozen=True)
class Template:
    """A phrasing in parts, each with the name of the gap behind it (none behind the last), and what follows it."""

    parts: tuple[tuple[str, str], ...]
    pattern: re.Pattern[str]

    @property
    def gaps(self) -> frozenset[str]:
        """The names of the gaps."""
        return frozenset(gap for _, gap in self.parts if gap)

    @property
    def n_fixed(self) -> int:
        """How many characters stand there always."""
        return sum(len(text) for text, _ in self.parts)

    def gaps_of(self, question: str) -> dict[str, str] | None:
        """Return what stands in the gaps of a question; None where it follows another phrasing."""
        match = self.pattern.fullmatch(question)
        return None if match is None else match.groupdict()

    def filled(self, gaps: dict[str, str]) -> str:
        """Write a question."""
        return "".join(text + gaps.get(gap, "") for text, gap in self.parts)


@dataclass(frozen=True)
class Meaning:
    """Templates that ask the same: those of training and the held-out ones."""

    training: tuple[Template, ...]
    held_out: tuple[Template, ...]


def template(text: str, hold: Mapping[str, Sequence[str]]) -> Template:
    """Read a phrasing. Gaps are named or numbered as for `str.format`; `hold` says what some can hold."""
    parts: list[tuple[str, str]] = []
    pattern, seen = "", set[str]()
    for literal, gap, _, _ in Formatter().parse(text):
        name = "" if gap is None else gap if gap.isidentifier() else f"gap{gap or len(parts)}"
        parts.append((literal, name))
        pattern += re.escape(literal)
        if name:
            held = "|".join(map(re.escape, hold.get(name, ()))) or ".+?"
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>{held})"
            seen.add(name)
    if parts[-1][0].endswith((".", "?")) and not parts[-1][1]:
        pattern = pattern.removesuffix(re.escape(parts[-1][0][-1])) + "[.?]?"
    return Template(tuple(parts), re.compile(pattern, re.IGNORECASE | re.DOTALL))


@lru_cache
def meanings(group: str) -> tuple[Meaning, ...]:
    """List what is asked in a group of tasks (see `goals`), with its templates."""
    hold = _HOLD.get(group, {})
    return tuple(
        Meaning(*(tuple(template(text, hold) for text in dict.fromkeys(texts)) for texts in pair))
        for pair in _pairs(group)
    )


def _pairs(group: str) -> Iterable[Phrasings]:
    if group == "scenes":
        return SCENES
    if group == "photos":
        labels = [(questions.PHOTOS[pack].label, held_out) for pack, held_out in PHOTOS.items()]
        return labels + [(questions.PHOTOS[pack].kind, held_out) for pack, held_out in PHOTO_KINDS.items()]
    if group in ("printed", "documents"):
        names = (name for name in vars(phrasings) if name.isupper() and name not in ("ORDINALS", "QA", "ROW"))
        found = [vars(phrasings)[name] for name in names if name.startswith(_PRINTED) == (group == "printed")]
        pairs = [pair for one in found for pair in (one.values() if isinstance(one, dict) else [one])]
        return pairs if group == "printed" else [*pairs, *_about_rows()]
    if group == "blind":
        plain = [pair for module in (blind, counted, subway) for pair in _pairs_of(module)]
        return [*plain, *(_joined(pair, (asking.BRACES, asking.BRACES_HELD_OUT)) for pair in plain)]
    return _pairs_of({"emoji": emoji, "charts": charts, "screens": screens, "nlvr": nlvr}[group])


def _pairs_of(module: ModuleType) -> Iterator[Phrasings]:
    """Yield what a module names NAME and NAME_HELD_OUT, as far as it is phrasings and not words."""
    for name, held_out in vars(module).items():
        if name.endswith("_HELD_OUT"):
            training = vars(module)[name.removesuffix("_HELD_OUT")]
            pairs = zip(training.values(), held_out.values(), strict=True) if isinstance(held_out, dict) else []
            yield from pairs or [(training, held_out)] if _are_phrasings(held_out) else []


def _are_phrasings(held_out: object) -> bool:
    values = next(iter(held_out.values())) if isinstance(held_out, dict) else held_out
    return isinstance(values, tuple) and all(" " in value for value in values)


def _about_rows() -> Iterator[Phrasings]:
    """Yield what asks for one row of a table as JSON."""
    training, held_out = (tuple(f"{text.replace('{}', '{row}')} " for text in texts) for texts in phrasings.ROW)
    for pair in (phrasings.KEYS, phrasings.SCHEMA):
        yield _joined((training, held_out), pair)


def _joined(first: Phrasings, second: Phrasings) -> Phrasings:
    """Put everything of `second` behind everything of `first`, part by part."""
    training, held_out = (tuple(a + b for a in one for b in two) for one, two in zip(first, second, strict=True))
    return training, held_out


def forms(rng: random.Random, group: str, question: str) -> tuple[str, str] | None:
    """Write a question in words of training and in held-out ones; None where it is phrased like none of its group.

    The question itself is one of the two; held-out ones may have words of politeness around them.
    """
    best: tuple[int, Meaning, dict[str, str], bool] | None = None
    for meaning in meanings(group):
        for is_held_out, texts in enumerate((meaning.training, meaning.held_out)):
            for one in texts:
                gaps = one.gaps_of(question) if one.n_fixed >= LEAST_FIXED else None
                if gaps is not None and (best is None or one.n_fixed > best[0]):
                    best = one.n_fixed, meaning, gaps, bool(is_held_out)
    if best is None:
        return None
    _, meaning, gaps, is_held_out = best
    others = [one for one in (meaning.training if is_held_out else meaning.held_out) if one.gaps <= gaps.keys()]
    if not others:
        return None
    other = vary(rng, rng.choice(others).filled(gaps))
    plain, paraphrase = (other, question) if is_held_out else (question, other)
    return plain, rng.choice(SPELLINGS).format(paraphrase)
