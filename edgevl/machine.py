"""What this machine is: processor, its features, cores, memory, system, versions. Of libraries the standard one only.

What a platform does not tell is None here and "unknown" in words; nothing is guessed.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from edgevl.errors import InputError

PACKAGES = ("edgevl", "onnxruntime", "numpy", "pillow")
_MODULES = {"pillow": "PIL"}

_PROCESSORS = Path("/sys/devices/system/cpu")

UNKNOWN = "unknown"
MAX_THREADS = 256
"""As many threads may be asked for on any machine; more of them only where there are as many processors."""

_FEATURES = {
    # name: what Linux and macOS call it, in lower case
    "AVX2": {"avx2"},
    "AVX512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx512vnni", "avx_vnni"},
    "AMX": {"amx_int8"},
    "BF16": {"avx512_bf16", "amx_bf16", "bf16", "feat_bf16"},
    "FP16": {"avx512_fp16", "fphp", "feat_fp16"},
    "NEON": {"asimd", "neon", "advsimd"},
    "DotProd": {"asimddp", "feat_dotprod"},
    "I8MM": {"i8mm", "feat_i8mm"},
    "SVE": {"sve"},
    "SME": {"sme", "feat_sme"},
}
_WINDOWS_FEATURES = {"NEON": 19, "AVX2": 40, "AVX512": 41, "DotProd": 43}  # winnt.h, PF_..._INSTRUCTIONS_AVAILABLE


@dataclass(frozen=True)
class Machine:
    """A machine, without its name. `n_cores` are physical, `n_usable` the logical ones this process may use.

    `n_usable_cores` are the physical ones that those this process may run on belong to.
    """

    cpu: str
    features: tuple[str, ...] | None
    n_cores: int | None
    n_usable: int
    memory_bytes: int | None
    system: str
    python: str
    versions: dict[str, str]
    n_usable_cores: int | None = None

    @property
    def processor(self) -> str:
        """The kind of processor: what is measured or computed on another kind may differ, if only in last bits."""
        return f"{self.cpu}:{self.features}"

    @property
    def n_threads(self) -> int:
        """How many threads a graph runs with unless told otherwise: one per physical core that can be used."""
        return min(self.n_usable_cores or self.n_cores or self.n_usable, self.n_usable)

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known as (what, in words), for tables."""
        features = UNKNOWN if self.features is None else ", ".join(self.features) or "none of those looked for"
        cores = UNKNOWN if self.n_cores is None else str(self.n_cores)
        of = "" if self.n_threads == min(self.n_cores or self.n_usable, self.n_usable) else f" of {self.n_threads}"
        memory = UNKNOWN if self.memory_bytes is None else f"{self.memory_bytes / 1e9:.1f} GB"
        return [
            ("processor", self.cpu),
            ("features", features),
            ("physical cores", f"{cores}; {self.n_usable} logical{of} in use"),
            ("memory", memory),
            ("system", self.system),
            ("python", self.python),
            *self.versions.items(),
        ]


@lru_cache(maxsize=1)
def describe() -> Machine:
    """Describe the machine that this runs on."""
    parts = {"linux": _linux, "darwin": _macos, "win32": _windows}.get(sys.platform, _elsewhere)()
    return Machine(
        cpu=parts.cpu or platform.processor() or platform.machine() or UNKNOWN,
        features=parts.features,
        n_cores=parts.n_cores,
        n_usable=n_usable(),
        memory_bytes=parts.memory_bytes,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: version(name) for name in PACKAGES},
        n_usable_cores=n_usable_cores(),
    )


def n_usable() -> int:
    """Return how many logical processors this process may use: no more than their time that it is granted."""
    return min(_n_allowed(), n_granted() or _n_allowed())


def _n_allowed() -> int:
    """Return how many logical processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def n_usable_cores(processors: Path = _PROCESSORS) -> int | None:
    """Return on how many physical cores this process may run; None where the system does not tell.

    Two hyperthreads of one core share what computes. Source: cputopology in the kernel's documentation.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = {_siblings(processors / f"cpu{number}") for number in os.sched_getaffinity(0)}
    return None if "" in cores else len(cores)


def _siblings(processor: Path) -> str:
    """Return the logical processors of the core that one belongs to, as Linux writes them; "" where it does not."""
    names = "core_cpus", "thread_siblings"  # the first since Linux 5.2
    return next(filter(None, (_text(processor / "topology" / name).strip() for name in names)), "")


def n_granted(root: Path = Path("/")) -> int | None:
    """Return for how many processors' time Linux's control groups let this process run, rounded up; None: for all.

    Containers are limited so (`docker run --cpus 2`): with more threads each waits in turn, most of the time.
    A group's limit holds for those below it. Source: cgroup-v2 and sched-bwc in the kernel's documentation.
    """
    granted = []
    for controllers, path in re.findall(r"^\d+:([^:]*):(.*)$", _text(root / "proc/self/cgroup"), re.MULTILINE):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        own = top / path.lstrip("/")
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)  # the second version has one
        for folder in (own, *own.parents):
            if not folder.is_relative_to(top):
                break
            found = re.fullmatch(r"(\d+)\s+([1-9]\d*)\s*", "".join(_text(folder / name) for name in names))
            if found:
                granted.append(max(math.ceil(int(found[1]) / int(found[2])), 1))
    return min(granted, default=None)


def capped_threads() -> int | None:
    """Return how many threads a library is to be told where this process has fewer cores than there are, else None.

    Left alone, libraries take one for each core of the machine: onnxruntime looks at neither control groups nor the
    processors that a process is kept to, and ties its threads to others.
    """
    about = describe()
    return about.n_threads if about.n_threads < (about.n_cores or os.cpu_count() or 1) else None


def most_threads() -> int:
    """Return how many threads may be asked for here."""
    return max(MAX_THREADS, os.cpu_count() or 1)


def checked_threads(threads: Any) -> int | None:
    """Return a number of threads (None: the default); raise InputError for one that no machine has a use for."""
    most = most_threads()
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, Integral) or not 1 <= int(threads) <= most:
        raise InputError(f"threads is {repr(threads)[:60]}; it must be a whole number from 1 to {most}")
    return int(threads)


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder that ~ or ~NAME stands for.

    Raises InputError where none is known, and for what is no path.
    """
    try:
        return Path(path).expanduser()
    except TypeError as error:
        raise InputError(f"{repr(path)[:60]} is no path; give one as text, or a pathlib.Path") from error
    except RuntimeError as error:
        raise InputError(f"{path}: the home folder that ~ stands for is not known here; give the whole path") from error


def home() -> Path:
    """Return the user's home folder; raise InputError where none is known."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise InputError("no home folder is known here; set HOME") from error


def own_folder(variable: str, kind: Literal["cache", "data"], name: str) -> Path | None:
    """Return the folder that an environment variable names, else `name` in the platform's folder of a kind.

    None where that needs a home folder, and none is known. Raises InputError for a ~NAME that is nobody's.
    """
    if chosen := os.environ.get(variable):
        return expanded(chosen)
    import platformdirs

    find = {"cache": platformdirs.user_cache_path, "data": platformdirs.user_data_path}[kind]
    try:
        return find("edgevl", appauthor=False).expanduser() / name  # older versions leave a ~ that stands for nothing
    except RuntimeError:
        return None


def known(folder: Path | None, variable: str) -> Path:
    """Return what `own_folder` found; raise InputError, which says what to set, where that is none."""
    if folder is None:
        raise InputError(f"no home folder is known here; set HOME, or {variable} to a folder")
    return folder


def peak_bytes() -> int | None:
    """Return the most memory that this process has had resident so far; None where the platform does not tell.

    On Linux from /proc, since there `getrusage` counts what a parent process used before it started this one.
    """
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", _text("/proc/self/status"))
        return int(found.group(1)) * 1024 if found else None
    elif sys.platform == "win32":  # noqa: RET505 - mypy leaves out the branches of other platforms only like this
        return _windows_peak_bytes()
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return to the system what the C library holds of memory that is no longer in use; only glibc can be asked to.

    Loading a graph takes for a moment much more than the graph needs; the peak of what comes after starts from here.
    """
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@dataclass(frozen=True)
class Parts:
    """What a platform told about itself."""

    cpu: str | None = None
    features: tuple[str, ...] | None = None
    n_cores: int | None = None
    memory_bytes: int | None = None


def from_cpuinfo(text: str) -> Parts:
    """Read Linux's /proc/cpuinfo: x86 names its model, its flags and each processor's core; others some of it."""
    blocks = [_pairs(block) for block in text.strip().split("\n\n")]
    first: dict[str, str] = {}
    for block in blocks:
        first = {**block, **first}
    flags = first.get("flags") or first.get("features")
    cores = {(block["physical id"], block["core id"]) for block in blocks if {"physical id", "core id"} <= block.keys()}
    name = next((first[key] for key in ("model name", "cpu model", "hardware", "model") if first.get(key)), None)
    if name is None and "cpu implementer" in first:
        name = f"ARM implementer {first['cpu implementer']} part {first.get('cpu part', UNKNOWN)}"
    return Parts(name, None if flags is None else named_features(flags.split()), len(cores) or None)


def from_sysctl(text: str) -> Parts:
    """Read what macOS prints for `sysctl machdep.cpu hw`."""
    values = _pairs(text)
    flags = " ".join(values.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features")).split()
    flags += [key.split(".")[-1] for key, value in values.items() if key.startswith("hw.optional.") and value == "1"]
    memory, cores = values.get("hw.memsize", ""), values.get("hw.physicalcpu", "")
    return Parts(
        cpu=values.get("machdep.cpu.brand_string"),
        features=named_features(flags) if flags else None,
        n_cores=int(cores) if cores.isdigit() else None,
        memory_bytes=int(memory) if memory.isdigit() else None,
    )


def named_features(flags: Iterable[str]) -> tuple[str, ...]:
    """Return the features that matter here among a platform's flags, by their usual names."""
    have = {flag.lower() for flag in flags}
    return tuple(name for name, flags_of in _FEATURES.items() if have & flags_of)


def _linux() -> Parts:
    parts = from_cpuinfo(_text("/proc/cpuinfo"))
    board = _text("/proc/device-tree/model").strip("\0\n ")
    return Parts(
        cpu=board if board and (parts.cpu or "ARM implementer").startswith("ARM implementer") else parts.cpu,
        features=parts.features,
        n_cores=parts.n_cores or len({_siblings(path) for path in _PROCESSORS.glob("cpu[0-9]*")} - {""}) or None,
        memory_bytes=_posix_memory(),
    )


def _macos() -> Parts:
    import subprocess

    try:
        command = ["/usr/sbin/sysctl", "machdep.cpu", "hw"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return _elsewhere()
    return from_sysctl(text)


def _elsewhere() -> Parts:
    return Parts(memory_bytes=_posix_memory())


def _posix_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


if sys.platform == "win32":
    import ctypes
    import winreg

    class _MemoryStatus(ctypes.Structure):
        """MEMORYSTATUSEX of sysinfoapi.h; `length` and `load` are 32 bits, the rest bytes in 64."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    class _Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h; sizes in bytes."""

        _fields_ = (
            ("length", ctypes.c_uint32),
            ("faults", ctypes.c_uint32),
            *((name, ctypes.c_size_t) for name in ("peak", "now", "a", "b", "c", "d", "e", "f")),
        )

    class _Relation(ctypes.Structure):
        """SYSTEM_LOGICAL_PROCESSOR_INFORMATION of winnt.h; relation 0 is a physical core."""

        _fields_ = (("mask", ctypes.c_size_t), ("relation", ctypes.c_uint32), ("rest", ctypes.c_uint64 * 2))

    def _windows() -> Parts:
        kernel = ctypes.windll.kernel32
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        has_status = bool(kernel.GlobalMemoryStatusEx(ctypes.byref(status)))
        has = tuple(name for name, number in _WINDOWS_FEATURES.items() if kernel.IsProcessorFeaturePresent(number))
        return Parts(_windows_cpu(), has or None, _windows_cores(), status.total if has_status else None)

    def _windows_cpu() -> str | None:
        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            return None

    def _windows_cores() -> int | None:
        size = ctypes.c_uint32(0)
        ask = ctypes.windll.kernel32.GetLogicalProcessorInformation
        ask(None, ctypes.byref(size))  # fails, and says how much room it needs
        found = (_Relation * (size.value // ctypes.sizeof(_Relation)))()
        if not ask(found, ctypes.byref(size)):
            return None
        return sum(item.relation == 0 for item in found) or None

    def _windows_peak_bytes() -> int | None:
        counters = _Counters(length=ctypes.sizeof(_Counters))
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        ask = kernel.K32GetProcessMemoryInfo
        ask.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
        told = ask(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.length)
        return int(counters.peak) if told else None

else:

    def _windows() -> Parts:
        return Parts()

    def _windows_peak_bytes() -> int | None:
        return None


def _pairs(text: str) -> dict[str, str]:
    """Return "key: value" lines; keys in lower case."""
    split = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in split}


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def version(name: str) -> str:
    """Return a package's version: as its module tells it, loaded or not, which is quicker, else as it was installed."""
    module = _MODULES.get(name, name)
    found = getattr(sys.modules.get(module), "__version__", None) or _written_version(module)
    if isinstance(found, str):
        return found
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return UNKNOWN


def _written_version(module: str) -> str | None:
    """Return `__version__` as a module's file sets it: onnxruntime is installed under several names."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    try:
        found = re.search(r'^__version__ = "([^"]+)"', Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return found and found[1]
