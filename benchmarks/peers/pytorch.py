"""PyTorch, through transformers: the reference, in float32 and bfloat16."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import N_PREFILL_TEXT, Variant
from benchmarks.peers.case import Case

IMAGE_PROCESSORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # family: model and class in transformers, and what is asked of it beside the published settings
    "smolvlm": ("idefics3", "Idefics3ImageProcessorPil", {}),
    "internvl": ("got_ocr2", "GotOcr2ImageProcessorPil", {"crop_to_patches": True}),
}


def build(case: Case, variant: Variant) -> None:
    """Do nothing: the checkpoint is all it needs."""


class Peer:
    """The checkpoint's two halves in one dtype; tiles are encoded one by one, which takes least memory.

    Weights are loaded in float32 and then converted, which bfloat16's peak memory shows.
    """

    def __init__(self, case: Case, variant: Variant) -> None:
        from edgevl.export import checkpoint

        torch.set_num_threads(case.n_threads)
        torch.set_grad_enabled(False)
        self._case = case
        self._dtype = getattr(torch, variant.settings["dtype"])
        source = checkpoint.read(case.checkpoint)
        model = source.row.load(case.checkpoint, source.image.tile)
        self._vision, self._text = model.vision.to(self._dtype), model.text.to(self._dtype)
        name, kind, self._options = IMAGE_PROCESSORS[case.family]
        module = import_module(f"transformers.models.{name}.image_processing_pil_{name}")
        self._processor = getattr(module, kind).from_pretrained(case.checkpoint)
        self._cache: Any = None
        self._next: Any = None

    def answer(self, image: str, question: str, n_tokens: int) -> dict[str, Any]:
        """Answer the case's own question about an image: the prompt's ids are ready."""
        from PIL import Image

        started = time.perf_counter()
        with Image.open(image) as opened:
            picture = opened.convert("RGB")
        read = time.perf_counter()
        tiles = self._processor(images=[[picture]], return_tensors="pt", **self._options)["pixel_values"].flatten(0, -4)
        cut = time.perf_counter()
        features = [self._encode(tile[None]) for tile in tiles]
        encoded = time.perf_counter()
        self._start()
        self._extend(self._prompt(features))
        first, first_token_at = time.perf_counter(), time.time()
        for _ in range(n_tokens - 1):
            self._step()
        return {
            "read_s": read - started,
            "tile_s": cut - read,
            "encode_s": encoded - cut,
            "prefill_s": first - encoded,
            "first_token_s": first - started,
            "first_token_at": first_token_at,
            "n_tokens": self._case.prompt["n_tokens"],
            "n_tiles": len(tiles),
            "n_encoded": len(tiles),
        }

    def encode(self, n_tiles: int) -> list[float]:
        """Time the vision encoder and projector."""
        values = torch.from_numpy(np.array(self._case.load("pixel_values")[:n_tiles]))
        seconds = []
        for tile in (values[0], *values):
            started = time.perf_counter()
            self._encode(tile[None])
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return the projector's output."""
        values = torch.from_numpy(np.array(self._case.load("pixel_values")[:n_tiles]))
        return np.concatenate([self._encode(tile[None]).float().numpy() for tile in values])

    def prefill(self) -> list[float]:
        """Feed the prompt in one piece: transformers gains from it, and takes it so."""
        features = torch.from_numpy(np.array(self._case.load("features"))).to(self._dtype)
        embeds = self._prompt([tile[None] for tile in features])
        self._start()
        started = time.perf_counter()
        self._extend(embeds)
        return [embeds.shape[1] / (time.perf_counter() - started)]

    def prefill_text(self) -> list[float]:
        """Feed text in one piece."""
        embeds = self._embed(self._case.text_ids(N_PREFILL_TEXT))
        self._start()
        started = time.perf_counter()
        self._extend(embeds)
        return [N_PREFILL_TEXT / (time.perf_counter() - started)]

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Feed back the best token."""
        self._start()
        self._extend(self._embed(self._case.text_ids(context)))
        seconds = []
        for _ in range(n_tokens + 1):
            started = time.perf_counter()
            self._step()
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Choose the best token each time."""
        self._start()
        logits = self._extend(self._embed(token_ids))
        chosen = [int(self._next)]
        while len(chosen) < n_tokens:
            self._step()
            chosen.append(int(self._next))
        return {"token_ids": chosen, "logits": logits.float().numpy()}

    def _encode(self, tile: torch.Tensor) -> torch.Tensor:
        """Return features [1, n, hidden] of one tile [1, 3, tile, tile]."""
        features: torch.Tensor = self._vision(tile.to(self._dtype))
        return features

    def _embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        embeds: torch.Tensor = self._text.get_input_embeddings()(torch.tensor([list(token_ids)]))
        return embeds

    def _prompt(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the prompt's embeddings [1, n, hidden]; `features` are [1, n, hidden] of each tile."""
        chunks = self._case.prompt["chunks"]
        return torch.cat([self._embed(c) if isinstance(c, list) else features[c] for c in chunks], dim=1)

    def _start(self) -> None:
        from transformers import DynamicCache

        self._cache = DynamicCache()

    def _extend(self, embeds: torch.Tensor) -> torch.Tensor:
        """Feed embeddings [1, n, hidden]; return the last logits [vocab]."""
        out = self._text(inputs_embeds=embeds, cache=self._cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = out.logits[0, -1]
        self._next = logits.argmax()
        return logits

    def _step(self) -> None:
        self._extend(self._embed([int(self._next)]))
