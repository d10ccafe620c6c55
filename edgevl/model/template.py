"""A model's chat template: messages to text, in jinja2's sandbox.

A module of its own, because jinja2 takes a while to import: it is imported while the graphs load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from edgevl.errors import ManifestError, PromptError
from edgevl.types import ImagePart, Message


class ChatTemplate:
    """A model's chat template, run in jinja2's immutable sandbox.

    Settings, names and tags are those that templates rely on in transformers (utils/chat_template_utils.py).
    """

    def __init__(self, source: str, *, where: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile it; raise ManifestError, naming `where`, if it is not a valid template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["namespace"] = _PlainNamespace
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._where = where
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template: Template = environment.from_string(source)
        except Exception as error:  # jinja2 computes constants and writes Python, whose limits have errors of their own
            raise ManifestError(
                f"{where}: is not a valid chat template ({_one_line(error)}); export the model again"
            ) from error

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt's text, each image as the template writes it, ready for the assistant's answer.

        Raises PromptError with the template's own words if it refuses the messages.
        """
        plain = [{"role": m.role, "content": [_plain(part) for part in m.parts]} for m in messages]
        try:
            # The last two as in transformers, where no tools and no documents are given.
            given = {**self._tokens, "tools": None, "documents": None}
            return self._template.render(messages=plain, add_generation_prompt=True, **given)
        except Exception as error:
            raise PromptError(
                f"{self._where}: the model's chat template refused the messages ({_one_line(error)}); "
                "check their roles and order"
            ) from error


def _plain(part: Any) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part.text}


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it stands for its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _PlainNamespace(Namespace):
    """`namespace(...)` without names that begin with an underscore: Python would call methods under such names."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` stays free as a name inside
        names = dict(*args[1:], **kwargs)
        for name in names:
            _refuse_private(name)
        Namespace.__init__(args[0], names)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace may not hold {name!r}")


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
