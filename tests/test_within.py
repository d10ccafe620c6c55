"""A budget to the first token, through Python and the command line, with the bundled model.

Predictions come from a profile that is written here, so that nothing depends on the machine: a tile takes a second.
"""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgevl
from edgevl import ContextOverflow, InputError, probe
from edgevl.cli import run
from edgevl.image.read import read
from edgevl.latency import kept
from edgevl.latency.profile import Profile
from edgevl.model import hub, manifest
from edgevl.types import Forecast, Seen

SAMPLES = Path(__file__).parents[1] / "models" / "samples"
SHAPES = str(SAMPLES / "shapes.png")  # 512x512: 5 tiles at most
WIDE = str(SAMPLES / "wide.png")  # 384x192: 3 tiles at most
QUESTION = "what's here?"
SECOND_A_TILE = Profile(0, 0, 1.0, 1.0, 0, 0, 0, 0, 0)


def key() -> kept.Key:
    return kept.key_of(manifest.read(hub.find(None)).content_id, device="auto", threads=None)


@pytest.fixture(autouse=True)
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a profile for this test, let none be measured, and begin with an empty store."""
    monkeypatch.setenv("EDGEVL_STORE_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "profiles"))
    monkeypatch.setattr(probe, "measure", lambda *_: pytest.fail("the profile was measured"))
    kept.write(key(), SECOND_A_TILE)


@pytest.fixture
def vlm() -> Iterator[edgevl.VLM]:
    with edgevl.load(store=False) as opened:
        yield opened


def forecast_of(answer: edgevl.Answer) -> Forecast:
    assert answer.forecast is not None
    return answer.forecast


@pytest.mark.parametrize(
    ("within", "n_tiles", "fits"), [(6.0, 5, True), ("4s", 1, True), ("1500ms", 1, True), (0.5, 1, False)]
)
def test_an_image_gets_the_tiles_that_fit(vlm: edgevl.VLM, within: float | str, n_tiles: int, fits: bool) -> None:
    answer = vlm.ask(SHAPES, QUESTION, within=within, max_tokens=1)
    forecast = forecast_of(answer)
    assert answer.images[0].n_tiles == answer.images[0].n_encoded == forecast.images[0].n_tiles == n_tiles
    assert forecast.fits is fits
    assert forecast.encode_s == n_tiles
    assert forecast.first_token_s == pytest.approx(n_tiles + forecast.read_s)


def test_detail_is_the_most_that_a_budget_gives(vlm: edgevl.VLM) -> None:
    for detail, n_tiles in (("low", 1), (1, 1), (5, 5), ("high", 5)):
        answer = vlm.ask(SHAPES, QUESTION, within=100, detail=detail, max_tokens=1)
        assert answer.images[0].n_tiles == n_tiles
        assert forecast_of(answer).note == ""


def test_without_a_budget_there_is_no_forecast(vlm: edgevl.VLM) -> None:
    kept.forget(key())
    answer = vlm.ask(SHAPES, QUESTION, max_tokens=1)
    assert answer.forecast is None
    assert answer.images[0].n_tiles == 5


def test_the_answer_is_that_of_the_same_plan(vlm: edgevl.VLM) -> None:
    within = vlm.ask(SHAPES, QUESTION, within=2)
    assert within.token_ids == vlm.ask(SHAPES, QUESTION, detail="low").token_ids


@pytest.mark.parametrize(("within", "counts"), [(9, [5, 3]), (5, [1, 3]), (3, [1, 1]), (1, [1, 1])])
def test_several_images_share_the_budget(vlm: edgevl.VLM, within: float, counts: list[int]) -> None:
    forecast = forecast_of(vlm.ask([SHAPES, WIDE], QUESTION, within=within, max_tokens=1))
    assert [image.n_tiles for image in forecast.images] == counts
    assert forecast.fits is (within > 1)


def test_plans_that_do_not_fit_into_the_context_are_left_out(vlm: edgevl.VLM) -> None:
    answer = vlm.ask([SHAPES] * 7, QUESTION, within=100, max_tokens=1)
    assert [image.n_tiles for image in answer.images] == [1] * 7
    assert forecast_of(answer).fits
    with pytest.raises(ContextOverflow, match="give fewer images"):
        vlm.ask([SHAPES] * 40, QUESTION, within=100, max_tokens=1)


def test_what_is_held_already_costs_nothing(vlm: edgevl.VLM) -> None:
    first = vlm.ask(SHAPES, QUESTION, within=100, max_tokens=1)
    second = vlm.ask(SHAPES, "how many objects are there?", within=0.5, max_tokens=1)
    assert (first.images[0].n_tiles, second.images[0].n_tiles) == (5, 5)
    assert second.images[0].n_encoded == 0
    forecast = forecast_of(second)
    assert forecast.fits
    assert forecast.encode_s == 0
    assert forecast.note == ""


def test_what_is_stored_already_costs_nothing(tmp_path: Path) -> None:
    for within, n_encoded in ((100, 5), (0.5, 0)):
        with edgevl.load(store=tmp_path / "store") as vlm:
            kept.write(key(), SECOND_A_TILE)
            answer = vlm.ask(SHAPES, QUESTION, within=within, max_tokens=1)
            assert (answer.images[0].n_tiles, answer.images[0].n_encoded) == (5, n_encoded)


def test_tiles_stored_of_another_picture_are_predicted_as_if_they_had_to_be_encoded(vlm: edgevl.VLM) -> None:
    rgb = read(SHAPES).rgb
    changed = rgb.copy()
    changed[:8, :8] = 0
    vlm.ask(rgb, QUESTION, max_tokens=1)
    answer = vlm.ask(changed, QUESTION, within=100, max_tokens=1)
    assert forecast_of(answer).encode_s == 5
    assert answer.images[0].n_encoded == 2, "the changed tile and the overview"


def test_a_chat_keeps_its_plan(vlm: edgevl.VLM) -> None:
    chat = vlm.chat(within=2)
    first, second = chat.ask(QUESTION, SHAPES), chat.ask("how many objects are there?")
    assert first.images[0].n_tiles == second.images[0].n_tiles == 1
    assert second.images[0].n_encoded == 0


def test_features_keep_their_plan_and_cost_no_encoding(vlm: edgevl.VLM) -> None:
    features = vlm.encode(SHAPES)
    forecast = forecast_of(vlm.ask(features, QUESTION, within=0.5, max_tokens=1))
    assert (forecast.images[0].n_tiles, forecast.encode_s, forecast.fits) == (5, 0, True)
    with pytest.raises(InputError, match="nothing to preview"):
        vlm.preview(features)


def test_text_alone_has_a_forecast_too(vlm: edgevl.VLM) -> None:
    forecast = forecast_of(vlm.ask(None, "hello", within=1, max_tokens=1))
    assert (forecast.images, forecast.fits) == ((), True)


def test_the_first_question_after_opening_is_slower(vlm: edgevl.VLM) -> None:
    kept.write(key(), Profile(0, 0, 1.0, 1.0, 0, 0, 0, 10.0, 0))
    cold, warm = (forecast_of(vlm.ask(SHAPES, q, within=100, max_tokens=1)) for q in (QUESTION, "is it red?"))
    assert cold.first_token_s > 15
    assert warm.first_token_s < 10


def test_a_preview_predicts_and_asks_nothing(vlm: edgevl.VLM) -> None:
    preview = vlm.preview(SHAPES, within=2)
    assert preview.plan.n_tiles == 1
    assert preview.picture.size == (512, 512)
    assert preview.forecast.first_token_s == pytest.approx(1 + preview.forecast.read_s)
    assert vlm.preview(SHAPES).plan.n_tiles == 5
    assert not vlm._open().is_warm


@pytest.mark.parametrize("within", ["soon", 0, -1, float("nan"), True])
def test_a_bad_budget_is_refused_before_anything_else(vlm: edgevl.VLM, within: object) -> None:
    with pytest.raises(InputError, match="it must be a time above 0"):
        vlm.stream("nowhere.png", QUESTION, within=within)
    with pytest.raises(InputError, match="it must be a time above 0"):
        vlm.preview("nowhere.png", within=within)  # type: ignore[arg-type]


def test_a_profile_is_measured_once_and_kept(vlm: edgevl.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.forget(key())
    measured: list[object] = []

    def measure(model: object, seconds: float) -> Profile:
        measured.append(model)
        return SECOND_A_TILE

    monkeypatch.setattr(probe, "measure", measure)
    for _ in range(2):
        assert vlm.preview(SHAPES, within=2).plan.n_tiles == 1
    with edgevl.load(store=False) as other:
        assert other.preview(SHAPES, within=2).plan.n_tiles == 1
    assert len(measured) == 1


def test_a_damaged_profile_is_measured_again(vlm: edgevl.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_files = list(kept.folder().iterdir())
    assert kept_files
    for file in kept_files:  # what runs the vision graph is kept beside it
        file.write_text("{")
    monkeypatch.setattr(probe, "measure", lambda *_: SECOND_A_TILE)
    assert vlm.preview(SHAPES, within=2).plan.n_tiles == 1
    assert kept.read(key()) == SECOND_A_TILE


def test_a_measurement_waits_for_the_running_answer(vlm: edgevl.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.forget(key())
    monkeypatch.setattr(probe, "measure", lambda *_: SECOND_A_TILE)
    done = threading.Event()

    def other() -> None:
        vlm.preview(SHAPES)
        done.set()

    with vlm.stream(SHAPES, QUESTION) as stream:
        next(stream)
        with pytest.raises(edgevl.Busy):
            vlm.preview(SHAPES)
        thread = threading.Thread(target=other)
        thread.start()
        assert not done.wait(0.05)
    thread.join()
    assert done.is_set()


def test_a_profile_that_was_far_off_is_forgotten(vlm: edgevl.VLM) -> None:
    vlm.ask(SHAPES, QUESTION, within=100, max_tokens=1)  # predicted 5 s, a small part of that on any machine
    assert kept.read(key()) is None


def test_a_profile_is_not_judged_by_work_that_was_not_done(vlm: edgevl.VLM) -> None:
    blank = np.zeros((256, 256, 3), np.uint8)
    answer = vlm.ask(blank, QUESTION, within=100, max_tokens=1)
    assert answer.images[0].n_encoded == 1 < answer.images[0].n_tiles
    cancelled = threading.Event()
    cancelled.set()
    vlm.ask(SHAPES, QUESTION, within=100, cancel=cancelled)
    assert kept.read(key()) == SECOND_A_TILE


def test_a_profile_is_not_judged_by_the_wait_before_a_stream_is_read(vlm: edgevl.VLM) -> None:
    profile = replace(SECOND_A_TILE, encode_s=0.2, encode_more_s=0.2)  # a second, most of it slept away
    kept.write(key(), profile)
    stream = vlm.stream(SHAPES, QUESTION, within=100, max_tokens=1, on_tile=lambda *_: time.sleep(0.13))
    request = inspect.getgeneratorlocals(stream._deltas)["request"]
    request.started, request.ready = request.started - 60, request.ready - 60
    answer = stream.finish()
    assert answer.timings.first_token_s > 60, "whoever asked has waited for a minute"
    assert kept.read(key()) == profile


# The note.


def forecast(within_s: float | None, first_token_s: float, *images: Seen) -> Forecast:
    fits = within_s is None or first_token_s <= within_s
    return Forecast(within_s, fits, first_token_s, 0, 0, 0, 0, images)


LOST = Seen(1, 17, (1536, 2048), (384, 512))
WHOLE = Seen(5, 5, (512, 512), (512, 512))


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (forecast(None, 3, LOST), ""),
        (forecast(2, 1.31, WHOLE), ""),
        (
            forecast(2, 1.31, LOST),
            "1 of 17 tiles: 2048x1536 read as 512x384, to fit 2 s (the first word is predicted in 1.3 s)",
        ),
        (
            forecast(2, 3.1, LOST),
            "1 of 17 tiles: 2048x1536 read as 512x384; the first word is predicted in 3.1 s with the fewest tiles, "
            "over the budget of 2 s",
        ),
        (
            forecast(2, 1.3, WHOLE, LOST),
            "image 2: 1 of 17 tiles: 2048x1536 read as 512x384, to fit 2 s (the first word is predicted in 1.3 s)",
        ),
        (
            forecast(0.8, 3.1, WHOLE),
            "the first word is predicted in 3.1 s with the fewest tiles, over the budget of 0.8 s",
        ),
        (forecast(0.8, 3.1), "the first word is predicted in 3.1 s, over the budget of 0.8 s"),
        (forecast(80, 99.7), "the first word is predicted in 100 s, over the budget of 80 s"),
        (forecast(1500, 4321), "the first word is predicted in 4321 s, over the budget of 1500 s"),
    ],
)
def test_notes(given: Forecast, note: str) -> None:
    assert given.note == note


# The command line.


def test_ask_says_what_the_image_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, "--within", "2s"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert err.startswith("note: 1 of 5 tiles: 512x512 read as 128x128, to fit 2 s (the first word is predicted in 1")
    assert err.count("\n") == 1


def test_ask_says_that_the_least_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, "--within", "800ms", "--detail", "low"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("note: the first word is predicted in 1")
    assert err.endswith("with the fewest tiles, over the budget of 0.8 s\n")


def test_ask_says_nothing_where_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, "--within", "100"]) == 0
    assert capsys.readouterr().err == ""


def test_json_holds_plan_prediction_and_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, "--within", "2s", "--json", "--max-tokens", "1"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["images"][0]["n_tiles"] == 1
    assert document["forecast"]["within_s"] == 2
    assert document["forecast"]["fits"] is True
    assert document["forecast"]["images"] == [
        {"n_tiles": 1, "n_tiles_asked": 5, "size": [512, 512], "read_as": [128, 128]}
    ]
    assert err.count("note: ") == 1


def test_view_shows_plan_prediction_and_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "plan.png")
    assert run(["view", SHAPES, "-o", target, "--within", "2s"]) == 0
    out, err = capsys.readouterr()
    assert "the overview alone of 128 px" in out
    assert "to the first word here" in out
    assert "1.00 s to encode" in out
    assert err.startswith("note: 1 of 5 tiles")
    assert run(["view", SHAPES, "-o", target, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["n_tiles"] == 5
    assert document["forecast"]["within_s"] is None
    assert document["forecast"]["encode_s"] == 5
    assert err == ""


def test_chat_says_it_for_every_image(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n"))
    assert run(["chat", SHAPES, "--within", "2s"]) == 0
    assert capsys.readouterr().err.count("note: 1 of 5 tiles") == 1


@pytest.mark.parametrize("time", ["soon", "0", "-2s", "2m", ""])
@pytest.mark.parametrize("command", [["ask", SHAPES, QUESTION], ["view", SHAPES], ["chat"]])
def test_a_bad_time_is_wrong_usage(command: list[str], time: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--within", time]) == 2
    assert "it must be a time above 0, such as 2s, 1.5s or 800ms" in capsys.readouterr().err
