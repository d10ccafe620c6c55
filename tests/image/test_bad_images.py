"""Hostile and odd files: the right picture or one plain line, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import ImageError
from edgevl.image.read import Picture, read

OWN = Path(__file__).parents[1] / "data" / "bad_images"
ROOT = Path(__file__).parents[2]
MAX_SECONDS = 10
MAX_MEMORY = 1 << 30

# Reads every file of a folder as one process and prints its peak memory in bytes; anything but ImageError ends it.
READ_ALL = """
import resource, sys
from pathlib import Path
from edgevl.errors import ImageError
from edgevl.image.read import read

for path in sorted(Path(sys.argv[1]).glob(sys.argv[2])):
    try:
        read(path, max_pixels=150_000_000)
    except ImageError as error:
        assert len(str(error).splitlines()) == 1
status = Path("/proc/self/status")  # Linux: getrusage would count what the starting process held before it
if status.exists():
    print(1024 * int(status.read_text().partition("VmHWM:")[2].split()[0]))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else peak * 1024)
"""


def expected(folder: Path) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["files"]
    return files


def check(path: Path, size: tuple[int, int] | None) -> None:
    """Read a file that must open with `size`, or, where that is None, must be refused in one helpful line."""
    started = time.perf_counter()
    got, message = outcome(path)
    assert time.perf_counter() - started < MAX_SECONDS
    if size is None:
        assert message.startswith(f"{path}: ")
        assert message.isprintable(), "one line"
        assert any(remedy in message for remedy in ("convert", "copy", "save", "shrink", "nothing to see")), message
    else:
        assert got is not None, message
        assert got.rgb.shape == (*size, 3)


def outcome(path: Path) -> tuple[Picture | None, str]:
    try:
        return read(path, max_pixels=150_000_000), "it was read, but must be refused"
    except ImageError as error:
        return None, str(error)


@pytest.mark.parametrize("name", sorted(expected(OWN)))
def test_own_files(name: str) -> None:
    entry = expected(OWN)[name]
    check(OWN / name, tuple(entry["size"]) if entry["must_open"] else None)


def test_a_large_file_is_refused_by_the_usual_limit() -> None:
    with pytest.raises(ImageError, match=r"12000x12000 pixels .* over the limit of 100,000,000; shrink it, or"):
        read(OWN / "made__large_12000x12000_1bit_ok.png")


def test_every_file_of_the_collection(shared_dir: Path) -> None:
    folder = shared_dir / "bad_images"
    if not folder.is_dir():
        pytest.skip(f"no bad_images in {shared_dir}")
    files = expected(folder)
    assert len(files) >= 70
    for name, entry in files.items():
        if (OWN / name).is_file():
            continue
        check(folder / name, tuple(entry["size"][::-1]) if entry["must_open"] else None)


@pytest.mark.parametrize(("collection", "files"), [("own", "made__*"), ("shared", "[!m]*")])
def test_memory_and_stderr(collection: str, files: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("resource", reason="this system cannot tell a process's peak memory")
    folder = OWN if collection == "own" else request.getfixturevalue("shared_dir") / "bad_images"
    if not folder.is_dir():
        pytest.skip(f"no bad_images at {folder}")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", READ_ALL, str(folder), files],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "neither Pillow's warnings nor a C library's complaints come through"
    assert int(done.stdout) < MAX_MEMORY
