"""The stages of training, in order: what each draws, and how it learns.

A stage begins from what the one before has handed over (a checkpoint folder in bfloat16, with the heads), with a new
optimizer and a rate that rises, stays and falls to nothing: each can be run by itself, on another machine or day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A subject's share of a stage's pictures, and of these the shares that are in batches of each size class."""

    share: float
    sizes: tuple[float, float] = (1.0, 0.0)


Mix = Mapping[str, Share]


@dataclass(frozen=True)
class Phase:
    """What a stage draws from so many tiles on, those of all ranks counted; one of `basics` is for a new model."""

    since: int
    mix: Mix
    basics: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage.

    `phases` in order. `tiles` of a batch at most, `rate` at its peak.
    `encoder` is the encoder's share of the rate; 0 holds it still. One that does not ask trains the encoder alone.
    With `any_words`, words without a meaning for the question stand around it.
    """

    name: str
    phases: tuple[Phase, ...]
    steps: int
    tiles: int
    rate: float
    encoder: float
    asks: bool = True
    any_words: bool = False

    def mix(self, tiles: int, grounded: bool = False) -> Mix:
        """Return what is drawn after so many tiles; with `grounded` the phase after the basics stands for them."""
        phases = [phase for phase in self.phases if not (grounded and phase.basics)]
        return next((phase.mix for phase in reversed(phases) if phase.since <= tiles), phases[0].mix)


# Mostly pictures of one tile: with large ones in every second batch, 18,500 pictures in all were seen in the time of
# 30,000, and what had been known before was half forgotten.
_SIZES = {
    "scenes": (0.87, 0.13),
    "many": (0.85, 0.15),
    "printed": (0.7, 0.3),
    "emoji": (0.7, 0.3),
    "blind": (0.65, 0.35),
    "nlvr": (0.0, 1.0),
    "charts": (0.0, 1.0),
    "screens": (0.0, 1.0),
    "documents": (0.0, 1.0),
    "photos": (0.95, 0.05),
}
"""The size classes of what is asked about; what is not named here is one tile."""


def _mix(**shares: float) -> Mix:
    return {name: Share(share, _SIZES.get(name, Share.sizes)) for name, share in shares.items()}


_ALL = _mix(
    scenes=0.28, many=0.12, printed=0.07, text=0.08, pages=0.02, emoji=0.05, emoji_tiles=0.04, blind=0.11, nlvr=0.02,
    charts=0.01, screens=0.01, documents=0.01, photos=0.18,
)  # fmt: skip
_READING = _mix(
    scenes=0.22, many=0.09, printed=0.1, text=0.21, pages=0.03, emoji=0.04, emoji_tiles=0.04, blind=0.09, nlvr=0.01,
    charts=0.01, screens=0.01, documents=0.01, photos=0.14,
)  # fmt: skip

STAGES = (
    Stage(
        "encoder",
        (
            # Outlines that fit into the stem's view, and many of them a picture, are what shapes are learned from; with
            # single large things first, 36,000 pictures taught none.
            Phase(0, {"crowds": Share(1.0)}, basics=True),
            Phase(
                6000,
                {
                    "text": Share(0.22),
                    "pages": Share(0.2),
                    "crowds": Share(0.09),
                    "photos": Share(0.26),
                    "emoji_tiles": Share(0.11),
                    "blind": Share(0.12),
                },
            ),
        ),
        steps=14_000,
        tiles=12,
        rate=1e-3,
        encoder=1.0,
        asks=False,
    ),
    # At twice the rate, what needs two things found and compared stayed at chance: the steps drown it.
    Stage(
        "decoder",
        (
            # With all tasks mixed from the start, 107,000 pictures left relations at chance: many questions on which
            # thing is where come first, and words to be read.
            Phase(0, {"few": Share(0.8), "text": Share(0.15), "pages": Share(0.05)}, basics=True),
            Phase(32_000, _ALL),
        ),
        # A step takes two thirds of the time that it takes where the encoder learns along.
        steps=6400,
        tiles=24,
        rate=6e-4,
        encoder=0.0,
    ),
    # After 6,000 steps of all tasks alike, 29 % of words were right and no line, though letters were told at 81:
    # reading is learned from many texts.
    Stage(
        "whole",
        (Phase(0, _ALL), Phase(144_000, _READING)),
        steps=6000,
        tiles=24,
        rate=6e-4,
        encoder=0.3,
    ),
    # What stands around questions in the stages before are two hundred sayings. Of 80 questions, a model of those alone
    # had 74 right, 32 where they ended in "thank you." and 6 in "thanks a lot.": it answered yes or no.
    Stage(
        "phrasing",
        (Phase(0, _READING),),
        steps=4500,
        tiles=24,
        rate=4e-4,
        encoder=0.3,
        any_words=True,
    ),
)
BY_NAME = {stage.name: stage for stage in STAGES}
