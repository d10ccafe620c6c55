"""The bundled model through the Python interface: the same answer by every way, and errors in plain words."""

from __future__ import annotations

import base64
import gc
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

import edgevl
from edgevl import EdgeVLError, InputError
from edgevl.image.read import read
from edgevl.pipeline import Stream
from tests import interrupting

T = TypeVar("T")

SHAPES = Path(__file__).parents[1] / "models" / "samples" / "shapes.png"
QUESTION = "what's here?"


@pytest.fixture(scope="module", params=["onnx", "gguf"])
def folder(request: pytest.FixtureRequest) -> Path | None:
    """The bundled model, by its own decoder and by llama.cpp."""
    return Path(request.getfixturevalue("bundled_gguf_dir")) if request.param == "gguf" else None


@pytest.fixture(scope="module")
def vlm(folder: Path | None) -> Iterator[edgevl.VLM]:
    with edgevl.load(folder, store=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def answer(vlm: edgevl.VLM) -> edgevl.Answer:
    return vlm.ask(SHAPES, QUESTION)


def fresh(vlm: edgevl.VLM) -> None:
    """Forget everything that an earlier question left behind."""
    model = vlm._open()
    model.decoder.truncate(0)
    model.held.clear()
    model.tiles.clear()
    model.prefixes.clear()


def elsewhere(do: Callable[[], T]) -> T:
    """Return what is done in another thread, which is not to wait for this one."""
    done: list[T] = []
    thread = threading.Thread(target=lambda: done.append(do()), daemon=True)
    thread.start()
    thread.join(30)
    [result] = done
    return result


def test_the_same_by_path_bytes_base64_array_and_pil(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    data = SHAPES.read_bytes()
    forms = [
        str(SHAPES),
        data,
        "data:image/png;base64," + base64.b64encode(data).decode(),
        read(SHAPES).rgb,
        Image.open(io.BytesIO(data)),
    ]
    for form in forms:
        fresh(vlm)
        again = vlm.ask(form, QUESTION)
        assert again.token_ids == answer.token_ids
        assert again.images[0].id == answer.images[0].id


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_with_one_thread_and_two(folder: Path | None, threads: int, answer: edgevl.Answer) -> None:
    with edgevl.load(folder, threads=threads) as other:
        assert other.ask(SHAPES, QUESTION).token_ids == answer.token_ids


def test_the_answer_reports_what_was_done(vlm: edgevl.VLM) -> None:
    fresh(vlm)
    done: list[tuple[int, int]] = []
    answer = vlm.ask(SHAPES, QUESTION, on_tile=lambda *progress: done.append(progress))
    (image,) = answer.images
    assert (image.size, image.grid, image.n_tiles, image.n_encoded) == ((512, 512), (2, 2), 5, 5)
    assert image.n_tokens == answer.usage.image_tokens == 5 * 64
    assert done == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == len(answer.token_ids) > 0
    assert answer.timings.total_s >= answer.timings.first_token_s > 0
    assert answer.timings.encode_s > 0
    assert answer.model == "edgevl-tiny"


def test_a_second_question_encodes_nothing_and_reuses_the_prefix(vlm: edgevl.VLM) -> None:
    fresh(vlm)
    vlm.ask(SHAPES, QUESTION)
    second = vlm.ask(SHAPES, "how many objects are there?")
    reused = second.usage.cached_tokens
    assert second.images[0].n_encoded == 0
    assert second.usage.image_tokens < reused < second.usage.prompt_tokens
    fresh(vlm)
    assert vlm.ask(SHAPES, "how many objects are there?").token_ids == second.token_ids


def test_detail_changes_the_plan(vlm: edgevl.VLM) -> None:
    assert vlm.ask(SHAPES, QUESTION, detail="low", max_tokens=1).images[0].n_tiles == 1
    assert vlm.ask(SHAPES, QUESTION, detail=4, max_tokens=1).images[0].n_tiles == 1
    assert vlm.ask(SHAPES, QUESTION, detail=5, max_tokens=1).images[0].n_tiles == 5
    small = read(SHAPES).rgb[:100, :100]
    assert vlm.ask(small, QUESTION, max_tokens=1).images[0].n_tiles == 1
    assert vlm.ask(small, QUESTION, detail="high", max_tokens=1).images[0].n_tiles == 5


def test_repeated_tiles_are_encoded_once(vlm: edgevl.VLM) -> None:
    fresh(vlm)
    blank = np.full((256, 256, 3), 200, np.uint8)
    assert vlm.ask(blank, QUESTION, max_tokens=1).images[0].n_encoded == 1


def test_encode_once_ask_many(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    features = vlm.encode(SHAPES)
    assert [tile.shape for tile in features.tiles] == [(64, vlm.manifest.decoder.hidden_size)] * 5
    fresh(vlm)
    again = vlm.ask(features, QUESTION)
    assert again.token_ids == answer.token_ids
    assert again.images[0].n_encoded == 0
    alien = replace(features, model_id="another")
    with pytest.raises(
        InputError, match="encoded by another model or on another kind of processor; encode the image again here"
    ):
        vlm.ask(alien, QUESTION)


def test_a_stream_gives_the_answer_in_pieces(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    with vlm.stream(SHAPES, QUESTION) as stream:
        with pytest.raises(InputError, match="not finished"):
            _ = stream.answer
        deltas = list(stream)
    assert len(deltas) > 3
    assert "".join(delta.text for delta in deltas) == stream.answer.text == answer.text
    assert tuple(delta.token_id for delta in deltas)[: len(answer.token_ids)] == answer.token_ids


def test_seeded_sampling_repeats(vlm: edgevl.VLM) -> None:
    options = {"temperature": 3.0, "max_tokens": 12}
    first, again, other = (vlm.ask(SHAPES, QUESTION, seed=seed, **options) for seed in (7, 7, 8))
    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


def test_stop_strings_and_length(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    word = answer.text.split()[1]
    stopped = vlm.ask(SHAPES, QUESTION, stop=word)
    assert stopped.text == answer.text[: answer.text.index(word)]
    assert stopped.finish_reason == "stop"
    cut = vlm.ask(SHAPES, QUESTION, max_tokens=2)
    assert (cut.finish_reason, cut.usage.completion_tokens) == ("length", 2)
    assert answer.text.startswith(cut.text)


def test_cancel_between_tokens_and_between_tiles(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    stream = vlm.stream(SHAPES, QUESTION)
    next(stream)
    stream.cancel()
    assert stream.finish().finish_reason == "cancelled"
    fresh(vlm)
    cancel = threading.Event()
    seen: list[int] = []

    def on_tile(done: int, total: int) -> None:
        seen.append(done)
        cancel.set()

    stopped = vlm.ask(SHAPES, QUESTION, cancel=cancel, on_tile=on_tile)
    assert (stopped.finish_reason, stopped.text, seen) == ("cancelled", "", [1])
    fresh(vlm)
    cancel.clear()
    threading.Timer(0.005, cancel.set).start()  # somewhere in the middle, perhaps of a chunk
    vlm.ask(SHAPES, QUESTION, cancel=cancel)
    assert vlm.ask(SHAPES, QUESTION).token_ids == answer.token_ids


def test_leaving_a_stream_early_frees_the_model(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    with vlm.stream(SHAPES, QUESTION) as stream:
        next(stream)
        with pytest.raises(edgevl.Busy, match=r"left unfinished; read that stream to its end or close\(\) it"):
            vlm.ask(SHAPES, QUESTION)
    assert vlm.ask(SHAPES, QUESTION).token_ids == answer.token_ids


def test_an_answer_that_was_broken_off_is_to_be_asked_for_again(vlm: edgevl.VLM) -> None:
    stream = vlm.stream(SHAPES, QUESTION)
    with pytest.raises(InputError, match=r"is not finished; .* call finish\(\)"):
        _ = stream.answer
    next(stream)
    stream.close()
    with pytest.raises(InputError, match=r"the answer was broken off, by close\(\) or an error; ask again"):
        stream.finish()


def test_a_stream_that_nobody_has_any_more_frees_the_model(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    gc.disable()  # a process that waits collects no cycles
    try:
        for _ in vlm.stream(SHAPES, QUESTION):
            break
        assert elsewhere(lambda: vlm.ask(SHAPES, QUESTION).token_ids) == answer.token_ids
    finally:
        gc.enable()


def test_an_answer_that_is_interrupted_frees_the_model(
    vlm: edgevl.VLM, answer: edgevl.Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # between two tokens, where the stream itself is not at work
        patch.setattr(Stream, "__next__", interrupting.at_call(3, Stream.__next__))
        with pytest.raises(KeyboardInterrupt) as kept:
            vlm.ask(SHAPES, QUESTION)
    assert kept.value.__traceback__ is not None  # with its frames, as a notebook keeps them
    assert elsewhere(lambda: vlm.ask(SHAPES, QUESTION).token_ids) == answer.token_ids


def test_an_error_while_a_stream_is_read_is_the_one_that_is_seen(folder: Path | None) -> None:
    def read() -> None:
        with edgevl.load(folder, store=False) as vlm:
            for delta in vlm.stream(SHAPES, QUESTION):
                raise ZeroDivisionError(delta.text)

    with pytest.raises(ZeroDivisionError):
        read()


def test_a_model_is_not_closed_by_what_its_own_answer_calls(folder: Path | None) -> None:
    with edgevl.load(folder, store=False) as vlm:
        with pytest.raises(edgevl.Busy, match="this thread is at work on an answer of this model; ask again, or close"):
            vlm.ask(SHAPES, QUESTION, on_tile=lambda done, total: vlm.close())
        assert vlm.ask(SHAPES, QUESTION).text


def test_a_stream_that_is_being_read_is_not_closed_or_read_by_another(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    def on_tile(done: int, total: int) -> None:
        for meddle in (stream.close, stream.finish, stream.__next__):
            with pytest.raises(edgevl.Busy, match=r"being read.*cancel\(\) ends it"):
                meddle()

    fresh(vlm)
    stream = vlm.stream(SHAPES, QUESTION, on_tile=on_tile)
    assert stream.finish().token_ids == answer.token_ids


def test_who_reads_a_stream_on_is_who_may_not_ask_meanwhile(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    stream = vlm.stream(SHAPES, QUESTION)
    next(stream)

    def read_on() -> None:
        next(stream)
        with pytest.raises(edgevl.Busy):
            vlm.ask(SHAPES, QUESTION)

    elsewhere(read_on)
    threading.Timer(0.1, stream.close).start()
    assert vlm.ask(SHAPES, QUESTION).token_ids == answer.token_ids  # having waited for it


def test_what_is_told_of_an_answer_may_ask_the_next_question(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    told: list[edgevl.Answer] = []
    vlm.ask(SHAPES, QUESTION, on_answer=lambda _: told.append(vlm.ask(SHAPES, QUESTION)))
    assert [one.token_ids for one in told] == [answer.token_ids]


def test_several_threads_queue_up(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    answers: list[tuple[int, ...]] = []
    ask = lambda: answers.append(vlm.ask(SHAPES, QUESTION).token_ids)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [answer.token_ids] * 4


def test_a_conversation_equals_its_messages_from_scratch(vlm: edgevl.VLM) -> None:
    fresh(vlm)
    chat = vlm.chat()
    first = chat.ask(QUESTION, SHAPES)
    second = chat.ask("how many objects are there?")
    assert (first.images[0].n_encoded, second.images[0].n_encoded) == (5, 0)
    assert second.usage.cached_tokens == first.usage.prompt_tokens
    vlm.ask(np.zeros((64, 64, 3), np.uint8), "what colour is this?")  # another request in between
    third = chat.ask("is there a circle?")
    assert third.images[0].n_encoded == 0
    fresh(vlm)
    assert vlm.stream_messages(chat.messages[:-1]).finish().token_ids == third.token_ids
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 3


def test_a_failed_or_cancelled_turn_leaves_the_conversation_as_it_was(vlm: edgevl.VLM) -> None:
    chat = vlm.chat()
    with pytest.raises(InputError):
        chat.ask("   ", SHAPES)
    with chat.stream(QUESTION, SHAPES) as stream:
        next(stream)
    cancelled = threading.Event()
    cancelled.set()
    chat.ask(QUESTION, SHAPES, cancel=cancelled)
    assert chat.messages == []


def test_answers_that_are_read_in_turn_are_all_kept(vlm: edgevl.VLM) -> None:
    chat = vlm.chat(max_tokens=2)
    streams = [chat.stream(question, SHAPES) for question in (QUESTION, "how many objects are there?")]
    first, second = (stream.finish().text for stream in streams)
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 2
    assert [message.parts[-1] for message in chat.messages[1::2]] == [edgevl.TextPart(first), edgevl.TextPart(second)]


def test_a_turn_and_a_conversation_take_on_answer_too(vlm: edgevl.VLM) -> None:
    told: list[tuple[str, int]] = []
    chat = vlm.chat(max_tokens=2, on_answer=lambda answer: told.append((answer.text, len(chat.messages))))
    first = chat.ask(QUESTION, SHAPES)
    second = chat.ask("how many objects are there?", on_answer=lambda answer: told.append((answer.text, 0)))
    assert told == [(first.text, 2), (second.text, 0)]
    assert len(chat.messages) == 4


def test_openai_style_messages(vlm: edgevl.VLM, answer: edgevl.Answer) -> None:
    url = "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    assert vlm.stream_messages([{"role": "user", "content": content}]).finish().token_ids == answer.token_ids


def test_context_overflow_says_what_would_fit(vlm: edgevl.VLM) -> None:
    n_context = vlm.manifest.decoder.context_length
    n_high = vlm.image_tokens(vlm.plan((512, 512), "high"))
    images = [SHAPES] * (n_context // n_high + 1)
    with pytest.raises(edgevl.ContextOverflow, match=rf"only {n_context - 1} fit .*--detail low would fit") as caught:
        vlm.ask(images, QUESTION, detail="high")
    assert caught.value.n_tokens >= n_context == caught.value.n_context
    assert f"has {caught.value.n_tokens} tokens" in str(caught.value)
    with pytest.raises(edgevl.ContextOverflow, match="no --detail would fit"):
        vlm.ask([SHAPES] * (n_context // 16 + 1), QUESTION)
    with pytest.raises(edgevl.ContextOverflow, match="shorten the text"):
        vlm.ask(None, "why? " * n_context)


def test_answers_end_where_the_context_does(vlm: edgevl.VLM) -> None:
    n_context = vlm.manifest.decoder.context_length
    answer = vlm.ask(None, "why? " * 10, max_tokens=10**6, temperature=50.0, top_k=0, seed=1)
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens <= n_context


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detail": "medium"}, "it must be auto, high, low, or a number of tiles"),
        ({"detail": 0}, "it must be auto, high, low, or a number of tiles"),
        ({"detail": np.ones(2)}, "it must be auto, high, low, or a number of tiles"),
        ({"temperature": -1}, "temperature is -1; it must be 0 or more"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be 1 or more"),
        ({"top_p": 0}, "top_p is 0; it must be above 0"),
        ({"temprature": 1}, "unknown option 'temprature'"),
        ({"max_pixels": 100}, "limit"),
        ({"max_pixels": "a"}, "max_pixels is 'a'"),
        ({"cancel": 5}, "cancel is 5; it must be a threading.Event"),
        ({"on_tile": 5}, "on_tile is 5; it must be a function"),
        ({"on_answer": 5}, "on_answer is 5; it must be a function"),
    ],
)
def test_bad_options(vlm: edgevl.VLM, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vlm.stream(SHAPES, QUESTION, **options)  # before anything is computed
    with pytest.raises(InputError, match=message):
        vlm.chat().stream(QUESTION, SHAPES, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name_or_dir": 123}, "123 is no path; give one as text"),
        ({"store": None}, "None is no path; give one as text"),
        ({"store": 5}, "5 is no path"),
        ({"store": ""}, "the store's folder is empty"),
        ({"device": ["cpu"]}, "is not supported by this version"),
    ],
)
def test_what_cannot_be_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeVLError, match=message):
        edgevl.load(**options)


def test_sizes_and_details(vlm: edgevl.VLM) -> None:
    with pytest.raises(InputError, match="it must be a height and a width"):
        vlm.plan((1,))  # type: ignore[arg-type]
    assert vlm.plan((500, 500), np.int64(4)) == vlm.plan((500, 500), 4)  # type: ignore[arg-type]


def test_bad_questions_and_images(vlm: edgevl.VLM) -> None:
    with pytest.raises(InputError, match="the question is empty"):
        vlm.ask(SHAPES, " \n")
    with pytest.raises(InputError, match="reserves for images; remove it"):
        vlm.ask(SHAPES, "what is <image>?")
    with pytest.raises(edgevl.ImageError, match=r"nowhere\.png"):
        vlm.ask("nowhere.png", QUESTION)


LATE = """
import sys, threading
main = threading.main_thread()


def late():
    main.join()
    import edgevl
    with edgevl.load(store=False, threads=1, device="cpu") as vlm:
        print(vlm.ask(sys.argv[1], "what's here?"))


threading.Thread(target=late).start()
"""


def test_a_thread_that_outlives_the_main_one_may_load_a_model() -> None:
    done = subprocess.run([sys.executable, "-c", LATE, str(SHAPES)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "a red circle, a blue square and a green triangle.", done.stderr


def test_a_closed_model_says_so() -> None:
    vlm = edgevl.load()
    vlm.close()
    vlm.close()
    with pytest.raises(InputError, match="has been closed; load it again"):
        vlm.ask(SHAPES, QUESTION)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name_or_dir": "no-such-model"}, edgevl.ModelNotFound, "edgevl models"),
        ({"name_or_dir": "/no/such/folder"}, edgevl.ModelNotFound, "no such model folder"),
        ({"device": "quantum"}, edgevl.BackendMissing, "use one of auto, cpu"),
        ({"threads": 0}, InputError, "it must be a whole number from 1 to"),
        ({"threads": "2"}, InputError, "threads is '2'; it must be a whole number from 1 to"),
    ],
)
def test_load_errors(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        edgevl.load(**arguments)  # type: ignore[arg-type]
