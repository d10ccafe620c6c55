"""llama.cpp tried in a process of its own, which may end without harm.

GCC 12 and older break llama.cpp's code for a processor's matrix unit (AMX): such a build ends its process at the first
prompt of a quantized model (llama.cpp issue 20824). Whoever has it is to read a line and not "segmentation fault".
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from edgevl.errors import GraphError

TIMEOUT_S = 120.0
FLAGS = "-fno-tree-dse -fno-dse"
_CODE = """
import sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_batch=64, verbose=False)
model.eval([1] * 32)
"""


def build() -> str:
    """Return what changes when llama.cpp is compiled again: when its libraries were written; "" without it."""
    found = find_spec("llama_cpp")
    folders = [] if found is None else [Path(str(place)) for place in found.submodule_search_locations or ()]
    dates = [file.stat().st_mtime_ns for folder in folders for file in folder.glob("lib/*") if file.is_file()]
    return str(max(dates, default=""))


def can_try() -> bool:
    """Return whether this process can start Python: an application that has been packed may not."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def run(path: Path, code: str = _CODE) -> None:
    """Feed a few tokens to the model in the file `path`; raise GraphError if that ends the process.

    Nothing is said of a model that llama.cpp refuses, or takes long for.
    """
    import subprocess  # which takes a while to import

    try:
        ended = subprocess.run(  # noqa: S603 - this Python, with code from here
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return
    if ended < 0 or ended >= 1 << 30:  # by a signal; on Windows by an exception of the processor
        raise GraphError(
            f"{path}: this build of llama.cpp ends the process here ({ended}), as those by GCC 12 and older do on "
            f"processors with AMX; compile it again: CXXFLAGS='{FLAGS}' pip install --force-reinstall --no-cache-dir "
            "--no-deps llama-cpp-python"
        )
