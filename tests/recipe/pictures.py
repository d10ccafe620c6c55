"""Small packs in the layout of the recipe's: photos, emoji and NLVR pictures."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from edgevl.recipe import packs
from edgevl.recipe.boxes import make_boxes, render
from edgevl.recipe.colours import SHADES

EMOJI_COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
Row = tuple[Image.Image, dict[str, Any]]


def write_packs(folder: Path) -> None:
    """Write every pack that the recipe reads into `folder`."""
    folder.mkdir()
    write_emoji(folder / "emoji.zip")
    write_nlvr(folder / "nlvr.zip")
    for name in packs.PACKS:
        write_photos(folder / f"{name}.zip", packs.PACKS[name])


def write_photos(path: Path, pack: packs.Pack) -> None:
    """Write 20 photos of two classes of one kind, noise in one colour or the other."""
    numbers = np.random.default_rng(len(pack.name))
    rows = []
    for number in range(20):
        rgb = numbers.integers(0, 90, (24, 24, 3), np.uint8) + np.uint8([0, 150][number % 2])
        label: Any = ("ace", "king")[number % 2]
        labels = {pack.field: [label] if pack.field == "cards" else label}
        rows.append((Image.fromarray(rgb), {**labels, pack.kind: "court"} if pack.kind else labels))
    _write(path, rows)


def write_emoji(path: Path) -> None:
    """Write 120 discs in six colours, each with a name of its own, two flags, and two that have no fit name."""
    rows = []
    for number in range(124):
        picture = Image.new("RGBA", (40, 40))
        shade = SHADES[EMOJI_COLOURS[number % 6]][0][0]
        ImageDraw.Draw(picture).ellipse((4, 4, 35, 35), fill=(*shade, 255))
        unfit = {120: "Germany", 121: "squared ok", 122: "Korea, Republic of", 123: "face with ok gesture"}
        label = unfit.get(number, f"thing{number}")
        rows.append((picture, {"label": label, "kind": "flag" if number in (120, 122) else "emoji"}))
    _write(path, rows, "emoji/")


def write_nlvr(path: Path) -> None:
    """Write 60 pictures with 30 sentences, each once true and once false."""
    rows = []
    for number in range(60):
        answer = "true" if number % 2 else "false"
        picture = render(make_boxes(random.Random(number), towers=False))
        rows.append((picture, {"sentence": f"There is box {number // 2}.", "answer": answer}))
    _write(path, rows)


def _write(path: Path, rows: Iterable[Row], folder: str = "") -> None:
    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for number, (picture, label) in enumerate(rows):
            content = io.BytesIO()
            picture.save(content, "PNG")
            archive.writestr(f"{folder}{number}.png", content.getvalue())
            labels.append(json.dumps({"file": f"{folder}{number}.png", **label}))
        archive.writestr("labels.jsonl", "\n".join(labels))
