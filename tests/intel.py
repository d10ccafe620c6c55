"""A machine with Intel graphics and an NPU, by pretence: what theirs would refuse is refused, and the CPU computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from edgevl.engine.openvino import core_of

TAKES = {
    # settings with their values, as far as the devices' pages in OpenVINO's documentation name them
    "GPU": {"PERFORMANCE_HINT": {"LATENCY", "THROUGHPUT"}, "INFERENCE_PRECISION_HINT": {"f16", "f32"}},
    "NPU": {"PERFORMANCE_HINT": {"LATENCY", "THROUGHPUT"}},
}


def pretend(monkeypatch: pytest.MonkeyPatch, *devices: str) -> type[Any]:
    """Let OpenVINO find `devices`, such as GPU.0 and NPU, beside the CPU; return the class that stands in for its Core.

    `told` lists what it was asked to compile: the device and the settings. A device in `broken` cannot compile, one in
    `failing` compiles and cannot run, and no device takes a compiled graph back while `forgets`.
    """
    import openvino

    real = openvino.Core

    class Core:
        told: ClassVar[list[tuple[str, Mapping[str, Any]]]] = []
        broken: ClassVar[set[str]] = set()
        failing: ClassVar[set[str]] = set()
        forgets: ClassVar[bool] = False

        def __init__(self) -> None:
            self._real = core_of(real)
            self.available_devices = ["CPU", *devices]
            self.read_model = self._real.read_model

        def get_property(self, device: str, name: str) -> Any:
            if device == "CPU":
                return self._real.get_property(device, name)
            self._require(device)
            return {
                "OPTIMIZATION_CAPABILITIES": ["FP32", "FP16", "INT8", "EXPORT_IMPORT"],
                "CACHING_PROPERTIES": {"FULL_DEVICE_NAME": "RO"},
                "FULL_DEVICE_NAME": f"Intel(R) {device}",
            }[name]

        def compile_model(self, model: Any, device: str, settings: Mapping[str, Any]) -> Any:
            self._require(device)
            self.told.append((device, settings))
            if device == "CPU":
                return self._real.compile_model(model, device, settings)
            for name, value in settings.items():
                if value not in TAKES[device].get(name, ()):
                    raise RuntimeError(f"Unsupported property {name}={value} by {device} plugin")
            if device == "NPU" and any(port.get_partial_shape().is_dynamic for port in model.inputs):
                raise RuntimeError("to_shape was called on a dynamic shape.")
            compiled = self._real.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
            return Failing(compiled) if device in self.failing else compiled

        def import_model(self, tensor: Any, device: str, settings: Mapping[str, Any]) -> Any:
            self._require(device)
            if self.forgets:
                raise RuntimeError("The compiled model was made by another driver")
            return self._real.import_model(tensor, "CPU", {})

        def _require(self, device: str) -> None:
            found = {name.partition(".")[0] for name in self.available_devices}
            if device not in found - self.broken:
                raise RuntimeError(f"Device with {device!r} name is not registered")

    monkeypatch.setattr(openvino, "Core", Core)
    return Core


class Failing:
    """A compiled graph whose every run fails."""

    def __init__(self, compiled: Any) -> None:
        self.inputs, self.outputs, self.export_model = compiled.inputs, compiled.outputs, compiled.export_model

    def create_infer_request(self) -> Any:
        return self

    def infer(self, feeds: Any, share_inputs: bool) -> Any:
        raise RuntimeError("device lost")
