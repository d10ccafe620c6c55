"""The same decoders computed without their graphs, and as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from edgevl.engine.native.decoder import backend

MISSING = "no C compiler built edgevl's decoder"
How = Literal["natively", "as graphs"]
FOLDERS: dict[str, tuple[How, str | None]] = {
    "bundled int8": ("natively", None),
    "bundled int8 as a graph": ("as graphs", None),
    "random fp32": ("as graphs", "smolvlm_model_dir"),
    "random int4": ("natively", "smolvlm_int4_dir"),
    "random int4 as graphs": ("as graphs", "smolvlm_int4_dir"),
}
"""Models by decoder: how each is computed, and the fixture with its folder; None for the one that comes along."""


@contextmanager
def computed(how: How) -> Iterator[None]:
    """Let decoders that are opened meanwhile be computed in one way; skip the test where that cannot be here."""
    if how == "natively":
        if backend() is None:
            pytest.skip(MISSING)
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEVL_NATIVE", "off")
        yield
