"""Auxiliary heads: what each patch and each image token shows, and which class a photo has.

Training alone has them; they are no part of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import emoji, glyphs, scenes
from .data import CLASS_PACKS
from .drawn import TOLD
from .model import pixel_shuffle
from .plan import IGNORE, N_PATCHES

DENSE = {
    "shape": 1 + len(scenes.SHAPES),
    "colour": 1 + len(scenes.COLOURS),
    **dict.fromkeys(glyphs.HALVES, 1 + len(glyphs.GLYPHS)),
}
LABELS = (*DENSE, emoji.LABEL)
"""What is told of each patch."""
WORDS = {"shape": scenes.SHAPES, "colour": tuple(scenes.COLOURS)}
BACKGROUND_WEIGHT = 0.3


class PictureHeads(nn.Module):
    """Auxiliary heads on the mean of a picture's patches: what is told of all of it, such as a number.

    By the answers alone the tasks of BlindTest were learned from some 2,000 pictures each, most of them badly.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.told = nn.ModuleDict({name: nn.Linear(width, n) for name, n in TOLD.items()})

    def loss(self, patches: Tensor, batch: dict[str, Tensor], seen: Statistics) -> Tensor:
        """Return the mean loss for `patches` [n, 256, width] over all that is told; notes accuracies in `seen`."""
        total, n = patches.new_zeros((), dtype=torch.float32), 0
        pooled = patches.float().mean(1)
        for name, head in self.told.items():
            rows = batch[name] != IGNORE
            if rows.any():
                logits, target = head(pooled[rows]).float(), batch[name][rows]
                total, n = total + F.cross_entropy(logits, target, reduction="sum"), n + len(target)
                seen.add(name, (logits.argmax(-1) == target).float().mean())
        return total / max(1, n)


class TokenHeads(nn.Module):
    """Auxiliary heads behind the projector: what lies in each image token, of `n_patches` patches.

    Shapes, colours and letters alone. Told of whole pictures too, and taught to point at the names of emoji and photos,
    tokens held less of a thing (colours 80 % against 83) and the answers' loss was 1.58 against 1.46, both 8,400
    pictures after one same state. In 309,000 pictures, 29 % of places were learned, where 89,000 had taught 58.
    """

    def __init__(self, width: int, n_patches: int) -> None:
        super().__init__()
        self.word_bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(len(WORDS[name]))) for name in WORDS})
        self.glyphs = nn.Linear(width, n_patches * len(glyphs.HALVES) * DENSE[glyphs.HALVES[0]])

    def loss(self, tokens: Tensor, words: dict[str, Tensor], batch: dict[str, Tensor], seen: Statistics) -> Tensor:
        """Return the summed loss for `tokens` [n, tokens, text width] of the overviews; notes accuracies in `seen`."""
        factor = round((N_PATCHES / tokens.shape[1]) ** 0.5)
        return self._words(tokens, words, batch, factor, seen) + self._glyphs(tokens, batch, factor, seen)

    def _words(
        self, tokens: Tensor, words: dict[str, Tensor], batch: dict[str, Tensor], factor: int, seen: Statistics
    ) -> Tensor:
        """Tell which shapes and colours lie in a token.

        It shall point where the decoder's embeddings `words` [names, text width] of what lies in it point,
        so that a word in a question finds it. Left to the answers alone, colours became searchable and shapes did not.
        """
        total = tokens.new_zeros((), dtype=torch.float32)
        for name, bias in self.word_bias.items():
            rows = (batch[name] != IGNORE).any(1)
            if rows.any():
                embeddings = words[name]
                logits = tokens[rows].float() @ embeddings.float().T + bias
                patches = pixel_shuffle(batch[name][rows][..., None], factor)  # [n, tokens, patches of a token]
                target = (patches[..., None] == 1 + torch.arange(len(embeddings))).any(-2)
                total = total + F.binary_cross_entropy_with_logits(logits, target.float())
                seen.add(f"{name}_tokens", (logits > 0)[target].float().mean())
        return total

    def _glyphs(self, tokens: Tensor, batch: dict[str, Tensor], factor: int, seen: Statistics) -> Tensor:
        """Tell which letter lies in each half of a token's patches, so that the projector lets none of them go."""
        halves = torch.stack([batch[name] for name in glyphs.HALVES], -1)  # [n, patches, 2]
        rows = (halves != IGNORE).flatten(1).any(1)
        if not rows.any():
            return tokens.new_zeros((), dtype=torch.float32)
        target = pixel_shuffle(halves[rows], factor)
        logits = self.glyphs(tokens[rows]).float().view(*target.shape, -1)
        return dense_loss(logits, target, "token_glyphs", seen)


class Heads(nn.Module):
    """Auxiliary heads on the encoder: what each patch shows, and which class of its pack a photo has."""

    def __init__(self, width: int, classes: dict[str, int], n_emoji: int) -> None:
        super().__init__()
        dense = {**DENSE, emoji.LABEL: 1 + n_emoji}
        self.dense = nn.ModuleDict({name: nn.Linear(width, n) for name, n in dense.items()})
        self.packs = nn.ModuleDict({name: nn.Linear(width, n) for name, n in classes.items()})
        self.pictures = PictureHeads(width)

    def loss(self, patches: Tensor, batch: dict[str, Tensor], seen: Statistics) -> Tensor:
        """Return the summed loss for `patches` [n, 256, width] of the overviews; notes accuracies in `seen`."""
        total = patches.new_zeros((), dtype=torch.float32)
        for name, head in self.dense.items():
            rows = (batch[name] != IGNORE).any(1)
            if rows.any():
                total = total + dense_loss(head(patches[rows]).float(), batch[name][rows], name, seen)
        total = total + self.pictures.loss(patches, batch, seen)
        pooled = patches.float().mean(1)
        for number, name in enumerate(CLASS_PACKS):
            rows = batch["pack"] == number
            if rows.any():
                logits, target = self.packs[name](pooled[rows]).float(), batch["label"][rows]
                share = rows.float().sum() / max(1, int((batch["pack"] >= 0).sum()))
                total = total + share * F.cross_entropy(logits, target, label_smoothing=0.05)
                seen.add(name, (logits.argmax(-1) == target).float().mean())
        return total


def dense_loss(logits: Tensor, target: Tensor, name: str, seen: Statistics) -> Tensor:
    """Return the mean loss of `logits` [..., classes] against `target` [...], class 0, nothing there, counting less.

    Notes in `seen` the share that is right where there is something.
    """
    weight = torch.ones(logits.shape[-1])
    weight[0] = BACKGROUND_WEIGHT
    things = target > 0
    seen.add(name, (logits.argmax(-1) == target)[things].float().mean())
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), weight=weight, ignore_index=IGNORE)


class Statistics:
    """Means since the last report."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: Tensor | float) -> None:
        """Note one value; not-a-number (nothing to measure) is left out."""
        number = float(value)
        if number == number:
            self._values[name].append(number)

    def take(self) -> dict[str, float]:
        """Return the means and begin anew."""
        means = {name: round(float(np.mean(values)), 4) for name, values in sorted(self._values.items())}
        self._values.clear()
        return means


def word_ids(encode: Callable[[str], list[int]]) -> dict[str, Tensor]:
    """Return the token ids of the names of shapes and colours behind a space; for several tokens, the first."""
    return {name: torch.tensor([encode(f" {word}")[0] for word in words]) for name, words in WORDS.items()}
