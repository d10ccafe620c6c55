"""The rows of the export's table that differ from the first: what each reads from a checkpoint, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevl
from edgevl.errors import ExportError, UnsupportedFamily
from edgevl.export import checkpoint, export_model
from edgevl.export.samples import drawn
from edgevl.image.read import save_png
from edgevl.model.manifest import ImageSpec
from tests.checkpoints import LLAVA_TOKENS, make_internvl, make_llava

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TILE = 56


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llava(tmp_path_factory.mktemp("llava"), tile=TILE)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_internvl(tmp_path_factory.mktemp("internvl"), tile=TILE, max_patches=6)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda source: Path(shutil.copytree(source, tmp_path / "checkpoint"))


def edit(path: Path, values: dict[str, Any]) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_merged(raw, values)), encoding="utf-8")


def _merged(raw: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return raw | {key: _merged(raw[key], v) if isinstance(v, dict) else v for key, v in values.items()}


def test_one_tile_is_cut_from_the_middle(llava: Path) -> None:
    read = checkpoint.read(llava)
    assert read.row.family == "llava"
    assert read.image == ImageSpec(TILE, TILE, 16, *CLIP, "bicubic")
    assert (read.bos_token, read.eos_token) == ("<s>", "</s>")
    assert read.image_token_id - read.eos_token_ids[0] == LLAVA_TOKENS.index("<image>") - LLAVA_TOKENS.index("</s>")


def test_a_row_of_all_tiles_is_the_longest_edge(internvl: Path) -> None:
    read = checkpoint.read(internvl)
    assert read.row.family == "internvl"
    assert read.image == ImageSpec(TILE, 6 * TILE, 4, *IMAGENET, "bicubic")


@pytest.mark.parametrize(
    ("kind", "name", "values", "message"),
    [
        ("llava", "preprocessor", {"crop_size": 56}, "crop_size: expected object, got 56"),
        ("llava", "preprocessor", {"crop_size": {"height": 84}}, "crop_size: is 84x56 pixels (height x width); only"),
        (
            "llava",
            "preprocessor",
            {"size": {"shortest_edge": 64}},
            "size.shortest_edge: is 64; only 56 can be exported",
        ),
        ("llava", "preprocessor", {"do_center_crop": False}, "do_center_crop: is False; only True can be exported"),
        ("llava", "preprocessor", {"do_pad": True}, "do_pad: is True; only False can be exported"),
        ("llava", "", {"vision_config": {"patch_size": 15}}, "a tile of 56 pixels is not a whole number of 15x1 pixel"),
        ("llava", "", {"vision_config": {"patch_size": []}}, "vision_config.patch_size is needed"),
        ("internvl", "preprocessor", {"min_patches": 2}, "min_patches: is 2; only 1 can be exported"),
        ("internvl", "preprocessor", {"max_patches": 0}, "max_patches: expected a positive int, got 0"),
        ("internvl", "preprocessor", {"size": {"width": 64}}, "size: is 56x64 pixels (height x width); only squares"),
        ("internvl", "", {"downsample_ratio": 0}, "downsample_ratio is needed"),
        ("internvl", "", {"downsample_ratio": 0.3}, "is not a whole number of 14x3 pixel cells"),
    ],
)
def test_settings_that_cannot_be_exported(
    kind: str, name: str, values: Any, message: str, copy: Any, request: pytest.FixtureRequest
) -> None:
    folder = copy(request.getfixturevalue(kind))
    edit(folder / (f"{name}_config.json" if name else "config.json"), values)
    with pytest.raises(ExportError) as caught:
        checkpoint.read(folder)
    assert message in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("llava", {"vision_feature_select_strategy": "full"}, "is 'full'; only 'default' can be exported"),
        ("llava", {"vision_feature_layer": -5}, "is -5; expected one layer of an encoder of 3"),
        ("llava", {"vision_feature_layer": [-2]}, "is [-2]; expected one layer of an encoder of 3"),
        ("internvl", {"vision_feature_layer": -2}, "is -2; only -1 can be exported"),
        ("internvl", {"vision_feature_select_strategy": "full"}, "is 'full'; only 'default' can be exported"),
    ],
)
def test_models_that_cannot_be_exported(
    kind: str, values: Any, message: str, copy: Any, request: pytest.FixtureRequest
) -> None:
    folder = copy(request.getfixturevalue(kind))
    edit(folder / "config.json", values)
    read = checkpoint.read(folder)
    with pytest.raises(ExportError) as caught:
        read.row.load(folder, read.image.tile)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def test_another_encoder(llava: Path, copy: Any) -> None:
    folder = copy(llava)
    edit(folder / "config.json", {"vision_config": {"model_type": "pixtral"}})
    with pytest.raises(UnsupportedFamily) as caught:
        checkpoint.read(folder)
    assert str(caught.value) == (
        f"{folder / 'config.json'}: vision_config.model_type: 'pixtral' cannot be exported; "
        "of llava this version knows clip_vision_model"
    )


def test_a_tile_of_another_size_than_the_encoders(llava: Path) -> None:
    with pytest.raises(ExportError, match=r"vision_config\.image_size: is 56; only 84 can be exported"):
        checkpoint.read(llava).row.load(llava, 84)


def test_other_decoders_are_refused() -> None:
    from torch import nn
    from transformers import GPT2Config

    from edgevl.export.reference import text_model

    with pytest.raises(ExportError, match="model_type: is 'gpt2'; only llama and qwen2 decoders can be exported"):
        text_model(GPT2Config(), nn.Module(), nn.Linear(4, 4))


def test_the_features_are_those_of_the_layer_that_is_named(llava: Path, copy: Any) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    folder = copy(llava)
    pixels = torch.rand(1, 3, TILE, TILE, generator=torch.Generator().manual_seed(0))
    for layer in (-1, 1):
        edit(folder / "config.json", {"vision_feature_layer": layer})
        read = checkpoint.read(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        with torch.no_grad():
            wanted = model.get_image_features(pixels).pooler_output[0]
            got = read.row.load(folder, read.image.tile).vision(pixels)[0]
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-5)


def test_a_quantized_decoder_with_biases(internvl: Path, tmp_path: Path) -> None:
    save_png(drawn((112, 56), seed=1), tmp_path / "sample.png")
    spec = export_model(internvl, tmp_path / "model", decoder="int8", samples=[tmp_path / "sample.png"])
    assert spec.fidelity is not None
    assert spec.fidelity.feature_cosine > 0.99
    assert spec.fidelity.equal_tokens > 0.7
    with edgevl.load(tmp_path / "model") as vlm:
        answer = vlm.ask(drawn((112, 56), seed=1), "What is it?", max_tokens=3)
        assert [image.n_tiles for image in answer.images] == [3]
        assert answer.usage.image_tokens == 12
