"""Near-duplicates: altered copies of a photo are found among others, and others are not taken for copies."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgevl.recipe import duplicates, nlvr, packs

PACK = packs.PACKS["flowers"]
COPIES = {
    **{what: duplicates.ALTERED[what] for what in ("jpeg 50", "half", "squeezed", "brighter", "darker")},
    "cropped 2 %": lambda rng, picture: duplicates._cropped(rng, picture, 0.02),
    "mirrored": lambda _, picture: ImageOps.mirror(picture),
}


def photo(seed: int) -> Image.Image:
    """Draw coarse and fine blobs, as photos have them: 160x120 pixels."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        )
        for n in (3, 6, 14, 40)
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=(4, 3, 2, 1)).astype(np.uint8))


def names(is_held_out: bool, n: int) -> list[str]:
    """Return names that the split puts into one part."""
    every = (f"{number}.png" for number in range(1000))
    return [name for name in every if packs.is_held_out(PACK, name) == is_held_out][:n]


def write_pack(folder: Path, pictures: Mapping[str, Image.Image]) -> None:
    with zipfile.ZipFile(folder / f"{PACK.name}.zip", "w") as archive:
        for name, picture in pictures.items():
            content = io.BytesIO()
            picture.save(content, "PNG", compress_level=1)
            archive.writestr(name, content.getvalue())
        archive.writestr("labels.jsonl", "\n".join(json.dumps({"file": name, "label": "x"}) for name in pictures))


def test_planted_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(0)
    held_out = {name: photo(seed) for seed, name in enumerate(names(True, 30))}
    copies = {
        name: (original, alter(rng, held_out[original]))
        for name, original, alter in zip(names(False, 7), held_out, COPIES.values(), strict=False)
    }
    others = {name: photo(100 + seed) for seed, name in enumerate(names(False, 67)[7:])}
    write_pack(tmp_path, {**held_out, **{name: copy for name, (_, copy) in copies.items()}, **others})
    found = duplicates.pairs(tmp_path, PACK.name)
    assert {(pair.training, pair.held_out) for pair in found} == {(name, of) for name, (of, _) in copies.items()}
    assert max(pair.distance for pair in found) <= duplicates.NEAR
    write_nlvr(tmp_path / "nlvr.zip", [])
    assert duplicates.to_leave_out(tmp_path, [PACK.name]) == {PACK.name: sorted(copies), "nlvr": []}


def write_nlvr(path: Path, rows: list[dict[str, Any]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.jsonl", "\n".join(json.dumps(row) for row in rows))


def test_the_same_boxes_in_another_order_are_found(tmp_path: Path) -> None:
    sentences = [f"there is a box with {number} items" for number in range(40)]
    kept, *_ = (one for one in sentences if nlvr.is_held_out(one))
    trained, *_ = (one for one in sentences if not nlvr.is_held_out(one))
    blue, red, small = ({"color": colour, "size": size} for colour, size in (("blue", 9), ("red", 9), ("red", 5)))
    rows = [
        {"file": "kept.png", "sentence": kept, "structured_rep": [[blue, red], [], [small]]},
        {"file": "kept too.png", "sentence": kept, "structured_rep": [[], [red, blue], [small]]},
        {"file": "same.png", "sentence": trained, "structured_rep": [[small], [red, blue], []]},
        {"file": "other.png", "sentence": trained, "structured_rep": [[small], [red, red], []]},
    ]
    write_nlvr(tmp_path / "nlvr.zip", rows)
    assert duplicates.same_boxes(tmp_path / "nlvr.zip") == ["same.png"]


def test_a_hash_tells_waves_and_not_brightness() -> None:
    wave = np.cos(np.pi * (2 * np.arange(32) + 1) * 3 / 64)
    both = 127 * np.outer(wave, wave).astype(np.float32)
    first, opposite, brighter, even = (
        int(one) for one in duplicates.hashes(np.stack([both, -both, 20 + both / 2, 0 * both + 90]))
    )
    assert first == brighter == 1 << (63 - (2 * 8 + 2)), "wave 3 in both directions is the third of the third eight"
    assert opposite == even == 0


def test_distances_are_counted_bits() -> None:
    first, second = np.array([0b1011, 0], np.uint64), np.array([0, 2**64 - 1, 0b1000], np.uint64)
    assert duplicates.distances(first, second).tolist() == [[3, 61, 2], [0, 64, 1]]


def test_the_list_is_what_the_packs_give(shared_dir: Path) -> None:
    listed = json.loads(Path(duplicates.__file__).with_name("duplicates.json").read_text("utf-8"))
    found = duplicates.to_leave_out(shared_dir / "data")
    assert found == listed
    assert (len(found["cards"]), len(found["nlvr"])) == (3, 24)
    for name in packs.PACKS:
        known = {photo.file for photo in packs.photos(shared_dir / "data", name, None)}
        assert known.issuperset(listed[name])
        assert not any(packs.is_held_out(packs.PACKS[name], file) for file in listed[name])


def test_what_is_near_is_measured(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "PHOTOS_MEASURED", 5)
    lines = list(duplicates.measure(shared_dir / "data", "cards"))
    assert len(lines) == len(duplicates.ALTERED) + 1
    assert lines[0].split()[:3] == ["cards:", "jpeg", "50"]
    assert lines[0].count("100.0%") == 4
