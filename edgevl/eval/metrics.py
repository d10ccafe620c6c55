"""How right an answer is, from 0 to 1: each benchmark's measure as its authors define it, as pure functions.

Where a paper leaves open how an answer in words is read, the function says what is done here. No model is asked to
judge, and nothing is drawn at random: the same answer gets the same score.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from edgevl.eval.item import Item

ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05


def plain(text: str) -> str:
    """Return text as it is compared: lower case, without white space around it and the last full stop."""
    return text.strip().lower().removesuffix(".")


def exact(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the answer is one of the right ones, capitals and the last full stop aside."""
    return float(plain(answer) in map(plain, right))


def contains(answer: str, right: Sequence[str]) -> float:
    """Return 1 where one of the right answers stands anywhere in the answer, capitals aside.

    Source: Liu et al. 2023, "OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models", and its example.py.
    """
    found = answer.lower().strip().replace("\n", " ")
    return float(any(one.lower().strip().replace("\n", " ") in found for one in right))


def contains_formula(answer: str, right: Sequence[str]) -> float:
    """Return 1 where one of the right formulas stands in the answer, white space aside but capitals not.

    Source: as `contains`, for handwritten formulas (HME100k).
    """
    found = re.sub(r"[ \n]", "", answer.strip())
    return float(any(re.sub(r"[ \n]", "", one.strip()) in found for one in right))


def relaxed(answer: str, right: Sequence[str]) -> float:
    """Return 1 where a number is within 5 % of a right one, or a text equals it (capitals and full stop aside).

    A % sign divides a number by 100, on both sides; of a right answer of 0 no other number is within 5 %.
    Source: Masry et al. 2022, "ChartQA", end of section 5.1, after Methani et al. 2020, "PlotQA"; the paper does not
    say what % means, this is the reading of pix2struct's metrics.py, which others took over.
    """
    return float(any(_is_within(answer, one) for one in right))


def _is_within(answer: str, right: str) -> bool:
    given, wanted = _number(answer), _number(right)
    if given is None or wanted is None:
        return plain(answer) == plain(right)
    return abs(given - wanted) <= RELAXED_TOLERANCE * abs(wanted)


def _number(text: str) -> float | None:
    text = plain(text)
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return value / 100 if text.endswith("%") else value


def anls(answer: str, right: Sequence[str]) -> float:
    """Return the normalized Levenshtein similarity to the nearest right answer, and 0 where it is half or less.

    Capitals and runs of white space do not count. The mean over questions is the ANLS.
    Source: Biten et al. 2019, "Scene Text Visual Question Answering", and Mathew et al. 2021, "DocVQA": a distance of
    0.5 or more of the longer text's length gives 0 there; scripts in use let exactly 0.5 pass.
    """
    return max(_similarity(answer, one) for one in right)


def _similarity(answer: str, right: str) -> float:
    a, b = (" ".join(text.lower().split()) for text in (answer, right))
    distance = levenshtein(a, b) / max(len(a), len(b), 1)
    return 1 - distance if distance < ANLS_THRESHOLD else 0.0


def levenshtein(a: str, b: str) -> int:
    """Return the fewest insertions, deletions and replacements of a letter that turn `a` into `b`.

    A column of the table of distances is two whole numbers with a bit for each letter of `a`: where the distance grows
    and where it falls from one letter to the next. Source: Hyyrö 2003, "A Bit-Vector Algorithm for Computing
    Levenshtein and Damerau Edit Distances", after Myers 1999.
    """
    if not a:
        return len(b)
    places: dict[str, int] = {}
    for number, letter in enumerate(a):
        places[letter] = places.get(letter, 0) | 1 << number
    every, last = (1 << len(a)) - 1, len(a) - 1
    grows, falls, distance = every, 0, len(a)
    for letter in b:
        same = places.get(letter, 0)
        kept = (((same & grows) + grows) ^ grows) | same | falls  # where it is that of one letter less of both
        up, down = falls | ~(kept | grows), grows & kept  # where it grows and falls from the last column to this one
        distance += (up >> last & 1) - (down >> last & 1)
        up, down = up << 1 | 1, down << 1
        grows, falls = (down | ~(kept | up)) & every, up & kept & every
    return distance


def characters(answer: str, right: Sequence[str]) -> float:
    """Return 1 minus the character error rate against the nearest right answer, and at least 0.

    The rate is the Levenshtein distance by the right answer's length; capitals count, white space around it does not.
    A mean of these hides how long an invention is: `character_error_rate` does not.
    """
    distance, length = _character_errors(answer, right)
    return max(0.0, 1 - distance / length)


def character_error_rate(pairs: Sequence[tuple[str, Sequence[str]]]) -> float | None:
    """Return the character error rate of answers with their right ones as a whole; None where there are none.

    That is the sum of the Levenshtein distances to the nearest right answers by the sum of these answers' lengths, as
    word error rates are told of a whole test set; it can be over 1.
    """
    found = [_character_errors(answer, right) for answer, right in pairs]
    return sum(distance for distance, _ in found) / sum(length for _, length in found) if found else None


def _character_errors(answer: str, right: Sequence[str]) -> tuple[int, int]:
    """Return the distance to the right answer of the lowest rate, and that answer's length, at least 1."""
    pairs = [(levenshtein(answer.strip(), one.strip()), max(len(one.strip()), 1)) for one in right]
    return min(pairs, key=lambda pair: pair[0] / pair[1])


def json_value(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the answer is JSON of the same value as a right one; what is no JSON gets 0.

    White space, the order of keys, and how a number is written (4.5, 4.50) do not count, nor do capitals, as in
    `exact`; a number and a text of the same digits differ.
    """
    given = _canonical(answer)
    return float(given is not None and given in map(_canonical, right))


def _canonical(text: str) -> str | None:
    try:
        return json.dumps(json.loads(plain(text), parse_int=float), sort_keys=True)
    except (ValueError, RecursionError):
        return None


def things(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the answer lists the same things as a right one, in any order: all of them and none invented.

    Things stand between commas and "and"; articles are left out.
    """
    return float(any(_things(answer) == _things(one) for one in right))


def _things(text: str) -> Counter[str]:
    parts = re.split(r",|\band\b|\n", plain(text))
    return Counter(re.sub(r"^(?:an?|the)\s+", "", part.strip()) for part in parts if part.strip())


def true_false(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the first of the answer's words true, false, yes and no says what a right answer says.

    Source: Suhr et al. 2017, "A Corpus of Natural Language for Visual Reasoning" (NLVR), which compares true and false
    and does not say how an answer in words is read.
    """
    return float(_truth(answer) is not None and _truth(answer) in map(_truth, right))


def _truth(text: str) -> bool | None:
    found = re.search(r"\b(true|yes|false|no)\b", text.lower())
    return found.group(1) in ("true", "yes") if found else None


# BlindTest's questions ask for a form, such as a number in curly brackets; neither paper nor repository says how other
# forms are read, and what others do differs. Here the form that was asked for counts first, and then what can only mean
# one thing.


def count_in_braces(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the number in curly brackets, or without any the first number, is a right one.

    Source: Rahmanzadehgervi et al. 2024, "Vision language models are blind" (BlindTest), for the brackets.
    """
    found = _whole_numbers(" ".join(re.findall(_BRACED, answer)) or answer)[:1]
    return float(bool(found) and found in map(_whole_numbers, right))


def rows_and_columns(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the two numbers of the answer are right ones ("5,6").

    They are those of rows={5} and columns={6}, else the first two in curly brackets, else the first two: (5, 6).
    Source: Rahmanzadehgervi et al. 2024, "Vision language models are blind" (BlindTest), for the first form.
    """
    named = [re.findall(rf"(?i:\b{name})\s*=\s*{_BRACED}", answer) for name in ("rows?", "columns?")]
    numbers = [found[0] for found in named if found]
    braced = numbers if len(numbers) == 2 else re.findall(_BRACED, answer)
    found = _whole_numbers(" ".join(braced) if len(braced) > 1 else answer)[:2]
    return float(len(found) == 2 and found in map(_whole_numbers, right))


_BRACED = r"\{\s*(\d+)\s*\}"


def _whole_numbers(text: str) -> list[str]:
    """Return the whole numbers of a text, as they are written without leading zeros."""
    return [digits.lstrip("0") or "0" for digits in re.findall(r"\d+", text)]


def letter_in_braces(answer: str, right: Sequence[str]) -> float:
    """Return 1 where the letter in curly brackets, or the last that stands alone, is right, capitals aside.

    Source: Rahmanzadehgervi et al. 2024, "Vision language models are blind" (BlindTest), for the brackets.
    """
    found = re.findall(r"\{\s*(\w)\s*\}", answer) or re.findall(r"\b([^\W\d_])\b", answer)
    return float(bool(found) and found[-1].lower() in [one.strip().lower() for one in right])


# Multiple choice: which letter an answer means. None: it names no choice, or more than one.


_ALONE = r"(?<![\w'’-])([A-Z])(?![\w'’-])"
"""A capital that is a word."""
_PLACES = (
    r"^\W*" + _ALONE,
    r"(?i:\b(?:is|answer|option|choice))\W+" + _ALONE,
    _ALONE + r"\W*$",
    r"\b[A-Z]\s*(?:and|or|[,&/])\s*" + _ALONE,
    _ALONE + r"(?=\s*(?:and|or|[,&/])\s*[A-Z]\b)",
)
"""A letter at the beginning, behind "is" and the like, at the end, and behind or before another one ("B or C")."""
_ARTICLE = re.compile(
    r"(?<!(?i:option|answer|choice) )" + _ALONE.replace("A-Z", "A") + r"(?=[ \t]+\w)"
    r"(?![ \t]+(?i:and|as|because|but|due|for|is|it|or|shows|since|that|the|there|this|was)\b)"
)
"""An "A" before a word that an article can stand before."""


def choice_of_mmbench(answer: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter that begins or ends the answer or follows "is" and the like, or of the one choice told in it.

    An A before a word is an article ("A dog is there") unless none can stand there ("A because"). Where no letter has
    one of these places, the only one that stands alone counts; where several have, none does.
    Source: Liu et al. 2023, "MMBench": letters such as "C", "C." and "C)" are matched first; for the rest the paper
    asks a language model, which is not done here: the one choice whose text the answer holds takes its place.
    VLMEvalKit (can_infer_option) takes the only letter that stands alone, an article too, and in newer versions only
    among the last four words; it leaves "B because it shows puppies" and "B because A is a cat" to the language model.
    """
    text = _ARTICLE.sub(" ", answer)
    named = _named(_PLACES, text, choices) or _named((_ALONE,), text, choices)
    if len(named) == 1:
        return named.pop()
    text = answer.lower()
    if len(text) > 2 * sum(map(len, choices.values())):
        return None
    held = [letter for letter, content in choices.items() if content.strip().lower() in text]
    return held[0] if len(held) == 1 else None


def _named(forms: Sequence[str], text: str, choices: Mapping[str, str]) -> set[str]:
    return {letter for form in forms for letter in re.findall(form, text) if letter in choices}


def choice_of_mmmu(answer: str, choices: Mapping[str, str]) -> str | None:
    """Return the last "(B)" of the answer, else the last " B ", else of a longer one the last choice's text.

    Source: Yue et al. 2024, "MMMU", and mmmu/utils/eval_utils.py of its repository.
    """
    text = f" {answer.strip(',.!?;:').strip(chr(39))} "
    for form in ("({})", " {} "):
        if last := _last(text, {letter: form.format(letter) for letter in choices}):
            return last
    if len(text.split()) <= 5:
        return None
    return _last(text.lower(), {letter: told.lower() for letter, told in choices.items()})


def _last(text: str, wanted: Mapping[str, str]) -> str | None:
    """Return the letter of what stands last in the text; None where nothing of it does."""
    found = [letter for letter, part in wanted.items() if part in text]
    return max(found, key=lambda letter: text.rfind(wanted[letter]), default=None)


def choice_of_video_mme(answer: str, choices: Mapping[str, str]) -> str | None:
    """Return the first capital that is one of the choices' letters, phrases such as "The best answer is" aside.

    Source: Fu et al. 2024, "Video-MME", and the script that its README names (parse_answer, eval_your_results.py). It
    leaves answers without a letter out of the figure; here they count as wrong, and are counted.
    """
    rest = re.sub(r"The (?:best |correct )?(?:answer|option)(?: is)?|(?:Best )?(?:[Aa]nswer|[Oo]ption):", "", answer)
    found = [letter for letter in rest if letter in choices]
    return found[0] if found else None


def mmmu_open(answer: str, right: Sequence[str]) -> float:
    """Return 1 where a right answer stands in the answer's conclusions, or one of their numbers equals it.

    Conclusions are what follows words such as "is" and "therefore", line by line; without any, the whole answer.
    Numbers are rounded to two places. Source: as `choice_of_mmmu`.
    """
    conclusions = _conclusions(answer)
    given = {value for part in (*conclusions, *_numbers(conclusions)) for value in _normal(part)}
    wanted = {value for one in right for value in _normal(one)}
    if given & {value for value in wanted if isinstance(value, float)}:
        return 1.0
    texts = [value for value in given if isinstance(value, str)]
    return float(any(one in text for one in wanted if isinstance(one, str) for text in texts))


def _conclusions(answer: str) -> list[str]:
    words = ["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "]
    text = answer.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        known = [*words, "="] if number == len(lines) else words
        ends = [line.rpartition(word)[2].strip() for word in known if word in line]
        shortest = min(ends, key=len, default="")
        if shortest and shortest not in ":,.!?;'":
            found.append(shortest)
    return found or [text]


def _numbers(texts: Sequence[str]) -> list[str]:
    forms = (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    )
    return [found for text in texts for form in forms for found in re.findall(form, text)]


def _normal(text: str) -> list[str | float]:
    """Return a number, rounded to two places, or text in lower case; a single letter only with a space beside it."""
    text = text.strip().lower()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def list_of(text: str) -> tuple[str, ...]:
    """Return the texts of a list that a table holds as Python writes it, such as "['a', 'b']"; else the text alone."""
    if text.strip().startswith("["):
        try:
            found = literal_eval(text.strip())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return (text,)
        if isinstance(found, list):
            return tuple(map(str, found))
    return (text,)


# By name.

_TEXT_METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "anls": anls,
    "characters": characters,
    "contains": contains,
    "contains_formula": contains_formula,
    "count_in_braces": count_in_braces,
    "exact": exact,
    "json": json_value,
    "letter_in_braces": letter_in_braces,
    "mmmu_open": mmmu_open,
    "relaxed": relaxed,
    "rows_and_columns": rows_and_columns,
    "things": things,
    "true_false": true_false,
}
_CHOICES: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "choice_of_mmbench": choice_of_mmbench,
    "choice_of_mmmu": choice_of_mmmu,
    "choice_of_video_mme": choice_of_video_mme,
}
TEXT_METRICS = tuple(_TEXT_METRICS)
METRICS = (*_TEXT_METRICS, *_CHOICES)


def score(answer: str, item: Item) -> float:
    """Return how right an answer to an item is, by the item's metric."""
    if item.metric in _TEXT_METRICS:
        return _TEXT_METRICS[item.metric](answer, item.answers)
    letter = choice(answer, item)
    if letter is None and item.metric == "choice_of_mmmu":
        letter = _drawn(item)
    return float(letter in item.answers)


def choice(answer: str, item: Item) -> str | None:
    """Return the letter, or the truth, that an answer means; None where it means none, or there are no choices."""
    if item.metric == "true_false":
        truth = _truth(answer)
        return None if truth is None else str(truth).lower()
    return _CHOICES[item.metric](answer, item.choices) if item.metric in _CHOICES else None


def has_choices(item: Item) -> bool:
    """Return whether an item is answered with a letter, or with true or false."""
    return item.metric in _CHOICES or item.metric == "true_false"


def _drawn(item: Item) -> str:
    """Return a choice as chance would, and the same every time: MMMU draws one where an answer names none."""
    letters = sorted(item.choices)
    return letters[int.from_bytes(hashlib.sha256(item.id.encode()).digest()[:8], "big") % len(letters)]
