"""What the benchmark of predictions leaves in the store: compiled graphs, and nothing of earlier pictures."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import within
from edgevl.store.disk import KINDS, Disk

SAID = {
    "images": [{"n_tiles": 1}],
    "forecast": {"first_token_s": 1.1},
    "timings": {"first_token_s": 1.0},
}


def test_new_processes_find_graphs_alone_and_the_first_ones_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[set[str]] = []
    profiles: list[str] = []

    def fake(command: list[str]) -> str:
        """Ask as a new process does that stores something of every kind."""
        assert "--no-store" not in command
        disk = Disk(Path(os.environ["EDGEVL_STORE_DIR"]))
        found.append({entry.kind for entry in disk.entries()})
        profiles.append(Path(os.environ["EDGEVL_PROFILE_DIR"]).name)
        for kind in KINDS:
            disk.put(kind, "key", np.zeros(3, np.uint8))
        disk.flush()
        return json.dumps(SAID)

    for name in ("EDGEVL_STORE_DIR", "EDGEVL_PROFILE_DIR"):
        monkeypatch.setenv(name, "")  # and back afterwards
    monkeypatch.setattr(subprocess, "check_output", fake)
    monkeypatch.setattr(within, "SIZES", ((8, 8),))
    monkeypatch.setattr(within, "DETAILS", ("low",))
    monkeypatch.setattr(within.edgevl, "load", lambda model: nullcontext(SimpleNamespace(preview=lambda data: None)))
    monkeypatch.setattr(within, "ask", lambda vlm, size, detail, rng: within.Shot(size, detail, 1, False, 1.1, 1.0))
    shots = within.rounds(None, 2)
    assert [shot.new_process for shot in shots] == [False, True, False, True]
    assert found == [set(), {"graphs"}, {"graphs"}]
    assert profiles == ["profiles-before", "profiles-0", "profiles-1"]
