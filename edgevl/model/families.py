"""The table of model families: a family is a row, a strategy is a function.

A row names the tiling strategy and the text that stands around an image's tiles. Sizes, counts and
normalisation differ inside a family and come from the model's manifest.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgevl.errors import UnsupportedFamily


@dataclass(frozen=True)
class Layout:
    """The text around an image's tiles; `{image}` stands for one tile's image tokens.

    `start` is written before the grid, `cell` for each of its tiles (with `{row}` and `{col}`, from 1), `row_end` after
    each row, `overview` after the grid, and `single` alone where the overview is the only tile.
    """

    cell: str
    row_end: str
    overview: str
    single: str
    start: str = ""


@dataclass(frozen=True)
class Family:
    """One row: how images are cut (a name in `edgevl.image.tiling.TILINGS`) and laid out as text."""

    name: str
    tiling: str
    image_token: str
    layout: Layout


FAMILIES = {
    row.name: row
    for row in (
        # Idefics3, SmolVLM, SmolVLM2. Source: transformers 5, models/idefics3/processing_idefics3.py.
        Family(
            name="idefics3",
            tiling="split_grid",
            image_token="<image>",
            layout=Layout(
                cell="<fake_token_around_image><row_{row}_col_{col}>{image}",
                row_end="\n",
                overview="\n<fake_token_around_image><global-img>{image}<fake_token_around_image>",
                single="<fake_token_around_image><global-img>{image}<fake_token_around_image>",
            ),
        ),
        # LLaVA-1.5. Source: transformers 5, models/llava/processing_llava.py.
        Family(
            name="llava",
            tiling="centre_square",
            image_token="<image>",
            layout=Layout(cell="{image}", row_end="", overview="{image}", single="{image}"),
        ),
        # InternVL3. Source: transformers 5, models/internvl/processing_internvl.py.
        Family(
            name="internvl",
            tiling="closest_grid",
            image_token="<IMG_CONTEXT>",
            layout=Layout(
                start="<img>",
                cell="{image}",
                row_end="",
                overview="{image}</img>",
                single="<img>{image}</img>",
            ),
        ),
        # The model that edgevl brings along. Source: models/edgevl-tiny/recipe.
        Family(
            name="edgevl-tiny",
            tiling="split_grid",
            image_token="<image>",
            layout=Layout(
                cell="<row_{row}_col_{col}>{image}",
                row_end="",
                overview="<global-img>{image}",
                single="<global-img>{image}",
            ),
        ),
    )
}


def family(name: str, where: str) -> Family:
    """Return the row called `name`; raise UnsupportedFamily, naming `where` it was asked for."""
    if name not in FAMILIES:
        raise UnsupportedFamily(
            f"{where}: family {name!r} is not known to this version (it knows {', '.join(sorted(FAMILIES))}); "
            "upgrade with: pip install -U edgevl"
        )
    return FAMILIES[name]
