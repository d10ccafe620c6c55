"""The tile plans for a budget: the most detail whose predicted first token comes in time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from numbers import Real

from edgevl.errors import InputError
from edgevl.image.tiling import TilePlan
from edgevl.latency.profile import Estimate

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3}


def seconds(value: object) -> float:
    """Return a duration in seconds: a number, or a text such as 2s, 1.5s, 800ms or 2. Raises InputError."""
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):  # also numpy's numbers
        with suppress(OverflowError):
            number = float(value)
    elif isinstance(value, str) and (found := re.fullmatch(r"([0-9]{0,9}\.?[0-9]{0,9})\s*(s|ms|)", value.strip())):
        number = float(found[1]) * _UNITS[found[2]] if found[1].strip(".") else math.nan
    if not 0 < number < math.inf:
        raise InputError(f"within is {repr(value)[:60]}; it must be a time above 0, such as 2s, 1.5s or 800ms")
    return number


def levels(plans: Sequence[Sequence[TilePlan]]) -> Iterator[tuple[TilePlan, ...]]:
    """Yield one plan for each image, from the most detail to the least.

    `plans` has the choices of each image, most tiles first. A level is a number of tiles that no image exceeds, unless
    it has no smaller plan.
    """
    caps = sorted({plan.n_tiles for choices in plans for plan in choices}, reverse=True)
    for cap in caps or [0]:
        yield tuple(next((plan for plan in choices if plan.n_tiles <= cap), choices[-1]) for choices in plans)


def choose(estimates: Iterable[Estimate], within_s: float | None) -> Estimate:
    """Return the first of `estimates` that keeps the budget (None: any does), else the last; there is at least one.

    None behind the chosen one is asked for.
    """
    for estimate in estimates:
        if within_s is None or estimate.first_token_s <= within_s:
            break
    return estimate


def read_as(plan: TilePlan) -> tuple[int, int]:
    """Return the (height, width) at which a plan sees its image: in the image's own proportions, never enlarged."""
    (height, width), (seen_height, seen_width) = plan.size, plan.steps[-1]
    scale = min(1.0, seen_height / height, seen_width / width)
    return max(round(height * scale), 1), max(round(width * scale), 1)
