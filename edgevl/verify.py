"""Check a model folder on this machine: every file's hash, then the recorded pictures again.

The export recorded what this runtime made of a few pictures: their features and the greedy answer to a question.
Int8 kernels differ a little between CPUs, so the verdict is on the features' cosine, not on equal tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import ModelError
from edgevl.model import manifest
from edgevl.model.manifest import Golden, Manifest
from edgevl.pipeline import VLM

MIN_COSINE = 0.999
"""Lowest mean cosine between recorded and recomputed features of a picture."""


@dataclass(frozen=True)
class GoldenResult:
    """One recorded picture, asked again: mean feature cosine, share of equal tokens, and the answer's text."""

    image: str
    question: str
    feature_cosine: float
    equal_tokens: float
    text: str


@dataclass(frozen=True)
class VerifyReport:
    """The outcome: `n_files` of `n_bytes` together have the right hashes; `results` has a row per recorded answer."""

    model: str
    n_files: int
    n_bytes: int
    results: tuple[GoldenResult, ...]

    @property
    def feature_cosine(self) -> float:
        """The lowest cosine of all pictures; 1 where nothing is recorded."""
        return min((result.feature_cosine for result in self.results), default=1.0)

    @property
    def equal_tokens(self) -> float:
        """The mean share of equal tokens; 1 where nothing is recorded."""
        shares = [result.equal_tokens for result in self.results]
        return sum(shares) / len(shares) if shares else 1.0

    @property
    def ok(self) -> bool:
        """Whether this machine computes what the exporting one did."""
        return self.feature_cosine >= MIN_COSINE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the verdict."""
        return {
            **asdict(self),
            "feature_cosine": self.feature_cosine,
            "equal_tokens": self.equal_tokens,
            "ok": self.ok,
        }


def verify(folder: Path, *, device: str = "auto", threads: int | None = None) -> VerifyReport:
    """Check the hashes of the model in `folder`, run its recorded pictures, and report.

    Raises ModelNotFound, ManifestError or ChecksumMismatch, naming the file, for a folder that is damaged, and
    ModelError for recorded pictures that cannot be read. A low cosine raises nothing: see `VerifyReport.ok`.
    """
    spec = manifest.read(folder)
    manifest.check_hashes(spec, folder)
    return VerifyReport(
        model=spec.name,
        n_files=len(spec.files),
        n_bytes=sum(file.n_bytes for file in spec.files.values()),
        results=_results(spec, folder, device, threads),
    )


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows along the last axis; two zero rows are equal (1)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = ~a.any(axis=-1) & ~b.any(axis=-1)
    products = np.where(both_zero, 1.0, (a * b).sum(axis=-1))
    ratio: NDArray[np.float64] = products / np.where(lengths == 0, 1.0, lengths)
    return ratio


def equal_share(got: Sequence[int], wanted: Sequence[int]) -> float:
    """Return the share of places where two answers have the same token, of the longer one's length."""
    n = max(len(got), len(wanted))
    return sum(a == b for a, b in zip(got, wanted, strict=False)) / n if n else 1.0


def _results(spec: Manifest, folder: Path, device: str, threads: int | None) -> tuple[GoldenResult, ...]:
    if spec.golden is None:
        return ()
    recorded = _read(folder / spec.golden.file)
    with VLM(folder, device=device, threads=threads, store=False) as vlm:
        return tuple(_ask(vlm, golden, recorded, folder / spec.golden.file) for golden in spec.golden.answers)


def _ask(vlm: VLM, golden: Golden, recorded: dict[str, NDArray[Any]], path: Path) -> GoldenResult:
    try:
        picture, wanted = recorded[f"{golden.image}.picture"], recorded[f"{golden.image}.features"]
    except KeyError as error:
        raise ModelError(f"{path}: lacks {error}, which {manifest.FILE_NAME} names; export the model again") from error
    features = vlm.encode(picture)
    got = np.stack(features.tiles)  # [n_tiles, tokens_per_tile, hidden]
    if got.shape != wanted.shape:
        raise ModelError(
            f"{path}: {golden.image}: recorded features are {list(wanted.shape)}, computed {list(got.shape)}; "
            "export the model again with this version"
        )
    answer = vlm.ask(features, golden.question, max_tokens=max(len(golden.token_ids), 1))
    return GoldenResult(
        image=golden.image,
        question=golden.question,
        feature_cosine=float(cosine(got, wanted).mean()),
        equal_tokens=equal_share(answer.token_ids, golden.token_ids),
        text=answer.text,
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _numbers(name, arrays[name]) for name in arrays.files}
    except Exception as error:  # archive, compression and header each have errors of their own
        raise ModelError(f"{path}: is not a readable .npz file ({error}); export the model again") from error


def _numbers(name: str, array: Any) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uf" or not np.isfinite(array).all():
        raise ValueError(f"{name} is no array of finite numbers")
    return array
