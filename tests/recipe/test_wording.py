"""Patterns of phrasings: what they are written out to."""

from __future__ import annotations

from edgevl.recipe.wording import MOST, spelled


def test_every_choice_is_written_out_once_and_cleanly() -> None:
    assert spelled("[what|which] is [it|this]?", "is it [|a red ]{}[, yes or no|]?", "what is it?") == (
        "what is it?", "what is this?", "which is it?", "which is this?",
        "is it {}, yes or no?", "is it {}?", "is it a red {}, yes or no?", "is it a red {}?",
    )  # fmt: skip
    assert spelled("see [here|] [too|]?", "[|so] it is") == (
        "see here too?", "see here?", "see too?", "see?", "it is", "so it is",
    )  # fmt: skip


def test_a_pattern_of_many_wordings_is_a_sample_of_them_that_never_moves() -> None:
    pattern = "[a|b|c|d] [e|f|g|h] [i|j|k|l]"
    found = spelled(pattern)
    assert len(set(found)) == len(found) == MOST
    assert found == spelled(pattern)
    assert {text[0] for text in found} == set("abcd")
