from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from edgevl.engine import vision
from edgevl.engine.vision import VisionEncoder, run_ahead
from edgevl.errors import GraphError
from tests.waiting import wait_until

JOIN_S = 10.0
T = TypeVar("T")


def encoder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("edgevl-encoder")]


def jobs(items: Iterable[T]) -> Iterator[Callable[[], T]]:
    """Make of each item a job that returns it."""
    return ((lambda item=item: item) for item in items)


class TestRunAhead:
    @pytest.mark.parametrize("n_workers", [1, 2, 7])
    def test_keeps_the_order(self, n_workers: int) -> None:
        assert list(run_ahead(jobs(range(100)), n_workers)) == list(range(100))
        assert encoder_threads() == []

    def test_of_nothing_is_nothing(self) -> None:
        assert list(run_ahead([])) == []

    def test_none_is_a_result_like_any_other(self) -> None:
        assert list(run_ahead(jobs([None, 1, None]))) == [None, 1, None]

    def test_works_in_threads_of_its_own(self) -> None:
        both = threading.Barrier(2)

        def job() -> str:
            both.wait(JOIN_S)  # passes only if two are at work at once
            return threading.current_thread().name

        assert set(run_ahead([job] * 4, 2)) == {"edgevl-encoder_0", "edgevl-encoder_1"}

    def test_an_error_comes_at_its_place(self) -> None:
        def broken() -> int:
            raise GraphError("broken")

        ahead = run_ahead([lambda: 1, lambda: 2, broken, lambda: 4])
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(GraphError, match="broken"):
            next(ahead)
        assert encoder_threads() == []

    def test_a_timeout_of_a_job_is_an_error_like_any_other(self) -> None:
        def late() -> int:
            raise TimeoutError("late")

        with pytest.raises(TimeoutError, match="late"):
            list(run_ahead([late]))

    def test_a_job_that_ends_just_when_the_wait_for_it_does_has_its_result(self) -> None:
        class Late(Future[int]):
            def result(self, timeout: float | None = None) -> int:
                if timeout is not None:
                    self.set_result(42)
                    raise TimeoutError
                return super().result()

        assert vision._result(Late()) == 42

    @pytest.mark.parametrize("n_workers", [1, 3])
    @pytest.mark.parametrize("depth", [1, 2, 5])
    def test_goes_ahead_and_no_further_than_its_depth(self, depth: int, n_workers: int) -> None:
        begun: list[int] = []

        def job(number: int) -> int:
            begun.append(number)
            return number

        ahead = run_ahead((partial(job, number) for number in range(50)), n_workers, depth)
        assert next(ahead) == 0
        wait_until(lambda: len(begun) == 1 + depth + n_workers)  # taken, waiting, and those in the making
        time.sleep(0.15)
        assert len(begun) == 1 + depth + n_workers
        for number in range(1, 50):
            assert next(ahead) == number
            assert len(begun) <= number + 1 + depth + n_workers
        assert list(ahead) == []

    def test_close_stops_the_threads(self) -> None:
        begun: list[int] = []

        def job(number: int) -> None:
            begun.append(number)

        ahead = run_ahead((partial(job, number) for number in range(1000)), 2)
        next(ahead)
        ahead.close()
        assert encoder_threads() == []
        n_begun = len(begun)
        time.sleep(0.1)
        assert len(begun) == n_begun <= 5

    def test_close_waits_for_the_job_at_work(self) -> None:
        at_work, ended = threading.Event(), threading.Event()

        def slow() -> int:
            at_work.set()
            time.sleep(0.1)
            ended.set()
            return 1

        ahead = run_ahead([lambda: 0, slow])
        next(ahead)
        assert at_work.wait(JOIN_S)
        ahead.close()
        assert ended.is_set()
        assert encoder_threads() == []

    def test_close_before_the_first_result_starts_nothing(self) -> None:
        numbers = iter(range(3))
        run_ahead(jobs(numbers)).close()
        assert (next(numbers), encoder_threads()) == (0, [])

    def test_an_error_of_the_consumer_stops_the_threads(self) -> None:
        ahead = run_ahead(jobs(range(1000)))

        def consume() -> None:
            for item in ahead:
                if item == 3:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            consume()
        ahead.close()
        assert encoder_threads() == []

    def test_what_comes_before_is_done_beside_the_first_job(self) -> None:
        both = threading.Barrier(2, timeout=20)
        assert list(run_ahead([lambda: both.wait() >= 0, lambda: True], 2, before=both.wait)) == [True, True]

    def test_an_error_of_what_comes_before_is_raised_first(self) -> None:
        def broken() -> None:
            raise GraphError("no")

        ahead = run_ahead([lambda: 1, lambda: 2], 2, before=broken)
        with pytest.raises(GraphError, match="no"):
            next(ahead)
        assert encoder_threads() == []

    def test_may_be_left_to_the_end_of_the_process(self) -> None:
        """No thread keeps it from ending, or computes on while it is taken down."""
        run = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.count("begun") == run.stdout.count("ended") >= 1

    def test_works_where_the_main_thread_has_ended(self) -> None:
        run = subprocess.run([sys.executable, "-c", AFTER_THE_MAIN_THREAD], capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout, run.stderr) == (0, "[1, 2, 3]\n", "")


LEFT = """
import time
from edgevl.engine.vision import run_ahead

def job():
    print("begun", flush=True)
    time.sleep(0.3)
    print("ended", flush=True)

ahead = run_ahead([lambda: 1, *[job] * 5], 2)
next(ahead)
"""

AFTER_THE_MAIN_THREAD = """
import threading
from edgevl.engine.vision import run_ahead

def work():
    threading.main_thread().join()
    print(list(run_ahead([lambda: 1, lambda: 2, lambda: 3], 2)))

threading.Thread(target=work).start()
"""


class FakeGraph:
    """Stands in for a vision graph: returns `features` for any tile."""

    path, backend, n_at_once = Path("vision.onnx"), "fake", 1

    def __init__(self, features: Any) -> None:
        self.features = np.asarray(features)
        self.required: tuple[set[str], set[str]] | None = None

    def require(self, inputs: set[str], outputs: set[str]) -> None:
        self.required = (inputs, outputs)

    def run(self, feeds: dict[str, Any], n_at_once: int) -> dict[str, Any]:
        assert n_at_once == 1
        assert feeds["pixel_values"].shape == (1, 3, 4, 4)
        return {"image_features": self.features}


TILE = np.zeros((1, 3, 4, 4), np.float32)


def encoder(features: Any, hidden: int | None = None) -> tuple[VisionEncoder, FakeGraph]:
    graph: Any = FakeGraph(features)
    return VisionEncoder(graph, hidden), graph


def test_an_encoder_names_its_graphs_input_and_output() -> None:
    _, graph = encoder(np.zeros((1, 2, 3)))
    assert graph.required == ({"pixel_values"}, {"image_features"})


def test_features_are_rows_of_float32() -> None:
    vision, _ = encoder(np.arange(6, dtype=np.float16).reshape(1, 2, 3))
    features = vision.encode(TILE)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("shape", "hidden", "wanted"), [((1, 4, 3), 2, " of 2 values each"), ((), None, ""), ((8,), 8, " of 8 values each")]
)
def test_features_that_are_no_rows_or_rows_of_another_width_are_an_error(
    shape: tuple[int, ...], hidden: int | None, wanted: str
) -> None:
    vision, _ = encoder(np.zeros(shape, np.float32), hidden)
    with pytest.raises(GraphError) as caught:
        vision.encode(TILE)
    assert str(caught.value) == (
        f"vision.onnx: gave image_features of {list(shape)}, not rows{wanted}; export the model again"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error(bad: float) -> None:
    vision, _ = encoder(np.array([[[0.0, bad]]]))
    with pytest.raises(GraphError) as caught:
        vision.encode(TILE)
    assert str(caught.value) == "vision.onnx: returned values that are not finite; run: edgevl verify"
