from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgevl.errors import ContextOverflow, EdgeVLError, InputError
from edgevl.types import (
    Answer,
    Delta,
    Features,
    ImageChunk,
    ImageInfo,
    ImagePart,
    Message,
    SamplingParams,
    TextChunk,
    TextPart,
    Timings,
    Usage,
    as_messages,
)

PART_RULE = (
    "message 0: a part must be {'type': 'text', 'text': ...}, {'type': 'image', 'image': ...} "
    "or {'type': 'image_url', 'image_url': {'url': ...}}, not "
)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("temperature", -0.1, "0 or more"),
        ("temperature", float("nan"), "0 or more"),
        ("temperature", float("inf"), "0 or more"),
        pytest.param("temperature", 10**400, "0 or more", id="temperature-10**400-0 or more"),
        ("temperature", "hot", "0 or more"),
        ("temperature", True, "0 or more"),
        ("top_k", -1, "0 (off) or more, a whole number"),
        ("top_k", 1.5, "0 (off) or more, a whole number"),
        ("top_p", 0, "above 0 and at most 1"),
        ("top_p", 1.1, "above 0 and at most 1"),
        ("top_p", None, "above 0 and at most 1"),
        ("min_p", -0.1, "between 0 and 1"),
        ("min_p", 1.01, "between 0 and 1"),
        ("repetition_penalty", 0, "between 0.01 and 100"),
        ("repetition_penalty", float("inf"), "between 0.01 and 100"),
        ("max_tokens", 0, "1 or more, a whole number"),
        ("max_tokens", 2.0, "1 or more, a whole number"),
        ("max_tokens", "9", "1 or more, a whole number"),
        ("stop", "", "a non-empty string or several"),
        ("stop", ("a", ""), "a non-empty string or several"),
        ("stop", 5, "a non-empty string or several"),
        ("stop", (5,), "a non-empty string or several"),
        ("seed", -1, "0 or more, a whole number, or None"),
        ("seed", 0.5, "0 or more, a whole number, or None"),
    ],
)
def test_sampling_out_of_range_names_field_value_and_range(field: str, value: Any, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        SamplingParams(**{field: value})
    assert str(caught.value) == f"sampling: {field} is {value!r}; it must be {wanted}"


def test_sampling_takes_the_ends_of_its_ranges_and_numpy_numbers() -> None:
    SamplingParams(temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=100, max_tokens=1, seed=0)
    numbers: dict[str, Any] = {"temperature": np.float32(0.5), "top_k": np.int64(3), "seed": np.int64(7)}
    params = SamplingParams(**numbers)
    assert (params.temperature, params.top_k, params.seed) == (0.5, 3, 7)
    small = SamplingParams(max_tokens=np.uint8(200), top_k=np.uint32(5))  # type: ignore[arg-type]
    assert small.max_tokens + 332 == 532  # what would overflow
    assert -small.top_k == -5


def test_stop_is_one_string_or_several() -> None:
    assert SamplingParams().stop_strings == ()
    assert SamplingParams(stop="end").stop_strings == ("end",)
    assert SamplingParams(stop=["a", "b"]).stop_strings == ("a", "b")


def test_messages_from_dictionaries() -> None:
    messages = as_messages(
        [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": "photo.jpg"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "what's here?"},
                ],
            },
            Message("assistant", (TextPart("a cat"),)),
        ]
    )
    assert messages == [
        Message("system", (TextPart("Be brief."),)),
        Message("user", (ImagePart("photo.jpg"), ImagePart("data:image/png;base64,AAAA"), TextPart("what's here?"))),
        Message("assistant", (TextPart("a cat"),)),
    ]


def test_an_array_is_an_image() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    for given in ({"type": "image", "image": array}, {"type": "image_url", "image_url": {"url": array}}):
        [message] = as_messages([{"role": "user", "content": [given]}])
        [part] = message.parts
        assert isinstance(part, ImagePart)
        assert part.image is array


def test_an_image_may_bring_its_own_detail() -> None:
    low, few, none = {"url": "a", "detail": "low"}, {"type": "image", "image": "b", "detail": 2}, {"url": "c"}
    content = [{"type": "image_url", "image_url": low}, few, {"type": "image_url", "image_url": none}]
    [message] = as_messages([{"role": "user", "content": content}])
    assert message.parts == (ImagePart("a", "low"), ImagePart("b", 2), ImagePart("c"))


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ("hello", "messages must be a list, not str"),
        ({"role": "user"}, "messages must be a list, not dict"),
        (None, "messages must be a list, not NoneType"),
        (["hello"], "message 0: must be a Message or a dictionary, not str"),
        ([{"role": "tool", "content": "x"}], "message 0: role is 'tool'; it must be system, user or assistant"),
        ([{"role": [1, 2], "content": "x"}], "message 0: role is [1, 2]; it must be system, user or assistant"),
        ([{"content": "x"}], "message 0: role is None; it must be system, user or assistant"),
        (
            [Message("robot", (TextPart("x"),))],  # type: ignore[arg-type]
            "message 0: role is 'robot'; it must be system, user or assistant",
        ),
        (
            [{"role": "user", "content": "a"}, {"role": "user", "content": []}],
            "message 1: content must be a string or a non-empty list of parts",
        ),
        ([{"role": "user", "content": 5}], "message 0: content must be a string or a non-empty list of parts"),
        ([{"role": "user"}], "message 0: content must be a string or a non-empty list of parts"),
        ([Message("user", ())], "message 0: content must be a string or a non-empty list of parts"),
        ([{"role": "user", "content": ["hi"]}], PART_RULE + "hi"),
        ([{"role": "user", "content": [{"type": "text"}]}], PART_RULE + "{'type': 'text'}"),
        ([{"role": "user", "content": [{"type": "image"}]}], PART_RULE + "{'type': 'image'}"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            PART_RULE + "{'type': 'image_url', 'image_url': 'x'}",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"detail": "low"}}]}],
            PART_RULE + "{'type': 'image_url', 'image_url': {'detail': 'low'}}",
        ),
        ([Message("user", (TextPart(None),))], PART_RULE + "TextPart(text=None)"),  # type: ignore[arg-type]
    ],
)
def test_malformed_messages_name_the_message_and_the_field(messages: Any, error: str) -> None:
    with pytest.raises(InputError) as caught:
        as_messages(messages)
    assert str(caught.value) == error


def test_a_wrong_part_is_shown_only_in_part() -> None:
    with pytest.raises(InputError) as caught:
        as_messages([{"role": "user", "content": ["x" * 10_000]}])
    assert str(caught.value) == PART_RULE + "x" * 80


def test_chunks_count_their_tokens() -> None:
    assert TextChunk((1, 2, 3)).n_tokens == 3
    assert ImageChunk(image=0, tile=4, n_tokens=64).n_tokens == 64


def test_an_answer_is_its_text_and_plain_data() -> None:
    answer = Answer(
        text="a red circle",
        finish_reason="stop",
        usage=Usage(prompt_tokens=40, image_tokens=16, cached_tokens=0, completion_tokens=3),
        timings=Timings(load_s=0.25),
        images=(ImageInfo("ab", (512, 640), (1, 2), n_tiles=3, n_encoded=2, n_tokens=48),),
        model="tiny",
        token_ids=(5, 6, 7),
    )
    assert str(answer) == "a red circle"
    plain = json.loads(json.dumps(answer.to_dict()))
    assert plain["usage"] == {
        "prompt_tokens": 40,
        "image_tokens": 16,
        "cached_tokens": 0,
        "completion_tokens": 3,
    }
    assert plain["images"][0]["size"] == [512, 640]
    assert plain["timings"]["load_s"] == 0.25
    assert plain["token_ids"] == [5, 6, 7]
    assert "token_ids" not in repr(answer)


def test_features_are_compared_by_what_they_are_of() -> None:
    def features(image_id: str) -> Features:
        return Features(
            image_id, "model", (512, 512), (2, 2), "tiles", (np.ones((4, 8), np.float32), np.ones((4, 8), np.float32))
        )

    assert features("ab") == features("ab")
    assert features("ab") != features("cd")
    assert len({features("ab"), features("ab"), features("cd")}) == 2


def test_a_delta_is_text_and_token() -> None:
    assert Delta("red", 7) == Delta(text="red", token_id=7)


def test_errors_are_one_tree() -> None:
    error = ContextOverflow("too long", n_tokens=900, n_context=512)
    assert isinstance(error, InputError)
    assert isinstance(error, EdgeVLError)
    assert (str(error), error.n_tokens, error.n_context) == ("too long", 900, 512)
