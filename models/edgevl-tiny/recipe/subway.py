"""A subway map: stations joined by paths of one colour each, to be counted.

Paths run along a lattice of whole points; two never share a stretch, and where they meet they cross straight.
Source of the task: as in blind.py.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase

from .asking import ask_number
from .canvas import Canvas, canvas_size
from .colours import ground, named, shade, text_on
from .drawn import Drawn, Stock
from .geometry import Whole
from .questions import QA
from .wording import spelled

PATHS = spelled(
    "how many [single-coloured|single-colored|one-coloured] [paths|routes|lines] [go|lead|run] from {a} to {b}?",
    "[count|count up] the one-coloured [routes|paths] that [connect|join] {a} and {b}.",
    "how many lines of [one|a single] colour [join|connect] {a} [with|and] {b}?",
    "how many [paths|routes] of a single colour are there [between {a} and {b}|from {a} to {b}]?",
)
PATHS_HELD_OUT = (
    "in how many ways can one ride from {a} to {b} on one colour?",
    "tell the number of one-coloured routes between stations {a} and {b}.",
)
PORTS = 3
"""Paths that can end at a station."""
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "grey")
STATIONS, STATIONS_HELD_OUT = ("box", "round"), ("box", "outline")
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True)
class Path:
    """A path between two stations: its ends, and its points on the lattice from port to port."""

    ends: frozenset[str]
    points: tuple[Whole, ...]


@dataclass(frozen=True)
class Map:
    """A lattice of `n` by `n` points, stations on its sides (the middle one of their ports), and paths."""

    n: int
    stations: dict[str, Whole]
    paths: tuple[Path, ...]

    def ports(self, name: str) -> tuple[list[Whole], Whole]:
        """Return where paths can end at a station, and the step that leads away from it."""
        return ports(self.n, self.stations[name])


def subway(rng: random.Random, stock: Stock) -> Drawn:
    """Draw a map of three or four stations, and ask how many paths (0 to 3) join two of them."""
    n = rng.randint(0, PORTS)
    plan, asked = make_map(rng, n)
    size = canvas_size(rng)
    inks = [ink for _, ink in named(rng, stock, len(plan.paths), COLOURS, least=70)]
    canvas = Canvas(size, ground(rng, stock, inks, least=85), rng.random() < 0.8)
    step = (min(size) - 12) / (plan.n + 1)
    width = rng.uniform(1.6, max(2.0, 0.3 * step))
    left, top = ((side - step * (plan.n - 1)) / 2 for side in (size[1], size[0]))
    for path, ink in zip(plan.paths, inks, strict=True):
        canvas.line([(left + step * x, top + step * y) for x, y in path.points], ink, width)
    style = stock.one_of(rng, STATIONS, STATIONS_HELD_OUT)
    paint = (
        shade(rng, stock, "white") if style == "outline" else shade(rng, stock, rng.choice(("grey", "black", "white")))
    )
    letters = stock.font(rng, max(9, round(step)))
    for name, (x, y) in plan.stations.items():
        place = (left + step * x, top + step * y)
        reach = (0.55 * step, 1.45 * step) if x in (0, plan.n - 1) else (1.45 * step, 0.55 * step)
        corners = (place[0] - reach[0], place[1] - reach[1], place[0] + reach[0], place[1] + reach[1])
        edge = shade(rng, stock, "black") if style == "outline" else text_on(paint)
        canvas.box(corners, paint, edge, 1.5, 0.5 * step if style == "round" else 0)
        canvas.text(place, name, letters, text_on(paint), "mm")
    others = [pair for pair in combinations(sorted(plan.stations), 2) if set(pair) != set(asked)]
    pairs = (asked, *(() if stock.is_held_out else rng.sample(others, 2)))
    return Drawn(
        canvas.picture(), tuple(_ask(rng, stock, plan, *pair) for pair in pairs), told={"paths": len(plan.paths)}
    )


def _ask(rng: random.Random, stock: Stock, plan: Map, a: str, b: str) -> QA:
    n = sum(path.ends == {a, b} for path in plan.paths)
    return ask_number(rng, stock, stock.one_of(rng, PATHS, PATHS_HELD_OUT).format(a=a, b=b), n, PORTS)


def make_map(rng: random.Random, n: int) -> tuple[Map, tuple[str, str]]:
    """Draw a map in which `n` paths join the two stations returned with it."""
    while True:
        side = rng.randint(10, 15)
        stations = _stations(rng, side)
        asked = tuple(rng.sample(sorted(stations), 2))
        router = _Router(rng, side, stations)
        if all(router.join(*asked) for _ in range(n)):
            others = [pair for pair in combinations(sorted(stations), 2) if set(pair) != set(asked)]
            for _ in range(rng.randint(2 if n < 2 else 0, 6)):
                router.join(*rng.sample(rng.choice(others), 2))
            if router.paths:
                return Map(side, stations, tuple(rng.sample(router.paths, len(router.paths)))), (asked[0], asked[1])


def _stations(rng: random.Random, n: int) -> dict[str, Whole]:
    """Name stations and place each on a side of its own."""
    names = ascii_uppercase[:4] if rng.random() < 0.6 else "".join(rng.sample(ascii_uppercase, 4))
    along = [rng.randint(3, n - 4) for _ in range(4)]
    places = [(0, along[0]), (n - 1, along[1]), (along[2], 0), (along[3], n - 1)]
    rng.shuffle(places)
    return dict(list(zip(names, places, strict=True))[: rng.choice((3, 4, 4))])


def ports(n: int, station: Whole) -> tuple[list[Whole], Whole]:
    """Return the ports of a station on a side of a lattice of `n` by `n`, and the step inward."""
    x, y = station
    if x in (0, n - 1):
        return [(x, y + i) for i in (-1, 0, 1)], (1 if x == 0 else -1, 0)
    return [(x + i, y) for i in (-1, 0, 1)], (0, 1 if y == 0 else -1)


class _Router:
    """Lays paths one by one, each through what those before it left free."""

    def __init__(self, rng: random.Random, n: int, stations: dict[str, Whole]) -> None:
        self.paths: list[Path] = []
        self._rng, self._n = rng, n
        self._free = {name: ports(n, place) for name, place in stations.items()}
        self._used: dict[Whole, Whole | None] = {}  # the axis of the path that runs straight through, None at a bend

    def join(self, a: str, b: str) -> bool:
        """Lay a path between two stations; return False where no port or no way is left."""
        if not self._free[a][0] or not self._free[b][0]:
            return False
        start, end = self._rng.choice(self._free[a][0]), self._rng.choice(self._free[b][0])
        way = self._way(start, self._free[a][1], end, self._free[b][1])
        if way is None or len(set(way)) < len(way):
            return False
        self._free[a][0].remove(start)
        self._free[b][0].remove(end)
        for before, place, after in zip(way, way[1:], way[2:], strict=False):
            straight = before[0] == after[0] or before[1] == after[1]
            self._used[place] = None if not straight or place in self._used else _axis(before, place)
        self.paths.append(Path(frozenset((a, b)), tuple(way)))
        return True

    def _way(self, start: Whole, out: Whole, end: Whole, back: Whole) -> list[Whole] | None:
        """Find a cheap way by random costs of points and of bends (Dijkstra's algorithm over points and directions)."""
        rng, last = self._rng, (end[0] + back[0], end[1] + back[1])
        first = (start[0] + out[0], start[1] + out[1])
        costs = {(x, y): 1 + 2 * rng.random() ** 2 for x in range(1, self._n - 1) for y in range(1, self._n - 1)}
        came: dict[tuple[Whole, Whole], tuple[Whole, Whole] | None] = {}
        heap: list[tuple[float, tuple[Whole, Whole], tuple[Whole, Whole] | None]] = [(0.0, (first, out), None)]
        while heap:
            cost, state, before = heapq.heappop(heap)
            if state in came:
                continue
            came[state] = before
            place, step = state
            for turn in STEPS:
                if not self._passes(place, step, turn):
                    continue
                if place == last and turn == (-back[0], -back[1]):
                    return [start, *_trace(came, state), end]
                onward = (place[0] + turn[0], place[1] + turn[1])
                if onward in costs and (onward, turn) not in came:
                    heapq.heappush(heap, (cost + costs[onward] + 1.2 * (turn != step), (onward, turn), state))
        return None

    def _passes(self, place: Whole, step: Whole, turn: Whole) -> bool:
        """Tell whether a path that came by `step` may go on by `turn`: never back, and straight across another path."""
        if turn == (-step[0], -step[1]):
            return False
        axis = self._used.get(place, (0, 0))
        if axis == (0, 0):
            return True
        return axis is not None and turn == step and axis != (abs(step[0]), abs(step[1]))


def _axis(a: Whole, b: Whole) -> Whole:
    return abs(b[0] - a[0]), abs(b[1] - a[1])


def _trace(came: dict[tuple[Whole, Whole], tuple[Whole, Whole] | None], state: tuple[Whole, Whole]) -> list[Whole]:
    way: list[Whole] = []
    at: tuple[Whole, Whole] | None = state
    while at is not None:
        way.append(at[0])
        at = came[at]
    return way[::-1]
