from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.engine.sampling import Sampler
from edgevl.generate import Generation, StopText
from edgevl.types import Delta, SamplingParams

EOS = 0
VOCAB = ("<eos>", " ", "a", "b", "red", " circle", "STOP", "ST", "OP", "\n", "é1", "é2")
"""The last two are the halves of one character."""


class Script:
    """A decoder whose scores name the tokens of a script, one after the other."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self.n_past = 0
        self.fed: list[int] = []
        self._script = list(token_ids)

    def extend(self, chunk: NDArray[Any], cancelled: threading.Event | None = None) -> bool:
        self.fed += chunk.tolist()
        self.n_past += len(chunk)
        return True

    def logits(self) -> NDArray[np.float32]:
        scores = np.zeros(len(VOCAB), np.float32)
        scores[self._script[self.n_past]] = 10
        return scores

    def truncate(self, n: int) -> None:
        self.n_past = n


class Words:
    """A tokenizer of `VOCAB`, of which only the stream is needed."""

    def stream(self) -> Words:
        self._half = False
        return self

    def step(self, token_id: int) -> str:
        if VOCAB[token_id] == "é1":
            self._half = True
            return ""
        self._half = False
        return "é" if VOCAB[token_id] == "é2" else VOCAB[token_id]

    def flush(self) -> str:
        return "\ufffd" if self._half else ""


def ids(*words: str) -> list[int]:
    return [VOCAB.index(word) for word in words]


def generation(
    script: Sequence[int], limit: int = 100, cancelled: threading.Event | None = None, **sampling: Any
) -> tuple[Generation, Script]:
    decoder, tokenizer = Script(script), Words()
    made = Generation(
        decoder,
        tokenizer,  # type: ignore[arg-type]
        prompt_ids=[2, 3],
        eos_token_ids=(EOS,),
        params=SamplingParams(**sampling),
        limit=limit,
        cancelled=cancelled or threading.Event(),
    )
    return made, decoder


def joined(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_it_ends_with_the_token_that_ends_answers() -> None:
    made, decoder = generation(ids("red", " circle", "<eos>"))
    assert list(made) == [Delta("red", 4), Delta(" circle", 5)]
    assert (made.finish_reason, made.token_ids, decoder.fed) == ("stop", [4, 5], [4, 5])


def test_an_answer_may_be_empty() -> None:
    made, decoder = generation([EOS])
    assert list(made) == []
    assert (made.finish_reason, made.token_ids, decoder.fed) == ("stop", [], [])


def test_the_last_token_at_the_limit_is_not_fed() -> None:
    made, decoder = generation(ids("a", "b", "a", "b"), limit=3)
    assert joined(list(made)) == "aba"
    assert (made.finish_reason, made.token_ids, decoder.fed) == ("length", [2, 3, 2], [2, 3])


@pytest.mark.parametrize("script", [("a", "STOP", "b"), ("a", "ST", "OP", "b")])
def test_a_stop_string_ends_it_and_is_not_shown(script: tuple[str, ...]) -> None:
    made, decoder = generation(ids(*script), stop="STOP")
    assert joined(list(made)) == "a"
    assert made.finish_reason == "stop"
    assert made.token_ids == ids(*script[:-1])
    assert decoder.fed == ids(*script[:-2])


def test_what_only_began_like_a_stop_string_is_shown() -> None:
    made, _ = generation(ids("a", "ST", "b", "ST", "<eos>"), stop=["STOP"])
    assert [delta.text for delta in made] == ["a", "", "STb", "", "ST"]


def test_a_character_is_shown_when_it_is_whole() -> None:
    made, _ = generation(ids("a", "é1", "é2", "<eos>"))
    assert [delta.text for delta in made] == ["a", "", "é"]


def test_an_unfinished_character_is_shown_at_the_end() -> None:
    made, _ = generation(ids("a", "é1", "<eos>"))
    assert list(made) == [Delta("a", 2), Delta("", 10), Delta("\ufffd", 10)]


def test_a_stop_string_may_end_in_what_was_held_back() -> None:
    made, _ = generation(ids("a", "é1"), limit=2, stop="\ufffd")
    assert joined(list(made)) == "a"
    assert made.finish_reason == "stop"


def test_white_space_before_the_first_word_is_dropped() -> None:
    made, _ = generation(ids(" ", "\n", " circle", " ", "a", "<eos>"))
    assert joined(list(made)) == "circle a"
    assert len(made.token_ids) == 5


def test_cancel_before_and_between_tokens() -> None:
    cancelled = threading.Event()
    cancelled.set()
    made, _ = generation(ids("a", "b"), cancelled=cancelled)
    assert list(made) == []
    assert (made.finish_reason, made.token_ids) == ("cancelled", [])

    cancelled.clear()
    made, decoder = generation(ids("a", "ST", "b"), cancelled=cancelled, stop="STOP")
    texts = []
    for number, delta in enumerate(made):
        texts.append(delta.text)
        if number == 1:
            cancelled.set()
    assert texts == ["a", "", "ST"]
    assert (made.finish_reason, made.token_ids, decoder.fed) == ("cancelled", ids("a", "ST"), ids("a", "ST"))


def test_the_penalty_sees_the_prompt_and_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    choose = Sampler.choose

    def watch(self: Sampler, logits: Any, history: Sequence[int]) -> int:
        seen.append(list(history))
        return choose(self, logits, history)

    monkeypatch.setattr(Sampler, "choose", watch)
    made, _ = generation(ids("b", "red", "<eos>"))
    list(made)
    assert seen == [[2, 3], [2, 3, 3], [2, 3, 3, 4]]


def pieces_shown(pieces: Sequence[str], stop: Sequence[str]) -> tuple[list[str], bool]:
    text = StopText(stop)
    shown = [text.add(piece) for piece in pieces]
    return [*shown, text.flush()], text.stopped


def test_text_passes_as_soon_as_it_cannot_become_a_stop_string() -> None:
    assert pieces_shown(["x", "\n", "\ny", "z"], ["\n\n"]) == (["x", "", "", "", ""], True)
    assert pieces_shown(["x", "\n", "y", "z"], ["\n\n"]) == (["x", "", "\ny", "z", ""], False)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert pieces_shown(["one, two. three"], [".", ","]) == (["one", ""], True)


def test_nothing_is_shown_after_the_stop() -> None:
    assert pieces_shown(["a.", "b", "c."], ["."]) == (["a", "", "", ""], True)


@given(st.lists(st.text("ab.", max_size=4), max_size=12), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3))
def test_pieces_show_the_text_up_to_a_stop_string(pieces: list[str], stop: list[str]) -> None:
    shown, stopped = pieces_shown(pieces, stop)
    whole = "".join(pieces)
    assert whole.startswith("".join(shown))
    assert not any(text in "".join(shown) for text in stop)
    assert stopped == any(text in whole for text in stop)
    if not stopped:
        assert "".join(shown) == whole


@given(st.text(" \nab", max_size=10), st.integers(1, 4))
def test_white_space_is_dropped_however_the_text_is_cut(text: str, size: int) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    shown, _ = pieces_shown(pieces, [])
    assert "".join(shown) == text.lstrip()
