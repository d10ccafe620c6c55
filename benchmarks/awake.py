"""Keep cores from sleeping while a benchmark runs: for virtual machines.

A core that sleeps goes back to the host, which brings it back only when it has a place for it. On the machine of the
published results a thread woke up after 0.1 to 36 ms (median 1.3), with this after 0.05 to 0.14 (median 0.1): without
it, what is measured is the host.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HELP = "keep cores from sleeping, at the lowest priority: steadier figures on a virtual machine (Linux)"
SPIN = (
    "import os, sys\n"
    "os.sched_setaffinity(0, {int(sys.argv[1])})\n"
    "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    "while os.getppid() == int(sys.argv[2]):\n"
    "    for _ in range(100_000):\n"
    "        pass\n"
)
"""Runs only where nothing else wants the core, and ends with the benchmark."""
MISSING = "this system has no idle scheduling (Linux has); run without it"


class _Awake(argparse.Action):
    """A flag that is wrong usage where the system cannot do it: found before what takes minutes is prepared."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        if not _has_idle_scheduling():
            parser.error(f"argument --awake: {MISSING}")
        setattr(namespace, self.dest, True)


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--awake`, what `awake` is to be told."""
    parser.add_argument("--awake", action=_Awake, nargs=0, default=False, help=HELP)


def _has_idle_scheduling() -> bool:
    return hasattr(os, "SCHED_IDLE")


@contextmanager
def awake(wanted: bool = True) -> Iterator[list[int]]:
    """Keep this process's cores awake meanwhile, each by a process; give the ids of these.

    Raises RuntimeError where the system has no idle scheduling.
    """
    if not wanted:
        yield []
        return
    if not _has_idle_scheduling():
        raise RuntimeError(f"--awake: {MISSING}")
    cores = sorted(os.sched_getaffinity(0))
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN, str(core), str(os.getpid())]) for core in cores]
    try:
        yield [process.pid for process in spinning]
    finally:
        for process in spinning:
            process.kill()
            process.wait()
