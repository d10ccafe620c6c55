"""A decoder whose cache stays in a device's memory holds and computes what one that shares its memory does.

The memory apart is the CPU's own here, and a second copy of everything: what a graphics card's is treated as.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevl.engine.decoder import OnnxDecoder, read_embeddings
from edgevl.engine.devices import CPU, Device
from edgevl.engine.graph import Graph
from edgevl.engine.merged import N_AT_ONCE, MergedDecoder
from edgevl.model import hub, manifest
from edgevl.model.manifest import DecoderSpec
from tests.engine import graphs

APART = replace(CPU, memory="cpu")
IDS = np.random.default_rng(3).integers(0, 60, 400)
WIDTH = 8

Make = Callable[[Device], OnnxDecoder]


def bundled(precision: str | None = None) -> Make:
    """Return what opens the bundled decoder, which updates its cache in place."""
    folder = hub.find(None)
    model = manifest.read(folder)
    assert model.embeddings is not None
    spec = replace(model.decoder, precision=precision or model.decoder.precision)
    rows = read_embeddings(folder / model.embeddings.file, spec)
    return lambda device: OnnxDecoder(Graph(folder / spec.file, threads=1, device=device), spec, rows)


def merged(path: Path, precision: str) -> Make:
    """Return what opens a decoder that gives its cache anew."""
    graphs.merged_decoder(path, hidden=WIDTH)
    spec = DecoderSpec("merged", path.name, precision, 1, 1, 2, WIDTH, WIDTH, 4000, {}, {})
    rows = np.random.default_rng(4).standard_normal((60, WIDTH)).astype(np.float32)
    return lambda device: MergedDecoder(Graph(path, threads=1, device=device), spec, rows)


@pytest.fixture(params=["bundled", "bundled fp32", "merged q4", "merged fp32"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[OnnxDecoder, OnnxDecoder]:
    kind, _, precision = request.param.partition(" ")
    make = bundled(precision) if kind == "bundled" else merged(tmp_path / "decoder.onnx", precision)
    return make(CPU), make(APART)


def check(pair: tuple[OnnxDecoder, OnnxDecoder], *token_ids: np.ndarray) -> None:
    for ids in token_ids:
        for decoder in pair:
            assert decoder.extend(ids)
        np.testing.assert_array_equal(pair[1].logits(), pair[0].logits())


def test_token_after_token_and_growing(pair: tuple[OnnxDecoder, OnnxDecoder]) -> None:
    check(pair, IDS[:9], *(IDS[at : at + 1] for at in range(9, 20)), IDS[20:], IDS, IDS[:3])
    np.testing.assert_array_equal(pair[1].save(), pair[0].save())


def test_forgetting_and_settling(pair: tuple[OnnxDecoder, OnnxDecoder]) -> None:
    check(pair, IDS[:30])
    for decoder in pair:
        decoder.truncate(7)
    check(pair, IDS[40:50])
    for decoder in pair:
        decoder.settle()
    check(pair, IDS[:1], IDS[1:2])
    np.testing.assert_array_equal(pair[1].save(), pair[0].save())


def test_what_one_saves_the_other_goes_on_from(pair: tuple[OnnxDecoder, OnnxDecoder]) -> None:
    shared, apart = pair
    for one, other in ((shared, apart), (apart, shared)):
        one.truncate(0)
        one.extend(IDS[:21])
        one.settle()
        state = one.save()
        one.extend(IDS[21:23])
        other.extend(IDS[:5])
        assert other.load(state, 21)
        other.extend(IDS[21:23])
        np.testing.assert_array_equal(other.logits(), one.logits())


def test_the_arrays_here_are_not_touched_by_a_run() -> None:
    """Else the tests above would show nothing: the cache is really elsewhere."""
    shared, apart = (bundled()(device) for device in (CPU, APART))
    for decoder in (shared, apart):
        decoder.extend(IDS[:9])
        for array in decoder._cache.arrays.values():
            array[:, :, 9:] = 0  # memory that an earlier decoder gave back may hold these very keys
        before = [array.tobytes() for array in decoder._cache.arrays.values()]
        decoder.extend(IDS[9:12])
        same = [a == b.tobytes() for a, b in zip(before, decoder._cache.arrays.values(), strict=True)]
        assert not any(same) if decoder is shared else all(same)


def test_more_than_one_piece(tmp_path: Path) -> None:
    make = merged(tmp_path / "decoder.onnx", "q4")
    check((make(CPU), make(APART)), np.resize(IDS, 2 * N_AT_ONCE + 3))
