"""OpenVINO GenAI whole: its VLMPipeline reads no file and keeps features and logits to itself, all else is its own.

What differs from edgevl's work: all tiles of a picture are encoded in one batch, and the prompt is fed in one piece.
Cutting is part of encoding in its figures. Tiles are the same to the pixel, as its resizing follows Pillow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import N_PREFILL_TEXT, Variant
from benchmarks.peers.case import QUESTION, ROOT, Case, digest, making
from benchmarks.peers.openvino import calibration
from edgevl.engine.openvino import core_of

PICTURE = "<image>"
"""What stands for a picture in a prompt of VLMPipeline."""


N_CALIBRATION = 8
"""Tiles; NNCF runs the graph in float32 twice on each."""


def folder(case: Case, variant: Variant) -> Path:
    """Return the model folder of a variant; another converter makes another folder."""
    return _place(case, f"{variant.settings['vision']}-{variant.settings['decoder']}")


def _place(case: Case, what: str) -> Path:
    made_by = digest([ROOT / "benchmarks" / "peers" / "openvino_files.py"], version("openvino") + version("nncf"))
    return case.path(f"openvino-genai-{what}-{made_by}")


def build(case: Case, variant: Variant) -> None:
    """Convert the checkpoint; every decoder goes with the same vision graph, calibrated as for the peer `openvino`."""
    from benchmarks.peers import openvino_files
    from edgevl.export import checkpoint

    source, precision = checkpoint.read(case.checkpoint), variant.settings["vision"]
    vision = _place(case, f"{precision}-vision")
    with making(vision) as target:
        if target is not None:
            samples = calibration(case)[:N_CALIBRATION] if precision == "int8" else []
            openvino_files.write_vision(source, precision, samples, target)
    with making(folder(case, variant)) as target:
        if target is not None:
            openvino_files.write(source, vision, variant.settings["decoder"], target)


class Peer:
    """One open pipeline, in the precisions that it chooses for this processor unless nothing is quantized.

    It remembers prompts by their beginnings, so that every prompt of text is another one from its first token on.
    """

    def __init__(self, case: Case, variant: Variant) -> None:
        import openvino_genai

        self._case, self._genai = case, openvino_genai
        self._folder = folder(case, variant)
        self._settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": case.n_threads}
        if variant.settings["decoder"] == "fp32":
            self._settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        self._pipeline = openvino_genai.VLMPipeline(self._folder, "CPU", **self._settings)
        self._n_texts = 0
        self.about = {"version": openvino_genai.get_version()}

    def answer(self, image: str, question: str, n_tokens: int) -> dict[str, Any]:
        """Answer through VLMPipeline; the picture is read here."""
        from PIL import Image

        started = time.perf_counter()
        with Image.open(image) as opened:
            rgb = np.array(opened.convert("RGB"))
        read = time.perf_counter()
        _, times, metrics = self.generate(self._prompt(question), rgb, n_tokens)
        first_token_s, encode_s = times[0] - started, metrics.get_vision_encoding_duration().mean / 1e3
        n_tiles = self._n_tiles(metrics)
        return {
            "read_s": read - started,
            "encode_s": encode_s,
            "prefill_s": first_token_s - (read - started) - encode_s,
            "first_token_s": first_token_s,
            "first_token_at": time.time() - (time.perf_counter() - times[0]),
            "n_tokens": metrics.get_num_input_tokens(),
            "n_tiles": n_tiles,
            "n_encoded": n_tiles,
        }

    def generate(self, prompt: str, rgb: NDArray[np.uint8] | None, n_tokens: int) -> tuple[list[int], list[float], Any]:
        """Return `n_tokens` greedy token ids, the time of each by perf_counter, and the pipeline's own figures."""
        import openvino

        genai = self._genai
        chosen: list[int] = []
        times: list[float] = []

        class Listener(genai.StreamerBase):  # type: ignore[misc, name-defined]
            def write(self, tokens: int | list[int]) -> Any:
                chosen.extend([tokens] if isinstance(tokens, int) else tokens)
                times.extend([time.perf_counter()] * (len(chosen) - len(times)))
                return genai.StreamingStatus.RUNNING

            def end(self) -> None: ...

        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = n_tokens, True
        config.do_sample = config.apply_chat_template = False
        images = [] if rgb is None else [openvino.Tensor(rgb[None])]
        found = self._pipeline.generate(prompt, images, config, Listener())
        return chosen, times, found.perf_metrics

    def encode(self, n_tiles: int) -> list[float]:
        """Time the encoding of a picture that is a row of so many tiles; the pipeline adds the overview."""
        tiles = np.array(self._case.load("tiles")[:n_tiles])
        seconds = 0.0
        for turned in (tiles[:, ::-1], tiles):  # the first run does not count
            rgb = np.ascontiguousarray(np.concatenate(list(turned), axis=1))
            _, _, metrics = self.generate(self._prompt(QUESTION), rgb, 1)
            seconds = metrics.get_vision_encoding_duration().mean / 1e3 / self._n_tiles(metrics)
        return [seconds] * n_tiles

    def prefill_text(self) -> list[float]:
        """Feed text in one piece."""
        started = time.perf_counter()
        _, times, metrics = self.generate(self._text(N_PREFILL_TEXT), None, 1)
        return [metrics.get_num_input_tokens() / (times[0] - started)]

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Time the tokens after a text; the first comes with the text."""
        _, times, _ = self.generate(self._text(context), None, n_tokens + 2)
        return [float(seconds) for seconds in np.diff(times)[1:]]

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return what the pipeline's vision graph gives when it is run alone, in the same precision."""
        import openvino

        from benchmarks.peers.openvino_files import VISION

        graph = core_of(openvino.Core).compile_model(self._folder / VISION, "CPU", self._settings)
        return np.array(graph(np.array(self._case.load("pixel_values")[:n_tiles]))[0])

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Run the pipeline's two text graphs alone, in the same precision, and choose the best token each time."""
        import openvino

        from benchmarks.peers.openvino_files import EMBEDDINGS, LANGUAGE

        core = core_of(openvino.Core)
        table, language = (core.compile_model(self._folder / n, "CPU", self._settings) for n in (EMBEDDINGS, LANGUAGE))
        step = language.create_infer_request()
        new, chosen, first = list(token_ids), list[int](), None
        for _ in range(n_tokens):
            n_past = len(token_ids) + len(chosen) - len(new)
            positions = np.arange(n_past, n_past + len(new))[None]
            fed = {
                "inputs_embeds": table(np.array([new]))[0],
                "attention_mask": np.ones((1, n_past + len(new)), np.int64),
                "position_ids": positions,
                "beam_idx": np.zeros(1, np.int32),
            }
            logits = np.array(step.infer(fed)["logits"][0, -1])
            first = logits if first is None else first
            new = [int(logits.argmax())]
            chosen += new
        return {"token_ids": chosen, "logits": first}

    def _n_tiles(self, metrics: Any) -> int:
        """Return how many tiles a prompt with the case's question had: the pipeline counts tokens, but no tiles."""
        prompt = self._case.prompt
        n_more = metrics.get_num_input_tokens() - prompt["n_tokens"]
        return int(prompt["n_tiles"] + n_more // prompt["tokens_per_tile"])

    def _prompt(self, question: str) -> str:
        prompt = self._case.prompt
        return str(prompt["text"].replace(prompt["image_token"], PICTURE).replace(QUESTION, question))

    def _text(self, n_tokens: int) -> str:
        """Return a text of `n_tokens` tokens that begins unlike all before it."""
        self._n_texts += 1
        return chr(ord("A") + self._n_texts) + " a" * (n_tokens - 1)
