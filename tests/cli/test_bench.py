"""`edgevl bench` as users meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from edgevl import machine
from edgevl.bench import measure, result
from edgevl.bench.pictures import synthetic
from edgevl.cli import run
from edgevl.image.read import jpeg_bytes
from tests.bench.results import result as made
from tests.bench.results import row


def test_it_prints_and_writes_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PROFILE_S", 0.01)
    out, html = tmp_path / "out.json", tmp_path / "out.html"
    arguments = ["bench", "--sizes", "64", "--threads", "1", "--rounds", "1", "--json", str(out), "--html", str(html)]
    assert run(arguments) == 0
    said, err = capsys.readouterr()
    assert err == ""
    assert said.startswith("edgevl-tiny, a made picture, 1 round, ")
    assert "encode, a tile alone, ms" in said
    assert [row.size for row in result.load(out).rows] == [None, (64, 64)]
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_a_picture_over_the_limit_is_told_to_use_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PROFILE_S", 0.01)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg_bytes(synthetic(400)))
    limits = ["--image", str(photo), "--max-pixels", "50000"]
    assert run(["bench", *limits]) == 1
    assert capsys.readouterr().err == (
        f"error: {photo}: is 400x400 pixels (width x height), 160,000 in all, over the limit of 50,000; "
        "shrink it, or use --reduce or --max-pixels (in Python: reduce or max_pixels)\n"
    )
    assert run(["bench", *limits, "--reduce", "--threads", "1", "--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^1 thread +200x200$", out, re.MULTILINE)


def test_settings_and_comparison_get_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[measure.Settings] = []

    def fake(settings: measure.Settings, on_step: object) -> result.Result:
        asked.append(settings)
        return made([row(seed=1, encode_s=1.3)])

    monkeypatch.setattr(measure, "measure", fake)
    old = tmp_path / "old.json"
    old.write_text(made().to_json(), encoding="utf-8")
    options = ["--sizes", "512, 64,512", "--threads", "4,1", "--rounds", "3", "--cold", "--image", "a.png"]
    options += ["--max-pixels", "5", "--reduce"]
    assert run(["bench", "edgevl-tiny", *options, "--compare", str(old)]) == 0
    [settings] = asked
    assert (settings.sides, settings.threads, settings.rounds, settings.cold) == ((512, 64), (4, 1), 3, True)
    assert (settings.image, settings.max_pixels, settings.reduce) == (Path("a.png"), 5, True)
    assert capsys.readouterr().out.endswith("verdict: slower in 1, no difference in 6\n")


@pytest.mark.parametrize(
    ("factors", "code"),
    [({}, 0), ({"encode_s": 1.3}, 1), ({"peak_memory_bytes": 1.5}, 1), ({"encode_s": 0.7}, 0)],
)
def test_a_check_fails_where_something_is_worse(
    factors: dict[str, float], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *_: made([row(seed=1, **factors)]))
    old = tmp_path / "old.json"
    old.write_text(made().to_json(), encoding="utf-8")
    assert run(["bench", "--compare", str(old), "--check"]) == code
    assert run(["bench", "--compare", str(old)]) == 0


def test_a_check_that_can_judge_nothing_fails_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *_: made([row(n=3)]))
    old = tmp_path / "old.json"
    old.write_text(made([row(n=3)]).to_json(), encoding="utf-8")
    assert run(["bench", "--compare", str(old), "--check"]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {old}: nothing could be judged; --check needs the same figures in 4 rounds then and now\n"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--check"], 2, "--check needs --compare OLD.json"),
        (["--reduce"], 2, "--reduce and --max-pixels are for a picture of yours; give --image FILE too"),
        (["--max-pixels", "9"], 2, "--reduce and --max-pixels are for a picture of yours; give --image FILE too"),
        (["--sizes", "big"], 2, "'big' must be whole numbers from 16 to 8192"),
        (["--sizes", "8"], 2, "from 16 to 8192"),
        (["--sizes", "256,,512"], 2, "must be whole numbers"),
        (["--threads", "0"], 2, "'0' must be whole numbers from 1 to"),
        (["--threads", "1,99999"], 2, "'1,99999' must be whole numbers from 1 to"),
        (["--rounds", "0"], 2, "--rounds"),
        (
            ["--json", "no/such/folder/out.json"],
            2,
            f"{Path('no/such/folder/out.json')}: there is no such folder to write to",
        ),
        (["--json", ""], 2, "the name is empty; give a file"),
        (["--html", ""], 2, "the name is empty; give a file"),
        (["--json", "out", "--html", "./out"], 2, "out: is named for --json and for --html; give two files"),
        (["--json", "-"], 2, "the report goes to standard output; name a file for --json and --html"),
        (["--image", "mine.png", "--json", "./mine.png"], 2, "is the picture itself and would be lost; name another"),
        (["--compare", "old.json", "--html", "old.json"], 2, "is what --compare reads and would be lost; name another"),
        (["--compare", "old.json"], 1, "error: old.json: is a damaged result of edgevl bench (lacks 'machine')"),
        (["--compare", "nowhere.json"], 1, "error: nowhere.json: cannot be read"),
        (["--image", "nowhere.png"], 1, "error: nowhere.png: no such file"),
        (["no-such-model"], 1, "error: no-such-model: no model of this name"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(
    options: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.json").write_text(json.dumps({"edgevl_bench": 1}))
    Path("mine.png").write_bytes(b"a picture")
    assert run(["bench", *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert code == 2 or err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signal")
def test_a_measurement_that_is_told_to_end_removes_what_it_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def told(settings: Any, on_step: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            folders.append(Path(folder))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(measure, "measure", told)
    with pytest.raises(SystemExit) as caught:
        run(["bench"])
    assert (caught.value.code, [folder.exists() for folder in folders]) == (143, [False])
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_of_two_files_is_written_where_the_other_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *_: made())
    full, page = tmp_path / "full", tmp_path / "page.html"
    full.symlink_to("/dev/full") if Path("/dev/full").exists() else pytest.skip("there is no such device here")
    assert run(["bench", "--json", str(full), "--html", str(page)]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert page.stat().st_size > 1000


def test_as_many_threads_as_edgevl_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "measure", lambda settings, _: made() if settings.threads == (most,) else None)
    most = machine.most_threads()
    assert machine.checked_threads(most) == most
    assert run(["bench", "--threads", str(most)]) == 0
    assert run(["bench", "--threads", str(most + 1)]) == 2


def test_a_bar_is_drawn_at_a_terminal_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevl.cli.bar import bar

    with bar() as draw:
        assert draw is None
    with bar(every_s=30) as tell:
        assert tell is not None
        monkeypatch.setattr("time.monotonic", iter([time.monotonic() + late for late in (1, 31, 60, 62)]).__next__)
        for done in range(4):
            tell(done, 4, "asked")
    assert capsys.readouterr().err == "1/4 asked\n3/4 asked\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with bar() as draw:
        assert draw is not None
        draw(1, 2, "512x512, 1 thread")
    assert "[############------------] 1/2 512x512, 1 thread" in capsys.readouterr().err
