"""From a prefilled decoder to words: choose, stop, stream. It knows token ids and a tokenizer, no images."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from edgevl.engine.decoder import Decoder
from edgevl.engine.lookup import Steps
from edgevl.engine.sampling import Sampler
from edgevl.model.tokenizer import Tokenizer
from edgevl.types import Delta, FinishReason, SamplingParams


class Generation:
    """One answer in the making: iterate for its `Delta`s; afterwards `finish_reason` and `token_ids` are set.

    `token_ids` are the answer's tokens without the one that ended it.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Sequence[int],
        eos_token_ids: Sequence[int],
        params: SamplingParams,
        limit: int,
        cancelled: threading.Event,
    ) -> None:
        """`limit` is the most tokens to choose: `params.max_tokens` or what the context has left."""
        self.finish_reason: FinishReason = "length"
        self.token_ids: list[int] = []
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._prompt_ids = list(prompt_ids)
        self._eos = frozenset(eos_token_ids)
        self._params = params
        self._limit = limit
        self._cancelled = cancelled

    def __iter__(self) -> Iterator[Delta]:
        steps = Steps(self._decoder, self._prompt_ids)
        try:
            yield from self._deltas(steps)
        finally:
            steps.settle()

    def _deltas(self, steps: Steps) -> Iterator[Delta]:
        sampler, stream = Sampler(self._params), self._tokenizer.stream()
        text = StopText(self._params.stop_strings)
        while True:
            if self._cancelled.is_set():
                self.finish_reason = "cancelled"
                break
            token = sampler.choose(steps.logits(), [*self._prompt_ids, *self.token_ids])
            if token in self._eos:
                self.finish_reason = "stop"
                break
            self.token_ids.append(token)
            yield Delta(text.add(stream.step(token)), token)
            if text.stopped:
                self.finish_reason = "stop"
                return
            if len(self.token_ids) == self._limit:
                break
            steps.extend(token, self._limit - len(self.token_ids))
        rest = text.add(stream.flush()) + text.flush()
        if text.stopped:
            self.finish_reason = "stop"
        if rest:
            yield Delta(rest, self.token_ids[-1])


class StopText:
    """Passes text on up to the first stop string, holding back what may yet become one.

    White space before the first word is dropped: it belongs to the template, not to the answer.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stopped = False
        self._stop = tuple(stop)
        self._held = ""
        self._begun = False

    def add(self, text: str) -> str:
        """Return what can be shown now that `text` has come."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return self._begin(shown)
        keep = max((n for stop in self._stop for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
        split = len(self._held) - keep
        shown, self._held = self._held[:split], self._held[split:]
        return self._begin(shown)

    def flush(self) -> str:
        """Return what was held back, at the end of the answer."""
        shown, self._held = self._held, ""
        return self._begin(shown)

    def _begin(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text
