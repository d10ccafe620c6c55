"""Which engine runs a vision graph: what is asked for, else what was measured to be quicker, once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl import placement
from edgevl.engine import openvino
from edgevl.errors import BackendMissing, GraphError
from edgevl.model import hub, manifest
from edgevl.placement import open_encoder, quickest
from edgevl.store import kept
from edgevl.store.disk import Disk

FOLDER = hub.find(None)
SPEC = manifest.read(FOLDER)


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


def opened(device: str = "auto", **settings: Any) -> Any:
    return open_encoder(FOLDER, SPEC, device=device, threads=1, **settings)


def tile() -> NDArray[np.float32]:
    side = SPEC.image.tile
    return np.random.default_rng(1).uniform(-1, 1, (1, 3, side, side)).astype(np.float32)


def test_an_unknown_device_says_which_there_are() -> None:
    with pytest.raises(BackendMissing) as caught:
        opened("npu")
    assert str(caught.value) == "device 'npu' is not supported by this version; use one of auto, cpu, openvino"


def test_a_device_by_name_is_that_device(profiles: Path) -> None:
    assert opened("cpu").backend.startswith("onnxruntime ")
    assert not profiles.exists(), "nothing is measured for a device that was asked for"
    if openvino.is_present():
        assert opened("openvino").backend.startswith("openvino ")
    else:
        with pytest.raises(BackendMissing, match=r"pip install 'edgevl\[openvino\]'"):
            opened("openvino")


def test_without_openvino_nothing_is_measured(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "is_present", lambda: False)
    assert opened().backend.startswith("onnxruntime ")
    assert not profiles.exists()


@pytest.mark.skipif(not openvino.is_present(), reason="OpenVINO is not installed")
class TestMeasured:
    def test_a_quick_graph_stays_on_onnxruntime(self) -> None:
        assert opened().backend.startswith("onnxruntime ")
        found = kept.read(placement.vision_key(SPEC, 1))
        assert found is not None
        assert list(found) == ["onnxruntime"]

    def test_a_slower_graph_is_tried_on_both_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        chosen = opened()
        found = kept.read(placement.vision_key(SPEC, 1))
        assert found is not None
        assert set(found) == {"onnxruntime", "openvino"}
        assert chosen.backend.startswith(quickest(found))
        monkeypatch.setattr(placement, "_measured", None)  # would fail if it were called again
        assert opened().backend == chosen.backend

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_what_was_measured_decides(self, name: str) -> None:
        slow_and_quick = {"onnxruntime": 2.0, "openvino": 2.0, name: 1.0}
        assert kept.write(placement.vision_key(SPEC, 1), slow_and_quick)
        assert opened().backend.startswith(f"{name} ")

    @pytest.mark.parametrize("trouble", ["raises", "computes something else"])
    def test_an_engine_that_does_not_work_is_not_used(
        self, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(placement, "QUICK_S", 0.0)
        monkeypatch.setattr(placement, "OpenVINOGraph", _broken(trouble))
        with caplog.at_level(logging.WARNING):
            assert opened().backend.startswith("onnxruntime ")
        [message] = caplog.messages
        assert message.endswith("onnxruntime is used")
        assert kept.read(placement.vision_key(SPEC, 1)) is not None

    def test_features_are_those_of_onnxruntime(self) -> None:
        plain, quick = opened("cpu").encode(tile()), opened("openvino").encode(tile())
        assert placement._cosine(quick, plain) > 0.999

    def test_what_was_compiled_is_kept_on_disk_by_content(self, tmp_path: Path) -> None:
        disk = Disk(tmp_path / "store")
        opened("openvino", disk=disk).encode(tile())
        disk.flush()
        [entry] = disk.entries()
        assert entry.kind == "graphs"
        opened("openvino", disk=disk).encode(tile())
        disk.flush()
        assert len(list(disk.entries())) == 1
        other = replace(SPEC, files={**SPEC.files, SPEC.vision.file: replace(SPEC.files[SPEC.vision.file], sha256="0")})
        open_encoder(FOLDER, other, device="openvino", threads=1, disk=disk).encode(tile())
        disk.flush()
        assert len(list(disk.entries())) == 2

    @pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: data[:-1] + b"\0", lambda data: b""])
    def test_a_damaged_one_is_compiled_again(self, tmp_path: Path, damage: Any) -> None:
        disk = Disk(tmp_path / "store")
        wanted = opened("openvino", disk=disk).encode(tile())
        disk.flush()
        [entry] = disk.entries()
        entry.path.write_bytes(damage(entry.path.read_bytes()))
        np.testing.assert_array_equal(opened("openvino", disk=disk).encode(tile()), wanted)


def _broken(trouble: str) -> Any:
    class Broken:
        path, backend, n_at_once = FOLDER / SPEC.vision.file, "openvino 0 cpu", 1

        def __init__(self, *given: Any, **named: Any) -> None:
            if trouble == "raises":
                raise GraphError("vision.onnx: no")

        def require(self, inputs: set[str], outputs: set[str]) -> None: ...

        def run(self, feeds: Any, n_at_once: int) -> dict[str, Any]:
            shape = (1, SPEC.image.tokens_per_tile, SPEC.decoder.hidden_size)
            return {"image_features": np.random.default_rng(5).normal(size=shape).astype(np.float32)}

    return Broken


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        ({"onnxruntime": 2.0, "openvino": 1.0}, "openvino"),
        ({"onnxruntime": 1.0, "openvino": 2.0}, "onnxruntime"),
        ({"onnxruntime": 1.0}, "onnxruntime"),
        ({}, "onnxruntime"),
        ({"openvino": -1.0, "onnxruntime": 3}, "onnxruntime"),
        ({"openvino": "quick", "onnxruntime": 3}, "onnxruntime"),
    ],
)
def test_the_quickest_of_what_was_measured(seconds: Any, name: str) -> None:
    assert quickest(seconds) == name
