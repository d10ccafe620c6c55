"""The nouns of an evaluation: a question with its pictures and right answers, and what is wrong with one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """A picture where it lies. `where` changes with its content; `load` returns what `edgevl.image.read.read` takes."""

    where: str
    load: Callable[[], Any] = field(compare=False, repr=False)


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
        """The SHA-256 of what a model's answer depends on: all that is asked, and where its pictures lie."""
        prompt = [part if isinstance(part, str) else [part.where] for part in self.prompt]
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
    """Return the picture in a file. Raises OSError where there is none."""
    return Image(stamp(path), lambda: path)


def stamp(path: Path) -> str:
    """Return what tells a file from others and from what it was before. Raises OSError where there is none."""
    stat = path.stat()
    return f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}"
