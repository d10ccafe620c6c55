"""Encoder and decoder that take turns in memory: the same answers, and never both at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgevl
from edgevl import loaded, placement
from edgevl.engine.ahead import OnnxAheadDecoder, is_known
from edgevl.engine.decoder import OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.loaded import Loaded
from edgevl.model import manifest
from tests import natively

QUESTION = "what's here?"


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "LARGE_BYTES", 0)


FOLDERS: dict[str, tuple[natively.How, str | None]] = {
    "native": ("natively", None),
    "onnx": ("as graphs", None),
    "native beside prefill": ("natively", "smolvlm_int4_dir"),
    "prefill": ("as graphs", "smolvlm_int4_dir"),
    "merged": ("as graphs", "smolvlm_merged_dir"),
    "gguf": ("as graphs", "bundled_gguf_dir"),
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """A model of each kind of decoder."""
    how, fixture = FOLDERS[request.param]
    with natively.computed(how):
        yield Path(request.getfixturevalue(fixture)) if fixture else None


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (300, 260, 3), np.uint8)


def parts(vlm: edgevl.VLM) -> set[str]:
    """Return which parts are in memory."""
    return {"encoder", "decoder"} & vars(vlm._open()).keys()


def graphs(vlm: edgevl.VLM) -> str:
    """Return which graphs of the decoder are in memory."""
    decoder = vlm._open().decoder
    assert isinstance(decoder, OnnxDecoder)
    named = {"prompts": decoder._prefill, "tokens": decoder._graph}
    return " and ".join(name for name, graph in named.items() if graph.is_loaded)


def ask(vlm: edgevl.VLM, rgb: Any, **options: Any) -> edgevl.Answer:
    return vlm.ask(rgb, QUESTION, max_tokens=12, **options)


def test_the_parts_are_never_in_memory_together_and_answers_are_the_same(folder: Path | None) -> None:
    with edgevl.load(folder, store=False) as whole, edgevl.load(folder, store=False, low_memory=True) as vlm:
        first, second = picture(1), picture(2)
        assert (parts(whole), parts(vlm)) == ({"encoder", "decoder"}, {"encoder"})
        seen: list[tuple[int, int, set[str]]] = []
        answer = ask(vlm, first, on_tile=lambda done, total: seen.append((done, total, parts(vlm))))
        n_tiles = answer.images[0].n_tiles
        assert [(done, total) for done, total, _ in seen] == [(n + 1, n_tiles) for n in range(n_tiles)]
        held = [parts for _, _, parts in seen]
        # Whoever encodes the last tile lets the encoder go; tiles before it may be told of later than that.
        n_held = held.index(set())
        assert held == [{"encoder"}] * n_held + [set[str]()] * (n_tiles - n_held)
        assert parts(vlm) == {"decoder"}
        assert answer.token_ids == ask(whole, first).token_ids
        assert answer.timings.load_s == vlm._open().load_s > 0
        again = ask(vlm, [first, second])
        assert again.token_ids == ask(whole, [first, second]).token_ids
        assert again.usage.cached_tokens > 0
        assert next(image.n_encoded for image in again.images) == 0
        assert parts(vlm) == {"decoder"}


def test_a_second_question_in_a_new_process_encodes_nothing(folder: Path | None, tmp_path: Path) -> None:
    with edgevl.load(folder, store=tmp_path, low_memory=True) as vlm:
        first = ask(vlm, picture(3))
    with edgevl.load(folder, store=tmp_path, low_memory=True) as vlm:
        encoder = vlm._open().encoder
        encoder.encode = pytest.fail  # type: ignore[assignment, method-assign]
        again = ask(vlm, picture(3))
    assert again.token_ids == first.token_ids
    assert again.usage.cached_tokens > first.usage.cached_tokens == 0


def test_a_damaged_prefix_is_encoded_after_all(folder: Path | None, tmp_path: Path) -> None:
    with edgevl.load(folder, store=tmp_path, low_memory=True) as vlm:
        wanted = ask(vlm, picture(4))
    for kind in ("prefixes", "tiles"):
        for entry in tmp_path.rglob(f"{kind}/*"):
            entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    with edgevl.load(folder, store=tmp_path, low_memory=True) as vlm:
        found = ask(vlm, picture(4))
    assert (found.token_ids, found.usage.cached_tokens) == (wanted.token_ids, 0)


def test_a_cancelled_request_leaves_what_was_encoded() -> None:
    with edgevl.load(store=False, low_memory=True) as vlm:
        cancel = threading.Event()
        stopped = ask(vlm, picture(5), cancel=cancel, on_tile=lambda done, total: cancel.set())
        assert (stopped.finish_reason, parts(vlm)) == ("cancelled", {"encoder"})
        assert ask(vlm, picture(5)).images[0].n_encoded < stopped.images[0].n_tiles


def test_a_text_without_an_image_needs_the_decoder_alone() -> None:
    with edgevl.load(store=False, low_memory=True) as vlm:
        ask(vlm, None)
        assert parts(vlm) == {"decoder"}


def test_features_need_the_encoder_alone_and_then_the_decoder_alone() -> None:
    with edgevl.load(store=False, low_memory=True) as vlm:
        features = vlm.encode(picture(6))
        assert parts(vlm) == {"encoder"}
        assert ask(vlm, features).token_ids == ask(vlm, picture(6)).token_ids
        assert parts(vlm) == {"decoder"}


def test_a_budget_is_kept_by_parts_that_stay_as_they_were_measured() -> None:
    with edgevl.load(store=False, low_memory=True) as vlm:
        ask(vlm, picture(7), within="20s")
        assert parts(vlm) == {"encoder", "decoder"}


@pytest.mark.usefixtures("as_graphs")
def test_the_graphs_for_prompts_and_for_tokens_are_never_in_memory_together(smolvlm_int4_dir: Path) -> None:
    with (
        edgevl.load(smolvlm_int4_dir, store=False) as whole,
        edgevl.load(smolvlm_int4_dir, store=False, low_memory=True) as vlm,
    ):
        for rgb in (picture(8), picture(9)):
            with vlm.stream(rgb, QUESTION, max_tokens=12) as stream:
                next(stream)
                words = list(stream)
            assert words
            assert stream.answer.token_ids == ask(whole, rgb).token_ids
            assert (graphs(vlm), graphs(whole)) == ("tokens", "prompts and tokens")
        ask(vlm, picture(9), within="20s")
        assert graphs(vlm) == "prompts and tokens"


@pytest.mark.usefixtures("as_graphs")
def test_the_first_word_needs_the_graph_for_prompts_alone(smolvlm_int4_dir: Path) -> None:
    with edgevl.load(smolvlm_int4_dir, store=False, low_memory=True) as vlm:
        ask(vlm, picture(10))
        assert vlm.ask(picture(10), QUESTION, max_tokens=1).token_ids
        assert graphs(vlm) == "prompts"


def test_tokens_known_ahead_take_their_turn_too(smolvlm_int4_dir: Path) -> None:
    """A repeated text is fed several tokens at once: by the graph for tokens, after the one for prompts."""
    spec = manifest.read(smolvlm_int4_dir)
    assert spec.embeddings is not None
    assert spec.decoder.prefill is not None
    table = read_embeddings(smolvlm_int4_dir / spec.embeddings.file, spec.decoder)
    prompt, text = np.arange(20) + 3, np.arange(6) + 40
    found = {}
    for takes_turns in (False, True):
        tokens = Graph(smolvlm_int4_dir / spec.decoder.file, threads=1, later=takes_turns)
        prompts = Graph(smolvlm_int4_dir / spec.decoder.prefill, threads=1)
        decoder = OnnxAheadDecoder(tokens, spec.decoder, table, prompts, n_threads=1)
        decoder.extend(prompt)
        for token in text:
            decoder.extend(token[None])
        first = decoder.extend_each(text[:2].tolist())
        decoder.extend(prompt)
        second = decoder.extend_each(text[:2].tolist())
        assert (first is None) == (second is None) == (not is_known(tokens.backend))
        assert decoder.extend_each(text[:4].tolist()) is None or not takes_turns
        found[takes_turns] = decoder.logits()
        assert tokens.is_loaded
        assert prompts.is_loaded is not takes_turns
    np.testing.assert_array_equal(found[True], found[False])


def test_a_small_model_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with edgevl.load(store=False, low_memory=True) as vlm:
        assert parts(vlm) == {"encoder", "decoder"}


def test_what_will_run_the_decoder_is_known_before(folder: Path | None) -> None:
    with edgevl.load(folder, store=False, low_memory=True) as vlm:
        model = vlm._open()
        likely = model.likely_decoder_id
        assert parts(vlm) == {"encoder"}
        assert likely == model.decoder_id == model.likely_decoder_id


def test_a_missing_llama_cpp_is_said_at_once(bundled_gguf_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise edgevl.BackendMissing("llama-cpp-python is not installed")

    monkeypatch.setattr(placement, "installed", lambda engine: None)
    monkeypatch.setattr(placement.Placement, "_open_decoder", missing)
    with pytest.raises(edgevl.BackendMissing):
        edgevl.load(bundled_gguf_dir, store=False, low_memory=True)


def test_it_is_the_same_for_the_device_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has yet to be measured is opened at once."""
    monkeypatch.setattr(placement.Placement, "likely_decoder", lambda self: None)
    model = Loaded(edgevl.load().folder, device="cpu", threads=1, low_memory=True)
    assert not model.takes_turns
