"""Peers are opened in the tests' own process here, not in one of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Let PyTorch compute gradients again after a peer, which needs none, has told it not to."""
    yield
    if "torch" in sys.modules:
        import torch

        torch.set_grad_enabled(True)
