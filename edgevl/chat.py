"""A conversation: it keeps its images and turns, and the KV cache makes the next question cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgevl.request import check_callbacks, open_image
from edgevl.types import Answer, ImagePart, Message, TextPart

if TYPE_CHECKING:
    from edgevl.pipeline import VLM, Stream


class Chat:
    """Questions and answers that build on one another.

    A turn is kept only when its answer has ended by itself; after an error, a cancel or a `close` the conversation
    is as before. An image is encoded once, however many questions follow, also when other requests come in between.
    """

    def __init__(self, vlm: VLM, *, system: str | None = None, **options: Any) -> None:
        """Begin a conversation; `options` are those of `VLM.stream_messages`, for every question."""
        self._vlm = vlm
        self._options = options
        self.messages: list[Message] = [Message("system", (TextPart(system),))] if system else []

    def ask(self, question: str, image: Any = None, **options: Any) -> Answer:
        """Answer the next question; `image` (or a list) joins the conversation with it."""
        return self.stream(question, image, **options).finish()

    def stream(self, question: str, image: Any = None, **options: Any) -> Stream:
        """Answer the next question word by word; `options` here go before those of the conversation."""
        options = {**self._options, **options}
        told = options.pop("on_answer", None)
        check_callbacks(on_answer=told)
        images = [] if image is None else list(image) if isinstance(image, (list, tuple)) else [image]
        pictures = [open_image(item, options.get("max_pixels"), options.get("reduce", False)) for item in images]
        asked = Message("user", (*map(ImagePart, pictures), TextPart(question)))

        def keep(answer: Answer) -> None:
            if answer.finish_reason != "cancelled":
                # Behind those of now: another turn may have ended since this one was begun.
                self.messages = [*self.messages, asked, Message("assistant", (TextPart(answer.text),))]
            if told is not None:
                told(answer)

        return self._vlm.stream_messages([*self.messages, asked], on_answer=keep, **options)
