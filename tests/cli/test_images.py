"""`edgevl view` writes where it may, and never over what it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgevl.cli import run
from tests.cli.test_streams import posix

SHAPES = Path(__file__).parents[2] / "models" / "samples" / "shapes.png"
EDGEVL = (sys.executable, "-m", "edgevl")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture of the user's, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copyfile(SHAPES, tmp_path / "mine.png"))


@pytest.mark.parametrize("way", ["same", "symbolic", "hard"])
def test_view_never_draws_over_the_image(way: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = mine.with_name("link.png")
    if way == "symbolic":
        target.symlink_to(mine)
    elif way == "hard":
        os.link(mine, target)
    else:
        target = mine
    assert run(["view", "mine.png", "-o", str(target)]) == 2
    assert "is the image itself" in capsys.readouterr().err
    assert mine.read_bytes() == SHAPES.read_bytes()


def test_nor_over_what_standard_input_comes_from(mine: Path) -> None:
    with mine.open("rb") as image:
        said = subprocess.run([*EDGEVL, "view", "-", "-o", "mine.png"], stdin=image, capture_output=True, text=True)
    assert said.returncode == 2
    assert "is the image itself" in said.stderr
    assert mine.read_bytes() == SHAPES.read_bytes()


def test_a_drawing_takes_the_place_of_an_earlier_one_alone(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = mine.with_name("mine-tiles.png")
    drawn.write_bytes(b"not edgevl's")
    assert run(["view", "mine.png"]) == 2
    assert "mine-tiles.png: is there already" in capsys.readouterr().err
    assert drawn.read_bytes() == b"not edgevl's"
    assert run(["view", "mine.png", "-o", "mine-tiles.png"]) == 0  # it was asked for
    assert run(["view", "mine.png", "--detail", "low"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("make", ["mkdir", pytest.param("mkfifo", marks=posix)])
def test_what_is_no_file_is_no_earlier_drawing(make: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(os, make)("mine-tiles.png")
    assert run(["view", "mine.png"]) == 2  # and does not wait for ever for what a pipe may bring
    assert "mine-tiles.png: is there already" in capsys.readouterr().err


def test_view_writes_no_file_named_like_standard_output(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["view", "mine.png", "-o", "-"]) == 2
    assert "standard output" in capsys.readouterr().err
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/plan.png", f"{Path('no/such/plan.png')}: there is no such folder to write to"),
        ("", "the name is empty"),
    ],
)
def test_view_draws_nothing_that_it_cannot_write(
    name: str, words: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["view", mine.name, "-o", name, "--model", "no-such"]) == 2  # before anything is opened
    assert words in capsys.readouterr().err
