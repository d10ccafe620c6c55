"""The same decoders computed without their graphs, and as graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from edgevl.engine.native.decoder import backend

MISSING = "no C compiler built edgevl's decoder"
How = Literal["natively", "as graphs"]


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
