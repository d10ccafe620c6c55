"""Text to token ids and back, by Hugging Face `tokenizers` (the library that made the ids in training)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from edgevl.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.decoders import DecodeStream


class Tokenizer:
    """A model's tokenizer.json."""

    def __init__(self, path: Path) -> None:
        """Load it; raise ModelError if `tokenizers` refuses the file."""
        from tokenizers import Tokenizer as Backend  # here, so that the graphs load meanwhile

        try:
            self._backend = Backend.from_file(str(path))
        except Exception as error:
            raise ModelError(f"{path}: is not a readable tokenizer ({error}); export the model again") from error
        self._start = _start(self._backend)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, added tokens included."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it become their ids, none are added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a whole prompt: those of `text` behind what the tokenizer puts before every text.

        That stands there once, also where the text begins with it: many chat templates write it themselves.
        """
        ids = self.encode(text)
        return ids if ids[: len(self._start)] == self._start else self._start + ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids` without special tokens."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True))

    def stream(self) -> TextStream:
        """Return a decoder for one answer, token by token."""
        return TextStream(self._backend)


class TextStream:
    """Decodes one token at a time; bytes of an unfinished character are held back until it is whole."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stream = _decode_stream()
        self._held: list[int] = []

    def step(self, token_id: int) -> str:
        """Return the text that `token_id` completes; "" while a character is unfinished."""
        self._held.append(token_id)
        try:
            text: str = self._stream.step(self._backend, token_id) or ""
        except Exception:  # noqa: BLE001 - the library has no error of its own
            # Byte tokens that are no text turn the text before them into U+FFFD too, and the library refuses to
            # take back what it has given out. What was given out stays; decoding begins anew behind it.
            self._stream = _decode_stream()
            return self.flush()
        if text:
            self._held.clear()
        return text

    def flush(self) -> str:
        """Return what is still held back (an unfinished character as U+FFFD)."""
        text = str(self._backend.decode(self._held, skip_special_tokens=True))
        self._held.clear()
        return text


def _start(backend: Backend) -> list[int]:
    """Return the ids that the tokenizer puts before every text, such as one that begins a sequence."""
    encoded = backend.encode("a")
    marked = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
    return [token for token, is_special in takewhile(lambda pair: pair[1], marked)]


def _decode_stream() -> DecodeStream:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(skip_special_tokens=True)
