"""The command line: `edgevl`, and its exit code for a program.

Exit codes: 0; 1 with one line on stderr (what, where, remedy); 2 for wrong usage; 130 for Ctrl-C.

The command starts here, and what Ctrl-C finds before `main` ends with Python's traceback. So this module imports next
to nothing: commands, and the libraries that read their options, come when they are asked for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind a shell's `&`
        signal.signal(signal.SIGINT, end)
    try:
        from edgevl.cli import commands

        commands.main(arguments)
    except KeyboardInterrupt:  # of the last moments, when the command is over and what it wrote is flushed
        end()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    from edgevl.cli import commands

    return commands.run(arguments)


def end(*_: object) -> None:
    """End the process for Ctrl-C, at once: while modules are imported there is nothing to be closed.

    An exception would be raised in the middle of an import, which may swallow it or make another error of it.
    """
    if sys.stderr is not None:  # else its number may be another file's
        with suppress(OSError):
            os.write(2, b"\n")
    os._exit(INTERRUPTED)
