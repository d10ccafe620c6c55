"""All commands, and how they end. None has logic of its own: each calls the library and prints."""

from __future__ import annotations

import _imp
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

import click

import edgevl
from edgevl.cli import INTERRUPTED, end, streams
from edgevl.errors import EdgeVLError

_HOMES = {
    "ask": "answers",
    "chat": "answers",
    "models": "models",
    "pull": "models",
    "export": "models",
    "import": "models",
    "verify": "models",
    "view": "images",
    "tokens": "images",
    "bench": "bench",
    "eval": "eval",
    "cache": "cache",
    "doctor": "doctor",
}
"""Each command's module. Only the one that is asked for is imported: the others would delay every first word."""
_FUNCTIONS = {"import": "import_", "eval": "evaluate"}
_NO_MEMORY = "there is not enough memory; try a smaller image, --detail low, or a smaller model"
_TO_LOAD = "install edgevl anew: pip install --force-reinstall edgevl"
if os.name == "nt":
    _TO_LOAD += (
        "; onnxruntime needs Microsoft's Visual C++ runtime too: "
        "https://learn.microsoft.com/cpp/windows/latest-supported-vc-redist"
    )
_SOON_S = 0.02
_ctrl_c = threading.Event()


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOMES:
            return None
        module = import_module(f"edgevl.cli.{_HOMES[cmd_name]}")
        command: click.Command = getattr(module, _FUNCTIONS.get(cmd_name, cmd_name))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(edgevl.__version__, prog_name="edgevl")
def cli() -> None:
    """Ask about pictures on your own machine."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    At once: commands close what they open, and taking graphs and modules apart one by one takes longer than most
    answers of the model that comes along.
    """
    streams.mend()
    _heed_ctrl_c()
    code = run(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more, the disk is full, or it was closed
            code = code or 1
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    try:
        result = cli.main(arguments, prog_name="edgevl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:  # of Ctrl-C, whose line click has ended
        return INTERRUPTED
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if _ctrl_c.is_set():
            return _interrupted()
        code = _told(error)
        if code is None:
            raise
        return code


def _heed_ctrl_c() -> None:
    """Note that Ctrl-C came: what it breaks off, such as an import, may end with any other error.

    Where Ctrl-C is ignored, as behind a shell's `&`, it stays ignored. While the lock of imports is held it waits a
    moment: a callback of garbage collection may hold it, and would swallow what is raised there and keep the lock, so
    that the next import waits for ever.
    """

    def interrupt(number: int, frame: object) -> None:
        _ctrl_c.set()
        if _imp.lock_held():
            threading.Timer(_SOON_S, signal.raise_signal, [number]).start()
        else:
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, end):
        signal.signal(signal.SIGINT, interrupt)


def _interrupted() -> int:
    click.echo(err=True)
    return INTERRUPTED


def _told(error: Exception) -> int | None:
    """Say what went wrong and return the exit code; None for an error that nobody foresaw."""
    match error:
        case click.ClickException():
            error.show()
            return error.exit_code
        case EdgeVLError():
            return _fail(str(error))
        case MemoryError():
            return _fail(_NO_MEMORY)
        case ImportError() if re.search("failed to map|bad_alloc|allocate memory", str(error)):
            return _fail(_NO_MEMORY)
        case RuntimeError() if "can't start new thread" in str(error):
            return _fail("the system allows no more threads; allow it more (ulimit -u, or a container's --pids-limit)")
        case ImportError() if not (error.name or "").startswith("edgevl"):  # else it is our own mistake
            return _fail(f"a library that edgevl uses does not load ({error}); {_TO_LOAD}")
        case BrokenPipeError():
            _drop_stdout()
            return 1
        case OSError(errno=errno.ENOSPC):
            return _fail(f"{error.filename or 'output'}: the disk is full; free some space, or write elsewhere")
        case OSError():
            where = error.filename or "input or output"
            return _fail(f"{where}: {error.strerror or error}; check that it may be read and written")
    return None


def _fail(message: str) -> int:
    lines = [line.strip() for line in message.splitlines()]
    click.echo("error: " + " ".join(filter(None, lines)), err=True)
    return 1


def _drop_stdout() -> None:
    """Point stdout nowhere, so that the interpreter's last flush does not fail on the closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
