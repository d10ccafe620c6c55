"""The runtime on one page: open a model folder, and take an image and a question to an answer.

    image -> read -> plan (tiling) -> tiles -> pixel_values -> encoder thread -> image_features --+
    messages -> template -> text -> token ids -> chunks --------------------------------> extend -> generate

`edgevl.request` holds the steps up to `extend`, `edgevl.generate` those after it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import GeneratorType, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from edgevl.errors import Busy, InputError
from edgevl.generate import Generation
from edgevl.image.read import Picture
from edgevl.image.tiling import TilePlan
from edgevl.latency.choice import seconds
from edgevl.latency.profile import Profile
from edgevl.loaded import Loaded
from edgevl.model import hub
from edgevl.model.manifest import Manifest
from edgevl.request import (
    NOTHING,
    OnTile,
    Prefilled,
    Request,
    TileSource,
    check_callbacks,
    n_tokens,
    open_image,
    prefill,
)
from edgevl.store.disk import open_disk
from edgevl.store.keys import tiles_id
from edgevl.turns import Turn, Turns
from edgevl.types import (
    Answer,
    Delta,
    Detail,
    Features,
    FinishReason,
    Forecast,
    ImagePart,
    Message,
    SamplingParams,
    TextPart,
    Timings,
    Usage,
    as_messages,
)

if TYPE_CHECKING:
    from edgevl.chat import Chat


def load(
    name_or_dir: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    store: bool | str | Path = True,
    low_memory: bool = False,
) -> VLM:
    """Open a model: a folder, a name that `edgevl models` lists, or None for the bundled one.

    `device` says what runs it: "auto" (measured once), or a name of `edgevl.engine.devices`; `threads` is the number of
    threads (None: one per physical core; 256 at most, or as many as there are processors). `store` keeps what was
    computed about images on disk, for later processes: True in the default folder, a path elsewhere, False in memory
    only. The answers are the same.
    With `low_memory`, encoder and decoder of a large model take turns in memory: tiles are encoded before the decoder
    is opened (all but the last ones, if that takes no memory), which costs little time on a CPU, and the encoder is
    opened again for the next image.
    Raises ModelNotFound, ManifestError, UnsupportedFamily, ChecksumMismatch, InputError, BackendMissing or GraphError.
    """
    return VLM(hub.find(name_or_dir), device=device, threads=threads, store=store, low_memory=low_memory)


class VLM:
    """An open model. Safe to call from several threads: their requests wait for one another.

    One that waits for an answer which nobody reads on raises Busy, after half a minute at most.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        store: bool | str | Path = True,
        low_memory: bool = False,
    ) -> None:
        """Open the model folder; see `load`."""
        self.folder = folder
        self._device, self._threads = device, threads
        self._profile: Profile | None = None
        self._disk = open_disk(store)
        self._model: Loaded | None = Loaded(
            folder, device=device, threads=threads, disk=self._disk, low_memory=low_memory
        )
        self.manifest: Manifest = self._model.manifest
        self._turns = Turns()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    def ask(self, image: Any, question: str, **options: Any) -> Answer:
        """Answer a question about an image, a list of images, or (None) no image; options as in `stream`."""
        return self.stream(image, question, **options).finish()

    def stream(self, image: Any, question: str, *, system: str | None = None, **options: Any) -> Stream:
        """Answer word by word: iterate for `Delta`s, then read `.answer`.

        `image` is anything that `edgevl.image.read.read` takes, or `Features`; `options` are those of
        `stream_messages`.
        """
        images = [] if image is None else list(image) if isinstance(image, (list, tuple)) else [image]
        messages = [Message("system", (TextPart(system),))] if system else []
        messages.append(Message("user", (*map(ImagePart, images), TextPart(question))))
        return self.stream_messages(messages, **options)

    def stream_messages(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        detail: Detail = "auto",
        cancel: threading.Event | None = None,
        on_tile: OnTile | None = None,
        on_answer: Callable[[Answer], None] | None = None,
        max_pixels: int | None = None,
        reduce: bool = False,
        within: float | str | None = None,
        **sampling: Any,
    ) -> Stream:
        """Answer a whole conversation (`Message`s or OpenAI-style dictionaries), word by word.

        `detail` is "auto", "high", "low" or a number of tiles at most, for every image that has none of its own;
        `cancel` ends the answer between tiles and tokens, and the wait for its turn; `on_tile(done, total)` reports
        tiles as they are encoded; `on_answer` is called once with the finished answer; `max_pixels` is the largest
        image taken (default 100 million), and `reduce` lets a larger JPEG be reduced while it is decoded; `sampling`
        are the fields of `SamplingParams`.
        `within` is a budget to the first token, in seconds or as a text such as "800ms": images get the most tiles up
        to `detail` whose predicted time keeps it (`Stream.forecast`); this machine is measured for that on first use.
        Bad input raises here, an InputError, before anything is computed; graphs run while the stream is iterated.
        """
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise InputError(f"cancel is {repr(cancel)[:60]}; it must be a threading.Event")
        check_callbacks(on_tile=on_tile, on_answer=on_answer)
        model = self._open()
        params = _sampling(sampling)
        within_s = None if within is None else seconds(within)
        request = Request(
            model,
            as_messages(messages),
            detail=detail,
            params=params,
            max_pixels=max_pixels,
            reduce=reduce,
            profile=None if within_s is None else self._profile_of(model),
            within_s=within_s,
        )
        return Stream(self, request, _Cancel(cancel), on_tile, on_answer)

    def preview(
        self,
        image: Any,
        question: str = "what's here?",
        *,
        detail: Detail = "auto",
        max_pixels: int | None = None,
        reduce: bool = False,
        within: float | str | None = None,
    ) -> Preview:
        """Read and plan an image as `stream` would, and predict what the question takes; ask nothing."""
        within_s, model = None if within is None else seconds(within), self._open()
        request = Request(
            model,
            [Message("user", (ImagePart(image), TextPart(question)))],
            detail=detail,
            params=SamplingParams(),
            max_pixels=max_pixels,
            reduce=reduce,
            profile=self._profile_of(model),
            within_s=within_s,
        )
        [picture], [plan], forecast = request.images, request.plans, request.forecast
        if isinstance(picture, Features) or forecast is None:
            raise InputError(
                "these features are encoded already, so there is nothing to preview; give the image itself"
            )
        return Preview(picture, plan, forecast)

    def encode(
        self, image: Any, *, detail: Detail = "auto", max_pixels: int | None = None, reduce: bool = False
    ) -> Features:
        """Encode an image once, to ask about it many times: pass the `Features` in the image's place."""
        picture = open_image(image, max_pixels, reduce)
        if isinstance(picture, Features):
            return picture
        with self._turns.one():
            model = self._open()
            plan = model.plan(picture.size, detail)
            source = TileSource(model, [picture], [plan])
            tiles = tuple(source.ahead([(0, tile) for tile in range(plan.n_tiles)]))
        return Features(picture.id, model.vision_id, picture.size, plan, tiles_id(tiles), tiles)

    def chat(self, *, system: str | None = None, **options: Any) -> Chat:
        """Begin a conversation that remembers its images and turns; `options` are those of `stream_messages`."""
        from edgevl.chat import Chat

        return Chat(self, system=system, **options)

    def plan(self, image: Picture | tuple[int, int], detail: Detail = "auto") -> TilePlan:
        """Return how a picture, or an image of size (height, width), would be cut."""
        return self._open().plan(image.size if isinstance(image, Picture) else image, detail)

    def image_tokens(self, plan: TilePlan) -> int:
        """Return how many prompt tokens an image cut by `plan` takes, markers included."""
        model, question = self._open(), TextPart("?")
        with_image = model.chunks([Message("user", (ImagePart(None), question))], [plan])
        return n_tokens(with_image) - n_tokens(model.chunks([Message("user", (question,))], []))

    def close(self) -> None:
        """Free the graphs, after the running request, and write what is to be stored. Closing twice is allowed.

        An answer that is not read to its end is closed first: this thread's own at once, another one's when nobody has
        read on for two seconds.
        """
        turn = Turn()
        try:
            self._turns.take_last(turn)
            self._model = None
            if self._disk is not None:
                self._disk.flush()
        finally:
            turn.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _profile_of(self, model: Loaded) -> Profile:
        """Return this machine's profile: known, kept from an earlier time, or measured now.

        It is that of a model whose parts are in memory together, which they are from now on.
        """
        model.hold_all()
        if self._profile is None:
            from edgevl.latency import kept

            key = kept.key_of(self.manifest.content_id, device=self._device, threads=self._threads)
            self._profile = kept.read(key)
            if self._profile is None:
                from edgevl.probe import profile_of

                with self._turns.one():
                    self._profile = profile_of(model, key)
        return self._profile

    def _check_profile(self, answer: Answer, waited_s: float) -> None:
        """Forget a kept profile that was wrong by more than half or twofold, where all work was done: measure anew.

        The stream had been there for `waited_s` before work began: nobody read it, or another answer was under way.
        """
        if answer.forecast is None or answer.usage.cached_tokens or answer.finish_reason == "cancelled":
            return
        is_whole = all(image.n_encoded == image.n_tiles for image in answer.images)
        took_s = answer.timings.first_token_s - waited_s
        if is_whole and not 0.5 <= took_s / answer.forecast.first_token_s <= 2:
            from edgevl.latency import kept

            kept.forget(kept.key_of(self.manifest.content_id, device=self._device, threads=self._threads))

    def _open(self) -> Loaded:
        if self._model is None:
            raise InputError(f"{self.name}: this model has been closed; load it again")
        return self._model


@dataclass(frozen=True)
class Preview:
    """An image that has not been asked about: its pixels, how it would be cut, and what that is predicted to take."""

    picture: Picture
    plan: TilePlan
    forecast: Forecast


_BEING_READ = "this stream is being read, by another thread or by what has called this; cancel() ends it from anywhere"


class Stream(Iterator[Delta]):
    """An answer as it comes. Iterate for `Delta`s; `answer` is there once the iteration has ended.

    `forecast` is there from the beginning if there is a budget: what was predicted, and what it made of the images.
    Leaving early (`close`, or a `with` block) ends the request and frees the model for the next one.
    """

    def __init__(
        self,
        vlm: VLM,
        request: Request,
        cancel: threading.Event,
        on_tile: OnTile | None,
        on_answer: Callable[[Answer], None] | None,
    ) -> None:
        self._cancel = cancel
        self._on_answer = on_answer
        self._answer: Answer | None = None
        self.forecast = request.forecast
        deltas = _deltas(vlm, request, cancel, on_tile, weakref.WeakMethod(self.close))
        self._deltas = cast("GeneratorType[Delta, None, Answer]", deltas)

    @property
    def answer(self) -> Answer:
        """The finished answer; raises InputError before the iteration has ended."""
        if self._answer is None and self._deltas.gi_frame is None:
            raise InputError("the answer was broken off, by close() or an error; ask again")
        if self._answer is None:
            raise InputError("the answer is not finished; iterate over the stream to its end, or call finish()")
        return self._answer

    def finish(self) -> Answer:
        """Run to the end and return the answer."""
        with self:
            for _ in self:
                pass
        return self.answer

    def cancel(self) -> None:
        """Ask for the end, from any thread; the iteration stops after the current tile or token."""
        self._cancel.set()

    def close(self) -> None:
        """End the request now, from where it is read; raises Busy where it is at work meanwhile."""
        if self._deltas.gi_running:
            raise Busy(_BEING_READ)
        self._deltas.close()

    def __next__(self) -> Delta:
        if self._deltas.gi_running:
            raise Busy(_BEING_READ)
        try:
            return next(self._deltas)
        except StopIteration as end:
            answer = end.value
        if answer is not None:
            self._answer = answer
            if self._on_answer is not None:
                self._on_answer(answer)
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Cancel(threading.Event):
    """A stream's own, which is also set where the caller's is: that one may be given to several streams."""

    def __init__(self, given: threading.Event | None) -> None:
        super().__init__()
        self._given = given

    def is_set(self) -> bool:
        return super().is_set() or (self._given is not None and self._given.is_set())


def _deltas(
    vlm: VLM,
    request: Request,
    cancel: threading.Event,
    on_tile: OnTile | None,
    close: Callable[[], Callable[[], None] | None],
) -> Generator[Delta, None, Answer]:
    """Prefill and generate in a turn of the model's; the stream is not kept alive for it: nobody else may read it."""
    model = vlm._open()
    source = TileSource(model, request.images, request.plans)
    turn = Turn(close)
    try:
        if not vlm._turns.take(turn, cancel):
            return _Clock(request, source, NOTHING, model.load_s).answer(vlm.name, "", [], "cancelled")
        waited_s = time.perf_counter() - request.ready
        vlm._open()  # it may have been closed meanwhile
        prefilled = prefill(model, request, source, cancel, on_tile)
        clock = _Clock(request, source, prefilled, model.load_s)
        if not prefilled.complete:
            return clock.answer(vlm.name, "", [], "cancelled")
        generation = Generation(
            model.decoder,
            model.tokenizer,
            prompt_ids=request.text_ids(),
            eos_token_ids=model.manifest.tokenizer.eos_token_ids,
            params=request.params,
            limit=request.limit,
            cancelled=cancel,
        )
        texts = []
        for delta in generation:
            clock.token()
            texts.append(delta.text)
            turn.pause()
            yield delta
            turn.go_on()
        answer = clock.answer(vlm.name, "".join(texts), generation.token_ids, generation.finish_reason)
        vlm._check_profile(answer, waited_s)
        return answer
    finally:
        turn.end()


class _Clock:
    """Notes the times of one request and writes its answer."""

    def __init__(self, request: Request, source: TileSource, prefilled: Prefilled, load_s: float) -> None:
        self._request, self._source, self._prefilled, self._load_s = request, source, prefilled, load_s
        self._prefilled_at = time.perf_counter()
        self._first_token_at: float | None = None

    def token(self) -> None:
        """Note that a token has come."""
        if self._first_token_at is None:
            self._first_token_at = time.perf_counter()

    def answer(self, model: str, text: str, token_ids: Sequence[int], reason: FinishReason) -> Answer:
        """Return the answer that ends now."""
        request, source, now = self._request, self._source, time.perf_counter()
        n_image_tokens = request.n_image_tokens
        return Answer(
            text=text,
            finish_reason=reason,
            usage=Usage(request.n_tokens, n_image_tokens, self._prefilled.n_cached, len(token_ids)),
            timings=Timings(
                load_s=self._load_s,
                read_s=request.read_s,
                tile_s=source.tile_s,
                encode_s=source.encode_s,
                prefill_s=self._prefilled.prefill_s,
                first_token_s=(self._first_token_at or now) - request.started,
                decode_s=now - self._prefilled_at,
                total_s=now - request.started,
            ),
            images=request.infos(source),
            model=model,
            token_ids=tuple(token_ids),
            forecast=request.forecast,
        )


def _sampling(options: Mapping[str, Any]) -> SamplingParams:
    known = SamplingParams.__dataclass_fields__
    if unknown := sorted(options.keys() - known.keys()):
        raise InputError(
            f"unknown option {unknown[0]!r}; known are detail, within, cancel, on_tile, on_answer, max_pixels, reduce, "
            f"{', '.join(known)}"
        )
    return SamplingParams(**options)
