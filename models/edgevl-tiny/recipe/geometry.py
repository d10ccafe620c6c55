"""Exact geometry of straight lines between whole points, for pictures whose answer must not be in doubt.

Points are (x, y) in whole pixels. Whether lines cross is decided in whole numbers; only margins are in floats.
"""

from __future__ import annotations

import math

Whole = tuple[int, int]
Segment = tuple[Whole, Whole]


def side(a: Whole, b: Whole, c: Whole) -> int:
    """Return 1, 0 or -1: on which side of the line from `a` to `b` the point `c` is."""
    turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return (turn > 0) - (turn < 0)


def cross(first: Segment, second: Segment) -> bool:
    """Tell whether two segments cross in a point inside of both."""
    (a, b), (c, d) = first, second
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def crossing(first: Segment, second: Segment) -> tuple[float, float]:
    """Return where two segments that cross do so."""
    (a, b), (c, d) = first, second
    run, rise = (b[0] - a[0], b[1] - a[1]), (d[0] - c[0], d[1] - c[1])
    along = ((c[0] - a[0]) * rise[1] - (c[1] - a[1]) * rise[0]) / (run[0] * rise[1] - run[1] * rise[0])
    return a[0] + along * run[0], a[1] + along * run[1]


def angle_between(first: Segment, second: Segment) -> float:
    """Return the angle, 0 to 90 degrees, at which the lines of two segments meet."""
    (a, b), (c, d) = first, second
    turn = math.atan2(b[1] - a[1], b[0] - a[0]) - math.atan2(d[1] - c[1], d[0] - c[0])
    degrees = abs(math.degrees(turn)) % 180
    return min(degrees, 180 - degrees)


def point_to_segment(point: tuple[float, float], segment: Segment) -> float:
    """Return how far a point is from a segment."""
    (ax, ay), (bx, by) = segment
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = ((point[0] - ax) * (bx - ax) + (point[1] - ay) * (by - ay)) / length if length else 0.0
    along = max(0.0, min(1.0, along))
    return math.dist(point, (ax + along * (bx - ax), ay + along * (by - ay)))


def apart(first: Segment, second: Segment) -> float:
    """Return how far two segments are apart; 0 where they cross."""
    if cross(first, second):
        return 0.0
    return min(*(point_to_segment(end, second) for end in first), *(point_to_segment(end, first) for end in second))
