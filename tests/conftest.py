"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("edgevl", deadline=None)  # a busy machine is not a failure
settings.load_profile("edgevl")

SHARED = Path(os.environ.get("EDGEVL_SHARED") or Path(__file__).parents[2] / "shared")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with photos and hostile files that the repository does not hold; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}; set EDGEVL_SHARED to its path")
    return SHARED
