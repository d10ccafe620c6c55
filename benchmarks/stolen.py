"""How much time the host of a virtual machine kept from its cores: what no number of rounds takes out of figures.

Source: proc_stat(5). Time of guests is part of `user` and `nice` there, so that it is not added.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
_N_TIMES, _STOLEN, _IDLE = 8, 7, (3, 4)
"""user, nice, system, idle, iowait, irq, softirq, steal."""


@dataclass(frozen=True)
class Used:
    """Ticks of some cores since they started: those in which there was work, and of them those that the host kept."""

    wanted: int
    stolen: int


def used(cores: Collection[int] | None = None, stat: Path = STAT) -> Used | None:
    """Return what the system has counted for `cores` (None: this process's), or None where it does not count."""
    if cores is None:
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    try:
        text = stat.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    counted = re.findall(rf"^cpu(\d+)((?: \d+){{{_N_TIMES}}})", text, re.MULTILINE)
    times = [[int(n) for n in values.split()] for core, values in counted if int(core) in cores]
    if not times:
        return None
    stolen = sum(row[_STOLEN] for row in times)
    return Used(sum(sum(row) - sum(row[i] for i in _IDLE) for row in times), stolen)


def share(before: Used | None, after: Used | None) -> float | None:
    """Return the part of the time with work that the host kept between two readings; None where it cannot be told."""
    if before is None or after is None or after.wanted <= before.wanted:
        return None
    return (after.stolen - before.stolen) / (after.wanted - before.wanted)
