"""The nouns of an evaluation: a question with its pictures and right answers, and what is wrong with one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from edgevl.errors import ImageError


@dataclass(frozen=True)
class Image:
    """A picture where it lies. `where` changes when its file does; `load` returns the file, or the picture's bytes."""

    where: str
    load: Callable[[], Path | bytes] = field(compare=False, repr=False)

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes, the same wherever they lie. Raises ImageError where they cannot be read.

        They are read for it once in a process: it is remembered by `where`, which is path, size and date of the file.
        """
        return _digest(self)


@lru_cache(maxsize=1 << 17)
def _digest(image: Image) -> str:
    try:
        content = image.load()
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest()
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error) from error


@dataclass(frozen=True)
class Item:
    """One question. `prompt` is text and pictures in the order in which they are asked, `answers` the right ones.

    `metric` is a name of `edgevl.eval.metrics.METRICS`; `choices` are letters with their texts, where there are any.
    `categories` are what figures are broken down by; items of one `group` can count together, and items of one
    `cluster` are not independent of one another (without it, those that show the same pictures). `before` is asked
    first, in the same conversation, and not graded.
    """

    id: str
    prompt: tuple[str | Image, ...]
    answers: tuple[str, ...]
    metric: str
    choices: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    cluster: str = ""
    before: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures, in order."""
        return tuple(part for part in self.prompt if isinstance(part, Image))

    @property
    def question(self) -> str:
        """The prompt's text."""
        return "".join(part for part in self.prompt if isinstance(part, str))

    @property
    def turns(self) -> tuple[tuple[str | Image, ...], ...]:
        """What is asked, turn by turn; the last is graded. Where something is asked before, it shows the pictures."""
        if not self.before:
            return (self.prompt,)
        first, *more = (*self.before, self.question)
        return ((*self.images, first), *((text,) for text in more))

    @property
    def digest(self) -> str:
        """The SHA-256 of what a model's answer depends on: all that is asked, and its pictures' bytes.

        Raises ImageError for a picture that cannot be read.
        """
        prompt = [part if isinstance(part, str) else [part.digest] for part in self.prompt]
        asked = [prompt, list(self.before)] if self.before else prompt
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class Problem:
    """Something that cannot be asked: where it is, what is wrong in plain English, and the group that it lacks in."""

    where: str
    what: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def image_file(path: Path) -> Image:
    """Return the picture in a file. Raises OSError where there is none, and ImageError for what is no file at all."""
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever, a device may never end
        raise ImageError("is no file but a folder, a pipe or a device")
    return Image(stamp(path), lambda: path)


def stamp(path: Path) -> str:
    """Return what tells a file from others and from what it was before. Raises OSError where there is none."""
    found = path.stat()
    return f"{path.absolute()}:{found.st_size}:{found.st_mtime_ns}"


def told(path: Path) -> str:
    """Return a path as it is printed and written: bytes that are not UTF-8 are escaped, as in \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def unreadable(error: OSError) -> ImageError:
    """Return the error of a picture whose file cannot be read."""
    name = told(Path(os.fsdecode(error.filename))) if error.filename else "its picture"
    return ImageError(f"{name}: cannot be read ({error.strerror or error}); check it")
