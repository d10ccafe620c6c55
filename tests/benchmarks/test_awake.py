"""Cores that are kept awake: at the lowest priority, and not a moment longer than the benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest

pytest.importorskip("psutil")

import psutil

from benchmarks import cold, compare, profile, within
from benchmarks.awake import awake
from tests.waiting import wait_until

on_linux = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="no idle scheduling on this system")


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@on_linux
def test_every_core_has_one_process_of_the_lowest_priority_and_none_is_left() -> None:
    cores = os.sched_getaffinity(0)
    with awake() as spinning:
        wait_until(lambda: all(os.sched_getscheduler(pid) == os.SCHED_IDLE for pid in spinning), 20)
        assert sorted(core for pid in spinning for core in os.sched_getaffinity(pid)) == sorted(cores)
    assert not any(psutil.pid_exists(pid) for pid in spinning)


@on_linux
def test_nothing_is_started_unless_it_is_wanted() -> None:
    before = len(psutil.Process().children())
    with awake(wanted=False) as spinning:
        assert len(psutil.Process().children()) == before
        assert not spinning


@on_linux
def test_a_benchmark_that_is_killed_leaves_nothing_behind() -> None:
    code = (
        "import os, time\nfrom benchmarks.awake import awake\n"
        "with awake():\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    parent.stdout.readline()
    spinning = psutil.Process(parent.pid).children()
    assert len(spinning) == len(os.sched_getaffinity(0))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: all(_has_ended(child) for child in spinning), 20)


@pytest.mark.parametrize("program", [compare, profile, within])
def test_a_system_without_idle_scheduling_is_told_so_before_anything_is_done(
    program: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "SCHED_IDLE", raising=False)
    monkeypatch.setattr("sys.argv", ["program", "--awake"])
    monkeypatch.setattr(program, "use_cores", None, raising=False)
    monkeypatch.setattr(cold, "use_cores", None)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    said = "argument --awake: this system has no idle scheduling (Linux has); run without it\n"
    assert capsys.readouterr().err.endswith(said)
    with pytest.raises(RuntimeError, match="--awake: this system has no"), awake():
        pass


def test_the_flag_is_off_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "SCHED_IDLE", 5, raising=False)
    assert [compare.parse(given).awake for given in ([], ["--awake"])] == [False, True]
