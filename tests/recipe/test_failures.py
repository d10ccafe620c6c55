"""The sheet of wrong answers: their pictures and texts, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevl.recipe import failures

RED, BLUE = (250, 0, 0), (0, 0, 250)


def wrong(folder: Path, colour: tuple[int, int, int], size: tuple[int, int], given: str = "blue") -> dict[str, str]:
    path = folder / f"{colour[0]}-{size[0]}.png"
    Image.new("RGB", size, colour).save(path)
    return {"id": "1", "image": str(path), "question": "what colour is it?", "expected": "red", "given": given}


def shown(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return the box of a colour: its top, left, bottom and right."""
    ys, xs = np.nonzero((np.abs(np.asarray(sheet).astype(int) - colour) < 4).all(2))
    return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1


def test_pictures_stand_side_by_side_with_their_words_below(tmp_path: Path) -> None:
    tasks: dict[str, Any] = {
        "colours": {"wrong": [wrong(tmp_path, RED, (100, 50))]},
        "right": {"wrong": []},
        "shapes": {"wrong": [wrong(tmp_path, BLUE, (1000, 250))]},
        "chat": {"wrong": [wrong(tmp_path, (0, 250, 0), (20, 20))]},
    }
    sheet = failures.sheet(tasks)
    assert sheet.width == 2 * failures.WIDTH
    assert shown(sheet, RED) == (8, 8, 58, 108)
    assert shown(sheet, BLUE) == (8, failures.WIDTH + 8, 58, 2 * failures.WIDTH - 8), "made smaller, in proportion"
    below = np.asarray(sheet.convert("L"))[62:, : failures.WIDTH]
    assert (below < 128).any(), "there is text"
    again = failures.sheet(tasks)
    assert again.tobytes() == sheet.tobytes()
    tasks["colours"]["wrong"][0]["given"] = "green"
    assert failures.sheet(tasks).tobytes() != sheet.tobytes(), "what was given is told"


def test_a_task_has_two_and_a_row_five(tmp_path: Path) -> None:
    row = {"wrong": [wrong(tmp_path, (250, number, 0), (40, 40)) for number in range(7)]}
    assert failures._spread(row["wrong"]) == [row["wrong"][0], row["wrong"][3]]
    sheet = failures.sheet(dict.fromkeys("abc", row))
    assert sheet.width == failures.COLUMNS * failures.WIDTH
    one = failures.sheet({"a": row})
    assert sheet.height == 2 * one.height


def test_long_texts_are_shortened(tmp_path: Path) -> None:
    short = failures.sheet({"a": {"wrong": [wrong(tmp_path, RED, (40, 40))]}})
    long = failures.sheet({"a": {"wrong": [wrong(tmp_path, RED, (40, 40), "word " * 500)]}})
    assert long.height == short.height + (failures.MOST_LINES - 1) * (failures.LETTERS + 3)


def test_nothing_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"^the report holds no wrong answers; there is nothing to draw$"):
        failures.sheet({"a": {"wrong": []}})
