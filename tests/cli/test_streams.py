"""Streams that are closed, full, or hold no text; and Ctrl-C wherever it comes."""

from __future__ import annotations

import _imp
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edgevl import cli
from edgevl.cli import run
from tests.test_cli import EDGEVL, QUESTION, SHAPES

posix = pytest.mark.skipif(os.name == "nt", reason="a shell of this kind is POSIX")


def shell(arguments: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    command = f"{shlex.join([*EDGEVL, *arguments])} {redirection}"
    return subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True)


@posix
@pytest.mark.parametrize(
    ("arguments", "redirection"),
    [
        (["models"], ">&-"),
        (["chat", SHAPES], "<&-"),
        (["ask", SHAPES, QUESTION], ">&-"),
        (["--version"], "<&- >&- 2>&-"),
    ],
)
def test_a_stream_that_is_closed_leads_nowhere(arguments: list[str], redirection: str) -> None:
    said = shell(arguments, redirection)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@posix
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_a_note_that_cannot_be_written_does_not_cost_the_answer(redirection: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    said = shell(["ask", SHAPES, QUESTION, "--within", "1ms"], redirection)
    assert said.returncode == 0
    assert said.stdout.strip()


@posix
def test_a_line_that_is_no_text_is_refused() -> None:
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    said = subprocess.run([*EDGEVL, "chat", SHAPES], input=b"caf\xe9?\n", capture_output=True, env=strict)
    assert said.returncode == 1
    assert said.stderr == b"error: the question is no UTF-8 text: its character 4 is byte 0xE9; write it in UTF-8\n"


@posix
@pytest.mark.parametrize("settings", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "utf-8:strict"}])
def test_half_a_character_is_written_as_an_escape(settings: dict[str, str]) -> None:
    code = r"from edgevl.cli import streams; streams.mend(); print('caf\xe9 \ud800 \udce9')"
    environment = {**os.environ, **settings}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (said.stdout, said.stderr) == (b"caf\xc3\xa9 \\ud800 \\udce9\n", b"")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_json_is_json_whatever_the_output_can_show(encoding: str, tmp_path: Path) -> None:
    image = tmp_path / "caf\xe9 \U0001f600.png"
    image.write_bytes(Path(SHAPES).read_bytes())
    said = subprocess.run(
        [*EDGEVL, "view", str(image), "-o", str(tmp_path / "plan.png"), "--json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert json.loads(said.stdout.decode(encoding))["image"] == str(image)
    assert ("caf\xe9".encode(encoding) in said.stdout) == (encoding == "utf-8")


@pytest.fixture
def heeding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C as the command line heeds it."""
    monkeypatch.setattr(cli, "_ctrl_c", threading.Event())
    before: Any = signal.signal(signal.SIGINT, signal.default_int_handler)
    cli._heed_ctrl_c()
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_waits_while_the_lock_of_imports_is_held(heeding: None) -> None:
    _imp.acquire_lock()
    try:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
    finally:
        _imp.release_lock()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


def test_what_ctrl_c_broke_off_is_no_error_of_its_own(
    heeding: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> NoReturn:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        raise AssertionError("no Ctrl-C came")

    monkeypatch.setattr(cli, "import_module", import_module)
    assert run(["models"]) == 130
    assert capsys.readouterr().err == "\n"
