"""What does prefilling one tile while the next are encoded buy, and how are the cores best split between the two?

    python -m benchmarks.streaming MODEL [--rounds 5] [--detail 9] [--threads N]

Each round asks about a picture that nobody has seen, once for each way, in turn, with the order turned by one:
the encoder first and then the decoder; both side by side on all threads each, which is what `edgevl ask` does; and
side by side with the threads shared out. The figure is the time to the first token, and its ratio to the first way
within the same round. Results go to benchmarks/results/streaming-<machine>-<commit>.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

import edgevl
from benchmarks import cold
from benchmarks.within import QUESTION, picture
from edgevl.types import Detail

SIZE = (1536, 2048)


@dataclass(frozen=True)
class Way:
    """Threads of the encoder and of the decoder, and whether they work side by side."""

    n_encoder: int
    n_decoder: int
    side_by_side: bool

    @property
    def name(self) -> str:
        order = "side by side" if self.side_by_side else "one after the other"
        return f"{order}, {self.n_encoder} + {self.n_decoder} threads"


def ways(n_threads: int) -> list[Way]:
    """Return what is compared; the first is what the others are measured against."""
    split = [(n_threads - n, n) for n in sorted({1, n_threads // 2}) if 0 < n < n_threads]
    both = [(n_threads, n_threads), *split, *[(n_threads, n) for _, n in split]]
    return [Way(n_threads, n_threads, False), *(Way(*pair, True) for pair in both)]


class Opened:
    """A model with threads of their own for the encoder and the decoder."""

    def __init__(self, model: str, way: Way, stack: ExitStack) -> None:
        self.vlm = stack.enter_context(edgevl.load(model, threads=way.n_decoder, store=False))
        self._way = way
        if way.n_encoder != way.n_decoder:
            other = stack.enter_context(edgevl.load(model, threads=way.n_encoder, store=False))
            self.vlm._open().encoder = other._open().encoder

    def first_token_s(self, image: bytes, detail: Detail) -> float:
        """Ask about an image; return the seconds to the first token."""
        started = time.perf_counter()
        source: Any = image if self._way.side_by_side else self.vlm.encode(image, detail=detail)
        with self.vlm.stream(source, QUESTION, detail=detail, max_tokens=1) as stream:
            next(stream, None)
            return time.perf_counter() - started


def rounds(model: str, tried: Sequence[Way], n_rounds: int, detail: Detail) -> dict[str, list[float]]:
    """Return the seconds of every way in every round, after one that does not count."""
    rng, taken = np.random.default_rng(), {way.name: list[float]() for way in tried}
    with ExitStack() as stack:
        opened = {way: Opened(model, way, stack) for way in tried}
        for way in tried:
            opened[way].first_token_s(picture(SIZE, rng), "low")
        for index in range(n_rounds):
            turn = index % len(tried)
            for way in (*tried[turn:], *tried[:turn]):
                taken[way.name].append(opened[way].first_token_s(picture(SIZE, rng), detail))
            print(f"round {index + 1} of {n_rounds}", file=sys.stderr)
    return taken


def summary(taken: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return for each way its median, and the median and range of its ratio to the first one in the same round."""
    base = next(iter(taken.values()))
    found = {}
    for name, seconds in taken.items():
        ratios = sorted(value / other for value, other in zip(seconds, base, strict=True))
        found[name] = {
            "first_token_s": statistics.median(seconds),
            "ratio": statistics.median(ratios),
            "lowest": ratios[0],
            "highest": ratios[-1],
            "seconds": seconds,
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or folder")
    parser.add_argument("--rounds", type=cold.positive, default=5)
    parser.add_argument("--detail", type=cold.positive, default=9, help="the most tiles that the picture is cut into")
    parser.add_argument("--threads", type=cold.positive, default=psutil.cpu_count(logical=False) or 1)
    settings = parser.parse_args()
    n_cores = cold.use_cores(settings.threads)
    taken = rounds(settings.model, ways(settings.threads), settings.rounds, settings.detail)
    document = {
        "what": "seconds to the first token of a new picture",
        "model": settings.model.rstrip("/").rpartition("/")[2],
        "commit": cold._commit(),
        "machine": cold.machine(n_cores),
        "settings": {"threads": settings.threads, "detail": settings.detail, "rounds": settings.rounds},
        "streaming": summary(taken),
    }
    _print(document)
    cold.write(document, "streaming")
    return 0


def _print(document: dict[str, Any]) -> None:
    print("| way | first token | against the first way |\n|---|---|---|")
    for name, found in document["streaming"].items():
        ratio = f"{found['ratio']:.2f}x ({found['lowest']:.2f} to {found['highest']:.2f})"
        print(f"| {name} | {found['first_token_s']:.2f} s | {ratio} |")


if __name__ == "__main__":
    sys.exit(main())
