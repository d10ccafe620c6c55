"""The store in earnest: folders that may not be written or read, files that may not grow, a disk that is full.

Each in a process of its own, which is not root's where something is not allowed. Answers are the same without a store.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevl.model import hub, manifest

pytest.importorskip("resource", reason="users and limits of POSIX systems")

NOBODY = 65534
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that any user can reach, and a model in it."""
    with tempfile.TemporaryDirectory(prefix="edgevl-test-") as place:
        source, copy, mine = hub.find(None), Path(place, "model"), Path(place, "mine")
        Path(place).chmod(0o755)
        copy.mkdir(0o755)
        for name in (manifest.FILE_NAME, *manifest.read(source).files):
            shutil.copyfile(source / name, copy / name)
            (copy / name).chmod(0o644)
        mine.mkdir(0o700)
        yield mine
        mine.chmod(0o700)


def ask_in(trouble: str, folder: Path, *before: str) -> tuple[Any, list[str]]:
    """Return what `tests.store.in_trouble` prints, and the reasons that it warned with, one for each load."""
    command = [
        *before,
        sys.executable,
        "-m",
        "tests.store.in_trouble",
        trouble,
        str(folder),
        str(folder.parent / "model"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert run.returncode == 0, run.stderr
    for line in run.stderr.splitlines():
        assert line.startswith(f"the store in {folder / 'store'} is not used (")
        assert line.endswith("); --no-store silences this")
    found = json.loads(run.stdout)
    for answer in found["answers"]:
        assert answer["said"] == answer["wanted"]
    assert (found["left"]["broken"], found["left"]["half"]) == (0, 0)
    return found, [line.partition("(")[2].partition(")")[0] for line in run.stderr.splitlines()]


@pytest.fixture
def anothers(folder: Path) -> Path:
    """`folder`, in which even root's tests run as a user who is held to what files allow."""
    if os.geteuid() == 0:
        try:
            os.chown(folder, NOBODY, NOBODY)
        except OSError:
            pytest.skip("root here is the only user there is")
    return folder


def test_a_read_only_store_is_read_and_warned_of_once_something_is_new(anothers: Path) -> None:
    found, reasons = ask_in("read_only", anothers)
    assert [answer["n_encoded"] > 0 for answer in found["answers"]] == [False, True]
    assert reasons == ["Permission denied"]


def test_an_unreadable_store_is_as_if_it_were_not_there(anothers: Path) -> None:
    found, reasons = ask_in("unreadable", anothers)
    assert [answer["n_encoded"] > 0 for answer in found["answers"]] == [True]
    assert reasons == ["Permission denied"]
    assert found["left"]["whole"] > 2


def test_a_store_in_a_read_only_folder_is_not_made(anothers: Path) -> None:
    found, reasons = ask_in("in_read_only", anothers)
    assert (found["left"]["whole"], reasons) == (0, ["Permission denied"])
    assert list(anothers.iterdir()) == []


def test_files_that_may_not_grow_leave_nothing_half_written(folder: Path) -> None:
    found, reasons = ask_in("small_files", folder)
    assert reasons == ["File too large"] * 3
    n_tiles, *n_encoded = [answer["n_encoded"] for answer in found["answers"]]
    assert n_tiles > 1
    assert n_encoded == [n_tiles, n_tiles, 0]  # of 5,000 bytes no entry is served, of 50,000 all the tiles'


def test_a_full_disk_leaves_nothing_half_written(folder: Path) -> None:
    mount = ["sh", "-c", 'mount -t tmpfs -o size=128k none "$0" && exec "$@"', str(folder)]
    mounted = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), *mount]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("no file system of a few kilobytes can be mounted here")
    found, reasons = ask_in("full", folder, *mounted)
    assert reasons == ["No space left on device"] * 3
    assert found["left"]["whole"] > 0
