"""The exported fp32 model against transformers on the same checkpoint: pixels, ids, logits, greedy tokens.

Each family in small shapes, and in a published configuration with its own tokenizer and fewer layers; of the larger
ones the heads are made narrow, too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevl
from edgevl.export import export_model
from edgevl.export.published import describe
from edgevl.export.samples import drawn
from edgevl.image import pixels
from edgevl.image.read import read, save_png
from edgevl.request import Request, TileSource, prefill
from edgevl.types import ImagePart, Message, SamplingParams, TextPart
from tests.checkpoints import make_internvl, make_llava, make_smolvlm
from tests.processors import processor_of
from tests.published import write_layout

LOGIT_TOLERANCE = 2e-3
N_TOKENS = 32
QUESTION = "What is in this picture?"

# (height, width) in tiles of the checkpoint: square, tall, wide, tiny, large
SIZES = {"square": (1.0, 1.0), "tall": (2.9, 1.1), "wide": (0.8, 3.3), "tiny": (0.08, 0.14), "large": (5.1, 4.7)}


def exported(checkpoint: Path, out: Path) -> None:
    """Export `checkpoint` to the model folder `out`."""
    sample = out.with_name("sample.png")
    save_png(drawn((96, 96), seed=0), sample)
    export_model(checkpoint, out, vision="fp32", decoder="fp32", samples=[sample])


def published(checkpoint: Path, out: Path) -> None:
    """Make the graphs that transformers.js would run, and describe them for the runtime."""
    describe(write_layout(checkpoint, out))


@dataclass(frozen=True)
class Case:
    """A checkpoint: what makes it, its shapes, the published configuration and tokenizer that it takes, its folder."""

    make: Callable[..., Path]
    shapes: dict[str, Any]
    shared: dict[str, str] = field(default_factory=dict)
    folder: Callable[[Path, Path], None] = exported


CASES = {
    "grouped-query": Case(make_smolvlm, {"seed": 1}),
    "published-graphs": Case(make_smolvlm, {"seed": 8, "layers": 3}, folder=published),
    "tied-multi-head": Case(
        make_smolvlm, {"seed": 2, "tied": True, "kv_heads": 4, "scale_factor": 2, "patch": 16, "layers": 3}
    ),
    "smolvlm-256m": Case(
        make_smolvlm,
        {"seed": 3, "longest_edge": 1024, "vision_layers": 1},
        {"config": "families/smolvlm-256m/config.json", "tokenizer": "tokenizers/smolvlm-256m"},
    ),
    "centre-square": Case(make_llava, {"seed": 4}),
    "llava-1.5-7b": Case(
        make_llava,
        {"seed": 5, "vision_layers": 2},
        {"published": "families/llava-1.5-7b", "tokenizer": "tokenizers/llava-1.5"},
    ),
    "closest-grid": Case(make_internvl, {"seed": 6}),
    # No tokenizer of InternVL3 is at hand: Qwen2.5-VL's has the same vocabulary, to which its tokens are added.
    "internvl3-1b": Case(
        make_internvl,
        {"seed": 7, "vision_layers": 1},
        {"published": "families/internvl3-1b", "tokenizer": "tokenizers/qwen2.5-vl"},
    ),
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint, in transformers and in edgevl."""

    model: Any
    processor: Any
    vlm: edgevl.VLM


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    import torch
    from transformers import AutoModelForImageTextToText

    case = CASES[request.param]
    shapes = dict(case.shapes)
    if case.shared:
        shared: Path = request.getfixturevalue("shared_dir")
        shapes |= {name: _shared(shared / path) for name, path in case.shared.items()}
    folder = tmp_path_factory.mktemp("parity")
    checkpoint = case.make(folder / "checkpoint", **shapes)
    case.folder(checkpoint, folder / "model")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with edgevl.load(folder / "model") as vlm:
        yield Pair(model, processor_of(checkpoint), vlm)


def _shared(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else path


def picture(pair: Pair, size: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    tile = pair.vlm.manifest.image.tile
    height, width = (max(1, round(side * tile)) for side in SIZES[size])
    rows, cols = np.mgrid[0:height, 0:width]
    waves = [rows * 5 + cols * 3, rows * 2 - cols * 7, (rows // 9 + cols // 13) * 40]
    return np.stack([wave % 256 for wave in waves], axis=-1).astype(np.uint8)


def reference(pair: Pair, images: list[Any], question: str) -> Any:
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    text = pair.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    pictures = [Image.fromarray(image) for image in images]  # of an array, tiny sides may pass for channels
    return pair.processor(text=text, images=pictures or None, return_tensors="pt")


def ours(pair: Pair, images: list[Any], question: str) -> Request:
    model = pair.vlm._open()
    message = Message("user", (*map(ImagePart, images), TextPart(question)))
    return Request(model, [message], detail="high", params=SamplingParams())


@pytest.mark.parametrize("size", SIZES)
def test_an_image_gives_the_same_pixels_ids_logits_and_tokens(pair: Pair, size: str) -> None:
    rgb = picture(pair, size)
    expected = reference(pair, [rgb], QUESTION)
    request = ours(pair, [rgb], QUESTION)
    spec = pair.vlm.manifest.image

    tiles = [pixels.normalise(t, spec.mean, spec.std) for t in pixels.tiles(read(rgb), request.plans[0], spec.resample)]
    wanted = expected["pixel_values"].numpy().reshape(-1, 3, spec.tile, spec.tile)
    assert np.abs(np.concatenate(tiles) - wanted).max() <= 1e-5
    assert token_ids(pair, request) == expected["input_ids"][0].tolist()

    tokens, logits = generated(pair, expected)
    assert np.abs(prefilled_logits(pair, request) - logits).max() <= LOGIT_TOLERANCE
    assert answered(pair, [rgb]) == tokens


@pytest.mark.parametrize("sizes", [(), ("wide", "tiny")], ids=["none", "two"])
def test_zero_and_two_images(pair: Pair, sizes: tuple[str, ...]) -> None:
    images = [picture(pair, size) for size in sizes]
    expected = reference(pair, images, QUESTION)
    assert token_ids(pair, ours(pair, images, QUESTION)) == expected["input_ids"][0].tolist()
    assert answered(pair, images) == generated(pair, expected)[0]


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


def generated(pair: Pair, inputs: Any) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the reference's greedy answer, and its logits behind the prompt."""
    options = {"max_new_tokens": N_TOKENS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    made = pair.model.generate(**inputs, **options)
    eos = set(pair.vlm.manifest.tokenizer.eos_token_ids)
    answer = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return [token for token in answer if token not in eos], made.logits[0][0].numpy()
