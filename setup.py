"""How the decoder's C is compiled for Windows; all else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

TARGETS = {"win-amd64": "x86_64-windows-gnu", "win-arm64": "aarch64-windows-gnu"}
"""Kinds of Windows: Python's name, and Zig's."""


class Build(build_ext):
    """Compiles for Windows with Zig: Clang with all that it needs, as a package. Elsewhere with the system's compiler.

    On Windows that would be Microsoft's, which does not know the vectors that the C is written in.
    """

    def build_extension(self, ext: Extension) -> None:
        """Compile `ext`; raise CompileError if that fails, after which an optional one is left out."""
        target = TARGETS.get(self.plat_name)
        if target is None:
            super().build_extension(ext)
            return
        folder, path = Path(self.build_temp, "zig").absolute(), Path(self.get_ext_fullpath(ext.name))
        for parent in (folder, path.parent):
            parent.mkdir(parents=True, exist_ok=True)
        built = folder / path.name  # and beside it the linker's own
        command = [
            *(sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-s"),
            *(*ext.extra_compile_args, *ext.sources, "-o", str(built), *ext.extra_link_args),
        ]
        caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(folder))
        try:
            subprocess.run(command, check=True, env={**os.environ, **caches})  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(f"{ext.name}: Zig did not compile it ({error})") from error
        shutil.copyfile(built, path)


setup(cmdclass={"build_ext": Build})
