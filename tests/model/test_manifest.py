"""Every way in which a manifest or a model folder can be wrong is one error that names file, key and remedy."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import ChecksumMismatch, ManifestError, ModelNotFound
from edgevl.model import manifest
from edgevl.model.manifest import (
    DecoderSpec,
    EmbeddingsSpec,
    Fidelity,
    FileSpec,
    Golden,
    GoldenSpec,
    ImageSpec,
    Manifest,
    Source,
    TensorSpec,
    TokenizerSpec,
    VisionSpec,
)

NAMES = ("vision.onnx", "decoder.onnx", "embeddings.npy", "tokenizer.json", "chat_template.jinja", "golden.npz")
PIXELS = {"pixel_values": TensorSpec("float32", (1, 3, 64, 64))}
FEATURES = {"image_features": TensorSpec("float32", (1, 4, 32))}
EMBEDS = {"inputs_embeds": TensorSpec("float32", ("batch", "sequence", 32))}
LOGITS = {"logits": TensorSpec("float32", ("batch", 1, 99))}


def example(folder: Path) -> Manifest:
    """Fill `folder` with files of a few bytes and return a manifest that describes them."""
    for name in NAMES:
        (folder / name).write_bytes(f"content of {name}".encode())
    return Manifest(
        format_version=manifest.FORMAT_VERSION,
        name="example",
        family="idefics3",
        image=ImageSpec(64, 256, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "lanczos"),
        vision=VisionSpec("vision.onnx", "int8", PIXELS, FEATURES),
        decoder=DecoderSpec("onnx", "decoder.onnx", "int4", 2, 2, 16, 32, 99, 2048, EMBEDS, LOGITS),
        embeddings=EmbeddingsSpec("embeddings.npy", "float16"),
        tokenizer=TokenizerSpec("tokenizer.json", "chat_template.jinja", "<s>", "</s>", 7, (1, 2)),
        files={name: FileSpec((folder / name).stat().st_size, manifest.sha256(folder / name)) for name in NAMES},
        source=Source("example-checkpoint", "0" * 64, "apache-2.0", {"torch": "2"}),
        fidelity=Fidelity(4, 0.9999, 0.999, 0.01, 0.98, ("layers.0.fc1",)),
        golden=GoldenSpec("golden.npz", (Golden("small", "What?", (3, 4)),)),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a folder with a valid manifest."""
    (tmp_path / manifest.FILE_NAME).write_text(example(tmp_path).to_json(), encoding="utf-8")
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / manifest.FILE_NAME
    raw = json.loads(path.read_text(encoding="utf-8"))
    edit(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        manifest.read(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / manifest.FILE_NAME))
    assert "\n" not in message
    return message.removeprefix(f"{folder / manifest.FILE_NAME}: ")


def test_round_trip(written: Path) -> None:
    assert manifest.read(written) == example(written)


def test_round_trip_without_fidelity_and_golden(written: Path) -> None:
    bare = dataclasses.replace(example(written), fidelity=None, golden=None)
    (written / manifest.FILE_NAME).write_text(bare.to_json(), encoding="utf-8")
    assert manifest.read(written) == bare


def test_whole_numbers_pass_for_floats(written: Path) -> None:
    change(written, lambda raw: raw["fidelity"].update(feature_cosine=1))
    read = manifest.read(written).fidelity
    assert read is not None
    assert isinstance(read.feature_cosine, float)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw.update(colour="red"), "colour: unknown key; upgrade edgevl or remove it"),
        (lambda raw: raw["image"].update(patch=8), "image.patch: unknown key; upgrade edgevl or remove it"),
        (lambda raw: raw.pop("name"), "name: key is missing; export the model again"),
        (lambda raw: raw["decoder"].pop("n_layers"), "decoder.n_layers: key is missing; export the model again"),
        (lambda raw: raw["image"].update(tile="512"), "image.tile: expected int, got '512'"),
        (lambda raw: raw["image"].update(tile=True), "image.tile: expected int, got True"),
        (lambda raw: raw["image"].update(tile=1.5), "image.tile: expected int, got 1.5"),
        (lambda raw: raw.update(name=None), "name: expected str, got None"),
        (lambda raw: raw.update(vision=[]), "vision: expected object, got []"),
        (lambda raw: raw.update(files=[]), "files: expected object, got []"),
        (lambda raw: raw["files"].update({"vision.onnx": 5}), "files.vision.onnx: expected object, got 5"),
        (lambda raw: raw["image"].update(mean="0.5"), "image.mean: expected list, got '0.5'"),
        (lambda raw: raw["image"]["std"].append("x"), "image.std[3]: expected float, got 'x'"),
        (lambda raw: raw["golden"]["answers"][0].update(token_ids=[None]), "golden.answers[0].token_ids[0]: expected"),
        (
            lambda raw: raw["vision"]["inputs"]["pixel_values"].update(shape=[1.5]),
            "vision.inputs.pixel_values.shape[0]: expected int | str, got 1.5",
        ),
        (
            lambda raw: raw["image"].update(resample="cubic"),
            "image.resample: expected one of lanczos, bicubic, bilinear, nearest, got 'cubic'",
        ),
        (lambda raw: raw["image"].update(resample=["x"]), "image.resample: expected one of"),
        (
            lambda raw: raw["decoder"].update(kind="tflite"),
            "decoder.kind: expected one of onnx, merged, gguf, got 'tflite'",
        ),
        (lambda raw: raw["decoder"].update(kind="gguf"), "embeddings: null for a gguf decoder"),
        (lambda raw: raw.update(embeddings=None), "embeddings: needed by an onnx decoder"),
        (lambda raw: raw["files"].pop("decoder.onnx"), "files: 'decoder.onnx' is used but not listed"),
        (lambda raw: raw["files"].pop("golden.npz"), "files: 'golden.npz' is used but not listed"),
        (lambda raw: raw["decoder"].update(prefill="two.onnx"), "files: 'two.onnx' is used but not listed"),
        (lambda raw: raw.update(name="x" * 200, source="y" * 200), "source: expected object, got 'yyy"),
    ],
)
def test_wrong_keys_and_values(written: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    change(written, edit)
    assert refusal(written).startswith(message)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("image", "tile", 0, "image.tile: expected 1 to 10000, got 0"),
        ("image", "tile", -1, "image.tile: expected 1 to 10000, got -1"),
        ("image", "tile", 2**31, "image.tile: expected 1 to 10000, got 2147483648"),
        ("image", "tile", 1, "image.tile: is 1, but vision.onnx takes pixel_values of [1, 3, 64, 64]"),
        ("image", "longest_edge", 0, "image.longest_edge: expected 1 to 100000, got 0"),
        ("image", "longest_edge", 6401, "image.longest_edge: expected at most 100 tiles of 64 pixels, got 6401"),
        ("image", "tokens_per_tile", 2**63, "image.tokens_per_tile: expected 1 to 100000, got 9223372036854775808"),
        ("image", "tokens_per_tile", 2**31, "image.tokens_per_tile: expected 1 to 100000, got 2147483648"),
        (
            "image",
            "tokens_per_tile",
            5,
            "image.tokens_per_tile: is 5, but vision.onnx gives image_features of [1, 4, 32]",
        ),
        ("image", "mean", [], "image.mean: expected 3 values, got 0"),
        ("image", "mean", [0.5], "image.mean: expected 3 values, got 1"),
        ("image", "std", [0.5] * 4, "image.std: expected 3 values, got 4"),
        ("image", "mean", [0.5, 0.5, int("9" * 400)], f"image.mean[2]: expected float, got {'9' * 57}..."),
        ("image", "mean", [math.inf] * 3, "image.mean[0]: expected float, got inf"),
        ("image", "std", [math.nan] * 3, "image.std[0]: expected float, got nan"),
        ("image", "mean", [0.5, 1e308, 0.5], "image.mean[1]: expected -1000 to 1000, got 1e+308"),
        ("image", "std", [0.5, 0.5, 0], "image.std[2]: expected 0.001 to 1000, got 0"),
        ("image", "std", [-0.5, 0.5, 0.5], "image.std[0]: expected 0.001 to 1000, got -0.5"),
        ("decoder", "n_layers", 0, "decoder.n_layers: expected 1 to 100000, got 0"),
        ("decoder", "n_kv_heads", -1, "decoder.n_kv_heads: expected 1 to 100000, got -1"),
        ("decoder", "head_dim", 10**6, "decoder.head_dim: expected 1 to 100000, got 1000000"),
        ("decoder", "hidden_size", 0, "decoder.hidden_size: expected 1 to 100000, got 0"),
        ("decoder", "vocab_size", 10**9, "decoder.vocab_size: expected 1 to 20000000, got 1000000000"),
        ("decoder", "context_length", 2**31, "decoder.context_length: expected 1 to 20000000, got 2147483648"),
        ("files", "vision.onnx", {"n_bytes": -1, "sha256": "0"}, "files.vision.onnx.n_bytes: expected 0 to "),
        ("fidelity", "feature_cosine", math.inf, "fidelity.feature_cosine: expected float, got inf"),
        ("vision", "precision", "\ud800", r"vision.precision: expected str, got '\ud800'"),
        ("files", "\ud800", {"n_bytes": 1, "sha256": "0"}, r"files: expected str, got '\ud800'"),
    ],
)
def test_values_out_of_range(written: Path, section: str, key: str, value: object, message: str) -> None:
    change(written, lambda raw: raw[section].update({key: value}))
    assert refusal(written).startswith(message)


def test_a_graph_may_leave_its_sizes_open(written: Path) -> None:
    def leave_open(raw: dict[str, Any]) -> None:
        raw["image"].update(tile=128, tokens_per_tile=16)
        raw["vision"]["inputs"]["pixel_values"].update(shape=[1, "n", 3, "height", "width"])
        raw["vision"]["outputs"]["image_features"].update(shape=["n", "tokens", 32])

    change(written, leave_open)
    assert manifest.read(written).image.tile == 128


def test_an_older_format_lacks_what_came_later(written: Path) -> None:
    change(written, lambda raw: (raw.update(format_version=1), raw["decoder"].pop("prefill")))
    assert manifest.read(written).decoder.prefill is None


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../b", "..\\secret", "C:\\x", "c:x", "", "sub/../../x", "//there/x", "a\0b"],
)
def test_files_outside_the_folder(written: Path, name: str) -> None:
    change(written, lambda raw: raw["files"].update({name: {"n_bytes": 1, "sha256": "0"}}))
    assert refusal(written) == f"files: {name!r} points outside the model folder; export or download the model again"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (manifest.FORMAT_VERSION + 1, "upgrade with: pip install -U edgevl"),
        (0, "format_version: expected 1 or more, got 0"),
        ("1", "format_version: expected int, got '1'"),
        (True, "format_version: expected int, got True"),
        (None, "format_version: expected int, got None"),
    ],
)
def test_versions(written: Path, version: object, message: str) -> None:
    change(written, lambda raw: raw.update(format_version=version))
    assert message in refusal(written)


def test_a_newer_version_is_reported_before_its_unknown_keys(written: Path) -> None:
    change(written, lambda raw: raw.update(format_version=99, novelty=1))
    assert refusal(written).startswith("format_version is 99, this edgevl reads up to 3")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "nonsense", "[" * 100_000, "\x00"])
def test_not_json(written: Path, text: str) -> None:
    (written / manifest.FILE_NAME).write_text(text, encoding="utf-8")
    assert refusal(written).startswith("is not valid JSON")


def test_not_utf8(written: Path) -> None:
    (written / manifest.FILE_NAME).write_bytes(b"\xff\xfe\x00{}")
    assert refusal(written).startswith("is not valid JSON")


def test_json_of_another_kind(written: Path) -> None:
    (written / manifest.FILE_NAME).write_text("[]", encoding="utf-8")
    assert refusal(written) == "must hold a JSON object; export or download the model again"


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such model folder; `edgevl models` lists what is here"):
        manifest.read(tmp_path / "absent")
    with pytest.raises(ModelNotFound, match=r"holds no edgevl\.json, so it is not a model folder"):
        manifest.read(tmp_path)


def test_hashes_of_a_whole_folder(written: Path) -> None:
    manifest.check_hashes(manifest.read(written), written)


def test_a_missing_file(written: Path) -> None:
    (written / "vision.onnx").unlink()
    with pytest.raises(ChecksumMismatch, match=r"vision\.onnx: is missing; export or download the model again"):
        manifest.check_sizes(manifest.read(written), written)


def test_a_truncated_file(written: Path) -> None:
    path = written / "decoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ChecksumMismatch, match=r"decoder\.onnx: has 22 bytes, edgevl\.json says 23"):
        manifest.check_sizes(manifest.read(written), written)


def test_a_changed_byte(written: Path) -> None:
    path = written / "embeddings.npy"
    path.write_bytes(b"C" + path.read_bytes()[1:])
    manifest.check_sizes(manifest.read(written), written)
    with pytest.raises(ChecksumMismatch, match=r"embeddings\.npy: content differs from edgevl\.json"):
        manifest.check_hashes(manifest.read(written), written)
