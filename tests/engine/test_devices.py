"""Which device runs what: a table, looked at with lists of what is here, so that one machine can stand for another."""

from __future__ import annotations

import sys
from collections.abc import Collection

import pytest

from edgevl.engine.devices import (
    COMMANDS,
    COREML_PROVIDER,
    CPU,
    CPU_PROVIDER,
    CUDA_PROVIDER,
    DEVICES,
    LLAMA,
    LLAMA_CUDA,
    LLAMA_METAL,
    NAMES,
    OPENVINO,
    OPENVINO_GPU,
    OPENVINO_NPU,
    PARTS,
    SYSTEMS,
    Part,
    asked_for,
    beside_cpu,
)
from edgevl.engine.graph import providers
from edgevl.errors import BackendMissing

PLAIN = {CPU_PROVIDER, "AzureExecutionProvider"}
MODEL: tuple[Part, ...] = ("vision", "onnx")
MIXED: tuple[Part, ...] = ("vision", "gguf")


@pytest.mark.parametrize(
    ("system", "available", "vision", "onnx", "gguf"),
    [
        ("linux", PLAIN, "", "", ""),
        ("linux", PLAIN | {LLAMA}, "", "", ""),
        ("linux", PLAIN | {OPENVINO}, "openvino", "", ""),
        ("linux", {CPU_PROVIDER, CUDA_PROVIDER, "TensorrtExecutionProvider"}, "cuda", "cuda", ""),
        ("win32", PLAIN | {CUDA_PROVIDER, OPENVINO, LLAMA, LLAMA_CUDA}, "openvino cuda", "cuda", "cuda"),
        ("linux", PLAIN | {LLAMA, LLAMA_CUDA}, "", "", "cuda"),
        ("darwin", {CPU_PROVIDER, COREML_PROVIDER}, "coreml", "", ""),
        ("darwin", {CPU_PROVIDER, COREML_PROVIDER, LLAMA, LLAMA_METAL}, "coreml", "", "metal"),
        ("darwin", PLAIN | {CUDA_PROVIDER, LLAMA_CUDA}, "", "", ""),
        ("linux", PLAIN | {COREML_PROVIDER, LLAMA_METAL}, "", "", ""),
        ("linux", PLAIN | {OPENVINO, OPENVINO_GPU}, "openvino openvino-gpu", "", ""),
        ("win32", PLAIN | {OPENVINO, OPENVINO_NPU, OPENVINO_GPU}, "openvino openvino-gpu openvino-npu", "", ""),
        ("darwin", PLAIN | {OPENVINO, OPENVINO_GPU, OPENVINO_NPU}, "openvino", "", ""),
        ("freebsd14", PLAIN | {OPENVINO}, "", "", ""),
    ],
)
def test_what_there_is_to_choose_from_beside_the_cpu(
    system: str, available: Collection[str], vision: str, onnx: str, gguf: str
) -> None:
    found = [[row.name for row in beside_cpu(part, available, system)] for part in PARTS]
    assert found == [vision.split(), onnx.split(), gguf.split()]


@pytest.mark.parametrize(
    ("name", "parts", "system", "available"),
    [
        ("cpu", MODEL, "freebsd14", set()),
        ("openvino", MODEL, "linux", {OPENVINO}),
        ("openvino", MIXED, "win32", {OPENVINO}),
        ("openvino-gpu", MODEL, "linux", {OPENVINO, OPENVINO_GPU}),
        ("openvino-npu", MIXED, "win32", {OPENVINO, OPENVINO_NPU}),
        ("cuda", MODEL, "linux", {CUDA_PROVIDER}),
        ("cuda", MIXED, "win32", {CUDA_PROVIDER, LLAMA_CUDA}),
        ("coreml", MIXED, "darwin", {COREML_PROVIDER}),
        ("metal", MIXED, "darwin", {LLAMA_METAL}),
    ],
)
def test_a_device_that_is_here(name: str, parts: tuple[Part, ...], system: str, available: set[str]) -> None:
    assert asked_for(name, parts, available, system).name == name


@pytest.mark.parametrize(
    ("name", "parts", "system", "available", "message"),
    [
        (
            "npu",
            MODEL,
            "linux",
            PLAIN,
            "device 'npu' is not supported by this version; "
            "use one of auto, cpu, openvino, openvino-gpu, openvino-npu, cuda, coreml, metal",
        ),
        (
            "openvino",
            MODEL,
            "linux",
            PLAIN,
            "device openvino is not here for the image encoder; to add it: pip install 'edgevl[openvino]'",
        ),
        (
            "openvino-gpu",
            MODEL,
            "linux",
            PLAIN | {OPENVINO},
            "device openvino-gpu is not here for the image encoder; to add it: "
            "pip install 'edgevl[openvino]'  # and Intel's graphics driver",
        ),
        (
            "openvino-npu",
            MIXED,
            "win32",
            PLAIN | {OPENVINO, OPENVINO_GPU},
            "device openvino-npu is not here for the image encoder; to add it: "
            "pip install 'edgevl[openvino]'  # and Intel's NPU driver",
        ),
        ("openvino-npu", MODEL, "darwin", PLAIN, "device openvino-npu needs Linux or Windows; use --device auto"),
        (
            "cuda",
            MODEL,
            "linux",
            PLAIN,
            "device cuda is not here for the image encoder; to add it: "
            "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ),
        (
            "cuda",
            MIXED,
            "linux",
            {CUDA_PROVIDER, LLAMA},
            "device cuda is not here for the GGUF decoder; to add it: pip uninstall -y llama-cpp-python && "
            "pip install --no-cache-dir -C cmake.args=-DGGML_CUDA=on llama-cpp-python",
        ),
        ("cuda", MODEL, "darwin", PLAIN, "device cuda needs Linux or Windows; use --device auto"),
        ("coreml", MODEL, "linux", PLAIN, "device coreml needs macOS; use --device auto"),
        (
            "coreml",
            MODEL,
            "darwin",
            PLAIN,
            "device coreml is not here for the image encoder; to add it: "
            "pip install --force-reinstall --no-deps onnxruntime",
        ),
        (
            "metal",
            MIXED,
            "darwin",
            {LLAMA},
            "device metal is not here for the GGUF decoder; to add it: pip uninstall -y llama-cpp-python && "
            "pip install --no-cache-dir -C cmake.args=-DGGML_METAL=on llama-cpp-python",
        ),
        (
            "metal",
            MODEL,
            "darwin",
            {LLAMA_METAL},
            "device metal runs a GGUF decoder, and this model has none; use --device auto",
        ),
    ],
)
def test_a_device_that_cannot_be_had_says_why_and_how(
    name: str, parts: tuple[Part, ...], system: str, available: set[str], message: str
) -> None:
    with pytest.raises(BackendMissing) as caught:
        asked_for(name, parts, available, system)
    assert str(caught.value) == message


def test_the_table_is_whole() -> None:
    assert NAMES == ("auto", "cpu", "openvino", "openvino-gpu", "openvino-npu", "cuda", "coreml", "metal")
    assert set(CPU.needs) == set(PARTS), "the CPU runs everything"
    for row in DEVICES.values():
        assert set(row.needs.values()) <= set(COMMANDS)
        assert set(row.systems) <= set(SYSTEMS)
        assert row.providers[-1] == (CPU_PROVIDER, {}), "for what the device does not know"
        for need in row.needs.values():
            if need.endswith("ExecutionProvider"):
                assert row.providers[0][0] == need


@pytest.mark.skipif(sys.platform not in SYSTEMS, reason="no device is known on this system")
def test_onnxruntime_names_its_providers_as_the_table_does() -> None:
    import onnxruntime

    known = set(onnxruntime.get_all_providers())
    assert {name for row in DEVICES.values() for name, _ in row.providers} <= known
    assert CPU_PROVIDER in providers()
