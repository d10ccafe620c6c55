"""llama.cpp as a decoder, on the GGUF file of a small random checkpoint."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import thread as futures_thread
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine import gguf
from edgevl.engine.devices import DEVICES
from edgevl.engine.gguf import GgufDecoder
from edgevl.engine.graph import Graph
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import BackendMissing, GraphError, ModelError
from edgevl.model import manifest
from edgevl.model.manifest import DecoderSpec
from tests import interrupting

RNG = np.random.default_rng(5)
IDS = RNG.integers(0, 250, 60)
FEATURES = RNG.standard_normal((12, 64)).astype(np.float32)

Make = Callable[..., GgufDecoder]


@pytest.fixture(scope="module", params=["f16", "f32"])
def spec(request: pytest.FixtureRequest, smolvlm_gguf_dir: Path) -> DecoderSpec:
    """The decoder's, with a cache in half precision and in float32."""
    return replace(manifest.read(smolvlm_gguf_dir).decoder, precision=request.param)


@pytest.fixture(scope="module")
def make(smolvlm_gguf_dir: Path, spec: DecoderSpec) -> Make:
    return lambda **options: GgufDecoder(smolvlm_gguf_dir / "decoder.gguf", spec, threads=1, **options)


@pytest.fixture(scope="module")
def text(smolvlm_checkpoint: Path) -> Any:
    """The decoder in PyTorch."""
    from edgevl.export import checkpoint

    source = checkpoint.read(smolvlm_checkpoint)
    return source.row.load(smolvlm_checkpoint, source.image.tile).text


def fed(decoder: GgufDecoder, *chunks: NDArray[Any]) -> NDArray[np.float32]:
    for chunk in chunks:
        assert decoder.extend(chunk)
    return decoder.logits()


def wanted(text: Any, *chunks: NDArray[Any], whole: bool = False) -> NDArray[np.float32]:
    """Return PyTorch's scores after `chunks`; with `whole`, features of one chunk see each other."""
    import torch

    table = text.get_input_embeddings()
    embeds = torch.cat([table(torch.from_numpy(c)) if c.ndim == 1 else torch.from_numpy(c) for c in chunks])
    seen = torch.ones(len(embeds), len(embeds)).tril().bool()
    start = 0
    for chunk in chunks:
        if whole and chunk.ndim == 2:
            seen[start : start + len(chunk), start : start + len(chunk)] = True
        start += len(chunk)
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        scores: NDArray[np.float32] = text(inputs_embeds=embeds[None], attention_mask=mask).logits[0, -1].numpy()
    return scores


class TestFloat32:
    def test_nothing_is_rounded(self, smolvlm_checkpoint: Path, spec: DecoderSpec, text: Any, tmp_path: Path) -> None:
        from edgevl.export import checkpoint
        from edgevl.export import gguf as export_gguf

        export_gguf.write_decoder(checkpoint.read(smolvlm_checkpoint), text, tmp_path / "x.gguf", "F32")
        chunks = IDS[:20], FEATURES, IDS[20:21]
        got = fed(GgufDecoder(tmp_path / "x.gguf", spec, threads=1), *chunks)
        far = np.abs(got - wanted(text, *chunks)).max()
        assert far < 1e-4 if spec.precision == "f32" else 1e-4 < far < 0.1


def near(got: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Return whether scores agree up to weights and keys in half precision; random ones lie whole units apart."""
    return got.argmax() == expected.argmax() and float(np.abs(got - expected).max()) < 0.01 * float(expected.std())


class TestScores:
    def test_of_tokens_and_features_equal_pytorch(self, make: Make, text: Any) -> None:
        decoder = make()
        chunks = IDS[:20], FEATURES, IDS[20:21]
        assert near(fed(decoder, *chunks), wanted(text, *chunks))
        assert decoder.n_past == 33

    def test_are_the_callers_own(self, make: Make) -> None:
        decoder = make()
        first = fed(decoder, IDS[:5])
        kept = first.copy()
        fed(decoder, IDS[5:9])
        assert np.array_equal(first, kept)

    def test_of_more_tokens_than_a_batch(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = fed(make(), IDS)
        monkeypatch.setattr(gguf, "N_BATCH", 16)
        decoder = make()
        assert near(fed(decoder, IDS), whole)
        assert decoder.n_past == 60

    def test_of_images_seen_whole(self, make: Make, text: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        chunks = IDS[:4], FEATURES, IDS[4:7]
        both = wanted(text, *chunks, whole=True)
        assert not near(both, wanted(text, *chunks))  # else it would say nothing
        assert near(fed(make(whole_images=True), *chunks), both)
        monkeypatch.setattr(gguf, "N_BATCH", 11)
        with pytest.raises(GraphError, match=r"decoder\.gguf: can see 11 features of an image whole, got 12"):
            make(whole_images=True).extend(FEATURES)

    def test_that_are_not_numbers_are_an_error(self, make: Make) -> None:
        decoder = make()
        decoder.extend(np.full((1, 64), np.nan, np.float32))
        with pytest.raises(
            GraphError, match=r"decoder\.gguf: returned scores that are not numbers; run: edgevl verify"
        ):
            decoder.logits()


class TestMemory:
    def test_truncate_forgets_the_end_only(self, make: Make) -> None:
        decoder = make()
        first = fed(decoder, IDS[:9], FEATURES)
        fed(decoder, IDS[9:30])
        decoder.truncate(9)
        assert decoder.n_past == 9
        assert np.array_equal(fed(decoder, FEATURES), first)
        for wrong in (-1, 22):
            with pytest.raises(ValueError, match=f"cannot truncate to {wrong} tokens, 21 are held"):
                decoder.truncate(wrong)
        decoder.truncate(0)
        assert np.array_equal(fed(decoder, IDS[:9], FEATURES), first)

    def test_growing_changes_no_bit(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        chunks = [np.concatenate([IDS] * 4)] * 5
        roomy = fed(make(), *chunks)
        monkeypatch.setattr(gguf, "FIRST_CONTEXT", 256)
        decoder = make()
        assert np.array_equal(fed(decoder, *chunks), roomy)
        assert decoder.n_past == 1200

    def test_what_is_saved_goes_on_elsewhere_to_the_bit(self, make: Make) -> None:
        one = make()
        fed(one, IDS[:9], FEATURES)
        one.settle()
        state = one.save()
        assert (state.dtype, state.ndim) == (np.uint8, 1)
        after = fed(one, IDS[9:12])
        other = make()
        fed(other, IDS[40:])  # what it held is replaced
        state.setflags(write=False)  # as the store hands it out
        assert other.load(state, 21)
        assert other.n_past == 21
        assert np.array_equal(fed(other, IDS[9:12]), after)
        other.truncate(9)
        assert np.array_equal(fed(other, FEATURES, IDS[9:12]), after)

    def test_another_state_is_refused_and_nothing_forgotten(self, make: Make) -> None:
        decoder = make()
        fed(decoder, IDS[:9])
        state = decoder.save()
        for other, n in ((state, 8), (state[:4], 9), (state.astype(np.float32), 9), (state[None], 9)):
            assert not decoder.load(other, n)
        assert decoder.n_past == 9

    def test_a_state_that_llama_cpp_does_not_take_back(self, make: Make) -> None:
        llama = gguf.library()
        silent = llama.llama_log_callback(lambda level, text, data: None)
        llama.llama_log_set(silent, None)  # as another user of llama.cpp in this process may
        decoder = make()
        scores = fed(decoder, IDS[:9])
        state = decoder.save()
        state[8:] = 255
        with pytest.raises(GraphError, match=r"does not take back what it saved \(.*magic\); run: edgevl cache clear"):
            decoder.load(state, 9)
        assert decoder.n_past == 0
        assert np.array_equal(fed(decoder, IDS[:9]), scores)

    def test_without_room_for_more_it_holds_nothing_and_goes_on(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder = make()
        scores = fed(decoder, IDS[:9], FEATURES)
        state = decoder.save()
        with monkeypatch.context() as patch:
            patch.setattr(gguf.library(), "llama_init_from_model", lambda *_: None)
            for _ in range(2):
                with pytest.raises(GraphError, match=r"decoder\.gguf: llama\.cpp has no room for 2048 tokens"):
                    decoder.expect(2000)
                assert decoder.n_past == 0
                decoder.truncate(0)
            with pytest.raises(GraphError, match=r"decoder\.gguf: llama\.cpp has no room for 256 tokens"):
                decoder.extend(IDS)
        assert np.array_equal(fed(decoder, IDS[:9], FEATURES), scores)
        assert decoder.load(state, 21)
        assert decoder.n_past == 21

    def test_cancelled_within_a_chunk_nothing_of_it_is_held(self, make: Make) -> None:
        decoder, cancelled = make(), threading.Event()
        assert decoder.extend(IDS[:9], cancelled)
        cancelled.set()
        assert not decoder.extend(IDS, cancelled)
        assert decoder.n_past == 9
        cancelled.clear()
        assert decoder.extend(IDS[9:20], cancelled)
        assert np.array_equal(decoder.logits(), fed(make(), IDS[:9], IDS[9:20]))


def test_another_runtime_in_between_changes_nothing(
    smolvlm_model_dir: Path, smolvlm_gguf_dir: Path, spec: DecoderSpec, tmp_path: Path
) -> None:
    """Processors with a matrix unit keep its settings per thread, and so do the runtimes that share it."""
    from edgevl.export import gguf as export_gguf
    from edgevl.export.graphs import quantize_int8

    export_gguf.quantize(smolvlm_gguf_dir / "decoder.gguf", tmp_path / "q8.gguf", "Q8_0", threads=1)
    quantize_int8(smolvlm_model_dir / "vision.onnx", tmp_path / "int8.onnx")
    pixels = RNG.standard_normal((1, 3, 64, 64)).astype(np.float32)
    encoder = VisionEncoder(Graph(tmp_path / "int8.onnx", threads=1))
    decoder = GgufDecoder(tmp_path / "q8.gguf", spec, threads=1)
    features, scores = encoder.encode(pixels), fed(decoder, IDS)
    decoder.truncate(0)
    assert np.array_equal(fed(decoder, IDS), scores)
    assert np.array_equal(encoder.encode(pixels), features)
    assert np.array_equal(fed(GgufDecoder(tmp_path / "q8.gguf", spec, threads=1), IDS), scores)


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[None]:
    """Let Ctrl-C come while what is within waits for llama.cpp for the `at`-th time; its own thread goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupting.at_call(at, Future.result))
        with pytest.raises(KeyboardInterrupt):
            yield


class TestInterrupt:
    def test_ctrl_c_ends_what_is_under_way_and_leaves_what_was_held(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder, cancelled = make(), threading.Event()
        before = fed(decoder, IDS[:9], IDS[9:12])
        decoder.truncate(9)
        with interrupted(monkeypatch, 2):  # the first sets the callback, the second computes
            decoder.extend(np.concatenate([IDS] * 10), cancelled)
        assert decoder.n_past == 9
        assert np.array_equal(fed(decoder, IDS[9:12]), before)

    def test_what_was_computed_and_not_counted_is_forgotten_with_the_rest(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoder = make()
        before = fed(decoder, IDS[:9], IDS[9:12])
        decoder.truncate(9)
        with interrupted(monkeypatch, 3):  # takes the callback back
            decoder.extend(IDS[20:40], threading.Event())
        assert decoder.n_past == 9
        decoder.truncate(9)
        assert np.array_equal(fed(decoder, IDS[9:12]), before)

    @pytest.mark.parametrize("at", range(1, 6))  # saves it in two calls, begins anew, forgets, and loads it
    def test_wherever_growing_is_stopped_what_is_held_is_right(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        scores = fed(make(), IDS, IDS[:9])
        decoder = make()
        fed(decoder, IDS)
        with interrupted(monkeypatch, at):
            decoder.expect(2000)
        assert decoder.n_past == (60 if at < 3 else 0)
        decoder.expect(1500)
        decoder.truncate(decoder.n_past)
        if decoder.n_past == 0:
            decoder.extend(IDS)
        assert np.array_equal(fed(decoder, IDS[:9]), scores)

    @pytest.mark.parametrize("at", range(1, 4))  # forgets what it held, begins anew with more room, and loads
    def test_wherever_loading_is_stopped_nothing_is_held_that_is_not_right(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, at: int
    ) -> None:
        other, long = make(), np.concatenate([IDS] * 5)
        scores = fed(other, long, IDS[:9])
        other.truncate(300)
        state = other.save()
        monkeypatch.setattr(gguf, "FIRST_CONTEXT", 256)
        decoder = make()
        fed(decoder, IDS[20:29])
        with interrupted(monkeypatch, at):
            decoder.load(state, 300)
        assert decoder.n_past == 0
        decoder.truncate(0)
        assert np.array_equal(fed(decoder, long, IDS[:9]), scores)
        assert decoder.n_past == 309


def test_it_may_be_freed_while_a_thread_is_being_started(make: Make) -> None:
    """Garbage is collected anywhere, in the middle of what the standard library does under its locks too."""
    cycle: list[Any] = [make()]
    cycle.append(cycle)
    del cycle
    freed = threading.Event()
    lock = getattr(threading, "_shutdown_locks_lock", None) or futures_thread._global_shutdown_lock

    def collect() -> None:
        with lock:  # held by every thread that begins or ends (Python 3.11 and 3.12)
            gc.collect()
        freed.set()

    threading.Thread(target=collect, daemon=True).start()
    assert freed.wait(20)


class TestErrors:
    def test_without_the_package(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        gguf.library.cache_clear()
        monkeypatch.setitem(sys.modules, "llama_cpp", None)
        with pytest.raises(
            BackendMissing, match=r"GGUF decoders need llama-cpp-python \(.*\): pip install 'edgevl\[gguf\]'"
        ):
            make()

    def test_a_device_that_this_build_does_not_offload_to(self, make: Make) -> None:
        if gguf.offloads():
            pytest.skip("this llama.cpp offloads")
        with pytest.raises(BackendMissing) as caught:
            make(device=DEVICES["metal"])
        assert str(caught.value) == (
            "device metal is not here for the GGUF decoder; to add it: pip uninstall -y llama-cpp-python && "
            "pip install --no-cache-dir -C cmake.args=-DGGML_METAL=on llama-cpp-python"
        )

    def test_damaged_headers_are_refused_before_llama_cpp_sees_them(self, spec: DecoderSpec, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
        with pytest.raises(ModelError, match=r"x\.gguf: is not a readable GGUF file"):
            GgufDecoder(tmp_path / "x.gguf", spec)

    def test_what_llama_cpp_cannot_run(self, smolvlm_gguf_dir: Path, spec: DecoderSpec, tmp_path: Path) -> None:
        data = (smolvlm_gguf_dir / "decoder.gguf").read_bytes()
        name = b"general.architecture" + b"\x08\x00\x00\x00" + b"\x05" + bytes(7)
        assert data.count(name + b"llama") == 1
        (tmp_path / "x.gguf").write_bytes(data.replace(name + b"llama", name + b"lemur"))
        with pytest.raises(
            GraphError,
            match=r"x\.gguf: llama\.cpp cannot load it \(.*lemur.*\); try: pip install -U llama-cpp-python, or use",
        ):
            GgufDecoder(tmp_path / "x.gguf", spec)

    def test_another_model_than_the_manifest_says(self, smolvlm_gguf_dir: Path, spec: DecoderSpec) -> None:
        n = spec.vocab_size
        with pytest.raises(
            GraphError, match=rf"has {n} tokens of width 64, edgevl\.json says {n} of width 32; export the model again"
        ):
            GgufDecoder(smolvlm_gguf_dir / "decoder.gguf", replace(spec, hidden_size=32))

    def test_features_of_another_width(self, make: Make) -> None:
        with pytest.raises(GraphError, match=r"decoder\.gguf: takes features of 64 values, got 32"):
            make().extend(np.zeros((2, 32), np.float32))

    def test_positions_that_the_model_does_not_tell_apart(self, make: Make) -> None:
        with pytest.raises(GraphError) as caught:
            make().extend(FEATURES, positions=np.zeros((3, 12), np.int64))
        assert str(caught.value).endswith(
            "decoder.gguf: this model's features have no positions in time, height and width; feed them without"
        )

    def test_tokens_that_do_not_exist(self, make: Make) -> None:
        decoder = make()
        with pytest.raises(GraphError, match=r"decoder\.gguf: llama\.cpp failed while running \(-1: .*invalid token"):
            decoder.extend(np.array([10_000]))
        assert near(fed(decoder, IDS[:5]), fed(make(), IDS[:5]))


def test_it_says_nothing(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    fed(make(), IDS)
    assert capfd.readouterr() == ("", "")
