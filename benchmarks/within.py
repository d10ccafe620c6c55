"""How far off is what `--within` goes by? First tokens predicted and measured, over sizes of pictures and details.

    python -m benchmarks.within [--rounds 5] [--model NAME] [--awake] [--check]

Each round opens the model anew and measures this machine's profile as a user's first question does, for half a
second; then every picture is predicted and asked, with fresh noise, in this process, and once in a new process, whose
first question is slower. Compiled graphs are stored, as users have them from their second question on: every picture is
asked once before, uncounted. An error is |predicted - measured| / measured. Results go to
benchmarks/results/within-<machine>-<commit>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgevl
from benchmarks import cold
from benchmarks.awake import add_option, awake
from edgevl.bench.pictures import synthetic
from edgevl.image.read import jpeg_bytes, resize
from edgevl.types import Detail

MAX_MEDIAN_ERROR = 0.15
QUESTION = "what's here?"
SIZES = ((120, 160), (256, 256), (384, 512), (480, 640), (1080, 1920), (1536, 2048), (2400, 600))
"""(height, width) in pixels."""
DETAILS: tuple[Detail, ...] = ("low", "auto", "high")


@dataclass(frozen=True)
class Shot:
    """One question: its picture, how it was asked, and the seconds to the first token as predicted and as measured."""

    size: tuple[int, int]
    detail: Detail
    n_tiles: int
    new_process: bool
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Return |predicted - measured| / measured."""
        return abs(self.predicted_s - self.measured_s) / self.measured_s


def picture(size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Return a JPEG file of `size` that no other question has had."""
    rgb = resize(synthetic(max(size)), size, "bilinear")
    noise = rng.integers(0, 8, rgb.shape, np.uint8)
    return jpeg_bytes(np.where(rgb < 248, rgb + noise, rgb - noise))


def ask(vlm: edgevl.VLM, size: tuple[int, int], detail: Detail, rng: np.random.Generator) -> Shot:
    """Predict and ask in this process."""
    data = picture(size, rng)
    preview = vlm.preview(data, QUESTION, detail=detail)
    answer = vlm.ask(data, QUESTION, detail=detail, max_tokens=1)
    n_tiles = preview.plan.n_tiles
    return Shot(size, detail, n_tiles, False, preview.forecast.first_token_s, answer.timings.first_token_s)


def ask_anew(model: str | None, size: tuple[int, int], detail: Detail, rng: np.random.Generator, folder: Path) -> Shot:
    """Predict and ask in a new process, with a budget that any plan keeps; only graphs are stored before."""
    path = folder / "picture.jpg"
    path.write_bytes(picture(size, rng))
    cold.forget_pictures(folder / "store")
    options = ["--json", "--within", "1000s", "--detail", str(detail), "--max-tokens", "1"]
    command = [*cold.ask(path, *options, *(["--model", model] if model else []))]
    said = json.loads(subprocess.check_output(command))
    forecast, timings = said["forecast"], said["timings"]
    return Shot(size, detail, said["images"][0]["n_tiles"], True, forecast["first_token_s"], timings["first_token_s"])


def rounds(model: str | None, n_rounds: int) -> list[Shot]:
    """Run everything `n_rounds` times; profiles and the store are kept in a folder of their own."""
    rng = np.random.default_rng()
    shots = []
    cases = [(size, detail) for size in SIZES for detail in DETAILS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["EDGEVL_STORE_DIR"] = str(folder / "store")
        os.environ["EDGEVL_PROFILE_DIR"] = str(folder / "profiles-before")
        for size, detail in cases:
            ask_anew(model, size, detail, rng, folder)  # compiles what it needs
        for round_ in range(n_rounds):
            os.environ["EDGEVL_PROFILE_DIR"] = str(folder / f"profiles-{round_}")
            with edgevl.load(model) as vlm:
                vlm.preview(picture((256, 256), rng))  # measures the profile
                shots += [ask(vlm, size, detail, rng) for size, detail in cases]
            for size, detail in cases:
                shots.append(ask_anew(model, size, detail, rng, folder))
            print(f"round {round_ + 1} of {n_rounds}", file=sys.stderr)
    return shots


def summary(shots: Sequence[Shot]) -> dict[str, float]:
    """Return the median, the 90th percentile and the highest error, and the median of predicted / measured."""
    errors = sorted(shot.error for shot in shots)
    return {
        "n": len(errors),
        "median_error": statistics.median(errors),
        "p90_error": errors[int(0.9 * (len(errors) - 1))],
        "highest_error": errors[-1],
        "median_ratio": statistics.median(shot.predicted_s / shot.measured_s for shot in shots),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=cold.positive, default=5)
    parser.add_argument("--cores", type=cold.positive, default=2)
    parser.add_argument("--model", help="a model's name or folder; default: the bundled one")
    add_option(parser)
    parser.add_argument("--check", action="store_true", help="end with 1 where the limit is not kept; write no file")
    settings = parser.parse_args()
    n_cores = cold.use_cores(settings.cores)
    with awake(settings.awake):
        shots = rounds(settings.model, settings.rounds)
    results = {
        "same_process": summary([shot for shot in shots if not shot.new_process]),
        "new_process": summary([shot for shot in shots if shot.new_process]),
        "all": summary(shots),
    }
    document = {
        "what": "predicted and measured seconds to the first token",
        "model": settings.model or "bundled",
        "commit": cold._commit(),
        "machine": cold.machine(n_cores),
        "awake": settings.awake,
        "limits": {"median_error": MAX_MEDIAN_ERROR},
        "within": results,
        "shots": [asdict(shot) | {"error": shot.error} for shot in shots],
    }
    _print(document, shots)
    if settings.check:
        return int(results["all"]["median_error"] >= MAX_MEDIAN_ERROR)
    cold.write(document, "within")
    return 0


def _print(document: dict[str, Any], shots: Sequence[Shot]) -> None:
    about = document["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; commit {document['commit']}\n")
    print("| picture | detail | tiles | process | measured | predicted | median error |\n|---|---|---|---|---|---|---|")
    for size, detail, is_new in dict.fromkeys((shot.size, shot.detail, shot.new_process) for shot in shots):
        same = [s for s in shots if (s.size, s.detail, s.new_process) == (size, detail, is_new)]
        measured, predicted, error = (
            statistics.median(getattr(shot, name) for shot in same) for name in ("measured_s", "predicted_s", "error")
        )
        print(
            f"| {size[1]}x{size[0]} | {detail} | {same[0].n_tiles} | {'new' if is_new else 'same'} "
            f"| {measured * 1e3:.0f} ms | {predicted * 1e3:.0f} ms | {error:.1%} |"
        )
    for name, found in document["within"].items():
        print(
            f"\n{name.replace('_', ' ')}: median error {found['median_error']:.1%}, 90 % of errors below "
            f"{found['p90_error']:.1%}, predicted / measured {found['median_ratio']:.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
