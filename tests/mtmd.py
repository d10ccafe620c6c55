"""llama.cpp's own way with pictures, libmtmd, as a reference: prompt, tiles, encoder and decoder all its own."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.gguf import library

N_BATCH = 512


@dataclass(frozen=True)
class Told:
    """What libmtmd made of a prompt: its text tokens with -1 for each image feature, and the greedy answer."""

    prompt_ids: list[int]
    token_ids: list[int]


class Mtmd:
    """A decoder file and its mmproj file, open in llama.cpp."""

    def __init__(self, decoder: Path, mmproj: Path, *, threads: int = 2) -> None:
        from llama_cpp import mtmd_cpp

        self._llama, self._mtmd = llama, mtmd = library(), mtmd_cpp
        self._silence = llama.llama_log_callback(lambda level, text, data: None)
        mtmd.mtmd_helper_log_set(self._silence, ctypes.c_void_p(0))
        settings = llama.llama_model_default_params()
        settings.n_gpu_layers = 0
        self._model = llama.llama_model_load_from_file(str(decoder).encode(), settings)
        self._n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        vision = mtmd.mtmd_context_params_default()
        vision.use_gpu = vision.print_timings = vision.warmup = False
        vision.n_threads = threads
        self._vision = mtmd.mtmd_init_from_file(str(mmproj).encode(), self._model, vision)
        assert self._vision
        context = llama.llama_context_default_params()
        context.n_ctx, context.n_batch = 4096, N_BATCH
        context.n_threads = context.n_threads_batch = threads
        context.flash_attn_type = 1
        self._context = llama.llama_init_from_model(self._model, context)

    def ask(self, prompt: str, image_token: str, pictures: list[NDArray[np.uint8]], n_tokens: int) -> Told:
        """Answer `prompt`, in which `image_token` stands for each picture, uint8 [height, width, 3]."""
        llama, mtmd = self._llama, self._mtmd
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        chunks = self._chunks(prompt.replace(image_token, mtmd.mtmd_default_marker().decode()), pictures)
        prompt_ids = self._ids(chunks)
        end = ctypes.c_int32(0)
        code = mtmd.mtmd_helper_eval_chunks(self._vision, self._context, chunks, 0, 0, N_BATCH, True, ctypes.byref(end))
        assert code == 0
        mtmd.mtmd_input_chunks_free(chunks)
        chosen: list[int] = []
        for _ in range(n_tokens):
            logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, -1), (self._n_vocab,))
            chosen.append(int(logits.argmax()))
            token = (ctypes.c_int32 * 1)(chosen[-1])
            assert llama.llama_decode(self._context, llama.llama_batch_get_one(token, 1)) == 0
        return Told(prompt_ids, chosen)

    def features(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what the encoder makes of a picture's only tile, [n, hidden]."""
        mtmd = self._mtmd
        chunks = self._chunks(mtmd.mtmd_default_marker().decode(), [picture])
        found = [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks))]
        [image] = [chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) != 0]
        assert mtmd.mtmd_encode_chunk(self._vision, image) == 0
        shape = mtmd.mtmd_input_chunk_get_n_tokens(image), self._llama.llama_model_n_embd(self._model)
        features = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._vision), (shape[0] * shape[1],))
        mtmd.mtmd_input_chunks_free(chunks)
        return features.reshape(shape).copy()

    def close(self) -> None:
        """Free everything."""
        self._mtmd.mtmd_free(self._vision)
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)

    def _chunks(self, text: str, pictures: list[NDArray[np.uint8]]) -> Any:
        mtmd, encoded = self._mtmd, text.encode()
        bitmaps = [
            mtmd.mtmd_bitmap_init(rgb.shape[1], rgb.shape[0], rgb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
            for rgb in pictures
        ]
        chunks = mtmd.mtmd_input_chunks_init()
        wanted = mtmd.mtmd_input_text(encoded, len(encoded), True, True)
        array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
        assert mtmd.mtmd_tokenize(self._vision, chunks, ctypes.byref(wanted), array, len(bitmaps)) == 0
        for bitmap in bitmaps:
            mtmd.mtmd_bitmap_free(bitmap)
        return chunks

    def _ids(self, chunks: Any) -> list[int]:
        mtmd, found = self._mtmd, []
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk, n = mtmd.mtmd_input_chunks_get(chunks, index), ctypes.c_size_t()
            if mtmd.mtmd_input_chunk_get_type(chunk) == 0:
                ids = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
                found += [int(ids[i]) for i in range(n.value)]
            else:
                found += [-1] * mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        return found
