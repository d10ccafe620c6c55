"""OpenVINO GenAI whole, on an InternVL of a few layers: its pipeline answers as PyTorch does; see test_peers.py."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import N_PREFILL_TEXT, VARIANTS, by_name
from benchmarks.peers import case as cases
from benchmarks.peers.case import QUESTION, Case, cosine

INT4 = by_name("OpenVINO GenAI, int8 vision, int4 decoder")
PLAIN = replace(INT4, settings={"vision": "fp32", "decoder": "fp32"})
N_TOKENS = 12


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny InternVL with a drawn picture of 3x4 tiles and the overview."""
    folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "CACHE", folder)
        made = Case("tiny-internvl", folder / "no-shared", n_threads=1)
        made.make(2)
        yield made


@pytest.fixture(scope="module")
def genai() -> Any:
    if INT4.missing:
        pytest.skip(f"{INT4.name}: {INT4.missing}")
    from benchmarks.peers import openvino_genai

    return openvino_genai


def reference_tokens(case: Case, rgb: np.ndarray[Any, Any]) -> tuple[str, list[int]]:
    """Return the prompt for OpenVINO GenAI, and transformers' greedy token ids about a picture."""
    import torch
    from transformers import InternVLForConditionalGeneration

    from tests.processors import processor_of

    processor = processor_of(case.checkpoint)
    model = InternVLForConditionalGeneration.from_pretrained(case.checkpoint, dtype=torch.float32)
    inputs = processor(
        images=[Image.fromarray(rgb)], text=case.prompt["text"], crop_to_patches=True, return_tensors="pt"
    )
    out = model.generate(**inputs, max_new_tokens=N_TOKENS, min_new_tokens=N_TOKENS, do_sample=False)
    return case.prompt["text"].replace(case.prompt["image_token"], "<image>"), out[0, -N_TOKENS:].tolist()


def test_the_unquantized_pipeline_gives_transformers_tokens(case: Case, genai: Any) -> None:
    genai.build(case, PLAIN)
    peer = genai.Peer(case, PLAIN)
    with Image.open(case.photo(1)) as opened:
        rgb = np.array(opened.convert("RGB"))
    prompt, wanted = reference_tokens(case, rgb)
    found, times, metrics = peer.generate(prompt, rgb, N_TOKENS)
    assert found == wanted
    assert len(times) == N_TOKENS
    assert times == sorted(times)
    assert metrics.get_num_input_tokens() == case.prompt["n_tokens"]
    assert cosine(peer.features(3), case.load("features")[:3]).min() > 0.99999
    text = peer.greedy(case.text_ids(64), 2)
    assert cosine(text["logits"], case.load("text_logits")) > 0.99999


def test_the_quantized_pipeline_runs_every_stage(case: Case, genai: Any) -> None:
    genai.build(case, INT4)
    peer = genai.Peer(case, INT4)
    features = peer.features(3)
    assert features.shape == (3, *case.load("features").shape[1:])
    assert cosine(features, case.load("features")[:3]).mean() > 0.95
    found = peer.greedy(case.text_ids(64), 4)
    assert len(found["token_ids"]) == 4
    assert cosine(found["logits"], case.load("text_logits")) > 0.9
    assert len(peer.encode(2)) == 2
    assert peer.prefill_text()[0] > 0
    for _ in range(2):  # the second begins otherwise
        _, _, metrics = peer.generate(peer._text(N_PREFILL_TEXT), None, 1)
        assert metrics.get_num_input_tokens() == N_PREFILL_TEXT
    assert len(peer.decode(128, 3)) == 3
    found = peer.answer(image=str(case.photo(1)), question=QUESTION, n_tokens=2)
    assert (found["n_tiles"], found["n_tokens"]) == (13, case.prompt["n_tokens"])
    assert 0 < found["encode_s"] < found["first_token_s"]


def test_pytorch_cuts_into_the_same_tiles(case: Case) -> None:
    variant = by_name("PyTorch, float32")
    peer = import_module(variant.module).Peer(case, variant)
    found = peer.answer(image=str(case.photo(1)), question=QUESTION, n_tokens=2)
    assert (found["n_tiles"], found["n_tokens"]) == (13, case.prompt["n_tokens"])


def test_other_families_are_left_out_with_the_reason() -> None:
    assert INT4.unfit("smolvlm") == "not with smolvlm: its VLMPipeline does not know that family"
    assert INT4.unfit("internvl") is None
    assert any(variant.unfit("internvl") for variant in VARIANTS if variant.peer == "llama.cpp")
