"""Waiting for what another thread or process does."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once `condition` holds; fail where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def heed_ctrl_c() -> None:
    """Let a process that is being started be ended by Ctrl-C, also where that is ignored, as behind a shell's `&`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
