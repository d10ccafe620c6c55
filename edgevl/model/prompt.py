"""Messages to chunks: render the template, write out each image's tiles, tokenize once, cut at the image tokens.

The text is rendered whole and tokenized once, because token lists assembled from pieces differ from it
where the tokenizer merges across a border (such as a newline before an image).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import suppress
from typing import Protocol

from edgevl.errors import ContextOverflow, PromptError
from edgevl.model.families import Family
from edgevl.model.tokenizer import Tokenizer
from edgevl.types import Chunk, ImageChunk, ImagePart, Message, TextChunk

_CHARACTERS = 16
"""Characters of a text that are tokenized first, for each token of the context; most tokens are of three to five."""


class Template(Protocol):
    """What writes messages as text."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt's text, each image as the template writes it, ready for the assistant's answer."""


def build(
    messages: Sequence[Message],
    grids: Sequence[tuple[int, int]],
    *,
    family: Family,
    tokenizer: Tokenizer,
    template: Template,
    image_token_id: int,
    tokens_per_tile: int,
    context_length: int,
) -> list[Chunk]:
    """Return the prompt as chunks, in order.

    The text is also cut where the prompt of each earlier turn ended: what was computed for that turn is then a whole
    number of chunks. `grids` holds (rows, cols) of each image of `messages`, in order; (0, 0) is an overview alone.
    Raises PromptError if there is nothing to answer, or a text contains the reserved image token or is no UTF-8, and
    ContextOverflow for a text that is longer by far than `context_length` tokens; the rest may still be too long.
    """
    _check(messages, grids, family)

    def encode(part: Sequence[Message]) -> list[int]:
        n_images = sum(isinstance(p, ImagePart) for m in part for p in m.parts)
        rendered = template.render(part)
        _check_length(rendered, messages, tokenizer, context_length)
        return tokenizer.encode_prompt(_text(rendered, grids[:n_images], family, tokens_per_tile))

    token_ids = encode(messages)
    borders = set()
    for at, message in enumerate(messages):
        if at and message.role == "assistant":
            with suppress(PromptError):  # a template may refuse a beginning of what it takes as a whole
                turn = encode(messages[:at])
                borders |= {len(turn)} if token_ids[: len(turn)] == turn else set()
    n_tiles = [rows * cols + 1 for rows, cols in grids]
    return _cut(token_ids, n_tiles, image_token_id, tokens_per_tile, borders)


def _text(rendered: str, grids: Sequence[tuple[int, int]], family: Family, tokens_per_tile: int) -> str:
    """Write out the tiles of each image in what the template gave."""
    pieces = rendered.split(family.image_token)
    if len(pieces) != len(grids) + 1:
        raise PromptError(
            f"the chat template wrote {len(pieces) - 1} images for the {len(grids)} given; "
            "put images into user messages only"
        )
    layouts = [_layout(family, grid, tokens_per_tile) for grid in grids]
    return "".join(piece + layout for piece, layout in zip(pieces, [*layouts, ""], strict=True))


def _check(messages: Sequence[Message], grids: Sequence[tuple[int, int]], family: Family) -> None:
    if not messages:
        raise PromptError("there are no messages; give at least one question")
    texts = [part.text for m in messages for part in m.parts if not isinstance(part, ImagePart)]
    for message in messages:
        _check_characters(message)
    last = messages[-1]
    if last.role != "user" or not any(not isinstance(p, ImagePart) and p.text.strip() for p in last.parts):
        raise PromptError("the question is empty; write what you want to know")
    if any(family.image_token in text for text in texts):
        raise PromptError(f"the text contains {family.image_token!r}, which this model reserves for images; remove it")


def is_conversation(messages: Sequence[Message]) -> bool:
    """Return whether there are answers among them, which grow with every turn."""
    return any(message.role == "assistant" for message in messages)


def shorter(messages: Sequence[Message]) -> str:
    """Say what to do about text that does not fit."""
    if is_conversation(messages):
        return "begin a new conversation (in `edgevl chat`: /reset)"
    return "shorten the text"


def _check_length(rendered: str, messages: Sequence[Message], tokenizer: Tokenizer, n_context: int) -> None:
    """Refuse by its beginning a text that cannot fit: the whole may take minutes and gigabytes to tokenize.

    No count of characters can tell, since some tokens are very long. But where the beginning alone fills the context
    twice, no other cut at its end can make it fit.
    """
    beginning = rendered[: _CHARACTERS * n_context]
    if len(beginning) == len(rendered):
        return
    n_tokens = len(tokenizer.encode(beginning))
    if n_tokens >= 2 * n_context:
        raise ContextOverflow(
            f"the prompt has more than {n_tokens} tokens, but only {n_context - 1} fit into this model's context; "
            f"{shorter(messages)}",
            n_tokens=n_tokens,
            n_context=n_context,
        )


def _check_characters(message: Message) -> None:
    """Refuse halves of characters, which is what Python makes of bytes that are no UTF-8: no tokenizer takes them."""
    what = {"system": "system text", "user": "question", "assistant": "answer"}[message.role]
    for part in message.parts:
        if isinstance(part, ImagePart):
            continue
        try:
            part.text.encode()
        except UnicodeEncodeError as error:
            code = ord(part.text[error.start])
            shown = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
            raise PromptError(
                f"the {what} is no UTF-8 text: its character {error.start + 1} is {shown}; write it in UTF-8"
            ) from error


def _layout(family: Family, grid: tuple[int, int], tokens_per_tile: int) -> str:
    """Write one image's tiles as text: the grid in row order, then the overview."""
    layout, (rows, cols) = family.layout, grid
    image = family.image_token * tokens_per_tile
    if rows * cols == 0:
        return layout.single.format(image=image)
    lines = (
        "".join(layout.cell.format(row=row, col=col, image=image) for col in range(1, cols + 1)) + layout.row_end
        for row in range(1, rows + 1)
    )
    return layout.start + "".join(lines) + layout.overview.format(image=image)


def _cut(
    token_ids: list[int], n_tiles: list[int], image_token_id: int, tokens_per_tile: int, borders: Set[int]
) -> list[Chunk]:
    """Cut token ids at `borders` and at the image tokens; every tile takes `tokens_per_tile` of them."""
    places = ((image, tile) for image, n in enumerate(n_tiles) for tile in range(n))
    chunks: list[Chunk] = []
    start = position = 0
    while position < len(token_ids):
        if token_ids[position] != image_token_id:
            position += 1
            if position in borders:
                chunks.append(TextChunk(tuple(token_ids[start:position])))
                start = position
            continue
        if start < position:
            chunks.append(TextChunk(tuple(token_ids[start:position])))
        image, tile = next(places, (-1, -1))
        run = token_ids[position : position + tokens_per_tile]
        if image < 0 or run.count(image_token_id) != tokens_per_tile:
            raise PromptError("the tokenizer does not keep image tokens apart; family row and tokenizer disagree")
        chunks.append(ImageChunk(image, tile, tokens_per_tile))
        start = position = position + tokens_per_tile
    if start < len(token_ids):
        chunks.append(TextChunk(tuple(token_ids[start:])))
    if next(places, None) is not None:
        raise PromptError("the tokenizer lost image tokens; family row and tokenizer disagree")
    return chunks
