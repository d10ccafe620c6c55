"""The standard streams, made fit for whatever the command line is started with."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

import click


class _Notes(io.TextIOWrapper):
    """Standard error that loses what cannot be written: a note must not cost the answer."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def mend() -> None:
    """Let no standard stream end a command: none is missing, none refuses a character, notes may be lost.

    A stream that was closed (`>&-`) leads nowhere. Bytes of standard input that are no text come as what Python makes
    of such bytes in an argument, to be refused where the text is used; what standard output cannot show is written as
    an escape.
    """
    sys.stdin = sys.stdin or _nowhere("r")  # in this order: each takes the number that is free
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = _notes(sys.stderr or _nowhere("w"))
    _tolerate(sys.stdin, "surrogateescape")
    _tolerate(sys.stdout, "backslashreplace")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document, in ASCII where standard output cannot show it: an escape of `mend` is none of JSON."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=1)
    click.echo(text)


def _nowhere(mode: str) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8")  # type: ignore[return-value]  # noqa: PTH123


def _notes(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # some program's own
        return stream
    encoding = stream.encoding
    return _Notes(stream.detach(), encoding, "backslashreplace", line_buffering=True)


def _tolerate(stream: TextIO, errors: str) -> None:
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):  # in the C locale
        stream.reconfigure(errors=errors)
