"""Prompt lookup: text repeats itself, so the tokens that followed last time are fed before they are chosen.

Source: A. Saxena, "Prompt Lookup Decoding" (2023); transformers, `PromptLookupCandidateGenerator`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgevl.engine.ahead import AheadDecoder
from edgevl.engine.decoder import Decoder

N_GRAM = 3
"""So many tokens must have been there before for what followed them to be proposed."""
SIZES = (3, 1)
"""How many tokens are proposed at once: few sizes, for a decoder tries each before it uses it."""


class Lookup:
    """What the last tokens were followed by when they were last there, and how far that is to be trusted.

    `credit` counts the proposals that came true, also those that were only looked up and never fed, for which nothing
    is paid. A token fed in vain takes two away: it costs between a third of a single token (300 tokens before it) and
    two thirds (3,000), and one that comes true saves the rest. Nothing is fed before two came true, so that text
    without repeats costs nothing.
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        """Begin behind a prompt."""
        self.credit = 0
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        for token in token_ids:
            self._append(token)

    def add(self, token: int) -> None:
        """Take the next token."""
        at = self._found()
        if at is not None:
            self.credit = min(self.credit + 1, 3 * max(SIZES)) if self._ids[at] == token else max(self.credit - 1, 0)
        self._append(token)

    def waste(self, n: int) -> None:
        """Note that `n` tokens were fed in vain."""
        self.credit = max(self.credit - 2 * n, 0)

    def propose(self, n_most: int) -> list[int]:
        """Return the tokens that may come next, at most `n_most`; as many as were earned, or none."""
        at = self._found()
        n = next((size for size in SIZES if size <= min(n_most, self.credit // 2)), 0)
        if at is None or n == 0:
            return []
        ids, period = self._ids[at : at + n], len(self._ids) - at
        while len(ids) < n:  # the repeat is still going on
            ids.append(ids[-period])
        return ids

    def _found(self) -> int | None:
        return self._behind.get(tuple(self._ids[-N_GRAM:]))

    def _append(self, token: int) -> None:
        if len(self._ids) >= N_GRAM:
            self._behind[tuple(self._ids[-N_GRAM:])] = len(self._ids)
        self._ids.append(token)


class Steps:
    """A decoder, fed one chosen token after the other; where it can, tokens that are expected are fed ahead.

    Scores are the same to the last bit as without, so that it does not matter how tokens are chosen.
    """

    def __init__(self, decoder: Decoder, prompt_ids: Sequence[int]) -> None:
        """Take a decoder that holds the prompt; `prompt_ids` are the text tokens of it."""
        self._decoder = decoder
        self._reader = decoder if isinstance(decoder, AheadDecoder) else None
        self._lookup = Lookup(prompt_ids if self._reader else ())
        self._ahead: list[int] = []
        self._scores: NDArray[np.float32] | None = None  # behind the last token, and behind each of `_ahead`

    def logits(self) -> NDArray[np.float32]:
        """Return the scores of the next token, float32 [vocab]."""
        return self._decoder.logits() if self._scores is None else self._scores[0]

    def extend(self, token: int, n_more: int) -> None:
        """Feed the token that was chosen; at most `n_more` are chosen behind it."""
        self._lookup.add(token)
        if self._scores is not None and self._ahead and self._ahead[0] == token:
            del self._ahead[0]
            self._scores = self._scores[1:]
            return
        self.settle()
        if not self._feed_ahead(token, n_more):
            self._decoder.extend(np.array([token], np.int64))

    def settle(self) -> None:
        """Let the decoder forget what was fed ahead and not chosen."""
        if self._ahead:
            self._lookup.waste(len(self._ahead))
            n_left = self._decoder.n_past - len(self._ahead)
            self._decoder.truncate(max(n_left, 0))  # a forked process may hold nothing any more
        self._ahead, self._scores = [], None

    def _feed_ahead(self, token: int, n_more: int) -> bool:
        if self._reader is None:
            return False
        proposed = self._lookup.propose(min(n_more, self._reader.n_at_once) - 1)
        if not proposed:
            return False
        scores = self._reader.extend_each([token, *proposed])
        if scores is None:
            return False
        self._ahead, self._scores = proposed, scores
        return True
