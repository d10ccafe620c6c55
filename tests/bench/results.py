"""Results of measurements that nobody made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgevl.bench.result import Result, Row
from edgevl.machine import Machine

MACHINE = Machine(
    cpu="Some <CPU>",
    features=("AVX2", "VNNI"),
    n_cores=4,
    n_usable=8,
    memory_bytes=16_000_000_000,
    system="Linux 6 x86_64",
    python="CPython 3.11.7",
    versions={"edgevl": "0.1.0", "onnxruntime": "1.31.1"},
)
TYPICAL = {
    "read_s": 0.004,
    "tile_s": 0.006,
    "encode_s": 0.011,
    "prefill_tokens_per_s": 3000.0,
    "first_token_s": 0.09,
    "decode_tokens_per_s": 500.0,
    "peak_memory_bytes": 1.2e8,
}

ONCE = "peak_memory_bytes"
OF_ANY = {"encode_at_once_s": 0.009, "decode_128_tokens_per_s": 600.0, "decode_1024_tokens_per_s": 450.0}


def row(size: tuple[int, int] = (512, 512), threads: int = 2, n: int = 7, seed: int = 0, **factors: float) -> Row:
    """Return a row of `n` rounds with 2 % of noise; `factors` multiply a stage's typical value."""
    rng = np.random.default_rng([seed, *size, threads])
    values = {
        key: [value * factors.get(key, 1.0) * float(rng.normal(1, 0.02)) for _ in range(1 if key == ONCE else n)]
        for key, value in TYPICAL.items()
    }
    return Row(size, threads, 5, 92, values)


def row_of_any(threads: int = 2, n: int = 7, seed: int = 0, **factors: float) -> Row:
    """Return what does not depend on a picture, as `row` does."""
    rng = np.random.default_rng([seed, threads])
    values = {
        key: [value * factors.get(key, 1.0) * float(rng.normal(1, 0.02)) for _ in range(n)]
        for key, value in OF_ANY.items()
    }
    return Row(None, threads, 0, 0, values)


def result(rows: list[Row] | None = None, **changes: Any) -> Result:
    """Return a whole result."""
    made = Result(
        created="2026-01-02T03:04:05+00:00",
        machine=MACHINE,
        model="a-model",
        model_id="ab" * 32,
        picture="made",
        rounds=7,
        yardstick_s=[0.02, 0.0201, 0.0202, 0.0199, 0.0198],
        rows=[row()] if rows is None else rows,
    )
    return replace(made, **changes)
