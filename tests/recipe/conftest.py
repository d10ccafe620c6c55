"""Fonts and words for generators, of the training part and of the held-out part, and all that training draws from."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevl.recipe import packs
from edgevl.recipe.data import Paths
from edgevl.recipe.drawn import Stock
from tests.recipe.pictures import write_packs

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


def _fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _stock(is_held_out: bool) -> Stock:
    return Stock(tuple(_fonts() / name for name in FONTS[is_held_out]), tuple(WORDS[is_held_out].split()), is_held_out)


@pytest.fixture(scope="session")
def training() -> Stock:
    """What generators draw from for training."""
    return _stock(False)


@pytest.fixture(scope="session")
def held_out() -> Stock:
    """What generators draw from for the held-out part."""
    return _stock(True)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Small packs of every kind in `packs`, their cache, fonts and a word list."""
    folder = tmp_path_factory.mktemp("places")
    write_packs(folder / "packs")
    for name in packs.PACKS:
        packs.build_cache(folder / "packs", folder / "cache", name)
    made = [f"{a}{b}{c}{d}" for a in "bcdfglmnprst" for b in "aeiou" for c in "lmnrst" for d in ("", "e", "y")]
    (folder / "words").write_text("\n".join([*made, *" ".join(WORDS).split()]) + "\n", encoding="utf-8")
    return Paths(folder / "packs", folder / "cache", _fonts(), folder / "words")
