"""Without a known home folder, as a container has for a user id of its own, nothing ends in a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from edgevl.cli import run
from tests.test_cli import QUESTION, SHAPES

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there, a user has a folder")

VARIABLES = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "EDGEVL_STORE_DIR", "EDGEVL_PROFILE_DIR", "EDGEVL_MODELS_DIR")
OTHER_PROGRAMS = ("OLLAMA_MODELS", "LLAMA_CACHE")


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a user that the system does not know; return the working folder, which is empty."""
    import pwd

    def unknown(user_id: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {user_id}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    for variable in (*VARIABLES, *OTHER_PROGRAMS):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize("more", [[], ["--within", "10s"]])
def test_a_question_is_answered(no_home: Path, capfd: pytest.CaptureFixture[str], more: list[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, *more]) == 0
    out, err = capfd.readouterr()
    assert (out.strip() != "", err) == (True, "")
    assert list(no_home.iterdir()) == []


@pytest.mark.parametrize("arguments", [["verify"], ["doctor"], ["tokens", SHAPES]])
def test_what_keeps_nothing_works(arguments: list[str]) -> None:
    assert run(arguments) == 0


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["models"], "set HOME, or EDGEVL_MODELS_DIR to a folder"),
        (["ask", SHAPES, QUESTION, "-m", "some-name"], "set HOME, or EDGEVL_MODELS_DIR to a folder"),
        (["cache"], "set HOME, or EDGEVL_STORE_DIR to a folder"),
        (["cache", "clear"], "set HOME, or EDGEVL_STORE_DIR to a folder"),
        (["models", "--found"], "set HOME"),
        (["import", "ollama:llava"], "set HOME"),
    ],
)
def test_what_needs_a_folder_says_so(
    no_home: Path, arguments: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 1
    assert capsys.readouterr().err == f"error: no home folder is known here; {remedy}\n"
    assert list(no_home.iterdir()) == []


def test_a_folder_that_is_named_is_used(
    no_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_home / "cache"))
    assert run(["cache"]) == 0
    assert capsys.readouterr().out.startswith(str(no_home / "cache" / "edgevl" / "store"))
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(no_home))
    assert run(["models"]) == 0


def test_a_model_in_the_working_folder_is_found(no_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgevl.model import hub

    (no_home / "here").symlink_to(hub.installed_folder() / hub.BUNDLED)
    assert run(["tokens", SHAPES, "-m", "here"]) == 0
