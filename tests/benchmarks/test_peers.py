"""Each peer on a checkpoint of a few layers: the same weights, the same tiles, the same prompt.

A peer whose packages are not installed is skipped. Figures mean nothing here; that all compute the same does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import N_PREFILL_TEXT, VARIANTS, WITNESS, Variant
from benchmarks.peers import case as cases
from benchmarks.peers.case import QUESTION, Absent, Case, cosine, making
from benchmarks.peers.worker import Worker, WorkerFailed

NEAR = {
    # lowest cosine of features and of logits to the float32 model, whose weights are random and few
    "edgevl": (0.99, 0.9),
    "llama.cpp": (0.999, 0.9),
    "openvino": (0.98, 0.0),
    "openvino-genai": (0.95, 0.9),
    "genai": (0.0, 0.9),
    "pytorch": (0.999, 0.999),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny case with a drawn picture of 5 tiles."""
    folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "CACHE", folder)
        made = Case("tiny", folder / "no-shared", n_threads=1, grid=2)
        made.make(2)
        yield made


def opened(case: Case, variant: Variant) -> Any:
    if why := variant.missing or variant.unfit(case.family):
        pytest.skip(f"{variant.name}: {why}")
    module = import_module(variant.module)
    module.build(case, variant)
    return module.Peer(case, variant)


def test_the_case_is_made_once(case: Case) -> None:
    tiles, prompt = case.load("tiles"), case.prompt
    assert tiles.shape == (5, 64, 64, 3)
    assert prompt["n_tiles"] == 5
    assert [chunk for chunk in prompt["chunks"] if isinstance(chunk, int)] == list(range(5))
    assert sum(len(chunk) for chunk in case.chunks()) == prompt["n_tokens"]
    with making(case.checkpoint) as target:
        assert target is None
    before = case.photo(0).stat().st_mtime_ns, case.path("features.npy").stat().st_mtime_ns
    case.make(2)
    assert case.path("features.npy").stat().st_mtime_ns == before[1]


def test_published_configurations_may_be_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match=r"smolvlm-256m.config\.json is missing; give the folder .* with --shared"):
        Case("256m", tmp_path, n_threads=1).folder  # noqa: B018


@pytest.mark.parametrize("variant", [*VARIANTS, WITNESS], ids=lambda variant: variant.name)
def test_every_variant_computes_the_checkpoint(case: Case, variant: Variant) -> None:
    peer = opened(case, variant)
    features_near, logits_near = NEAR[variant.peer]
    if "features" in variant.stages:
        features = peer.features(3)
        assert features.shape == (3, *case.load("features").shape[1:])
        assert cosine(features, case.load("features")[:3]).mean() > features_near
        assert len(peer.encode(2)) == 2
    if "greedy" in variant.stages:
        found = peer.greedy(case.text_ids(64), 4)
        assert len(found["token_ids"]) == 4
        assert found["token_ids"][0] == found["logits"].argmax()
        assert cosine(found["logits"], case.load("text_logits")) > logits_near
    if "prefill" in variant.stages:
        assert peer.prefill()[0] > 0
    if "decode" in variant.stages:
        assert len(peer.decode(128, 3)) == 3
        assert len(peer.decode(N_PREFILL_TEXT, 2)) == 2
        assert peer.prefill_text()[0] > 0
    if "answer" in variant.stages:
        found = peer.answer(image=str(case.photo(1)), question=QUESTION, n_tokens=2)
        assert (found["n_tiles"], found["n_tokens"]) == (5, case.prompt["n_tokens"])
        assert found["n_encoded"] == 5
        parts = found["read_s"] + found["tile_s"] + found["encode_s"] + found["prefill_s"]
        assert variant.peer == "edgevl" or np.isclose(parts, found["first_token_s"])  # edgevl's overlap


def test_unquantized_gguf_gives_pytorchs_tokens(case: Case) -> None:
    wanted = opened(case, next(v for v in VARIANTS if "float32" in v.name)).greedy(case.text_ids(64), 8)
    found = opened(case, WITNESS).greedy(case.text_ids(64), 8)
    assert found["token_ids"] == wanted["token_ids"]
    assert cosine(found["logits"], wanted["logits"]) > 0.999


def test_the_changed_picture_differs_in_one_tile_and_the_overview(case: Case) -> None:
    peer = opened(case, VARIANTS[0])
    assert peer.differing([str(case.photo(0)), str(case.photo(0, changed=True))]) == 2


def test_a_worker_that_fails_says_why(case: Case) -> None:
    with pytest.raises(WorkerFailed, match=r"edgevl, int8 vision, int8 decoder: load: ModelNotFound: "):
        Worker(Case("tiny", case.shared, n_threads=1, grid=3), VARIANTS[1])
