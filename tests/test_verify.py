"""`verify` passes on a whole model and names what is damaged."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevl.errors import ChecksumMismatch, GraphError, ManifestError, ModelError, ModelNotFound
from edgevl.model import manifest
from edgevl.verify import MIN_COSINE, cosine, equal_share, verify


@pytest.fixture(params=["onnx", "gguf"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A model folder of each kind of decoder."""
    name = {"onnx": "smolvlm_model_dir", "gguf": "smolvlm_gguf_dir"}[request.param]
    return Path(request.getfixturevalue(name))


@pytest.fixture
def copy(smolvlm_model_dir: Path, tmp_path: Path) -> Path:
    """A model folder that may be damaged."""
    return Path(shutil.copytree(smolvlm_model_dir, tmp_path / "model"))


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and enter its new hash, as someone would who exports by hand."""
    (folder / name).write_bytes(data)
    spec = manifest.read(folder)
    entry = manifest.FileSpec(len(data), manifest.sha256(folder / name))
    changed = dataclasses.replace(spec, files={**spec.files, name: entry})
    (folder / manifest.FILE_NAME).write_text(changed.to_json(), encoding="utf-8")


def rewrite_golden(folder: Path, **arrays: Any) -> None:
    recorded = dict(np.load(folder / "golden.npz", allow_pickle=False)) | arrays
    np.savez(folder / "made.npz", **{name: array for name, array in recorded.items() if array is not None})
    data = (folder / "made.npz").read_bytes()
    (folder / "made.npz").unlink()
    rewrite(folder, "golden.npz", data)


def test_a_whole_model(folder: Path) -> None:
    report = verify(folder)
    assert report.ok
    assert report.feature_cosine > 0.99999
    assert report.equal_tokens == 1
    assert [result.image for result in report.results] == ["small", "wide"]
    assert all(result.text for result in report.results)
    assert report.n_files == len(list(folder.iterdir())) - 1
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_one_thread_agrees(folder: Path) -> None:
    assert verify(folder, threads=1).ok


def test_a_changed_byte_of_a_gguf_file(smolvlm_gguf_dir: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(smolvlm_gguf_dir, tmp_path / "model")) / "decoder.gguf"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match=r"decoder\.gguf: content differs from edgevl\.json"):
        verify(path.parent)


def test_a_changed_byte(copy: Path) -> None:
    path = copy / "decoder.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match=r"decoder\.onnx\.data: content differs from edgevl\.json"):
        verify(copy)


def test_a_truncated_file(copy: Path) -> None:
    path = copy / "vision.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ChecksumMismatch, match=r"vision\.onnx: has \d+ bytes, edgevl\.json says \d+"):
        verify(copy)


@pytest.mark.parametrize("name", ["vision.onnx", "decoder.onnx.data", "embeddings.npy", "golden.npz"])
def test_a_missing_file(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ChecksumMismatch, match=f"{name}: is missing; export or download the model again"):
        verify(copy)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        verify(tmp_path)
    (tmp_path / manifest.FILE_NAME).write_text("{")
    with pytest.raises(ManifestError):
        verify(tmp_path)


def test_a_graph_that_cannot_be_loaded(copy: Path) -> None:
    rewrite(copy, "vision.onnx", b"not a graph")
    with pytest.raises(GraphError, match=r"vision\.onnx"):
        verify(copy)


def test_other_features_are_reported_not_raised(copy: Path) -> None:
    recorded = np.load(copy / "golden.npz", allow_pickle=False)
    rewrite_golden(copy, **{"wide.features": -recorded["wide.features"]})
    report = verify(copy)
    assert not report.ok
    assert report.feature_cosine == pytest.approx(-1, abs=1e-3)
    assert report.results[0].feature_cosine > MIN_COSINE


def test_other_tokens_do_not_change_the_verdict(copy: Path) -> None:
    path = copy / manifest.FILE_NAME
    raw = json.loads(path.read_text())
    raw["golden"]["answers"][0]["token_ids"][-1] += 1
    path.write_text(json.dumps(raw))
    report = verify(copy)
    assert report.ok
    assert 0.9 < report.equal_tokens < 1


def test_no_recorded_answers(copy: Path) -> None:
    path = copy / manifest.FILE_NAME
    raw = json.loads(path.read_text())
    raw["golden"] = None
    path.write_text(json.dumps(raw))
    report = verify(copy)
    assert report.ok
    assert report.results == ()
    assert (report.feature_cosine, report.equal_tokens) == (1, 1)


def test_a_damaged_golden_file(copy: Path) -> None:
    rewrite(copy, "golden.npz", b"PK nonsense")
    with pytest.raises(ModelError, match=r"golden\.npz: is not a readable \.npz file"):
        verify(copy)


def zipped(features: bytes) -> bytes:
    """Return a .npz file with a picture and `features` as what was recorded of it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.features.npy", features)
        archive.writestr("small.picture.npy", plain(np.zeros((8, 8, 3), np.uint8)))
    return file.getvalue()


def plain(array: Any) -> bytes:
    """Return a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def garbled(data: bytes, at: int, to: bytes) -> bytes:
    return data[:at] + to + data[at + len(to) :]


ARCHIVE = zipped(plain(np.zeros(999, np.float16)))
DIRECTORY = ARCHIVE.index(b"PK\x01\x02")
UNCLOSED = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'shape': (10L".ljust(118)


@pytest.mark.parametrize(
    "data",
    [
        garbled(ARCHIVE, 30 + len("small.features.npy"), b"\x07"),  # behind the head of the entry: zlib.error
        garbled(ARCHIVE, DIRECTORY + 10, b"\x63"),  # a compression that is not known: NotImplementedError
        garbled(ARCHIVE, DIRECTORY + 8, b"\x01"),  # encrypted: RuntimeError
        zipped(UNCLOSED),  # tokenize.TokenError
        zipped(b"hello"),  # no array: bytes
        zipped(plain(np.full((1, 4, 64), "x"))),  # words: ValueError from whatever computes with them
        zipped(plain(np.full((1, 4, 64), np.nan))),
        plain(np.zeros(3)),  # no archive, but an array: TypeError
    ],
)
def test_a_golden_file_that_is_damaged_behind_its_hash(copy: Path, data: bytes) -> None:
    rewrite(copy, "golden.npz", data)
    with pytest.raises(ModelError, match=r"golden\.npz: is not a readable \.npz file \(.+\); export the model again"):
        verify(copy)


@pytest.mark.parametrize("data", [ARCHIVE, garbled(ARCHIVE, DIRECTORY, b"xx"), UNCLOSED])
def test_a_table_of_embeddings_that_is_none(copy: Path, data: bytes) -> None:
    rewrite(copy, "embeddings.npy", data)
    with pytest.raises(ModelError, match=r"embeddings\.npy: is not a readable \.npy table \(.+\); export the model"):
        verify(copy)


def test_objects_are_never_unpickled(copy: Path) -> None:
    rewrite_golden(copy, **{"small.picture": np.array([{}], dtype=object)})
    with pytest.raises(ModelError, match=r"golden\.npz: is not a readable \.npz file .*pickle"):
        verify(copy)


def test_a_golden_file_of_another_model(copy: Path) -> None:
    rewrite_golden(copy, **{"small.features": np.zeros((1, 9, 64), np.float16)})
    with pytest.raises(ModelError, match=r"small: recorded features are \[1, 9, 64\], computed \[1, 4, 64\]"):
        verify(copy)
    rewrite_golden(copy, **{"small.features": None})
    with pytest.raises(ModelError, match=r"lacks 'small\.features', which edgevl\.json names"):
        verify(copy)


def test_cosine() -> None:
    rows = np.array([[1.0, 0], [0, 0], [3, 4], [0, 0]])
    np.testing.assert_allclose(cosine(rows, np.array([[0, 1.0], [0, 0], [6, 8], [1, 1]])), [0, 1, 1, 0])


def test_equal_share() -> None:
    assert equal_share([1, 2, 3], [1, 2, 3]) == 1
    assert equal_share([1, 2], [1, 2, 3, 4]) == 0.5
    assert equal_share([], []) == 1
