"""What is computed without a graph is what numpy computes from the same bytes, in any parts and with any threads."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.engine.ahead import AheadDecoder
from edgevl.engine.decoder import PIECE
from edgevl.engine.native.decoder import N_AT_ONCE, NativeDecoder, can_run
from edgevl.engine.native.library import Weights
from edgevl.engine.native.plan import plan_path, read_plan
from edgevl.errors import GraphError, ManifestError
from tests.engine.native.plans import (
    FLIPPED,
    Made,
    Shape,
    changed,
    computed,
    difference,
    instruction_sets,
    needs_library,
    set_floats,
    shapes,
    write,
)

pytestmark = needs_library
NUMBERS = (1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33, 40)
"""How many tokens are fed at once: by products for few tokens, and by those for many with full and partial tiles."""


@pytest.fixture(params=instruction_sets())
def each_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute with each instruction set in turn that the processor has."""
    monkeypatch.setenv("EDGEVL_NATIVE", request.param)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write(tmp_path, Shape(has_biases=True))


@pytest.mark.parametrize("n", NUMBERS)
@pytest.mark.usefixtures("each_set")
def test_scores_and_cache_are_what_numpy_computes(n: int, tmp_path: Path) -> None:
    """To the last digits, unless a value lies on the edge between two steps: of 40 tokens, in half of the shapes."""
    of_scores, of_cache = [], []
    for number, shape in enumerate(shapes()):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = write(folder, shape)
        ids = made.ids(n, number)
        decoder = made.opened(n_threads=1)
        assert decoder.extend(ids)
        wanted = computed(made, made.embeddings[ids])
        of_scores.append(difference(decoder.logits(), wanted.logits[-1]))
        of_cache.append(np.abs(decoder.save() - wanted.cache).max() / np.abs(wanted.cache).max())
    assert max(of_scores) < FLIPPED
    assert max(of_cache) < FLIPPED
    assert np.quantile(of_scores, 0.25) < 2e-5
    assert np.median(of_cache) < 1e-3  # a step of half precision


@pytest.mark.skipif("avx512bf16" not in instruction_sets(), reason="this processor has no bf16 instructions")
@pytest.mark.parametrize("n", [1, N_AT_ONCE, N_AT_ONCE + 1])
def test_only_many_tokens_are_attended_to_in_bf16(n: int, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("avx512", "avx512bf16"):
        monkeypatch.setenv("EDGEVL_NATIVE", name)
        decoder = made.opened()
        decoder.extend(made.ids(n))
        assert decoder.backend.endswith(f" {name}")
        found.append(decoder.logits())
    assert np.array_equal(*found) == (n <= N_AT_ONCE)
    assert difference(*found) < FLIPPED


@st.composite
def any_shape(draw: st.DrawFn) -> Shape:
    bits = draw(st.sampled_from([4, 8]))
    block = draw(st.sampled_from([16, 32, 64, 128] if bits == 4 else [16, 32, 64]))
    head_dim = draw(st.sampled_from([16, 32, 48, 64, 80, 96, 128]))
    each = draw(st.integers(1, 16))
    n_kv_heads = draw(st.integers(1, 3)) * (1 if each * head_dim % block == 0 else block // 16)
    return Shape(
        bits=bits,
        block=block,
        head_dim=head_dim,
        n_heads=each * n_kv_heads,
        n_kv_heads=n_kv_heads,
        hidden=block * draw(st.integers(1, 6)),
        intermediate=block * draw(st.integers(1, 6)),
        vocab=draw(st.integers(2, 130)),
        n_layers=draw(st.integers(1, 2)),
        half_rotary=draw(st.integers(1, head_dim // 2)),
        has_biases=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )


SHORT = Shape(block=64, n_heads=8, n_kv_heads=4, intermediate=128, vocab=2, half_rotary=1, has_biases=True, seed=1)
"""One whose two scores happen to be small."""


@settings(max_examples=25)
@example(shape=SHORT, numbers=[3], n_threads=1)
@given(shape=any_shape(), numbers=st.lists(st.integers(1, 40), min_size=1, max_size=3), n_threads=st.integers(1, 3))
def test_any_shape_is_computed_in_any_parts(shape: Shape, numbers: list[int], n_threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = write(Path(folder), shape)
        ids = made.ids(sum(numbers))
        decoder = made.opened(n_threads)
        for part in np.split(ids, np.cumsum(numbers)[:-1]):
            decoder.extend(part)
        wanted = computed(made, made.embeddings[ids])
        # Few scores may be small beside what was added up for them: they are as random numbers about 1 in size.
        scores = wanted.logits[-1]
        length = max(np.linalg.norm(scores), np.sqrt(len(scores)))
        assert np.linalg.norm(decoder.logits() - scores) < FLIPPED * length
        assert np.abs(decoder.save() - wanted.cache).max() < FLIPPED * np.abs(wanted.cache).max()
        del decoder


@pytest.mark.parametrize("n_before", [1, 5, 250, 509, 768])
def test_a_long_past_is_read_in_blocks(n_before: int, tmp_path: Path) -> None:
    made = write(tmp_path, Shape(n_positions=1024, n_layers=1, n_heads=6))
    ids = made.ids(n_before + 20)
    decoder = made.opened()
    decoder.extend(ids[:n_before])
    scores = [decoder.extend_each(ids[n_before + at : n_before + at + 4].tolist()) for at in range(0, 20, 4)]
    wanted = computed(made, made.embeddings[ids])
    found = np.concatenate([each for each in scores if each is not None])
    assert difference(found, wanted.logits[n_before:]) < FLIPPED
    assert np.abs(decoder.save() - wanted.cache).max() < FLIPPED * np.abs(wanted.cache).max()


def one_by_one(decoder: NativeDecoder, ids: NDArray[Any]) -> NDArray[np.float32]:
    rows = []
    for token in ids:
        decoder.extend(token[None])
        rows.append(decoder.logits())
    return np.array(rows)


@settings(max_examples=30)
@given(
    shape=any_shape(),
    n_before=st.one_of(st.integers(0, 20), st.integers(246, 262)),
    numbers=st.lists(st.integers(1, N_AT_ONCE), min_size=1, max_size=6),
    n_threads=st.integers(1, 3),
)
def test_up_to_four_tokens_are_computed_as_if_alone(
    shape: Shape, n_before: int, numbers: list[int], n_threads: int
) -> None:
    """Scores and cache are equal in all bits, whatever the tokens are fed with and with however many threads."""
    with tempfile.TemporaryDirectory() as folder:
        made = write(Path(folder), shape)
        ids = made.ids(n_before + sum(numbers))
        before, rest = ids[:n_before], ids[n_before:]
        alone, together = made.opened(1), made.opened(n_threads)
        for decoder in (alone, together):
            if n_before:
                decoder.extend(before)
        wanted = one_by_one(alone, rest)
        at = 0
        for n in numbers:
            scores = together.extend_each(rest[at : at + n].tolist())
            assert scores is not None
            assert np.array_equal(scores, wanted[at : at + n])
            assert np.array_equal(together.logits(), scores[-1])
            at += n
        assert together.n_past == len(ids)
        assert np.array_equal(together.save(), alone.save())
        del alone, together, decoder


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 40, PIECE + 37])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.usefixtures("each_set")
def test_the_number_of_threads_changes_no_bit(bits: int, n: int, tmp_path: Path) -> None:
    made = write(tmp_path, Shape(bits=bits, has_biases=True, n_heads=6, vocab=515))
    ids = made.ids(n)
    found = []
    for n_threads in (1, 2, 3, 7):
        decoder = made.opened(n_threads)
        for _ in range(2):
            decoder.truncate(0)
            decoder.extend(ids)
        found.append((decoder.logits(), decoder.save()))
    for logits, cache in found[1:]:
        assert np.array_equal(logits, found[0][0])
        assert np.array_equal(cache, found[0][1])


@pytest.mark.parametrize("n", [1, 4, 30])
def test_embeddings_may_be_fed_in_the_place_of_ids(made: Made, n: int) -> None:
    ids = made.ids(n)
    decoder, other = made.opened(), made.opened()
    decoder.extend(ids)
    embedded = decoder.embed(ids)
    assert embedded.dtype == np.float32
    other.extend(np.asfortranarray(embedded))
    assert np.array_equal(other.logits(), decoder.logits())
    assert np.array_equal(other.save(), decoder.save())


def test_it_is_a_decoder_that_is_fed_ahead(made: Made) -> None:
    decoder = made.opened()
    assert isinstance(decoder, AheadDecoder)
    assert decoder.n_at_once == N_AT_ONCE
    assert decoder.backend.startswith("edgevl 1 ")
    assert decoder.extend_each([1] * (N_AT_ONCE + 1)) is None
    assert decoder.n_past == 0


def test_what_is_forgotten_again_leaves_no_trace(made: Made) -> None:
    ids = made.ids(20)
    decoder, fresh = made.opened(), made.opened()
    decoder.extend(ids[:9])
    wanted = one_by_one(decoder, ids[9:])
    decoder.truncate(9)
    wrong = [int(ids[9]), int(ids[10]), int(ids[0]), int(ids[1])]
    assert decoder.extend_each(wrong) is not None
    decoder.truncate(12)
    decoder.truncate(11)
    assert np.array_equal(decoder.logits(), wanted[1])
    assert np.array_equal(one_by_one(decoder, ids[11:]), wanted[2:])
    fresh.extend(ids[:9])
    one_by_one(fresh, ids[9:])
    assert np.array_equal(fresh.save(), decoder.save())
    for n in (-1, 21):
        with pytest.raises(ValueError, match=f"cannot truncate to {n} tokens, 20 are held"):
            decoder.truncate(n)


def test_what_is_saved_is_gone_on_from_to_the_last_bit(made: Made) -> None:
    ids = made.ids(300)
    decoder, other = made.opened(), made.opened(1)
    decoder.extend(ids[:290])
    before = decoder.save()
    decoder.settle()
    state = decoder.save()
    assert state.dtype == np.float16
    assert np.array_equal(before, state)  # it is held in half precision
    other.extend(ids[:3])
    assert other.load(state, 290)
    assert other.n_past == 290
    assert np.array_equal(one_by_one(other, ids[290:]), one_by_one(decoder, ids[290:]))
    assert np.array_equal(other.save(), decoder.save())


def test_what_another_decoder_saved_is_not_taken(made: Made) -> None:
    decoder = made.opened()
    decoder.extend(made.ids(5))
    state = decoder.save()
    for wrong in (state.astype(np.float32), state[:-1], state[:, :1], state[:, :, :4], state[..., :8]):
        assert not decoder.load(wrong, 5)
    assert np.array_equal(decoder.save(), state)


def test_room_that_is_expected_is_taken_at_once(made: Made) -> None:
    decoder = made.opened()
    decoder.expect(300)
    decoder.extend(made.ids(2))
    where = decoder._cache.arrays["0.key"]
    assert where.shape[2] >= 300
    decoder.extend(made.ids(298))
    assert decoder._cache.arrays["0.key"] is where


@pytest.mark.parametrize("n", [1, 3, 40, 2 * PIECE])
def test_there_is_an_end_to_the_context(n: int, tmp_path: Path) -> None:
    made = write(tmp_path, Shape(n_positions=700))
    decoder = made.opened()
    decoder.extend(made.ids(699))
    assert decoder.extend_each([1, 2]) is None
    decoder.extend(made.ids(1))
    assert decoder.extend_each([1]) is None
    decoder.truncate(701 - n)
    scores = decoder.logits()
    with pytest.raises(GraphError) as caught:
        decoder.extend(made.ids(n))
    assert str(caught.value) == f"{made.path}: takes 700 tokens, not 701"
    assert decoder.n_past == 701 - n
    assert np.array_equal(decoder.logits(), scores)
    if n > 1:
        decoder.extend(made.ids(n - 1))
        assert decoder.n_past == 700


def test_a_context_shorter_than_the_table_of_positions_ends_there(tmp_path: Path) -> None:
    made = write(tmp_path, Shape(n_positions=600))
    decoder = replace(made, spec=replace(made.spec, context_length=8)).opened()
    decoder.extend(made.ids(7))
    assert decoder.extend_each([1, 2]) is None
    decoder.extend(made.ids(1))
    with pytest.raises(GraphError) as caught:
        decoder.extend(made.ids(1))
    assert str(caught.value) == f"{made.path}: takes 8 tokens, not 9"
    with pytest.raises(ManifestError) as error:
        replace(made, spec=replace(made.spec, context_length=601)).opened()
    assert str(error.value) == f"{plan_path(made.path)}: is not this decoder's; export or download the model again"


def test_scores_of_a_prompt_are_computed_when_they_are_asked_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are those that would have been computed at once, whatever is done meanwhile but feeding more."""
    n_scored: list[int] = []
    score = Weights.score

    def counted(self: Weights, logits: NDArray[np.float32]) -> None:
        n_scored.append(len(logits))
        score(self, logits)

    prompt, more = made.ids(9), made.ids(7)
    at_once, later = made.opened(), made.opened()
    at_once.extend(prompt)
    wanted = at_once.logits()
    monkeypatch.setattr(Weights, "score", counted)
    later.extend(prompt[:5])
    later.extend(prompt[5:])
    assert n_scored == []  # of one token, or of few, they are at hand
    later.truncate(0)
    later.extend(prompt)
    later.save()
    assert n_scored == []
    assert np.array_equal(later.logits(), wanted)
    assert np.array_equal(later.logits(), wanted)
    assert n_scored == [1]
    for decoder in (at_once, later):
        decoder.extend(more)
    at_once.logits()
    assert np.array_equal(later.extend_each([3, 4]), at_once.extend_each([3, 4]))
    later.truncate(len(prompt))
    at_once.truncate(len(prompt))
    for decoder in (at_once, later):
        decoder.extend(more)
        decoder.extend(more[:1])
    assert np.array_equal(later.logits(), at_once.logits())


class Cancelled(threading.Event):
    """An event that is set once it was looked at so many times."""

    def __init__(self, n_looks: int) -> None:
        super().__init__()
        self._n_left = n_looks

    def is_set(self) -> bool:
        self._n_left -= 1
        return self._n_left < 0


def test_a_long_chunk_is_cancelled_between_its_pieces(tmp_path: Path) -> None:
    made = write(tmp_path, Shape(n_positions=2048, n_layers=1))
    ids = made.ids(3 * PIECE)
    decoder, whole = made.opened(), made.opened()
    decoder.extend(ids[:5])
    whole.extend(ids[:5])
    before, scores = decoder.save(), whole.logits()
    whole.truncate(0)
    for n_looks in (0, 1):
        assert not decoder.extend(ids[5:], Cancelled(n_looks))
        assert decoder.n_past == 5
        assert np.array_equal(decoder.logits(), scores)
        assert np.array_equal(decoder.save(), before)
    assert decoder.extend(ids[5:], Cancelled(2))
    whole.extend(ids[:5])
    assert whole.extend(ids[5:])
    assert np.array_equal(decoder.logits(), whole.logits())
    done = threading.Event()
    done.set()
    assert decoder.extend(ids[:PIECE], done)  # in one piece


def test_positions_are_refused(made: Made) -> None:
    decoder = made.opened()
    with pytest.raises(GraphError) as caught:
        decoder.extend(np.zeros((4, 64), np.float32), positions=np.zeros((3, 4), np.int64))
    assert str(caught.value) == (f"{made.path}: takes no positions in time, height and width; use a GGUF decoder")
    assert decoder.n_past == 0


@pytest.mark.parametrize("width", [63, 65, 1])
def test_features_of_another_width_are_an_error(made: Made, width: int) -> None:
    decoder = made.opened()
    with pytest.raises(GraphError) as caught:
        decoder.extend(np.zeros((4, width), np.float32))
    assert str(caught.value) == f"{made.path}: takes features of 64 values, not {width}; export the model again"
    assert decoder.n_past == 0


PLACES = ("norm", "queries", "keys", "values", "out", "post_norm", "gate", "up", "down", "final_norm", "head", "bias")


def place_of(made: Made, name: str) -> int:
    """Return where one of a decoder's float32 numbers lies."""
    plan = read_plan(made.path)
    assert plan is not None
    layer = plan.layers[-1]
    row = plan.hidden // 16 * 4  # bytes of a row's scales
    keys = plan.n_heads * plan.head_dim
    places = {
        "norm": layer.norm,
        "queries": layer.qkv.scales,
        "keys": layer.qkv.scales + keys * row,
        "values": layer.qkv.scales + (keys + plan.n_kv_heads * plan.head_dim) * row,
        "out": layer.out.scales,
        "post_norm": layer.post_norm,
        "gate": layer.gate_up.scales,
        "up": layer.gate_up.scales + plan.intermediate * row,
        "down": layer.down.scales,
        "final_norm": plan.final_norm,
        "head": plan.head.scales,
        "bias": layer.qkv.bias or 0,
    }
    return places[name]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", PLACES)
def test_weights_that_are_no_numbers_are_found(name: str, bits: int, tmp_path: Path) -> None:
    made = write(tmp_path, Shape(bits=bits, has_biases=True))
    set_floats(made, place_of(made, name), [np.nan])
    decoder = made.opened()
    for n in (1, 3, 20):
        decoder.truncate(0)
        decoder.extend(made.ids(n))
        with pytest.raises(GraphError) as caught:
            decoder.logits()
        assert str(caught.value) == f"{made.path}: returned scores that are not numbers; run: edgevl verify"
    assert decoder.extend_each([1, 2]) is None
    assert decoder.n_past == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 4, 20])
def test_embeddings_that_are_no_numbers_are_found(made: Made, bad: float, n: int) -> None:
    features = np.ones((n, 64), np.float32)
    features[-1, 5] = bad
    decoder = made.opened()
    decoder.extend(features)
    with pytest.raises(GraphError, match="returned scores that are not numbers"):
        decoder.logits()
    decoder.truncate(0)
    decoder.extend(made.ids(3))
    assert np.isfinite(decoder.logits()).all()


@pytest.mark.parametrize("size", [0, 1e-42, 1e-30, 1e15])
@pytest.mark.parametrize("n", [1, 3, 9])
def test_embeddings_of_any_size_give_numbers(made: Made, size: float, n: int) -> None:
    features = (made.embeddings[made.ids(n)].astype(np.float32) * size).astype(np.float32)
    decoder = made.opened()
    decoder.extend(features)
    assert np.isfinite(decoder.logits()).all()


def test_keys_and_values_beyond_half_precision_become_its_largest(made: Made) -> None:
    place = place_of(made, "bias")
    plan = read_plan(made.path)
    assert plan is not None
    n_queries, n_keys = plan.n_heads * plan.head_dim, plan.n_kv_heads * plan.head_dim
    set_floats(made, place + 4 * n_queries, [1e6, *np.zeros(n_keys - 1), -1e6])
    for n in (1, 9):
        decoder = made.opened()
        decoder.extend(made.ids(n))
        held = decoder.save()
        assert np.isfinite(held).all()
        assert (held[-1, 0, :, 0] == -65504).all()
        assert np.isfinite(decoder.logits()).all()


@pytest.mark.parametrize("size", ["n_layers", "n_kv_heads", "head_dim", "hidden_size", "vocab_size"])
def test_the_plan_of_another_decoder_is_refused(made: Made, size: str) -> None:
    other = replace(made, spec=replace(made.spec, **{size: getattr(made.spec, size) + 1}))
    with pytest.raises(ManifestError) as caught:
        other.opened()
    assert str(caught.value) == f"{plan_path(made.path)}: is not this decoder's; export or download the model again"


def test_a_plan_that_is_gone_is_an_error(made: Made) -> None:
    plan_path(made.path).unlink()
    with pytest.raises(ManifestError, match=r"decoder\.onnx\.native\.json: is not this decoder's"):
        made.opened()


def test_what_can_be_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_run(made.path)
    assert not can_run(made.path.with_name("other.onnx"))
    monkeypatch.setenv("EDGEVL_NATIVE", "off")
    assert not can_run(made.path)


def test_a_plan_of_a_later_form_leaves_the_decoder_to_its_graph(made: Made) -> None:
    assert not can_run(changed(made, lambda document: document.update(form=2, more=[])).path)


def test_a_damaged_plan_is_said_when_the_decoder_is_opened(made: Made) -> None:
    plan_path(made.path).write_text("{", "utf-8")
    assert can_run(made.path)
    with pytest.raises(ManifestError, match=r"is damaged \(.*\); export or download the model again"):
        made.opened()
