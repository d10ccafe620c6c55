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

from edgevl.cli import commands, run
from tests.test_cli import EDGEVL, QUESTION, SHAPES
from tests.waiting import heed_ctrl_c

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


INTERRUPTED_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from edgevl.cli import main
main(sys.argv[2:])
"""
"""Ctrl-C comes when the module that the first argument names is looked for."""


@posix
@pytest.mark.parametrize(
    "module", ["click", "edgevl.cli.commands", "edgevl.errors", "edgevl.cli.answers", "edgevl.pipeline", "numpy"]
)
def test_ctrl_c_while_a_module_is_imported_is_no_traceback(module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, module, "ask", SHAPES, QUESTION]
    said = subprocess.run(command, capture_output=True, preexec_fn=heed_ctrl_c)
    assert (said.returncode, said.stdout, said.stderr) == (130, b"", b"\n")


@posix
def test_ctrl_c_that_is_ignored_stays_ignored_while_modules_are_imported() -> None:
    ignored = INTERRUPTED_IMPORT.replace("class", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nclass", 1)
    said = subprocess.run([sys.executable, "-c", ignored, "click", "--version"], capture_output=True)
    assert (said.returncode, said.stderr) == (0, b"")
    assert said.stdout.startswith(b"edgevl, version ")


@posix
def test_ctrl_c_in_the_last_moments_is_no_traceback() -> None:
    code = (
        "import signal, sys\n"
        "from edgevl.cli import commands, main\n"
        "commands.run = lambda arguments: signal.raise_signal(signal.SIGINT)\n"
        "main([])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, preexec_fn=heed_ctrl_c)
    assert (said.returncode, said.stderr) == (130, b"\n")


@pytest.fixture
def heeding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C as the command line heeds it."""
    monkeypatch.setattr(commands, "_ctrl_c", threading.Event())
    before: Any = signal.signal(signal.SIGINT, signal.default_int_handler)
    commands._heed_ctrl_c()
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

    monkeypatch.setattr(commands, "import_module", import_module)
    assert run(["models"]) == 130
    assert capsys.readouterr().err == "\n"
