"""onnxruntime-genai: the decoder alone, as its own model builder makes it from the text checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import CONTEXTS, N_PREFILL_TEXT, Variant
from benchmarks.peers.case import Case, making

N_CONTEXT = max(CONTEXTS) + 256
OPTIONS = ("prune_lm_head=true", "accuracy_level=4", "block_size=32")


def folder(case: Case, variant: Variant) -> Path:
    """Return the model folder of a variant; another version of the builder makes another folder."""
    return case.path(f"genai-{variant.settings['decoder']}-{version('onnxruntime-genai')}")


def build(case: Case, variant: Variant) -> None:
    """Run the builder's command line on the decoder, saved as a checkpoint of its own."""
    precision = variant.settings["decoder"]
    with making(folder(case, variant)) as target:
        if target is None:
            return
        plain, cache = case.path("half-text"), case.path("half-cache")
        try:
            _save_text(case, plain)
            command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(plain), "-o", str(target)]
            command += ["-p", precision, "-e", "cpu", "-c", str(cache), "--extra_options", *OPTIONS]
            subprocess.run(command, check=True, stdout=sys.stderr)
        finally:
            for work in (plain, cache):
                shutil.rmtree(work, ignore_errors=True)


def _save_text(case: Case, folder: Path) -> None:
    import torch

    from edgevl.export import checkpoint

    source = checkpoint.read(case.checkpoint)
    text = source.row.load(case.checkpoint, source.image.tile).text
    text.lm_head.weight = torch.nn.Parameter(text.lm_head.weight.detach().clone())  # a tied head is written twice
    text.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(case.checkpoint / name, folder / name)


class Peer:
    """One open decoder; every stage begins with a fresh generator."""

    def __init__(self, case: Case, variant: Variant) -> None:
        import onnxruntime_genai

        self._case, self._genai = case, onnxruntime_genai
        model = folder(case, variant)
        _set_threads(model / "genai_config.json", case.n_threads)
        self._model = onnxruntime_genai.Model(str(model))

    def prefill_text(self) -> list[float]:
        """Feed text in one piece."""
        generator, ids = self._generator(), self._ids(N_PREFILL_TEXT)
        started = time.perf_counter()
        generator.append_tokens(ids)
        generator.get_logits()
        return [N_PREFILL_TEXT / (time.perf_counter() - started)]

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Generate; the first token needs no step of the graph, so it does not count."""
        generator = self._generator()
        generator.append_tokens(self._ids(context))
        generator.generate_next_token()
        seconds = []
        for _ in range(n_tokens + 1):
            started = time.perf_counter()
            generator.generate_next_token()
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Choose the best token each time."""
        generator = self._generator()
        generator.append_tokens(np.array(token_ids, np.int32))
        logits = np.array(generator.get_logits()).reshape(-1)
        for _ in range(n_tokens):
            generator.generate_next_token()
        return {"token_ids": [int(i) for i in generator.get_sequence(0)[len(token_ids) :]], "logits": logits}

    def _generator(self) -> Any:
        settings = self._genai.GeneratorParams(self._model)
        settings.set_search_options(max_length=N_CONTEXT, min_length=N_CONTEXT, do_sample=False)
        return self._genai.Generator(self._model, settings)

    def _ids(self, n: int) -> Any:
        return np.array(self._case.text_ids(n), np.int32)


def _set_threads(path: Path, n_threads: int) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    options = document["model"]["decoder"]["session_options"]
    if options.get("intra_op_num_threads") != n_threads:
        options["intra_op_num_threads"] = n_threads
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
