"""Text to token ids and back, by Hugging Face `tokenizers` (the library that made the ids in training)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from edgevl.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.decoders import DecodeStream


class Tokenizer:
    """A model's tokenizer.json.

    Whatever is asked of it raises ModelError where `tokenizers` cannot do what the file says.
    """

    def __init__(self, path: Path) -> None:
        """Load it; raise ModelError if `tokenizers` refuses the file."""
        from tokenizers import Tokenizer as Backend  # here, so that the graphs load meanwhile

        with _explained(path, "readable"):
            self._backend = Backend.from_buffer(path.read_bytes())  # its own reading takes no path but of UTF-8
        self._path = path
        self._backend.no_truncation()  # a prompt is neither cut to what a training took nor filled up to it
        self._backend.no_padding()
        with _explained(self._path):
            self._start = _start(self._backend)

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, added tokens included."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; special tokens written in it become their ids, none are added."""
        with _explained(self._path):
            return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a whole prompt: those of `text` behind what the tokenizer puts before every text.

        That stands there once, also where the text begins with it: many chat templates write it themselves.
        """
        ids = self.encode(text)
        return ids if ids[: len(self._start)] == self._start else self._start + ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of `token_ids` without special tokens."""
        with _explained(self._path):
            return str(self._backend.decode(list(token_ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str | None:
        """Return a token as tokenizer.json writes it, special ones too; None for an id that it does not have."""
        with _explained(self._path):
            return self._backend.id_to_token(token_id)

    def stream(self) -> TextStream:
        """Return a decoder for one answer, token by token."""
        return TextStream(self._backend, self._path)


class TextStream:
    """Decodes one token at a time; bytes of an unfinished character are held back until it is whole."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self._backend, self._path = backend, path
        self._stream = _decode_stream()
        self._held: list[int] = []

    def step(self, token_id: int) -> str:
        """Return the text that `token_id` completes; "" while a character is unfinished."""
        self._held.append(token_id)
        try:
            with _explained(self._path):
                text: str = self._stream.step(self._backend, token_id) or ""
        except ModelError:
            # Byte tokens that are no text turn the text before them into U+FFFD too, and the library refuses to
            # take back what it has given out. What was given out stays; decoding begins anew behind it, and not with
            # a text, whose first word has no space before it.
            self._stream = _decode_stream(self._held)
            return self.flush()
        if text:
            self._held.clear()
        return text

    def flush(self) -> str:
        """Return what is still held back (an unfinished character as U+FFFD)."""
        with _explained(self._path):
            text = str(self._backend.decode(self._held, skip_special_tokens=True))
        self._held.clear()
        return text


@contextmanager
def _explained(path: Path, wanted: str = "usable") -> Iterator[None]:
    """Turn what the library raises into one line; it has no error of its own, and its panics are no `Exception`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        why = " ".join(str(error).split())
        raise ModelError(f"{path}: is not a {wanted} tokenizer ({why}); export the model again") from error


def _start(backend: Backend) -> list[int]:
    """Return the ids that the tokenizer puts before every text, such as one that begins a sequence."""
    encoded = backend.encode("a")
    marked = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
    return [token for token, is_special in takewhile(lambda pair: pair[1], marked)]


def _decode_stream(before: Sequence[int] = ()) -> DecodeStream:
    """Return a decoder for what comes behind the tokens `before`."""
    from tokenizers.decoders import DecodeStream

    return DecodeStream(list(before), skip_special_tokens=True)
