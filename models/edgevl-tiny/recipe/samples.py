"""Draws the sample pictures of `models/samples` with the recipe's own generator, from fixed seeds.

    python -m edgevl.recipe.samples models/samples --fonts DIR

DIR is a folder, at any depth, with DejaVuSans.ttf; it is only needed for the printed word.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from .scenes import Scene, Thing, make_scene, render, render_word

FONT = "DejaVuSans.ttf"
WORD = "open"
SEEDS = {"shapes": 3, "counting": 8, "relation": 11, "wide": 8, "word": 5}
"""Chosen so that the grounds are light and the word lies well inside its picture."""


def shapes() -> Image.Image:
    """Draw three different things, from left to right: 512x512."""
    side = 512
    places = (("circle", "red", 0.27, 0.18), ("square", "blue", 0.72, 0.5), ("triangle", "green", 0.3, 0.82))
    things = tuple(Thing(shape, colour, y * side, x * side, 0.145 * side, 0.0, True) for shape, colour, y, x in places)
    return render(Scene(side, side, things), random.Random(SEEDS["shapes"]), plain=True)


def counting() -> Image.Image:
    """Draw five things of one kind: 256x256."""
    rng = random.Random(SEEDS["counting"])
    return render(make_scene(rng, [("heart", "purple")] * 5, (256, 256), [True] * 5), rng, plain=True)


def relation() -> Image.Image:
    """Draw two things, one to the left of and above the other: 256x256."""
    side = 256
    things = (
        Thing("arrow", "orange", 0.3 * side, 0.26 * side, 0.19 * side, 0.1, True),
        Thing("moon", "blue", 0.7 * side, 0.72 * side, 0.19 * side, 0.0, True),
    )
    return render(Scene(side, side, things), random.Random(SEEDS["relation"]))


def wide() -> Image.Image:
    """Draw three things side by side: 384 pixels wide and 192 high."""
    height, width = 192, 384
    places = (("ring", "green", 0.45, 0.17), ("cross", "red", 0.55, 0.5), ("diamond", "black", 0.45, 0.83))
    things = tuple(
        Thing(shape, colour, y * height, x * width, 0.27 * height, 0.0, True) for shape, colour, y, x in places
    )
    return render(Scene(height, width, things), random.Random(SEEDS["wide"]), plain=True)


def word(fonts: Path) -> Image.Image:
    """Print a word: 256 pixels wide and 128 high. Raises FileNotFoundError where `fonts` lacks the font."""
    found = sorted(fonts.rglob(FONT))
    if not found:
        raise FileNotFoundError(f"{fonts}: holds no {FONT}")
    return render_word(random.Random(SEEDS["word"]), WORD, found[:1], (128, 256))


def draw(fonts: Path) -> dict[str, Image.Image]:
    """Draw every sample; the keys are their file names."""
    return {
        "shapes.png": shapes(),
        "counting.png": counting(),
        "relation.png": relation(),
        "wide.png": wide(),
        "word.png": word(fonts),
    }


def main() -> None:
    """Write the samples into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fonts", type=Path, required=True, help=f"folder with {FONT}")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, picture in draw(options.fonts).items():
        picture.save(options.folder / name, optimize=True)


if __name__ == "__main__":
    main()
