"""The nouns that the whole runtime shares: messages, chunks, sampling, answers.

Sizes are (height, width) everywhere; seconds end in `_s`; counts begin with `n_`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from edgevl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
FinishReason = Literal["stop", "length", "cancelled"]
Detail = str | int
"""How many tiles an image is worth: "auto", "high", "low", or a number of tiles at most."""


@dataclass(frozen=True)
class TextPart:
    """Text inside a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image inside a message: anything that `edgevl.image.read.read` takes, or `Features`.

    `detail` is this image's own; None: that of the request.
    """

    image: Any
    detail: Detail | None = None


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: a role and its parts, in order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class TextChunk:
    """A run of text tokens of the prompt."""

    token_ids: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """How many places it takes in the prompt."""
        return len(self.token_ids)


@dataclass(frozen=True)
class ImageChunk:
    """The place of one tile's features in the prompt: tile `tile` of the prompt's image `image`."""

    image: int
    tile: int
    n_tokens: int


Chunk = TextChunk | ImageChunk


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 switch their filter off;
    `repetition_penalty` 1 is none (Keskar et al. 2019, "CTRL"); `seed` None draws a fresh one.
    `stop` strings end the answer and are not part of it. Raises InputError for a value of another type or out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 512
    stop: str | Sequence[str] = ()
    seed: int | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def __post_init__(self) -> None:
        checks = (
            ("temperature", _is_number(self.temperature, 0), "0 or more"),
            ("top_k", _is_number(self.top_k, 0, kind=Integral), "0 (off) or more, a whole number"),
            ("top_p", _is_number(self.top_p, 0, 1) and self.top_p > 0, "above 0 and at most 1"),
            ("min_p", _is_number(self.min_p, 0, 1), "between 0 and 1"),
            ("repetition_penalty", _is_number(self.repetition_penalty, 0.01, 100), "between 0.01 and 100"),
            ("max_tokens", _is_number(self.max_tokens, 1, kind=Integral), "1 or more, a whole number"),
            ("stop", _is_texts(self.stop), "a non-empty string or several"),
            (
                "seed",
                self.seed is None or _is_number(self.seed, 0, kind=Integral),
                "0 or more, a whole number, or None",
            ),
        )
        for name, holds, wanted in checks:
            if not holds:
                raise InputError(f"sampling: {name} is {getattr(self, name)!r}; it must be {wanted}")
        for name, kind in _NUMBERS.items():  # numpy's overflow in what is reckoned with them
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else kind(value))


_NUMBERS = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "max_tokens": int,
    "seed": int,
}


def _is_number(value: Any, low: float, high: float = math.inf, kind: Any = Real) -> bool:
    in_range = isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high
    try:
        return in_range and (kind is Integral or math.isfinite(value))
    except OverflowError:  # a whole number that no float holds
        return False


def _is_texts(value: object) -> bool:
    texts = (value,) if isinstance(value, str) else value
    return isinstance(texts, Sequence) and all(isinstance(text, str) and text for text in texts)


@dataclass(frozen=True)
class Delta:
    """One step of an answer: the new text (may be empty) and the token behind it."""

    text: str
    token_id: int


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds per stage. `encode_s` and `prefill_s` overlap: they do not add up to `first_token_s`."""

    load_s: float = 0.0
    read_s: float = 0.0
    tile_s: float = 0.0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class ImageInfo:
    """What became of one image of the prompt: its content id, own size, grid and tiles."""

    id: str
    size: tuple[int, int]
    grid: tuple[int, int]
    n_tiles: int
    n_encoded: int
    n_tokens: int


@dataclass(frozen=True)
class Seen:
    """How one image is seen: the tiles it gets, those that `detail` alone would give it, and what that shows of it.

    `size` is its own (height, width), `read_as` the one at which it is read.
    """

    n_tiles: int
    n_tiles_asked: int
    size: tuple[int, int]
    read_as: tuple[int, int]

    def __str__(self) -> str:
        (height, width), (new_height, new_width) = self.size, self.read_as
        return f"{self.n_tiles} of {self.n_tiles_asked} tiles: {width}x{height} read as {new_width}x{new_height}"


@dataclass(frozen=True)
class Forecast:
    """What a request was predicted to take, and what that made of its images.

    `within_s` is the budget to the first token (None: none was set), `fits` whether the prediction keeps it.
    All times are seconds; encoding and prefill overlap, so that the stages may add up to more than `first_token_s`.
    What is predicted is the most that there is to do. A prefix that is held or stored is left out, but tiles that are
    stored of another image are not known before this one is cut: they count as if they had to be encoded.
    """

    within_s: float | None
    fits: bool
    first_token_s: float
    read_s: float
    tile_s: float
    encode_s: float
    prefill_s: float
    images: tuple[Seen, ...]

    @property
    def note(self) -> str:
        """Say in one line what the budget cost, or that it cannot be kept; empty where there is nothing to say."""
        if self.within_s is None:
            return ""
        lost = [image for image in self.images if image.n_tiles < image.n_tiles_asked]
        told = "; ".join(
            f"image {number}: {image}" if len(self.images) > 1 else str(image)
            for number, image in enumerate(self.images, start=1)
            if image in lost
        )
        within = _rounded(self.within_s, 3)
        times = f"the first word is predicted in {_rounded(self.first_token_s, 2)} s"
        if not self.fits:
            least = " with the fewest tiles" if self.images else ""
            return f"{told + '; ' if told else ''}{times}{least}, over the budget of {within} s"
        return f"{told}, to fit {within} s ({times})" if told else ""


def _rounded(seconds: float, n_digits: int) -> str:
    """Write seconds with `n_digits` digits that count, but all of them before the point: 123 and never 1.2e+02."""
    return f"{seconds:.{n_digits}g}" if seconds < 10 ** (n_digits - 1) else f"{seconds:.0f}"


@dataclass(frozen=True)
class Answer:
    """A finished answer; `forecast` is there where a prediction was asked for."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    images: tuple[ImageInfo, ...]
    model: str
    token_ids: tuple[int, ...] = field(default=(), repr=False)
    forecast: Forecast | None = None

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Features:
    """An image that has been encoded: encode once, ask many.

    `tiles` holds one array [tokens_per_tile, hidden] (float32) per tile of the plan, in prompt order.
    `image_id` is the SHA-256 of the upright RGB pixels, `model_id` ties the features to their vision graph, and
    `tiles_id` (by `edgevl.store.keys`) says which they are: with others in their place this is another image.
    """

    image_id: str
    model_id: str
    size: tuple[int, int]
    plan: Any
    tiles_id: str
    tiles: tuple[NDArray[np.float32], ...] = field(repr=False, compare=False)  # the rest says what they are of


def as_messages(messages: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """Check messages and turn OpenAI-style dictionaries into `Message`s.

    `content` is a string or a list of {"type": "text", "text": ...}, {"type": "image", "image": ...} and
    {"type": "image_url", "image_url": {"url": ...}}; a "detail" beside "image" or "url" is that image's own.
    Raises InputError that names the message and the field.
    """
    return [_message(raw, index) for index, raw in enumerate(_list(messages))]


def _list(messages: Any) -> Sequence[object]:
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise InputError(f"messages must be a list, not {type(messages).__name__}")
    return messages


def _message(raw: object, index: int) -> Message:
    if isinstance(raw, Message):
        raw = {"role": raw.role, "content": raw.parts}
    if not isinstance(raw, Mapping):
        raise InputError(f"message {index}: must be a Message or a dictionary, not {type(raw).__name__}")
    given, content = raw.get("role"), raw.get("content")
    role = next((one for one in _ROLES if isinstance(given, str) and given == one), None)
    if role is None:
        raise InputError(f"message {index}: role is {repr(given)[:60]}; it must be system, user or assistant")
    if isinstance(content, str):
        return Message(role, (TextPart(content),))
    if not isinstance(content, Sequence) or not content:
        raise InputError(f"message {index}: content must be a string or a non-empty list of parts")
    return Message(role, tuple(_part(part, index) for part in content))


def _part(raw: Any, index: int) -> Part:
    if isinstance(raw, ImagePart):
        return raw
    if isinstance(raw, TextPart) and isinstance(raw.text, str):
        return raw
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if kind == "text" and isinstance(raw.get("text"), str):
        return TextPart(raw["text"])
    if kind == "image" and raw.get("image") is not None:
        return ImagePart(raw["image"], raw.get("detail"))
    address = raw.get("image_url") if kind == "image_url" else None
    if isinstance(address, Mapping) and address.get("url") is not None:
        return ImagePart(address["url"], address.get("detail"))
    raise InputError(
        f"message {index}: a part must be {{'type': 'text', 'text': ...}}, {{'type': 'image', 'image': ...}} "
        f"or {{'type': 'image_url', 'image_url': {{'url': ...}}}}, not {str(raw)[:80]}"
    )
