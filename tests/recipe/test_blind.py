"""The tasks of BlindTest: deterministic, inside the canvas, balanced, and true by a second way of counting."""

from __future__ import annotations

import colorsys
import math
import random
import re
from collections import Counter
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgevl.recipe import asking, blind, colours, counted, subway
from edgevl.recipe.blind import TASKS
from edgevl.recipe.canvas import canvas_size
from edgevl.recipe.drawn import Stock
from tests.recipe.tracing import phrasings, plain, trace

HOME = {"overlapping_shapes": counted, "nested_squares": counted, "grid": counted, "subway": subway}
SEEDS = range(25)


def home(task: str) -> ModuleType:
    return HOME.get(task, blind)


def number(answer: str) -> int:
    return int(answer.strip("{}"))


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_one_picture(task: str, training: Stock, held_out: Stock) -> None:
    first, again, other, kept = (
        TASKS[task].make(random.Random(seed), stock)
        for seed, stock in ((1, training), (1, training), (2, training), (1, held_out))
    )
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes() != other.picture.tobytes()
    assert kept.picture.mode == "RGB"
    assert all(256 <= side <= 512 for drawn in (first, other, kept) for side in drawn.picture.size)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_drawn_outside(task: str, training: Stock, held_out: Stock) -> None:
    for seed in range(12):
        for stock in (training, held_out):
            picture = np.asarray(TASKS[task].make(random.Random(seed), stock).picture)
            edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert (edge == edge[0]).all()  # a canvas that is cut would show ink here


@pytest.mark.parametrize("module", [asking, blind, counted, subway])
def test_what_is_held_out_is_not_in_training(module: ModuleType) -> None:
    parts = phrasings(module)
    assert parts
    for name, (known, kept) in parts.items():
        assert kept, name
        assert set(kept) - set(known), name
        if " " in known[0]:
            assert not {plain(text) for text in known} & {plain(text) for text in kept}, name


def test_questions_of_the_two_parts_differ(training: Stock, held_out: Stock) -> None:
    for task in ("line_crossings", "two_circles"):
        asked = [
            {plain(TASKS[task].make(random.Random(seed), stock).pairs[0][0]) for seed in range(60)}
            for stock in (training, held_out)
        ]
        assert not asked[0] & asked[1]


def test_shades_and_hues_of_the_two_parts_differ(training: Stock, held_out: Stock) -> None:
    for known, kept in colours.SHADES.values():
        assert not set(known) & set(kept)
    rng = random.Random(0)
    for stock in (training, held_out):
        for _ in range(200):
            hue = colorsys.rgb_to_hsv(*colours.tint(rng, stock, 1.0, 1.0))[0] * colours.HUES
            if 0.1 < hue % 1 < 0.9:  # not rounded over a border
                assert (int(hue) % 6 == 3) == stock.is_held_out


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_cross_as_often_as_one_gets_above_the_other(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(blind, blind.crossings, (training, held_out)[seed % 2], seed)
    first, second = (np.array(call.args[0], float) for call in canvas.of("line"))
    if (np.diff(first[:, 0]) <= 0).any() or (np.diff(second[:, 0]) <= 0).any():  # the lines go down
        first, second = first[:, ::-1], second[:, ::-1]
    start, end = max(first[0, 0], second[0, 0]), min(first[-1, 0], second[-1, 0])
    along = np.linspace(start, end, 20_000)
    above = np.interp(along, *first.T) > np.interp(along, *second.T)
    assert number(drawn.pairs[0][1]) == np.count_nonzero(above[1:] != above[:-1])


@pytest.mark.parametrize("seed", range(40))
def test_circles_touch_or_overlap_as_their_areas_do(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(blind, blind.two_circles, (training, held_out)[seed % 2], seed)
    y, x = np.mgrid[: canvas.size[0] : 0.5, : canvas.size[1] : 0.5]
    (first, second), radii = zip(*(call.args[:2] for call in canvas.of("disc")[:2]), strict=True)
    areas = [np.hypot(x - cx, y - cy) <= radius for (cx, cy), radius in zip((first, second), radii, strict=True)]
    shared = np.count_nonzero(areas[0] & areas[1]) / 4  # pixels
    gap = math.dist(first, second) - sum(radii)
    question, answer = drawn.pairs[0]
    assert gap >= 4 or abs(gap + 1) < 1e-6 or gap <= -7  # apart, just touching, or clearly overlapping
    if "touch" in question.lower() or "contact" in question or "share" in question:
        assert (answer == "yes") == (gap < 0)
    else:
        assert (answer == "yes") == (shared > 40) == (gap < -1.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_marked_letter_is_the_one_inside_of_the_mark(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(blind, blind.circled_letter, (training, held_out)[seed % 2], seed)
    (mark,) = canvas.of("oval", "box")
    if mark.kind == "oval":
        (x, y), (rx, ry) = mark.args[:2]
        corners = (x - rx, y - ry, x + rx, y + ry)
    else:
        corners = mark.args[0]
    inside, share = [], []
    for call in canvas.of("text"):
        (left, top), letter, font, _ = call.args
        x0, y0, x1, y1 = (a + b for a, b in zip((left, top, left, top), font.getbbox(letter), strict=True))
        common = max(0.0, min(x1, corners[2]) - max(x0, corners[0])) / (x1 - x0)
        inside += [letter] if common > 0.95 and corners[1] < y0 and y1 < corners[3] else []
        share.append(common)
    assert inside == [drawn.pairs[0][1].strip("{}")]
    assert sorted(share)[-2] < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_as_many_outlines_as_counted_and_each_meets_another(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(counted, counted.overlapping_shapes, (training, held_out)[seed % 2], seed)
    outlines = [call.args for call in canvas.of("polygon", "disc") if call.args[-2] is not None]
    assert number(drawn.pairs[0][1]) == len(outlines)
    if canvas.of("polygon"):
        n = {len(points) for points, *_ in outlines}
        names = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon"}
        centres = [tuple(np.mean(args[0], axis=0)) for args in outlines]
        reach = max(math.dist(centres[0], point) for point in outlines[0][0])
    else:
        n, names = {0}, {0: "circle"}
        centres, reach = [args[0] for args in outlines], outlines[0][1]
    assert names[n.pop()] in drawn.pairs[0][0].lower()
    nearest = [min(math.dist(a, b) for b in centres if b != a) for a in centres]
    assert all(0.5 * reach < distance < 2 * reach for distance in nearest)


@pytest.mark.parametrize("seed", SEEDS)
def test_squares_lie_one_in_the_other_with_room_between(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(counted, counted.nested_squares, (training, held_out)[seed % 2], seed)
    squares = [np.array(call.args[0]) for call in canvas.of("polygon")]
    width = canvas.of("polygon")[0].args[3]
    assert number(drawn.pairs[0][1]) == len(squares)
    for outer, inner in pairwise(squares):
        for start, end in zip(outer, np.roll(outer, -1, 0), strict=True):
            along = (end - start) / np.linalg.norm(end - start)
            depth = np.cross(np.append(along, 0), np.c_[inner - start, np.zeros(4)])[:, 2]
            assert depth.min() > width + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_grid_has_the_cells_between_its_lines(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(counted, counted.grid, (training, held_out)[seed % 2], seed)
    ends = [call.args[0] if call.kind == "line" else call.args[:2] for call in canvas.of("line", "dashes")]
    columns = len({a[0] for a, b in ends if a[0] == b[0]}) - 1
    rows = len({a[1] for a, b in ends if a[1] == b[1]}) - 1
    for question, answer in drawn.pairs:
        numbers = [int(text) for text in re.findall(r"\d+", answer)]
        both = [rows, columns]
        assert numbers == (both if len(numbers) == 2 else [rows if "rows" in question.lower() else columns])


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_of_a_map_are_counted_by_walking_them(seed: int, training: Stock, held_out: Stock) -> None:
    drawn, canvas = trace(subway, subway.subway, (training, held_out)[seed % 2], seed)
    boxes = [call.args[0] for call in canvas.of("box")]
    names = [call.args[1] for call in canvas.of("text")]
    joined: Counter[frozenset[str]] = Counter()
    inks = [call.args[1] for call in canvas.of("line")]
    assert len(set(inks)) == len(inks)
    for call in canvas.of("line"):
        ends = (call.args[0][0], call.args[0][-1])
        at = [[name for name, box in zip(names, boxes, strict=True) if _holds(box, end)] for end in ends]
        joined[frozenset(at[0] + at[1])] += 1
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(call.args[0]))
    for question, answer in drawn.pairs:
        asked = [name for name in names if re.search(rf"\b{name}\b", question[1:])]
        assert number(answer) == joined[frozenset(asked)]
        assert len(asked) == 2


def _holds(box: tuple[float, ...], point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


@pytest.mark.parametrize("task", ["line_crossings", "overlapping_shapes", "nested_squares"])
def test_training_asks_too_whether_there_are_more_than_so_many(task: str, training: Stock, held_out: Stock) -> None:
    answers = Counter[str]()
    for seed in SEEDS:
        (_, n), *more = TASKS[task].make(random.Random(seed), training).pairs
        asked = [(re.search(r"(?:more than|over) (\d+)", question.lower()), answer) for question, answer in more]
        for found, answer in asked:
            if found is not None:
                assert answer == ("yes" if number(n) > int(found[1]) else "no")
                answers[answer] += 1
            else:
                assert answer == ("yes" if number(n) else "no"), "the lines cross or not"
        assert len(TASKS[task].make(random.Random(seed), held_out).pairs) == 1
    assert min(answers.values()) > 0.15 * sum(answers.values())  # of no crossing there are never more than some


def test_circles_that_overlap_touch(training: Stock) -> None:
    seen = Counter[tuple[str, str]]()
    about = {plain(text): "overlapping" for text in blind.OVERLAPPING}
    for seed in range(120):
        pairs = TASKS["two_circles"].make(random.Random(seed), training).pairs
        said = {about.get(plain(question), "touching"): answer for question, answer in pairs}
        seen[said["touching"], said["overlapping"]] += 1
    assert set(seen) == {("yes", "yes"), ("yes", "no"), ("no", "no")}


def test_training_asks_which_letters_are_circled_and_how_many_there_are(training: Stock) -> None:
    seen = Counter[str]()
    for seed in range(60):
        (_, letter), (asked, is_it), (_, n) = TASKS["circled_letter"].make(random.Random(seed), training).pairs
        found = re.search(r"(?:letter|the) (\w)(?: |\?|$)", asked)
        assert found is not None
        assert is_it == ("yes" if found[1] == letter.strip("{}") else "no")
        assert 3 <= int(n) <= 13
        seen[is_it] += 1
    assert min(seen.values()) > 10


@pytest.mark.parametrize("seed", range(8))
def test_a_path_keeps_its_colour_and_never_runs_along_another(seed: int) -> None:
    plan, _ = subway.make_map(random.Random(seed), seed % 4)
    stretches: Counter[Any] = Counter()
    bends: Counter[Any] = Counter()
    for path in plan.paths:
        stretches.update(frozenset(pair) for pair in pairwise(path.points))
        around = zip(path.points, path.points[1:], path.points[2:], strict=False)
        bends.update(at for before, at, after in around if before[0] != after[0] and before[1] != after[1])
    crossed = Counter(point for path in plan.paths for point in path.points)
    assert max(stretches.values()) == 1
    assert all(crossed[point] == 1 for point in bends)
    assert max(crossed.values()) <= 2


@pytest.mark.parametrize(
    ("task", "n_answers"),
    [("line_crossings", 3), ("two_circles", 2), ("overlapping_shapes", 8), ("nested_squares", 7), ("subway", 4)],
)
def test_every_answer_is_as_likely(task: str, n_answers: int, training: Stock) -> None:
    n = 120 if task == "subway" else 200
    answers = Counter(TASKS[task].make(random.Random(seed), training).pairs[0][1].strip("{}") for seed in range(n))
    assert len(answers) == n_answers
    assert max(answers.values()) < 1.8 * n / n_answers
    assert min(answers.values()) > 0.35 * n / n_answers


def test_an_example_of_the_form_tells_nothing(training: Stock) -> None:
    rng = random.Random(0)
    forms = [asking.ask_number(rng, training, "how many?", 3, 9)[0] for _ in range(400)]
    shown = Counter(text for form in forms for text in re.findall(r"\{(\d)\}", form))
    assert set(shown) == set("0123456789")
    assert shown["3"] < 0.2 * sum(shown.values())


def test_canvases_are_of_many_sizes() -> None:
    sizes = [canvas_size(random.Random(seed)) for seed in range(200)]
    assert {min(256 <= side <= 512 for side in size) for size in sizes} == {True}
    assert 0.45 < sum(height == width for height, width in sizes) / 200 < 0.75


def test_what_is_told_of_a_picture_is_what_answers_say(training: Stock) -> None:
    told_by = {"line_crossings": "crossings", "overlapping_shapes": "shapes", "nested_squares": "squares"}
    for seed in SEEDS:
        for task, name in told_by.items():
            drawn = TASKS[task].make(random.Random(seed), training)
            assert drawn.told == {name: number(drawn.pairs[0][1])}
        circles = TASKS["two_circles"].make(random.Random(seed), training)
        for question, answer in circles.pairs:
            about = "overlapping" if re.search("overlap|on top|cover", question.lower()) else "touching"
            assert ("no", "yes")[circles.told[about]] == answer
        letter = TASKS["circled_letter"].make(random.Random(seed), training)
        assert chr(ord("a") + letter.told["circled"]) == letter.pairs[0][1].strip("{}").lower()
        grid = TASKS["grid"].make(random.Random(seed), training)
        for question, answer in grid.pairs:
            found = [int(digit) for digit in re.findall(r"\d", answer)]
            one = grid.told["rows" if "row" in question.lower() else "columns"]
            assert found == ([grid.told["rows"], grid.told["columns"]] if len(found) == 2 else [one])


def test_of_a_map_all_paths_are_told(training: Stock) -> None:
    for seed in SEEDS:
        drawn = TASKS["subway"].make(random.Random(seed), training)
        assert sum(number(answer) for _, answer in drawn.pairs) <= drawn.told["paths"] <= 9
