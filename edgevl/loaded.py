"""A model folder, opened: everything that a request needs, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgevl import machine, steps
from edgevl.engine.decoder import Decoder, OnnxDecoder
from edgevl.engine.native.decoder import NativeDecoder
from edgevl.engine.own_thread import OwnThread, ended
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import ManifestError, ModelError
from edgevl.image import tiling
from edgevl.image.tiling import TilePlan
from edgevl.model import manifest, prompt
from edgevl.model.families import family
from edgevl.model.tokenizer import Tokenizer
from edgevl.placement import Placement
from edgevl.steps import Step
from edgevl.store.disk import Disk
from edgevl.store.memory import Store
from edgevl.types import Chunk, Detail, Message, TextChunk

if TYPE_CHECKING:
    from edgevl.model.template import ChatTemplate

T = TypeVar("T")

TILES_BYTES = 64 << 20
PREFIXES_BYTES = 128 << 20
"""How much tile features and prefix KV may take in memory; KV only where it cannot be had from the disk."""
LARGE_BYTES = 50 << 20
"""Loading a model larger than this leaves memory behind that is worth giving back, and its parts may take turns."""


@dataclass(frozen=True)
class Held:
    """One chunk in the decoder's KV cache: the key of the prompt up to its end, and how many tokens that is."""

    key: str
    n_tokens: int


class Loaded:
    """The parts of one model: manifest, family row, tokenizer, template, graphs, and what is remembered.

    `held` names the chunks that the decoder's KV cache begins with, in order. What the decoder holds behind them is
    of no use to another request. `is_warm` says whether the graphs have run: the first time takes longer.
    `load_s` counts the seconds that opening took. Where the parts take turns (`takes_turns`), the decoder is opened
    when it is first used, and the encoder is let go before: they are not in memory side by side, unless the decoder
    `reads_mapped` weights. Nor are a decoder's graphs for prompts and for single tokens.
    """

    def __init__(
        self, folder: Path, *, device: str, threads: int | None, disk: Disk | None = None, low_memory: bool = False
    ) -> None:
        """Open the folder; what is remembered is kept on `disk` too.

        The two graphs load side by side, or with `low_memory`, where the model is large, take turns. Hashes are left to
        `edgevl verify`.
        """
        started = time.perf_counter()
        self.folder = folder
        self.manifest = spec = manifest.read(folder)
        manifest.check_sizes(spec, folder)
        self.family = family(spec.family, str(folder / manifest.FILE_NAME))
        self._placement = placement = Placement(folder, spec, device=device, threads=threads, disk=disk)
        self._is_large = sum(file.n_bytes for file in spec.files.values()) > LARGE_BYTES
        # What has yet to be measured is opened for that; so is what is not installed, for its error to come now.
        self.takes_turns = low_memory and self._is_large and placement.likely_decoder() is not None
        with ended([OwnThread("edgevl-load") for _ in range(2)]) as (first, second):
            vision = first.submit(placement.encoder)
            decoder = None if self.takes_turns else second.submit(placement.decoder)
            self.tokenizer = Tokenizer(folder / spec.tokenizer.file)
            self.template = _template(folder, spec)
            self.encoder = vision.result()
            if decoder is not None:
                self.decoder = decoder.result()
        if self._is_large:
            machine.give_back()
        self.tiles = Store("tiles", TILES_BYTES, disk)
        self.prefixes = Store("prefixes", PREFIXES_BYTES, disk, leaves_to_disk=True)
        self.held: list[Held] = []
        self.is_warm = False
        self.load_s = time.perf_counter() - started

    @property
    def joins_chunks(self) -> bool:
        """Whether text and features can be fed to the decoder together."""
        return self._placement.decoder_part == "onnx"

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The vision encoder, opened again if it was let go."""
        return self._opened(self._placement.encoder)

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder; its KV cache goes from request to request."""
        return self._opened(partial(self._placement.decoder, takes_turns=self.takes_turns))

    def hold_all(self) -> None:
        """Let no parts take turns from now on: what is opened stays in memory."""
        self.takes_turns = False
        decoder = self.__dict__.get("decoder")
        if isinstance(decoder, OnnxDecoder):
            decoder.takes_turns = False

    @cached_property
    def reads_mapped(self) -> bool:
        """Whether the decoder reads its weights where they are mapped, and takes little memory beside an encoder."""
        return self._placement.is_native()

    def n_beside(self, n_tiles: int) -> int:
        """Return how many of the last tiles are encoded while a decoder that takes turns already reads the others.

        They are those that leave threads idle, if the decoder is one that `reads_mapped` weights.
        """
        return n_tiles % self.encoder.n_at_once if self.reads_mapped else 0

    def leave_threads(self, n: int) -> None:
        """Let the decoder do without `n` threads, which are still at work on tiles, until it may `use_all_threads`."""
        if isinstance(self.decoder, NativeDecoder):
            self.decoder.leave(n)

    def use_all_threads(self) -> None:
        """Let the decoder compute with all its threads, also what it is at now."""
        decoder = self.__dict__.get("decoder")
        if isinstance(decoder, NativeDecoder):
            decoder.leave(0)

    def let_encoder_go(self) -> None:
        """Free the encoder's memory; it is opened again when it is next used. Nobody encodes any more."""
        self.vision_id  # noqa: B018 - is known from the encoder
        self.__dict__.pop("encoder", None)
        machine.give_back()
        self.use_all_threads()

    def _opened(self, opening: Callable[[], T]) -> T:
        started = time.perf_counter()
        part = opening()
        machine.give_back()
        self.load_s += time.perf_counter() - started
        return part

    @cached_property
    def vision_id(self) -> str:
        """What features depend on beside an image and its plan.

        That is the vision graph's SHA-256, how pixels are resized and normalised, and what runs it.
        """
        image, processor = self.manifest.image, machine.describe().processor
        content = manifest.content(self.manifest, self.folder, self.manifest.vision.file)
        return f"{content}:{image.resample}:{image.mean}:{image.std}:{processor}:{self.encoder.backend}"

    @cached_property
    def decoder_id(self) -> str:
        """What the KV cache depends on beside the prompt: `vision_id`, the files that can change it, what runs it."""
        return self._decoder_id(self.decoder.backend)

    @property
    def likely_decoder_id(self) -> str:
        """`decoder_id`, without opening a decoder that is not open yet: what it turns out to be when it is opened."""
        return self.decoder_id if "decoder" in self.__dict__ else self._decoder_id(self._placement.likely_decoder())

    def _decoder_id(self, backend: str | None) -> str:
        spec = self.manifest
        others = (spec.embeddings.file if spec.embeddings else None, spec.decoder.prefill)
        names = (spec.decoder.file, *(name for name in others if name))
        content = manifest.content(spec, self.folder, *names)
        return f"{self.vision_id}:{content}:{steps.LEAST if self.joins_chunks else 0}:{backend}"

    def plan(self, size: tuple[int, int], detail: Detail) -> TilePlan:
        """Return how an image of `size` (height, width) is cut."""
        return tiling.plan(size, self.manifest.image, self.family.tiling, detail)

    def steps(self, messages: Sequence[Message], plans: Sequence[TilePlan]) -> list[Step]:
        """Return the prompt in what the decoder is fed at once."""
        return steps.cut(self.chunks(messages, plans), plans, self.joins_chunks)

    def chunks(self, messages: Sequence[Message], plans: Sequence[TilePlan]) -> list[Chunk]:
        """Return the prompt of `messages` whose images are cut by `plans`, in order.

        Raises ModelError for a token that the decoder does not have: a tokenizer may list more than were trained.
        """
        chunks = prompt.build(
            messages,
            [plan.grid for plan in plans],
            family=self.family,
            tokenizer=self.tokenizer,
            template=self.template,
            image_token_id=self.manifest.tokenizer.image_token_id,
            tokens_per_tile=self.manifest.image.tokens_per_tile,
            context_length=self.manifest.decoder.context_length,
        )
        n_known = self.manifest.decoder.vocab_size
        highest = max((id_ for chunk in chunks if isinstance(chunk, TextChunk) for id_ in chunk.token_ids), default=0)
        if highest >= n_known:
            raise ModelError(
                f"{self.folder / self.manifest.tokenizer.file}: writes {self.tokenizer.token(highest)!r} as token "
                f"{highest}, but the decoder has {n_known}; ask without it, or export the model again"
            )
        return chunks


def _template(folder: Path, spec: manifest.Manifest) -> ChatTemplate:
    from edgevl.model.template import ChatTemplate

    path = folder / spec.tokenizer.chat_template
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); export the model again") from error
    tokens = spec.tokenizer
    return ChatTemplate(source, where=str(path), bos_token=tokens.bos_token, eos_token=tokens.eos_token)
