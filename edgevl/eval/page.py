"""The wrong answers as one HTML page with their pictures: it opens offline and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape

from edgevl.bench.page import document, table
from edgevl.errors import ImageError
from edgevl.eval.figures import Answered
from edgevl.eval.item import Image, Item
from edgevl.eval.report import difference_line, headline, labels, rows
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


def page(found: Evaluation) -> str:
    """Return the page's text; pictures are read again for it."""
    parts = [f"<h1>{escape(headline(found))}</h1>", f'<div class="wide">{table(*_split(rows(found)))}</div>']
    if found.difference is not None:
        parts.append(f"<p>{escape(difference_line(found, found.difference))}</p>")
    for title, pairs in _kinds(found):
        some = f", {MAX_SHOWN} of them, spread evenly" if len(pairs) > MAX_SHOWN else ""
        parts.append(f"<h2>{escape(title)}: {len(pairs):,}{some}</h2>")
        parts += [_item(pair, labels(found)) for pair in evenly(pairs, MAX_SHOWN)]
    return document(f"edgevl eval: {headline(found)}", parts, _STYLE)


def _split(lines: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    return lines[0], lines[1:]


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
