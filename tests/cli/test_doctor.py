"""`edgevl doctor` says what is here, what is missing with the command that adds it, and what was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgevl import machine, placement
from edgevl.cli import run
from edgevl.engine import graph, openvino
from edgevl.engine.devices import COREML_PROVIDER, CPU_PROVIDER, CUDA_PROVIDER, DEVICES, LLAMA, OPENVINO, Part
from edgevl.engine.native import library
from edgevl.engine.native.decoder import backend as backend_of_decoders
from edgevl.model import hub, manifest
from edgevl.placement import Placement
from edgevl.store import kept
from tests import intel

ORT = machine.version("onnxruntime")
DECODER = backend_of_decoders() or f"onnxruntime {ORT} cpu"
"""What computes the bundled decoder on the CPU."""


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert run(["doctor"]) == 0
    return capsys.readouterr().out.splitlines()


def of(name: str, found: list[str]) -> list[str]:
    return [line.removeprefix(f"{name}:").strip() for line in found if line.startswith(f"{name}:")]


def pretend(monkeypatch: pytest.MonkeyPatch, system: str, vision: set[str], gguf: set[str]) -> None:
    """Let this be a machine of `system` on which there is what stands in the two lists."""
    listed: dict[Part, set[str]] = {"vision": vision, "onnx": vision, "gguf": gguf}
    monkeypatch.setattr(placement, "found", listed.__getitem__)
    monkeypatch.setattr(placement, "SYSTEM", system)


def test_it_tells_machine_engines_devices_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["processor"] == machine.describe().cpu
    assert found["engines"]["onnxruntime"] == ORT
    assert list(found["devices"]) == list(DEVICES)
    assert found["devices"]["cpu"]["runs"][:2] == ["vision", "onnx"]
    assert found["devices"]["openvino"]["runs"] == (["vision"] if openvino.is_present() else [])
    assert found["model"]["name"] == "edgevl-tiny"
    assert found["model"]["vision"].startswith("onnxruntime ")
    if openvino.is_present():
        seconds = found["model"]["seconds_per_tile"]["cpu"]
        assert 0 < seconds < placement.QUICK_S


def test_decoders_that_run_as_graphs_are_said_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("off", "OFF"):
        monkeypatch.setenv("EDGEVL_NATIVE", value)
        assert of("native", lines(capsys)) == ["switched off by EDGEVL_NATIVE: decoders run as graphs"]
    monkeypatch.delenv("EDGEVL_NATIVE")
    with monkeypatch.context() as patch:
        patch.setattr(library, "_library", lambda: None)
        assert of("native", lines(capsys)) == [
            "not here: decoders run as graphs; a C compiler when edgevl is installed, and AVX2 or ARM, make it"
        ]
    if (name := backend_of_decoders()) is not None:
        assert of("native", lines(capsys)) == [name]


@pytest.mark.usefixtures("as_graphs")
def test_a_decoder_that_runs_as_a_graph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, "linux", {CPU_PROVIDER}, set())
    assert of("decoder", lines(capsys)) == [f"onnxruntime {ORT} cpu"]


def test_a_decoder_that_nothing_here_runs(
    bundled_gguf_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "linux", {CPU_PROVIDER}, set())
    installed = placement.installed
    monkeypatch.setattr(placement, "installed", lambda name: None if name == "llama.cpp" else installed(name))
    assert run(["doctor", str(bundled_gguf_dir)]) == 0
    found = capsys.readouterr().out.splitlines()
    assert of("decoder", found) == ["nothing here runs it; to add llama.cpp: pip install 'edgevl[gguf]'"]
    assert run(["doctor", str(bundled_gguf_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["decoder"] is None


def test_what_is_missing_comes_with_the_command_that_adds_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "linux", {CPU_PROVIDER}, set())
    found = lines(capsys)
    assert of("cpu", found) == [
        "present for image encoders, ONNX decoders",
        "missing for GGUF decoders; to add it: pip install 'edgevl[gguf]'",
    ]
    assert of("cuda", found) == [
        "missing for image encoders, ONNX decoders; to add it: "
        "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
        "missing for GGUF decoders; to add it: pip uninstall -y llama-cpp-python && "
        "pip install --no-cache-dir -C cmake.args=-DGGML_CUDA=on llama-cpp-python",
    ]
    assert of("openvino", found)[1:] == ["missing for image encoders; to add it: pip install 'edgevl[openvino]'"]
    assert of("coreml", found) == of("metal", found) == ["needs macOS"]
    assert of("decoder", found) == [DECODER]


@pytest.mark.skipif(CUDA_PROVIDER in graph.providers(), reason="this onnxruntime was built with CUDA")
def test_what_is_listed_and_does_not_load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, "linux", {CPU_PROVIDER, CUDA_PROVIDER}, set())
    present, trouble, missing = of("cuda", lines(capsys))
    assert present == "present for image encoders, ONNX decoders"
    assert trouble.startswith("does not work: ")
    assert f"this onnxruntime has no {CUDA_PROVIDER}; to add it: " in trouble
    assert missing.startswith("missing for GGUF decoders; ")


def test_a_mac(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, "darwin", {CPU_PROVIDER, COREML_PROVIDER}, {LLAMA})
    found = lines(capsys)
    assert of("coreml", found)[0] == "present for image encoders"
    assert of("metal", found)[0].startswith("missing for GGUF decoders; to add it: pip uninstall")
    assert of("cuda", found) == ["needs Linux or Windows"]


@pytest.mark.skipif(not openvino.is_present(), reason="OpenVINO is not installed")
def test_intel_graphics_and_npus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(placement, "SYSTEM", "linux")
    with monkeypatch.context() as patch:
        intel.pretend(patch)
        found = lines(capsys)
    add = "missing for image encoders; to add it: pip install 'edgevl[openvino]'  # and Intel's "
    assert of("openvino-gpu", found) == [f"{add}graphics driver"]
    assert of("openvino-npu", found) == [f"{add}NPU driver"]
    core = intel.pretend(monkeypatch, "GPU.0", "NPU")  # drivers were added
    monkeypatch.setattr(core, "broken", {"GPU"})
    found = lines(capsys)
    present, trouble = of("openvino-gpu", found)
    assert present == "present for image encoders"
    assert trouble.startswith("does not work: ")
    assert "OpenVINO cannot load it" in trouble
    assert of("openvino-npu", found) == ["present for image encoders"]


@pytest.mark.parametrize(("name", "backend"), [("cpu", f"onnxruntime {ORT} cpu"), ("openvino", "openvino ")])
def test_the_choice_is_shown_with_its_times(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "openvino" and not openvino.is_present():
        pytest.skip("OpenVINO is not installed")
    pretend(monkeypatch, "linux", {CPU_PROVIDER, OPENVINO, CUDA_PROVIDER}, set())
    folder = hub.find(None)
    auto = Placement(folder, manifest.read(folder), device="auto", threads=None)
    seconds: dict[str, Any] = {"cpu": 2.0, "openvino": 2.0, "cuda": 3.0, name: 1.0}
    assert kept.write(auto.key("vision"), seconds)
    assert kept.write(auto.key("onnx"), {"cpu": 0.5, "cuda": 0.625})
    found = lines(capsys)
    [encoder], [decoder] = of("image encoder", found), of("decoder", found)
    assert encoder.startswith(backend)
    times = ", ".join(f"{device} {value:.3f} s" for device, value in seconds.items())
    assert encoder.endswith(f"; a tile on each: {times}")
    assert decoder == f"{DECODER}; a short prompt on each: cpu 0.500 s, cuda 0.625 s"
