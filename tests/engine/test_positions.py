"""Positions in time, height and width: their arithmetic, and a small random Qwen2-VL text model in llama.cpp."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.engine import gguf
from edgevl.engine.gguf import GgufDecoder
from edgevl.engine.positions import Positions
from edgevl.errors import GraphError
from edgevl.model.manifest import DecoderSpec
from tests.mixed import LLAMA_MISSING

VOCAB = 320
RNG = np.random.default_rng(8)
IDS = RNG.integers(0, 250, 400)
GRIDS = {15: (3, 5), 8: (4, 2)}
"""Rows and columns of an image with so many features."""
WIDE, TALL = (RNG.standard_normal((n, 64)).astype(np.float32) for n in GRIDS)
PROMPT = IDS[:7], WIDE, IDS[7:13], TALL, IDS[13:17]
N_TOKENS = 16

Make = Callable[[], GgufDecoder]
Chunk = NDArray[Any]


def grid(first: int, rows: int, columns: int) -> NDArray[np.int64]:
    """Return the positions [3, rows * columns] of an image that begins at position `first`."""
    return first + np.stack([axis.reshape(-1) for axis in np.indices((1, rows, columns))])


class TestArithmetic:
    def positions(self, *, has_axes: bool = True) -> Positions:
        return Positions(Path("x.gguf"), has_axes=has_axes)

    @settings(max_examples=40)
    @given(st.lists(st.integers(1, 9) | st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=8), st.data())
    def test_text_goes_on_behind_the_greatest_position(self, chunks: list[Any], data: st.DataObject) -> None:
        held, ends, places = self.positions(), [0], np.zeros((3, 0), np.int64)
        for chunk in chunks:
            first = int(places.max(initial=-1)) + 1
            assert held.behind(places.shape[1]) == first
            own = grid(first, *chunk) if isinstance(chunk, tuple) else first + np.tile(np.arange(chunk), (3, 1))
            if isinstance(chunk, tuple):
                held.add(places.shape[1], own)
            places = np.hstack([places, own])
            ends.append(places.shape[1])
        end = data.draw(st.sampled_from(ends))
        assert (places[0, end:] >= held.behind(end)).all()  # all that is forgotten, and nothing else
        assert (places[0, :end] < held.behind(end)).all()
        held.truncate(end)
        again = self.positions().read(np.append(held.head(end), np.uint8([1, 2, 3])), end)
        assert again is not None
        assert [again.behind(n) for n in ends if n <= end] == [held.behind(n) for n in ends if n <= end]

    def test_as_llama_cpp_takes_them(self) -> None:
        held = self.positions()
        held.add(2, grid(2, 2, 3))
        text = held.number(8, IDS[:3], None)
        assert text is not None
        assert (text.dtype, text.tolist()) == (np.int32, [[5, 6, 7]])
        features = held.number(8, WIDE[:2], grid(5, 1, 2))
        assert features is not None
        assert (features.dtype, features.tolist()) == (np.int32, [[5, 5], [5, 5], [5, 6], [0, 0]])
        assert self.positions(has_axes=False).number(8, WIDE, None) is None

    def test_within_an_image_nothing_can_be_forgotten(self) -> None:
        held = self.positions()
        held.add(2, grid(2, 2, 3))
        for n in (3, 7):
            with pytest.raises(ValueError, match=f"cannot truncate to {n} tokens, tokens 2 to 7 are one image"):
                held.behind(n)
        assert (held.behind(2), held.behind(8)) == (2, 5)

    def test_another_head_is_not_read(self) -> None:
        held = self.positions()
        held.add(2, grid(2, 2, 3))
        head = held.head(9)
        assert held.read(head, 8) is None
        assert held.read(head[:-1], 9) is None
        assert held.read(head[:8], 9) is None
        head[8:16] = 255  # so many images: -1
        assert held.read(head, 9) is None
        assert self.positions(has_axes=False).head(9).tolist() == [9, *[0] * 7]


@pytest.fixture(scope="module")
def whole() -> Any:
    """A small Qwen2-VL of transformers, with weights that tell one token, and one place, from another."""
    import torch
    import transformers

    text = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "spatial_merge_size": 2}
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in [*model.model.language_model.named_parameters(), *model.lm_head.named_parameters()]:
            if weight.ndim > 1:
                scale = 0.5 if "embed" in name else weight.shape[1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=noise) * scale)
            else:
                weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
    return model


def text_half(whole: Any) -> Any:
    """Return it without its eyes, as the export takes a causal language model."""
    weights = {f"model.{name}": weight for name, weight in whole.model.language_model.state_dict().items()}
    weights["lm_head.weight"] = whole.lm_head.weight
    return SimpleNamespace(
        config=whole.config.text_config,
        lm_head=whole.lm_head,
        state_dict=lambda: weights,
        get_input_embeddings=whole.get_input_embeddings,
    )


@pytest.fixture(scope="module", params=["f16", "f32"])
def precision(request: pytest.FixtureRequest) -> str:
    """Of weights and cache."""
    return str(request.param)


@pytest.fixture(scope="module")
def make(precision: Any, whole: Any, smolvlm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """It in llama.cpp."""
    pytest.importorskip("llama_cpp", reason=LLAMA_MISSING)
    from edgevl.export import checkpoint
    from edgevl.export.gguf import write_decoder

    path = tmp_path_factory.mktemp("mrope") / f"{precision}.gguf"
    write_decoder(checkpoint.read(smolvlm_checkpoint), text_half(whole), path, precision.upper())
    spec = DecoderSpec("gguf", path.name, precision, 2, 2, 16, 64, VOCAB, 2048, {}, {})
    return lambda: GgufDecoder(path, spec, threads=1)


def numbered(whole: Any, *chunks: Chunk) -> NDArray[np.int64]:
    """Return the positions [3, n] that transformers gives to chunks of text and images."""
    import torch

    kinds = torch.cat([torch.full((1, len(chunk)), chunk.ndim - 1) for chunk in chunks], dim=1)
    images = [GRIDS[len(chunk)] for chunk in chunks if chunk.ndim == 2]
    sizes = torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in images])  # in patches, of which four make one
    found, _ = whole.model.get_rope_index(torch.zeros_like(kinds), kinds, sizes)
    positions: NDArray[np.int64] = found[:, 0].numpy()
    return positions


def wanted(whole: Any, positions: NDArray[np.int64], *chunks: Chunk) -> NDArray[np.float32]:
    """Return PyTorch's scores behind each token of `chunks`, [n, vocab]."""
    import torch

    table, text = whole.get_input_embeddings(), whole.model.language_model
    embeds = torch.cat([table(torch.from_numpy(c)) if c.ndim == 1 else torch.from_numpy(c) for c in chunks])
    with torch.no_grad():
        hidden = text(inputs_embeds=embeds[None], position_ids=torch.from_numpy(positions)[:, None]).last_hidden_state
        scores: NDArray[np.float32] = whole.lm_head(hidden)[0].numpy()
    return scores


def fed(decoder: GgufDecoder, whole: Any, *chunks: Chunk, behind: tuple[Chunk, ...] = ()) -> NDArray[np.float32]:
    """Feed chunks, images with the positions that transformers gives them behind `behind`; return the scores."""
    positions, start = numbered(whole, *behind, *chunks), sum(map(len, behind))
    for chunk in chunks:
        own = positions[:, start : start + len(chunk)]
        assert decoder.extend(chunk, positions=own if chunk.ndim == 2 else None)
        start += len(chunk)
    return decoder.logits()


def near(got: NDArray[np.float32], expected: NDArray[np.float32], precision: str) -> bool:
    """Return whether scores agree, up to what weights and keys in half precision lose."""
    return float(np.abs(got - expected).max()) < {"f32": 1e-3, "f16": 0.02}[precision] * float(expected.std())


class TestScores:
    def test_greedy_tokens_equal_pytorch(self, make: Make, precision: str, whole: Any) -> None:
        decoder, chosen = make(), []
        scores = first = fed(decoder, whole, *PROMPT)
        for _ in range(N_TOKENS):
            chosen.append(int(scores.argmax()))
            assert decoder.extend(np.array(chosen[-1:]))
            scores = decoder.logits()
        chunks = *PROMPT, np.array(chosen)
        reference = wanted(whole, numbered(whole, *chunks), *chunks)[-N_TOKENS - 1 :]
        assert chosen == reference[:-1].argmax(axis=-1).tolist()
        assert near(first, reference[0], precision)
        assert near(scores, reference[-1], precision)
        assert decoder.n_past == sum(map(len, chunks))

    def test_positions_tell(self, precision: str, whole: Any) -> None:
        """Else the test above would say nothing."""
        positions = numbered(whole, *PROMPT)
        reference, one_by_one = wanted(whole, positions, *PROMPT)[-1], np.tile(np.arange(positions.shape[1]), (3, 1))
        assert not near(wanted(whole, one_by_one, *PROMPT)[-1], reference, precision)
        assert not near(wanted(whole, positions[[0, 2, 1]], *PROMPT)[-1], reference, precision)

    def test_of_more_features_than_a_batch(
        self, make: Make, precision: str, whole: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at_once = fed(make(), whole, *PROMPT)
        monkeypatch.setattr(gguf, "N_BATCH", 4)
        assert near(fed(make(), whole, *PROMPT), at_once, precision)


class TestMemory:
    @pytest.mark.parametrize("n_chunks", range(len(PROMPT)))
    def test_truncate_forgets_the_end_only(self, n_chunks: int, make: Make, whole: Any) -> None:
        decoder, held = make(), PROMPT[:n_chunks]
        scores = fed(decoder, whole, *PROMPT)
        decoder.truncate(sum(map(len, held)))
        assert decoder.n_past == sum(map(len, held))
        assert np.array_equal(fed(decoder, whole, *PROMPT[n_chunks:], behind=held), scores)

    def test_truncate_within_text(self, make: Make, precision: str, whole: Any) -> None:
        decoder = make()
        scores = fed(decoder, whole, *PROMPT)
        decoder.truncate(25)
        got = fed(decoder, whole, IDS[10:13], *PROMPT[3:], behind=(*PROMPT[:2], IDS[7:10]))
        assert near(got, scores, precision)

    def test_truncate_within_an_image_is_refused_and_nothing_forgotten(self, make: Make, whole: Any) -> None:
        decoder = make()
        fed(decoder, whole, *PROMPT)
        for n, image in ((8, "7 to 21"), (21, "7 to 21"), (29, "28 to 35")):
            with pytest.raises(ValueError, match=f"cannot truncate to {n} tokens, tokens {image} are one image"):
                decoder.truncate(n)
        assert decoder.n_past == 40
        assert np.array_equal(fed(decoder, whole, IDS[17:19], behind=PROMPT), fed(make(), whole, *PROMPT, IDS[17:19]))

    def test_what_is_saved_goes_on_elsewhere_to_the_bit(self, make: Make, whole: Any) -> None:
        one, held = make(), PROMPT[:4]
        fed(one, whole, *held)
        one.settle()
        state = one.save()
        after = fed(one, whole, *PROMPT[4:], behind=held)
        other = make()
        fed(other, whole, IDS[40:60], WIDE, IDS[60:62])  # what it held is replaced
        state.setflags(write=False)  # as the store hands it out
        assert other.load(state, 36)
        assert other.n_past == 36
        assert np.array_equal(fed(other, whole, *PROMPT[4:], behind=held), after)
        with pytest.raises(ValueError, match="tokens 28 to 35 are one image"):
            other.truncate(30)
        other.truncate(7)
        assert np.array_equal(fed(other, whole, *PROMPT[1:], behind=PROMPT[:1]), after)

    def test_growing_changes_no_bit(self, make: Make, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        roomy = fed(make(), whole, *PROMPT, IDS)
        monkeypatch.setattr(gguf, "FIRST_CONTEXT", 256)
        decoder = make()
        assert np.array_equal(fed(decoder, whole, *PROMPT, IDS), roomy)
        decoder.truncate(22)
        assert np.array_equal(fed(decoder, whole, *PROMPT[2:], IDS, behind=PROMPT[:2]), roomy)

    def test_another_state_is_refused(self, make: Make, whole: Any) -> None:
        decoder = make()
        scores = fed(decoder, whole, *PROMPT)
        state = decoder.save()
        assert not decoder.load(state, 39)
        assert not decoder.load(state[:60], 40)
        assert decoder.n_past == 40
        state[64:] = 255  # behind two numbers, and three of each image
        with pytest.raises(GraphError, match="does not take back what it saved"):
            decoder.load(state, 40)
        assert decoder.n_past == 0
        assert np.array_equal(fed(decoder, whole, *PROMPT), scores)

    def test_cancelled_within_an_image_nothing_of_it_is_held(self, make: Make, whole: Any) -> None:
        decoder, cancelled = make(), threading.Event()
        fed(decoder, whole, PROMPT[0])
        cancelled.set()
        assert not decoder.extend(WIDE, cancelled, grid(7, 3, 5))
        assert decoder.n_past == 7
        assert np.array_equal(fed(decoder, whole, *PROMPT[1:], behind=PROMPT[:1]), fed(make(), whole, *PROMPT))


ORDER = "positions of features must ascend by time, height and width, from time 7 on; feed each image as one chunk"


@pytest.mark.parametrize(
    ("chunk", "positions", "message"),
    [
        (WIDE, None, "features need positions in time, height and width, int [3, 15], got none"),
        (WIDE, grid(7, 3, 5)[:2], "features need positions in time, height and width, int [3, 15], got int64 [2, 15]"),
        (
            WIDE,
            grid(7, 3, 5).astype(np.float32),
            "features need positions in time, height and width, int [3, 15], got float32 [3, 15]",
        ),
        (IDS[:3], grid(7, 1, 3), "token ids have no positions in time, height and width; feed them without"),
        (WIDE, grid(6, 3, 5), ORDER),
        (WIDE, grid(7, 3, 5)[:, ::-1], ORDER),
        (WIDE, np.full((3, 15), 7), ORDER),
    ],
)
def test_other_positions_are_refused(
    chunk: Chunk, positions: NDArray[Any] | None, message: str, make: Make, whole: Any
) -> None:
    decoder = make()
    fed(decoder, whole, PROMPT[0])
    with pytest.raises(GraphError) as caught:
        decoder.extend(chunk, positions=positions)
    assert str(caught.value).endswith(f".gguf: {message}")
    assert decoder.n_past == 7
