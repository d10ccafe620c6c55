"""Fonts and words for generators, of the training part and of the held-out part."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevl.recipe.drawn import Stock

FONTS = (
    ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf", "DejaVuSerif-Italic.ttf"),
    ("DejaVuSerif.ttf", "DejaVuSansMono-Bold.ttf"),
)
WORDS = (
    "stone river lamp quickly jigsaw fjord paper window bright apply elk orange table candle zebra vivid onyx mellow "
    "quartz kettle bishop cactus dwarf ember frozen glacier hollow ivory jungle koala lizard magnet nephew oxygen "
    "puzzle quiver rocket summit turtle umbrella",
    "grape willow zephyr harvest copper yonder biscuit vortex pigment jackal sweater hinge oblique maxim rhubarb cliff",
)


def _stock(is_held_out: bool) -> Stock:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return Stock(tuple(folder / name for name in FONTS[is_held_out]), tuple(WORDS[is_held_out].split()), is_held_out)


@pytest.fixture(scope="session")
def training() -> Stock:
    """What generators draw from for training."""
    return _stock(False)


@pytest.fixture(scope="session")
def held_out() -> Stock:
    """What generators draw from for the held-out part."""
    return _stock(True)
