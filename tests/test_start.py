"""A cold question's seconds and memory: the limits of benchmarks/cold.py, with room for a busy machine."""

from __future__ import annotations

import pytest

from benchmarks import cold
from edgevl.model import hub, manifest

QUIET_BASELINE_S = 0.25
"""What importing numpy and onnxruntime takes on a slow machine that is idle; a busier one gets the same factor more."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[cold.Run]]:
    if not (hub.installed_folder() / hub.BUNDLED / manifest.FILE_NAME).is_file():
        pytest.skip("the bundled model is not here; models/edgevl-tiny/recipe makes it")
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEVL_STORE_DIR", str(folder / "store"))
        return cold.compare(cold.make_image(folder / "shapes.png"), [], folder / "store", rounds=3)


def test_a_cold_question_takes_less_than_a_second(runs: dict[str, list[cold.Run]]) -> None:
    busy = min(run.wall_s for run in runs["baseline"]) / QUIET_BASELINE_S
    assert min(run.wall_s for run in runs["ask"]) < cold.MAX_WALL_S * max(1.0, busy)


def test_a_cold_question_takes_less_than_300_mb(runs: dict[str, list[cold.Run]]) -> None:
    assert max(run.rss_bytes for run in runs["ask"]) < cold.MAX_RSS_BYTES


def test_memory_is_seen() -> None:
    program = "import time; b = bytearray(200_000_000); b[::4096] = b'x' * len(b[::4096]); time.sleep(0.3)"
    run = cold.measure([cold.BASELINE[0], "-c", program])  # not over at once: it is looked at now and then
    assert run.rss_bytes > 200_000_000


def test_memory_of_children_is_seen() -> None:
    child = "import time; b = bytearray(100_000_000); b[::4096] = b'x' * len(b[::4096]); time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert cold.measure([cold.BASELINE[0], "-c", parent]).rss_bytes > 100_000_000


def test_a_command_that_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: sorry"):
        cold.measure([cold.BASELINE[0], "-c", "print('sorry'); raise SystemExit(3)"])
