"""`edgevl ask` and `edgevl chat`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from edgevl.cli import options
from edgevl.cli.streams import print_json
from edgevl.errors import InputError
from edgevl.machine import expanded

if TYPE_CHECKING:
    from edgevl.pipeline import VLM, Stream

_COMMANDS = ("/image", "/reset", "/quit")


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
    if question == "-":
        raise click.UsageError("the last argument must be the question, but '-' stands for an image")
    if images.count("-") > 1:
        raise click.UsageError("- stands for standard input, which can be read once; give the other images as files")
    for word in images[1:]:
        if word.isalpha() and not os.path.lexists(word):
            raise click.UsageError(f"{word}: no such file; a question of several words is one argument, in quotes")
    import edgevl

    machine, request = options.split(settings)
    with edgevl.load(model, low_memory=True, **machine) as vlm, _tile_bar() as on_tile:
        stream = vlm.stream(list(images), question, system=system, on_tile=on_tile, **request)
        if as_json:
            options.note_forecast(stream.forecast)
            print_json(stream.finish().to_dict())
        else:
            _print(stream, request["max_tokens"])


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

    `/image FILE` adds an image to the next question that is answered. `/reset` begins anew with the IMAGEs given
    here; those added since are forgotten. `/quit` ends.
    """
    if "-" in images:
        raise click.UsageError("- cannot be an image here: standard input brings the questions; give a file")
    import edgevl

    machine, request = options.split(settings)
    opened = [_open(image, request) for image in images]
    with edgevl.load(model, **machine) as vlm:
        talk = _Talk(vlm, opened, {"system": system, **request})
        _note(f"{vlm.name}; one question a line, /image FILE adds an image, /reset begins anew, /quit ends")
        for line in _lines():
            if line.split()[0] == "/quit":
                return
            try:
                talk.take(line)
            except InputError as error:
                if not sys.stdin.isatty():
                    raise
                click.echo(f"error: {error}", err=True)


class _Talk:
    """A conversation, and the images that wait for its next question.

    They wait until a question is answered: one that is refused does not lose them.
    """

    def __init__(self, vlm: VLM, images: Sequence[Any], settings: dict[str, Any]) -> None:
        self._vlm, self._images, self._settings = vlm, images, settings
        self._waiting: list[Any]
        self._reset()

    def take(self, line: str) -> None:
        """Do what a line of input asks for; raise InputError for what cannot be done or answered."""
        if "\x1b" in line:
            raise InputError("this line holds a key's code, such as that of an arrow; type it again")
        command, *argument = line.split(maxsplit=1)
        if command == "/reset":
            self._reset()
        elif command == "/image":
            self._waiting.append(_open_added("".join(argument), self._settings))
        elif _is_command(line):
            raise InputError(f"{command}: no such command; there are {', '.join(_COMMANDS)}")
        else:
            with _tile_bar() as on_tile:
                _print(self._chat.stream(line, self._waiting, on_tile=on_tile), self._settings["max_tokens"])
            self._waiting = []

    def _reset(self) -> None:
        self._chat = self._vlm.chat(**self._settings)
        self._waiting = list(self._images)


def _is_command(line: str) -> bool:
    """Return whether a line was meant as a command: one word such as /help, or a command in other letters.

    A question may begin with a path, which has a second slash or words behind it.
    """
    word = line.split()[0]
    return word.lower() in _COMMANDS or (word == line and re.fullmatch(r"/[^/]*", word) is not None)


def _open(image: str, settings: dict[str, Any]) -> Any:
    """Read an image at once, so that one that cannot be read never waits for a question."""
    from edgevl.request import read_picture

    return read_picture(image, settings["max_pixels"], settings["reduce"])


def _open_added(image: str, settings: dict[str, Any]) -> Any:
    if not image:
        raise InputError("/image needs the name of a file: /image photo.jpg")
    if image == "-":
        raise InputError("/image -: standard input brings the questions; give a file")
    if len(image) > 1 and image[0] == image[-1] and image[0] in "'\"" and not os.path.lexists(image):
        image = image[1:-1]  # as terminals write a file that is dragged into them
    return _open(str(expanded(image)) if image.startswith("~") else image, settings)  # which no shell has done


def _lines() -> Iterator[str]:
    """Yield the non-empty lines of stdin, with a prompt at a terminal."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            if sys.stdin.isatty():
                click.echo(err=True)
            return
        if line := line.removeprefix("\ufeff").strip():  # the mark of byte order that Windows begins files with
            yield line


def _print(stream: Stream, max_tokens: int) -> None:
    """Write the words to stdout as they come, and say what an answer that was cut ran into."""
    options.note_forecast(stream.forecast)
    with stream:
        for delta in stream:
            click.echo(delta.text, nl=False)
            sys.stdout.flush()
    click.echo()
    if stream.answer.finish_reason == "length":
        n_tokens = stream.answer.usage.completion_tokens
        more = "--max-tokens allows more"
        if n_tokens < max_tokens:
            more = "the context is full, and fewer tiles, a shorter text or a new conversation leave more room"
        _note(f"the answer was cut after {n_tokens} tokens; {more}")


def _note(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"note: {text}", err=True)


@contextmanager
def _tile_bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback that draws a per-tile bar on stderr, or None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    is_shown = False

    def draw(done: int, total: int) -> None:
        nonlocal is_shown
        width, is_shown = 24, done < total
        filled = width * done // total
        bar = "#" * filled + "-" * (width - filled)
        click.echo(f"\rimage [{bar}] {done}/{total} tiles", nl=False, err=True)
        if done == total:
            click.echo("\r\033[K", nl=False, err=True)

    try:
        yield draw
    finally:
        if is_shown:  # what went wrong is told next; where a bar was whole, words stand by now
            click.echo("\r\033[K", nl=False, err=True)
