"""Pairs of files of each family that can be imported, against our own export, and against llama.cpp where it is right.

llama.cpp, as of llama-cpp-python 0.3.36, puts the class token behind the patches of a picture. Its positions are right
only if the file's are turned by one; of CLIP it then gives the class's feature in the place of the first patch's, and
leaves out the file's last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevl
from edgevl.export import export_model, import_gguf
from edgevl.image.read import save_png
from edgevl.model import gguf
from edgevl.model.manifest import ImageSpec
from edgevl.verify import cosine
from tests.checkpoints import make_internvl, make_llava, make_smolvlm
from tests.gguf_files import rewrite
from tests.mixed import LLAMA_MISSING
from tests.pairs import N_TOKENS, QUESTION, SIZES, Both, Files, check_ids, check_parity, opened, picture, waves, written

pytest.importorskip("llama_cpp", reason=LLAMA_MISSING)

MAKERS: dict[str, Callable[..., Path]] = {"smolvlm": make_smolvlm, "llava": make_llava, "internvl": make_internvl}
PUBLISHED = {"llava": ("llava-1.5-7b", "llava-1.5"), "internvl": ("internvl3-1b", "qwen2.5-vl")}
POSITIONS = "v.position_embd.weight"


def imported(pair: Files, folder: Path) -> Path:
    """Import a pair, measured on a small picture only."""
    import_gguf(pair.decoder, pair.mmproj, folder / "model", vision="fp32", samples=[sample(folder)])
    return folder / "model"


def turned(pair: Files) -> Files:
    """Return a pair in whose mmproj the first position comes last, as llama.cpp needs it."""
    tensor = gguf.read(pair.mmproj).tensors[POSITIONS]
    positions = np.memmap(pair.mmproj, np.float32, "r", tensor.offset, tensor.shape)
    path = pair.mmproj.with_name("turned.gguf")
    rewrite(pair.mmproj, path, names={POSITIONS: None}, tensors={POSITIONS: np.roll(positions, -1, axis=0)})
    return replace(pair, mmproj=path)


def another_layer(pair: Files, n_layers: int) -> Files:
    """Return a pair in whose mmproj one more layer comes last, which llama.cpp leaves out."""
    header = gguf.read(pair.mmproj)
    last, path = f"v.blk.{n_layers - 1}.", pair.mmproj.with_name("another.gguf")
    more = {
        name.replace(last, f"v.blk.{n_layers}."): np.zeros(tensor.shape, np.float32)
        for name, tensor in header.tensors.items()
        if name.startswith(last)
    }
    return replace(pair, mmproj=rewrite(pair.mmproj, path, {"clip.vision.block_count": n_layers + 1}, tensors=more))


@pytest.mark.parametrize("family", MAKERS)
def test_in_float32_all_is_as_exported(family: str, tmp_path: Path) -> None:
    pair = written(tmp_path, MAKERS[family](tmp_path / "checkpoint"), "F32")
    export_model(pair.checkpoint, tmp_path / "onnx", vision="fp32", decoder="fp32", samples=[sample(tmp_path)])
    with (
        edgevl.load(imported(pair, tmp_path), store=False) as ours,
        edgevl.load(tmp_path / "onnx", store=False) as onnx,
    ):
        assert ours.manifest.family == onnx.manifest.family
        assert in_float32(ours.manifest.image) == in_float32(onnx.manifest.image)
        for size in SIZES:
            rgb = picture(size, onnx.manifest.image.tile)
            features = [np.stack(vlm.encode(rgb, detail="high").tiles) for vlm in (ours, onnx)]
            assert np.abs(features[0] - features[1]).max() < 1e-5
            answers = [vlm.ask(rgb, QUESTION, detail="high", max_tokens=N_TOKENS).token_ids for vlm in (ours, onnx)]
            n = min(map(len, answers))  # which tokens end an answer is said by other files
            assert n > 4
            assert answers[0][:n] == answers[1][:n]


def in_float32(spec: ImageSpec) -> ImageSpec:
    mean, std = (tuple(np.array(numbers, np.float32).tolist()) for numbers in (spec.mean, spec.std))
    return replace(spec, mean=mean, std=std)


def sample(folder: Path) -> Path:
    """Return a small picture to measure on."""
    save_png(waves(48, 40), folder / "sample.png")
    return folder / "sample.png"


@pytest.fixture(scope="module", params=["small", "published"])
def internvl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    yield from both("internvl", request, tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module", params=["small", "published"])
def llava(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    yield from both("llava", request, tmp_path_factory.mktemp("llava"))


def both(family: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Both]:
    """Open a pair in both; the published one has the model's own configuration and tokenizer, with fewer layers."""
    settings: dict[str, Any] = {"seed": 1}  # no two scores of an answer lie as near as half precision
    if request.param == "published":
        shared: Path = request.getfixturevalue("shared_dir")
        config, tokenizer = PUBLISHED[family]
        settings |= {"published": shared / "families" / config, "tokenizer": shared / "tokenizers" / tokenizer}
    pair = written(folder, MAKERS[family](folder / "checkpoint", **settings))
    model = imported(pair, folder)
    with opened(another_layer(turned(pair), 2) if family == "llava" else turned(pair), model) as found:
        yield found


@pytest.mark.parametrize("grid", [(1, 1), (1, 2)])
def test_internvl_gives_llama_cpps_ids_and_greedy_tokens(internvl: Both, grid: tuple[int, int]) -> None:
    tile = internvl.vlm.manifest.image.tile
    check_parity(internvl, [waves(grid[0] * tile, grid[1] * tile)])


def test_llava_gives_llama_cpps_ids_and_features(llava: Both) -> None:
    tile = llava.vlm.manifest.image.tile
    rgb = waves(tile, tile)
    check_ids(llava, [rgb])
    theirs, ours = llava.mtmd.features(rgb), llava.vlm.encode(rgb).tiles[0]
    assert cosine(theirs[:-1], ours[1:]).min() > 0.9999
    assert cosine(theirs[:-1], ours[:-1]).mean() < 0.99  # else it would say little
