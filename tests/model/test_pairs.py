from __future__ import annotations

import pytest

from edgevl.model.pairs import Pair, pairs


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # as the projects that publish them call them
        (
            ["SmolVLM-256M-Instruct-Q8_0.gguf", "mmproj-SmolVLM-256M-Instruct-Q8_0.gguf", "README.md"],
            [Pair("SmolVLM-256M-Instruct-Q8_0.gguf", "mmproj-SmolVLM-256M-Instruct-Q8_0.gguf", "q8_0")],
        ),
        (
            ["ggml-model-f16.gguf", "ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"],
            [
                Pair("ggml-model-q4_k.gguf", "mmproj-model-f16.gguf", "q4_k"),
                Pair("ggml-model-f16.gguf", "mmproj-model-f16.gguf", "f16"),
            ],
        ),
        (
            ["llava-v1.5-7b-Q4_K.gguf", "llava-v1.5-7b-mmproj-Q4_0.gguf", "llava-v1.5-7b-mmproj-f16.gguf"],
            [Pair("llava-v1.5-7b-Q4_K.gguf", "llava-v1.5-7b-mmproj-f16.gguf", "q4_k")],
        ),
        (["Model.gguf", "mmproj.gguf"], [Pair("Model.gguf", "mmproj.gguf", "")]),
        (["a.GGUF", "MMPROJ.gguf"], [Pair("a.GGUF", "MMPROJ.gguf", "")]),
        ([], []),
        (["only-Q4_K_M.gguf"], []),
        (["mmproj-only.gguf"], []),
        (["big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "mmproj-big-f16.gguf"], []),
    ],
)
def test_a_decoder_and_its_mmproj(names: list[str], expected: list[Pair]) -> None:
    assert pairs(names) == expected


def test_an_mmproj_that_is_named_after_its_model_is_no_other_models() -> None:
    one, two = "SmolVLM-500M-Instruct-Q8_0.gguf", "SmolVLM2-500M-Video-Instruct-Q8_0.gguf"
    assert pairs([one, f"mmproj-{one}", two, f"mmproj-{two}"]) == [
        Pair(one, f"mmproj-{one}", "q8_0"),
        Pair(two, f"mmproj-{two}", "q8_0"),
    ]
    assert pairs([one, f"mmproj-{one}", two]) == [Pair(one, f"mmproj-{one}", "q8_0")]
    assert pairs([one, f"mmproj-{one}", two, "mmproj-f16.gguf"])[1] == Pair(two, "mmproj-f16.gguf", "q8_0")


def test_four_bits_come_first_and_unknown_weights_last() -> None:
    names = [f"m-{weights}.gguf" for weights in ("IQ2_XXS", "F32", "Q8_0", "Q4_0", "Q4_K_M", "BF16")]
    assert [pair.weights for pair in pairs([*names, "mmproj-m-f16.gguf"])] == [
        *("q4_k_m", "q4_0", "q8_0", "bf16", "f32", "iq2_xxs"),
    ]


def test_files_belong_together_within_their_folder() -> None:
    names = ["a/m-Q8_0.gguf", "a/mmproj-f16.gguf", "b/n-Q8_0.gguf", "c/mmproj-f16.gguf", "o-Q8_0.gguf"]
    assert pairs(names) == [Pair("a/m-Q8_0.gguf", "a/mmproj-f16.gguf", "q8_0")]


def test_of_several_models_in_one_folder_each_has_its_own() -> None:
    """As llama.cpp's cache has them: owner_repository_file."""
    one, two = "org_small-GGUF_", "org_small-GGUF-v2_"
    names = [f"{model}{file}" for model in (one, two) for file in ("x-Q8_0.gguf", "mmproj-x-Q8_0.gguf")]
    assert pairs(names) == [
        Pair(f"{two}x-Q8_0.gguf", f"{two}mmproj-x-Q8_0.gguf", "q8_0"),
        Pair(f"{one}x-Q8_0.gguf", f"{one}mmproj-x-Q8_0.gguf", "q8_0"),
    ]
