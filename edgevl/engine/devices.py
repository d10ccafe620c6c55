"""The devices that the parts of a model can run on, as a table: a device is a row. What runs them is not imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgevl.errors import BackendMissing

Part = Literal["vision", "onnx", "gguf"]
PARTS: Mapping[Part, str] = {"vision": "image encoder", "onnx": "ONNX decoder", "gguf": "GGUF decoder"}
"""What of a model is placed: its vision graph, and a decoder of either kind."""

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
COREML_PROVIDER = "CoreMLExecutionProvider"
OPENVINO = "OpenVINO"
OPENVINO_GPU = "OpenVINO with Intel graphics"
OPENVINO_NPU = "OpenVINO with an Intel NPU"
LLAMA = "llama.cpp"
LLAMA_CUDA = "llama.cpp with CUDA"
LLAMA_METAL = "llama.cpp with Metal"

_BUILD_LLAMA = "pip uninstall -y llama-cpp-python && pip install --no-cache-dir -C cmake.args={} llama-cpp-python"
_ADD_OPENVINO = "pip install 'edgevl[openvino]'"
COMMANDS: Mapping[str, str] = {
    # what a part needs: the one command that adds it, with what no command adds as its comment
    CPU_PROVIDER: "pip install onnxruntime",
    CUDA_PROVIDER: "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
    COREML_PROVIDER: "pip install --force-reinstall --no-deps onnxruntime",
    OPENVINO: _ADD_OPENVINO,
    OPENVINO_GPU: f"{_ADD_OPENVINO}  # and Intel's graphics driver",
    OPENVINO_NPU: f"{_ADD_OPENVINO}  # and Intel's NPU driver",
    LLAMA: "pip install 'edgevl[gguf]'",
    LLAMA_CUDA: _BUILD_LLAMA.format("-DGGML_CUDA=on"),
    LLAMA_METAL: _BUILD_LLAMA.format("-DGGML_METAL=on"),
}
SYSTEMS: Mapping[str, str] = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}
"""Values of `sys.platform` and what they are called."""

Provider = tuple[str, Mapping[str, Any]]
_CPU_LAST: Provider = (CPU_PROVIDER, {})


@dataclass(frozen=True)
class Device:
    """One device. `needs` says for each part that it runs what must be here; the other parts stay on the CPU.

    `providers` are onnxruntime's with their options, in the order in which they take nodes; `memory` is onnxruntime's
    name for the device's own memory, in which a decoder's cache then stays. `openvino` is OpenVINO's name for it, where
    that is what runs it. `systems` are those that can have it.
    """

    name: str
    hardware: str
    needs: Mapping[Part, str]
    is_tested: bool
    systems: tuple[str, ...] = tuple(SYSTEMS)
    providers: tuple[Provider, ...] = (_CPU_LAST,)
    memory: str | None = None
    openvino: str | None = None

    def missing(self, available: Collection[str]) -> dict[Part, str]:
        """Return the command that adds what is missing, for each part that this device would run."""
        return {part: COMMANDS[need] for part, need in self.needs.items() if need not in available}

    def lacks(self, part: Part) -> str:
        """Return the sentence that `part` cannot run on this device, with the command that mends it."""
        return f"device {self.name} is not here for the {PARTS[part]}; to add it: {COMMANDS[self.needs[part]]}"


_ROWS = (
    Device("cpu", "any", {"vision": CPU_PROVIDER, "onnx": CPU_PROVIDER, "gguf": LLAMA}, is_tested=True),
    Device("openvino", "x86 processors", {"vision": OPENVINO}, is_tested=True, openvino="CPU"),
    Device(
        "openvino-gpu",
        "Intel graphics",
        {"vision": OPENVINO_GPU},
        is_tested=False,
        systems=("linux", "win32"),
        openvino="GPU",
    ),
    Device(
        "openvino-npu",
        "Intel NPUs",
        {"vision": OPENVINO_NPU},
        is_tested=False,
        systems=("linux", "win32"),
        openvino="NPU",
    ),
    Device(
        "cuda",
        "NVIDIA graphics cards",
        {"vision": CUDA_PROVIDER, "onnx": CUDA_PROVIDER, "gguf": LLAMA_CUDA},
        is_tested=False,
        systems=("linux", "win32"),
        providers=((CUDA_PROVIDER, {}), _CPU_LAST),
        memory="cuda",
    ),
    Device(
        "coreml",
        "Macs",
        {"vision": COREML_PROVIDER},
        is_tested=False,
        systems=("darwin",),
        # the format that it takes otherwise lacks most operations of a transformer
        providers=((COREML_PROVIDER, {"ModelFormat": "MLProgram"}), _CPU_LAST),
    ),
    Device("metal", "Macs", {"gguf": LLAMA_METAL}, is_tested=False, systems=("darwin",)),
)
DEVICES: Mapping[str, Device] = {row.name: row for row in _ROWS}
CPU = DEVICES["cpu"]
NAMES = ("auto", *DEVICES)


def beside_cpu(part: Part, available: Collection[str], system: str) -> list[Device]:
    """Return the devices but the CPU on which `part` can run with what is `available`, in the table's order."""
    return [
        row
        for row in DEVICES.values()
        if row is not CPU and part in row.needs and system in row.systems and part not in row.missing(available)
    ]


def asked_for(name: str, parts: Collection[Part], available: Collection[str], system: str) -> Device:
    """Return the device `name`; raise BackendMissing where a model of these parts cannot run on it."""
    if name not in DEVICES:
        raise BackendMissing(f"device {name!r} is not supported by this version; use one of {', '.join(NAMES)}")
    row = DEVICES[name]
    if row is CPU:
        return row
    if not set(parts).intersection(row.needs):
        runs = " or ".join(PARTS[part] for part in row.needs)
        raise BackendMissing(f"device {name} runs a {runs}, and this model has none; use --device auto")
    if system not in row.systems:
        systems = " or ".join(SYSTEMS[system] for system in row.systems)
        raise BackendMissing(f"device {name} needs {systems}; use --device auto")
    for part in row.missing(available):
        if part in parts:
            raise BackendMissing(row.lacks(part))
    return row
