from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevl.engine.vision import VisionEncoder, run_ahead
from edgevl.errors import GraphError

JOIN_S = 10.0


def encoder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgevl-encoder"]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + JOIN_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


class TestRunAhead:
    def test_keeps_the_order(self) -> None:
        assert list(run_ahead(range(100))) == list(range(100))
        assert encoder_threads() == []

    def test_of_nothing_is_nothing(self) -> None:
        assert list(run_ahead([])) == []

    def test_none_is_an_item_like_any_other(self) -> None:
        assert list(run_ahead([None, 1, None])) == [None, 1, None]

    def test_works_in_a_thread_of_its_own(self) -> None:
        names = list(run_ahead(threading.current_thread().name for _ in range(2)))
        assert names == ["edgevl-encoder"] * 2

    def test_an_error_comes_at_its_place(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            yield 2
            raise GraphError("broken")

        ahead = run_ahead(items())
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(GraphError, match="broken"):
            next(ahead)
        assert encoder_threads() == []

    def test_an_error_at_once(self) -> None:
        def item(_: int) -> int:
            raise GraphError("broken")

        with pytest.raises(GraphError, match="broken"):
            list(run_ahead(map(item, range(3))))

    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_goes_ahead_and_no_further_than_its_depth(self, depth: int) -> None:
        begun: list[int] = []

        def items() -> Iterator[int]:
            for number in range(50):
                begun.append(number)
                yield number

        ahead = run_ahead(items(), depth)
        assert next(ahead) == 0
        wait_until(lambda: len(begun) == 1 + depth + 1)  # taken, waiting, and the one that finds no room
        time.sleep(0.15)
        assert len(begun) == 1 + depth + 1
        for number in range(1, 50):
            assert next(ahead) == number
            assert len(begun) <= number + 1 + depth + 1
        assert list(ahead) == []

    def test_close_stops_the_thread(self) -> None:
        begun: list[int] = []

        def items() -> Iterator[int]:
            for number in range(1000):
                begun.append(number)
                yield number

        ahead = run_ahead(items())
        next(ahead)
        ahead.close()
        assert encoder_threads() == []
        n_begun = len(begun)
        time.sleep(0.1)
        assert len(begun) == n_begun <= 5

    def test_close_waits_for_the_item_at_work(self) -> None:
        at_work, ended = threading.Event(), threading.Event()

        def items() -> Iterator[int]:
            yield 0
            at_work.set()
            time.sleep(0.1)
            ended.set()
            yield 1

        ahead = run_ahead(items())
        next(ahead)
        assert at_work.wait(JOIN_S)
        ahead.close()
        assert ended.is_set()
        assert encoder_threads() == []

    def test_close_before_the_first_item_starts_nothing(self) -> None:
        numbers = iter(range(3))
        run_ahead(numbers).close()
        assert (next(numbers), encoder_threads()) == (0, [])

    def test_an_error_of_the_consumer_stops_the_thread(self) -> None:
        ahead = run_ahead(range(1000))

        def consume() -> None:
            for item in ahead:
                if item == 3:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            consume()
        ahead.close()
        assert encoder_threads() == []


class FakeGraph:
    """Stands in for a vision graph: returns `features` for any tile."""

    path, backend = Path("vision.onnx"), "fake"

    def __init__(self, features: Any) -> None:
        self.features = np.asarray(features)
        self.required: tuple[set[str], set[str]] | None = None

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        self.required = (inputs, outputs)

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        assert feeds["pixel_values"].shape == (1, 3, 4, 4)
        return {"image_features": self.features}


TILE = np.zeros((1, 3, 4, 4), np.float32)


def encoder(features: Any) -> tuple[VisionEncoder, FakeGraph]:
    graph: Any = FakeGraph(features)
    return VisionEncoder(graph), graph


def test_an_encoder_names_its_graphs_input_and_output() -> None:
    _, graph = encoder(np.zeros((1, 2, 3)))
    assert graph.required == ({"pixel_values"}, {"image_features"})


def test_features_are_rows_of_float32() -> None:
    vision, _ = encoder(np.arange(6, dtype=np.float16).reshape(1, 2, 3))
    features = vision.encode(TILE)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error(bad: float) -> None:
    vision, _ = encoder(np.array([[[0.0, bad]]]))
    with pytest.raises(GraphError) as caught:
        vision.encode(TILE)
    assert str(caught.value) == "vision.onnx: returned values that are not finite; run: edgevl verify"
