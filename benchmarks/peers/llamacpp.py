"""llama.cpp, through llama-cpp-python's bindings to libllama and libmtmd, at its best settings.

Flash attention on; matrices of the decoder all in one type, the head too, so that bits are the same; a context no
longer than the stage needs, because llama.cpp fills its KV cache with zeros when it is made.

On a processor with AMX a build by an older GCC (12.2 for one) ends with a segmentation fault at the first prompt: the
compiler drops the tile configuration (llama.cpp issue 20824). Such a build needs CXXFLAGS="-fno-tree-dse -fno-dse".
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import CONTEXTS, N_PREFILL_TEXT, WITNESS, Variant
from benchmarks.peers.case import QUESTION, ROOT, Case, digest, making

N_BATCH = 2048
ANSWER_CONTEXT = 2048
DECODE_CONTEXT = max(CONTEXTS) + 256
FLASH_ATTENTION = 1
TEXT_CHUNK = 0


def paths(case: Case, variant: Variant) -> tuple[Path, Path]:
    """Return the places of decoder and mmproj; another writer makes other files."""
    made_by = digest([ROOT / "export" / f"{name}.py" for name in ("architectures", "gguf", "mmproj", "vocabulary")])
    decoder, vision = variant.settings["decoder"], variant.settings["vision"]
    return case.path(f"decoder-{decoder}-{made_by}.gguf"), case.path(f"mmproj-{vision}-{made_by}.gguf")


def build(case: Case, variant: Variant) -> None:
    """Write the checkpoint as GGUF, and let llama.cpp quantize the decoder."""
    from edgevl.export import checkpoint, gguf, mmproj

    decoder, vision = paths(case, variant)
    plain, _ = paths(case, WITNESS)
    if not (plain.exists() and vision.exists()):
        source = checkpoint.read(case.checkpoint)
        model = source.row.load(case.checkpoint, source.image.tile)
        with making(plain) as target:
            if target is not None:
                gguf.write_decoder(source, model.text, target, "F16")
        with making(vision) as target:
            if target is not None:
                mmproj.write(source, model.vision, target, variant.settings["vision"])
    with making(decoder) as target:
        if target is not None:
            gguf.quantize(plain, target, variant.settings["decoder"], case.n_threads)


class Peer:
    """One open model with its vision context."""

    def __init__(self, case: Case, variant: Variant) -> None:
        import llama_cpp
        from llama_cpp import mtmd_cpp

        self._case, self._llama, self._mtmd = case, llama_cpp, mtmd_cpp
        llama_cpp.llama_log_set(_silent(), ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(_silent(), ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        decoder, vision = paths(case, variant)
        self._model = llama_cpp.llama_model_load_from_file(_bytes(decoder), settings)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._vision = self._open_vision(vision)
        self._context: Any = None
        self._memory: Any = None
        self._n_context = 0
        self._reserve(ANSWER_CONTEXT)
        self._n_past = 0
        self.about = {"system": llama_cpp.llama_print_system_info().decode().strip()}

    def _open_vision(self, path: Path) -> Any:
        settings = self._mtmd.mtmd_context_params_default()
        settings.use_gpu = False
        settings.print_timings = False
        settings.n_threads = self._case.n_threads
        settings.flash_attn_type = FLASH_ATTENTION
        vision = self._mtmd.mtmd_init_from_file(_bytes(path), self._model, settings)
        if not vision:
            raise RuntimeError(f"llama.cpp cannot load {path.name}")
        return vision

    def _reserve(self, n_context: int) -> None:
        """Begin with a context of that many tokens, unless there is one."""
        self._n_past = 0
        if self._n_context == n_context:
            self._llama.llama_memory_clear(self._memory, False)
            return
        if self._context is not None:
            self._llama.llama_free(self._context)
        settings = self._llama.llama_context_default_params()
        settings.n_ctx = n_context
        settings.n_batch = N_BATCH
        settings.n_threads = settings.n_threads_batch = self._case.n_threads
        settings.flash_attn_type = FLASH_ATTENTION
        self._context = self._llama.llama_init_from_model(self._model, settings)
        self._memory = self._llama.llama_get_memory(self._context)
        self._n_context = n_context

    def answer(self, image: str, question: str, n_tokens: int) -> dict[str, Any]:
        """Answer about an image file with libmtmd's own reading, tiling, encoding and prefill."""
        self._reserve(ANSWER_CONTEXT)
        started = time.perf_counter()
        bitmap = self._mtmd.mtmd_helper_bitmap_init_from_file(self._vision, _bytes(image), False)
        read = time.perf_counter()
        with self._chunks(bitmap, question) as chunks:
            cut, encode_s, n_tiles = time.perf_counter(), 0.0, 0
            for index, chunk in enumerate(chunks):
                if self._is_text(chunk):
                    self._feed_text(chunk, last=index == len(chunks) - 1)
                    continue
                began = time.perf_counter()
                features = self._encode(chunk)
                encode_s += time.perf_counter() - began
                n_tiles += 1
                self._feed_features(chunk, features)
            token = int(self._logits().argmax())
            first, first_token_at, n_prompt = time.perf_counter(), time.time(), self._n_past
        for _ in range(n_tokens - 1):
            self._feed([token])
            token = int(self._logits().argmax())
        return {
            "read_s": read - started,
            "tile_s": cut - read,
            "encode_s": encode_s,
            "prefill_s": first - cut - encode_s,
            "first_token_s": first - started,
            "first_token_at": first_token_at,
            "n_tokens": n_prompt,
            "n_tiles": n_tiles,
            "n_encoded": n_tiles,
        }

    def encode(self, n_tiles: int) -> list[float]:
        """Time libmtmd's encoder on the case's tiles."""
        seconds = []
        with self._tiles(n_tiles) as chunks:
            for chunk in (chunks[0], *chunks):
                started = time.perf_counter()
                self._encode(chunk)
                seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def features(self, n_tiles: int) -> NDArray[np.float32]:
        """Return what the encoder makes of the case's tiles."""
        n, hidden = self._case.prompt["tokens_per_tile"], self._case.load("features").shape[-1]
        with self._tiles(n_tiles) as chunks:
            return np.stack(
                [
                    np.ctypeslib.as_array(self._encode(chunk), (n * hidden,)).reshape(n, hidden).copy()
                    for chunk in chunks
                ]
            )

    def prefill(self) -> list[float]:
        """Feed the prompt chunk by chunk, as libmtmd does."""
        features = np.ascontiguousarray(self._case.load("features"), np.float32)
        self._reserve(ANSWER_CONTEXT)
        with self._chunks(self._bitmap(self._grid()), None) as chunks:
            started, tile = time.perf_counter(), 0
            for index, chunk in enumerate(chunks):
                if self._is_text(chunk):
                    self._feed_text(chunk, last=index == len(chunks) - 1)
                else:
                    self._feed_features(chunk, features[tile].ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
                    tile += 1
            self._logits()
            return [self._n_past / (time.perf_counter() - started)]

    def prefill_text(self) -> list[float]:
        """Feed text in one piece."""
        ids = self._case.text_ids(N_PREFILL_TEXT)
        self._reserve(ANSWER_CONTEXT)
        started = time.perf_counter()
        self._feed(ids)
        self._logits()
        return [N_PREFILL_TEXT / (time.perf_counter() - started)]

    def decode(self, context: int, n_tokens: int) -> list[float]:
        """Feed back the best token."""
        if self._n_context != DECODE_CONTEXT:
            self._reserve(DECODE_CONTEXT)
        ids = self._case.text_ids(context)
        if self._n_past > context:
            self._llama.llama_memory_seq_rm(self._memory, 0, context, -1)
            self._n_past = context
        for start in range(self._n_past, context, N_BATCH):
            self._feed(ids[start : start + N_BATCH])
        seconds, token = [], ids[-1]
        for _ in range(n_tokens + 1):
            started = time.perf_counter()
            self._feed([token])
            token = int(self._logits().argmax())
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def greedy(self, token_ids: Sequence[int], n_tokens: int) -> dict[str, Any]:
        """Choose the best token each time."""
        self._reserve(ANSWER_CONTEXT)
        self._feed(token_ids)
        logits, chosen = self._logits().copy(), []
        for _ in range(n_tokens):
            chosen.append(int(self._logits().argmax()))
            self._feed(chosen[-1:])
        return {"token_ids": chosen, "logits": logits}

    def _feed(self, token_ids: Sequence[int]) -> None:
        """Feed token ids; only the last one's logits are computed."""
        ids = (ctypes.c_int32 * len(token_ids))(*token_ids)
        self._check(self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(ids, len(ids))))
        self._n_past += len(ids)

    def _logits(self) -> NDArray[np.float32]:
        """Return the last logits [vocab], valid until the next token is fed."""
        return np.ctypeslib.as_array(self._llama.llama_get_logits_ith(self._context, -1), (self._n_vocab,))

    @contextmanager
    def _chunks(self, bitmap: Any, question: str | None) -> Iterator[list[Any]]:
        """Let libmtmd cut picture and prompt into chunks; `question` None takes the case's."""
        prompt, mtmd = self._case.prompt, self._mtmd
        text = prompt["text"].replace(prompt["image_token"], mtmd.mtmd_default_marker().decode())
        if question is not None:
            text = text.replace(QUESTION, question)
        encoded = text.encode()
        wanted = mtmd.mtmd_input_text(encoded, len(encoded), False, True)
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            self._check(
                mtmd.mtmd_tokenize(self._vision, chunks, ctypes.byref(wanted), (ctypes.c_void_p * 1)(bitmap), 1)
            )
            n_chunks = mtmd.mtmd_input_chunks_size(chunks)
            yield [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(n_chunks)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    @contextmanager
    def _tiles(self, n_tiles: int) -> Iterator[list[Any]]:
        """Yield chunks of the case's first tiles, to the pixel: a picture made of whole tiles is not resized."""
        with self._chunks(self._bitmap(self._grid()), None) as chunks:
            yield [chunk for chunk in chunks if not self._is_text(chunk)][:n_tiles]

    def _grid(self) -> NDArray[np.uint8]:
        """Put the tiles without the overview together again, [rows * tile, cols * tile, 3]."""
        tiles, (n_rows, n_cols) = self._case.load("tiles"), self._case.layout
        rows = [np.concatenate(tiles[row * n_cols : (row + 1) * n_cols], axis=1) for row in range(n_rows)]
        return np.ascontiguousarray(np.concatenate(rows, axis=0))

    def _bitmap(self, rgb: NDArray[np.uint8]) -> Any:
        height, width = rgb.shape[:2]
        return self._mtmd.mtmd_bitmap_init(width, height, rgb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))

    def _is_text(self, chunk: Any) -> bool:
        return bool(self._mtmd.mtmd_input_chunk_get_type(chunk) == TEXT_CHUNK)

    def _encode(self, chunk: Any) -> Any:
        """Encode a tile; return a pointer to its features, valid until the next tile."""
        self._check(self._mtmd.mtmd_encode_chunk(self._vision, chunk))
        return self._mtmd.mtmd_get_output_embd(self._vision)

    def _feed_text(self, chunk: Any, *, last: bool) -> None:
        end = ctypes.c_int32(self._n_past)  # the helper adds to it
        self._check(
            self._mtmd.mtmd_helper_eval_chunk_single(
                self._vision, self._context, chunk, self._n_past, 0, N_BATCH, last, ctypes.byref(end)
            )
        )
        self._n_past = end.value

    def _feed_features(self, chunk: Any, features: Any) -> None:
        end = ctypes.c_int32(self._n_past)
        nothing = self._mtmd.mtmd_helper_post_decode_callback(0)
        self._check(
            self._mtmd.mtmd_helper_decode_image_chunk(
                self._vision,
                self._context,
                chunk,
                features,
                self._n_past,
                0,
                N_BATCH,
                ctypes.byref(end),
                nothing,
                ctypes.c_void_p(0),
            )
        )
        self._n_past = end.value

    def _check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"llama.cpp returned {code}")


@lru_cache(maxsize=1)
def _silent() -> Any:
    """Return a log callback that says nothing; llama.cpp may call it as long as the process lives."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


def _bytes(path: Path | str) -> bytes:
    return str(path).encode()
