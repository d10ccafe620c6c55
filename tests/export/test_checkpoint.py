"""Reading a checkpoint: what is taken from it, and one clear error for everything that can be wrong."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import EdgeVLError, ExportError, UnsupportedFamily
from edgevl.export import checkpoint
from edgevl.model.manifest import ImageSpec
from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS


@pytest.fixture
def copy(smolvlm_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be damaged."""
    return Path(shutil.copytree(smolvlm_checkpoint, tmp_path / "checkpoint"))


def edit(path: Path, **values: Any) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw.update(values)
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}), encoding="utf-8")


def refusal(folder: Path, kind: type[EdgeVLError] = ExportError) -> str:
    with pytest.raises(kind) as caught:
        checkpoint.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_read(smolvlm_checkpoint: Path) -> None:
    read = checkpoint.read(smolvlm_checkpoint)
    assert read.row.family == "idefics3"
    assert read.image == ImageSpec(64, 256, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "lanczos")
    assert read.chat_template == CHAT_TEMPLATE
    assert (read.bos_token, read.eos_token) == ("<|im_start|>", "<end_of_utterance>")
    assert read.context_length == 2048
    assert read.licence == "unknown"
    assert read.n_parameters == 262_400


def test_both_ids_end_an_answer(copy: Path) -> None:
    first = checkpoint.read(copy).image_token_id - SPECIAL_TOKENS.index("<image>")
    turn_end, utterance_end = first + 2, first + SPECIAL_TOKENS.index("<end_of_utterance>")
    edit(copy / "generation_config.json", eos_token_id=[turn_end])
    assert checkpoint.read(copy).eos_token_ids == (turn_end, utterance_end)
    (copy / "generation_config.json").unlink()
    assert utterance_end in checkpoint.read(copy).eos_token_ids


def test_licence_of_the_readme(copy: Path) -> None:
    (copy / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Card\nlicense: none\n")
    assert checkpoint.read(copy).licence == "apache-2.0"
    (copy / "README.md").write_text("# Card\nlicense: none\n")
    assert checkpoint.read(copy).licence == "unknown"


def test_where_the_chat_template_is_looked_for(copy: Path) -> None:
    edit(copy / "processor_config.json", chat_template="first")
    (copy / "chat_template.json").write_text('{"chat_template": "second"}')
    (copy / "chat_template.jinja").write_text("third")
    assert checkpoint.read(copy).chat_template == "first"
    edit(copy / "processor_config.json", chat_template=...)
    assert checkpoint.read(copy).chat_template == "second"
    (copy / "chat_template.json").unlink()
    assert checkpoint.read(copy).chat_template == "third"
    (copy / "chat_template.jinja").unlink()
    edit(copy / "tokenizer_config.json", chat_template="fourth")
    assert checkpoint.read(copy).chat_template == "fourth"
    edit(copy / "tokenizer_config.json", chat_template=...)
    assert "add the template of the instruction-tuned checkpoint" in refusal(copy)


def test_a_chat_template_in_another_encoding(copy: Path) -> None:
    (copy / "chat_template.json").unlink()
    (copy / "chat_template.jinja").write_bytes(b"caf\xe9 {{ messages }}")
    assert refusal(copy).startswith(f"{copy / 'chat_template.jinja'}: cannot be read ('utf-8' codec can't decode")
    assert refusal(copy).endswith("; download the whole checkpoint folder again")


def test_processor_settings_in_one_file(copy: Path) -> None:
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    edit(copy / "processor_config.json", image_processor={**settings, "size": {"longest_edge": 64}})
    assert checkpoint.read(copy).image.longest_edge == 64, "newer than the other file, which the reference leaves"
    (copy / "preprocessor_config.json").unlink()
    assert checkpoint.read(copy).image.tile == 64


def test_what_is_left_of_a_tile_beside_its_last_whole_patch_is_not_looked_at(copy: Path) -> None:
    """As in SmolVLM-2.2B: 27 patches of 14 pixels in 384, and 81 tokens of 3 x 3 patches."""
    vision = json.loads((copy / "config.json").read_text())["vision_config"]
    edit(copy / "config.json", scale_factor=3, vision_config={**vision, "image_size": 384, "patch_size": 14})
    edges = {"max_image_size": {"longest_edge": 384}, "size": {"longest_edge": 1536}}
    edit(copy / "preprocessor_config.json", **edges)
    assert checkpoint.read(copy).image.tokens_per_tile == 81


def test_no_splitting_means_one_tile(copy: Path) -> None:
    edit(copy / "preprocessor_config.json", do_image_splitting=False)
    assert checkpoint.read(copy).image.longest_edge == 64


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("config.json", "download the whole checkpoint folder again"),
        ("model.safetensors", "download the whole checkpoint folder again"),
        ("tokenizer.json", "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"),
        ("preprocessor_config.json", "download the whole checkpoint folder again"),
    ],
)
def test_missing_files(copy: Path, name: str, remedy: str) -> None:
    (copy / name).unlink()
    message = refusal(copy)
    assert message.startswith(f"{copy / name}: is missing")
    assert remedy in message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused(copy: Path, name: str) -> None:
    (copy / "model.safetensors").rename(copy / name)
    message = refusal(copy)
    assert f"holds {name} but no safetensors" in message
    assert "save_pretrained(folder)" in message


def test_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")


def test_unknown_type(copy: Path) -> None:
    edit(copy / "config.json", model_type="mllama")
    message = refusal(copy, UnsupportedFamily)
    assert "'mllama' cannot be exported; this version knows edgevl_tiny, idefics3, internvl, llava, smolvlm" in message


def test_remote_code_is_refused(copy: Path) -> None:
    edit(copy / "config.json", model_type="strange", auto_map={"AutoModel": "modeling_strange.Strange"})
    assert "needs Python code from the checkpoint, which is never run" in refusal(copy)
    edit(copy / "config.json", model_type="idefics3")
    assert checkpoint.read(copy).row.family == "idefics3"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"text_config": 5}, "text_config: expected object, got 5"),
        ("config.json", {"vision_config": {}}, "vision_config.patch_size is needed"),
        ("config.json", {"scale_factor": ...}, "scale_factor is needed"),
        ("config.json", {"scale_factor": math.inf}, "scale_factor is needed"),
        ("config.json", {"scale_factor": 3}, "is not a whole number of 8x3 pixel cells"),
        ("config.json", {"scale_factor": 0}, "patch_size 8 and its factor 0 must be 1 or more"),
        ("config.json", {"image_token_id": 3}, "image_token_id: is 3, but tokenizer.json gives '<image>' the id 268"),
        ("config.json", {"image_token_index": 3}, "image_token_index: is 3, but tokenizer.json gives '<image>' the id"),
        ("preprocessor_config.json", {"size": {"longest_edge": "4"}}, "longest_edge: expected a positive int, got '4'"),
        ("preprocessor_config.json", {"max_image_size": ...}, "max_image_size: expected object, got None"),
        ("preprocessor_config.json", {"image_mean": [1]}, "image_mean: expected three numbers, got [1]"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, "image_std: expected three numbers from 0.001 to"),
        ("preprocessor_config.json", {"image_std": [1, -0.5, 1]}, "image_std: expected three numbers from 0.001 to"),
        ("preprocessor_config.json", {"image_mean": [0, 1e9, 0]}, "image_mean: expected three numbers from -1000 to"),
        ("preprocessor_config.json", {"resample": 9}, "resample: expected one of [0, 1, 2, 3], got 9"),
        ("preprocessor_config.json", {"resample": []}, "resample: expected one of [0, 1, 2, 3], got []"),
        ("preprocessor_config.json", {"resample": ...}, "resample: expected one of [0, 1, 2, 3], got None"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize: is False"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "rescale_factor: expected 1/255, got 1.0"),
    ],
)
def test_wrong_settings(copy: Path, name: str, values: dict[str, Any], message: str) -> None:
    edit(copy / name, **values)
    refused = refusal(copy)
    assert name in refused
    assert message in refused


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_damaged_json(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    assert refusal(copy).startswith(f"{copy / 'config.json'}: ")


def test_a_tokenizer_of_another_model(copy: Path) -> None:
    raw = json.loads((copy / "config.json").read_text())
    raw["text_config"]["vocab_size"] = 300
    (copy / "config.json").write_text(json.dumps(raw))
    assert "token '<end_of_utterance>' has the id 306, but config.json gives the model 300 tokens" in refusal(copy)


def test_damaged_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: is not a tokenizer" in refusal(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[:20],
        lambda data: b"",
        lambda _: b"x" * 99,
        lambda _: (50_005).to_bytes(8, "little") + b'{"a":' + b"[" * 50_000,
        lambda _: (52).to_bytes(8, "little") + b'{"a": {"shape": [Infinity], "data_offsets": [0, 0]}}',
    ],
)
def test_damaged_weights(copy: Path, damage: Any) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ExportError, match=r"model\.safetensors: .*download the whole checkpoint folder again"):
        _ = checkpoint.read(copy).n_parameters


def test_shards(copy: Path) -> None:
    whole = checkpoint.read(copy).n_parameters
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}))
    assert checkpoint.read(copy).n_parameters == whole
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    assert "model-00002-of-00002.safetensors: is missing, but model.safetensors.index.json names it" in refusal(copy)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    assert "is no safetensors file of this folder" in refusal(copy)
    for name in (["model-00001-of-00001.safetensors"], None, 1):
        index.write_text(json.dumps({"weight_map": {"a": name, "b": "model-00001-of-00001.safetensors"}}))
        assert refusal(copy) == (
            f"{index}: weight_map: expected names of files, got {name!r}; download the whole checkpoint folder again"
        )
