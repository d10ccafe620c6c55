"""Measuring the bundled model, as little as possible, and the pictures it is measured with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgevl import BackendError, ImageError, machine
from edgevl.bench import measure, pictures
from edgevl.bench.result import Result
from edgevl.image.read import read
from edgevl.latency import kept
from edgevl.model import hub

SAMPLES = Path(__file__).parents[2] / "models" / "samples"

Steps = list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def measured() -> tuple[Result, Steps]:
    steps: Steps = []
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(measure, "PROFILE_S", 0.01)
    settings = measure.Settings(hub.find(None), sides=(64, 256), threads=(1,), rounds=1, cold=True)
    found = measure.measure(settings, lambda *step: steps.append(step))
    monkeypatch.undo()
    return found, steps


def test_the_profile_for_predictions_is_kept(measured: tuple[Result, Steps]) -> None:
    profile = kept.read(kept.key_of(measured[0].model_id, device="auto", threads=1))
    assert profile is not None
    assert profile.encode_s > 0


def test_every_stage_of_every_row_is_measured(measured: tuple[Result, Steps]) -> None:
    found, _ = measured
    assert [(row.size, row.threads, row.n_tiles) for row in found.rows] == [((64, 64), 1, 1), ((256, 256), 1, 5)]
    for row in found.rows:
        assert {key: len(values) for key, values in row.values.items()} == dict.fromkeys(
            ("read_s", "tile_s", "encode_s", "prefill_tokens_per_s", "first_token_s", "decode_tokens_per_s",
             "cold_s", "peak_bytes"), 1,
        )  # fmt: skip
        [first], [cold], [peak] = (row.values[key] for key in ("first_token_s", "cold_s", "peak_bytes"))
        assert 0 < first < cold
        assert 40e6 < peak < 1e9
    assert found.rows[0].n_tokens < found.rows[1].n_tokens
    assert (found.model, found.picture, found.rounds, len(found.yardstick_s)) == ("edgevl-tiny", "made", 1, 1)
    assert found.machine == machine.describe()
    assert len(found.model_id) == 64


def test_progress_reaches_its_end(measured: tuple[Result, Steps]) -> None:
    _, steps = measured
    assert [step[:2] for step in steps] == [(done, 4) for done in range(5)]
    assert steps[0][2] == "64x64, 1 thread"
    assert steps[2][2] == "64x64, 1 thread, a new process"
    assert steps[-1][2] == ""


def test_each_fresh_picture_is_another(tmp_path: Path) -> None:
    subject = pictures.made(32, tmp_path)
    picture, rng = read(subject.path), np.random.default_rng(0)
    first, second = subject.fresh(picture, rng), subject.fresh(picture, rng)
    assert len({picture.id, first.id, second.id}) == 3
    assert first.size == picture.size == (32, 32)
    assert np.abs(first.rgb.astype(int) - picture.rgb).max() < 8


def test_made_pictures_are_the_same_everywhere_and_not_blank() -> None:
    picture = pictures.synthetic(64)
    assert (picture == pictures.synthetic(64)).all()
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    assert picture.min() == 0
    assert picture.max() == 255
    assert picture.std() > 20


def test_a_given_picture_at_its_size_and_at_others(tmp_path: Path) -> None:
    [own] = pictures.given(SAMPLES / "wide.png", (), tmp_path)
    assert own.size == read(SAMPLES / "wide.png").size
    scaled = pictures.given(SAMPLES / "wide.png", (100, 50), tmp_path)
    assert [max(subject.size) for subject in scaled] == [100, 50]
    assert [read(subject.path).size for subject in scaled] == [subject.size for subject in scaled]
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        pictures.given(tmp_path / "nowhere.png", (), tmp_path)


def test_a_process_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"asks nowhere\.png ended with 1 \(error: .*no such file; check the path\)"):
        measure.new_process(hub.find(None), tmp_path / "nowhere.png", 1)


@pytest.mark.parametrize(
    ("n_cores", "n_usable", "wanted"),
    [(1, 1, (1,)), (2, 2, (1, 2)), (4, 8, (1, 2, 4)), (6, 12, (1, 2, 4, 6)), (None, 3, (1, 2, 3)), (8, 2, (1, 2))],
)
def test_default_threads(
    n_cores: int | None, n_usable: int, wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = machine.Machine("", None, n_cores, n_usable, None, "", "", {})
    monkeypatch.setattr(machine, "describe", lambda: about)
    assert measure.default_threads() == wanted
