"""The steps between messages and a prefilled decoder, on a model without weights."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl import steps
from edgevl.errors import ContextOverflow, GraphError, InputError
from edgevl.image.read import read
from edgevl.image.tiling import TilePlan
from edgevl.model.manifest import ImageSpec
from edgevl.request import Request, TileSource, check_seam, open_image, plan_image, prefill
from edgevl.store.keys import tiles_id
from edgevl.store.memory import Store
from edgevl.types import Chunk, Features, ImageChunk, ImagePart, Message, SamplingParams, TextChunk, TextPart

TILE, N = 8, 2
IMAGE = ImageSpec(TILE, 4 * TILE, N, (0.5,) * 3, (0.5,) * 3, "nearest")


class Echo:
    """A decoder that notes what it holds: token ids, and the first number of each row of features."""

    def __init__(self) -> None:
        self.held: list[float] = []
        self.n_fed = 0
        self.fed: list[list[float]] = []
        self.n_settled = 0
        self.n_expected = 0

    @property
    def n_past(self) -> int:
        return len(self.held)

    def expect(self, n_tokens: int) -> None:
        self.n_expected = n_tokens

    def extend(self, chunk: NDArray[Any], cancelled: threading.Event | None = None) -> bool:
        self.fed.append(chunk.tolist() if chunk.ndim == 1 else chunk[:, 0].tolist())
        self.held += self.fed[-1]
        self.n_fed += len(chunk)
        return True

    def embed(self, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.repeat(token_ids[:, None].astype(np.float32), 4, axis=1)

    def logits(self) -> NDArray[np.float32]:
        return np.zeros(3, np.float32)

    def truncate(self, n: int) -> None:
        del self.held[n:]

    def settle(self) -> None:
        self.n_settled = len(self.held)

    def save(self) -> NDArray[Any]:
        return np.array(self.held, np.float32)

    def load(self, state: NDArray[Any], n: int) -> bool:
        if len(state) != n:
            return False
        self.held = state.tolist()
        return True


class Brightness:
    """A vision encoder for two tiles at once, whose features are 1000 and the tile's first pixel value."""

    n_at_once = 2

    def __init__(self) -> None:
        self.n_encoded = 0

    def open(self, n_at_once: int) -> None: ...

    def encode(self, pixel_values: NDArray[np.float32], n_at_once: int) -> NDArray[np.float32]:
        self.n_encoded += 1
        return np.full((N, 4), 1000 + round(float(pixel_values[0, 0, 0, 0] * 127.5 + 127.5)), np.float32)


class Model:
    """What a request needs of a loaded model. A text is its letters' code points, an image goes before the text."""

    def __init__(self, context_length: int = 200, prefixes: Store | None = None, joins_chunks: bool = False) -> None:
        self.joins_chunks = joins_chunks
        self.decoder = Echo()
        self.encoder = Brightness()
        self.held: list[Any] = []
        self.takes_turns = False
        self.vision_id, self.decoder_id = "v", "d"
        self.tiles = Store("tiles", 10**6)
        self.prefixes = prefixes or Store("prefixes", 10**6)
        self.manifest = SimpleNamespace(
            image=IMAGE, decoder=SimpleNamespace(context_length=context_length, hidden_size=4)
        )

    def plan(self, size: tuple[int, int], detail: Any) -> TilePlan:
        from edgevl.image import tiling

        return tiling.plan(size, IMAGE, "split_grid", detail)

    def chunks(self, messages: Any, plans: Any) -> list[Chunk]:
        chunks: list[Chunk] = []
        left = list(enumerate(plans))
        for message in messages:
            for part in message.parts:
                if isinstance(part, ImagePart):
                    image, plan = left.pop(0)
                    chunks += [ImageChunk(image, tile, N) for tile in range(plan.n_tiles)]
                else:
                    chunks.append(TextChunk(tuple(map(ord, part.text))))
        return chunks


def picture(value: int, height: int = TILE, width: int = TILE) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def ask(model: Any, *parts: Any, **options: Any) -> Request:
    made = tuple(TextPart(part) if isinstance(part, str) else ImagePart(part) for part in parts)
    return Request(model, [Message("user", made)], **{"detail": "auto", "params": SamplingParams(), **options})


def run(model: Any, request: Request, cancel: threading.Event | None = None, on_tile: Any = None) -> tuple[Any, Any]:
    source = TileSource(model, request.images, request.plans)
    prefilled = prefill(model, request, source, cancel or threading.Event(), on_tile)
    assert (model.held[-1].n_tokens if model.held else 0) == model.decoder.n_past
    return prefilled, source


def test_chunks_go_into_the_decoder_in_order() -> None:
    model = Model()
    request = ask(model, "a", picture(7), "b")
    prefilled, source = run(model, request)
    assert model.decoder.held == [97, 1007, 1007, 98]
    assert (prefilled.n_cached, prefilled.complete) == (0, True)
    assert (request.n_tokens, request.n_image_tokens, request.text_ids()) == (4, 2, [97, 98])
    [info] = request.infos(source)
    assert (info.size, info.grid, info.n_tiles, info.n_encoded, info.n_tokens) == ((8, 8), (0, 0), 1, 1, 2)


def test_tiles_are_told_as_they_are_done() -> None:
    told: list[tuple[int, int]] = []
    model = Model()
    run(model, ask(model, picture(1, 16, 8), "q"), on_tile=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert model.encoder.n_encoded == 1  # three tiles of one colour


def test_a_second_question_feeds_only_itself() -> None:
    model = Model()
    run(model, ask(model, picture(7), "one?"))
    prefilled, source = run(model, ask(model, picture(7), "ours"))
    assert prefilled.n_cached == 2  # the image; a text is computed whole or not at all
    assert model.decoder.held == [1007, 1007, *map(ord, "ours")]
    assert model.decoder.n_fed == 6 + 4
    assert source.n_encoded == [0]


def test_the_same_question_feeds_the_question() -> None:
    model = Model()
    run(model, ask(model, picture(7), "one?"))
    prefilled, _ = run(model, ask(model, picture(7), "one?"))
    assert prefilled.n_cached == 2
    assert model.decoder.held == [1007, 1007, *map(ord, "one?")]


def test_a_longer_conversation_feeds_what_is_new() -> None:
    model = Model()
    run(model, ask(model, picture(7), "one?"))
    prefilled, _ = run(model, ask(model, picture(7), "one?", "two?"))
    assert prefilled.n_cached == 6
    assert model.decoder.held == [1007, 1007, *map(ord, "one?two?")]


def test_an_image_seen_before_another_one_is_restored() -> None:
    model = Model()
    for value in (7, 8):
        run(model, ask(model, "a", picture(value), "b"))
    n_fed = model.decoder.n_fed
    prefilled, source = run(model, ask(model, "a", picture(7), "c"))
    assert model.decoder.held == [97, 1007, 1007, 99]
    assert (prefilled.n_cached, model.decoder.n_fed - n_fed, source.n_encoded) == (3, 1, [0])


def test_an_image_is_restored_in_another_model_object() -> None:
    model = Model()
    run(model, ask(model, "a", picture(7), "b"))
    other = Model(prefixes=model.prefixes)
    prefilled, source = run(other, ask(other, "a", picture(7), "c", picture(8), "d"))
    assert other.decoder.held == [97, 1007, 1007, 99, 1008, 1008, 100]
    assert (prefilled.n_cached, source.n_encoded) == (3, [0, 1])


def test_a_stored_prefix_of_the_wrong_length_is_computed_again() -> None:
    model = Model()
    request = ask(model, "a", picture(7), "b")
    model.prefixes.put(request.keys("d")[1], np.zeros(9, np.float32))
    run(model, request)
    assert model.decoder.held == [97, 1007, 1007, 98]


def test_each_chunk_settles_before_the_next_is_fed() -> None:
    model, unsettled = Model(), []
    extend = model.decoder.extend

    def noting(chunk: NDArray[Any], cancelled: threading.Event | None = None) -> bool:
        unsettled.append(model.decoder.n_past - model.decoder.n_settled)
        return extend(chunk, cancelled)

    model.decoder.extend = noting  # type: ignore[method-assign]
    run(model, ask(model, "a", picture(7, 16, 8), "b", picture(7), "c"))
    assert unsettled == [0] * 7
    assert model.decoder.n_settled == model.decoder.n_past


def test_another_image_is_not_the_held_one() -> None:
    model = Model()
    run(model, ask(model, "a", picture(7), "b"))
    prefilled, _ = run(model, ask(model, "a", picture(8), "b"))
    assert prefilled.n_cached == 1
    assert model.decoder.held == [97, 1008, 1008, 98]


def test_another_plan_of_the_same_image_is_not_the_held_one() -> None:
    model = Model()
    run(model, ask(model, picture(7, 8, 16), "b"))
    prefilled, _ = run(model, ask(model, picture(7, 8, 16), "b", detail="low"))
    assert prefilled.n_cached == 0
    assert model.decoder.held == [1007, 1007, 98]


@given(
    st.lists(st.lists(st.one_of(st.text("ab", min_size=1, max_size=4), st.integers(0, 1)), max_size=5), max_size=5),
    st.booleans(),
    st.integers(1, 9),
)
def test_what_is_held_after_reuse_is_what_is_held_from_scratch(
    prompts: list[list[Any]], joins_chunks: bool, least: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "LEAST", least)
        hold_and_compare(prompts, joins_chunks)


def hold_and_compare(prompts: list[list[Any]], joins_chunks: bool) -> None:
    """Ask several prompts of one model, of ones that share a store, and of fresh ones: all hold and feed the same."""
    model = Model(joins_chunks=joins_chunks)
    shared = Store("prefixes", 400)  # room for few: some are dropped
    for prompt in prompts:
        parts = [part if isinstance(part, str) else picture(part, 8, 16) for part in prompt]
        run(model, ask(model, *parts, "?"))
        scratch = Model(joins_chunks=joins_chunks)
        run(scratch, ask(scratch, *parts, "?"))
        assert model.decoder.held == scratch.decoder.held
        assert model.held == scratch.held
        other = Model(prefixes=shared, joins_chunks=joins_chunks)
        run(other, ask(other, *parts, "?"))
        for decoder in (model.decoder, other.decoder):  # whatever is fed is fed as it was from scratch
            assert decoder.fed == scratch.decoder.fed[-len(decoder.fed) :]
        model.decoder.fed.clear()
        assert other.decoder.held == scratch.decoder.held


def test_a_chunk_that_the_decoder_gives_up_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model, extend = Model(), Echo.extend

    def giving_up(self: Echo, chunk: NDArray[Any], cancelled: threading.Event | None = None) -> bool:
        return chunk.ndim == 1 and extend(self, chunk, cancelled)

    monkeypatch.setattr(Echo, "extend", giving_up)
    request = ask(model, "a", picture(7), "b")
    prefilled, _ = run(model, request)
    assert not prefilled.complete
    assert (model.decoder.held, len(model.held)) == ([97], 1)
    monkeypatch.undo()
    prefilled, _ = run(model, request)
    assert (prefilled.complete, prefilled.n_cached) == (True, 1)


def test_cancel_is_seen_between_chunks_and_keeps_what_was_fed() -> None:
    model, cancel = Model(), threading.Event()
    request = ask(model, "a", picture(1, 16, 8), "b")

    def on_tile(done: int, total: int) -> None:
        if done == 2:  # encoded, and not fed yet
            cancel.set()

    prefilled, _ = run(model, request, cancel, on_tile)
    assert not prefilled.complete
    assert model.decoder.held == [97, 1001, 1001]
    cancel.clear()
    prefilled, _ = run(model, request, cancel)
    assert (prefilled.n_cached, prefilled.complete) == (3, True)


def test_an_error_of_the_encoder_is_raised_and_leaves_a_usable_state() -> None:
    model = Model()

    def broken(pixel_values: Any, n_at_once: int) -> Any:
        raise GraphError("vision.onnx: failed")

    encode, model.encoder.encode = model.encoder.encode, broken  # type: ignore[method-assign]
    with pytest.raises(GraphError, match=r"vision\.onnx: failed"):
        run(model, ask(model, "a", picture(7), "b"))
    assert len(model.held) == model.decoder.n_past == 1  # one chunk of one token
    model.encoder.encode = encode  # type: ignore[method-assign]
    run(model, ask(model, "a", picture(7), "b"))
    assert model.decoder.held == [97, 1007, 1007, 98]


def test_the_encoder_is_opened_while_an_image_of_several_tiles_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevl.image import pixels

    model, both, tiles = Model(), threading.Barrier(2, timeout=20), pixels.tiles

    def cut(*given: Any) -> Any:
        both.wait()
        return tiles(*given)

    monkeypatch.setattr(pixels, "tiles", cut)
    monkeypatch.setattr(model.encoder, "open", lambda n_at_once: both.wait())
    prefilled, _ = run(model, ask(model, "a", picture(1, 16, 8), "b"))
    assert prefilled.complete


def features_of(tile: NDArray[Any], digest_of: NDArray[np.float32] | None = None, **changes: Any) -> Features:
    """Features of a picture in one tile; `digest_of` is what was there when they were encoded."""
    digest = tiles_id((tile if digest_of is None else digest_of,))
    plan = TilePlan((8, 8), ((8, 8),), (0, 0), TILE)
    return replace(Features("id", "v", (8, 8), plan, digest, (tile,)), **changes)


def test_features_stand_in_for_their_image() -> None:
    model = Model()
    request = ask(model, features_of(np.full((N, 4), 5, np.float32)), "b")
    _, source = run(model, request)
    assert model.decoder.held == [5, 5, 98]
    assert (model.encoder.n_encoded, source.n_encoded) == (0, [0])
    assert request.infos(source)[0].id == "id"


def test_features_with_other_tiles_are_another_image() -> None:
    model, others = Model(), np.full((N, 4), 6, np.float32)
    own = np.full((N, 4), 5, np.float32)
    for tile, want in ((others, 6), (own, 5), (others, 6)):
        run(model, ask(model, features_of(tile, digest_of=own), "b"))
        assert model.decoder.held == [want, want, 98]


def test_features_of_another_model_are_refused() -> None:
    model: Any = Model()
    features = features_of(np.full((N, 4), 5, np.float32), model_id="another")
    with pytest.raises(InputError) as caught:
        plan_image(model, features, "auto")
    assert str(caught.value) == (
        "these features were encoded by another model or on another kind of processor; encode the image again here"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"tiles": ()},
        {"tiles": (np.zeros((N, 4), np.float32),) * 2},
        {"tiles": (np.zeros((N, 5), np.float32),)},
        {"tiles": (np.zeros((N, 4)),)},
        {"tiles": ([[0.0] * 4] * N,)},
        {"tiles": (np.full((N, 4), np.nan, np.float32),)},
        {"plan": None},
    ],
)
def test_features_that_do_not_fit_their_plan_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"do not fit their plan: .* float32 \[2, 4\] of finite values for each tile"):
        ask(Model(), features_of(np.zeros((N, 4), np.float32), **changes), "b")


def test_an_image_is_cut_by_its_own_detail() -> None:
    model, large = Model(), picture(1, 32, 32)
    parts = (ImagePart(large, "low"), ImagePart(large), ImagePart(large, 5), TextPart("b"))
    request = Request(model, [Message("user", parts)], detail="high", params=SamplingParams())  # type: ignore[arg-type]
    assert [plan.n_tiles for plan in request.plans] == [1, 17, 5]


def test_too_few_or_too_many_features_name_image_tile_and_counts() -> None:
    plan = TilePlan((8, 16), ((8, 16),), (1, 2), 8)
    check_seam(np.zeros((2, 4), np.float32), ImageChunk(0, 1, 2), plan)
    with pytest.raises(GraphError) as caught:
        check_seam(np.zeros((3, 4), np.float32), ImageChunk(0, 1, 2), plan)
    assert str(caught.value) == (
        "image 1, tile 2 of 3: the prompt keeps 2 places, the vision graph gave 3 features; export the model again"
    )


class TestOverflow:
    def refusal(self, *parts: Any, context_length: int, detail: Any = "high") -> ContextOverflow:
        with pytest.raises(ContextOverflow) as caught:
            ask(Model(context_length), *parts, detail=detail)
        return caught.value

    def test_says_how_many_tokens_how_many_fit_and_which_detail_would(self) -> None:
        error = self.refusal(picture(1), "abc", context_length=30)
        assert str(error) == (
            "the prompt has 37 tokens, 34 of them images, but only 29 fit into this model's context; "
            "--detail auto would fit"
        )
        assert (error.n_tokens, error.n_context) == (37, 30)

    def test_names_fewer_tiles_where_auto_is_too_many(self) -> None:
        error = self.refusal(picture(1, 32, 32), "abc", context_length=24)
        assert str(error).endswith("; --detail 10 would fit")
        error = self.refusal(picture(1, 32, 32), "abc", context_length=6)
        assert str(error).endswith("; --detail low would fit")

    def test_says_where_no_detail_would_fit(self) -> None:
        error = self.refusal(picture(1), picture(2), "abc", context_length=7)
        assert str(error).endswith("; no --detail would fit; give fewer images or a shorter text")

    def test_in_a_conversation_says_to_begin_another(self) -> None:
        turns = [
            Message("user", (ImagePart(picture(1)), TextPart("abc"))),
            Message("assistant", (TextPart("d"),)),
            Message("user", (TextPart("e"),)),
        ]
        model: Any = Model(30)
        with pytest.raises(ContextOverflow, match=r"; begin a new conversation \(in `edgevl chat`: /reset\)$"):
            Request(model, turns, detail="high", params=SamplingParams())

    def test_of_text_alone(self) -> None:
        error = self.refusal("a" * 40, context_length=40)
        assert str(error) == (
            "the prompt has 40 tokens, 0 of them images, but only 39 fit into this model's context; shorten the text"
        )

    def test_leaves_room_for_one_token_at_least(self) -> None:
        request = ask(Model(40), "a" * 39)
        assert request.limit == 1
        assert ask(Model(40), "a" * 10, params=SamplingParams(max_tokens=7)).limit == 7
        assert ask(Model(40), "a" * 10).limit == 30


def test_an_image_that_is_open_stays_as_it_is() -> None:
    opened = read(picture(1))
    assert open_image(opened, None) is opened
    assert open_image(opened, 10**6) is opened
