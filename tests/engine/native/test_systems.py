"""The decoder's C is C on every system that edgevl runs on, by the compiler that Windows gets it from."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edgevl.engine.native.library import instructions

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "edgevl" / "engine" / "native" / "decoder.c"
SYSTEMS = tuple(f"{cpu}-{system}" for system in ("linux-gnu", "macos", "windows-gnu") for cpu in ("x86_64", "aarch64"))
FUNCTIONS = ("isa", "open", "close", "run", "score", "use")
HERE = f"{platform.machine()}-linux-gnu"


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Zig leaves nothing behind."""
    folder = str(tmp_path_factory.mktemp("zig"))
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}


def compile_for(system: str, env: dict[str, str], *options: str) -> None:
    """Compile it as it is when edgevl is installed, but a warning is an error."""
    pytest.importorskip("ziglang")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"][0]
    flags = [*settings["extra-compile-args"], "-Wall", "-Wextra", "-Werror"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", system, *flags]
    done = subprocess.run([*command, str(SOURCE), *options], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_compiles_for_every_system(system: str, caches: dict[str, str], tmp_path: Path) -> None:
    compile_for(system, caches, "-c", "-o", str(tmp_path / "decoder.o"))


@pytest.mark.skipif(HERE not in SYSTEMS or sys.platform != "linux", reason="what is compiled here runs on Linux")
def test_it_finds_the_same_instructions_whatever_compiled_it(caches: dict[str, str], tmp_path: Path) -> None:
    if not instructions():
        pytest.skip("no instructions of this processor are used, or EDGEVL_NATIVE says so")
    compile_for(HERE, caches, "-shared", "-fPIC", "-o", str(tmp_path / "decoder.so"))
    isa = ctypes.CDLL(str(tmp_path / "decoder.so")).edgevl_decoder_isa
    isa.restype = ctypes.c_char_p
    assert isa().decode() == instructions()


@pytest.mark.skipif(os.name == "nt", reason="it is built so here, or edgevl would run decoders as graphs")
def test_on_windows_it_is_built_with_zig(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp"]
    env = {**os.environ, "_PYTHON_HOST_PLATFORM": "win-amd64"}
    subprocess.run([*command, str(tmp_path / "temp")], cwd=ROOT, env=env, check=True)
    (built,) = (tmp_path / "edgevl" / "engine" / "native").iterdir()
    content = built.read_bytes()
    assert content.startswith(b"MZ")
    assert all(f"edgevl_decoder_{name}\0".encode() in content for name in FUNCTIONS)
