"""Tile plans: the reference's for "high", and what the other details promise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevl.errors import ImageError, InputError
from edgevl.image.tiling import MAX_RESIZED, TILINGS, TilePlan, centre_square, closest_grid, coarser, plan, split_grid
from edgevl.model.manifest import ImageSpec

FAMILIES = [(512, 2048), (364, 1456), (128, 256), (384, 1536), (224, 1000), (364, 5000)]
FAMILY = st.sampled_from(FAMILIES)
SIDE = st.one_of(st.integers(1, 20), st.integers(1, 5000), st.integers(1, 20_000))
SIZE = st.tuples(SIDE, SIDE)
SPEC = ImageSpec(512, 2048, 64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "lanczos")
EXTREMES = [(1, 1), (20_000, 3), (3, 20_000), (20_000, 20_000), (1, 5000), (2184, 2912), (513, 512), (4096, 4096)]

GRIDS = st.sampled_from([(448, 12 * 448), (448, 6 * 448), (128, 3 * 128), (64, 64), (336, 40 * 336)])
DETAIL = st.one_of(st.sampled_from(["auto", "high", "low"]), st.integers(1, 40))

moderate = settings(max_examples=80, deadline=None)


def reference(size: tuple[int, int], tile: int, longest_edge: int) -> TilePlan:
    """Run transformers' own processor on an image without pixels, noting what it resizes to."""
    module = pytest.importorskip("transformers.models.idefics3.image_processing_pil_idefics3")
    numpy = pytest.importorskip("numpy")
    backends = pytest.importorskip("transformers.image_processing_backends")
    sizes: list[tuple[int, int]] = []

    def note(self: object, image: object, size: object, **_: object) -> object:
        sizes.append((size.height, size.width))  # type: ignore[attr-defined]
        return numpy.broadcast_to(numpy.uint8(0), (3, *sizes[-1]))

    processor = module.Idefics3ImageProcessorPil()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends.PilBackend, "resize", note)
        image = numpy.broadcast_to(numpy.uint8(0), (3, *size))
        image = processor.resize(image, module.SizeDict(longest_edge=longest_edge))
        image = processor.resize_for_vision_encoder(image, tile)
        frames, rows, cols = processor.split_images(image, {"longest_edge": tile})
    assert len(frames) == rows * cols + 1
    return TilePlan(size, tuple(sizes[:2]), (rows, cols), tile)


@pytest.mark.parametrize("size", EXTREMES)
@pytest.mark.parametrize(("tile", "longest_edge"), FAMILIES)
def test_high_is_the_reference_plan_at_extreme_sizes(size: tuple[int, int], tile: int, longest_edge: int) -> None:
    assert split_grid(size, tile=tile, longest_edge=longest_edge, detail="high") == reference(size, tile, longest_edge)


@moderate
@given(SIZE, FAMILY)
def test_high_is_the_reference_plan(size: tuple[int, int], family: tuple[int, int]) -> None:
    assert split_grid(size, tile=family[0], longest_edge=family[1], detail="high") == reference(size, *family)


@pytest.mark.parametrize(
    ("size", "steps", "grid"),
    [
        ((488, 640), ((1562, 2048), (2048, 2048)), (4, 4)),  # a photo, 17 tiles
        ((2184, 2912), ((1536, 2048), (1536, 2048)), (3, 4)),  # 3 rows by the reference's floats
        ((3, 20_000), ((1, 2048), (512, 2048)), (1, 4)),
        ((1, 1), ((2048, 2048), (2048, 2048)), (4, 4)),
    ],
)
def test_golden_reference_plans(size: tuple[int, int], steps: object, grid: object) -> None:
    got = plan(size, SPEC, "split_grid", "high")
    assert (got.steps, got.grid) == (steps, grid)


@moderate
@given(SIZE, FAMILY, st.one_of(st.sampled_from(["auto", "high", "low"]), st.integers(1, 40)))
def test_every_plan_is_whole(size: tuple[int, int], family: tuple[int, int], detail: str | int) -> None:
    tile, longest_edge = family
    got = split_grid(size, tile=tile, longest_edge=longest_edge, detail=detail)
    rows, cols = got.grid
    assert got.size == size
    assert got.n_tiles == rows * cols + 1 == len(got.boxes)
    assert got.steps[-1] == ((rows * tile, cols * tile) if rows else (tile, tile))
    assert min(min(step) for step in got.steps) >= 1
    assert (rows == 0) == (cols == 0)
    assert rows * cols != 1, "a grid of one tile would be the overview twice"


@moderate
@given(SIZE, FAMILY)
def test_boxes_cover_the_image_once(size: tuple[int, int], family: tuple[int, int]) -> None:
    got = split_grid(size, tile=family[0], longest_edge=family[1], detail="high")
    cells, whole = got.boxes[:-1], got.boxes[-1]
    assert list(whole) == [0, 0, *size]
    rows, cols = got.grid
    for index, (top, left, bottom, right) in enumerate(cells):
        row, col = divmod(index, cols)
        assert top == (cells[index - cols][2] if row else 0)
        assert left == (cells[index - 1][3] if col else 0)
        if row == rows - 1:
            assert bottom == size[0]
        if col == cols - 1:
            assert right == size[1]


@moderate
@given(SIZE, FAMILY)
def test_auto_never_enlarges(size: tuple[int, int], family: tuple[int, int]) -> None:
    tile, longest_edge = family
    got = split_grid(size, tile=tile, longest_edge=longest_edge)
    high = split_grid(size, tile=tile, longest_edge=longest_edge, detail="high")
    assert got.n_tiles <= high.n_tiles
    assert all(edge <= max(side, tile) for edge, side in zip(got.steps[-1], size, strict=True))


@moderate
@given(SIZE, FAMILY)
def test_a_number_is_the_most_tiles(size: tuple[int, int], family: tuple[int, int]) -> None:
    tile, longest_edge = family
    counts = [split_grid(size, tile=tile, longest_edge=longest_edge, detail=n).n_tiles for n in range(1, 40)]
    assert all(count <= n for n, count in enumerate(counts, start=1))
    assert counts == sorted(counts), "more tiles allowed, never fewer made"
    assert counts[0] == 1
    high = split_grid(size, tile=tile, longest_edge=longest_edge, detail="high")
    assert split_grid(size, tile=tile, longest_edge=longest_edge, detail=high.n_tiles) == high


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((512, 512), (0, 0)),
        ((1023, 1023), (0, 0)),
        ((1024, 512), (2, 1)),
        ((1200, 1600), (2, 3)),
        ((3000, 4000), (3, 4)),
        ((20_000, 3), (4, 1)),
        ((1, 1), (0, 0)),
    ],
)
def test_auto_grids(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert plan(size, SPEC, "split_grid").grid == grid


@moderate
@given(SIZE, FAMILY, st.sampled_from(["auto", "high", "low", 1, 2, 5, 9, 40]))
def test_coarser_plans_begin_with_the_details_and_end_with_the_overview(
    size: tuple[int, int], family: tuple[int, int], detail: str | int
) -> None:
    spec = ImageSpec(*family, 64, (0.5,) * 3, (0.5,) * 3, "lanczos")
    plans = coarser(size, spec, "split_grid", detail)
    assert plans[0] == plan(size, spec, "split_grid", detail)
    counts = [found.n_tiles for found in plans]
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == 1
    if detail == "auto":  # none enlarges the image
        assert all(found.grid[i] <= max(size[i] // spec.tile, 1) for found in plans for i in (0, 1))


@pytest.mark.parametrize(
    ("size", "detail", "grids"),
    [
        ((1536, 2048), "auto", [(3, 4), (3, 3), (2, 2), (0, 0)]),
        ((480, 640), "high", [(3, 4), (3, 3), (2, 2), (0, 0)]),
        ((480, 640), "auto", [(0, 0)]),
        ((1000, 1600), "auto", [(1, 3), (1, 2), (0, 0)]),
        ((1536, 2048), 9, [(2, 2), (0, 0)]),
        ((1536, 2048), "low", [(0, 0)]),
    ],
)
def test_coarser_grids(size: tuple[int, int], detail: str | int, grids: list[tuple[int, int]]) -> None:
    assert [found.grid for found in coarser(size, SPEC, "split_grid", detail)] == grids


def test_low_is_the_overview_alone() -> None:
    assert plan((3000, 4000), SPEC, "split_grid", "low") == TilePlan((3000, 4000), ((512, 512),), (0, 0), 512)


def test_an_odd_tile_that_is_rounded_up_still_ends_in_one_tile() -> None:
    assert split_grid((9, 9), tile=63, longest_edge=63, detail=1) == TilePlan((9, 9), ((63, 63),), (0, 0), 63)


def test_a_longest_edge_below_the_tile() -> None:
    assert split_grid((900, 900), tile=64, longest_edge=32, detail=1).n_tiles == 1


def test_a_number_may_come_as_text() -> None:
    assert plan((3000, 4000), SPEC, "split_grid", "5") == plan((3000, 4000), SPEC, "split_grid", 5)


@pytest.mark.parametrize("detail", ["", "highest", "0", "-1", "1.5", 0, -3, True, 2.0, None, "9" * 5000, "٣"])
def test_a_wrong_detail_is_refused(detail: object) -> None:
    with pytest.raises(InputError, match="it must be auto, high, low, or a number of tiles from 1 to 999999999"):
        plan((10, 10), SPEC, "split_grid", detail)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0), (-1, 3)])
def test_an_empty_side_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="both must be at least 1"):
        plan(size, SPEC, "split_grid")


def test_plans_say_what_they_are() -> None:
    assert str(plan((3000, 4000), SPEC, "split_grid", "high")) == "3x4 tiles and the overview of 512 px"
    assert str(plan((3000, 4000), SPEC, "split_grid", "low")) == "the overview alone of 512 px"


def closest(size: tuple[int, int], tile: int, most: int) -> tuple[int, int]:
    """Return transformers' own grid, (rows, cols), of at most `most` tiles."""
    module = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    cols, rows = module.get_optimal_tiled_canvas(size, (tile, tile), 1, most)
    return rows, cols


class TestClosestGrid:
    @pytest.mark.parametrize("size", [*EXTREMES, (896, 448), (448, 1344), (700, 700), (635, 635)])
    def test_high_is_the_reference_grid_at_extreme_sizes(self, size: tuple[int, int]) -> None:
        rows, cols = closest(size, 448, 12)
        got = closest_grid(size, tile=448, longest_edge=12 * 448, detail="high")
        assert got.grid == ((rows, cols) if rows * cols > 1 else (0, 0))

    @moderate
    @given(SIZE, GRIDS)
    def test_high_is_the_reference_grid(self, size: tuple[int, int], sizes: tuple[int, int]) -> None:
        tile, longest_edge = sizes
        rows, cols = closest(size, tile, longest_edge // tile)
        got = closest_grid(size, tile=tile, longest_edge=longest_edge, detail="high")
        assert got.grid == ((rows, cols) if rows * cols > 1 else (0, 0))

    @moderate
    @given(SIZE, GRIDS, DETAIL)
    def test_every_plan_is_whole(self, size: tuple[int, int], sizes: tuple[int, int], detail: str | int) -> None:
        tile, longest_edge = sizes
        got = closest_grid(size, tile=tile, longest_edge=longest_edge, detail=detail)
        rows, cols = got.grid
        assert got.n_tiles == rows * cols + 1 == len(got.boxes)
        assert got.n_tiles <= longest_edge // tile + 1
        assert got.steps == (((rows * tile, cols * tile) if rows else (tile, tile)),)
        assert rows * cols != 1, "a grid of one tile would be the overview twice"
        assert got.boxes[-1] == (0, 0, *size)

    @moderate
    @given(SIZE, GRIDS)
    def test_auto_never_enlarges(self, size: tuple[int, int], sizes: tuple[int, int]) -> None:
        tile, longest_edge = sizes
        got = closest_grid(size, tile=tile, longest_edge=longest_edge)
        assert got.n_tiles <= closest_grid(size, tile=tile, longest_edge=longest_edge, detail="high").n_tiles
        assert all(edge <= max(side, tile) for edge, side in zip(got.steps[-1], size, strict=True))

    @moderate
    @given(SIZE, GRIDS)
    def test_a_number_is_the_most_tiles(self, size: tuple[int, int], sizes: tuple[int, int]) -> None:
        tile, longest_edge = sizes
        counts = [closest_grid(size, tile=tile, longest_edge=longest_edge, detail=n).n_tiles for n in range(1, 40)]
        assert all(count <= n for n, count in enumerate(counts, start=1))
        assert counts == sorted(counts), "more tiles allowed, never fewer made"
        high = closest_grid(size, tile=tile, longest_edge=longest_edge, detail="high")
        assert closest_grid(size, tile=tile, longest_edge=longest_edge, detail=high.n_tiles) == high

    @pytest.mark.parametrize(
        ("size", "high", "auto"),
        [
            ((448, 448), (0, 0), (0, 0)),
            ((100, 300), (1, 3), (0, 0)),  # too small to fill three tiles
            ((480, 640), (3, 4), (0, 0)),
            ((900, 900), (2, 2), (2, 2)),
            ((1000, 1600), (2, 3), (2, 3)),
            ((3000, 4000), (3, 4), (3, 4)),
            ((20_000, 3), (12, 1), (12, 1)),
        ],
    )
    def test_grids(self, size: tuple[int, int], high: tuple[int, int], auto: tuple[int, int]) -> None:
        assert closest_grid(size, tile=448, longest_edge=12 * 448, detail="high").grid == high
        assert closest_grid(size, tile=448, longest_edge=12 * 448).grid == auto

    @moderate
    @given(SIZE, st.sampled_from(["auto", "high", "low", 1, 3, 7, 40]))
    def test_coarser_plans_end_with_the_overview(self, size: tuple[int, int], detail: str | int) -> None:
        spec = ImageSpec(448, 12 * 448, 256, (0.5,) * 3, (0.5,) * 3, "bicubic")
        plans = coarser(size, spec, "closest_grid", detail)
        counts = [found.n_tiles for found in plans]
        assert plans[0] == plan(size, spec, "closest_grid", detail)
        assert counts == sorted(set(counts), reverse=True)
        assert counts[-1] == 1

    def test_the_overview_is_resized_from_the_image(self) -> None:
        got = closest_grid((900, 900), tile=448, longest_edge=12 * 448)
        assert got.resizes == (((900, 900), (896, 896)), ((900, 900), (448, 448)))


class TestCentreSquare:
    @moderate
    @given(SIZE, st.sampled_from([336, 224, 56, 63]), DETAIL)
    def test_the_plan(self, size: tuple[int, int], tile: int, detail: str | int) -> None:
        numpy = pytest.importorskip("numpy")
        transforms = pytest.importorskip("transformers.image_transforms")
        image = numpy.broadcast_to(numpy.uint8(0), (3, *size))
        wanted = transforms.get_resize_output_image_size(image, tile, False, input_data_format="channels_first")
        got = centre_square(size, tile=tile, longest_edge=tile, detail=detail)
        assert (got.n_tiles, got.grid) == (1, (0, 0))
        [(height, width)] = got.steps
        assert (height, width) == tuple(min(side, MAX_RESIZED // tile) for side in wanted)
        assert got.offset == ((height - tile) // 2, (width - tile) // 2)
        assert height * width <= MAX_RESIZED
        [(top, left, bottom, right)] = got.boxes
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert coarser(size, ImageSpec(tile, tile, 4, (0.5,) * 3, (0.5,) * 3, "bicubic"), "centre_square") == (got,)

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((336, 336), (0, 0, 336, 336)),
            ((300, 900), (0, 300, 300, 600)),
            ((900, 300), (300, 0, 600, 300)),
            ((1, 1), (0, 0, 1, 1)),
        ],
    )
    def test_what_it_shows(self, size: tuple[int, int], box: tuple[float, ...]) -> None:
        assert centre_square(size, tile=336, longest_edge=336).boxes == (box,)

    def test_no_image_takes_all_the_memory(self) -> None:
        [(height, width)] = centre_square((1, 100_000_000), tile=336, longest_edge=336).steps
        assert (height, width) == (336, MAX_RESIZED // 336)

    def test_it_says_that_something_is_cut_off(self) -> None:
        assert str(centre_square((300, 900), tile=336, longest_edge=336)) == "the middle alone of 336 px"
        assert str(centre_square((500, 500), tile=336, longest_edge=336)) == "the overview alone of 336 px"


@pytest.mark.parametrize("tiling", ["closest_grid", "centre_square"])
@pytest.mark.parametrize("detail", ["highest", 0, True])
def test_every_tiling_refuses_a_wrong_detail(tiling: str, detail: object) -> None:
    with pytest.raises(InputError, match="it must be auto, high, low, or a number of tiles from 1 to 999999999"):
        plan((10, 10), SPEC, tiling, detail)  # type: ignore[arg-type]


def test_the_family_table_names_strategies_that_exist() -> None:
    from edgevl.model.families import FAMILIES as ROWS

    assert {row.tiling for row in ROWS.values()} <= set(TILINGS)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000)])
def test_a_line_one_pixel_wide_has_a_row_and_a_column_of_tiles(size: tuple[int, int]) -> None:
    for tile in (64, 448):
        steep = split_grid(size, tile=tile, longest_edge=3136, detail="high")  # 3136 * (1 / 3136) is less than 1
        assert sorted(steep.grid) == [1, 3136 // tile]
        assert min(steep.steps[-1]) == tile
