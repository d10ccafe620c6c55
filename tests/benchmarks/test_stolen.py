"""Time that the host kept, from two readings of a file like /proc/stat."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import stolen

BEFORE = """cpu  100 0 100 800 0 0 0 0 0 0
cpu0 10 0 10 80 5 1 1 3 0 0
cpu1 90 0 90 720 0 0 0 0 0 0
cpu10 1 1 1 1 1 1 1 1 0 0
intr 1 2 3
"""
AFTER = BEFORE.replace("cpu0 10 0 10 80 5 1 1 3", "cpu0 60 10 25 180 25 2 5 23").replace("cpu1 90", "cpu1 95")


@pytest.fixture
def stat(tmp_path: Path) -> Path:
    return tmp_path / "stat"


def read(stat: Path, text: str, cores: set[int]) -> stolen.Used | None:
    stat.write_text(text, encoding="ascii")
    return stolen.used(cores, stat)


def test_it_is_a_share_of_the_time_in_which_there_was_work(stat: Path) -> None:
    before, after = read(stat, BEFORE, {0}), read(stat, AFTER, {0})
    assert stolen.share(before, after) == 20 / 100  # 80 at work; 120 idle or waiting for a disk do not count


def test_cores_that_are_not_used_do_not_count(stat: Path) -> None:
    assert stolen.share(read(stat, BEFORE, {1}), read(stat, AFTER, {1})) == 0.0
    assert stolen.share(read(stat, BEFORE, {0, 1}), read(stat, AFTER, {0, 1})) == 20 / 105


def test_what_cannot_be_told_is_none(stat: Path) -> None:
    assert stolen.used({0}, stat) is None  # no such file: not Linux
    assert read(stat, BEFORE, {7}) is None
    assert read(stat, "cpu0 1 2 3 4\n", {0}) is None  # a kernel that does not count it
    same = read(stat, BEFORE, {0})
    assert stolen.share(same, same) is None
    assert stolen.share(None, same) is None
    assert stolen.share(same, None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")
def test_this_machine() -> None:
    found = stolen.used()
    assert found is None or 0 <= found.stolen <= found.wanted
