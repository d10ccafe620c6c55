"""Text that repeats is fed ahead, and the answer is the same as without."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edgevl
from edgevl import machine
from edgevl.engine.ahead import AheadDecoder, is_known
from edgevl.engine.lookup import Lookup
from edgevl.types import Answer
from tests import natively

BACKEND = f"onnxruntime {machine.version('onnxruntime')} cpu"
AGAIN = {"repetition_penalty": 0.5}  # what has been said is favoured
LOOP = " ".join(["total: 12.50, name: apple;"] * 6)


def opened(request: pytest.FixtureRequest, name: str) -> edgevl.VLM:
    """Open a model; skip the test where its decoder is not fed ahead here."""
    how, fixture = natively.FOLDERS[name]
    if how == "as graphs" and (sys.platform != "linux" or not is_known(BACKEND)):
        pytest.skip(f"{BACKEND} on {sys.platform} is fed one by one; see edgevl/engine/ahead.py")
    folder: Path | None = request.getfixturevalue(fixture) if fixture else None
    with natively.computed(how):
        vlm = edgevl.load(folder, store=False, threads=2, device="cpu")
        assert vlm._open().decoder.backend.startswith("edgevl " if how == "natively" else "onnxruntime ")
    return vlm


@pytest.fixture(scope="module", params=natively.FOLDERS)
def vlm(request: pytest.FixtureRequest) -> edgevl.VLM:
    """A model of each decoder precision, computed in each way."""
    return opened(request, request.param)


@pytest.fixture(scope="module", params=["random fp32", "random int4"])
def endless(request: pytest.FixtureRequest) -> edgevl.VLM:
    """A model that says the same again and again."""
    return opened(request, request.param)


def ask(vlm: edgevl.VLM, question: str, *, ahead: bool = True, **options: Any) -> tuple[Answer, list[str]]:
    """Return an answer and its pieces, with tokens fed ahead or without."""
    with pytest.MonkeyPatch.context() as patch:
        if not ahead:
            patch.setattr(Lookup, "propose", lambda self, n_most: [])
        stream = vlm.stream(None, question, **options)
        pieces = [delta.text for delta in stream]
    return stream.answer, pieces


@settings(max_examples=15)
@given(
    line=st.lists(st.sampled_from(["total", "12.50", "name:", "apple", "\n7"]), min_size=1, max_size=8),
    n_times=st.integers(1, 5),
    max_tokens=st.integers(1, 60),
    sampling=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([0.5, 1.0]),
            "repetition_penalty": st.sampled_from([0.8, 1.3]),
            "stop": st.sampled_from(["e", "\n", "12"]),
        },
    ),
)
def test_the_answer_is_the_same(
    vlm: edgevl.VLM, line: list[str], n_times: int, max_tokens: int, sampling: dict[str, Any]
) -> None:
    question = " ".join(line * n_times)
    answer, pieces = ask(vlm, question, max_tokens=max_tokens, seed=3, **sampling)
    wanted, wanted_pieces = ask(vlm, question, ahead=False, max_tokens=max_tokens, seed=3, **sampling)
    assert answer.token_ids == wanted.token_ids
    assert (answer.text, answer.finish_reason, answer.usage) == (wanted.text, wanted.finish_reason, wanted.usage)
    assert pieces == wanted_pieces


def n_fed_ahead(endless: edgevl.VLM, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Answer, int]:
    """Answer; return how many tokens were fed with others in one run."""
    sizes = []
    decoder = endless._open().decoder
    assert isinstance(decoder, AheadDecoder)
    extend_each = decoder.extend_each

    def watch(token_ids: Sequence[int]) -> NDArray[np.float32] | None:
        scores = extend_each(token_ids)
        sizes.append(0 if scores is None else len(token_ids))
        return scores

    monkeypatch.setattr(decoder, "extend_each", watch)
    answer, _ = ask(endless, LOOP, **options)
    return answer, sum(sizes)


def test_a_text_that_repeats_is_fed_ahead(endless: edgevl.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, n_ahead = n_fed_ahead(endless, monkeypatch, max_tokens=80, **AGAIN)
    assert len(answer.token_ids) == 80
    assert n_ahead > 30


def test_cancelling_is_seen_after_every_token(endless: edgevl.VLM) -> None:
    whole, _ = ask(endless, LOOP, max_tokens=80, **AGAIN)
    for n_tokens in (40, 41, 42, 43):
        cancel = threading.Event()
        stream = endless.stream(None, LOOP, max_tokens=80, **AGAIN, cancel=cancel)
        for number, _ in enumerate(stream, 1):
            if number == n_tokens:
                cancel.set()
        assert stream.answer.finish_reason == "cancelled"
        assert stream.answer.token_ids == whole.token_ids[:n_tokens]


def test_the_decoder_holds_what_was_said_and_nothing_ahead(endless: edgevl.VLM) -> None:
    for n_tokens in (40, 41, 42, 43):
        stream = endless.stream(None, LOOP, max_tokens=80, **AGAIN)
        for _ in range(n_tokens):
            next(stream)
        stream.close()
        decoder = endless._open().decoder
        with endless.stream(None, LOOP, max_tokens=1) as again:
            n_prompt = again.finish().usage.prompt_tokens
        assert decoder.n_past == n_prompt
        answer, _ = ask(endless, LOOP, max_tokens=n_tokens, **AGAIN)
        scores = decoder.logits()
        assert decoder.n_past == n_prompt + n_tokens - 1
        ask(endless, LOOP, ahead=False, max_tokens=n_tokens, **AGAIN)
        assert np.array_equal(decoder.logits(), scores)
        assert len(answer.token_ids) == n_tokens
