"""Streams that are closed, full, or hold no text; and Ctrl-C wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edgevl import cli
from edgevl.cli import run, streams
from tests.test_cli import EDGEVL, QUESTION, SHAPES

posix = pytest.mark.skipif(os.name == "nt", reason="a shell of this kind is POSIX")


@pytest.fixture
def own_streams() -> Iterator[None]:
    """Close the standard streams that a test has put in the place of those that were there."""
    before = sys.stdin, sys.stdout, sys.stderr
    yield
    for stream in {sys.stdin, sys.stdout, sys.stderr} - {*before}:
        with suppress(OSError):
            stream.close()
    sys.stdin, sys.stdout, sys.stderr = before


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_is_closed_leads_nowhere(name: str, capfd: pytest.CaptureFixture[str], own_streams: None) -> None:
    for other in ("stdin", "stdout", "stderr"):
        setattr(sys, other, None if other == name else open(os.devnull, "w"))  # noqa: PTH123, SIM115
    streams.mend()
    assert run(["models"]) == 0
    assert run(["chat", SHAPES] if name == "stdin" else ["ask", SHAPES, QUESTION]) == 0
    assert "Traceback" not in capfd.readouterr().err


@posix
def test_all_streams_may_be_closed() -> None:
    command = f"{' '.join(map(repr, EDGEVL[:2]))} {EDGEVL[2]!r} --version <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_note_that_cannot_be_written_does_not_cost_the_answer(
    capsys: pytest.CaptureFixture[str], own_streams: None
) -> None:
    sys.stderr = open("/dev/full", "w")  # noqa: PTH123, SIM115
    streams.mend()
    assert run(["ask", SHAPES, QUESTION, "--within", "1ms"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_has_a_remedy(capsys: pytest.CaptureFixture[str], own_streams: None) -> None:
    sys.stdout = open("/dev/full", "w")  # noqa: PTH123, SIM115
    assert run(["--version"]) == 1
    assert capsys.readouterr().err == "error: output: the disk is full; free some space, or write elsewhere\n"


@posix
def test_a_line_that_is_no_text_is_refused() -> None:
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    said = subprocess.run([*EDGEVL, "chat", SHAPES], input=b"caf\xe9?\n", capture_output=True, env=strict)
    assert said.returncode == 1
    assert said.stderr == b"error: the question is no UTF-8 text: its character 4 is byte 0xE9; write it in UTF-8\n"


def test_what_ctrl_c_broke_off_is_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> NoReturn:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        raise AssertionError("no Ctrl-C came")

    monkeypatch.setattr(cli, "_ctrl_c", threading.Event())
    monkeypatch.setattr(cli, "import_module", import_module)
    before: Any = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli._heed_ctrl_c()
        assert run(["models"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "\n"
