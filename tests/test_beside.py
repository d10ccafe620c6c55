"""Tiles that leave threads idle: a decoder whose weights are mapped begins to read the others meanwhile."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import edgevl
from edgevl import loaded, steps
from edgevl.engine.native.decoder import NativeDecoder
from edgevl.placement import Placement
from edgevl.request import TileSource
from tests import natively
from tests.test_taking_turns import ask, parts, picture

Calls = list[Callable[[], object]]


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "LARGE_BYTES", 0)


@pytest.fixture
def vlm() -> Iterator[edgevl.VLM]:
    with natively.computed("natively"), edgevl.load(store=False, low_memory=True) as vlm:
        vlm._open().encoder.n_at_once = 2
        yield vlm


@pytest.fixture
def on_last_tile(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is done, once, before the last of five tiles is encoded."""
    calls, features = Calls(), TileSource.features

    def told(self: TileSource, image: int, tile: int, *given: Any) -> Any:
        while tile == 4 and calls:
            calls.pop()()
        return features(self, image, tile, *given)

    monkeypatch.setattr(TileSource, "features", told)
    return calls


def test_the_decoder_reads_the_others(vlm: edgevl.VLM, on_last_tile: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = threading.Event()
    extend = NativeDecoder.extend

    def told(self: Any, *given: Any) -> bool:
        done = extend(self, *given)
        reading.set()
        return done

    monkeypatch.setattr(NativeDecoder, "extend", told)
    monkeypatch.setattr(steps, "LEAST", 1)  # a step for each tile, although they are few tokens
    seen: list[tuple[int, set[str]]] = []
    met: list[bool] = []
    on_last_tile.append(lambda: met.append(reading.wait(timeout=20)))
    answer = ask(vlm, picture(11), on_tile=lambda done, _: seen.append((done, parts(vlm))))
    assert met == [True]
    assert seen == [*((done, {"encoder"}) for done in range(1, 5)), (5, {"decoder"})]
    assert parts(vlm) == {"decoder"}
    with edgevl.load(store=False) as whole:
        assert answer.token_ids == ask(whole, picture(11)).token_ids


def test_threads_are_idle_at_what_their_number_does_not_divide(vlm: edgevl.VLM) -> None:
    model = vlm._open()
    assert [model.n_beside(n) for n in (0, 1, 4, 17)] == [0, 1, 0, 1]
    model.encoder.n_at_once = 1
    assert model.n_beside(17) == 0
    with natively.computed("as graphs"), edgevl.load(store=False, low_memory=True) as graphs:
        graphs._open().encoder.n_at_once = 2
        assert graphs._open().n_beside(17) == 0


def test_its_error_is_raised_and_leaves_a_usable_state(vlm: edgevl.VLM, on_last_tile: Calls) -> None:
    def fail() -> None:
        raise edgevl.EdgeVLError("vision.onnx: failed")

    on_last_tile.append(fail)
    with pytest.raises(edgevl.EdgeVLError, match=r"vision\.onnx: failed"):
        ask(vlm, picture(13))
    with edgevl.load(store=False) as whole:
        assert ask(vlm, picture(13)).token_ids == ask(whole, picture(13)).token_ids


def test_it_may_be_cancelled(vlm: edgevl.VLM, on_last_tile: Calls) -> None:
    cancel = threading.Event()
    on_last_tile.append(cancel.set)
    assert ask(vlm, picture(14), cancel=cancel).finish_reason == "cancelled"
    with edgevl.load(store=False) as whole:
        assert ask(vlm, picture(14)).token_ids == ask(whole, picture(14)).token_ids


def test_the_thread_that_uses_the_encoder_last_frees_it(vlm: edgevl.VLM) -> None:
    gone = weakref.ref(vlm._open().encoder)
    ask(vlm, picture(15))
    assert gone() is None


def test_it_is_freed_when_all_are_done_and_not_when_the_last_one_is(
    vlm: edgevl.VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five tiles on two threads the last one is there before the fourth: the encoder stays for that."""
    last, features = threading.Event(), TileSource.features

    def in_turn(self: TileSource, image: int, tile: int, *given: Any) -> Any:
        if tile == 3:
            last.wait(timeout=20)
        found = features(self, image, tile, *given)
        if tile == 4:
            last.set()
        return found

    monkeypatch.setattr(TileSource, "features", in_turn)
    opened: list[Any] = []
    encoder = Placement.encoder
    monkeypatch.setattr(Placement, "encoder", lambda self: opened.append(self) or encoder(self))
    ask(vlm, picture(18))
    assert last.is_set()
    assert opened == []
    assert parts(vlm) == {"decoder"}


def test_its_threads_are_left_to_it_and_come_back(
    vlm: edgevl.VLM, on_last_tile: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    leave, last = NativeDecoder.leave, threading.Event()

    def noted(self: NativeDecoder, n_threads: int) -> None:
        left.append(n_threads)
        leave(self, n_threads)
        last.set()

    monkeypatch.setattr(NativeDecoder, "leave", noted)
    on_last_tile.append(lambda: last.wait(timeout=20))
    ask(vlm, picture(16))
    assert left[0] == 1
    assert set(left[1:]) == {0}
    left.clear()
    cancel = threading.Event()
    vlm._open().encoder.n_at_once = 2
    ask(vlm, picture(17), cancel=cancel, on_tile=lambda done, total: cancel.set() if done == total else None)
    assert left[-1] == 0
