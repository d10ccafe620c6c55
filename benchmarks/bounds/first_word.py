"""The first word of a new picture, part by part, as `edgevl ask` comes to it: encoder and decoder take turns."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import edgevl
from benchmarks.bounds import Figure, Kind, Needs, times, total
from benchmarks.compare import _copy_compiled
from benchmarks.peers import Variant, own
from benchmarks.peers.case import QUESTION, Case

READING, CUTTING, OPENING, ENCODING = "reading the file", "cutting", "opening the encoder", "encoding"
DECODER, PROMPT, REST = "opening the decoder", "the prompt", "the rest"
BESIDE = (CUTTING, OPENING)
"""Two threads begin with one of these each, so that the first word waits for the longer one alone."""


def first_word(case: Case, variant: Variant, n_turns: int) -> Figure:
    """Ask about a new picture in each turn, by a model just opened whose compiled graphs are kept; one more is first.

    What it needs is for the caller to fill in (`needing`).
    """
    rounds = []
    for turn in range(n_turns + 1):
        with tempfile.TemporaryDirectory(prefix="edgevl-profile-") as folder:
            store = Path(folder) / "store"
            _copy_compiled(case.path("store"), store)
            rounds.append(_parts(case, variant, turn, case.path("store") if turn == 0 else store))
    counted = rounds[1:]  # before the first one there may be no compiled graph to copy
    names = list(counted[0][1])
    kinds = {name: Kind([parts[name] for _, parts in counted]) for name in names}
    what = f"the first word of a new picture, {case.prompt['n_tiles']} tiles"
    by = f"edgevl, {variant.settings['decoder']} decoder"
    return Figure(what, by, [whole for whole, _ in counted], {}, kinds, by)


def needing(figure: Figure, tile: Figure, prompt: Figure, n_tiles: int) -> Figure:
    """Return the first word with what its tiles and its prompt need."""
    of_parts: dict[str, Needs] = {ENCODING: times(tile.needs, n_tiles), PROMPT: dict(prompt.needs)}
    kinds = {name: Kind(kind.seconds, of_parts.get(name, {})) for name, kind in figure.kinds.items()}
    return Figure(figure.what, figure.by, figure.seconds, total(list(of_parts.values())), kinds, figure.kinds_by)


def _parts(case: Case, variant: Variant, turn: int, store: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds to the first word of picture number `turn`, and those of its parts."""
    with edgevl.load(own.folder(case, variant), threads=case.n_threads, low_memory=True, store=store) as vlm:
        model = vlm._open()
        opened, ends = _Opening(model.encoder), list[float]()
        load_s = model.load_s
        with vlm.stream(
            case.photo(turn),
            QUESTION,
            detail="high",
            max_tokens=1,
            on_tile=lambda done, n: ends.append(time.perf_counter()),
        ) as stream:
            answer = stream.finish()
    timings = answer.timings
    parts = {
        READING: timings.read_s,
        CUTTING: timings.tile_s,
        OPENING: opened.seconds,
        # a tile that is cut before the encoder is open waits for it, which edgevl counts as encoding
        ENCODING: min(timings.encode_s, ends[-1] - opened.end) if opened.end else timings.encode_s,
        DECODER: timings.load_s - load_s,
        PROMPT: timings.prefill_s,
    }
    waited = sum(parts.values()) - min(parts[name] for name in BESIDE)
    return timings.first_token_s, {**parts, REST: max(timings.first_token_s - waited, 0.0)}


class _Opening:
    """Notes how long the encoder's `open` takes the first time, and when it ends; until then both are 0."""

    def __init__(self, encoder: Any) -> None:
        self.seconds = self.end = 0.0
        self._open = encoder.open
        encoder.open = self

    def __call__(self, *arguments: Any) -> None:
        """Open it."""
        started = time.perf_counter()
        self._open(*arguments)
        if not self.end:
            self.end = time.perf_counter()
            self.seconds = self.end - started
