"""Measuring the bundled model, as little as possible, and the pictures it is measured with."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevl
from edgevl import BackendError, ImageError, machine, placement, probe
from edgevl.bench import measure, pictures
from edgevl.bench.pictures import Subject
from edgevl.bench.result import Result
from edgevl.image.read import jpeg_bytes, read
from edgevl.latency import kept
from edgevl.latency.profile import Profile
from edgevl.loaded import Loaded
from edgevl.model import hub, manifest
from edgevl.placement import installed
from edgevl.store.disk import KINDS, Disk

SAMPLES = Path(__file__).parents[2] / "models" / "samples"

Steps = list[tuple[int, int, str]]


@dataclass
class Measured:
    """A measurement, its steps, and the kinds of entries that were stored before the profile and each new process."""

    result: Result
    steps: Steps
    stored: list[set[str]]


@pytest.fixture(scope="module")
def measured() -> Measured:
    steps: Steps = []
    stored: list[set[str]] = []
    new_process, profile = measure.new_process, probe.measure

    def noted_process(model: Path, subject: Subject, threads: int, store: Path) -> tuple[float, int]:
        stored.append(kinds(store))
        return new_process(model, subject, threads, store)

    def noted_profile(model: Loaded, seconds: float) -> Profile:
        assert model.tiles._disk is model.prefixes._disk is None
        stored.append(kinds(folders[-1]))
        return profile(model, seconds)

    folders: list[Path] = []
    load = edgevl.load

    def noted_load(*arguments: Any, store: Path, **options: Any) -> edgevl.VLM:
        folders.append(store)
        return load(*arguments, store=store, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "PROFILE_S", 0.01)
        patch.setattr(measure, "new_process", noted_process)
        patch.setattr(probe, "measure", noted_profile)
        patch.setattr(edgevl, "load", noted_load)
        settings = measure.Settings(hub.find(None), sides=(64, 256), threads=(1,), rounds=1, cold=True)
        found = measure.measure(settings, lambda *step: steps.append(step))
    return Measured(found, steps, stored)


def kinds(store: Path) -> set[str]:
    return {entry.kind for entry in Disk(store).entries()}


def test_the_profile_for_predictions_is_kept(measured: Measured) -> None:
    profile = kept.read(kept.key_of(measured.result.model_id, device="auto", threads=1))
    assert profile is not None
    assert profile.encode_s > 0


def test_graphs_are_compiled_before_anything_is_measured_and_nothing_else_is_stored(measured: Measured) -> None:
    assert measured.stored[:2] == [{"graphs"}, {"graphs"}], "before the profile, and before the first new process"


def test_every_stage_of_every_row_is_measured(measured: Measured) -> None:
    found = measured.result
    assert [(row.size, row.threads, row.n_tiles) for row in found.rows] == [
        (None, 1, 0), ((64, 64), 1, 1), ((256, 256), 1, 5)
    ]  # fmt: skip
    of_any, *rows = found.rows
    assert {key: len(values) for key, values in of_any.values.items()} == dict.fromkeys(
        ("encode_at_once_s", "decode_128_tokens_per_s", "decode_1024_tokens_per_s"), 1
    )
    assert (found.n_context, found.left_out) == (2048, [4096])
    for row in rows:
        assert {key: len(values) for key, values in row.values.items()} == dict.fromkeys(
            ("read_s", "tile_s", "encode_s", "prefill_tokens_per_s", "first_token_s", "decode_tokens_per_s",
             "cold_start_s", "peak_memory_bytes"), 1,
        )  # fmt: skip
        [first], [cold], [peak] = (row.values[key] for key in ("first_token_s", "cold_start_s", "peak_memory_bytes"))
        assert 0 < first < cold
        assert 40e6 < peak < 1e9
    assert rows[0].n_tokens < rows[1].n_tokens
    assert (found.model, found.picture, found.rounds, len(found.yardstick_s)) == ("edgevl-tiny", "made", 1, 1)
    assert replace(found.machine, versions={}) == replace(machine.describe(), versions={})
    assert len(found.model_id) == 64


def test_the_versions_of_all_that_may_run_the_model_are_told(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = machine.describe().versions
    assert measured.result.machine.versions == {**versions, "openvino": installed("openvino") or "none"}
    folder = hub.find(None)
    has = {"openvino": None, "llama.cpp": "9.9"}
    monkeypatch.setattr(placement, "installed", lambda engine: has.get(engine, versions.get(engine)))
    spec = replace(manifest.read(folder), embeddings=None)
    monkeypatch.setattr(manifest, "read", lambda _: spec)
    made = measure._Measurement(measure.Settings(folder), [], (1,), tmp_path, None)
    assert made._result().machine.versions == {**versions, "openvino": "none", "llama.cpp": "9.9"}


def test_progress_reaches_its_end(measured: Measured) -> None:
    assert [step[:2] for step in measured.steps] == [(done, 6) for done in range(7)]
    assert [step[2] for step in measured.steps] == [
        "1 thread, compiling",
        "1 thread, any picture",
        "64x64, 1 thread",
        "256x256, 1 thread",
        "64x64, 1 thread, a new process",
        "256x256, 1 thread, a new process",
        "",
    ]


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


def test_a_limit_holds_for_the_file_that_was_given_and_for_none_made_of_it(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg_bytes(pictures.synthetic(64)))
    with pytest.raises(ImageError, match=r"over the limit of 2,000; shrink it, or use --reduce or --max-pixels"):
        pictures.given(photo, (), tmp_path, max_pixels=2000)
    [own] = pictures.given(photo, (), tmp_path, max_pixels=2000, reduce=True)
    assert own.size == own.read().size == (32, 32)
    [scaled] = pictures.given(photo, (128,), tmp_path, max_pixels=2000, reduce=True)
    assert scaled.size == scaled.read().size == (128, 128)
    assert scaled.options == []


def test_a_new_process_finds_compiled_graphs_and_nothing_of_earlier_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    for kind in KINDS:
        disk.put(kind, "key", np.zeros(3, np.uint8))
    disk.flush()
    asked: list[set[str]] = []
    subject = Subject(Path("-image.png"), (3, 3), max_pixels=9, reduce=True)

    def fake(command: list[str], *, env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        assert "--no-store" not in command
        assert Path(command[command.index("ask") + 1]) == Path.cwd() / "-image.png", "nothing that looks like an option"
        assert command[-3:] == ["--reduce", "--max-pixels", "9"], "it is read as here"
        asked.append(kinds(Path(env["EDGEVL_STORE_DIR"])))
        return subprocess.CompletedProcess(command, 0, "{}", "1000\n")

    monkeypatch.setattr(subprocess, "run", fake)
    assert measure.new_process(Path("model"), subject, 1, tmp_path)[1] == 1000
    assert asked == [{"graphs"}]


def test_a_process_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"asks nowhere\.png ended with 1 \(error: .*no such file; check the path\)"):
        measure.new_process(hub.find(None), Subject(tmp_path / "nowhere.png", (3, 3)), 1, tmp_path / "store")
    with pytest.raises(BackendError, match=r"asks shapes\.png ended with 2 \(Error: Invalid value for '--threads'"):
        measure.new_process(hub.find(None), Subject(SAMPLES / "shapes.png", (3, 3)), 0, tmp_path / "store")


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
