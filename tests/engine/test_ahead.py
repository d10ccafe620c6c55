"""Several tokens at once compute what the same tokens compute one by one, to the last bit, or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl import machine
from edgevl.engine.ahead import N_AT_ONCE, OnnxAheadDecoder, is_known
from edgevl.engine.decoder import OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.engine.kv import BLOCK
from edgevl.engine.mirrored import MirroredKVCache
from edgevl.model import manifest
from edgevl.model.hub import BUNDLED, installed_folder
from edgevl.model.manifest import DecoderSpec
from tests.engine import graphs

BACKEND = f"onnxruntime {machine.version('onnxruntime')} cpu"
works = pytest.mark.skipif(
    sys.platform != "linux" or not is_known(BACKEND),
    reason=f"{BACKEND} on {sys.platform} is fed one by one; see edgevl/engine/ahead.py",
)
VOCAB = 5


def opened(folder: Path, kind: type[OnnxDecoder], context_length: int | None = None, **settings: Any) -> Any:
    model = manifest.read(folder)
    assert model.embeddings is not None
    spec = replace(model.decoder, context_length=context_length or model.decoder.context_length)
    embeddings = read_embeddings(folder / model.embeddings.file, spec)
    return kind(Graph(folder / spec.file, threads=2), spec, embeddings, **settings)


@pytest.fixture(scope="module", params=["bundled int8", "random fp32", "random int4"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A model folder of each precision that is stored in another way."""
    if request.param == "bundled int8":
        return installed_folder() / BUNDLED
    return Path(request.getfixturevalue({"fp32": "smolvlm_model_dir", "int4": "smolvlm_int4_dir"}[request.param[-4:]]))


@pytest.fixture(scope="module")
def alone(folder: Path) -> OnnxDecoder:
    made: OnnxDecoder = opened(folder, OnnxDecoder)
    return made


@pytest.fixture(scope="module")
def ahead(folder: Path) -> OnnxAheadDecoder:
    made: OnnxAheadDecoder = opened(folder, OnnxAheadDecoder, n_threads=2)
    return made


def begin(decoder: OnnxDecoder, n_tokens: int) -> NDArray[np.int64]:
    """Feed a prompt; return tokens to go on with."""
    ids = np.random.default_rng(n_tokens).integers(0, decoder._embeddings.shape[0], n_tokens + 4 * N_AT_ONCE)
    decoder.truncate(0)
    decoder.extend(ids[:n_tokens])
    decoder.settle()
    return ids[n_tokens:]


def gone_ahead(alone: OnnxDecoder, ahead: OnnxAheadDecoder) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Feed a prompt, four tokens one by one and two at once; return all tokens behind the prompt, and their scores."""
    rest = begin(alone, 40)
    wanted = one_by_one(alone, rest)
    begin(ahead, 40)
    one_by_one(ahead, rest[:4])
    assert ahead.extend_each(rest[4:6].tolist()) is not None
    return rest, wanted


def one_by_one(decoder: OnnxDecoder, token_ids: Sequence[int]) -> NDArray[np.float32]:
    rows = []
    for token in token_ids:
        decoder.extend(np.array([token]))
        rows.append(decoder.logits())
    return np.array(rows)


def held(decoder: OnnxDecoder) -> NDArray[Any]:
    return decoder._cache.save(decoder.n_past, np.float32)  # as it is, not rounded


@works
@pytest.mark.parametrize("n_tokens", [1, 58, 240])
def test_scores_and_cache_are_equal_to_the_last_bit(alone: OnnxDecoder, ahead: OnnxAheadDecoder, n_tokens: int) -> None:
    rest = begin(alone, n_tokens)
    wanted = one_by_one(alone, rest)
    wanted_held = held(alone)
    for n in range(2, N_AT_ONCE + 1):
        begin(ahead, n_tokens)
        assert np.array_equal(one_by_one(ahead, rest[:N_AT_ONCE]), wanted[:N_AT_ONCE])
        for start in range(N_AT_ONCE, len(rest) - n + 1, n):
            scores = ahead.extend_each(rest[start : start + n].tolist())
            assert scores is not None, n
            assert np.array_equal(scores, wanted[start : start + n])
            assert np.array_equal(ahead.logits(), scores[-1])
        assert np.array_equal(held(ahead), wanted_held[:, :, : ahead.n_past])


@works
def test_what_is_forgotten_again_leaves_no_trace(alone: OnnxDecoder, ahead: OnnxAheadDecoder) -> None:
    rest = begin(alone, 40)
    wanted = one_by_one(alone, rest)
    begin(ahead, 40)
    one_by_one(ahead, rest[:4])
    wrong = [int(rest[4]), int(rest[5]), int(rest[0]), int(rest[1])]
    assert ahead.extend_each(wrong) is not None
    ahead.truncate(46)
    assert np.array_equal(ahead.logits(), wanted[5])
    assert np.array_equal(one_by_one(ahead, rest[6:]), wanted[6:])
    assert np.array_equal(held(ahead), held(alone))


@works
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_shares_no_memory_with_its_parent(alone: OnnxDecoder, ahead: OnnxAheadDecoder) -> None:
    rest, wanted = gone_ahead(alone, ahead)
    child = os.fork()
    if child == 0:  # takes no graph: its threads are not in here
        holds_nothing = ahead.n_past == 0
        for array in ahead._cache.arrays.values():
            array[...] = 99
        os._exit(0 if holds_nothing else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(one_by_one(ahead, rest[6:]), wanted[6:])
    assert np.array_equal(held(ahead), held(alone))


@works
def test_a_decoder_that_begins_anew_goes_ahead_again(alone: OnnxDecoder, ahead: OnnxAheadDecoder) -> None:
    rest, wanted = gone_ahead(alone, ahead)
    ahead.begin_anew()  # as in a forked child
    begin(ahead, 40)
    assert np.array_equal(one_by_one(ahead, rest[:4]), wanted[:4])
    scores = ahead.extend_each(rest[4:6].tolist())
    assert scores is not None
    assert np.array_equal(scores, wanted[4:6])


@works
def test_a_number_of_tokens_is_tried_on_tokens_that_are_held(folder: Path) -> None:
    decoder = opened(folder, OnnxAheadDecoder, n_threads=2)
    rest = begin(decoder, 20).tolist()
    assert decoder.extend_each(rest[:2]) is None  # nothing to try it on
    one_by_one(decoder, rest[:2])
    before = held(decoder), decoder.logits()
    assert decoder._can(2)
    assert np.array_equal(held(decoder), before[0])
    assert np.array_equal(decoder.logits(), before[1])
    assert decoder.extend_each(rest[2:5]) is None  # three have not been fed since the prompt
    assert decoder.n_past == 22
    decoder.load(decoder.save(), 22)
    assert decoder.extend_each(rest[:4]) is None


@works
def test_what_is_not_the_same_is_never_used(folder: Path) -> None:
    decoder = opened(folder, OnnxAheadDecoder, n_threads=2)
    rest = begin(decoder, 20).tolist()
    scores = one_by_one(decoder, rest[:4])
    before = held(decoder)
    decoder._behind[-1] = (decoder._behind[-1] + 1) % len(decoder._embeddings)  # compute something else
    assert decoder.extend_each(rest[4:6]) is None
    assert np.array_equal(decoder.logits(), scores[-1])
    assert np.array_equal(held(decoder), before)
    one_by_one(decoder, rest[4:8])
    assert decoder.extend_each(rest[8:10]) is None


@pytest.mark.parametrize(
    ("backend", "known"),
    [
        ("onnxruntime 1.31.1 cpu", True),
        ("onnxruntime 1.31.1 cuda", False),
        ("onnxruntime 1.30.0 cpu", False),
        ("onnxruntime 1.310.0 cpu", False),
    ],
)
def test_other_kernels_are_not_known(backend: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_known(backend) == known
    monkeypatch.setenv("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
    assert not is_known(backend)


def test_more_threads_than_heads_share_a_single_tokens_past(folder: Path) -> None:
    decoder = opened(folder, OnnxAheadDecoder, n_threads=100)
    rest = begin(decoder, 20).tolist()
    one_by_one(decoder, rest[:8])
    assert decoder.extend_each(rest[8:10]) is None


def test_without_memory_that_repeats_it_goes_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevl.engine.mirrored.sys.platform", "win32")
    decoder, plain = opened(folder, OnnxAheadDecoder, n_threads=2), opened(folder, OnnxDecoder)
    rest = begin(decoder, 20).tolist()
    begin(plain, 20)
    one_by_one(decoder, rest[:8])
    assert decoder.extend_each(rest[8:10]) is None
    assert np.array_equal(one_by_one(decoder, rest[8:]), one_by_one(plain, rest)[8:])


@works
def test_memory_that_runs_out_later_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, plain = opened(folder, OnnxAheadDecoder, n_threads=2), opened(folder, OnnxDecoder)
    rest = begin(decoder, BLOCK - 6).tolist()
    begin(plain, BLOCK - 6)
    one_by_one(decoder, rest[:4])
    assert decoder.extend_each(rest[4:6]) is not None
    monkeypatch.setattr("edgevl.engine.mirrored.sys.platform", "win32")
    assert isinstance(decoder._cache, MirroredKVCache)
    assert decoder.extend_each(rest[6:8]) is None  # needs more room
    assert np.array_equal(one_by_one(decoder, rest[6:]), one_by_one(plain, rest)[6:])


def test_the_context_ends_where_it_ends(folder: Path) -> None:
    decoder = opened(folder, OnnxAheadDecoder, n_threads=2, context_length=64)
    rest = begin(decoder, 59).tolist()
    one_by_one(decoder, rest[:4])
    assert decoder.extend_each(rest[:2]) is None
    assert decoder.n_past == 63


def test_a_graph_for_one_sequence_goes_one_by_one(tmp_path: Path) -> None:
    path = graphs.decoder(tmp_path / "decoder.onnx", hidden=VOCAB)
    spec = DecoderSpec("onnx", path.name, "fp32", 1, 1, 2, VOCAB, VOCAB, 1024, {}, {})
    table = np.arange(VOCAB * VOCAB, dtype=np.float32).reshape(VOCAB, VOCAB)
    decoder = OnnxAheadDecoder(Graph(path, threads=1), spec, table, n_threads=1)
    decoder.extend(np.array([1, 2, 3]))
    one_by_one(decoder, [4, 3])
    assert decoder.extend_each([1, 2]) is None
    np.testing.assert_array_equal(decoder.logits(), table[3])
    assert decoder.n_past == 5


@works
def test_scores_that_are_not_numbers_are_met_one_by_one(folder: Path) -> None:
    decoder = opened(folder, OnnxAheadDecoder, n_threads=2)
    rest = begin(decoder, 20).tolist()
    one_by_one(decoder, rest[:4])
    assert decoder.extend_each(rest[4:6]) is not None
    decoder._embeddings = np.full_like(decoder._embeddings, np.nan)
    assert decoder.extend_each(rest[6:8]) is None
    assert decoder.n_past == 26
