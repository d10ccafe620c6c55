"""The store on disk among everything that can happen to a folder."""

from __future__ import annotations

import hashlib
import logging
import mmap
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.errors import InputError
from edgevl.store import disk as disk_module
from edgevl.store.disk import DEFAULT_MAX_BYTES, OTHERS, Disk, default_folder, default_max_bytes, open_disk
from tests import interrupting

DIGEST = "0123456789abcdef" * 4
posix = pytest.mark.skipif(os.name != "posix", reason="file modes and signals of POSIX systems")


def array(seed: int = 0, n: int = 250) -> NDArray[np.float32]:
    """Return `4 * n` bytes of numbers."""
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def filled(folder: Path, *keys: str, kind: str = "tiles") -> Disk:
    """Return a store whose array under a key is drawn from the key's number."""
    disk = Disk(folder)
    for key in keys:
        disk.put(kind, key, array(int(key)))
    disk.flush()
    return disk


def found(disk: Disk, key: str, kind: str = "tiles") -> NDArray[Any]:
    got = disk.get(kind, key)
    assert got is not None
    return got


def entry(folder: Path, key: str, kind: str = "tiles") -> Path:
    return folder / disk_module.VERSION / kind / f"{key}.bin"


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(3,), (2, 3, 5), (4, 0)])
def test_arrays_come_back_in_another_object(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    put = (np.random.default_rng(1).random(shape) * 200).astype(dtype)
    disk = Disk(tmp_path)
    disk.put("prefixes", "k", put)
    disk.flush()
    got = found(Disk(tmp_path), "k", "prefixes")
    np.testing.assert_array_equal(got, put)
    assert (got.dtype, got.flags.writeable) == (put.dtype, False)


def test_nothing_is_where_nothing_was_put(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "not" / "there")
    assert disk.get("tiles", "1") is None
    assert not disk.has("tiles", "1")
    assert list(disk.entries()) == []
    assert disk.clear() == 0
    assert not (tmp_path / "not").exists()


@posix
def test_folders_and_files_are_private(tmp_path: Path) -> None:
    filled(tmp_path / "store", "1")
    path = entry(tmp_path / "store", "1")
    for folder in (tmp_path / "store", path.parent.parent, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(max_examples=60)
@given(data=st.data())
def test_any_flipped_bit_or_lost_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    disk = filled(folder, "1")
    path = entry(folder, "1")
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    path.write_bytes(content)
    assert disk.get("tiles", "1") is None
    assert not path.exists()  # dropped, so that it is computed and written again
    disk.put("tiles", "1", array(1))
    disk.flush()
    np.testing.assert_array_equal(found(disk, "1"), array(1))


def test_an_entry_under_another_name_is_not_that_entry(tmp_path: Path) -> None:
    disk = filled(tmp_path, "1")
    entry(tmp_path, "1").rename(entry(tmp_path, "2"))
    assert disk.get("tiles", "2") is None


class TestOtherVersions:
    """Entries that another version of edgevl wrote into the same folder: never read, but counted and dropped."""

    @pytest.fixture(params=["v0", "v2"])
    def version(self, request: pytest.FixtureRequest) -> str:
        """An older version and a newer one."""
        return str(request.param)

    @staticmethod
    def write(folder: Path, version: str, name: str = f"{DIGEST}.bin", kind: str = "tiles") -> Path:
        path = folder / version / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        return path

    def test_they_are_never_read(self, tmp_path: Path, version: str) -> None:
        filled(tmp_path, "1")
        (tmp_path / disk_module.VERSION).rename(tmp_path / version)
        disk = Disk(tmp_path)
        assert disk.get("tiles", "1") is None
        assert not disk.has("tiles", "1")

    def test_they_are_counted_and_cleared(self, tmp_path: Path, version: str) -> None:
        other = self.write(tmp_path, version)
        of_an_unknown_kind = self.write(tmp_path, version, kind="sounds")
        half = self.write(tmp_path, version, "tmp0_a9z8x7.part")
        disk = filled(tmp_path, "1")
        found = {item.path: (item.kind, item.n_bytes) for item in disk.entries() if item.kind == OTHERS}
        assert found == {other: (OTHERS, 1000), of_an_unknown_kind: (OTHERS, 1000)}
        size = entry(tmp_path, "1").stat().st_size
        assert disk.clear() == 3000 + size
        assert not any(path.exists() for path in (other, of_an_unknown_kind, half))
        assert [path.name for path in tmp_path.iterdir()] == ["v1"], "empty folders of other versions are left"

    def test_the_longest_unused_of_all_versions_go_first(self, tmp_path: Path, version: str) -> None:
        others = [self.write(tmp_path, version, f"{key}{DIGEST[1:]}.bin") for key in "abc"]
        filled(tmp_path, "1")
        for age, path in enumerate([others[0], entry(tmp_path, "1"), others[1]]):
            os.utime(path, (age, age))
        disk = Disk(tmp_path, max_bytes=3500)
        disk.put("tiles", "2", array(2))
        disk.flush()
        assert [path.exists() for path in others] == [False, True, True]
        assert (disk.has("tiles", "1"), disk.has("tiles", "2")) == (False, True)
        assert sum(item.n_bytes for item in disk.entries()) <= 3500
        for number in range(3, 6):
            disk.put("tiles", str(number), array(number))
        disk.flush()
        assert [path.name for path in tmp_path.iterdir()] == ["v1"], "empty folders of other versions are left"

    def test_their_half_written_files_are_swept_up(self, tmp_path: Path, version: str) -> None:
        old, new = (self.write(tmp_path, version, f"tmp{name}.part") for name in ("abcdefgh", "ijklmnop"))
        os.utime(old, (0, 0))
        filled(tmp_path, "1")
        assert (old.exists(), new.exists()) == (False, True)
        os.utime(new, (0, 0))
        filled(tmp_path, "2")
        assert [path.name for path in tmp_path.iterdir()] == ["v1"]

    @pytest.mark.parametrize("n_times", [1, 2])
    @pytest.mark.parametrize("call", ["mkdir", "is_dir", "mkstemp", "replace"])
    def test_a_folder_that_goes_while_it_is_written_to_is_made_again(
        self,
        call: str,
        n_times: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Another process may clear the store, or drop the empty folders of what it takes for another version."""
        owner: Any = tempfile if call == "mkstemp" else Path
        real, times = getattr(owner, call), iter(range(n_times))

        def late(*arguments: Any, **options: Any) -> Any:
            if (not call.endswith("dir") or arguments[0] == tiles) and next(times, None) is not None:
                shutil.rmtree(tiles.parent, ignore_errors=True)
            return real(*arguments, **options)

        tiles = tmp_path / "v1" / "tiles"
        if call == "is_dir":  # which is asked of what mkdir finds there
            tiles.mkdir(parents=True, mode=0o700)
        monkeypatch.setattr(owner, call, late)
        np.testing.assert_array_equal(found(filled(tmp_path, "1"), "1"), array(1))
        assert warned(caplog) == []
        assert [path.name for path in (tmp_path / "v1" / "tiles").iterdir()] == ["1.bin"]

    @pytest.mark.parametrize(
        ("version", "name"),
        [("v0", "photo.bin"), ("v0", f"{DIGEST}.jpg"), ("v0", "half.part"), ("version", f"{DIGEST}.bin")],
    )
    def test_what_is_no_entry_is_left_alone(self, tmp_path: Path, version: str, name: str) -> None:
        mine = self.write(tmp_path, version, name)
        disk = Disk(tmp_path, max_bytes=2500)
        for key in "12":
            disk.put("tiles", key, array(int(key)))
        disk.flush()
        assert not [item for item in disk.entries() if item.kind == OTHERS]
        disk.clear()
        assert mine.exists()

    def test_folders_that_hold_something_else_are_left_alone(self, tmp_path: Path) -> None:
        """A folder too, that nobody emptied just now."""
        self.write(tmp_path, "v0", "photo.jpg")
        (tmp_path / "v2" / "mine").mkdir(parents=True)
        self.write(tmp_path, "v0")
        self.write(tmp_path, "v0", kind="prefixes")
        self.write(tmp_path, "v2")
        Disk(tmp_path).clear()
        assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
            "v0", "v0/tiles", "v0/tiles/photo.jpg", "v2", "v2/mine",
        }  # fmt: skip

    @posix
    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        elsewhere = self.write(tmp_path / "elsewhere", "v0")
        (tmp_path / "store" / "v2").mkdir(parents=True)
        (tmp_path / "store" / "v0").symlink_to(elsewhere.parent.parent)
        (tmp_path / "store" / "v2" / "tiles").symlink_to(elsewhere.parent)
        disk = filled(tmp_path / "store", "1")
        assert [item.kind for item in disk.entries()] == ["tiles"]
        disk.clear()
        assert elsewhere.exists()

    def test_two_versions_may_share_a_folder(self, tmp_path: Path) -> None:
        """Each drops the other's entries, also while those are being read and written."""
        context = multiprocessing.get_context("spawn")
        both = [context.Process(target=write_and_read, args=(tmp_path, seed, f"v{seed + 1}")) for seed in range(2)]
        for worker in both:
            worker.start()
        for worker in both:
            worker.join(60)
        assert [worker.exitcode for worker in both] == [0, 0]
        assert {path.name for path in tmp_path.iterdir()} <= {"v1", "v2"}
        disk = Disk(tmp_path)
        assert sum(item.n_bytes for item in disk.entries()) <= 2 * 30_000
        disk.clear()
        assert {path.name for path in tmp_path.rglob("*")} <= {"v1", "tiles"}


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    disk = filled(tmp_path, "1", "2", "3")
    size = entry(tmp_path, "1").stat().st_size
    for age, key in enumerate("321"):  # "3" is the oldest
        os.utime(entry(tmp_path, key), (age, age))
    found(disk, "3")  # and now the newest
    small = Disk(tmp_path, max_bytes=3 * size)
    small.put("tiles", "4", array(4))
    small.flush()
    assert {key for key in "1234" if small.has("tiles", key)} == {"1", "3", "4"}


def test_it_stays_under_its_limit(tmp_path: Path) -> None:
    disk = Disk(tmp_path, max_bytes=10_000)
    for number in range(40):
        disk.put("prefixes" if number % 2 else "tiles", str(number), array(number))
    disk.flush()
    total = sum(item.n_bytes for item in disk.entries())
    assert 8_000 < total <= 10_000


def test_several_that_write_stay_under_the_limit_of_one(tmp_path: Path) -> None:
    several = [Disk(tmp_path, max_bytes=1_000_000) for _ in range(4)]
    for number in range(90):
        for writer, disk in enumerate(several):
            disk.put("tiles", f"{writer}-{number}", array(number, 2500))
            disk.flush()
    total = sum(item.n_bytes for item in several[0].entries())
    assert 900_000 < total <= 1_080_000  # each may write a fiftieth of it before it looks again


def test_what_is_larger_than_the_store_is_not_kept(tmp_path: Path) -> None:
    disk = filled(tmp_path, "1")
    small = Disk(tmp_path, max_bytes=2000)
    small.put("tiles", "2", array(2, 1000))
    small.flush()
    assert (small.has("tiles", "1"), small.has("tiles", "2")) == (True, False)
    assert disk.clear() > 1000


def test_more_than_may_wait_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, all_put = disk_module._encode, threading.Event()

    def blocked(*given: Any) -> int:
        assert all_put.wait(10)
        return real(*given)

    monkeypatch.setattr(disk_module, "MAX_WAITING_BYTES", 2500)
    monkeypatch.setattr(disk_module, "_encode", blocked)
    disk = Disk(tmp_path)
    for number in range(5):
        disk.put("tiles", str(number), array(number))
    all_put.set()
    disk.flush()
    assert [disk.has("tiles", str(number)) for number in range(5)] == [True, True, False, False, False]
    disk.put("tiles", "5", array(5))
    disk.flush()
    assert disk.has("tiles", "5")


def test_what_waits_is_counted_by_whoever_puts_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that encode tiles side by side put them; here they change places between any two looks at the count."""

    def read(disk: Disk) -> int:
        count: int = vars(disk)["count"]
        time.sleep(0.0005)
        return count

    def write(disk: Disk, count: int) -> None:
        vars(disk)["count"] = count

    monkeypatch.setattr(Disk, "_waiting", property(read, write), raising=False)
    disk = Disk(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: disk.put("tiles", str(number), array(number)), range(40)))
    disk.flush()
    assert disk._waiting == 0
    assert len(list(disk.entries())) == 40


def test_where_no_thread_can_be_begun_it_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    np.testing.assert_array_equal(found(filled(tmp_path, "1", "2"), "2"), array(2))


def test_an_error_of_any_kind_keeps_nothing_else_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = disk_module._encode

    def encode(file: Any, key: str, value: Any) -> int:
        if key == "1":
            raise MemoryError
        return real(file, key, value)

    monkeypatch.setattr(disk_module, "_encode", encode)
    disk = filled(tmp_path, "1", "2")
    assert [disk.has("tiles", key) for key in "12"] == [False, True]
    assert "(MemoryError)" in warned(caplog)[0]
    assert [path.name for path in entry(tmp_path, "2").parent.iterdir()] == ["2.bin"]


AFTER_THE_MAIN_THREAD = """
import sys, threading, numpy as np
from pathlib import Path
from edgevl.store.disk import Disk

def work():
    threading.main_thread().join()
    disk = Disk(Path(sys.argv[1]))
    disk.put("tiles", "1", np.arange(5, dtype=np.uint8))
    disk.flush()
    print(disk.get("tiles", "1"))

threading.Thread(target=work).start()
"""


def test_a_thread_may_go_on_where_the_main_thread_has_ended(tmp_path: Path) -> None:
    assert printed(AFTER_THE_MAIN_THREAD, tmp_path) == "[0 1 2 3 4]\n"


IN_A_CHILD = """
import os, signal, sys, numpy as np
from pathlib import Path
from edgevl.store.disk import Disk

def put(*keys):
    for key in keys:
        disk.put("tiles", key, np.full(300_000, int(key), np.uint8))

disk = Disk(Path(sys.argv[1]))
put("1", "2", "3")
if not (child := os.fork()):  # while those are written
    signal.alarm(30)
    put("4")
    disk.flush()
    os._exit(0)
os.waitpid(child, 0)
put("5")
disk.flush()
print(sorted(entry.path.stem for entry in disk.entries()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")
def test_a_child_of_a_fork_writes_too(tmp_path: Path) -> None:
    assert printed(IN_A_CHILD, tmp_path) == "['1', '2', '3', '4', '5']\n"


def printed(script: str, folder: Path) -> str:
    """Return what a script prints that is given a folder; fail where it fails or does not end."""
    python = [sys.executable, "-W", "ignore:This process:DeprecationWarning"]  # of forks with threads, which are tried
    run = subprocess.run([*python, "-c", script, str(folder)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list what is open")
def test_small_entries_that_are_held_are_no_open_files(tmp_path: Path) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    numbers = [str(number) for number in range(30)]
    disk = filled(tmp_path, *numbers)
    large = array(31, disk_module.MAPPED_BYTES // 4)
    disk.put("tiles", "31", large)
    disk.flush()
    before = n_open()
    held = [found(disk, number) for number in numbers]
    assert n_open() == before
    held.append(found(disk, "31"))
    assert n_open() == before + 1
    np.testing.assert_array_equal(held[-1], large)


def test_half_written_files_of_killed_processes_are_swept_up(tmp_path: Path) -> None:
    filled(tmp_path, "1")
    old, new = (entry(tmp_path, "1").with_name(name) for name in ("old.part", "new.part"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    filled(tmp_path, "2")
    assert (old.exists(), new.exists()) == (False, True)
    Disk(tmp_path).clear()
    assert not new.exists()


def test_dates_that_are_to_come_are_the_oldest(tmp_path: Path) -> None:
    filled(tmp_path, "1", "2", "3")
    half = entry(tmp_path, "1").with_name("half.part")
    half.write_bytes(b"half")
    later = time.time() + 10**7  # of a clock that was wrong
    for path in (entry(tmp_path, "1"), half):
        os.utime(path, (later, later))
    disk = Disk(tmp_path, max_bytes=int(3.5 * entry(tmp_path, "1").stat().st_size))
    disk.put("tiles", "4", array(4))
    disk.flush()
    assert not half.exists()
    assert [disk.has("tiles", key) for key in "1234"] == [False, True, True, True]


@posix
@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() != 0, reason="only root gives files away")
def test_another_users_file_in_ones_own_folder_is_not_used(tmp_path: Path) -> None:
    disk = filled(tmp_path, "1", "2")
    os.chown(entry(tmp_path, "1"), 12345, -1)
    assert disk.get("tiles", "1") is None
    assert disk.get("tiles", "2") is not None


def test_a_damaged_entry_is_let_go_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, large = Disk(tmp_path), array(1, disk_module.MAPPED_BYTES // 4)
    disk.put("tiles", "1", large)
    disk.flush()
    path = entry(tmp_path, "1")
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    held: list[weakref.ref[Any]] = []

    class Mapped(mmap.mmap): ...

    def mapped(*given: Any, **named: Any) -> Mapped:
        held.append(weakref.ref(made := Mapped(*given, **named)))
        return made

    def removed(path: Path) -> bool:
        assert [one() for one in held] == [None]  # Windows removes no file that is mapped
        path.unlink()
        return True

    monkeypatch.setattr(disk_module.mmap, "mmap", mapped)
    monkeypatch.setattr(disk_module, "_remove", removed)
    assert disk.get("tiles", "1") is None
    assert not path.exists()


@pytest.mark.parametrize("line", range(1, 25))
def test_wherever_ctrl_c_stops_a_put_what_comes_next_is_written(tmp_path: Path, line: int) -> None:
    disk = Disk(tmp_path)
    with interrupting.at_line(line):
        disk.put("tiles", "1", array(1))
    for key in "23":
        disk.put("tiles", key, array(int(key)))
        thread = threading.Thread(target=disk.flush, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert disk.has("tiles", key)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_that_cannot_be_made_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    disk = filled(tmp_path / "file" / "store", "1", "2")
    assert disk.get("tiles", "1") is None
    [message] = warned(caplog)
    assert message.startswith(f"the store in {tmp_path / 'file' / 'store'} is not used (")
    assert message.endswith("--no-store silences this")


def test_a_full_disk_keeps_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: Any, key: str, value: Any) -> int:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    disk = filled(tmp_path, "1")
    monkeypatch.setattr(disk_module, "_encode", full)
    for key in "23":
        disk.put("tiles", key, array(int(key)))
    disk.flush()
    assert [path.name for path in entry(tmp_path, "1").parent.iterdir()] == ["1.bin"]
    [message] = warned(caplog)
    assert "No space left on device" in message


@posix
def test_another_users_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, "1")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    disk = filled(tmp_path, "2")
    assert disk.get("tiles", "1") is None
    assert not disk.has("tiles", "2")
    assert "another user" in warned(caplog)[0]


def write_and_read(folder: Path, seed: int, version: str = disk_module.VERSION) -> None:
    """Put and get at random, and clear now and then; exit with an error if an array is ever wrong, or on a warning."""
    disk_module.VERSION = version
    random, disk = np.random.default_rng(seed), Disk(folder, max_bytes=30_000)
    for number in random.integers(0, 60, 300).tolist():
        key = hashlib.sha256(b"%d" % number).hexdigest()
        got = disk.get("tiles", key)
        if got is None:
            disk.put("tiles", key, array(number))
        elif not np.array_equal(got, array(number)):
            os._exit(3)
        if number == 0:
            disk.clear()
    disk.flush()
    if disk._told:
        os._exit(4)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_and_read, args=(tmp_path, seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(item.n_bytes for item in Disk(tmp_path).entries()) <= 2 * 30_000


ENDLESS = """
import sys, numpy as np
from pathlib import Path
from edgevl.store.disk import Disk
disk = Disk(Path(sys.argv[1]))
print("writing", flush=True)
for number in range(10**6):
    disk.put("prefixes", str(number), np.full(2_000_000, number, np.float32))
    disk.flush()
"""


@posix
def test_a_process_killed_while_writing_leaves_whole_entries_only(tmp_path: Path) -> None:
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.05 + 0.03 * round_)
            process.send_signal(signal.SIGKILL)
    disk = Disk(tmp_path)
    for item in list(disk.entries()):
        number = int(item.path.stem)
        np.testing.assert_array_equal(found(disk, str(number), "prefixes"), np.full(2_000_000, number, np.float32))


def test_where_and_how_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_STORE_DIR", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("EDGEVL_STORE_DIR")
    assert default_folder().parts[-2:] == ("Cache" if os.name == "nt" else "edgevl", "store")
    assert default_max_bytes() == DEFAULT_MAX_BYTES
    monkeypatch.setenv("EDGEVL_STORE_MB", "5")
    assert default_max_bytes() == 5_000_000
    opened = open_disk(tmp_path)
    assert opened is not None
    assert (opened.folder.parent, opened.max_bytes) == (tmp_path, 5_000_000)
    assert open_disk(False) is None
    monkeypatch.setenv("EDGEVL_STORE_MB", "two")
    with pytest.raises(InputError) as caught:
        open_disk(True)
    assert str(caught.value) == "EDGEVL_STORE_MB is 'two'; it must be a whole number of megabytes"
