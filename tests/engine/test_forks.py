"""Models that were open when the process was forked."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgevl.engine import openvino
from edgevl.model import hub

IMAGES = [str(hub.installed_folder() / "samples" / name) for name in ("counting.png", "shapes.png")]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")

FORKING = """
import gc, os, signal, sys, warnings
import edgevl

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: it is what is tried
folder, device, image, other = sys.argv[1:]
question = "how many objects are there?"


def answer(vlm, image=image):
    try:
        return vlm.ask(image, question, max_tokens=4).text
    except edgevl.errors.GraphError as error:
        return str(error)


vlm = edgevl.load(folder, device=device, threads=2, store=False)
first = answer(vlm)
child = os.fork()
if child == 0:
    signal.alarm(40)
    print(answer(vlm, other), flush=True)
    vlm.close()
    del vlm
    gc.collect()
    with edgevl.load(folder, device=device, threads=2, store=False) as own:
        print(answer(own) == first, flush=True)
    sys.exit(5)  # neither the interpreter nor a library may free now what was not freed until here
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answer(vlm) == first)
"""


def forked(folder: Path, device: str) -> list[str]:
    """Return the child's answer from what it inherited, whether its own was right, and how both processes went on."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(folder), device, *IMAGES],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("native", ["", "off"])
def test_graphs_of_onnxruntime_and_a_native_decoder_go_on(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_NATIVE", native)
    assert forked(hub.installed_folder() / "edgevl-tiny", "cpu") == ["3", "True", "5 True"]


@pytest.mark.skipif(not openvino.is_present(), reason="needs openvino")
def test_openvino_says_what_to_do() -> None:
    said, *others = forked(hub.installed_folder() / "edgevl-tiny", "openvino")
    assert "was opened before this process was forked; load the model in here" in said
    assert others == ["True", "5 True"]


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs llama-cpp-python")
def test_llama_cpp_says_what_to_do(bundled_gguf_dir: Path) -> None:
    said, *others = forked(bundled_gguf_dir, "cpu")
    assert "was opened before this process was forked; load the model in here" in said
    assert others == ["True", "5 True"]
