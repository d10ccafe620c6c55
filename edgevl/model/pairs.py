"""Which GGUF files belong together: a decoder and its mmproj, by their names, as llama.cpp's users have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DECODERS_FIRST = ("q4_k_m", "q4_k_s", "q4_k", "q4_0", "q5_k_m", "q6_k", "q8_0", "f16", "bf16", "f32")
"""Best first, for a processor: of four bits the nearest to the model, then the smallest."""
MMPROJS_FIRST = ("f16", "bf16", "f32", "q8_0")
"""It becomes a graph that is quantized anew, so that an exact one is best."""

_WEIGHTS = re.compile(r"(?i)(?:^|[-_.])((?:iq|q)\d[a-z0-9_]*|bf16|f16|f32)$")
_PART = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class Pair:
    """A decoder and an mmproj, by the names of their files; `weights` is how the decoder's are stored, "" if unsaid."""

    decoder: str
    mmproj: str
    weights: str


def pairs(names: Iterable[str]) -> list[Pair]:
    """Return the pairs among the files called `names` (with forward slashes), best first.

    An mmproj belongs to the decoders of its own folder whose names begin as its own does before "mmproj", and go on as
    it does behind; one that goes on as no decoder does belongs to those that have none. Files in several parts are left
    out: llama.cpp's users join them first.
    """
    there = [name for name in names if name.lower().endswith(".gguf") and not _PART.search(_stem(name))]
    mmprojs = sorted((name for name in there if _is_mmproj(name)), key=lambda name: _rank(name, MMPROJS_FIRST))
    decoders = [name for name in there if not _is_mmproj(name)]
    named = {mmproj for mmproj in mmprojs if any(_nearness(decoder, mmproj)[1] for decoder in decoders)}
    found = []
    for decoder in decoders:
        fitting = [
            mmproj
            for mmproj in mmprojs
            if _nearness(decoder, mmproj)[0] and (mmproj not in named or _nearness(decoder, mmproj)[1])
        ]
        if fitting:
            nearest = max(_nearness(decoder, mmproj) for mmproj in fitting)
            mmproj = next(name for name in fitting if _nearness(decoder, name) == nearest)
            found.append(Pair(decoder, mmproj, _weights(decoder)))
    return sorted(found, key=lambda pair: (_rank(pair.decoder, DECODERS_FIRST), pair.decoder))


def _nearness(decoder: str, mmproj: str) -> tuple[int, int]:
    """Return how much of an mmproj's name, before that word and behind it, is a decoder's; 0 where the rest is another.

    What stands before counts with its folder, and one more.
    """
    folder, _, file = mmproj.lower().rpartition("/")
    where, _, other = decoder.lower().rpartition("/")
    before, _, behind = _WEIGHTS.sub("", _stem(file)).partition("mmproj")
    before, behind = before.rstrip("-_."), behind.strip("-_.")
    if where != folder or not other.startswith(before):
        return 0, 0
    rest = other.removeprefix(before).lstrip("-_.")
    return 1 + len(before), len(behind) if rest.startswith(behind) else 0


def _is_mmproj(name: str) -> bool:
    return "mmproj" in _stem(name).lower()


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _weights(name: str) -> str:
    found = _WEIGHTS.search(_stem(name))
    return found[1].lower() if found else ""


def _rank(name: str, order: Sequence[str]) -> int:
    weights = _weights(name)
    return order.index(weights) if weights in order else len(order)
