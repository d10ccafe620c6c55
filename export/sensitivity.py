"""Which MatMuls to keep in float32 so that an int8 vision graph reaches a wanted fidelity.

Each linear layer is quantized alone, simulated in PyTorch, and its damage (1 - mean cosine of the features) is
measured. Such damages nearly add up, so a short head of the ranking is usually enough; the real graph is then
quantized and measured, and more is kept until it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgevl.engine.graph import Graph
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import ExportError
from edgevl.verify import cosine

from .fidelity import Sample, feature_cosines
from .vision import matmul_names, quantize_int8

GROWTH = 1.5
"""How much longer the list of kept MatMuls gets when it was too short."""

SMALL_TILE = 256
"""Tiles up to this side (pixels) are cheap: four are measured instead of one."""


def quantize_to(
    wanted: float,
    model: nn.Module,
    samples: Sequence[Sample],
    source: Path,
    path: Path,
    progress: Callable[[float], None],
) -> tuple[str, ...]:
    """Quantize `source` to `path` with mean feature cosine of at least `wanted`; return the MatMuls kept in float32.

    Raises ExportError if not even the float32 graph reaches it.
    """
    names = matmul_names(source)
    lost = 1 - _quantized_cosine(source, path, (), samples)
    if lost <= 1 - wanted:
        return ()
    damage = _damages(model, names, samples, progress)
    ranked = sorted(names, key=lambda name: (-damage[name], name))
    n_kept = _first_guess([damage[name] for name in ranked], lost, 1 - wanted)
    while True:
        kept = tuple(ranked[:n_kept])
        reached = _quantized_cosine(source, path, kept, samples)
        if reached >= wanted:
            return kept
        if n_kept == len(names):
            raise ExportError(
                f"fidelity: {wanted} cannot be reached, the float32 graph itself has {reached:.7f}; ask for less"
            )
        n_kept = min(len(names), max(n_kept + 1, round(n_kept * GROWTH)))


def encoder(path: Path) -> VisionEncoder:
    """Open a vision graph on the CPU."""
    return VisionEncoder(Graph(path))


def _quantized_cosine(source: Path, path: Path, kept: tuple[str, ...], samples: Sequence[Sample]) -> float:
    quantize_int8(source, path, kept)
    return float(feature_cosines(samples, encoder(path).encode).mean())


def _first_guess(ranked: Sequence[float], lost: float, allowed: float) -> int:
    """Return how many of the largest damages to remove so that the rest, scaled to what was lost, is allowed."""
    rest = np.array(ranked)[::-1].cumsum()[::-1]  # damage that remains when the first i are kept
    fits = np.flatnonzero(rest * lost / max(rest[0], 1e-30) <= allowed)
    return max(1, int(fits[0]) if len(fits) else len(ranked))


@torch.no_grad()
def _damages(
    model: nn.Module, names: Sequence[str], samples: Sequence[Sample], progress: Callable[[float], None]
) -> dict[str, float]:
    """Return 1 - mean feature cosine for each of `names` quantized alone."""
    tile = samples[0].tiles[0].shape[-1]
    chosen = [(one.tiles[-1], one.features[-1]) for one in samples][: 4 if tile <= SMALL_TILE else 1]
    batch = torch.from_numpy(np.concatenate([pixel_values for pixel_values, _ in chosen]))
    wanted = np.stack([features for _, features in chosen])
    modules = dict(model.named_modules())
    damage = {}
    for index, name in enumerate(names):
        hook = modules[name].register_forward_hook(_as_int8)
        try:
            damage[name] = 1 - float(cosine(model(batch).numpy(), wanted).mean())
        finally:
            hook.remove()
        progress((index + 1) / len(names))
    return damage


def _as_int8(module: nn.Module, args: tuple[Any, ...], _: Any) -> torch.Tensor:
    """Compute a linear layer as the int8 graph does: weights per output channel, activations per tile."""
    linear = cast("nn.Linear", module)
    weight_scale = linear.weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    weight = (linear.weight / weight_scale).round() * weight_scale
    values = args[0]
    dims = tuple(range(1, values.ndim))
    low, high = values.amin(dim=dims, keepdim=True).clamp_max(0), values.amax(dim=dims, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(1e-12) / 255
    zero = (-low / scale).round()
    rounded = ((values / scale + zero).round().clamp(0, 255) - zero) * scale
    return F.linear(rounded, weight, linear.bias)
