"""The wrong answers as one HTML page with their pictures: it opens offline and loads nothing."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from edgevl.bench.page import document, table
from edgevl.errors import ImageError, InputError
from edgevl.eval.figures import Answered
from edgevl.eval.item import Image, Item
from edgevl.eval.report import difference_line, headline, labels, notes, rows
from edgevl.eval.results import check_is_file
from edgevl.eval.run import Evaluation, evenly
from edgevl.image.read import jpeg_bytes, read, resize

MAX_SHOWN = 200
"""Wrong answers of one kind that the page shows, spread evenly over all of them."""
MAX_PICTURES = 8
SIDE = 320
"""The longer side of a picture on the page, in pixels."""

_STYLE = """
.item { border-top: 1px solid var(--faint); padding: 1rem 0; display: flex; gap: 1rem; flex-wrap: wrap; }
.item img { max-width: 20rem; max-height: 20rem; background: #fff; } .item p { margin: 0.2rem 0; }
.item .text { flex: 1; min-width: 18rem; } .item .asked { white-space: pre-wrap; } .item .id { opacity: 0.7; }
"""


_TITLE = "edgevl eval: "


def check(path: Path) -> None:
    """Raise InputError where a page cannot be written, or would be written over what is no page of an evaluation."""
    check_is_file(path)
    try:
        if not path.exists():
            if not os.access(path.absolute().parent, os.W_OK):
                raise PermissionError(errno.EACCES, "permission denied")
            return
        with path.open("r+b") as file:
            head = file.read(1024)
    except OSError as error:
        raise _unwritten(path, error) from error
    if head and f"<title>{_TITLE}".encode() not in head:
        what = "is no page of edgevl eval, and wrong answers would be written over it"
        raise InputError(f"{path}: {what}; move it, or choose another --output")


def write(path: Path, found: Evaluation) -> None:
    """Write the page. Raises InputError where that fails."""
    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); choose another --output")


def page(found: Evaluation) -> str:
    """Return the page's text; pictures are read again for it."""
    head, *lines = rows(found)
    parts = [f"<h1>{escape(headline(found))}</h1>", f'<div class="wide">{table(head, lines)}</div>']
    if found.difference is not None:
        parts.append(f"<p>{escape(difference_line(found, found.difference))}</p>")
    parts += [f"<p>{escape(note)}</p>" for note in notes(found)]
    for title, pairs in _kinds(found):
        parts.append(_heading(title, len(pairs)))
        parts += [_item(pair, labels(found)) for pair in evenly(pairs, MAX_SHOWN)]
    if found.problems:
        parts.append(_heading("Damaged or missing, left out", len(found.problems)))
        parts += [f"<p>{escape(str(problem))}</p>" for problem in evenly(found.problems, MAX_SHOWN)]
    parts += ["<h2>What answered</h2>", f'<div class="wide">{table([], _facts(found))}</div>']
    return document(f"{_TITLE}{headline(found)}", parts, _STYLE)


def _heading(title: str, n: int) -> str:
    some = f", {MAX_SHOWN} of them, spread evenly" if n > MAX_SHOWN else ""
    return f"<h2>{escape(title)}: {n:,}{some}</h2>"


def _facts(found: Evaluation) -> list[tuple[str, str]]:
    """Return what the figures depend on: models with the digest of their files, settings, data set and machine."""
    runs = [outcome.run for outcome in found.outcomes]
    facts = [
        fact
        for run in runs
        for fact in (("model", run.model), ("its files", run.model_id), ("precision", run.precision))
    ]
    settings = ", ".join(
        f"{name} {'by default' if value is None else value}" for name, value in runs[0].settings.items()
    )
    return [*facts, ("settings", settings), ("data set", found.data_id), *runs[0].machine.rows()]


def _kinds(found: Evaluation) -> Iterator[tuple[str, list[tuple[Answered, ...]]]]:
    """Yield each kind of wrong answer with the answers of all models to the same item, as far as there are any."""
    names = labels(found)
    if len(names) == 1:
        yield "Wrong", [(one,) for one in found.outcomes[0].answers if one.score < 1]
        return
    others = {one.item.id: one for one in found.outcomes[1].answers}
    pairs = [(one, others[one.item.id]) for one in found.outcomes[0].answers if one.item.id in others]
    yield f"Better with {names[0]}", [(a, b) for a, b in pairs if a.score > b.score]
    yield f"Better with {names[1]}", [(a, b) for a, b in pairs if a.score < b.score]
    yield "Wrong with both", [(a, b) for a, b in pairs if a.score == b.score < 1]


def _item(answers: Sequence[Answered], names: Sequence[str]) -> str:
    item = answers[0].item
    asked = "\n".join((*item.before, item.question))
    lines = [f'<p class="id">{escape(item.id)}</p>', f'<p class="asked">{escape(asked)}</p>']
    lines.append(f"<p>right: <b>{escape(' | '.join(item.answers))}</b></p>")
    for name, one in zip(names, answers, strict=True):
        given = f"<b>{escape(one.text)}</b>" if not one.refused else escape(one.refused)
        lines.append(f"<p>{escape(name)} ({one.score:.2g}): {given}</p>")
    return f'<div class="item"><div>{_pictures(item)}</div><div class="text">{"".join(lines)}</div></div>'


def _pictures(item: Item) -> str:
    more = len(item.images) - MAX_PICTURES
    return "".join(map(_picture, item.images[:MAX_PICTURES])) + (f"<p>and {more} more</p>" if more > 0 else "")


def _picture(image: Image) -> str:
    """Return a picture, made smaller, as part of the page."""
    try:
        rgb = read(image.load()).rgb
    except (ImageError, OSError) as error:
        return f"<p>{escape(str(error))}</p>"
    height, width = rgb.shape[:2]
    scale = min(SIDE / max(height, width), 1)
    small = resize(rgb, (max(round(height * scale), 1), max(round(width * scale), 1)), "lanczos")
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg_bytes(small)).decode()}">'
