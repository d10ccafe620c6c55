"""Tokens and prompts: what a decoder needs for them, and where their time goes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.bounds import READ, Figure, Kind, Needs, total
from benchmarks.bounds.kinds import ATTENTION, NORMS, REST, by_kind
from benchmarks.bounds.onnx_kernels import KINDS, NORM, Profiled
from benchmarks.peers import Variant, own
from benchmarks.peers.case import Case
from edgevl.engine.decoder import PIECE, Decoder
from edgevl.engine.kv import BLOCK
from edgevl.model import manifest
from edgevl.model.manifest import DecoderSpec

BY_KERNEL = f"onnxruntime {ort.__version__} cpu, by kernel"


@dataclass(frozen=True)
class Fed:
    """What a run of a decoder graph is fed: `n` tokens behind `n_held` ones."""

    n_held: int
    n: int

    @property
    def n_pairs(self) -> float:
        """How many pairs of a token and one that it attends to there are."""
        return self.n * self.n_held + self.n * (self.n + 1) / 2


def tokens(case: Case, variant: Variant, contexts: Sequence[int], n_tokens: int, n_turns: int) -> list[Figure]:
    """Measure a token with each of `contexts` held: by the decoder that edgevl opens, then by onnxruntime's kernels."""
    peer, spec = own.Peer(case, variant), manifest.read(own.folder(case, variant)).decoder
    decoder = peer._emptied()
    by, itemsize, itemsize_of_graph = decoder.backend, _itemsize(decoder, spec), _itemsize(None, spec)
    ids = np.array(case.text_ids(max(contexts) + n_tokens))
    measured = {n: token_seconds(decoder, ids, n, n_tokens, n_turns) for n in sorted(contexts)}
    del peer, decoder
    path = own.folder(case, variant) / spec.file
    found = []
    for n_held in sorted(contexts):
        each = onnxruntime_kinds(path, spec, [Fed(n_held, 1)], case.n_threads, n_tokens * n_turns)
        weights = weights_bytes(path)
        needs = total([*weights.values(), {READ: cache_bytes(spec, itemsize, n_held)}])
        of_kinds = {**weights, ATTENTION: {READ: cache_bytes(spec, itemsize_of_graph, n_held)}}
        kinds = {n: Kind(_medians(kind.seconds, n_turns), of_kinds.get(n, {})) for n, kind in each.items()}
        what = f"a token, {spec.precision.removeprefix('int')} bits, {n_held:,} held"
        found.append(Figure(what, by, measured[n_held], needs, kinds, BY_KERNEL))
    return found


def token_seconds(
    decoder: Decoder, token_ids: NDArray[np.int64], n_held: int, n_tokens: int, n_turns: int
) -> list[float]:
    """Return the median seconds of a token in each turn of `n_tokens`, fed one by one behind `n_held` ones."""
    if decoder.n_past > n_held:
        decoder.truncate(n_held)
    if decoder.n_past < n_held:
        decoder.extend(token_ids[decoder.n_past : n_held])
    found = []
    for turn in range(n_turns + 1):  # the first one does not count
        decoder.truncate(n_held)
        taken = []
        for token_id in token_ids[n_held : n_held + n_tokens]:
            started = time.perf_counter()
            decoder.extend(token_id[None])
            taken.append(time.perf_counter() - started)
        if turn:
            found.append(float(np.median(taken)))
    return found


def prompt(case: Case, variant: Variant, n_turns: int) -> Figure:
    """Measure the case's prompt with ready features, then the kernels of the graph that reads prompts."""
    peer, folder = own.Peer(case, variant), own.folder(case, variant)
    n_tokens = case.prompt["n_tokens"]
    seconds = [n_tokens / peer.prefill()[0] for _ in range(n_turns)]
    by, lengths = peer._model.decoder.backend, [sum(part.n_tokens for part in step) for step in peer._steps()]
    del peer
    spec = manifest.read(folder).decoder
    path = folder / (spec.prefill or spec.file)
    kinds = onnxruntime_kinds(path, spec, pieces(lengths), case.n_threads, n_turns)
    what = f"a prompt of {n_tokens:,} tokens, {spec.precision.removeprefix('int')} bits"
    return Figure(what, by, seconds, total([kind.needs for kind in kinds.values()]), kinds, BY_KERNEL)


def pieces(lengths: Sequence[int]) -> list[Fed]:
    """Return what the graph is fed for steps of so many tokens, an even share of each at a time."""
    found, n_held = [], 0
    for length in lengths:
        for piece in np.array_split(np.arange(length), -(-length // PIECE)):
            found.append(Fed(n_held, len(piece)))
            n_held += len(piece)
    return found


def onnxruntime_kinds(
    path: Path, spec: DecoderSpec, feds: Sequence[Fed], n_threads: int, n_turns: int
) -> dict[str, Kind]:
    """Return the kernels of a decoder graph by kind, in `n_turns` of all of `feds` after one that does not count."""
    profiled = Profiled(path, n_threads, spin=True)
    state = _State(profiled.session, spec, max(fed.n_held + fed.n for fed in feds))
    for fed in [*feds] * (n_turns + 1):
        state.run(fed)
    runs, rounds = profiled.runs(), []
    for start in range(len(feds), len(runs), len(feds)):
        turn = zip(runs[start : start + len(feds)], feds, strict=True)
        rounds.append([(k.kind, k.seconds, k.needs(fed.n_pairs)) for run, fed in turn for k in run])
    return by_kind(rounds)


class _State:
    """Inputs and a KV cache of a decoder graph, bound in place as edgevl does, full of random numbers."""

    def __init__(self, session: ort.InferenceSession, spec: DecoderSpec, n_most: int) -> None:
        """Make room for `n_most` tokens."""
        rng, room = np.random.default_rng(0), -(-n_most // BLOCK) * BLOCK
        dtypes = {i.name: np.float16 if "float16" in i.type else np.float32 for i in session.get_inputs()}

        def filled(dtype: Any, *shape: int) -> NDArray[Any]:
            return rng.standard_normal(shape, np.float32).astype(dtype)

        self._session = session
        self._cache = {
            name: ort.OrtValue.ortvalue_from_numpy(filled(dtype, 1, spec.n_kv_heads, room, spec.head_dim))
            for name, dtype in dtypes.items()
            if name.startswith("past_key_values.")
        }
        self._embeds = filled(dtypes["inputs_embeds"], 1, n_most, spec.hidden_size)
        self._mask = np.ones((1, n_most), np.int64)

    def run(self, fed: Fed) -> None:
        """Feed tokens behind held ones; the scores are thrown away."""
        binding = self._session.io_binding()
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(self._embeds[:, : fed.n]))
        binding.bind_cpu_input("attention_mask", np.ascontiguousarray(self._mask[:, : fed.n_held + fed.n]))
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)


def weights_bytes(path: Path) -> dict[str, Needs]:
    """Return the bytes of weights that a decoder graph reads at each run, by kind; of tables by position none."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {
        weight.name: math.prod(weight.dims) * onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        for weight in graph.initializer
    }
    found: dict[str, float] = {}
    for node in graph.node:
        kind = NORMS if node.op_type.endswith(NORM) else KINDS.get(node.op_type, REST)
        if kind not in (ATTENTION, REST):
            found[kind] = found.get(kind, 0.0) + sum(sizes.get(name, 0) for name in node.input)
    return {kind: {READ: n_bytes} for kind, n_bytes in found.items() if n_bytes}


def cache_bytes(spec: DecoderSpec, itemsize: int, n_held: int) -> float:
    """Return the bytes of keys and values, `itemsize` each, that a token reads of `n_held` ones before it."""
    return 2.0 * spec.n_layers * spec.n_kv_heads * spec.head_dim * itemsize * n_held


def _medians(values: Sequence[float], n_parts: int) -> list[float]:
    return [float(np.median(part)) for part in np.array_split(np.array(values), n_parts)]


def _itemsize(decoder: Any, spec: DecoderSpec) -> int:
    """Return the bytes of a number in a decoder's KV cache; those of its graph (None) where it does not tell."""
    arrays: Mapping[str, NDArray[Any]] = getattr(getattr(decoder, "_cache", None), "arrays", {})
    of_graph = np.dtype(spec.inputs["past_key_values.0.key"].dtype).itemsize
    return next((array.itemsize for array in arrays.values()), of_graph)
