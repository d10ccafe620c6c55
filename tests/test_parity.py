"""The exported fp32 model against transformers on the same checkpoint: pixels, ids, logits, greedy tokens.

Three SmolVLM-shaped checkpoints with random weights; the last has SmolVLM-256M's own configuration and tokenizer,
with fewer layers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevl
from edgevl.export import export_model
from edgevl.image import pixels
from edgevl.image.read import read
from edgevl.request import Request, TileSource, prefill
from edgevl.types import ImagePart, Message, SamplingParams, TextPart
from tests.checkpoints import make_smolvlm

LOGIT_TOLERANCE = 2e-3
N_TOKENS = 32
QUESTION = "What is in this picture?"

# (height, width) in tiles of the checkpoint: square, tall, wide, tiny, large
SIZES = {"square": (1.0, 1.0), "tall": (2.9, 1.1), "wide": (0.8, 3.3), "tiny": (0.08, 0.14), "large": (5.1, 4.7)}
SHAPES: dict[str, dict[str, Any]] = {
    "grouped-query": {"seed": 1},
    "tied-multi-head": {"seed": 2, "tied": True, "kv_heads": 4, "scale_factor": 2, "patch": 16, "layers": 3},
    "smolvlm-256m": {"seed": 3, "longest_edge": 1024, "vision_layers": 1},
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint, in transformers and in edgevl."""

    model: Any
    processor: Any
    vlm: edgevl.VLM


@pytest.fixture(scope="module", params=SHAPES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    from transformers import AutoTokenizer, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    shape = dict(SHAPES[request.param])
    if request.param == "smolvlm-256m":
        shared: Path = request.getfixturevalue("shared_dir")
        shape["config"] = json.loads((shared / "families" / "smolvlm-256m" / "config.json").read_text())
        shape["tokenizer"] = shared / "tokenizers" / "smolvlm-256m"
    folder = tmp_path_factory.mktemp("parity")
    checkpoint = make_smolvlm(folder / "checkpoint", **shape)
    export_model(checkpoint, folder / "model", vision="fp32", decoder="fp32")
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil.from_pretrained(checkpoint),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint),
        image_seq_len=json.loads((checkpoint / "processor_config.json").read_text())["image_seq_len"],
        chat_template=json.loads((checkpoint / "chat_template.json").read_text())["chat_template"],
    )
    model = Idefics3ForConditionalGeneration.from_pretrained(checkpoint).eval()
    with edgevl.load(folder / "model") as vlm:
        yield Pair(model, processor, vlm)


def picture(pair: Pair, size: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    tile = pair.vlm.manifest.image.tile
    height, width = (max(1, round(side * tile)) for side in SIZES[size])
    rows, cols = np.mgrid[0:height, 0:width]
    waves = [rows * 5 + cols * 3, rows * 2 - cols * 7, (rows // 9 + cols // 13) * 40]
    return np.stack([wave % 256 for wave in waves], axis=-1).astype(np.uint8)


def reference(pair: Pair, images: list[Any], question: str) -> Any:
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    text = pair.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return pair.processor(text=text, images=images or None, return_tensors="pt")


def ours(pair: Pair, images: list[Any], question: str) -> Request:
    model = pair.vlm._open()
    message = Message("user", (*map(ImagePart, images), TextPart(question)))
    return Request(model, [message], detail="high", params=SamplingParams())


@pytest.mark.parametrize("size", SIZES)
def test_an_image_gives_the_same_pixels_ids_logits_and_tokens(pair: Pair, size: str) -> None:
    import torch

    rgb = picture(pair, size)
    expected = reference(pair, [rgb], QUESTION)
    request = ours(pair, [rgb], QUESTION)
    spec = pair.vlm.manifest.image

    tiles = [pixels.normalise(t, spec.mean, spec.std) for t in pixels.tiles(read(rgb), request.plans[0], spec.resample)]
    assert np.abs(np.concatenate(tiles) - expected["pixel_values"][0].numpy()).max() <= 1e-5
    assert token_ids(pair, request) == expected["input_ids"][0].tolist()

    with torch.no_grad():
        logits = pair.model(**expected).logits[0, -1].numpy()
    assert np.abs(prefilled_logits(pair, request) - logits).max() <= LOGIT_TOLERANCE
    assert answered(pair, [rgb]) == generated(pair, expected)


@pytest.mark.parametrize("sizes", [(), ("wide", "tiny")], ids=["none", "two"])
def test_zero_and_two_images(pair: Pair, sizes: tuple[str, ...]) -> None:
    images = [picture(pair, size) for size in sizes]
    expected = reference(pair, images, QUESTION)
    assert token_ids(pair, ours(pair, images, QUESTION)) == expected["input_ids"][0].tolist()
    assert answered(pair, images) == generated(pair, expected)


def test_tokens_are_not_all_alike(pair: Pair) -> None:
    assert len(set(answered(pair, [picture(pair, "square")]))) > 3


def token_ids(pair: Pair, request: Request) -> list[int]:
    image_token = pair.vlm.manifest.tokenizer.image_token_id
    ids = [getattr(chunk, "token_ids", None) or (image_token,) * chunk.n_tokens for chunk in request.chunks]
    return [token for chunk in ids for token in chunk]


def prefilled_logits(pair: Pair, request: Request) -> np.ndarray[Any, np.dtype[np.float32]]:
    model = pair.vlm._open()
    model.decoder.truncate(0)
    model.held.clear()
    prefill(model, request, TileSource(model, request.images, request.plans), threading.Event(), None)
    return model.decoder.logits()


def answered(pair: Pair, images: list[Any]) -> list[int]:
    return list(pair.vlm.ask(images, QUESTION, detail="high", max_tokens=N_TOKENS).token_ids)


def generated(pair: Pair, inputs: Any) -> list[int]:
    made = pair.model.generate(**inputs, max_new_tokens=N_TOKENS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    eos = set(pair.vlm.manifest.tokenizer.eos_token_ids)
    return [token for token in made.tolist() if token not in eos]
