"""What the bundled model answers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import edgevl
from tests.eval.datasets import SAMPLES

ASKED = {
    ("shapes", "what's here?"): "description",
    ("shapes", "what shape is blue?"): "shape",
    ("relation", "how many objects are there?"): "counting",
    ("counting", "how many objects are there?"): "counting",
    ("word", "what's here?"): "description",
}


@pytest.fixture(scope="session")
def answers() -> Mapping[tuple[str, str], str]:
    """What the bundled model answers to questions (picture, question), asked as users ask with --detail low."""
    with edgevl.load(store=False) as vlm:
        return {(name, asked): vlm.ask(SAMPLES / f"{name}.png", asked, detail="low").text for name, asked in ASKED}
