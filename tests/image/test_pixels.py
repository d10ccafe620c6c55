"""Pixel values: equal to transformers' PIL image processor, and made one tile at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.errors import InputError
from edgevl.image import pixels
from edgevl.image.pixels import normalise, tiles
from edgevl.image.read import read
from edgevl.image.tiling import TilePlan, centre_square, closest_grid, split_grid

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SPECS = [(512, 2048), (364, 1456), (128, 256)]
PHOTOS = ["astronaut.png", "cat_chelsea.png", "rocket.jpg", "chart_pie.png", "cmyk.jpg", "exif_landscape_6.jpg"]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth waves and noise: something for every resampling filter to get wrong."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 7 + c) + np.cos(cols / (5 + 3 * c)) for c in range(3)], axis=-1)
    return (127 + 50 * waves + rng.integers(-27, 27, (height, width, 3))).astype(np.uint8)


def reference(rgb: NDArray[np.uint8], tile: int, longest: int, mean: Any = HALF, std: Any = HALF) -> NDArray[Any]:
    """transformers' pixel values, float32 [n_tiles, 3, tile, tile]."""
    image = pytest.importorskip("PIL.Image")
    module = pytest.importorskip("transformers.models.idefics3.image_processing_pil_idefics3")
    processor = module.Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": tile}, image_mean=mean, image_std=std
    )
    values: NDArray[Any] = processor(image.fromarray(rgb), return_tensors="np")["pixel_values"][0]
    return values


def ours(rgb: NDArray[np.uint8], plan: TilePlan, mean: Any = HALF, std: Any = HALF) -> NDArray[np.float32]:
    return np.concatenate([normalise(tile, mean, std) for tile in tiles(rgb, plan, "lanczos")])


def check(rgb: NDArray[np.uint8], tile: int, longest: int) -> None:
    size = (rgb.shape[0], rgb.shape[1])
    got = ours(rgb, split_grid(size, tile=tile, longest_edge=longest, detail="high"))
    want = reference(rgb, tile, longest)
    assert got.shape == want.shape
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= 1e-5


@pytest.mark.parametrize(
    ("size", "tile", "longest"),
    [(size, *spec) for spec in SPECS for size in ((488, 640), (300, 41), (1, 1))]
    + [(size, 128, 256) for size in ((200, 200), (3, 3), (2, 700), (256, 256), (128, 128))],
)
def test_equal_to_the_reference(size: tuple[int, int], tile: int, longest: int) -> None:
    check(picture(*size), tile, longest)


def test_equal_to_the_reference_for_a_large_picture() -> None:
    check(picture(1300, 2100), 128, 256)


@pytest.mark.parametrize("name", PHOTOS)
def test_equal_to_the_reference_for_photos(name: str, shared_dir: Path) -> None:
    path = shared_dir / "photos" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    check(read(path).rgb, 128, 256)
    if name == PHOTOS[0]:
        check(read(path).rgb, 512, 2048)


SHAPES = [(300, 300), (64, 64), (500, 61), (47, 380), (3, 5), (1, 1), (640, 1100), (127, 129)]


@pytest.mark.parametrize("size", SHAPES)
def test_the_middle_square_is_the_references(size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    rgb = picture(*size)
    processor = module.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    want = processor(image.fromarray(rgb), return_tensors="np")["pixel_values"]
    [tile] = tiles(rgb, centre_square(size, tile=64, longest_edge=64), "bicubic")
    assert np.abs(normalise(tile, CLIP_MEAN, CLIP_STD) - want).max() <= 1e-5


@pytest.mark.parametrize("size", SHAPES)
def test_the_closest_grid_is_the_references(size: tuple[int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    module = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    rgb = picture(*size)
    processor = module.GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, max_patches=12, crop_to_patches=True)
    want = processor(image.fromarray(rgb), return_tensors="np")["pixel_values"]
    plan = closest_grid(size, tile=64, longest_edge=12 * 64, detail="high")
    got = np.concatenate([normalise(tile, CLIP_MEAN, CLIP_STD) for tile in tiles(rgb, plan, "bicubic")])
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5


def test_other_means_and_deviations() -> None:
    rgb = picture(90, 70)
    plan = split_grid((90, 70), tile=128, longest_edge=256, detail="high")
    want = reference(rgb, 128, 256, CLIP_MEAN, CLIP_STD)
    assert np.abs(ours(rgb, plan, CLIP_MEAN, CLIP_STD) - want).max() <= 1e-5


def test_low_is_one_straight_resize() -> None:
    image = pytest.importorskip("PIL.Image")
    rgb = picture(300, 500)
    (tile,) = tiles(rgb, split_grid((300, 500), tile=128, longest_edge=256, detail="low"), "bicubic")
    assert np.array_equal(tile, np.asarray(image.fromarray(rgb).resize((128, 128), image.Resampling.BICUBIC)))


def test_the_grid_comes_row_by_row_and_the_overview_last() -> None:
    rgb = np.zeros((256, 384, 3), dtype=np.uint8)
    rgb[..., 0] = np.arange(256)[:, None] // 128 * 100
    rgb[..., 1] = np.arange(384)[None] // 128 * 100
    plan = split_grid((256, 384), tile=128, longest_edge=512)
    got = list(tiles(rgb, plan, "nearest"))
    assert plan.grid == (2, 3)
    assert [tuple(tile[64, 64]) for tile in got[:-1]] == [(r * 100, c * 100, 0) for r in range(2) for c in range(3)]
    assert all(tile.shape == (128, 128, 3) and tile.flags.c_contiguous for tile in got)
    assert np.array_equal(got[-1][0, :, 1], np.repeat([0, 100, 200], [43, 42, 43]))


def test_a_picture_and_its_array_give_the_same_tiles() -> None:
    rgb = picture(100, 300)
    plan = split_grid((100, 300), tile=128, longest_edge=256)
    for a, b in zip(tiles(read(rgb), plan, "lanczos"), tiles(rgb, plan, "lanczos"), strict=True):
        assert np.array_equal(a, b)


def test_resizing_waits_for_the_first_tile_and_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def counted(rgb: NDArray[np.uint8], size: tuple[int, int], resample: str) -> NDArray[np.uint8]:
        calls.append(size)
        return np.zeros((*size, 3), dtype=np.uint8)

    monkeypatch.setattr(pixels, "resize", counted)
    plan = split_grid((100, 300), tile=128, longest_edge=512, detail="high")
    made = tiles(picture(100, 300), plan, "lanczos")
    assert calls == []
    next(made)
    next(made)
    assert calls == list(plan.steps)
    assert len(list(made)) == plan.n_tiles - 2
    assert calls == [*plan.steps, (128, 128)]


def test_every_value_is_normalised_as_written() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    got = normalise(np.stack([values] * 3, axis=-1), CLIP_MEAN, CLIP_STD)
    assert got.shape == (1, 3, 16, 16)
    for channel in range(3):
        want = (np.arange(256) / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
        assert np.abs(got[0, channel].ravel() - want).max() < 1e-6


def test_a_plan_for_another_picture_is_refused() -> None:
    plan = split_grid((100, 300), tile=128, longest_edge=256)
    with pytest.raises(InputError, match=r"for 100x300 pixels \(height x width\), the picture is 300x100"):
        next(tiles(picture(300, 100), plan, "lanczos"))


def test_an_unknown_filter_is_refused() -> None:
    plan = split_grid((100, 300), tile=128, longest_edge=256)
    with pytest.raises(InputError, match="must be one of lanczos, bicubic, bilinear, nearest"):
        next(tiles(picture(100, 300), plan, "hamming"))
