"""What platforms tell about themselves, from texts that they printed; and this machine, whatever it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from edgevl import machine
from edgevl.errors import InputError
from edgevl.machine import from_cpuinfo, from_sysctl, named_features

X86 = """processor\t: 0
model\t\t: 141
model name\t: 11th Gen Intel(R) Core(TM) i5-11400H @ 2.70GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni

processor\t: 1
model name\t: 11th Gen Intel(R) Core(TM) i5-11400H @ 2.70GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni

processor\t: 2
model name\t: 11th Gen Intel(R) Core(TM) i5-11400H @ 2.70GHz
physical id\t: 0
core id\t\t: 1
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni
"""

RASPBERRY = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 cpuid asimdrdm asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Revision\t: c04170
Serial\t\t: 0123
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""

GRAVITON = """processor\t: 0
Features\t: fp asimd asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""

APPLE = """machdep.cpu.brand_string: Apple M2
machdep.cpu.core_count: 8
hw.physicalcpu: 8
hw.memsize: 17179869184
hw.optional.neon: 1
hw.optional.AdvSIMD: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
"""

INTEL_MAC = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-8569U CPU @ 2.80GHz
machdep.cpu.features: FPU SSE4.2 AVX1.0
machdep.cpu.leaf7_features: BMI1 AVX2
hw.physicalcpu: 4
hw.memsize: 17179869184
"""


def test_an_intel_processor_under_linux() -> None:
    found = from_cpuinfo(X86)
    assert found.cpu == "11th Gen Intel(R) Core(TM) i5-11400H @ 2.70GHz"
    assert found.features == ("AVX2", "AVX512", "VNNI")
    assert found.n_cores == 2


def test_arm_processors_under_linux() -> None:
    board = from_cpuinfo(RASPBERRY)
    assert (board.cpu, board.features) == ("Raspberry Pi 5 Model B Rev 1.0", ("NEON", "DotProd"))
    server = from_cpuinfo(GRAVITON)
    assert server.cpu == "ARM implementer 0x41 part 0xd40"
    assert server.features == ("BF16", "NEON", "DotProd", "I8MM", "SVE")
    assert server.n_cores is None  # /proc/cpuinfo does not tell


def test_macs() -> None:
    apple = from_sysctl(APPLE)
    assert (apple.cpu, apple.n_cores, apple.memory_bytes) == ("Apple M2", 8, 17179869184)
    assert apple.features == ("NEON", "DotProd", "I8MM")
    intel = from_sysctl(INTEL_MAC)
    assert intel.features == ("AVX2",)
    assert intel.n_cores == 4


@pytest.mark.parametrize("text", ["", "nonsense", "processor\t: 0\n\n\n", ":::"])
def test_what_is_not_told_is_unknown(text: str) -> None:
    for parts in (from_cpuinfo(text), from_sysctl(text)):
        assert (parts.cpu, parts.features, parts.n_cores, parts.memory_bytes) == (None, None, None, None)
    about = machine.Machine("unknown", None, None, 3, None, "Plan 9", "CPython 3.11.7", {})
    told = dict(about.rows())
    assert told["features"] == told["memory"] == "unknown"
    assert told["physical cores"] == "unknown; 3 logical in use"


def test_features_have_one_name_on_every_platform() -> None:
    assert named_features(["AVX512VNNI"]) == named_features(["avx_vnni"]) == ("VNNI",)
    assert named_features(["sse2"]) == ()
    assert dict(machine.Machine("x", (), 1, 1, 1, "", "", {}).rows())["features"] == "none of those looked for"


def test_a_kind_of_processor_is_its_name_and_features() -> None:
    kinds = {
        machine.Machine(cpu, features, n_cores, 3, 1, "Plan 9", "CPython 3.11.7", {}).processor
        for cpu in "xy"
        for features in (None, (), ("AVX2",))
        for n_cores in (1, 2)
    }
    assert len(kinds) == 6


def test_this_machine() -> None:
    about = machine.describe()
    assert about.cpu
    assert about.n_usable >= 1
    assert about.versions["edgevl"] != "unknown"
    assert set(about.versions) == set(machine.PACKAGES)
    if sys.platform == "linux":
        assert about.memory_bytes is not None
        assert about.memory_bytes > 1 << 28


def test_a_platform_without_its_tools_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine._macos().cpu is None


def test_a_linux_that_shows_nothing_of_itself_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sandbox, /proc and /sys may be there and not for us to read."""

    def refused(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refused)
    found = machine._linux()
    assert (found.cpu, found.features, found.n_cores) == (None, None, None)


def test_an_unknown_package_is_said_to_be_unknown() -> None:
    assert machine.version("no-such-package-here") == "unknown"


def test_peak_memory_is_this_process_alone() -> None:
    code = "from edgevl.machine import peak_bytes; a = peak_bytes(); b = bytearray(60_000_000); b[::4096] = b'x' * "
    code += "len(b[::4096]); print(a, peak_bytes())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, after = map(int, said)
    assert after - before > 50_000_000


def test_memory_that_is_no_longer_in_use_is_given_back() -> None:
    machine.give_back()  # where the C library can be asked, and where it cannot
    if not sys.platform.startswith("linux"):
        return
    before = _resident_bytes()
    kept = [bytes(1000) for _ in range(100_000)]
    del kept[::2]  # holes all over the heap, and the rest at its end
    del kept
    machine.give_back()
    assert _resident_bytes() < before + 50e6


def _resident_bytes() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize("threads", [0, -1, 10**20, "2", 1.5, True])
def test_a_number_of_threads_is_a_sensible_whole_number(threads: object) -> None:
    with pytest.raises(InputError, match=r"threads is .*; it must be a whole number from 1 to "):
        machine.checked_threads(threads)


def test_every_processor_may_have_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 384)
    assert [machine.checked_threads(n) for n in (None, 1, 384)] == [None, 1, 384]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.checked_threads(256) == 256


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
          "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        ({"proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/docker/0123\n0::/\n",  # its own folder is the top one here
          "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
          "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 3),
        ({"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
          "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_a_container_s_share_of_the_processors(files: dict[str, str], granted: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.n_granted(tmp_path) == granted


def processors(folder: Path, name: str = "core_cpus") -> Path:
    """Let `folder` show four cores of two hyperthreads each: 0 and 4, 1 and 5, and so on."""
    for number in range(8):
        topology = folder / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / name).write_text(f"{0b10001 << number % 4:02x}\n")
    return folder


@pytest.mark.parametrize("name", ["core_cpus", "thread_siblings"])
@pytest.mark.parametrize(("mask", "n"), [({0, 4}, 1), ({0, 1}, 2), ({0, 1, 4, 6}, 3), (set(range(8)), 4), ({3}, 1)])
def test_hyperthreads_of_one_core_are_one(
    mask: set[int], n: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: mask, raising=False)
    assert machine.n_usable_cores(processors(tmp_path, name)) == n


def test_cores_that_are_not_told_are_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 9}, raising=False)
    assert machine.n_usable_cores(processors(tmp_path)) is None, "of one of them"
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.n_usable_cores(tmp_path) is None


@pytest.mark.parametrize(
    ("n_cores", "n_usable", "n_usable_cores", "n_threads", "shown"),
    [
        (4, 8, 4, 4, "4; 8 logical in use"),
        (4, 2, 1, 1, "4; 2 logical of 1 in use"),  # kept to one core
        (4, 2, 2, 2, "4; 2 logical in use"),
        (4, 2, 4, 2, "4; 2 logical in use"),  # granted the time of two
        (4, 3, 2, 2, "4; 3 logical of 2 in use"),
        (4, 2, None, 2, "4; 2 logical in use"),
        (None, 2, 1, 1, "unknown; 2 logical of 1 in use"),
        (None, 2, None, 2, "unknown; 2 logical in use"),
    ],
)
def test_a_physical_core_has_one_thread(
    n_cores: int | None, n_usable: int, n_usable_cores: int | None, n_threads: int, shown: str
) -> None:
    about = machine.Machine("", None, n_cores, n_usable, None, "", "", {}, n_usable_cores)
    assert about.n_threads == n_threads
    assert dict(about.rows())["physical cores"] == shown


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not kept to processors here")
def test_a_process_that_is_kept_to_one_processor_has_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from edgevl import machine; "
        "print(machine.describe().n_threads, machine.capped_threads(), machine.describe().n_cores)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "1"
    assert said[1] == ("None" if said[2] == "1" else "1")


def test_no_more_threads_than_a_container_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_n_allowed", lambda: 64)
    for granted, usable, capped in ((None, 64, None), (2, 2, 2), (64, 64, None), (100, 64, None)):
        monkeypatch.setattr(machine, "n_granted", lambda granted=granted: granted)
        assert machine.n_usable() == usable
        about = machine.Machine("", None, 32, usable, None, "", "", {}, 32)
        monkeypatch.setattr(machine, "describe", lambda about=about: about)
        assert machine.capped_threads() == capped


@pytest.mark.parametrize(
    ("n_cores", "n_usable", "n_usable_cores", "capped"),
    [(4, 8, 4, None), (4, 2, 1, 1), (4, 2, 2, 2), (4, 4, 4, None), (None, 8, None, None), (None, 3, None, 3)],
)
def test_libraries_are_told_how_many_threads_where_not_all_cores_are_there_for_them(
    n_cores: int | None, n_usable: int, n_usable_cores: int | None, capped: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = machine.Machine("", None, n_cores, n_usable, None, "", "", {}, n_usable_cores)
    monkeypatch.setattr(machine, "describe", lambda: about)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert machine.capped_threads() == capped


def test_a_home_is_known_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert machine.expanded("~/model") == tmp_path / "model"
    assert machine.expanded(Path("a/~b")) == Path("a/~b")
    with pytest.raises(InputError) as caught:
        machine.expanded("~nobody-here/model")
    assert (
        str(caught.value)
        == "~nobody-here/model: the home folder that ~ stands for is not known here; give the whole path"
    )


@pytest.mark.skipif(os.name == "nt", reason="on Windows a home is beside the user's own")
def test_a_home_that_is_not_known_is_no_folder_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of platformdirs leave the ~ where it stands."""
    monkeypatch.delenv("EDGEVL_STORE_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~nobody-here/.cache/edgevl"))
    assert machine.own_folder("EDGEVL_STORE_DIR", "cache", "store") is None


def test_onnxruntime_has_one_version_whether_it_is_loaded_or_not() -> None:
    """Under whatever name it was installed, so that what was measured with it is found again."""
    code = (
        "import sys; from edgevl.machine import version\n"
        "before = version('onnxruntime'), 'onnxruntime' in sys.modules\n"
        "import onnxruntime; print(before == (onnxruntime.__version__, False), version('onnxruntime') == before[0])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["True", "True"]
