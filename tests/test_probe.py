"""Measuring the bundled model: the figures are numbers of the right kind, and nothing is left behind."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgevl
from edgevl import probe
from edgevl.image.read import read
from edgevl.latency import kept
from edgevl.latency.profile import Profile
from edgevl.loaded import Loaded
from edgevl.model import hub
from edgevl.types import ImagePart, Message, TextPart


@pytest.fixture(scope="module")
def model() -> Loaded:
    return Loaded(hub.find(None), device="auto", threads=None)


@pytest.fixture(scope="module")
def profiles(model: Loaded) -> tuple[Profile, Profile]:
    """What was measured before anything had run, and afterwards."""
    return probe.measure(model, seconds=0.01), probe.measure(model, seconds=0.01)


def test_a_profile_is_measured(profiles: tuple[Profile, Profile]) -> None:
    for profile in profiles:
        assert Profile.from_dict(profile.to_dict()) == profile
        assert profile.encode_s > 0
        assert profile.resize_s > 0
        assert profile.cut_s > 0
        assert profile.feed_s + profile.token_s > 0


def test_the_first_time_after_opening_is_measured_where_it_is_the_first(profiles: tuple[Profile, Profile]) -> None:
    assert profiles[1].cold_s == 0
    assert profiles[0].cold_s >= 0


def test_nothing_is_left_behind(model: Loaded, profiles: tuple[Profile, Profile]) -> None:
    assert model.is_warm
    assert (model.decoder.n_past, model.held) == (0, [])
    assert not model.tiles._entries
    assert not model.prefixes._entries


def test_nothing_reaches_the_disk(tmp_path: Path) -> None:
    with edgevl.load(store=tmp_path) as vlm:
        probe.measure(vlm._open(), seconds=0.01)
        vlm.ask(np.zeros((32, 32, 3), np.uint8), "what's here?", max_tokens=1)
    kinds = [path.parent.name for path in tmp_path.rglob("*.bin") if path.parent.name != "graphs"]
    assert sorted(kinds) == ["prefixes", "tiles"], "of the question, not of the probe"


def test_several_tiles_are_asked_if_there_is_time(model: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    original = probe._ask

    def ask(model: Loaded, rng: np.random.Generator, grid: tuple[int, int]) -> probe._Asked:
        asked.append(grid)
        return original(model, rng, grid)

    monkeypatch.setattr(probe, "_ask", ask)
    profile = probe.measure(model, seconds=0.0)
    assert (profile.encode_more_s, profile.saved_s) == (profile.encode_s, 0)
    assert set(asked) == {(1, 1)}
    asked.clear()
    monkeypatch.setattr(probe, "median", lambda values: 1e-3)
    probe.measure(model, seconds=0.01)
    assert (2, 2) in asked


@pytest.mark.parametrize(
    ("tiling", "n_context", "grids"),
    [
        ("split_grid", 2048, {(1, 1), (2, 2)}),
        ("split_grid", 300, {(1, 1), (1, 2)}),  # of 5 tiles, 320 tokens would be images
        ("split_grid", 100, {(1, 1)}),
        ("centre_square", 2048, {(1, 1)}),  # which cuts every picture into one tile
    ],
)
def test_no_more_tiles_are_asked_about_than_the_model_takes(
    tiling: str, n_context: int, grids: set[tuple[int, int]], model: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[int, int]] = set()
    original = probe._ask

    def ask(model: Loaded, rng: np.random.Generator, grid: tuple[int, int]) -> probe._Asked:
        asked.add(grid)
        return original(model, rng, grid)

    spec = model.manifest
    shorter = replace(spec, decoder=replace(spec.decoder, context_length=n_context))
    monkeypatch.setattr(model, "manifest", shorter)
    monkeypatch.setattr(model, "family", replace(model.family, tiling=tiling))
    monkeypatch.setattr(probe, "_ask", ask)
    profile = probe.measure(model, seconds=0.5)
    assert asked == grids
    assert Profile.from_dict(profile.to_dict()) == profile


def test_a_probe_takes_twice_its_time_at_most_to_have_samples_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.time, "perf_counter", lambda: 10.0)
    first, quick, stalled, slow = 10.0, 9.7, 9.4, 8.9
    assert probe._goes_on(slow, 0.5, 0), "once in any case"
    assert probe._goes_on(quick, 0.5, 99)
    assert not probe._goes_on(stalled, 0.5, probe._ENOUGH)
    assert probe._goes_on(stalled, 0.5, probe._ENOUGH - 1)
    assert not probe._goes_on(slow, 0.5, 1)
    assert probe._goes_on(first, 0.5, probe._ENOUGH)


@pytest.mark.parametrize("encoded_s", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("saved_s", [0.0, 0.05, 0.08, -0.05])
def test_several_tiles_are_predicted_to_take_what_they_took(encoded_s: float, saved_s: float) -> None:
    profile = Profile(0, 0.02, 0.1, 0.1, 0.01, 0.001, 0.0, 0, 0)
    work = probe.Work(0, 5, 10, 90)
    taken_s = 0.1 + encoded_s + 0.19 - saved_s
    fitted = probe._with_several(profile, [probe._Asked(work, taken_s, encoded_s)]).estimate(work)
    assert fitted.first_token_s == pytest.approx(taken_s)
    assert fitted.encode_s == pytest.approx(encoded_s)


def test_several_tiles_that_took_less_than_one_leave_a_sound_profile() -> None:
    profile = Profile(0, 0.02, 0.1, 0.1, 0.01, 0.001, 0.0, 0, 0)
    fitted = probe._with_several(profile, [probe._Asked(probe.Work(0, 5, 10, 90), 0.0, 0.05)])
    assert Profile.from_dict(fitted.to_dict()) == fitted
    one, many = (fitted.estimate(probe.Work(0, n, 2, 20)).first_token_s for n in (1, 9))
    assert one == pytest.approx(many)


def test_a_profile_that_cannot_be_kept_is_still_one(
    model: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "file" / "profiles"))
    monkeypatch.setattr(probe, "PROBE_S", 0.01)
    assert probe.profile_of(model, kept.key_of("x", device="auto", threads=None)).encode_s > 0


def test_several_tiles_are_encoded_as_many_at_once_as_requests_do(
    model: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = model.encoder.encode

    def noted(pixel_values: NDArray[np.float32], n_at_once: int = 1) -> NDArray[np.float32]:
        encoded.append(n_at_once)
        return encode(pixel_values, n_at_once)

    monkeypatch.setattr(model.encoder, "encode", noted)
    monkeypatch.setattr(model.encoder, "n_at_once", 3)
    assert probe.encode_at_once(model, np.random.default_rng(0)) > 0
    assert encoded == [3] * 6, "once to warm up"


def test_decoding_is_timed_with_more_and_less_held(model: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[tuple[int, int]] = []
    extend = model.decoder.extend

    def noted(chunk: NDArray[np.int64], *arguments: Any) -> bool:
        fed.append((model.decoder.n_past, len(chunk)))
        return extend(chunk, *arguments)

    monkeypatch.setattr(model.decoder, "extend", noted)
    seconds, held = probe.decode_at(model, (16, 64), 3)
    assert fed == [(0, 60), *((n, 1) for n in range(60, 64)), *((n, 1) for n in range(12, 16))]
    assert set(seconds) == {16, 64}
    assert min(seconds.values()) > 0
    assert (model.decoder.n_past, model.held) == (0, [])
    fed.clear()
    assert (probe.decode_at(model, (16, 64), 3, held)[1] == held).all()
    assert max(n for _, n in fed) == 1, "it is not fed again"
    probe.decode_at(model, (32,), 3, held)
    assert fed[-5] == (0, 28), "of another context"


def test_stages_are_timed_alone(model: Loaded) -> None:
    encode_s, features = probe.encode(model, np.random.default_rng(0))
    assert encode_s > 0
    assert features.shape == (model.manifest.image.tokens_per_tile, model.manifest.decoder.hidden_size)
    picture = read(np.zeros((256, 256, 3), np.uint8))
    assert probe.cut(model, picture, model.plan(picture.size, "auto")) > 0
    messages = [Message("user", (ImagePart(None), TextPart("what's here?")))]
    steps = model.steps(messages, [model.plan((256, 256), "auto")])
    times = probe.decode(model, steps, features, 3)
    assert times.prefill_s > 0
    assert times.step_s > 0
    assert (model.decoder.n_past, model.held) == (0, [])
    assert math.isnan(probe.decode(model, steps, features, 0).step_s)
