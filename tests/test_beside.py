"""Tiles that leave threads idle: a decoder whose weights are mapped begins to read the others meanwhile."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

import edgevl
from edgevl import loaded, steps
from edgevl.engine.native.decoder import NativeDecoder
from tests import natively
from tests.test_taking_turns import ask, parts, picture

BOTH = {"encoder", "decoder"}

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
def on_last_tile(vlm: edgevl.VLM, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is done before the last of five tiles is encoded."""
    encoder, numbers, calls = vlm._open().encoder, count(1), Calls()
    encode = encoder.encode

    def counted(*given: Any) -> Any:
        if next(numbers) == 5:
            for call in calls:
                call()
        return encode(*given)

    monkeypatch.setattr(encoder, "encode", counted)
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
    assert seen == [(1, {"encoder"}), (2, {"encoder"}), (3, {"encoder"}), (4, {"encoder"}), (5, BOTH)]
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


def test_the_encoder_is_free_although_its_thread_was_the_last_to_use_it(vlm: edgevl.VLM) -> None:
    gone = weakref.ref(vlm._open().encoder)
    ask(vlm, picture(15))
    for thread in threading.enumerate():
        if thread.name == "edgevl-freeing":
            thread.join(timeout=20)
    assert gone() is None
