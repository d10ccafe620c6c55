"""Record what the runtime makes of a few drawn pictures, for `edgevl verify` to compare on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import ContextOverflow
from edgevl.model.manifest import Golden, GoldenSpec
from edgevl.pipeline import VLM

from .samples import drawn

FILE = "golden.npz"
QUESTION = "What is in this image?"
MAX_TOKENS = 16


def record(folder: Path) -> GoldenSpec:
    """Ask the model in `folder` about two drawn pictures and write them with their features into it.

    One picture fits a tile, the other is two tiles wide, so that both layouts of the prompt are run; one that does not
    fit into the model's context is left out.
    """
    arrays: dict[str, NDArray[Any]] = {}
    answers: list[Golden] = []
    with VLM(folder, store=False) as vlm:
        tile = vlm.manifest.image.tile
        for name, size in (("small", (72, 96)), ("wide", (tile, 2 * tile))):
            picture = drawn(size, seed=len(answers))
            features = vlm.encode(picture)
            try:
                answer = vlm.ask(features, QUESTION, max_tokens=MAX_TOKENS)
            except ContextOverflow:
                continue
            arrays[f"{name}.picture"] = picture
            arrays[f"{name}.features"] = np.stack(features.tiles).astype(np.float16)
            answers.append(Golden(image=name, question=QUESTION, token_ids=answer.token_ids))
    np.savez_compressed(folder / FILE, allow_pickle=False, **arrays)
    return GoldenSpec(file=FILE, answers=tuple(answers))
