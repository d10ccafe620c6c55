"""What bounds each figure of the comparison on this machine: what it needs at least, and what it takes, by kernel.

    python -m benchmarks.profile [--model 256m|500m|tiny] [--threads N] [--turns 5] [--awake] [--quick]

First, and last, what the machine reaches in large pieces of work with all threads: reading memory, and multiplying
matrices in int8, bfloat16 and float32. Between, on the checkpoint, pictures and exports of `benchmarks.compare`: a
tile, a prompt, a token with 128, 1,024 and 4,096 tokens held at 4 and 8 bits, and the first word of a new picture. Of
each is told how many operations and bytes it needs, counted from the shapes of its graphs, the seconds that these would
take at what the machine reached, the seconds that it takes, and where these go. Tiles and prompts are bound by
operations, tokens by reading weights and KV cache. A profiler makes kernels slower, small ones above all. Results go to
benchmarks/results/<machine>-<commit>-profile-<model>.json, from which tests/readme.py makes the README's table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks import report, stolen
from benchmarks.awake import add_option, awake
from benchmarks.bounds import Figure, decoder, document, encoder, first_word, peaks
from benchmarks.cold import ROOT, _commit, machine, positive, slug, use_cores
from benchmarks.compare import Amount, make
from benchmarks.peers import CONTEXTS, VARIANTS, Variant, own
from benchmarks.peers.case import MODELS, Absent, Case

INT4, INT8 = (
    next(variant for variant in VARIANTS if variant.name == report.OURS.format(bits)) for bits in ("int4", "int8")
)
T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much is measured: turns of everything, tiles and tokens in a turn, tokens held, and for peaks the sizes."""

    n_turns: int
    n_tiles: int
    n_tokens: int
    contexts: tuple[int, ...]
    sizes: peaks.Sizes


def quick() -> Effort:
    """Return what tries the script out."""
    return Effort(2, 2, 4, CONTEXTS[:1], peaks.Sizes(n_bytes=1 << 26, side=256, n_turns=2))


def full(n_turns: int) -> Effort:
    """Return what results are made of."""
    return Effort(n_turns, 4, 24, CONTEXTS, peaks.Sizes(n_turns=n_turns))


def measure(case: Case, effort: Effort) -> dict[str, Any]:
    """Measure everything, each piece in a process of its own, one after the other; return peaks and figures.

    Peaks are measured before and after the figures: other work on the machine is not always the same.
    """
    before = _apart(case, peaks.measure, effort.sizes, case.n_threads)
    for variant in (INT4, INT8):
        _apart(case, own.build, case, variant)
    tile = _apart(case, encoder.tile, case, INT4, effort.n_tiles, effort.n_turns)
    prompt = _apart(case, decoder.prompt, case, INT4, effort.n_turns)
    tokens = [figure for variant in (INT4, INT8) for figure in _tokens(case, variant, effort)]
    word = _apart(case, first_word.first_word, case, INT4, effort.n_turns)
    word = first_word.needing(word, tile, prompt, case.prompt["n_tiles"])
    after = _apart(case, peaks.measure, effort.sizes, case.n_threads)
    found = document.peaks_of(peaks.joined(before, after))
    return {"peaks": found, "figures": [document.figure_of(one, found) for one in (tile, prompt, *tokens, word)]}


def _tokens(case: Case, variant: Variant, effort: Effort) -> list[Figure]:
    return _apart(case, decoder.tokens, case, variant, effort.contexts, effort.n_tokens, effort.n_turns)


def _apart(case: Case, work: Callable[..., T], *arguments: Any) -> T:
    """Return what `work` does, done in a process that has not run anything else."""
    print(f"{work.__module__.rpartition('.')[2]}: {work.__name__.replace('_', ' ')}", file=sys.stderr, flush=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(case.n_threads, case.path("store"))) as pool:
        return pool.submit(work, *arguments).result()


def _begin(n_threads: int, store: Path) -> None:
    """Give this process the comparison's threads and a store that is not the user's, and keep it off the network."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(n_threads))
    os.environ |= {"EDGEVL_STORE_DIR": str(store), "HF_HUB_OFFLINE": "1"}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EDGEVL_SHARED") or ROOT.parent / "shared")
    parser.add_argument("--model", choices=MODELS, default="256m")
    parser.add_argument("--threads", type=positive, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--turns", type=positive, default=5)
    add_option(parser)
    parser.add_argument("--quick", action="store_true", help="2 turns of 5 tiles, and no file in benchmarks/results")
    parser.add_argument("--shared", type=Path, default=shared, help="published configurations; default: EDGEVL_SHARED")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the results."""
    settings = parse(arguments)
    is_trial = settings.quick or settings.model.startswith("tiny")
    effort = quick() if settings.quick else full(settings.turns)
    n_cores = use_cores(settings.threads)
    case = Case(settings.model, settings.shared.resolve(), settings.threads, grid=2 if settings.quick else 4)
    try:
        make(case, Amount(effort.n_turns + 1, effort.n_tiles, effort.n_tokens, effort.contexts), None)
    except Absent as error:
        print(f"skipped: {settings.model}: {error}")
        return 1
    commit, before = _commit(), stolen.used()
    with awake(settings.awake):
        measured = measure(case, effort)
    found = {
        "what": "what bounds the figures of the comparison: needs over this machine's peaks, and seconds by kernel",
        "model": case.model,
        "commit": commit,
        "machine": {**machine(n_cores), **report._versions()},
        "settings": {
            "threads": case.n_threads,
            "tiles": case.prompt["n_tiles"],
            "prompt_tokens": case.prompt["n_tokens"],
            **asdict(effort),
            "awake": settings.awake,
        },
        "noise": {"stolen_share": stolen.share(before, stolen.used())},
        **measured,
    }
    print(f"\n{document.section(found)}")
    path = write(found, case.folder if is_trial else ROOT / "benchmarks" / "results")
    print(f"written: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return 0


def write(found: dict[str, Any], folder: Path) -> Path:
    """Write the results to `folder`; return their path."""
    about = found["machine"]
    name = slug(f"{about['cpu']} {about['cores']} cores")
    path = folder / f"{name}-{found['commit']}-profile-{found['model']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
