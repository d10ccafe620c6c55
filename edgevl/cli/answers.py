"""`edgevl ask` and `edgevl chat`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from edgevl.cli import options

if TYPE_CHECKING:
    from edgevl.chat import Chat
    from edgevl.pipeline import Stream


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="IMAGE... QUESTION")
@options.model
@options.image
@options.within
@options.sampling
@options.machine
@click.option("--system", metavar="TEXT", help="Instructions to the model, before the question.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the words.")
def ask(words: tuple[str, ...], model: str | None, system: str | None, as_json: bool, **settings: Any) -> None:
    """Ask a QUESTION about one or more images; an IMAGE is a file, a data URL, or - for stdin."""
    *images, question = words
    if not images:
        raise click.UsageError('give at least one image and a question: edgevl ask photo.jpg "what\'s here?"')
    if os.path.isfile(question):  # noqa: PTH113 - a question may hold what no path may
        raise click.UsageError(f"the last argument must be the question, but {question!r} is a file")
    import edgevl

    machine, request = options.split(settings)
    with edgevl.load(model, low_memory=True, **machine) as vlm, _tile_bar() as on_tile:
        stream = vlm.stream(list(images), question, system=system, on_tile=on_tile, **request)
        if as_json:
            options.note_forecast(stream.forecast)
            click.echo(json.dumps(stream.finish().to_dict(), indent=1, ensure_ascii=False))
        else:
            _print(stream)


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@options.model
@options.image
@options.within
@options.sampling
@options.machine
@click.option("--system", metavar="TEXT", help="Instructions to the model, before the first question.")
def chat(images: tuple[str, ...], model: str | None, system: str | None, **settings: Any) -> None:
    """Talk about images, one question a line, until the end of input.

    `/image FILE` adds an image to the next question, `/reset` begins anew, `/quit` ends.
    """
    import edgevl

    machine, request = options.split(settings)
    with edgevl.load(model, **machine) as vlm:
        conversation = vlm.chat(system=system, **request)
        waiting = list(images)
        _note(f"{vlm.name}; one question a line, /image FILE adds an image, /quit ends")
        for line in _lines():
            command, _, argument = line.partition(" ")
            if command == "/quit":
                return
            if command == "/reset":
                conversation, waiting = vlm.chat(system=system, **request), list(images)
            elif command == "/image":
                waiting.append(argument.strip())
            else:
                _turn(conversation, line, waiting)
                waiting = []


def _turn(conversation: Chat, question: str, images: list[str]) -> None:
    """Print one turn of a chat; at a terminal an error is shown and the conversation goes on."""
    from edgevl.errors import InputError

    try:
        with _tile_bar() as on_tile:
            _print(conversation.stream(question, images, on_tile=on_tile))
    except InputError as error:
        if not sys.stdin.isatty():
            raise
        click.echo(f"error: {error}", err=True)


def _lines() -> Iterator[str]:
    """Yield the non-empty lines of stdin, with a prompt at a terminal."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _print(stream: Stream) -> None:
    """Write the words to stdout as they come."""
    options.note_forecast(stream.forecast)
    with stream:
        for delta in stream:
            click.echo(delta.text, nl=False)
            sys.stdout.flush()
    click.echo()
    if stream.answer.finish_reason == "length":
        n_tokens = stream.answer.usage.completion_tokens
        _note(f"the answer was cut after {n_tokens} tokens; --max-tokens allows more")


def _note(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"note: {text}", err=True)


@contextmanager
def _tile_bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback that draws a per-tile bar on stderr, or None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def draw(done: int, total: int) -> None:
        width = 24
        filled = width * done // total
        bar = "#" * filled + "-" * (width - filled)
        click.echo(f"\rimage [{bar}] {done}/{total} tiles", nl=False, err=True)
        if done == total:
            click.echo("\r\033[K", nl=False, err=True)

    yield draw
